"""Optimizers that restart, as in systems that build a new one for every training."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from gossipjax._base.arguments import instance, whole


class RestartedState(NamedTuple):
    """State of :func:`restarted`."""

    steps: Int[Array, ""]
    """Steps since the last restart."""
    inner: Any


def restarted(optimizer: optax.GradientTransformation, every: int) -> optax.GradientTransformation:
    """Reset an optimizer's state every H steps.

    With ``every`` equal to a protocol's ``local_steps``, each training begins with a new optimizer state, as in
    :func:`~gossipjax.fedavg` and in systems that build an optimizer in every round.

    Args:
        optimizer: any optax transformation; the count of a schedule restarts too.
        every: H ≥ 1.

    Raises:
        ValueError: if every < 1.
    """
    remedy = "pass one such as optax.sgd(0.1, momentum=0.9)"
    instance("optimizer", optimizer, optax.GradientTransformation, remedy)
    every = whole("every", every, least=1, remedy="the number of steps from one restart to the next")

    def init(params: optax.Params) -> RestartedState:
        return RestartedState(jnp.zeros((), jnp.int32), optimizer.init(params))

    def update(updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None):
        assert isinstance(state, RestartedState)
        begins = state.steps == 0
        fresh = optimizer.init(updates if params is None else params)
        inner = jax.tree.map(lambda new, old: jnp.where(begins, new, old), fresh, state.inner)
        updates, inner = optimizer.update(updates, inner, params)
        return updates, RestartedState((state.steps + 1) % every, inner)

    return optax.GradientTransformation(init, update)
