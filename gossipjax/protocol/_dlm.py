"""DLM: decentralized ADMM whose subproblem is replaced by one gradient step."""

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
from gossipjax._base.rows import all_finite, bits_per_row, num_rows, scale_rows, where_rows
from gossipjax.facts import FIXED_GRAPH, Requires
from gossipjax.mixing._counting import traffic_fields
from gossipjax.mixing._links import laplacian
from gossipjax.protocol._local import node_gradients
from gossipjax.types import Event, Info, Params, Protocol, Task


class DLMState(NamedTuple):
    """Models and dual variables of all nodes."""

    x: Params
    dual: Params
    started: Bool[Array, " n"]
    """Whether there was a round."""


def _init(key: Key[Array, ""], x0: Params) -> DLMState:
    del key
    return DLMState(x0, jax.tree.map(jnp.zeros_like, x0), jnp.zeros(num_rows(x0), bool))


@by_rows
def _step(task: Task, step_size: Any, penalty: Any, key, state: DLMState, event: Event) -> tuple[DLMState, Info]:
    loss, gradient = node_gradients(key, task, state.x, event)
    apart = scale_rows(penalty, laplacian(event.mixing, state.x))
    dual = where_rows(state.started, jax.tree.map(jnp.add, state.dual, apart), state.dual)
    slope = jax.tree.map(lambda g, a, y: g + a + y, gradient, apart, dual)
    x = jax.tree.map(jnp.subtract, state.x, scale_rows(step_size, slope))
    info = Info(*traffic_fields(event, bits_per_row(x), num_rows(x)), loss, all_finite(x))
    return DLMState(x, dual, jnp.ones_like(state.started)), info


def _model(state: DLMState) -> Params:
    return state.x


@recorded("ling2015dlm")
def dlm(
    task: Task,
    step_size: float | Float[np.ndarray | Array, ""],
    *,
    penalty: float | Float[np.ndarray | Array, ""],
) -> Protocol:
    """Build DLM, decentralized linearized ADMM. With L the Laplacian of the graph and y = 0 at the start::

        x⁺ = x − μ (g + ρ L x + y),      (L x)_i = Σ_{j neighbour of i} (x_i − x_j)
        y⁺ = y + ρ L x⁺

    Here a round begins in the middle of this loop: nodes exchange x, update y, and take the gradient step. A message
    holds one vector. The y always sum to zero, so ``x̄ ← x̄ − μ ḡ``. Where it stops, all nodes have one model and
    ``y_i = −g_i``: it is exact with exact gradients. Weights of the matrix are not used, only where they are not 0.

    For losses of one common curvature h and a connected graph it converges if and only if ``μ (2 h + 3 ρ ℓ) < 4``,
    where ℓ is the largest eigenvalue of L, at most twice the largest degree.

    Args:
        task: one shard per node.
        step_size: μ > 0. A new value does not recompile the run.
        penalty: ρ > 0; for a largest degree d keep μ ρ d below 1/2, which leaves room for μ h < 1/2. A new value does
            not recompile the run.

    Raises:
        TypeError: if task has the wrong type.
        ValueError: if a number is not positive and finite; during a run, if the timeline is not synchronous rounds on
            one symmetric doubly stochastic matrix.

    Reference: Ling, Shi, Wu, Ribeiro 2015, DLM: Decentralized linearized alternating direction method of multipliers;
        in this form recalled, and as in decent-bench.
    """
    real("step_size", step_size, above=0, remedy="the learning rate")
    real("penalty", penalty, above=0, remedy="1 / (4 step_size) over the largest degree is a start")
    task = as_task(task)
    return Protocol(
        init=Partial(_init),
        step=Partial(_step, task, step_size, penalty),
        model=Partial(_model),
        requires=FIXED_GRAPH | Requires({"own_rows"}, num_nodes=task.num_nodes, local_steps=1),
    )
