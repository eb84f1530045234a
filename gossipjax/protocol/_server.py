"""Rounds of a server: its clients train from its model, and it averages their changes."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int, Key

from gossipjax._base.binding import Frozen
from gossipjax._base.rows import acting_nodes, put, scale_rows, take, trained_rows
from gossipjax.facts import Requires
from gossipjax.protocol._local import Pull, Trained, init_optimizer, train
from gossipjax.types import Event, Params, Task


class Returned(NamedTuple):
    """What the clients of a round return."""

    change: Params
    """Their models minus the server's, leaves ``(k, ...)``."""
    trained: Trained


def needs_server(num_nodes: int, local_steps: int | None) -> Requires:
    """State what a protocol of a server needs of a timeline."""
    return Requires(
        {"server"},
        mixing=True,
        num_nodes=num_nodes,
        local_steps=local_steps,
        builder="timeline.client_sampling",
    )


def at_rows(x: Params, rows: Int[Array, " k"] | None, values: Params) -> Params:
    """Put what the acting clients have, ``(k, ...)``, into the rows that they train; other rows are 0."""
    return put(jax.tree.map(jnp.zeros_like, x), rows, values)


def train_clients(
    key: Key[Array, ""],
    task: Task,
    optimizer: Partial,
    steps: Frozen[int],
    x: Params,
    event: Event,
    *,
    state: Any = None,
    pull: Pull | None = None,
) -> Returned:
    """Train the acting clients from the server's model.

    Args:
        key: key of the protocol.
        task: the learning problem.
        optimizer: factory of the clients' optax transformation.
        steps: H ≥ 1.
        x: the server's model in every row.
        event: one round.
        state: states of the optimizer in the rows; None: new ones.
        pull: an addition to the gradients, in the rows.
    """
    fresh = init_optimizer(optimizer, x) if state is None else state
    trained = train(key, task, optimizer, steps, x, fresh, event, pull=pull)
    return Returned(jax.tree.map(jnp.subtract, trained.x, take(x, trained_rows(event))), trained)


def same_in_rows(state: Any) -> Any:
    """Give all rows of what a server has the first one: rows that are computed alike may differ by rounding."""
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf[:1], leaf.shape), state)


def proximal(x: Params, weight: Any) -> Pull:
    """Return the gradient of ``(w/2) ‖y − x‖²`` at y, x being the model before training."""
    leaf = jax.tree.leaves(x)[0]
    return Pull(scale_rows(-weight, x), jnp.broadcast_to(jnp.asarray(weight, leaf.dtype), leaf.shape[:1]))


def share_of_clients(event: Event, num_nodes: int) -> Float[Array, ""]:
    """Return |S| / n, the share of all clients that a round has sampled."""
    return jnp.sum(acting_nodes(event, num_nodes) < num_nodes) / num_nodes


def add_scaled(x: Params, factor: Any, change: Params) -> Params:
    """Return ``x + factor · change``."""
    return jax.tree.map(jnp.add, x, scale_rows(factor, change))
