"""Push gossip in rounds of fixed length, in which messages hold the models at the start of the round."""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, PyTree

from gossipjax._base.arguments import choice, real, reals, whole
from gossipjax._base.arguments import seed as checked_seed
from gossipjax._base.calls import recorded
from gossipjax.facts import Properties
from gossipjax.mixing._apply import TableMixing
from gossipjax.timeline._checks import share_of
from gossipjax.timeline._memory import MOST_EVENTS, require_room
from gossipjax.timeline._moments import written_times
from gossipjax.timeline.clocks import Clock, Rate, as_clock, per_node, require_ticks, ticks
from gossipjax.timeline.flights import Peers, num_peers, peers_name, rank_in, uniform_peers
from gossipjax.types import NOBODY, Event, Timeline


@recorded()
def push_rounds(
    peers: Peers,
    num_rounds: int,
    *,
    step: float = 1.0,
    compute: Clock | Rate | None,
    gossip_rate: Rate | None = None,
    pushes: Literal["poisson", "one"] = "poisson",
    weight: float = 0.5,
    seed: int,
) -> Timeline:
    """Plan push gossip in rounds of ``step`` seconds: an approximation of :func:`~gossipjax.timeline.push_gossip`.

    The pushes of a round come first; they send the models at its start. Node j averages with the k models that it
    receives one at a time, in random order, as the fact ``"meetings"`` demands::

        x_j ← (1 − a) x_j + a x_i, k times       =       (1 − a)^k x_j + Σ_l a (1 − a)^(k − l) x_{i_l}

    The local updates of the round follow. Every round has the same number of events, ``len(timeline) // num_rounds``
    (record at multiples of it): one event mixes, and L events train, where L is the largest number of updates of any
    node in any round. The l-th of these holds the nodes that update at least l times in the round.

    Args:
        peers: a topology, or n: every other node is a peer.
        num_rounds: R ≥ 1.
        step: Δ seconds; round r = 0, 1, … is the interval [rΔ, (r + 1)Δ), and its events happen at the end.
        compute: clock of the local updates, or their Poisson rate per node and second; None: pushes only.
        gossip_rate: λ, pushes per node and second, scalar or ``(n,)``, of Poisson pushes; None for one a round.
        pushes: ``"poisson"``: Poisson(λΔ) by each node, with independent targets; ``"one"``: one by each node.
        weight: a in (0, 1], the share of a received model.
        seed: of the NumPy generators that draw the plan, one each for updates and pushes.

    Raises:
        ValueError: if a setting is out of range, or settings contradict each other.
    """
    n = num_peers(peers)
    compute = None if compute is None else as_clock("compute", compute)
    num_rounds, step, weight = whole("num_rounds", num_rounds, least=1, most=MOST_EVENTS), _step(step), share_of(weight)
    _check(n, num_rounds, step, gossip_rate, pushes)
    require_ticks(n, num_rounds * step, "peers, num_rounds, step, compute", compute)
    of_updates, of_pushes = np.random.default_rng(checked_seed(seed)).spawn(2)
    rounds, senders = _pushes(n, num_rounds, step, gossip_rate, of_pushes)
    receivers = uniform_peers(peers, of_pushes, senders)
    place = rank_in(rounds * n + receivers)
    mixings = _padded(rounds, num_rounds, senders=senders, receivers=receivers, place=place)
    levels, acting = _updates(compute, n, num_rounds, step, of_updates)
    per_round = 1 + levels
    xs = {name: _among(array[:, None], slice(0, 1), per_round) for name, array in mixings.items()}
    xs["nodes"] = _among(acting, slice(1, None), per_round)
    xs["index"] = np.arange(num_rounds * per_round, dtype=np.uint32)
    xs["time"] = np.repeat(step * np.arange(1.0, num_rounds + 1), per_round)
    own = np.arange(n, dtype=np.int32)
    table = np.zeros(int(place.max(initial=0)) + 1)  # its length is that of the longest list of arrivals
    shared = {"weight": np.asarray(float(weight)), "own": own, "table": table}
    name = f"push_rounds({peers_name(peers)}, step={step:g} s, {pushes} pushes, weight={weight:g})"
    words = f"table: up to {table.size} arrivals a round"
    facts = Properties(n, n, name, tags={"own_rows", "meetings", "row_stochastic"}, messages=words)
    return Timeline(xs, jax.tree.map(jnp.asarray, shared), _event, facts, seconds=written_times)


