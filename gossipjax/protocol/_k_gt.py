"""K-GT: gradient tracking with local steps."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial
from jaxtyping import Array, Float, Key

from gossipjax._base.arguments import real
from gossipjax._base.binding import Frozen, as_task
from gossipjax._base.calls import recorded
from gossipjax._base.placement import by_rows
from gossipjax._base.rows import bits_per_row, num_rows, scale_rows
from gossipjax.facts import Requires
from gossipjax.mixing._apply import mix
from gossipjax.mixing._counting import traffic_fields
from gossipjax.protocol._local import check_steps, init_optimizer, train
from gossipjax.types import Event, Info, Params, Protocol, Task


class KGTState(NamedTuple):
    """Models, and corrections of the gradients, of all nodes."""

    x: Params
    correction: Params


def _init(key: Key[Array, ""], x0: Params) -> KGTState:
    del key
    return KGTState(x0, jax.tree.map(jnp.zeros_like, x0))


@by_rows
def _step(
    task: Task, steps: Frozen[int], rate: Any, communication_rate: Any, key, state: KGTState, event: Event
) -> tuple[KGTState, Info]:
    """One round: K corrected steps, then mixing of their mean direction and of the models."""
    sgd, shift = Partial(optax.sgd, rate), scale_rows(-rate, state.correction)
    trained = train(key, task, sgd, steps, state.x, init_optimizer(sgd, state.x), event, shift)
    moved = jax.tree.map(jnp.subtract, state.x, trained.x)
    direction = scale_rows(1 / (steps.value * rate), moved)
    x = mix(event.mixing, jax.tree.map(jnp.subtract, state.x, scale_rows(communication_rate, moved)))
    mixed = mix(event.mixing, direction)
    correction = jax.tree.map(lambda c, own, others: c - own + others, state.correction, direction, mixed)
    info = Info(*traffic_fields(event, 2 * bits_per_row(x), num_rows(x)), trained.loss, trained.finite)
    return KGTState(x, correction), info


def _model(state: KGTState) -> Params:
    return state.x


@recorded("liu2024kgt")
def k_gt(
    task: Task,
    step_size: float | Float[np.ndarray | Array, ""],
    *,
    local_steps: int,
    communication_step_size: float | Float[np.ndarray | Array, ""] = 1.0,
) -> Protocol:
    """Build K-GT: K local steps along corrected gradients, whose mean direction is tracked::

        x_i^0 = x_i,   then for k < K   x_i^{k+1} = x_i^k − η_c (g_i(x_i^k) + c_i)
        z_i = (x_i − x_i^K) / (K η_c)
        c_i ← c_i − z_i + Σ_j W_ij z_j               0 at the start
        x_i ← Σ_j W_ij (x_j − η_s (x_j − x_j^K))

    The corrections always sum to zero, so x̄ moves by −η_s η_c times the sum over k of the mean gradients. A message
    holds two vectors. With K = 1 and η_s = 1 it is :func:`~gossipjax.gradient_tracking` with ``order="next"``, z being
    the tracker. The published start is ``c_i = ḡ − g_i``, which takes an average over all nodes.

    Where it stops, all nodes have one model and ``c_i = −g_i``, whatever the graph, even if it changes: it is exact
    with exact gradients.

    Args:
        task: one shard per node.
        step_size: η_c > 0. A new value does not recompile the run.
        local_steps: K ≥ 1.
        communication_step_size: η_s > 0; at 1 a node moves by all of its local steps before mixing. A new value does
            not recompile the run.

    Raises:
        TypeError: if task has the wrong type.
        ValueError: if local_steps < 1, or a step size is not positive and finite; during a run, if the timeline is not
            synchronous rounds with doubly stochastic matrices.

    Reference: Liu, Lin, Koloskova, Stich 2024, arXiv 2301.01313, algorithm 1.
    """
    real("step_size", step_size, above=0, remedy="the learning rate of the local steps")
    real(
        "communication_step_size",
        communication_step_size,
        above=0,
        remedy="at 1 a node moves by all of its local steps",
    )
    task = as_task(task)
    return Protocol(
        init=Partial(_init),
        step=Partial(_step, task, check_steps(local_steps), step_size, communication_step_size),
        model=Partial(_model),
        requires=Requires(
            {"synchronous", "doubly_stochastic", "own_rows"},
            mixing=True,
            num_nodes=task.num_nodes,
            local_steps=local_steps,
            builder="timeline.rounds",
        ),
    )
