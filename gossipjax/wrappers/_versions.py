"""Version counters: how old what a node knows of every other node is, counted inside the run.

``N_i^j`` is the version of node i that the model of row j contains: the number of i's updates up to the newest that
reached j on any path of models. An update of i raises its own counter; a model that is mixed into another hands on all
that it contains, so the receiver takes the maximum. Staleness is ``S_i^j = N_i^i − N_i^j``, in updates.

What a version means where messages hold a part of a model (fragments, a random subset, the largest coordinates) or a
compressed one: versions are counted as if every message were its sender's whole model. So N_i^j is the newest version
of i that *can* have left a trace in j, and is the same whatever the sharing. Each coordinate c of the model of j
contains a version ``N_i^j[c] ≤ N_i^j``. On a path of several messages the parts that are handed on need not meet, so
that no coordinate may be as new as N says. The staleness ``S_i^j = N_i^i − N_i^j`` is a lower bound of that of every
coordinate, and exact for whole models.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int, Key

from gossipjax._base import outputs
from gossipjax._base.arguments import flag, instance, optional_whole, shown, whole, wholes
from gossipjax._base.binding import Frozen, as_partial, bind
from gossipjax._base.calls import recorded
from gossipjax._base.rows import FEW, before_writing, num_rows, put_rows, read_row, take, write_row
from gossipjax.mixing._apply import GroupMixing, PairMixing, TableMixing, live_receivers
from gossipjax.types import Event, Mixing, Params, Protocol

ALL_PAIRS = 10_000
"""Nodes up to which all pairs are tracked without being asked: 400 MB of counters."""


class Versions(NamedTuple):
    """Counters of s tracked sources, or what some rows hold of them."""

    held: Int[Array, "rows s"]
    """N_i^j: version of source i (column) in the model of row j."""
    own: Int[Array, " s"]
    """N_i^i: updates of each source so far."""
    sources: Int[Array, " s"]
    """The node of each column."""
    column: Int[Array, " n"]
    """The column of each node; s for nodes that are not tracked."""
    hops: Int[Array, "rows s"] | None
    """Transmissions on the path by which the version held came first; None: not tracked."""
    rows_are_nodes: Frozen[bool]
    """Row j is node j's model (and rows from n on are messages). Its own version is then ``own``, whatever ``held``
    says: an update writes one number instead of a row."""


class TrackedState(NamedTuple):
    """State of the protocol inside, and the counters."""

    inner: Any
    versions: Versions


_TRACKED = "take protocol.versions(state) of a protocol under track_versions"
Reweight = Callable[[Versions, Mixing], Mixing]
"""Changes the weights of an event's mixing, given the counters before it; read them by :func:`contained`."""


def staleness(versions: Versions, rows: int | None = None) -> Int[Array, "rows s"]:
    """Return ``S_i^j = N_i^i − N_i^j ≥ 0`` for rows j and sources i.

    Args:
        versions: counters of all rows.
        rows: the first how many rows; None: all.
    """
    instance("versions", versions, Versions, _TRACKED)
    return versions.own[None] - complete(versions).held[: optional_whole("rows", rows, least=0)]


def complete(versions: Versions) -> Versions:
    """Write each node's own version into its own row, where it is left out during the run."""
    instance("versions", versions, Versions, _TRACKED)
    if not versions.rows_are_nodes.value:
        return versions
    at = versions.sources, jnp.arange(len(versions.sources), dtype=jnp.int32)
    hops = None if versions.hops is None else versions.hops.at[at].set(0)
    return versions._replace(held=versions.held.at[at].set(versions.own), hops=hops)


def contained(versions: Versions, rows: Int[Array, " m"]) -> Versions:
    """Return what the models of some rows contain: ``held`` and ``hops`` are ``(m, s)``."""
    instance("versions", versions, Versions, _TRACKED)
    held = take(versions.held, rows)
    hops = None if versions.hops is None else take(versions.hops, rows)
    if versions.rows_are_nodes.value:
        mine = _columns(versions, rows)[:, None] == jnp.arange(len(versions.own), dtype=jnp.int32)[None]
        held = jnp.where(mine, versions.own[None], held)
        hops = None if hops is None else jnp.where(mine, 0, hops)
    return versions._replace(held=held, hops=hops)


