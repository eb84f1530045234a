"""Rounds on a graph that changes: fresh overlays, nodes that are not active, and messages that are lost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from gossipjax._base.arguments import choice, flag, instance, whole
from gossipjax._base.calls import recorded
from gossipjax.facts import Properties, true_facts
from gossipjax.mixing._apply import TableMixing
from gossipjax.timeline._memory import MOST_EVENTS, require_room
from gossipjax.timeline._rounds import _length, _round_time, round_ends
from gossipjax.timeline.activity import Activity, active_rounds
from gossipjax.timeline.losses import Loss, lost_messages
from gossipjax.timeline.overlays import Overlay, as_overlay
from gossipjax.topology import Topology
from gossipjax.types import NOBODY, Event, Timeline

Rule: TypeAlias = Literal["metropolis", "uniform", "push"]


@recorded()
def changing_rounds(
    overlay: Overlay | Topology | Sequence[Topology],
    num_rounds: int,
    *,
    weights: Rule = "metropolis",
    activity: Activity | None = None,
    loss: Loss | None = None,
    newcomers_adopt: bool = False,
    seconds_per_round: float = 1.0,
) -> Timeline:
    """Plan synchronous rounds on a graph that changes, with nodes that are absent and messages that are lost.

    In round t the active nodes train, and mix over the edges of the overlay whose two ends are active::

        "metropolis":  W_ij = 1 / (1 + max(d_i, d_j)),  W_ii = 1 − Σ_j W_ij     (undirected graphs)
        "uniform":     W_ij = W_ii = 1 / (1 + r_i)
        "push":        W_ij = 1 / (1 + s_j),  W_ii = 1 / (1 + s_i)

    with degrees d among active nodes, r_i messages received and s_j messages sent. If the message from j to i is lost,
    W_ij = 0: under ``"metropolis"`` node i gives its weight to its own model, under ``"uniform"`` it averages the
    models that arrived, and under ``"push"`` the mass is lost. Lost messages count as sent. Inactive nodes have
    W_ii = 1.

    Rows sum to one under the first two rules. ``"metropolis"`` rounds are symmetric and doubly stochastic if no message
    is lost, or if the two messages of a pair are always lost together. ``"uniform"`` and ``"push"`` rounds are doubly
    stochastic if no message is lost and, in each component, all in- and out-degrees are equal.

    The plan holds a table of n · d numbers of two bytes (four bytes beyond 16,383 nodes) a round, where d is the
    largest in-degree of any round; weights are computed in the run.

    >>> import gossipjax as gj
    >>> fresh = gj.timeline.overlays.regular(16, 4, seed=0)
    >>> "doubly_stochastic" in gj.timeline.changing_rounds(fresh, 50).properties
    True
    >>> lossy = gj.timeline.changing_rounds(fresh, 50, loss=gj.timeline.losses.independent(0.1, seed=1))
    >>> "doubly_stochastic" in lossy.properties, "row_stochastic" in lossy.properties
    (False, True)

    Args:
        overlay: of :mod:`gossipjax.timeline.overlays`; or one topology for all rounds; or a list of them, in turn.
            :func:`rounds` plans a few matrices without absences and losses in less memory.
        num_rounds: T ≥ 1.
        weights: the rule. ``"push"`` is for push-sum.
        activity: who takes part, of :mod:`gossipjax.timeline.activity`; None: everybody in every round.
        loss: of messages, of :mod:`gossipjax.timeline.losses`; None: none.
        newcomers_adopt: a node that was not active in the round before takes the plain mean of the models that it
            receives, and drops its own (unless it receives none). Nobody is a newcomer in round 0. Rounds are then not
            doubly stochastic.
        seconds_per_round: simulated seconds; round t ends at (t + 1) times this.

    Raises:
        ValueError: if an argument is out of range, a round has another number of nodes, the rule needs undirected
            graphs and a round is directed, or the plan does not fit into memory.
        TypeError: if an argument has the wrong type.
    """
    one_graph = isinstance(overlay, Topology)
    overlay = as_overlay("overlay", overlay)
    num_rounds = whole("num_rounds", num_rounds, least=1, most=MOST_EVENTS)
    choice("weights", weights, EVENTS)
    adopt = flag("newcomers_adopt", newcomers_adopt)
    if adopt and (activity is None or weights == "push"):
        raise ValueError(
            f"newcomers_adopt=True with activity={activity}, weights={weights!r}: there are newcomers only with an "
            "activity, and push-sum cannot drop their mass; pass activity=presence(…) and other weights"
        )
    require_room(
        num_rounds, 8.0 + 8.0 * overlay.num_nodes, f"rounds of {overlay.num_nodes} nodes", "num_rounds, overlay"
    )
    shared: dict[str, Any] = {"seconds_per_round": _length(seconds_per_round)}
    active = None if activity is None else active_rounds(activity, num_rounds, overlay.num_nodes)
    if loss is not None:
        instance("loss", loss, Loss, "make one with gossipjax.timeline.losses, such as independent(0.1, seed=0)")
        shared["lossy"] = ()
    found = _Found([], [])
    rounds = _rounds_of(overlay, num_rounds, weights, active, found)
    xs: dict[str, Any] = {"index": np.arange(num_rounds, dtype=np.uint32)}
    xs["links"] = _tables(rounds, loss, overlay.num_nodes, num_rounds)
    if active is not None:
        xs["nodes"] = _acting(active)
        if adopt:
            xs["joins"] = active & ~np.concatenate([np.ones_like(active[:1]), active[:-1]])
    properties = _properties(overlay, _Options(weights, activity, loss, adopt, one_graph), found, xs["links"].shape[2])
    return Timeline(xs, shared, EVENTS[weights], properties, seconds=round_ends)


class _Options(NamedTuple):
    """Arguments of :func:`changing_rounds`."""

    rule: Rule
    activity: Activity | None
    loss: Loss | None
    adopt: bool
    one_graph: bool


class _Found(NamedTuple):
    """What is found out about the rounds while they are drawn, one entry for each."""

    undirected: list[bool]
    even: list[bool]
    """Whether each edge joins nodes of one in-degree, which is their out-degree as well."""


def _rounds_of(
    overlay: Overlay, num_rounds: int, rule: str, active: Bool[np.ndarray, "T n"] | None, found: _Found
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield senders and receivers of each round, sorted by receiver, among the active nodes."""
    for t in range(num_rounds):
        graph = instance(f"overlay.graph({t})", overlay.graph(t), Topology, "return a topology for each round")
        if graph.num_nodes != overlay.num_nodes:
            raise ValueError(
                f"overlay: round {t} of {overlay.name} has {graph.num_nodes} nodes, not {overlay.num_nodes}; all "
                "rounds must have the same"
            )
        if graph.directed and rule == "metropolis":
            raise ValueError(
                f"overlay: {graph.name}, round {t}, is directed, and metropolis weights are symmetric; pass "
                "weights='uniform', or 'push' for push-sum"
            )
        senders, receivers = graph.senders, graph.receivers
        if active is not None:
            both = active[t, senders] & active[t, receivers]
            senders, receivers = senders[both], receivers[both]
        found.undirected.append(not graph.directed)
        found.even.append(_is_even(senders, receivers, graph.num_nodes))
        yield senders, receivers


