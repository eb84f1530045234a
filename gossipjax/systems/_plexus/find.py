"""Find nodes that are alive: each ping is sent again once, then given up."""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from gossipjax.systems._kernel.queue import at, cancel, later, wait, waiting
from gossipjax.systems._plexus import views as beliefs
from gossipjax.systems._plexus.sizes import KINDS, PING, PONG
from gossipjax.systems._plexus.state import Simulation, arrive, round_estimate

BEFORE = 2**62
"""More than there are entries of a queue."""
TIED = "tied"
"""Outcome of a run with whole searches in which the order of events is unknown."""


@dataclasses.dataclass(slots=True, eq=False)
class Search:
    """A search: how many nodes are wanted, which were found, and which are still to be asked."""

    owner: int
    rest: Iterator[int]
    want: int
    done: Callable[[list[int]], None]
    found: list[int] = dataclasses.field(default_factory=list)
    pings: dict[int, list[Any]] = dataclasses.field(default_factory=dict)
    """Timers of the pings without an answer."""
    answers: list[tuple[float, float]] = dataclasses.field(default_factory=list)
    """Of a search that is planned as a whole: when each answer and its ping arrive."""


def find_live(sim: Simulation, owner: int, ids: Sequence[int], want: int, done: Callable[[list[int]], None]) -> Search:
    """Ask the first ``want`` of a list at once, and the next one for each that is given up; the owner counts unasked.

    ``done(found)`` is called as soon as ``want`` answered, or at the first give-up after the list is used up; pings
    still open are ignored then. ``want`` is at most the length of the list.
    """
    asked = ids[:want]
    search = Search(owner, iter(ids), len(asked), done)
    sim.searches[owner].append(search)
    if sim.whole_searches and sim.views is None and _plan_whole(sim, search, asked):
        return search
    for _ in range(search.want):
        _ask_next(sim, search)
    if len(search.found) >= search.want:
        _finish(sim, search)
    return search


def close(sim: Simulation, search: Search) -> None:
    """Stop a search; nobody is told."""
    for timer in search.pings.values():
        cancel(timer)
    search.pings.clear()
    if search in sim.searches[search.owner]:
        sim.searches[search.owner].remove(search)


def _finish(sim: Simulation, search: Search) -> None:
    close(sim, search)
    search.done(search.found)


def _plan_whole(sim: Simulation, search: Search, asked: Sequence[int]) -> bool:
    """Plan the end of a search at once, where nobody goes offline and no answer is late; False: it cannot be.

    Without views pings and answers change nothing, so that only the last answer is an event. Of others at its very time
    one cannot say which comes first: then the run ends, and is repeated with all pings as events.
    """
    kernel, owner, latency = sim.kernel, search.owner, sim.latency
    now, record = kernel.now, sim.record
    answers = []
    for number, target in enumerate(asked):
        if target != owner:
            arrival = now + latency(owner, target)
            answers.append((arrival + latency(target, owner), arrival, number))
    answers.sort()
    if not answers or answers[-1][0] >= now + sim.settings.timers.resend_s:
        return False
    search.found += [owner] * (len(asked) - len(answers)) + [asked[number] for *_, number in answers]
    search.answers = [(answer, arrival) for answer, arrival, _ in answers]
    for kind in (PING, PONG):
        record.sent[kind] += len(answers)
        record.delivered[kind] += len(answers)
    before_others = next(kernel.queue.numbers) - BEFORE
    heapq.heappush(kernel.queue.heap, [answers[-1][0], 0, before_others, _all_answered, (sim, search)])
    return True


def _all_answered(sim: Simulation, search: Search) -> None:
    if search not in sim.searches[search.owner]:
        return
    kernel = sim.kernel
    if kernel.queue.heap and kernel.queue.heap[0][:2] == [kernel.now, 0]:
        kernel.stopped = TIED
    else:
        _finish(sim, search)


def open_answers(sim: Simulation) -> list[tuple[float, float]]:
    """When the answers of whole searches and their pings arrive, of all searches whose last answer is still to come."""
    planned = (arguments[1] for handler, arguments in waiting(sim.kernel.queue) if handler is _all_answered)
    return [times for search in planned for times in search.answers]


