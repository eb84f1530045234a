"""The age of gossip: an external source makes versions, and a network spreads them."""

from __future__ import annotations

import numpy as np

from gossipjax._base.arguments import real, reals
from gossipjax._base.arguments import seed as checked_seed
from gossipjax._base.calls import recorded
from gossipjax.facts import Properties
from gossipjax.timeline._from_events import listed
from gossipjax.timeline._memory import require_room
from gossipjax.timeline.clocks import TICK_BYTES, Rate, as_clock, per_node, require_ticks, ticks
from gossipjax.timeline.flights import Peers, interleave, num_peers, peers_name, uniform_peers
from gossipjax.types import NOBODY, Timeline


@recorded("yates2021age")
def version_age(
    peers: Peers,
    duration: float,
    *,
    version_rate: float,
    source_rate: float,
    gossip_rate: Rate,
    seed: int,
) -> Timeline:
    """Plan Yates' network: n nodes and the source of versions, which is node n. All clocks are Poisson.

    Only the source acts: it makes versions at rate ``version_rate``, and pushes to a uniform node at rate
    ``source_rate``. Each node pushes to a uniform peer at rate ``gossip_rate``. With version counters
    (:func:`gossipjax.track_versions`, ``sources=[n]``) the staleness of a node is its version age ``X_i``: the number
    of versions it is behind.

    As models, a push averages: ``x_j ← (x_j + x_i)/2``.

    Args:
        peers: a topology of n nodes without the source, or n: every other node is a peer.
        duration: simulated seconds.
        version_rate: λ_e, versions per second.
        source_rate: λ_s, pushes of the source per second.
        gossip_rate: λ, pushes per node and second, scalar or ``(n,)``; 0 for none.
        seed: of the NumPy generators that draw the plan, one each for versions, the source's pushes and gossip.

    Raises:
        ValueError: if a rate of the source is not positive, or a gossip rate is negative.

    Reference: Yates 2021, arXiv 2102.02893.
    """
    n = num_peers(peers)
    versions = as_clock("version_rate", real("version_rate", version_rate, above=0, unit="versions per second"))
    source = as_clock("source_rate", real("source_rate", source_rate, above=0, unit="pushes per second"))
    rates = reals("gossip_rate", gossip_rate, least=0, unit="pushes per node and second")
    pushing = per_node(rates, n, "gossip_rate")
    duration, seed = real("duration", duration, above=0, unit="seconds"), checked_seed(seed)
    require_ticks(1, duration, "duration, version_rate, source_rate", versions, source)
    names = "peers, duration, gossip_rate"
    require_room(float(n) * duration * float(rates.mean()), TICK_BYTES, "pushes", names, num_nodes=n)
    of_versions, of_source, of_gossip = np.random.default_rng(seed).spawn(3)
    made = ticks(versions, 1, duration, of_versions)[0]
    given = ticks(source, 1, duration, of_source)[0]
    first_told = of_source.integers(0, n, given.size)
    times, senders = _pushes(pushing, duration, of_gossip)
    receivers = uniform_peers(peers, of_gossip, senders)
    make, give, tell = interleave(made, given, times)
    total = make.size + give.size + tell.size
    xs = {"time": np.empty(total)}
    xs |= {name: np.full((total, 1), NOBODY, np.int32) for name in ("nodes", "senders", "receivers")}
    xs["time"][make], xs["time"][give], xs["time"][tell] = made, given, times
    xs["nodes"][make, 0] = n
    xs["senders"][give, 0], xs["receivers"][give, 0] = n, first_told
    xs["senders"][tell, 0], xs["receivers"][tell, 0] = senders, receivers
    name = f"version_age({peers_name(peers)} and a source)"
    facts = Properties(n + 1, n + 1, name, messages="pair: one model a push")
    return listed(xs, facts, shared={"weights": np.full(1, 0.5), "keep": np.full(1, 0.5)})


def _pushes(rates: np.ndarray, duration: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw the Poisson pushes of the nodes whose rate is not 0."""
    active = np.flatnonzero(rates > 0).astype(np.int32)
    if not active.size:
        return np.zeros(0), np.zeros(0, np.int32)
    times, nodes = ticks(as_clock("gossip_rate", rates[active]), active.size, duration, rng)
    return times, active[nodes]
