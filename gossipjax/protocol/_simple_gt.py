"""SimpleGT: gradient descent on mixed models, corrected by the sum of all past disagreements."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import Partial
from jaxtyping import Array, Key

from gossipjax._base.binding import as_factory, as_task
from gossipjax._base.calls import recorded
from gossipjax._base.placement import by_rows
from gossipjax._base.rows import all_finite, bits_per_row, num_rows
from gossipjax.facts import FIXED_GRAPH, Requires
from gossipjax.mixing._apply import mix
from gossipjax.mixing._counting import traffic_fields
from gossipjax.protocol._local import init_optimizer, node_gradients
from gossipjax.types import Event, Info, Params, Protocol, Task


class SimpleGTState(NamedTuple):
    """Models, corrections and optimizer states of all nodes."""

    x: Params
    correction: Params
    """``x − y`` of the published form; sums to zero over the nodes."""
    optimizer: Any


def _init(optimizer: Partial, key: Key[Array, ""], x0: Params) -> SimpleGTState:
    del key
    return SimpleGTState(x0, jax.tree.map(jnp.zeros_like, x0), init_optimizer(optimizer, x0))


@by_rows
def _step(task: Task, optimizer: Partial, key, state: SimpleGTState, event: Event) -> tuple[SimpleGTState, Info]:
    loss, gradient = node_gradients(key, task, state.x, event)
    update, optimizer_state = jax.vmap(optimizer().update)(gradient, state.optimizer, state.x)
    mixed = mix(event.mixing, state.x)
    correction = jax.tree.map(lambda s, others, own: s + (others - own), state.correction, mixed, state.x)
    x = jax.tree.map(lambda x, s, u: x + s + u, state.x, correction, update)
    info = Info(*traffic_fields(event, bits_per_row(x), num_rows(x)), loss, all_finite(x))
    return SimpleGTState(x, correction, optimizer_state), info


def _model(state: SimpleGTState) -> Params:
    return state.x


@recorded("decentbench", "shi2015extra")
def simple_gt(task: Task, optimizer: optax.GradientTransformation | Partial) -> Protocol:
    """Build SimpleGT. With u the optimizer's update at x (``−γ g(x)`` for SGD), and y = x at the start::

        y⁺ = x + u
        x⁺ = y⁺ − y + W x

    Stored are x and s = x − y, so that ``s ← s + (W − I) x`` and ``x ← x + s + u``. If W is doubly stochastic, s always
    sums to zero, so ``x̄ ← x̄ + ū``. Where it stops, all nodes have one model and ``s_i = γ g_i``: it is exact with
    exact gradients. A message holds one vector.

    It is the recursion of :func:`~gossipjax.extra` with W̃ = I in the place of ½ (I + W), which the theory of EXTRA does
    not cover. For losses of one common curvature h and a connected graph it converges with SGD if and only if
    ``γ h < (3 + w) / 2``, where w is the smallest eigenvalue of W. Gradients damp the disagreement: where its modes
    oscillate, they shrink by √(1 − γ h) a round, whatever the graph; without gradients they would not shrink at all.

    Args:
        task: one shard per node.
        optimizer: any optax transformation, one state per node; or ``Partial(optax.sgd, 0.1)``. A schedule counts the
            node's own steps, here one a round.

    Raises:
        TypeError: if task or optimizer has the wrong type.
        ValueError: during a run, if the timeline is not synchronous rounds on one symmetric doubly stochastic matrix.

    Reference: decent-bench 0.3.0, ``SimpleGT``, which names no paper.
    """
    task, factory = as_task(task), as_factory(optimizer)
    return Protocol(
        init=Partial(_init, factory),
        step=Partial(_step, task, factory),
        model=Partial(_model),
        requires=FIXED_GRAPH | Requires({"own_rows"}, num_nodes=task.num_nodes, local_steps=1),
    )
