"""SPARQ: CHOCO in which nodes send nothing while their models are close to the copies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, Key, UInt

from gossipjax._base.arguments import real
from gossipjax._base.binding import as_partial
from gossipjax._base.calls import recorded
from gossipjax._base.placement import by_rows
from gossipjax.compress._compressor import Compressor, as_compressor, compress_rows, ravel_rows
from gossipjax.facts import FIXED_GRAPH
from gossipjax.sharing._choco import ChocoState, check_gamma, merge_differences, start_at_zero
from gossipjax.types import Event, Params, Sharing

Schedule: TypeAlias = Callable[[Int[Array, ""]], ArrayLike]
"""A function of the number of the round, from 0, such as a schedule of optax."""


def _moved(threshold: Any, change: Params, event: Event) -> Bool[Array, " n"]:
    """Mark the nodes whose squared distance from their copies exceeds the threshold."""
    squares = jnp.sum(jnp.square(ravel_rows(change)), axis=1)
    limit = threshold(event.index[0].astype(jnp.int32)) if callable(threshold) else threshold
    return squares > jnp.asarray(limit).astype(squares.dtype)


@by_rows
def _encode(
    compressor: Compressor,
    threshold: Any,
    key: Key[Array, ""],
    state: ChocoState,
    x_start: Params,
    x: Params,
    event: Event,
) -> tuple[ChocoState, tuple[Params, UInt[Array, " n"]]]:
    del x_start
    change = jax.tree.map(jnp.subtract, x, state.estimate)
    moved = _moved(threshold, change, event)
    message, bits = compress_rows(key, compressor, change, event)

    def or_nothing(leaf: Array) -> Array:
        return jnp.where(moved.reshape(-1, *(1,) * (leaf.ndim - 1)), leaf, 0)

    return state, (jax.tree.map(or_nothing, message), jnp.where(moved, bits, 0).astype(jnp.uint32))


@recorded("singh2019sparq")
def sparq(
    compressor: Compressor,
    gamma: float | Float[np.ndarray | Array, ""],
    threshold: float | Float[np.ndarray | Array, ""] | Schedule,
) -> Sharing:
    """Build SPARQ: CHOCO with a trigger. In round t::

        q_i = Q(x_i − x̂_i)  if  ‖x_i − x̂_i‖² > c_t,  else nothing
        x̂_i ← x̂_i + q_i                             by node i and by each of its neighbours; 0 at the start
        x_i ← x_i + γ Σ_j W_ij (x̂_j − x̂_i)

    Conserves the mean of x up to rounding. With c = 0 it is :func:`~gossipjax.sharing.choco`. In
    :func:`~gossipjax.dpsgd` with adapt-then-combine and ``local_steps=H`` it is SPARQ-SGD with H steps per round; the
    compressor of the paper is :func:`~gossipjax.compress.sign_top_k`.

    A node that sends nothing counts as a message of 0 bits to each neighbour; the signal that nothing comes, which
    synchronous rounds need, is not counted.

    Args:
        compressor: Q, with a quality ω (:mod:`gossipjax.compress`).
        gamma: consensus step size γ > 0, as in CHOCO. A new value does not recompile the run.
        threshold: c ≥ 0, in the square of the models' unit; the paper's ``c_t η_t²``, learning rate included. A number,
            of which a new value does not recompile the run; or a function of the number of the round, from 0, such as a
            schedule of optax (a ``Partial`` keeps its numbers as arguments).

    Raises:
        ValueError: if γ is not positive and finite, or the threshold is negative or not finite; if the compressor has
            no ω for models of this size; during a run, if the timeline is not synchronous rounds on one symmetric
            doubly stochastic matrix.

    Reference: Singh, Data, George, Diggavi 2019, arXiv 1910.14280, algorithm 1.
    """
    as_compressor(compressor)
    check_gamma(gamma)
    if callable(threshold):
        threshold = as_partial("threshold", threshold, "threshold(round) -> number")
    else:
        real("threshold", threshold, least=0, remedy="0 sends whatever has changed")
    encode = Partial(_encode, compressor, threshold)
    return Sharing(Partial(start_at_zero, compressor), encode, Partial(merge_differences, gamma), FIXED_GRAPH)
