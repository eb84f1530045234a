"""Local steps of nodes that keep apart what is usually one: the optimizer's state, the model, the gradient's point."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Key

from gossipjax._base.binding import Frozen
from gossipjax._base.rows import acting_nodes, all_finite, put, take, trained_rows
from gossipjax.protocol._local import Trained, acting_gradients, init_optimizer, train, unless_idle
from gossipjax.types import Event, Params, Task


def node_rows(x: Params, num_nodes: int) -> Params:
    """Return the first rows, one per node: what belongs to nodes needs no room for messages in flight."""
    return jax.tree.map(lambda leaf: leaf[:num_nodes], x)


def train_apart(
    key: Key[Array, ""], task: Task, optimizer: Partial, steps: Frozen[int], x: Params, state: Any, event: Event
) -> tuple[Params, Any, Trained]:
    """Train the acting rows with the optimizer states of their nodes: a model moves, the optimizer's state stays.

    Args:
        key: of the protocol.
        task: whose batches and loss are used.
        optimizer: factory of an optax transformation.
        steps: H ≥ 1.
        x: all rows.
        state: optimizer states of the nodes; None: fresh ones, which are forgotten afterwards.
        event: says who acts, and on which row.

    Returns:
        All rows, all optimizer states, and what was trained.
    """
    rows, before = trained_rows(event), take(x, trained_rows(event))
    lanes = None if rows is None else jnp.arange(rows.shape[0], dtype=jnp.int32)
    own = init_optimizer(optimizer, before) if state is None else take(state, event.nodes)
    trained = train(key, task, optimizer, steps, before, own, event._replace(rows=lanes))
    after = None if state is None else put(state, event.nodes, trained.optimizer)
    return put(x, rows, trained.x), after, trained


def step_from(
    key: Key[Array, ""], task: Task, optimizer: Partial, point: Params, x: Params, state: Any, event: Event
) -> tuple[Params, Any, Trained]:
    """Apply to one point the gradient that was taken at another: ``x_i ← x_i + optimizer(∇F_i(point_i))``.

    Args:
        key: of the protocol.
        task: whose batches and loss are used.
        optimizer: factory of an optax transformation.
        point: where the gradients of the acting rows are taken, leaves ``(k, ...)``.
        x: what is moved.
        state: optimizer states of the nodes.
        event: says who acts, and on which row.

    Returns:
        All rows, all optimizer states, and what was trained.
    """
    rows = trained_rows(event)
    lanes = None if rows is None else jnp.arange(rows.shape[0], dtype=jnp.int32)
    loss, grads = acting_gradients(key, task, point, event._replace(rows=lanes))

    def move() -> tuple[Params, Any, Bool[Array, " k"]]:
        updates, after = jax.vmap(optimizer().update)(grads, take(state, event.nodes), point)
        moved = optax.apply_updates(take(x, rows), updates)
        return moved, after, jax.vmap(all_finite)(moved)

    def stay(like: Any) -> tuple[Params, Any, Bool[Array, " k"]]:
        return take(x, rows), take(state, event.nodes), like[2]

    moved, after, finite = unless_idle(event, task.num_nodes, move, stay)
    nobody = acting_nodes(event, task.num_nodes) >= task.num_nodes
    trained = Trained(moved, after, loss, finite | nobody)
    return put(x, rows, moved), put(state, event.nodes, after), trained
