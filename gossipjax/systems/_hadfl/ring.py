"""The directed ring: scatter and gather fragments, notice a dead neighbour, leave it out and start again.

Member k of M sends a fragment of S/M bytes to the next member in each of 2 (M − 1) steps. The first leaves when k has
finished its unit of training; every later one when the fragment of the step before has come from the previous member.
So nobody needs to say that all are ready: with equal links the last fragment comes ``2 (M − 1) (L + S/(M B))`` seconds
after the last member is.
"""

from __future__ import annotations

from gossipjax.systems._hadfl.broadcast import spread
from gossipjax.systems._hadfl.coordinator import hear_result
from gossipjax.systems._hadfl.state import (
    ABANDONED,
    AVERAGED,
    CONTROL,
    EXCHANGING,
    FRAGMENT,
    SUPERSEDED,
    WAITING,
    Mean,
    Moment,
    Ring,
    Run,
    go_on,
    is_with,
    mark,
    move,
    tell,
)
from gossipjax.systems._hadfl.state import RING as RING_EVENT
from gossipjax.systems._kernel.loop import cut
from gossipjax.systems._kernel.queue import at, cancel
from gossipjax.systems._kernel.record import averages


def enter(run: Run, ring: Ring, node: int) -> None:
    """Let a member come that has finished its unit."""
    ring.entered.add(node)
    if ring.open:
        _send(run, ring, node)
        _wait(run, ring, node)
    _note_exchange(run, ring)
    _finish_if_done(run, ring)


def leave(run: Run, ring: Ring, node: int) -> None:
    """Let a member die; who waits for it will notice."""
    ring.entered.discard(node)
    _stop_waiting(ring, node)
    _note_exchange(run, ring)
    _finish_if_done(run, ring)


def _note_exchange(run: Run, ring: Ring) -> None:
    """Tell waiting from exchanging: the exchange begins when every living member has come."""
    living = [node for node in ring.order if is_with(run, node, ring)]
    if all(node in ring.entered for node in living):
        for node in living:
            if run.devices[node].state == WAITING:
                mark(run, node, EXCHANGING)


def _next_of(ring: Ring, node: int, step: int) -> int:
    return ring.order[(ring.order.index(node) + step) % len(ring.order)]


def _send(run: Run, ring: Ring, node: int) -> None:
    """Send the next fragment, if it is there and the last one has left."""
    sent, neighbor = ring.sent.get(node, 0), _next_of(ring, node, 1)
    ready = node in ring.entered and ring.sending.get(node) is None and sent < ring.num_steps
    if ready and sent <= ring.received.get(node, 0) and is_with(run, neighbor, ring):
        size = run.settings.model_bytes / len(ring.order)
        ring.sending[node] = move(run, FRAGMENT, (node, neighbor), size, _sent, ring, ring.attempt, node, neighbor)


def _sent(number: int, completed: bool, run: Run, ring: Ring, attempt: int, node: int, neighbor: int) -> None:
    if ring.over or attempt != ring.attempt:
        return
    ring.sending[node] = None
    if completed:
        ring.sent[node] = ring.sent.get(node, 0) + 1
        seconds = run.kernel.now + run.delay(node, neighbor)
        at(run.kernel.queue, seconds, _arrives, run, ring, attempt, neighbor, rank=CONTROL)
        _send(run, ring, node)


def _arrives(run: Run, ring: Ring, attempt: int, node: int) -> None:
    if ring.over or attempt != ring.attempt or not is_with(run, node, ring):
        return
    ring.received[node] = ring.received.get(node, 0) + 1
    _send(run, ring, node)
    _wait(run, ring, node)
    _finish_if_done(run, ring)


def _wait(run: Run, ring: Ring, node: int) -> None:
    """Wait for the next fragment, but not longer than the timeout."""
    _stop_waiting(ring, node)
    if node in ring.entered and ring.received.get(node, 0) < ring.num_steps:
        seconds = run.kernel.now + run.settings.timeout_s
        ring.timers[node] = at(run.kernel.queue, seconds, _ask, run, ring, ring.attempt, node, rank=CONTROL)


def _stop_waiting(ring: Ring, node: int) -> None:
    entry = ring.timers.pop(node, None)
    if entry is not None:
        cancel(entry)


