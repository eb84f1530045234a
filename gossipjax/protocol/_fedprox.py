"""FedProx: FedAvg whose clients are held near the server's model."""

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
from gossipjax._base.rows import bits_per_row, num_rows, trained_rows
from gossipjax.mixing._apply import mix
from gossipjax.mixing._counting import traffic_fields
from gossipjax.protocol._local import check_steps
from gossipjax.protocol._server import at_rows, needs_server, proximal, same_in_rows, train_clients
from gossipjax.types import Event, Info, Params, Protocol, Task


class FedProxState(NamedTuple):
    """The server's model, one equal row for each sampled client."""

    x: Params


def _init(key: Key[Array, ""], x0: Params) -> FedProxState:
    del key
    return FedProxState(x0)


def _step(task: Task, optimizer: Partial, steps: Frozen[int], mu: Any, key, state: FedProxState, event: Event):
    back = train_clients(key, task, optimizer, steps, state.x, event, pull=proximal(state.x, mu))
    change = mix(event.mixing, at_rows(state.x, trained_rows(event), back.change))
    x = same_in_rows(jax.tree.map(jnp.add, state.x, change))
    info = Info(*traffic_fields(event, bits_per_row(x), num_rows(x)), back.trained.loss, back.trained.finite)
    return FedProxState(x), info


def _model(state: FedProxState) -> Params:
    return state.x


@recorded("li2020fedprox")
def fedprox(
    task: Task,
    optimizer: optax.GradientTransformation | Partial,
    *,
    local_steps: int,
    mu: float | Float[np.ndarray | Array, ""],
) -> Protocol:
    """Build FedProx on a :func:`~gossipjax.timeline.client_sampling` timeline.

    Each sampled client takes H steps of a fresh optimizer from the server's model x on its loss with a proximal term,
    and the server averages with the weights w of the timeline::

        y_i ≈ argmin_y  f_i(y) + (μ/2) ‖y − x‖²        x ← Σ_{i sampled} w_i y_i

    The published method samples clients with probabilities proportional to their data and averages with equal weights;
    here sampling is uniform, and the weights are the timeline's. H is the published measure of inexact solutions, the
    same for all clients. With μ = 0 it is :func:`~gossipjax.fedavg`.

    It is not exact: with data that differ and H > 1 it stops where ``Σ_i w_i (y_i − x) = 0``. If local steps solve the
    inner problem, this is nearer to the optimum the larger μ is, and the way there is longer.

    Give all rows of x0 the same model (:func:`gossipjax.replicate`). Each sampled client costs two models per round.

    Args:
        task: one shard per client.
        optimizer: the clients' optax transformation, or a Partial of one; its state is new in every round. A schedule
            counts the steps of a round: 0 … H − 1.
        local_steps: H ≥ 1.
        mu: μ ≥ 0. A new value does not recompile the run.

    Raises:
        TypeError: if task or optimizer has the wrong type.
        ValueError: if local_steps < 1 or μ < 0; during a run, if the timeline is not one of a server and its clients.

    Reference: Li, Sahu, Zaheer, Sanjabi, Talwalkar, Smith 2020, arXiv 1812.06127, algorithm 2.
    """
    real("mu", mu, least=0, remedy="0 is FedAvg")
    task, factory = as_task(task), as_factory(optimizer)
    step = Partial(_step, task, factory, check_steps(local_steps), mu)
    return Protocol(Partial(_init), step, Partial(_model), needs_server(task.num_nodes, local_steps))
