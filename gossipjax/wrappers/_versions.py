"""Protocols that count versions beside another one, and mixing by the ages of models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Key

from gossipjax._base import outputs
from gossipjax._base.arguments import flag, instance, optional_whole, shown, whole, wholes
from gossipjax._base.binding import Frozen, as_partial, bind
from gossipjax._base.calls import recorded
from gossipjax._base.rows import num_rows
from gossipjax.mixing._apply import PairMixing
from gossipjax.types import Event, Mixing, Params, Protocol
from gossipjax.wrappers._counters import TRACKED, Versions, complete, contained, handed_on, updated

ALL_PAIRS = 10_000
"""Nodes up to which all pairs are tracked without being asked: 400 MB of counters."""


class TrackedState(NamedTuple):
    """State of the protocol inside, and the counters."""

    inner: Any
    versions: Versions


Reweight = Callable[[Versions, Mixing], Mixing]
"""Changes the weights of an event's mixing, given the counters before it; read them by :func:`contained`."""


@recorded("hegedus2019gossip")
def age_weighted(versions: Versions, mixing: Mixing) -> Mixing:
    """Weight a received model by the updates in it: ``a = t_s / (t_s + t_r)``, ``t_j = Σ_i N_i^j`` (1/2 if both are 0).

    For :func:`track_versions`' ``reweight``, on events of one-way or mutual transfers. A transfer that keeps nothing is
    a copy, and stays one.

    Reference: Hegedűs, Danner, Jelasity 2021 (age-weighted merging of gossip learning).

    Raises:
        TypeError: another form of mixing.
    """
    instance("versions", versions, Versions, TRACKED)
    if not isinstance(mixing, PairMixing):
        raise TypeError(
            f"mixing: age weights are for pairwise transfers, not for {type(mixing).__name__}; use poisson_push"
        )
    kind, own = mixing.weights.dtype, jnp.result_type(float)  # the sum of integers might overflow
    sender, receiver = (
        jnp.sum(contained(versions, rows).held.astype(own), axis=1) for rows in (mixing.senders, mixing.receivers)
    )
    total = sender + receiver
    share = jnp.where(total > 0, sender / jnp.maximum(total, 1), 0.5)
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
    column = jnp.full(nodes, len(tracked), jnp.int32).at[tracked].set(np.arange(len(tracked), dtype=np.int32))
    held = jnp.zeros((rows, len(tracked)), jnp.int32)
    versions = Versions(
        held=held,
        own=jnp.zeros(len(tracked), jnp.int32),
        sources=jnp.asarray(tracked, jnp.int32),
        column=column,
        hops=jnp.zeros_like(held) if chosen.hops else None,
        rows_are_nodes=Frozen(chosen.rows_are_nodes and rows >= nodes),
    )
    return TrackedState(inner.init(key, x0), versions)


def _step(inner: Protocol, reweight: Any, key: Key[Array, ""], state: TrackedState, event: Event):
    versions = updated(state.versions, event)
    mixing = event.mixing if reweight is None else reweight(versions, event.mixing)
    inner_state, info = outputs.step(inner, key, state.inner, event._replace(mixing=mixing))
    return TrackedState(inner_state, handed_on(versions, event)), info


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