def _is_even(senders: np.ndarray, receivers: np.ndarray, n: int) -> bool:
    arriving, leaving = np.bincount(receivers, minlength=n), np.bincount(senders, minlength=n)
    return bool((arriving == leaving).all() and (arriving[senders] == arriving[receivers]).all())


def _tables(
    rounds: Iterator[tuple[np.ndarray, np.ndarray]], loss: Loss | None, n: int, num_rounds: int
) -> Int[np.ndarray, "T n d"]:
    """Write each round as a table: the senders of each node, plus n where the message is lost, padded with the node."""
    kind = np.int16 if 2 * n <= np.iinfo(np.int16).max else np.int32
    own = np.arange(n, dtype=kind)
    tables = np.broadcast_to(own[:, None], (num_rounds, n, 1)).copy()
    for t, (senders, receivers, lost) in enumerate(_with_losses(rounds, loss, n)):
        lane = np.arange(receivers.size) - np.searchsorted(receivers, receivers)
        width = int(lane.max(initial=0)) + 1
        if width > tables.shape[2]:
            tables = _widened(tables, own, width)
        tables[t, receivers, lane] = senders + n * lost
    return tables


def _widened(tables: np.ndarray, own: np.ndarray, width: int) -> np.ndarray:
    """Give every node of every round room for more senders."""
    num_rounds, n, before = tables.shape
    size = float(tables.itemsize) * n * (width + before)
    require_room(num_rounds, size, f"rounds of {n} nodes with up to {width} neighbours", "num_rounds, overlay")
    wider = np.broadcast_to(own[:, None], (num_rounds, n, width)).copy()
    wider[:, :, :before] = tables
    return wider


