"""Local steps in which optimizer state, model and point of the gradient belong to different rows."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Key

from gossipjax._base.binding import Frozen
from gossipjax._base.rows import acting_nodes, all_finite, put, state_rows, take, trained_rows
from gossipjax.protocol._local import Trained, acting_gradients, init_optimizer, train, unless_idle
from gossipjax.types import Event, Params, Task


def node_rows(x: Params, num_nodes: int) -> Params:
    """Return the first rows, one per node: state of nodes needs no rows for messages in flight."""
    return jax.tree.map(lambda leaf: leaf[:num_nodes], x)


def train_apart(
    key: Key[Array, ""], task: Task, optimizer: Partial, steps: Frozen[int], x: Params, state: Any, event: Event
) -> tuple[Params, Any, Trained]:
    """Train the acting rows with the optimizer states of the acting nodes: models travel, optimizer states do not.

    Args:
        key: key of the protocol.
        task: the learning problem.
        optimizer: factory of an optax transformation.
        steps: H ≥ 1.
        x: all rows.
        state: optimizer states of the nodes; None: new ones, which are discarded afterwards.
        event: determines the acting nodes and their rows.

    Returns:
        All rows, all optimizer states, and the results of the acting rows.
    """
    rows, before = trained_rows(event), take(x, trained_rows(event))
    lanes = None if rows is None else jnp.arange(rows.shape[0], dtype=jnp.int32)
    own = init_optimizer(optimizer, before) if state is None else take(state, state_rows(event))
    trained = train(key, task, optimizer, steps, before, own, event._replace(rows=lanes))
    after = None if state is None else put(state, state_rows(event), trained.optimizer)
    return put(x, rows, trained.x), after, trained


def step_from(
    key: Key[Array, ""], task: Task, optimizer: Partial, point: Params, x: Params, state: Any, event: Event
) -> tuple[Params, Any, Trained]:
    """Apply gradients that are taken at other points than the models: ``x_i ← x_i + optimizer(∇F_i(point_i))``.

    Args:
        key: key of the protocol.
        task: the learning problem.
        optimizer: factory of an optax transformation.
        point: points of the gradients, one per acting row, leaves ``(k, ...)``.
        x: all rows, of which the acting ones move.
        state: optimizer states of the nodes.
        event: determines the acting nodes and their rows.

    Returns:
        All rows, all optimizer states, and the results of the acting rows.
    """
    rows = trained_rows(event)
    lanes = None if rows is None else jnp.arange(rows.shape[0], dtype=jnp.int32)
    loss, grads = acting_gradients(key, task, point, event._replace(rows=lanes))

    def move() -> tuple[Params, Any, Bool[Array, " k"]]:
        updates, after = jax.vmap(optimizer().update)(grads, take(state, state_rows(event)), point)
        moved = optax.apply_updates(take(x, rows), updates)
        return moved, after, jax.vmap(all_finite)(moved)

    def stay(like: Any) -> tuple[Params, Any, Bool[Array, " k"]]:
        return take(x, rows), take(state, state_rows(event)), like[2]

    moved, after, finite = unless_idle(event, task.num_nodes, move, stay)
    nobody = acting_nodes(event, task.num_nodes) >= task.num_nodes
    trained = Trained(moved, after, loss, finite | nobody)
    return put(x, rows, moved), put(state, state_rows(event), after), trained
