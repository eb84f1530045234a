"""The directed ring: scatter and gather fragments, notice a dead neighbour, leave it out and start again.

Member k of M sends a fragment of S/M bytes to the next member in each of 2 (M − 1) steps. The first leaves when k has
finished its unit of training; every later one when the fragment of the step before has come from the previous member.
So nobody needs to say that all are ready: with equal links the last fragment comes ``2 (M − 1) (L + S/(M B))`` seconds
after the last member is.
"""

from __future__ import annotations

from gossipjax.systems._hadfl.actions import go_on, is_with, mark, move, take, tell
from gossipjax.systems._hadfl.broadcast import spread
from gossipjax.systems._hadfl.coordinator import end_ring
from gossipjax.systems._hadfl.state import Mean, Member, Moment, Ring, Run
from gossipjax.systems._hadfl.tables import (
    ABANDONED,
    AVERAGE,
    AVERAGED,
    CONTROL,
    EXCHANGING,
    FRAGMENT,
    KEEP,
    STARTS,
    WAITING,
)
from gossipjax.systems._kernel.loop import cut
from gossipjax.systems._kernel.queue import at, cancel


def enter(run: Run, ring: Ring, node: int) -> None:
    """Let a member come that has finished its unit."""
    ring.entered.add(node)
    mark(run, node, WAITING)
    if ring.open:
        _send(run, ring, node)
        _wait(run, ring, node)
    _note_exchange(run, ring)
    _finish_if_done(run, ring)


def leave(run: Run, ring: Ring, node: int) -> None:
    """Let a member die. Who waits for it will notice; if nobody does, the mean holds the model that it had."""
    if ring.over:
        return
    if node in ring.entered:
        ring.entered.discard(node)
        ring.kept[node] = run.num_kept, run.devices[node].version
        run.moments.append(Moment(run.kernel.now, KEEP, node, run.num_kept))
        run.num_kept += 1
    _stop_waiting(ring, node)
    _note_exchange(run, ring)
    _finish_if_done(run, ring)


def _living(run: Run, ring: Ring) -> list[int]:
    return [node for node in ring.order if is_with(run, node, ring)]


def _note_exchange(run: Run, ring: Ring) -> None:
    """Tell waiting from exchanging: the exchange begins when every living member has come."""
    living = _living(run, ring)
    if all(node in ring.entered for node in living):
        for node in living:
            if run.devices[node].state == WAITING:
                mark(run, node, EXCHANGING)


def _neighbor(ring: Ring, node: int, step: int) -> int:
    return ring.order[(ring.order.index(node) + step) % len(ring.order)]


def _send(run: Run, ring: Ring, node: int) -> None:
    """Send the next fragment, if it is there and the last one has left."""
    sent, neighbor = ring.sent.get(node, 0), _neighbor(ring, node, 1)
    is_free = node in ring.entered and node not in ring.sending and sent < ring.num_steps
    if is_free and sent <= ring.received.get(node, 0) and is_with(run, neighbor, ring):
        size = run.settings.model_bytes / len(ring.order)
        ring.sending[node] = move(run, FRAGMENT, (node, neighbor), size, _sent, ring, ring.attempt, node, neighbor)


def _sent(number: int, completed: bool, run: Run, ring: Ring, attempt: int, node: int, neighbor: int) -> None:
    if ring.over or attempt != ring.attempt:
        return
    del ring.sending[node]
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
    if ring.received[node] >= ring.num_steps:  # no other fragment can be the last
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
    """Ask the previous member whether it lives. An answer that comes at the last instant is in time."""
    neighbor = _neighbor(ring, node, -1)
    run.cycles[ring.number].handshakes += 1
    tell(run, "handshake", node, neighbor, _answer, ring, attempt, node, neighbor)
    seconds = run.kernel.now + run.settings.handshake_s
    ring.timers[node] = at(run.kernel.queue, seconds, _leave_out, run, ring, node, neighbor, rank=STARTS)


def _answer(run: Run, ring: Ring, attempt: int, node: int, neighbor: int) -> None:
    """Answer, if alive; one that has died and come back says that it has forgotten the ring."""
    if run.kernel.online[neighbor]:
        tell(run, "answer", neighbor, node, _hear, ring, attempt, node, neighbor, is_with(run, neighbor, ring))


def _hear(run: Run, ring: Ring, attempt: int, node: int, neighbor: int, is_member: bool) -> None:
    if ring.over or attempt != ring.attempt or node not in ring.timers:
        return
    if is_member:
        _wait(run, ring, node)
    else:
        _leave_out(run, ring, node, neighbor)


def _leave_out(run: Run, ring: Ring, node: int, neighbor: int) -> None:
    """Take a dead member out; the others start again once the farthest has heard of it."""
    run.cycles[ring.number].bypassed += 1
    ring.order.remove(neighbor)
    _stop(run, ring)
    others = [member for member in ring.order if member != node]
    if not others:
        _end(run, ring, ABANDONED)
        return
    ring.open = False
    for member in others:
        tell(run, "restart", node, member, None)
    seconds = run.kernel.now + max(run.delay(node, member) for member in others)
    at(run.kernel.queue, seconds, _restart, run, ring, ring.attempt, rank=CONTROL)


def _stop(run: Run, ring: Ring) -> None:
    """End all transfers and timers of this attempt."""
    ring.attempt += 1
    for number in list(ring.sending.values()):
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
    living = _living(run, ring)
    if not living:
        _stop(run, ring)
        _end(run, ring, ABANDONED)
    elif ring.open and len(ring.order) > 1 and all(ring.received.get(node, 0) >= ring.num_steps for node in living):
        _average(run, ring, living)


def _average(run: Run, ring: Ring, living: list[int]) -> None:
    """Give every living member the mean of all members, the same for all."""
    record = run.cycles[ring.number]
    members = [Member(node, -1 if node in living else ring.kept[node][0]) for node in sorted(ring.order)]
    versions = [run.devices[node].version if kept < 0 else ring.kept[node][1] for node, kept in members]
    version = max(versions) if run.settings.merging.ring_version == "max" else sum(versions) / len(versions)
    mean = Mean(len(run.means), version)
    run.means.append(mean)
    run.members[mean.number] = members, sorted(living)
    run.moments.append(Moment(run.kernel.now, AVERAGE, -1, mean.number))
    record.survivors = tuple(member.node for member in members)
    _stop(run, ring)
    for node in living:
        run.devices[node].version = version
        take(run, node, mean)
    _end(run, ring, AVERAGED)
    spread(run, mean, living, record)


def _end(run: Run, ring: Ring, outcome: int) -> None:
    """Let the members go on, and the coordinator know."""
    end_ring(run, ring, outcome)
    for node, device in enumerate(run.devices):
        if device.ring is ring:
            device.ring = None
            if node in ring.entered:
                go_on(run, node)
