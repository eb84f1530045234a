"""Opportunistic gossip: the network's whole capacity goes to whoever has news."""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from gossipjax.timeline.clocks import poisson, require_events, ticks
from gossipjax.timeline.flights import interleave, num_peers, uniform_peers
from gossipjax.timeline.planned import planned
from gossipjax.types import NOBODY, Properties, Timeline

Relay = Literal["everything", "newest", "none"]
Pushes = tuple[Float[np.ndarray, " m"], Int[np.ndarray, " m"], Int[np.ndarray, " m"]]


def opportunistic(
    num_nodes: int,
    duration: float,
    *,
    update_rate: float,
    capacity: float,
    relay: Relay,
    seed: int,
) -> Timeline:
    """Plan pushes at a total rate of n · ``capacity`` that go to those with news, in one of three readings.

    Updates are Poisson, ``update_rate`` per node. A push goes to a uniform other node and, as a model, averages:
    ``x_j ← (x_j + x_i)/2``. What it carries of the version counters is

    * ``relay="everything"``: only the last updater pushes, all that it knows. Mean staleness is that of uniform gossip,
      ``m H_{n−1}/λ``;
    * ``"newest"``: the holders of the network's newest version share the capacity, and only that version travels (the
      only source of the event): ``m (n − 1)/λ``;
    * ``"none"``: every node pushes at rate λ, its own version only: ``m (n − 1)/λ`` again.

    Costs a few sorts: who becomes a holder between two updates depends on the targets only, if pushes to oneself are
    drawn as well and left out afterwards.

    Args:
        num_nodes: n ≥ 2, all connected.
        duration: simulated seconds.
        update_rate: m, local updates per node and second.
        capacity: λ, pushes per second and node of the network.
        relay: which reading.
        seed: of the NumPy generators that draw the plan, one each for updates and pushes.

    Raises:
        ValueError: fewer than two nodes, an unknown reading, rates that are not positive, no event at all.

    Reference: Mitra and Ulukus 2024, arXiv 2404.19749 (where the word is not defined more closely).
    """
    n = num_peers(num_nodes)
    if relay not in ("everything", "newest", "none"):
        raise ValueError(f"relay={relay!r}: choose 'everything', 'newest' or 'none'")
    of_updates, of_pushes = np.random.default_rng(seed).spawn(2)
    updated, updaters = ticks(poisson(update_rate), n, duration, of_updates)
    # Before the first update the newest version is that of a random node, as after any other.
    news = np.append(of_updates.integers(0, n, dtype=np.int32), updaters)
    # Pushes to oneself make up one in n of those drawn.
    drawn_rate = capacity * n / (n - 1) if relay == "newest" else capacity
    times, senders = ticks(poisson(drawn_rate), n, duration, of_pushes)
    segments = np.searchsorted(updated, times, side="right")
    if relay == "newest":
        receivers = of_pushes.integers(0, n, times.size, dtype=np.int32)
        senders = _holders(news, segments, receivers, of_pushes)
        kept = senders != receivers
        times, senders, receivers, sources = times[kept], senders[kept], receivers[kept], news[segments[kept]]
    else:
        senders = news[segments] if relay == "everything" else senders
        receivers, sources = uniform_peers(n, of_pushes, senders), senders
    xs = _events(updated, updaters, times, senders, receivers)
    if relay != "everything":
        xs["sources"] = np.full_like(xs["senders"], NOBODY)
        xs["sources"][interleave(updated, times)[1], 0] = sources
    require_events(xs["time"].size, duration)
    facts = Properties(n, n, f"opportunistic(n={n}, relay {relay})", messages="pair: one model a push")
    return planned(xs, facts, shared={"weights": np.full(1, 0.5), "keep": np.full(1, 0.5)})


def _holders(news, segments, targets, rng: np.random.Generator) -> Int[np.ndarray, " m"]:
    """Draw a uniform holder of the newest version for each push.

    Holders of a segment between two updates are the updater, then the targets of pushes at their first turns.
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
    """Whether each push is the first of its segment to a target that is not the updater."""
    keys = segments * (int(targets.max(initial=0)) + 1) + targets
    first = np.zeros(keys.size, bool)
    first[np.unique(keys, return_index=True)[1]] = True
    return first & (targets != news[segments])


def _events(updated, updaters, times, senders, receivers) -> dict[str, np.ndarray]:
    """Updates and pushes, in order of time."""
    act, push = interleave(updated, times)
    xs = {"time": np.empty(act.size + push.size)}
    xs |= {name: np.full((xs["time"].size, 1), NOBODY, np.int32) for name in ("nodes", "senders", "receivers")}
    xs["time"][act], xs["time"][push] = updated, times
    xs["nodes"][act, 0] = updaters
    xs["senders"][push, 0], xs["receivers"][push, 0] = senders, receivers
    return xs