@recorded("hegedus2019gossip")
def age_weighted(versions: Versions, mixing: Mixing) -> Mixing:
    """Weight a received model by the updates in it: ``a = t_s / (t_s + t_r)``, ``t_j = Σ_i N_i^j`` (1/2 if both are 0).

    For :func:`track_versions`' ``reweight``, on events of one-way or mutual transfers. A transfer that keeps nothing is
    a copy, and stays one.

    Reference: Hegedűs, Danner, Jelasity 2021 (age-weighted merging of gossip learning).

    Raises:
        TypeError: another form of mixing.
    """
    instance("versions", versions, Versions, _TRACKED)
    if not isinstance(mixing, PairMixing):
        raise TypeError(
            f"mixing: age weights are for pairwise transfers, not for {type(mixing).__name__}; use poisson_push"
        )
    sender, receiver = (jnp.sum(contained(versions, rows).held, axis=1) for rows in (mixing.senders, mixing.receivers))
    total, kind = sender + receiver, mixing.weights.dtype
    share = jnp.where(total > 0, sender.astype(kind) / jnp.maximum(total, 1).astype(kind), 0.5)
    copies = mixing.keep == 0
    return mixing._replace(
        weights=jnp.where(copies, mixing.weights, share.astype(kind)),
        keep=jnp.where(copies, mixing.keep, (1 - share).astype(kind)),
    )


class _Settings(NamedTuple):
    sources: tuple[int, ...] | None
    num_nodes: int | None
    hops: bool
    rows_are_nodes: bool


def _init(inner: Protocol, settings: Frozen[_Settings], key: Key[Array, ""], x0: Params) -> TrackedState:
    chosen, rows = settings.value, num_rows(x0)
    nodes = rows if chosen.num_nodes is None else chosen.num_nodes
    if chosen.sources is None and nodes > ALL_PAIRS:
        raise ValueError(f"all pairs of {nodes} nodes are too many: track some, such as sources=64")
    tracked = np.arange(nodes) if chosen.sources is None else np.asarray(chosen.sources)
    if tracked.max(initial=0) >= nodes:
        raise ValueError(f"source {tracked.max()} is no node: numbers must lie in 0 … {nodes - 1}")
    column = np.full(nodes, len(tracked))
    column[tracked] = np.arange(len(tracked))
    held = jnp.zeros((rows, len(tracked)), jnp.int32)
    versions = Versions(
        held=held,
        own=jnp.zeros(len(tracked), jnp.int32),
        sources=jnp.asarray(tracked, jnp.int32),
        column=jnp.asarray(column, jnp.int32),
        hops=jnp.zeros_like(held) if chosen.hops else None,
        rows_are_nodes=Frozen(chosen.rows_are_nodes and rows >= nodes),
    )
    return TrackedState(inner.init(key, x0), versions)


def _step(inner: Protocol, reweight: Any, key: Key[Array, ""], state: TrackedState, event: Event):
    versions = updated(state.versions, event)
    mixing = event.mixing if reweight is None else reweight(versions, event.mixing)
    inner_state, info = outputs.step(inner, key, state.inner, event._replace(mixing=mixing))
    return TrackedState(inner_state, handed_on(versions, event)), info


def _columns(versions: Versions, nodes: Int[Array, " k"]) -> Int[Array, " k"]:
    """Column of each node; nobody has none."""
    return jnp.where(nodes < len(versions.column), take(versions.column, nodes), len(versions.own))


def updated(versions: Versions, event: Event) -> Versions:
    """Count the local steps of the acting nodes, in the rows that they train."""
    if event.nodes is None:
        own, columns, rows = versions.own + 1, jnp.arange(len(versions.own), dtype=jnp.int32), versions.sources
    else:
        columns = _columns(versions, event.nodes)
        own = _increased(versions.own, columns)
        rows = event.nodes if event.rows is None else event.rows
    if versions.rows_are_nodes.value and event.rows is None:
        return versions._replace(own=own)
    held = versions.held.at[rows, columns].set(own.at[columns].get(mode="clip"), mode="drop")
    hops = None if versions.hops is None else versions.hops.at[rows, columns].set(0, mode="drop")
    return versions._replace(held=held, own=own, hops=hops)


def _increased(own: Int[Array, " s"], columns: Int[Array, " k"]) -> Int[Array, " s"]:
    if len(columns) > FEW:
        return own.at[columns].add(1, mode="drop")
    for column in columns:
        own = write_row(own, column, read_row(own, column) + 1)
    return own


def handed_on(versions: Versions, event: Event) -> Versions:
    """Let every receiver of a mixing take the newest of what it keeps and what it is given.

    Args:
        versions: counters before the mixing.
        event: its mixing, and ``sources`` if a transfer carries one version only.
    """
    match event.mixing:
        case None:
            return versions
        case PairMixing():
            return _pairs(versions, event)
        case GroupMixing():
            return _groups(versions, event.mixing)
        case TableMixing(neighbors=neighbors, weights=weights, self_weight=self_weight):
            return _rounds(complete(versions), neighbors.T, weights.T, self_weight)
        case _:
            W = event.mixing.W
            everyone = jnp.broadcast_to(jnp.arange(W.shape[0], dtype=jnp.int32)[:, None], W.shape)
            off = jnp.where(jnp.eye(W.shape[0], dtype=bool), 0, W)
            return _rounds(complete(versions), everyone, off.T, jnp.diagonal(W))