def count_in_flight(sim: Simulation) -> list[int]:
    """Count control messages in flight at the end of a run, by type; take back what whole searches counted early."""
    in_flight, now, record = [0] * len(KINDS), sim.kernel.now, sim.record
    for handler, arguments in waiting(sim.kernel.queue):
        kind = arguments[1] if handler is arrive else _ON_THE_WAY.get(handler)
        if kind is not None:
            in_flight[kind] += 1
    for answer, arrival in open_answers(sim):
        if answer > now:
            record.delivered[PONG] -= 1
            in_flight[PONG] += arrival <= now
        if arrival > now:
            record.sent[PONG] -= 1
            record.delivered[PING] -= 1
            in_flight[PING] += 1
    return in_flight


def _ask_next(sim: Simulation, search: Search) -> bool:
    """Ping the next of the list; False: it is used up."""
    target = next(search.rest, None)
    if target is None:
        return False
    if target == search.owner:
        search.found.append(target)
        return True
    queue = sim.kernel.queue
    timer = later(queue, sim.kernel.now + sim.settings.timers.resend_s, _ask_again, sim, search, target)
    search.pings[target] = timer
    if not _answered_before(timer, _ping(sim, search, target)):
        wait(queue, timer)
    return True


def _answered_before(timer: list[Any], answer_s: float) -> bool:
    """Whether the answer to a ping comes before the timer, unless the ping is lost."""
    return answer_s < timer[0]


def _ping(sim: Simulation, search: Search, target: int) -> float:
    """Send a ping; return when its answer will arrive."""
    kernel, owner, latency = sim.kernel, search.owner, sim.latency
    arrival_s = kernel.now + latency(owner, target)
    answer_s = arrival_s + latency(target, owner)
    sim.record.sent[PING] += 1
    round_ = round_estimate(sim, owner)
    at(kernel.queue, arrival_s, _on_ping, sim, search, target, answer_s, round_, sim.counters[owner] - 1)
    return answer_s


def _ask_again(sim: Simulation, search: Search, target: int) -> None:
    left = sim.settings.timers.ping_timeout_s - sim.settings.timers.resend_s
    search.pings[target] = at(sim.kernel.queue, sim.kernel.now + left, _give_up, sim, search, target)
    _ping(sim, search, target)


def _give_up(sim: Simulation, search: Search, target: int) -> None:
    search.pings.pop(target)
    if not _ask_next(sim, search) or len(search.found) >= search.want:
        _finish(sim, search)


def _on_ping(sim: Simulation, search: Search, node: int, answer_s: float, round_: int, counter: int) -> None:
    """Answer; a node that is offline does not, and then the first timer of the ping has to wait after all."""
    kernel, record = sim.kernel, sim.record
    if not kernel.online[node]:
        record.lost[PING] += 1
        timer = search.pings.get(node)
        if timer is not None and timer[3] is _ask_again and _answered_before(timer, answer_s):
            wait(kernel.queue, timer)
        return
    record.delivered[PING] += 1
    latest = 0 if sim.views is None else _learn(sim, node, search.owner, round_, counter)
    record.sent[PONG] += 1
    at(kernel.queue, answer_s, _on_pong, sim, search, node, latest, sim.counters[node] - 1)


def _on_pong(sim: Simulation, search: Search, sender: int, round_: int, counter: int) -> None:
    if not sim.kernel.online[search.owner]:
        sim.record.lost[PONG] += 1
        return
    sim.record.delivered[PONG] += 1
    if sim.views is not None:
        _learn(sim, search.owner, sender, round_, counter)
    timer = search.pings.pop(sender, None)
    if timer is None:
        return
    cancel(timer)
    search.found.append(sender)
    if len(search.found) >= search.want:
        _finish(sim, search)


def _learn(sim: Simulation, node: int, sender: int, round_: int, counter: int) -> int:
    """Whoever pings or answers is active in the latest round that both know, which is returned, and has joined."""
    assert sim.views is not None
    known = round_estimate(sim, node)
    latest = round_ if round_ > known else known
    beliefs.note(sim.views, node, sender, latest, 2 * counter)
    return latest


_ON_THE_WAY: dict[Callable[..., None], int] = {_on_ping: PING, _on_pong: PONG}
"""Entries of the queue with these handlers are messages of these types."""
