"""Opportunistic gossip: only nodes with news use the capacity of the network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from gossipjax._base.arguments import choice, real, whole, wholes
from gossipjax._base.arguments import seed as checked_seed
from gossipjax._base.calls import recorded
from gossipjax.facts import Properties
from gossipjax.timeline._from_events import listed
from gossipjax.timeline._memory import MOST_EVENTS, MOST_NODES, require_room
from gossipjax.timeline.clocks import TICK_BYTES, as_clock, poisson, require_ticks, ticks
from gossipjax.timeline.flights import interleave, uniform_peers
from gossipjax.types import NOBODY, Timeline

Relay = Literal["everything", "newest", "none"]
"""Versions that a push carries: all that its sender knows, the network's newest only, or its sender's own only."""


class _Segments(NamedTuple):
    """Intervals between updates, in order of time; the version of the first update is the newest until the next."""

    begins: Float[np.ndarray, " u"]
    ends: Float[np.ndarray, " u"]
    updaters: Int[np.ndarray, " u"]


class _Pushes(NamedTuple):
    """Senders and receivers in order of time, and the only node whose version is carried (None: all)."""

    times: Float[np.ndarray, " m"]
    senders: Int[np.ndarray, " m"]
    receivers: Int[np.ndarray, " m"]
    sources: Int[np.ndarray, " m"] | None


@recorded("mitra2024timely")
def opportunistic(
    num_nodes: int,
    duration: float,
    *,
    update_rate: float,
    capacity: float,
    relay: Relay,
    seed: int,
) -> Timeline:
    """Plan pushes of nodes with news at a total rate of n · ``capacity``, in one of three interpretations.

    Updates are Poisson, ``update_rate`` per node. A push goes to a uniform other node, which averages,
    ``x_j ← (x_j + x_i)/2``. The version counters depend on ``relay``:

    * ``relay="everything"``: only the node that updated last pushes, with all versions that it knows. Mean staleness is
      that of uniform gossip, ``m H_{n−1}/λ``;
    * ``"newest"``: the nodes that hold the network's newest version share the capacity, and only that version is sent
      (the only source of the event): ``m (n − 1)/λ``;
    * ``"none"``: every node pushes its own version only, at rate λ: ``m (n − 1)/λ`` again.

    Planning takes a few sorts. Pushes of a node to itself are drawn too and then removed, so that the holders between
    two updates depend on the targets only. For runs that are too long to list, use :func:`opportunistic_windows`.

    Args:
        num_nodes: n ≥ 2, all connected.
        duration: simulated seconds.
        update_rate: m, local updates per node and second.
        capacity: λ, pushes per second and node of the network.
        relay: which interpretation.
        seed: of the NumPy generators that draw the plan, one each for updates and pushes.

    Raises:
        ValueError: if there are fewer than two nodes, relay is unknown, or a rate is not positive.

    Reference: Mitra and Ulukus 2024, arXiv 2404.19749, which does not define the scheme in detail.
    """
    n = _checked(num_nodes, relay, update_rate, capacity)
    duration = real("duration", duration, above=0, unit="seconds")
    clocks = poisson(update_rate), poisson(capacity)
    require_ticks(n, duration, "num_nodes, duration, update_rate, capacity", *clocks)
    of_updates, of_pushes = np.random.default_rng(checked_seed(seed)).spawn(2)
    updated, updaters = ticks(poisson(update_rate), n, duration, of_updates)
    # Before the first update the newest version is that of a random node, as after any other.
    news = np.append(of_updates.integers(0, n, dtype=np.int32), updaters)
    segments = _Segments(np.append(0.0, updated), np.append(updated, duration), news)
    pushes = _pushes(segments, n, np.arange(n, dtype=np.int32), capacity, relay, of_pushes)
    return _timeline(_events(updated, updaters, pushes), n, relay)


def opportunistic_windows(
    num_nodes: int,
    num_events: int,
    *,
    update_rate: float,
    capacity: float,
    relay: Relay,
    seed: int,
    sources: Sequence[int] | None = None,
) -> Iterator[Timeline]:
    """Plan :func:`opportunistic` gossip in endless windows, so that memory does not grow with the run.

    The windows together are one exact run: each ends at an update, after which the past has no influence.

    With ``sources`` only the events that can carry versions of these nodes are planned: their updates, and the pushes
    that carry their versions. Other pushes do not change these counters, so their distribution is that of the whole
    network, at s/n of its events. The averaged *models* are not those of the whole network.

    Args:
        num_nodes: n ≥ 2, all connected.
        num_events: events of each window.
        update_rate: m, local updates per node and second.
        capacity: λ, pushes per second and node of the network.
        relay: which interpretation; not ``"everything"`` with ``sources``, since any push may then carry any version.
        seed: of the NumPy generator that draws the plan.
        sources: s different nodes; None: all.

    Raises:
        ValueError: as :func:`opportunistic`; if sources are not distinct nodes, are empty, or cannot be used with this
            relay.
    """
    n = _checked(num_nodes, relay, update_rate, capacity)
    num_events = whole("num_events", num_events, least=1, most=MOST_EVENTS)
    names = "num_nodes, num_events, update_rate, capacity"
    require_room(max(num_events, capacity / update_rate), TICK_BYTES, "events of a window", names, num_nodes=n)
    tracked, rng = _tracked(n, sources, relay), np.random.default_rng(checked_seed(seed))
    return _windows(n, num_events, update_rate, capacity, relay, tracked, rng)


def _windows(n, num_events, update_rate, capacity, relay, tracked, rng) -> Iterator[Timeline]:
    share = len(tracked) / n
    updates = int(np.ceil(num_events / (1 + capacity / update_rate)))
    now, ready = 0.0, None
    while True:
        while ready is None or ready["time"].size < num_events:
            gaps = rng.exponential(1 / (n * share * update_rate), updates)
            begins = now + np.cumsum(np.append(0.0, gaps))
            now = float(begins[-1])
            ends = begins[1:]
            if share < 1:  # another node's update ends the segment, unless the next of the tracked does
                ends = np.minimum(ends, begins[:-1] + rng.exponential(1 / (n * (1 - share) * update_rate), updates))
            segments = _Segments(begins[:-1], ends, rng.choice(tracked, updates))
            more = _events(*segments[::2], _pushes(segments, n, tracked, capacity, relay, rng, now))
            ready = more if ready is None else {name: np.concatenate([ready[name], more[name]]) for name in more}
        yield _timeline({name: values[:num_events] for name, values in ready.items()}, n, relay)
        ready = {name: values[num_events:] for name, values in ready.items()}


def _checked(num_nodes: Any, relay: Any, update_rate: Any, capacity: Any) -> int:
    choice("relay", relay, ("everything", "newest", "none"))
    for name, rate in (("update_rate", update_rate), ("capacity", capacity)):
        as_clock(name, real(name, rate, above=0, unit="events per node and second"))
    return whole("num_nodes", num_nodes, least=2, most=MOST_NODES)


def _tracked(n: int, sources: Any, relay: Relay) -> Int[np.ndarray, " s"]:
    if sources is None:
        return np.arange(n, dtype=np.int32)
    if relay == "everything":
        raise ValueError("relay='everything': any push may carry any version; leave sources out")
    given = wholes("sources", sources, shape=(None,), least=0, most=n - 1, remedy="nodes to be tracked")
    tracked = np.unique(given).astype(np.int32)
    if not tracked.size or tracked.size != given.size:
        raise ValueError(f"sources={given.tolist()[:5]}…: give different nodes, 0 … {n - 1}, at least one")
    return tracked


def _pushes(segments: _Segments, n: int, tracked, capacity, relay: Relay, rng, until: float | None = None) -> _Pushes:
    """Draw the pushes of the segments; without relaying, those of the tracked nodes over the whole time."""
    begins, ends, updaters = segments
    if relay == "none":
        first, last = begins[0], ends[-1] if until is None else until
        times = np.sort(rng.uniform(first, last, rng.poisson(len(tracked) * capacity * (last - first))))
        senders = rng.choice(tracked, times.size)
        return _Pushes(times, senders, uniform_peers(n, rng, senders), senders)
    # Pushes to oneself make up one in n of those drawn for the newest version.
    rate = n * capacity * (n / (n - 1) if relay == "newest" else 1.0)
    segment = np.repeat(np.arange(begins.size), rng.poisson(rate * (ends - begins)))
    times = np.sort(begins[segment] + rng.random(segment.size) * (ends - begins)[segment])
    if relay == "everything":
        senders = updaters[segment]
        return _Pushes(times, senders, uniform_peers(n, rng, senders), None)
    receivers = rng.integers(0, n, times.size, dtype=np.int32)
    senders = _holders(updaters, segment, receivers, rng)
    kept = senders != receivers
    return _Pushes(times[kept], senders[kept], receivers[kept], updaters[segment[kept]])


def _holders(news, segments, targets, rng: np.random.Generator) -> Int[np.ndarray, " m"]:
    """Draw a uniform holder of the newest version for each push.

    The holders between two updates are the node that updated, then each target from its first push on.
    """
    joins = _first_turns(segments, targets, news)
    joined = np.cumsum(joins)
    begins = np.searchsorted(segments, segments, side="left")
    before = np.append(0, joined)  # joins of all segments before each push
    holders = 1 + before[np.arange(segments.size)] - before[begins]
    chosen = (rng.random(segments.size) * holders).astype(np.int64)
    newcomers = targets[joins]
    at = np.minimum(before[begins] + chosen - 1, max(newcomers.size - 1, 0))
    return np.where(chosen == 0, news[segments], newcomers[at] if newcomers.size else 0).astype(np.int32)


def _first_turns(segments, targets, news) -> Bool[np.ndarray, " m"]:
    """Mark each push that is the first of its segment to a target other than the node that updated."""
    keys = segments * (int(targets.max(initial=0)) + 1) + targets
    first = np.zeros(keys.size, bool)
    first[np.unique(keys, return_index=True)[1]] = True
    return first & (targets != news[segments])


def _events(updated, updaters, pushes: _Pushes) -> dict[str, np.ndarray]:
    """Write updates and pushes in order of time."""
    act, push = interleave(updated, pushes.times)
    xs = {"time": np.empty(act.size + push.size)}
    names = {"nodes", "senders", "receivers"} | ({"sources"} if pushes.sources is not None else set())
    xs |= {name: np.full((xs["time"].size, 1), NOBODY, np.int32) for name in names}
    xs["time"][act], xs["time"][push] = updated, pushes.times
    xs["nodes"][act, 0] = updaters
    xs["senders"][push, 0], xs["receivers"][push, 0] = pushes.senders, pushes.receivers
    if pushes.sources is not None:
        xs["sources"][push, 0] = pushes.sources
    return xs


def _timeline(xs: dict[str, np.ndarray], n: int, relay: Relay) -> Timeline:
    facts = Properties(n, n, f"opportunistic(n={n}, relay {relay})", messages="pair: one model a push")
    return listed(xs, facts, shared={"weights": np.full(1, 0.5), "keep": np.full(1, 0.5)})
