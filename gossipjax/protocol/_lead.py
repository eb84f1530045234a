"""LEAD: the exact steps of NIDS with compressed messages."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Key

from gossipjax._base.arguments import real
from gossipjax._base.binding import as_task
from gossipjax._base.calls import recorded
from gossipjax._base.placement import by_rows
from gossipjax._base.rows import all_finite, num_rows, scale_rows, where_rows
from gossipjax.compress._compressor import Compressor, as_compressor, compress_rows
from gossipjax.facts import FIXED_GRAPH, Requires
from gossipjax.mixing._apply import mix
from gossipjax.mixing._counting import traffic_fields
from gossipjax.protocol._local import node_gradients
from gossipjax.types import Event, Info, Params, Protocol, Task


class LeadState(NamedTuple):
    """Models, dual variables, and what the neighbours know of the models to come, of all nodes."""

    x: Params
    dual: Params
    """D, which sums to zero over the nodes."""
    estimate: Params
    """H, which all neighbours of a node know."""
    started: Bool[Array, " n"]
    """Whether there was a first step, which sends nothing."""


def _init(key: Key[Array, ""], x0: Params) -> LeadState:
    del key
    zero = jax.tree.map(jnp.zeros_like, x0)
    return LeadState(x0, zero, zero, jnp.zeros(num_rows(x0), bool))


@by_rows
def _step(
    task: Task, step_size: Any, compressor: Compressor, gamma: Any, alpha: Any, key, state: LeadState, event: Event
) -> tuple[LeadState, Info]:
    """One round: what the next model would be is said, the dual variable moves by differences of it, then the model."""
    loss, gradient = node_gradients(key, task, state.x, event)
    adapted = jax.tree.map(jnp.subtract, state.x, scale_rows(step_size, gradient))
    wanted = jax.tree.map(jnp.subtract, adapted, scale_rows(step_size, state.dual))
    unknown = jax.tree.map(jnp.subtract, wanted, state.estimate)
    message, bits = compress_rows(key, compressor, unknown, event)
    said = jax.tree.map(jnp.add, state.estimate, message)
    gap = jax.tree.map(jnp.subtract, said, mix(event.mixing, said))
    moved = jax.tree.map(jnp.add, state.dual, scale_rows(gamma / (2 * step_size), gap))
    heard = jax.tree.map(jnp.add, state.estimate, scale_rows(alpha, message))
    dual = where_rows(state.started, moved, state.dual)
    x = jax.tree.map(jnp.subtract, adapted, scale_rows(step_size, dual))
    estimate = where_rows(state.started, heard, state.estimate)
    info = Info(*traffic_fields(event, bits, num_rows(x)), loss, all_finite(x))
    return LeadState(x, dual, estimate, jnp.ones_like(state.started)), info


def _model(state: LeadState) -> Params:
    return state.x


@recorded("liu2021lead", "li2019nids")
def lead(
    task: Task,
    step_size: float | Float[np.ndarray | Array, ""],
    compressor: Compressor,
    *,
    gamma: float | Float[np.ndarray | Array, ""] = 1.0,
    alpha: float | Float[np.ndarray | Array, ""] = 0.5,
) -> Protocol:
    """Build LEAD: a primal-dual method whose messages are compressed differences to what the neighbours know::

        x_1 = x_0 − η g_0                               nothing is sent; D = H = 0
        Y = x − η g − η D
        Q = C(Y − H),   Ŷ = H + Q                       the message is Q
        D ← D + γ/(2η) (I − W) Ŷ
        H ← H + α Q                                     by each node and its neighbours
        x ← x − η g − η D

    If W is doubly stochastic, D always sums to zero, so x̄ moves by −η times the mean gradient, for any C. Where it
    stops, Y = H = x, all nodes have one model and ``D_i = −g_i``: it is exact with exact gradients, whatever the
    compressor left out on the way. With C(x) = x and γ = 1 it is :func:`~gossipjax.nids` with equal steps.

    The rate is linear on smooth, strongly convex problems with exact gradients. The proof takes α ≤ 1/(1 + v) with the
    variance v of the compressor, and a small γ where v is large; the published experiments keep γ = 1 and α = 1/2. A
    message holds one compressed vector; the first round needs none, but its messages are counted.

    On a fixed graph all neighbours know the same H, so one per node is stored. The published ``H_w`` is W H.

    Args:
        task: one shard per node.
        step_size: η > 0. A new value does not recompile the run.
        compressor: C, unbiased (:mod:`gossipjax.compress`).
        gamma: γ > 0, step size of the dual variable.
        alpha: α in (0, 1], how much of a message is remembered.

    Raises:
        TypeError: if task or compressor has the wrong type.
        ValueError: if a number is out of range, or the compressor is biased; during a run, if the timeline is not
            synchronous rounds on one symmetric doubly stochastic matrix.

    Reference: Liu, Li, Wang, Tang, Yan 2021, arXiv 2007.00232, algorithm 1 (recalled, not looked up).
    """
    _check_unbiased(as_compressor(compressor))
    real("step_size", step_size, above=0, remedy="below 2 / L of every node's loss")
    real("gamma", gamma, above=0, remedy="1 is that of NIDS")
    real("alpha", alpha, above=0, most=1, remedy="1 / (1 + v) suits a compressor of variance v")
    return Protocol(
        init=Partial(_init),
        step=Partial(_step, as_task(task), step_size, compressor, gamma, alpha),
        model=Partial(_model),
        requires=FIXED_GRAPH | Requires({"own_rows"}, num_nodes=task.num_nodes, local_steps=1),
    )


def _check_unbiased(compressor: Compressor) -> None:
    if not compressor.unbiased:
        raise ValueError(
            f"{compressor.name} is biased: the errors of LEAD's messages must average out; take an unbiased compressor "
            "such as qsgd(4) or random_k(share=0.5, unbiased=True), or beer(), which takes biased ones"
        )
