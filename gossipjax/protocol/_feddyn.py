"""FedDyn: clients whose losses are tilted so that their optima agree."""

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
from gossipjax._base.rows import bits_per_row, num_rows, put, scale_rows, state_rows, take, trained_rows
from gossipjax.mixing._apply import mix
from gossipjax.mixing._counting import traffic_fields
from gossipjax.protocol._local import Pull, check_steps
from gossipjax.protocol._server import (
    add_scaled,
    at_rows,
    needs_server,
    proximal,
    same_in_rows,
    share_of_clients,
    train_clients,
)
from gossipjax.types import Event, Info, Params, Protocol, Task


class FedDynState(NamedTuple):
    """The server's model and correction in equal rows, and the tilts of all clients."""

    x: Params
    server: Params
    """h, as many equal rows as x."""
    clients: Params
    """λ_i, one row per client."""


def _init(num_nodes: Frozen[int], key: Key[Array, ""], x0: Params) -> FedDynState:
    del key
    clients = jax.tree.map(lambda leaf: jnp.zeros((num_nodes.value, *leaf.shape[1:]), leaf.dtype), x0)
    return FedDynState(x0, jax.tree.map(jnp.zeros_like, x0), clients)


def _step(
    task: Task, optimizer: Partial, steps: Frozen[int], alpha: Any, key, state: FedDynState, event: Event
) -> tuple[FedDynState, Info]:
    rows = trained_rows(event)
    own, near = take(state.clients, state_rows(event)), proximal(state.x, alpha)
    pull = Pull(jax.tree.map(jnp.subtract, near.offset, at_rows(state.x, rows, own)), near.weight)
    back = train_clients(key, task, optimizer, steps, state.x, event, pull=pull)
    change = mix(event.mixing, at_rows(state.x, rows, back.change))
    summed = scale_rows(share_of_clients(event, task.num_nodes), change)
    server = add_scaled(state.server, -alpha, summed)
    x = jax.tree.map(lambda x, d, h: x + d - h, state.x, change, scale_rows(1 / alpha, server))
    clients = put(state.clients, state_rows(event), add_scaled(own, -alpha, back.change))
    info = Info(*traffic_fields(event, bits_per_row(x), num_rows(x)), back.trained.loss, back.trained.finite)
    x, server = same_in_rows((x, server))
    return FedDynState(x, server, clients), info


def _model(state: FedDynState) -> Params:
    return state.x


@recorded("acar2021feddyn")
def feddyn(
    task: Task,
    optimizer: optax.GradientTransformation | Partial,
    *,
    local_steps: int,
    alpha: float | Float[np.ndarray | Array, ""],
) -> Protocol:
    """Build FedDyn on a :func:`~gossipjax.timeline.client_sampling` timeline.

    The server has a model x and a correction h, client i a tilt λ_i; h and λ are 0 at the start. In each round the
    clients S are sampled, |S| of n::

        y_i ≈ argmin_y  f_i(y) − ⟨λ_i, y⟩ + (α/2) ‖y − x‖²     H steps of a fresh optimizer from x
        λ_i ← λ_i − α (y_i − x)
        h ← h − α (|S|/n) Σ_{i ∈ S} w_i (y_i − x)
        x ← Σ_{i ∈ S} w_i y_i − h/α

    Clients that are not sampled keep their λ_i. The published weights are ``w_i = 1/|S|``, the timeline's without
    ``shard_sizes``; then h is always the mean of all λ_i. With other weights this holds for the weighted mean, and only
    if all clients take part in every round. Where the minimum is exact, ``λ_i = ∇f_i(y_i)``.

    With all clients in every round, it stops where ``λ_i = ∇f_i(x)`` and ``h = Σ_i w_i λ_i = 0``: it is exact with
    exact gradients, however few local steps solve the inner problem. A small α needs many of them. A message holds one
    vector: the server computes h itself.

    Give all rows of x0 the same model (:func:`gossipjax.replicate`).

    Args:
        task: one shard per client.
        optimizer: the clients' optax transformation, or a Partial of one; its state is new in every round. A schedule
            counts the steps of a round: 0 … H − 1.
        local_steps: H ≥ 1.
        alpha: α > 0. A new value does not recompile the run.

    Raises:
        TypeError: if task or optimizer has the wrong type.
        ValueError: if local_steps < 1, or α is not positive and finite; during a run, if the timeline is not one of a
            server and its clients.

    Reference: Acar, Zhao, Matas Navarro, Mattina, Whatmough, Saligrama 2021, arXiv 2111.04263, algorithm 1.
    """
    real("alpha", alpha, above=0, remedy="the weight of the distance to the server's model")
    task, factory = as_task(task), as_factory(optimizer)
    return Protocol(
        init=Partial(_init, Frozen(task.num_nodes)),
        step=Partial(_step, task, factory, check_steps(local_steps), alpha),
        model=Partial(_model),
        requires=needs_server(task.num_nodes, local_steps),
    )
