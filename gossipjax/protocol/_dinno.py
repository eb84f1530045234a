"""DiNNO: decentralized ADMM for neural networks, whose subproblem is solved by some steps of an optimizer."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial
from jaxtyping import Array, Float, Key

from gossipjax._base.arguments import real
from gossipjax._base.binding import Frozen, as_factory, as_task
from gossipjax._base.calls import recorded
from gossipjax._base.placement import by_rows
from gossipjax._base.rows import bits_per_row, num_rows, scale_rows
from gossipjax.facts import Requires
from gossipjax.mixing._counting import traffic_fields
from gossipjax.mixing._links import link_sum
from gossipjax.protocol._local import Pull, check_steps, init_optimizer, train
from gossipjax.types import Event, Info, Params, Protocol, Task


class DinnoState(NamedTuple):
    """Models, dual variables and optimizer states of all nodes."""

    x: Params
    dual: Params
    optimizer: Any


def _init(optimizer: Partial, key: Key[Array, ""], x0: Params) -> DinnoState:
    del key
    return DinnoState(x0, jax.tree.map(jnp.zeros_like, x0), init_optimizer(optimizer, x0))


@by_rows
def _step(
    task: Task, optimizer: Partial, steps: Frozen[int], penalty: Any, key, state: DinnoState, event: Event
) -> tuple[DinnoState, Info]:
    total, degrees = link_sum(event.mixing, state.x)
    own = scale_rows(degrees, state.x)
    rho = jnp.asarray(penalty, degrees.dtype)
    apart = scale_rows(rho, jax.tree.map(jnp.subtract, own, total))
    dual = jax.tree.map(jnp.add, state.dual, apart)
    middle = scale_rows(rho, jax.tree.map(jnp.add, own, total))
    pull = Pull(jax.tree.map(jnp.subtract, dual, middle), 2 * rho * degrees)
    trained = train(key, task, optimizer, steps, state.x, state.optimizer, event, pull=pull)
    info = Info(*traffic_fields(event, bits_per_row(state.x), num_rows(state.x)), trained.loss, trained.finite)
    return DinnoState(trained.x, dual, trained.optimizer), info


def _model(state: DinnoState) -> Params:
    return state.x


@recorded("yu2022dinno")
def dinno(
    task: Task,
    optimizer: optax.GradientTransformation | Partial,
    *,
    local_steps: int,
    penalty: float | Float[np.ndarray | Array, ""],
) -> Protocol:
    """Build DiNNO. With p = 0 at the start, sums over the neighbours j of a round, and B steps of an optimizer::

        p_i ← p_i + ρ Σ_j (x_i − x_j)
        ψ = x_i, then B steps on     f_i(ψ) + ⟨p_i, ψ⟩ + ρ Σ_j ‖ψ − ½ (x_i + x_j)‖²
        x_i ← ψ

    A message holds one vector. If every message arrives, the p always sum to zero. Where it stops, all nodes have one
    model and ``p_i = −g_i``: it is exact with exact gradients, also on graphs that change. Weights of the matrices are
    not used, only where they are not 0.

    Args:
        task: one shard per node.
        optimizer: any optax transformation, one state per node, kept from round to round; or ``Partial(optax.sgd,
            0.1)``. A schedule counts the node's own local steps, B a round. With SGD of step γ, keep 2 γ ρ d below 1
            for the largest degree d.
        local_steps: B ≥ 1.
        penalty: ρ > 0. A new value does not recompile the run.

    Raises:
        TypeError: if task or optimizer has the wrong type.
        ValueError: if local_steps < 1 or ρ is not positive and finite; during a run, if the timeline is not synchronous
            rounds with symmetric matrices.

    Reference: Yu, Vincent, Schwager 2022, arXiv 2109.08665, algorithm 1; recalled, and as in decent-bench.
    """
    real("penalty", penalty, above=0, remedy="0.5 is a start")
    task, factory = as_task(task), as_factory(optimizer)
    return Protocol(
        init=Partial(_init, factory),
        step=Partial(_step, task, factory, check_steps(local_steps), penalty),
        model=Partial(_model),
        requires=Requires(
            {"synchronous", "symmetric", "own_rows"},
            mixing=True,
            num_nodes=task.num_nodes,
            local_steps=local_steps,
            builder="timeline.rounds",
        ),
    )