def _event(key: Key[Array, ""], shared: PyTree, x: PyTree) -> Event:
    """Write the pushes as a table of neighbours; later pushes have larger weights."""
    del key
    own, weight = shared["own"], shared["weight"]
    senders, receivers, place = x["senders"], x["receivers"], x["place"]
    none = jnp.zeros(own.shape, jnp.int32)
    arrived = none.at[receivers].add(1, mode="drop")
    later = arrived.at[receivers].get(mode="clip") - 1 - place
    shape = own.shape + shared["table"].shape
    neighbors = jnp.broadcast_to(own[:, None], shape).at[receivers, place].set(senders, mode="drop")
    weights = (
        jnp.zeros(shape, weight.dtype)
        .at[receivers, place]
        .set(weight * (1 - weight) ** later.astype(weight.dtype), mode="drop")
    )
    messages = none.at[senders].add(1, mode="drop").astype(jnp.uint32)
    nodes = x["nodes"]
    index = jnp.broadcast_to(x["index"], nodes.shape)
    time = jnp.broadcast_to(x["time"].astype(jnp.float32), nodes.shape)
    mixing = TableMixing(neighbors, weights, (1 - weight) ** arrived.astype(weight.dtype))
    return Event(index=index, time=time, nodes=nodes, mixing=mixing, messages=messages)


def _pushes(n: int, num_rounds: int, step: float, gossip_rate, rng: np.random.Generator):
    """Draw the rounds, in order, and the senders of all pushes, in random order within a round."""
    if gossip_rate is None:
        counts = np.ones((num_rounds, n), np.int64)
    else:
        counts = rng.poisson(per_node(gossip_rate, n, "gossip_rate") * step, (num_rounds, n))
    rounds = np.repeat(np.arange(num_rounds), counts.sum(1))
    senders = np.repeat(np.tile(np.arange(n, dtype=np.int32), num_rounds), counts.ravel())
    return rounds, senders[np.lexsort((rng.random(senders.size), rounds))]


def _updates(compute, n: int, num_rounds: int, step: float, rng: np.random.Generator) -> tuple[int, np.ndarray]:
    """Return the number of levels, and the nodes ``(rounds, levels, lanes)`` that update for the l-th time."""
    if compute is None:
        return 0, np.zeros((num_rounds, 0, 1), np.int32)
    times, nodes = ticks(compute, n, num_rounds * step, rng)
    rounds = np.minimum((times / step).astype(np.int64), num_rounds - 1)
    level = rank_in(rounds * n + nodes)
    levels = int(level.max(initial=0)) + 1
    groups = rounds * levels + level
    order = np.argsort(groups, kind="stable")
    acting = _padded(groups[order], num_rounds * levels, nodes=nodes[order])["nodes"]
    return levels, acting.reshape(num_rounds, levels, -1)


def _among(entries: np.ndarray, at: slice, per_round: int) -> np.ndarray:
    """Place entries ``(R, events, lanes)`` among all events of each round; fill the others with NOBODY."""
    everything = np.full((len(entries), per_round, entries.shape[-1]), NOBODY, np.int32)
    everything[:, at] = entries
    return everything.reshape(-1, entries.shape[-1])


def _padded(groups: np.ndarray, num_groups: int, **entries: np.ndarray) -> dict[str, np.ndarray]:
    """Write the entries of each group, listed in order, as a row, and pad with NOBODY."""
    counts = np.bincount(groups, minlength=num_groups)
    lane = np.arange(groups.size) - (np.cumsum(counts) - counts)[groups]
    rows = {name: np.full((num_groups, max(1, counts.max())), NOBODY, np.int32) for name in entries}
    for name, values in entries.items():
        rows[name][groups, lane] = values
    return rows


def _step(step: Any) -> float:
    return real("step", step, above=0, unit="seconds")


def _check(n: int, num_rounds: int, step: float, gossip_rate: Any, pushes: Any) -> None:
    choice("pushes", pushes, ("poisson", "one"))
    if (pushes == "one") != (gossip_rate is None):
        raise ValueError(f"pushes={pushes!r} with gossip_rate={gossip_rate}: 'poisson' needs a rate, 'one' has none")
    each = 1.0
    if gossip_rate is not None:
        rates = reals("gossip_rate", gossip_rate, above=0, unit="pushes per node and second")
        per_node(rates, n, "gossip_rate")
        each = float(rates.mean()) * step
    require_room(float(num_rounds) * n * max(each, 1.0), 60, "pushes", "peers, num_rounds, step, gossip_rate")
