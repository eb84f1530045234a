"""Find nodes that are alive: each ping is sent again once, then given up."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from gossipjax.systems._kernel.queue import at, cancel
from gossipjax.systems._plexus import views as beliefs
from gossipjax.systems._plexus.sizes import PING, PONG
from gossipjax.systems._plexus.state import Simulation, round_estimate, send


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


def find_live(sim: Simulation, owner: int, ids: Sequence[int], want: int, done: Callable[[list[int]], None]) -> Search:
    """Ask the first ``want`` of a list at once, and the next one for each that is given up; the owner counts unasked.

    ``done(found)`` is called as soon as ``want`` answered, or at the first give-up after the list is used up; pings
    still open are ignored then. ``want`` is at most the length of the list.
    """
    search = Search(owner, iter(ids), len(ids[:want]), done)
    sim.searches[owner].append(search)
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


def _ask_next(sim: Simulation, search: Search) -> bool:
    """Ping the next of the list; False: it is used up."""
    target = next(search.rest, None)
    if target is None:
        return False
    if target == search.owner:
        search.found.append(target)
        return True
    resend = sim.settings.timers.resend_s
    search.pings[target] = at(sim.kernel.queue, sim.kernel.now + resend, _ask_again, sim, search, target)
    _ping(sim, search, target)
    return True


def _ping(sim: Simulation, search: Search, target: int) -> None:
    owner = search.owner
    send(sim, PING, owner, target, _on_ping, round_estimate(sim, owner), sim.counters[owner] - 1, search)


def _ask_again(sim: Simulation, search: Search, target: int) -> None:
    left = sim.settings.timers.ping_timeout_s - sim.settings.timers.resend_s
    search.pings[target] = at(sim.kernel.queue, sim.kernel.now + left, _give_up, sim, search, target)
    _ping(sim, search, target)


def _give_up(sim: Simulation, search: Search, target: int) -> None:
    search.pings.pop(target)
    if not _ask_next(sim, search) or len(search.found) >= search.want:
        _finish(sim, search)


def _on_ping(sim: Simulation, node: int, sender: int, round_: int, counter: int, search: Search) -> None:
    latest = _learn(sim, node, sender, round_, counter)
    send(sim, PONG, node, sender, _on_pong, latest, sim.counters[node] - 1, search)


def _on_pong(sim: Simulation, node: int, sender: int, round_: int, counter: int, search: Search) -> None:
    _learn(sim, node, sender, round_, counter)
    timer = search.pings.pop(sender, None)
    if timer is None:
        return
    cancel(timer)
    search.found.append(sender)
    if len(search.found) >= search.want:
        _finish(sim, search)


def _learn(sim: Simulation, node: int, sender: int, round_: int, counter: int) -> int:
    """Whoever pings or answers is active in the latest round that both know, which is returned, and has joined."""
    if sim.views is None:
        return 0
    latest = max(round_, round_estimate(sim, node))
    beliefs.note(sim.views, node, sender, latest, 2 * counter)
    return latest
