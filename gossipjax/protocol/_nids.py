"""NIDS: step sizes that depend on a node's own loss only, and a regularizer that is not smooth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Key

from gossipjax._base.arguments import real, reals
from gossipjax._base.binding import as_partial, as_task
from gossipjax._base.calls import recorded
from gossipjax._base.placement import by_rows, map_nodes
from gossipjax._base.rows import all_finite, bits_per_row, num_rows, scale_rows, where_rows
from gossipjax.facts import FIXED_GRAPH, Requires
from gossipjax.mixing._apply import mix
from gossipjax.mixing._counting import traffic_fields
from gossipjax.protocol._local import node_gradients
from gossipjax.types import Event, Info, Params, Protocol, Task


class NIDSState(NamedTuple):
    """Models, models before the prox, and models after the last gradient step, of all nodes."""

    x: Params
    z: Params
    adapted: Params
    """``x − α g`` of the last round."""
    started: Bool[Array, " n"]
    """Whether there was a last round."""


def _init(key: Key[Array, ""], x0: Params) -> NIDSState:
    del key
    return NIDSState(x0, x0, x0, jnp.zeros(num_rows(x0), bool))


def _of_rows(steps: Any, event: Event) -> Any:
    """Return the step sizes of the rows that are here."""
    return steps if event.local is None or jnp.ndim(steps) == 0 else jnp.asarray(steps)[event.local.ids]


@by_rows
def _step(task: Task, steps: Any, prox: Partial | None, key, state: NIDSState, event: Event) -> tuple[NIDSState, Info]:
    """One round: gradient, mixing of what changed, prox."""
    every, steps = steps, _of_rows(steps, event)
    loss, gradient = node_gradients(key, task, state.x, event)
    adapted = jax.tree.map(jnp.subtract, state.x, scale_rows(steps, gradient))
    v = jax.tree.map(lambda x, new, old: x + new - old, state.x, adapted, state.adapted)
    gap = jax.tree.map(jnp.subtract, v, mix(event.mixing, v))
    relative = jnp.asarray(steps) / (2 * jnp.max(jnp.asarray(every)))
    corrected = jax.tree.map(lambda z, x, v, d: z - x + v - d, state.z, state.x, v, scale_rows(relative, gap))
    z = where_rows(state.started, corrected, adapted)
    x = z if prox is None else _prox_of_rows(prox, z, steps)
    info = Info(*traffic_fields(event, bits_per_row(x), num_rows(x)), loss, all_finite(x))
    return NIDSState(x, z, adapted, jnp.ones_like(state.started)), info


def _prox_of_rows(prox: Partial, z: Params, steps: Any) -> Params:
    own = jnp.broadcast_to(jnp.asarray(steps), (num_rows(z),)).astype(jax.tree.leaves(z)[0].dtype)
    return map_nodes(prox, z, own)


def _model(state: NIDSState) -> Params:
    return state.x


@recorded("li2019nids")
def nids(
    task: Task,
    step_sizes: float | Float[np.ndarray | Array, "*n"],
    *,
    prox: Callable[[Params, Float[Array, ""]], Params] | None = None,
) -> Protocol:
    """Build NIDS, for the sum of the smooth losses f_i and of a regularizer r of each node.

    With Λ the diagonal matrix of the step sizes α_i and ``W̃ = I − Λ (I − W) / (2 max α)``::

        z_1 = x_0 − Λ g_0
        z_{t+1} = z_t − x_t + W̃ (2 x_t − x_{t−1} − Λ (g_t − g_{t−1}))
        x_t = prox(z_t)                                 row i: argmin_x  r(x) + ‖x − z_i‖² / (2 α_i)

    Without r it conserves ``Σ_i x_i / α_i`` up to the gradients: each round subtracts ``Σ_i g_i``. With equal step
    sizes, W̃ = ½ (I + W), and all rounds but the first are those of :func:`~gossipjax.exact_diffusion`.

    With exact gradients of convex, L_i-smooth f_i it converges to the exact optimum for every α_i < 2 / L_i, whatever
    the graph, and linearly if f_i are strongly convex and there is no r. A message holds one vector; the first round
    mixes nothing, but its messages are counted.

    Args:
        task: one shard per node.
        step_sizes: α > 0, one number or ``(n,)``. New values do not recompile the run.
        prox: ``prox(z, α) -> x`` for the model of one node, such as soft thresholding at α times the weight of an ℓ1
            norm (``Partial`` keeps its numbers as arguments); None: no regularizer.

    Raises:
        TypeError: if task or prox has the wrong type.
        ValueError: if a step size is not positive and finite, or their number is not n; during a run, if the timeline
            is not synchronous rounds on one symmetric doubly stochastic matrix.

    Reference: Li, Shi, Yan 2019, arXiv 1704.07807, with c = 1 / (2 max α).
    """
    task = as_task(task)
    _check_steps(step_sizes, task.num_nodes)
    bound = None if prox is None else as_partial("prox", prox, "prox(z, step_size) -> x")
    return Protocol(
        init=Partial(_init),
        step=Partial(_step, task, step_sizes, bound),
        model=Partial(_model),
        requires=FIXED_GRAPH | Requires({"own_rows"}, num_nodes=task.num_nodes, local_steps=1),
    )


def _check_steps(step_sizes: Any, num_nodes: int) -> None:
    """Check one step size, or one for each node; traced ones pass."""
    remedy = "below 2 / L_i of each node's loss"
    if isinstance(step_sizes, jax.core.Tracer):
        return
    if np.ndim(step_sizes) == 0:
        real("step_sizes", step_sizes, above=0, remedy=remedy)
    else:
        reals("step_sizes", step_sizes, shape=(num_nodes,), above=0, remedy=remedy)