_NONE = np.int32(-1)
"""Older than every version: what a row holds of which it keeps nothing."""


def _newer(own: Versions, other: Versions, farther: int = 1) -> Versions:
    """Elementwise: the newer version with its hops, which are more by ``farther`` where it is the other's."""
    takes = other.held > own.held
    hops = None if own.hops is None or other.hops is None else jnp.where(takes, other.hops + farther, own.hops)
    return own._replace(held=jnp.where(takes, other.held, own.held), hops=hops)


def _only(versions: Versions, present: Array) -> Versions:
    """Forget what is not present."""
    return versions._replace(held=jnp.where(present, versions.held, _NONE))


def _put(versions: Versions, rows: Int[Array, " m"], new: Versions) -> Versions:
    hops = None if versions.hops is None or new.hops is None else put_rows(versions.hops, rows, new.hops)
    return versions._replace(held=put_rows(versions.held, rows, new.held), hops=hops)


def _pairs(versions: Versions, event: Event) -> Versions:
    receivers, m = live_receivers(event.mixing, versions.held.shape[0]), len(event.mixing.senders)
    if not 1 < m <= FEW:  # one write needs no barrier, many are one scatter
        return _put(versions, receivers, _received(versions, event))

    def after() -> list[tuple[Array, Array | None]]:
        new = [_received(versions, _lane(event, k)) for k in range(m)]
        return [(one.held, one.hops) for one in new]

    def before() -> list[tuple[Array, Array | None]]:
        hops = versions.hops
        return [(read_row(versions.held, row), None if hops is None else read_row(hops, row)) for row in receivers]

    for row, (held, hops) in zip(
        receivers, before_writing(jnp.any(receivers < versions.held.shape[0]), after, before), strict=True
    ):
        versions = _put(versions, row[None], versions._replace(held=held, hops=hops))
    return versions


def _lane(event: Event, k: int) -> Event:
    """One transfer of an event."""
    mixing = PairMixing(*(array[k : k + 1] for array in event.mixing))
    return event._replace(mixing=mixing, sources=None if event.sources is None else event.sources[k : k + 1])


def _received(versions: Versions, event: Event) -> Versions:
    """What the receivers hold after each transfer."""
    mixing = event.mixing
    own, other = contained(versions, mixing.receivers), contained(versions, mixing.senders)
    carried = (mixing.weights != 0)[:, None]
    if event.sources is not None:
        only = _columns(versions, event.sources)[:, None]
        carried &= only == jnp.arange(len(versions.own), dtype=jnp.int32)[None]
    if other.hops is not None:  # a copy into a slot is the first half of a transmission, its delivery the other
        other = other._replace(hops=other.hops - (mixing.keep == 0).astype(jnp.int32)[:, None])
    return _newer(_only(own, (mixing.keep != 0)[:, None]), _only(other, carried))


def _groups(versions: Versions, mixing: GroupMixing) -> Versions:
    """A target that is a member keeps its own hops; others are one further, unless a lone one is copied."""
    first_target = mixing.targets[:, 0]
    merged = jnp.sum(mixing.weights != 0, axis=1) > 1

    def given(s: int) -> Versions:
        members = mixing.members[:, s]
        present = (mixing.weights[:, s] != 0) & (members < versions.held.shape[0])
        found = _only(contained(versions, members), present[:, None])
        if found.hops is None:
            return found
        return found._replace(hops=found.hops + ((members != first_target) & merged).astype(jnp.int32)[:, None])

    best = given(0)
    for s in range(1, mixing.members.shape[1]):
        best = _newer(best, given(s), farther=0)
    repeated = mixing.targets.shape[1]
    spread = best._replace(
        held=jnp.repeat(best.held, repeated, axis=0),
        hops=None if best.hops is None else jnp.repeat(best.hops, repeated, axis=0),
    )
    return _put(versions, mixing.targets.ravel(), spread)


def _rounds(
    versions: Versions, neighbors: Int[Array, "d n"], weights: Float[Array, "d n"], self_weight: Float[Array, " n"]
) -> Versions:
    """Synchronous rounds: neighbour after neighbour, all as they were before the round."""
    start = _only(versions, (self_weight != 0)[:, None])

    def add(best: Versions, neighbor: tuple[Array, Array]) -> tuple[Versions, None]:
        rows, weights = neighbor
        other = versions._replace(held=versions.held[rows], hops=None if versions.hops is None else versions.hops[rows])
        return _newer(best, _only(other, (weights != 0)[:, None])), None

    return jax.lax.scan(add, start, (neighbors, weights))[0]