def _with_losses(
    rounds: Iterator[tuple[np.ndarray, np.ndarray]], loss: Loss | None, n: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    if loss is None:
        yield from ((senders, receivers, np.zeros(senders.size, bool)) for senders, receivers in rounds)
        return
    listed: list[tuple[np.ndarray, np.ndarray]] = []

    def noted() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for each in rounds:
            listed.append(each)
            yield each

    yield from ((*listed.pop(0), lost) for lost in lost_messages(loss, noted(), n))


def _acting(active: Bool[np.ndarray, "T n"]) -> Int[np.ndarray, "T k"]:
    """List the active nodes of each round, padded with NOBODY to all nodes: longer plans of one network go on."""
    counts = active.sum(axis=1)
    acting = np.full(active.shape, NOBODY, np.int32)
    t, nodes = np.nonzero(active)
    acting[t, np.arange(t.size) - (np.cumsum(counts) - counts)[t]] = nodes
    return acting


def _properties(overlay: Overlay, options: _Options, found: _Found, width: int) -> Properties:
    """State the facts that hold by construction: a lossy plan has the same facts if by chance nothing is lost."""
    rule, activity, loss, adopt, one_graph = options
    if rule == "metropolis":
        doubly = symmetric = (loss is None or loss.both_ways) and not adopt
    else:
        doubly = all(found.even) and loss is None and not adopt
        symmetric = doubly and all(found.undirected)
    said = {
        "synchronous": activity is None,
        "one_graph": one_graph,
        "symmetric": symmetric,
        "doubly_stochastic": doubly,
        "row_stochastic": rule != "push" or doubly,
        "column_stochastic": doubly or (rule == "push" and loss is None),
    }
    words = [overlay.name, rule, *(what.name for what in (activity, loss) if what is not None)]
    name = f"changing_rounds({', '.join([*words, *(['newcomers adopt'] if adopt else [])])})"
    tags = {"own_rows"} | true_facts(said)
    return Properties(overlay.num_nodes, overlay.num_nodes, name, tags, messages=f"table: up to {width} neighbours")


def _event(rule: Any, shared: PyTree, x: PyTree) -> Event:
    links = x["links"].astype(jnp.int32)
    n = links.shape[0]
    own = jnp.arange(n, dtype=jnp.int32)
    lost = links >= n
    senders = jnp.where(lost, links - n, links)
    there = senders != own[:, None]
    arrived = there & ~lost
    sent = jnp.zeros(n, jnp.int32).at[senders].add(there.astype(jnp.int32))
    weights, self_weight = rule(senders, arrived, sent)
    if "joins" in x:
        weights, self_weight = _adopting(x["joins"], arrived, weights, self_weight)
    mixing = TableMixing(jnp.where(arrived, senders, own[:, None]), weights, self_weight)
    messages = sent.astype(jnp.uint32) if "lossy" in shared else None
    nodes, index, time = x.get("nodes"), x["index"][None], _round_time(shared, x)[None]
    if nodes is not None:
        index, time = jnp.broadcast_to(index, nodes.shape), jnp.broadcast_to(time, nodes.shape)
    return Event(index=index, time=time, nodes=nodes, mixing=mixing, messages=messages)


_Weights: TypeAlias = tuple[Float[Array, "n d"], Float[Array, " n"]]


def _shares(degrees: Int[Array, "*shape"]) -> Float[Array, "*shape"]:
    return 1 / (1 + degrees.astype(jnp.result_type(float)))


def _metropolis(senders: Array, arrived: Array, sent: Array) -> _Weights:
    larger = jnp.maximum(sent[senders], sent[:, None])  # graphs are undirected: a node expects as many as it sends
    weights = jnp.where(arrived, _shares(larger), 0.0)
    return weights, 1 - weights.sum(1)


def _uniform(senders: Array, arrived: Array, sent: Array) -> _Weights:
    del senders, sent
    own = _shares(arrived.sum(1, dtype=jnp.int32))
    return jnp.where(arrived, own[:, None], 0.0), own


def _push(senders: Array, arrived: Array, sent: Array) -> _Weights:
    return jnp.where(arrived, _shares(sent[senders]), 0.0), _shares(sent)


def _adopting(joins: Array, arrived: Array, weights: Array, self_weight: Array) -> _Weights:
    received = arrived.sum(1, dtype=jnp.int32)
    adopts = joins & (received > 0)
    mean = arrived.astype(weights.dtype) / jnp.maximum(received, 1)[:, None].astype(weights.dtype)
    return jnp.where(adopts[:, None], mean, weights), jnp.where(adopts, 0.0, self_weight)


def _metropolis_round(key: Key[Array, ""], shared: PyTree, x: PyTree) -> Event:
    del key
    return _event(_metropolis, shared, x)


def _uniform_round(key: Key[Array, ""], shared: PyTree, x: PyTree) -> Event:
    del key
    return _event(_uniform, shared, x)


def _push_round(key: Key[Array, ""], shared: PyTree, x: PyTree) -> Event:
    del key
    return _event(_push, shared, x)


EVENTS = {"metropolis": _metropolis_round, "uniform": _uniform_round, "push": _push_round}
