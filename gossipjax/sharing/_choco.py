"""CHOCO: compressed differences between a model and the copy of it that all neighbours hold."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float, Key, UInt

from gossipjax._base.arguments import real
from gossipjax._base.calls import recorded
from gossipjax._base.placement import by_rows
from gossipjax._base.rows import parameters_per_row
from gossipjax.compress._compressor import Compressor, as_compressor, compress_rows
from gossipjax.facts import FIXED_GRAPH
from gossipjax.mixing._apply import mix
from gossipjax.types import Event, Mixing, Params, Sharing


class ChocoState(NamedTuple):
    """The copy that all neighbours of a node have of its model: the sum of its messages."""

    estimate: Params
    """x̂, leaves ``(n, ...)`` like the models."""


def check_gamma(gamma: float | Float[np.ndarray | Array, ""]) -> None:
    """Raise ValueError if a consensus step size is not positive and finite; traced ones pass."""
    real("gamma", gamma, above=0, remedy="the consensus step size; 1 mixes in full")


def check_quality(compressor: Compressor, x0: Params) -> None:
    """Raise ValueError if a compressor has no quality ω for models of this size."""
    d = parameters_per_row(x0)
    if compressor.omega(d) is None:
        raise ValueError(
            f"{compressor.name} has no quality ω for d={d} coordinates: its errors can be larger than what it sends; "
            "pass contractive(compressor), or send more"
        )


def consensus_step(gamma: Any, mixing: Mixing, x: Params, estimate: Params) -> Params:
    """Return ``x_i + γ (Σ_j W_ij x̂_j − x̂_i)``; a doubly stochastic W conserves the mean."""

    def move(leaf: Array, mixed: Array, own: Array) -> Array:
        return leaf + jnp.asarray(gamma).astype(leaf.dtype) * (mixed - own)

    return jax.tree.map(move, x, mix(mixing, estimate), estimate)


def start_at_zero(compressor: Compressor, x0: Params) -> ChocoState:
    """Start with copies that are 0, after a check that the compressor has a quality."""
    check_quality(compressor, x0)
    return ChocoState(jax.tree.map(jnp.zeros_like, x0))


@by_rows
def _encode(
    compressor: Compressor, key: Key[Array, ""], state: ChocoState, x_start: Params, x: Params, event: Event
) -> tuple[ChocoState, tuple[Params, int | UInt[Array, " n"]]]:
    del x_start
    change = jax.tree.map(jnp.subtract, x, state.estimate)
    message, bits = compress_rows(key, compressor, change, event)
    return state, (message, bits)


@by_rows
def merge_differences(
    gamma: Any, key: Key[Array, ""], state: ChocoState, arrived: tuple[Params, Params, Event]
) -> tuple[ChocoState, Params]:
    """Add the messages to the copies, and take the consensus step on the copies."""
    del key
    x, message, event = arrived
    estimate = jax.tree.map(jnp.add, state.estimate, message)
    return ChocoState(estimate), consensus_step(gamma, event.mixing, x, estimate)


@recorded("koloskova2019choco", "koloskova2020choco")
def choco(compressor: Compressor, gamma: float | Float[np.ndarray | Array, ""]) -> Sharing:
    """Build CHOCO: nodes gossip on copies of their models, and send compressed corrections of the copies::

        q_i = Q(x_i − x̂_i)                          the message, to all neighbours
        x̂_i ← x̂_i + q_i                             by node i and by each of its neighbours; 0 at the start
        x_i ← x_i + γ Σ_j W_ij (x̂_j − x̂_i)

    Conserves the mean of x up to rounding, for any Q. With ω = 1 and γ = 1 it is ``x ← W x``. In
    :func:`~gossipjax.gossip_averaging` it is CHOCO-gossip; in :func:`~gossipjax.dpsgd` with adapt-then-combine it is
    CHOCO-SGD; with combine-then-adapt, which sends messages before it takes gradients, it is the form of 2020, with
    ``Q(x_i)`` of the start as the first copies. If Q is random, even equal models move apart until the copies, which
    start at 0, have caught up.

    On a fixed graph all neighbours have equal copies x̂_j, so one copy per node is stored.

    Args:
        compressor: Q, with a quality ω (:mod:`gossipjax.compress`).
        gamma: consensus step size γ > 0, from about ω for aggressive compressors up to 1 at ω = 1. Steps hundreds of
            times larger than the proved bound may converge. A new value does not recompile the run.

    Raises:
        ValueError: if γ is not positive and finite; if the compressor has no ω for models of this size; during a run,
            if the timeline is not synchronous rounds on one symmetric doubly stochastic matrix.

    Reference: Koloskova, Stich, Jaggi 2019, arXiv 1902.00340, algorithms 1 (gossip) and 2 (SGD); Koloskova, Lin, Stich,
    Jaggi 2020, arXiv 1907.09356, algorithm 1.
    """
    as_compressor(compressor)
    check_gamma(gamma)
    return Sharing(
        Partial(start_at_zero, compressor), Partial(_encode, compressor), Partial(merge_differences, gamma), FIXED_GRAPH
    )