def _model(inner: Protocol, state: TrackedState) -> Params:
    return inner.model(state.inner)


def _meter(inner: Protocol, state: TrackedState) -> Any:
    assert inner.meter is not None
    return inner.meter(state.inner)


def _versions(state: TrackedState) -> Versions:
    return complete(state.versions)


@recorded("mitra2024timely", "yates2021age")
def track_versions(
    protocol: Protocol,
    sources: Sequence[int] | int | None = None,
    *,
    num_nodes: int | None = None,
    reweight: Reweight | None = None,
    hops: bool = False,
    rows_are_nodes: bool = True,
) -> Protocol:
    """Count versions beside any protocol: ``N_i^i += 1`` at an update of i; receivers take the elementwise maximum.

    Invariants: ``0 ≤ N_i^j ≤ N_i^i``; N never decreases in a model row; after a push k → j, ``N^j ≥ N^k`` columnwise.
    Read them with the observers of :mod:`gossipjax.observe`, or by ``protocol.versions(trajectory.state)``.

    >>> import jax, gossipjax as gj
    >>> plan = gj.timeline.poisson_pairs(gj.topology.ring(5), 100, seed=0)
    >>> run = gj.simulate(jax.random.key(0), gj.track_versions(gj.gossip_averaging()), plan, jax.numpy.arange(5.0))
    >>> int(run.state.versions.own.sum())
    100

    Args:
        protocol: what runs inside, unchanged unless ``reweight`` is given.
        sources: the nodes that are tracked; a number k: k nodes evenly spread over the numbers (needs num_nodes); None:
            all, up to 10,000. Counters take 4 bytes per row and source.
        num_nodes: nodes of the timeline. None: those of the protocol's task, or else the rows, which is right unless
            messages are in flight or rows are no nodes.
        reweight: ``reweight(versions, mixing) -> mixing``, applied before the mixing of every event, such as
            :func:`age_weighted`.
        hops: track the transmissions on the newest version's path as well.
        rows_are_nodes: False where model rows are walks or slots, not nodes; so taken where rows are fewer than nodes.

    Raises:
        ValueError: sources that are not distinct nodes, or all of more than 10,000; a ``reweight`` of a protocol that
            needs facts of the timeline's weights, such as doubly stochastic ones, which other weights do not have.

    Reference: Mitra and Ulukus 2024, arXiv 2404.19749 (staleness); Yates 2021, arXiv 2102.02893 (version age).
    """
    protocol, num_nodes = bind(protocol), optional_whole("num_nodes", num_nodes, least=1)
    nodes = protocol.requires.num_nodes if num_nodes is None else num_nodes
    flags = flag("hops", hops), flag("rows_are_nodes", rows_are_nodes)
    settings = Frozen(_Settings(_sources(sources, nodes), nodes, *flags))
    again = None if reweight is None else _check_reweight(protocol, reweight)
    return Protocol(
        init=Partial(_init, protocol, settings),
        step=Partial(_step, protocol, again),
        model=Partial(_model, protocol),
        requires=protocol.requires,
        versions=Partial(_versions),
        meter=None if protocol.meter is None else Partial(_meter, protocol),
    )


def _sources(sources: Sequence[int] | int | None, num_nodes: int | None) -> tuple[int, ...] | None:
    if sources is None:
        return None
    if np.ndim(sources) == 0:
        remedy = "how many nodes are tracked; or give a list of them"
        number = whole("sources", sources, least=1, most=num_nodes, remedy=remedy)
        if num_nodes is None:
            raise ValueError(f"sources={number} of num_nodes=None: give num_nodes, of which they are")
        return tuple(int(node) for node in np.linspace(0, num_nodes - 1, number).round())
    most = None if num_nodes is None else num_nodes - 1
    chosen = tuple(
        wholes("sources", sources, shape=(None,), least=0, most=most, remedy="distinct numbers of nodes").tolist()
    )
    if not chosen or len(set(chosen)) < len(chosen):
        raise ValueError(f"sources={shown(sources)}: must be distinct node numbers, at least one of them")
    return chosen


def _check_reweight(protocol: Protocol, reweight: Reweight) -> Partial:
    """Refuse other weights where the protocol counts on those of the timeline."""
    facts = ("fixed", "symmetric", "doubly_stochastic", "column_stochastic", "averages")
    broken = [fact.replace("_", " ") for fact in facts if fact in protocol.requires]
    if broken:
        raise ValueError(f"reweight changes the mixing, which the protocol needs to be {broken[0]}: leave it out")
    return as_partial("reweight", reweight, "reweight(versions, mixing) -> mixing")