def _ask(run: Run, ring: Ring, attempt: int, node: int) -> None:
    """Ask the previous member whether it lives."""
    neighbor = _next_of(ring, node, -1)
    run.rows[ring.number].handshakes += 1
    tell(run, "handshake", node, neighbor, _answer, ring, attempt, node, neighbor)
    seconds = run.kernel.now + run.settings.handshake_s
    ring.timers[node] = at(run.kernel.queue, seconds, _leave_out, run, ring, node, neighbor, rank=CONTROL)


def _answer(run: Run, ring: Ring, attempt: int, node: int, neighbor: int) -> None:
    """Answer, if alive; one that has come back says that it has forgotten the ring."""
    if run.kernel.online[neighbor]:
        tell(run, "answer", neighbor, node, _hear, ring, attempt, node, neighbor, is_with(run, neighbor, ring))


def _hear(run: Run, ring: Ring, attempt: int, node: int, neighbor: int, is_member: bool) -> None:
    if ring.over or attempt != ring.attempt or not is_with(run, node, ring) or node not in ring.timers:
        return
    if is_member:
        _wait(run, ring, node)
    else:
        _leave_out(run, ring, node, neighbor)


def _leave_out(run: Run, ring: Ring, node: int, neighbor: int) -> None:
    """Take a dead member out; the others start again once the farthest has heard of it."""
    run.rows[ring.number].bypassed += 1
    ring.order.remove(neighbor)
    _stop(run, ring)
    others = [member for member in ring.order if member != node]
    if not others:
        _end(run, ring, ABANDONED, node)
        return
    ring.open = False
    for member in others:
        tell(run, "restart", node, member, _nothing)
    seconds = run.kernel.now + max(run.delay(node, member) for member in others)
    at(run.kernel.queue, seconds, _restart, run, ring, ring.attempt, rank=CONTROL)


def _nothing(run: Run) -> None:
    """Do nothing now: the ring starts again when all have heard."""


def _stop(run: Run, ring: Ring) -> None:
    """End all transfers and timers of this attempt."""
    ring.attempt += 1
    for number in [number for number in ring.sending.values() if number is not None]:
        cut(run.kernel, number)
    for node in list(ring.timers):
        _stop_waiting(ring, node)
    ring.received, ring.sent, ring.sending = {}, {}, {}


def _restart(run: Run, ring: Ring, attempt: int) -> None:
    if ring.over or attempt != ring.attempt:
        return
    ring.open = True
    for node in list(ring.order):
        if node in ring.entered:
            _send(run, ring, node)
            _wait(run, ring, node)
    _finish_if_done(run, ring)


def _finish_if_done(run: Run, ring: Ring) -> None:
    """Take the mean when every living member has all fragments; give up when nobody lives."""
    if ring.over:
        return
    living = [node for node in ring.order if is_with(run, node, ring)]
    if not living:
        _stop(run, ring)
        _end(run, ring, ABANDONED, ring.order[0])
    elif ring.open and all(ring.received.get(node, 0) >= ring.num_steps for node in living) and len(ring.order) > 1:
        _average(run, ring, living)


def _average(run: Run, ring: Ring, living: list[int]) -> None:
    """Give every living member the mean of all members, the same for all."""
    row, kernel = run.rows[ring.number], run.kernel
    versions = [run.devices[node].version for node in ring.order]
    version = max(versions) if run.settings.merging.ring_version == "max" else sum(versions) / len(versions)
    mean = Mean(len(run.means), version)
    run.means.append(mean)
    run.members[mean.number] = sorted(ring.order), sorted(living)
    run.moments.append(Moment(kernel.now, RING_EVENT, -1, mean.number, 0.0))
    row.survivors = tuple(sorted(ring.order))
    _stop(run, ring)
    for node in living:
        device = run.devices[node]
        device.version = version
        averages(kernel.record, kernel.now, node)
        if device.mailbox is not None:
            run.fates[device.mailbox.number] = SUPERSEDED
            device.mailbox = None
    _end(run, ring, AVERAGED, living[0])
    spread(run, mean, living, row)


def _end(run: Run, ring: Ring, outcome: int, teller: int) -> None:
    """Let the members go on, and the coordinator know."""
    ring.over = True
    run.rows[ring.number].end_s = run.kernel.now
    tell(run, "result", teller, run.settings.num_nodes, hear_result, ring, outcome)
    for node, device in enumerate(run.devices):
        if device.ring is ring:
            device.ring = None
            if node in ring.entered:
                go_on(run, node)
