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

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from gossipjax._base.arguments import instance, optional_whole
from gossipjax._base.binding import Frozen
from gossipjax._base.rows import FEW, before_writing, put_rows, read_row, take, write_row
from gossipjax.mixing._apply import GroupMixing, PairMixing, TableMixing, live_receivers
from gossipjax.types import Event

TRACKED = "take protocol.versions(state) of a protocol under track_versions"


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


def staleness(versions: Versions, rows: int | None = None) -> Int[Array, "rows s"]:
    """Return ``S_i^j = N_i^i − N_i^j ≥ 0`` for rows j and sources i.

    Args:
        versions: counters of all rows.
        rows: the first how many rows; None: all.
    """
    instance("versions", versions, Versions, TRACKED)
    return versions.own[None] - complete(versions).held[: optional_whole("rows", rows, least=0)]


def complete(versions: Versions) -> Versions:
    """Write each node's own version into its own row, where it is left out during the run."""
    instance("versions", versions, Versions, TRACKED)
    if not versions.rows_are_nodes.value:
        return versions
    at = versions.sources, jnp.arange(len(versions.sources), dtype=jnp.int32)
    hops = None if versions.hops is None else versions.hops.at[at].set(0)
    return versions._replace(held=versions.held.at[at].set(versions.own), hops=hops)


def contained(versions: Versions, rows: Int[Array, " m"]) -> Versions:
    """Return what the models of some rows contain: ``held`` and ``hops`` are ``(m, s)``."""
    instance("versions", versions, Versions, TRACKED)
    held = take(versions.held, rows)
    hops = None if versions.hops is None else take(versions.hops, rows)
    if versions.rows_are_nodes.value:
        mine = _columns(versions, rows)[:, None] == jnp.arange(len(versions.own), dtype=jnp.int32)[None]
        held = jnp.where(mine, versions.own[None], held)
        hops = None if hops is None else jnp.where(mine, 0, hops)
    return versions._replace(held=held, hops=hops)


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
