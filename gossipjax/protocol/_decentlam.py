"""DecentLaM: momentum of what a round of D-PSGD without momentum would change, mixing included."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial
from jaxtyping import Array, Float

from gossipjax._base.calls import recorded
from gossipjax._base.outputs import encode
from gossipjax._base.placement import by_rows
from gossipjax._base.rows import all_finite, num_rows
from gossipjax.mixing._counting import traffic_fields
from gossipjax.protocol._local import node_gradients
from gossipjax.protocol._quasi_global import MomentumState, with_momentum
from gossipjax.types import Event, Info, Protocol, Sharing, Task


@by_rows
def _step(
    task: Task, optimizer: Partial, beta: Any, sharing: Sharing, key, state: MomentumState, event: Event
) -> tuple[MomentumState, Info]:
    loss, gradient = node_gradients(key, task, state.x, event)
    updates, optimizer_state = jax.vmap(optimizer().update)(gradient, state.optimizer, state.x)
    trained = optax.apply_updates(state.x, updates)
    shared, (payload, bits) = encode(sharing, key, state.sharing, state.x, trained, event)
    shared, mixed = sharing.merge(key, shared, (trained, payload, event))

    def gather(v: Array, old: Array, new: Array) -> Array:
        return jnp.asarray(beta, v.dtype) * v + (old - new)

    momentum = jax.tree.map(gather, state.momentum, state.x, mixed)
    x = jax.tree.map(jnp.subtract, state.x, momentum)
    info = Info(*traffic_fields(event, bits, num_rows(x)), loss, all_finite(x))
    return MomentumState(x, momentum, optimizer_state, shared), info


@recorded("yuan2021decentlam")
def decentlam(
    task: Task,
    optimizer: optax.GradientTransformation | Partial,
    *,
    momentum: float | Float[np.ndarray | Array, ""] = 0.9,
    sharing: Sharing | None = None,
) -> Protocol:
    """Build DecentLaM, D-PSGD with heavy-ball momentum of what a round changes.

    With u the optimizer's update at x (``−γ g(x)`` for SGD), β the momentum, and v = 0 at the start::

        z = W (x + u)
        v⁺ = β v + (x − z)
        x⁺ = x − v⁺

    which for SGD with a constant γ is the published method, whose momentum is v / γ and whose gradient is (x − z) / γ.
    The momentum is that of gradient descent on the penalized problem that adapt-then-combine D-PSGD solves, so it does
    not enlarge the bias: where it stops with exact gradients, x = W (x + u), as without momentum. The average model
    moves as heavy-ball SGD on the mean gradient.

    With a doubly stochastic W, ``v̄⁺ = β v̄ − ū`` and ``x̄⁺ = x̄ − v̄⁺``. With β = 0 it is :func:`~gossipjax.dpsgd`, adapt
    then combine. :func:`~gossipjax.quasi_global_momentum` adds the momentum before the mixing instead. A message holds
    what the sharing says of one vector.

    Args:
        task: one shard per node.
        optimizer: any optax transformation, one state per node; or ``Partial(optax.sgd, 0.1)``. An optimizer's own
            momentum β' adds to this one: the fixed points are those of SGD with the step γ / (1 − β'). A schedule
            counts the node's own steps, here one a round.
        momentum: β in [0, 1). A new value does not recompile the run.
        sharing: what nodes send; None: the full model.

    Raises:
        TypeError: if task, optimizer or sharing has the wrong type.
        ValueError: if β is out of range; during a run, if the timeline is not synchronous rounds whose rows sum to one.

    Reference: Yuan, Chen, Huang, Zhang, Pan, Xu, Yin 2021, arXiv 2104.11981, algorithm 2 (recalled; checked against
        public code of Takezawa et al. for Momentum Tracking).
    """
    return with_momentum(_step, task, optimizer, momentum, sharing)
