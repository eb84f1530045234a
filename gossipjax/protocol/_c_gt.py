"""C-GT: gradient tracking whose models and trackers are compressed as differences to what neighbours know."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float, Key

from gossipjax._base.arguments import real
from gossipjax._base.binding import as_task
from gossipjax._base.calls import recorded
from gossipjax._base.placement import by_rows
from gossipjax._base.rows import all_finite, num_rows, scale_rows
from gossipjax.compress._compressor import Compressor, as_compressor
from gossipjax.facts import FIXED_GRAPH, Requires
from gossipjax.mixing._counting import traffic_fields
from gossipjax.protocol._beer import TRACKERS, tell
from gossipjax.protocol._local import node_gradients
from gossipjax.sharing._choco import check_gamma, consensus_step
from gossipjax.types import Event, Info, Params, Protocol, Task


class CGTState(NamedTuple):
    """Models, mixed trackers, what neighbours know of both, and last gradients of all nodes."""

    x: Params
    x_estimate: Params
    """H_x, which all neighbours of a node know."""
    mixed: Params
    """Y of the last round after mixing: the next Y is this plus the change of the gradient."""
    tracker_estimate: Params
    """H_y."""
    gradient: Params


def _init(key: Key[Array, ""], x0: Params) -> CGTState:
    del key
    zero = jax.tree.map(jnp.zeros_like, x0)
    return CGTState(x0, zero, zero, zero, zero)


def _remember(alpha: Any, estimate: Params, copy: Params) -> Params:
    """Return ``H + α Q``, with ``copy = H + Q``."""
    return jax.tree.map(lambda old, new: old + jnp.asarray(alpha, old.dtype) * (new - old), estimate, copy)


@by_rows
def _step(
    task: Task, step_size: Any, compressor: Compressor, gamma: Any, alpha: Any, key, state: CGTState, event: Event
) -> tuple[CGTState, Info]:
    """One round: the tracker from the gradient at x, what is said of both, and both after mixing."""
    loss, gradient = node_gradients(key, task, state.x, event)
    tracker = jax.tree.map(lambda y, new, old: y + (new - old), state.mixed, gradient, state.gradient)
    x_copy, x_bits = tell(key, compressor, state.x_estimate, state.x, event)
    of_trackers = jax.random.fold_in(key, TRACKERS)
    tracker_copy, bits = tell(of_trackers, compressor, state.tracker_estimate, tracker, event)
    pulled = consensus_step(gamma, event.mixing, state.x, x_copy)
    x = jax.tree.map(jnp.subtract, pulled, scale_rows(step_size, tracker))
    mixed = consensus_step(gamma, event.mixing, tracker, tracker_copy)
    x_estimate = _remember(alpha, state.x_estimate, x_copy)
    tracker_estimate = _remember(alpha, state.tracker_estimate, tracker_copy)
    info = Info(*traffic_fields(event, x_bits + bits, num_rows(x)), loss, all_finite(x))
    return CGTState(x, x_estimate, mixed, tracker_estimate, gradient), info


def _model(state: CGTState) -> Params:
    return state.x


@recorded("liao2022cgt")
def c_gt(
    task: Task,
    step_size: float | Float[np.ndarray | Array, ""],
    compressor: Compressor,
    gamma: float | Float[np.ndarray | Array, ""],
    *,
    alpha: float | Float[np.ndarray | Array, ""],
) -> Protocol:
    """Build C-GT, gradient tracking with compressed messages, for biased and unbiased compressors alike::

        Q_x = C(X − H_x),   X̂ = H_x + Q_x               the message is Q_x and Q_y
        Q_y = C(Y − H_y),   Ŷ = H_y + Q_y
        H_x ← H_x + α Q_x,  H_y ← H_y + α Q_y           by each node and its neighbours
        X ← X − γ (I − W) X̂ − η Y
        Y ← Y − γ (I − W) Ŷ + g(X) − g_old              g at the new X

    with H_x = H_y = 0 and Y = g(x_0) at the start. A round here ends before g is added to Y, so that each takes one
    gradient and none is needed before the first; the models after every round are those of the published loop.

    If W is doubly stochastic, the mean of Y always equals the mean of the nodes' gradients, and X̄ moves by −η Ȳ, for
    any C. The rate is linear on smooth, strongly convex problems with exact gradients, if η and γ are small enough for
    the compressor and the graph. With C(x) = x and γ = 1 it is :func:`~gossipjax.gradient_tracking` (combine then
    adapt). :func:`~gossipjax.beer` has α = 1 and says the new model instead of the old one.

    A message holds two compressed vectors and counts as one. On a fixed graph all neighbours know the same H, so one
    per node is stored. The published ``H_w`` is W H; its α_x and α_y are equal here.

    Args:
        task: one shard per node.
        step_size: η > 0. A new value does not recompile the run.
        compressor: C (:mod:`gossipjax.compress`).
        gamma: consensus step size γ > 0; smaller for coarser compressors. A new value does not recompile the run.
        alpha: α in (0, 1], how much of a message is remembered: 1 suits compressors that shorten what they are given,
            such as top-k, and 1 / (1 + v) unbiased ones of variance v.

    Raises:
        TypeError: if task or compressor has the wrong type.
        ValueError: if a number is out of range; during a run, if the timeline is not synchronous rounds on one
            symmetric doubly stochastic matrix.

    Reference: Liao, Li, Huang, Pu 2022, arXiv 2205.12623, algorithm 1 (recalled; checked against an implementation with
        γ = 1/2 in public code).
    """
    as_compressor(compressor)
    real("step_size", step_size, above=0, remedy="well below 1 / L of every node's loss")
    check_gamma(gamma)
    real("alpha", alpha, above=0, most=1, remedy="1 / (1 + v) suits a compressor of variance v")
    return Protocol(
        init=Partial(_init),
        step=Partial(_step, as_task(task), step_size, compressor, gamma, alpha),
        model=Partial(_model),
        requires=FIXED_GRAPH | Requires({"own_rows"}, num_nodes=task.num_nodes, local_steps=1),
    )
