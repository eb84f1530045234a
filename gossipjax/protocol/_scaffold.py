"""SCAFFOLD: local steps corrected by control variates of the clients and the server."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial
from jaxtyping import Array, Float, Key

from gossipjax._base.arguments import choice, real
from gossipjax._base.binding import Frozen, as_task
from gossipjax._base.calls import recorded
from gossipjax._base.rows import bits_per_row, num_rows, put, scale_rows, state_rows, take, trained_rows
from gossipjax.compress._compressor import STREAM
from gossipjax.mixing._apply import mix
from gossipjax.mixing._counting import traffic_fields
from gossipjax.protocol._local import Pull, acting_gradients, check_steps
from gossipjax.protocol._server import add_scaled, at_rows, needs_server, same_in_rows, share_of_clients, train_clients
from gossipjax.types import Event, Info, Params, Protocol, Task

_VARIATES = STREAM - 3
"""Stream of the batches of new control variates; no node has this number."""


class ScaffoldState(NamedTuple):
    """The server's model and control variate in equal rows, and the control variates of all clients."""

    x: Params
    server: Params
    """c, as many equal rows as x."""
    clients: Params
    """c_i, one row per client."""


def _init(num_nodes: Frozen[int], key: Key[Array, ""], x0: Params) -> ScaffoldState:
    del key
    clients = jax.tree.map(lambda leaf: jnp.zeros((num_nodes.value, *leaf.shape[1:]), leaf.dtype), x0)
    return ScaffoldState(x0, jax.tree.map(jnp.zeros_like, x0), clients)


def _step(
    task: Task,
    steps: Frozen[int],
    variate: Frozen[str],
    rate: Any,
    server_rate: Any,
    key,
    state: ScaffoldState,
    event: Event,
) -> tuple[ScaffoldState, Info]:
    rows = trained_rows(event)
    own, server = take(state.clients, state_rows(event)), take(state.server, rows)
    correction = jax.tree.map(jnp.subtract, server, own)
    pull = Pull(at_rows(state.x, rows, correction))
    back = train_clients(key, task, Partial(optax.sgd, rate), steps, state.x, event, pull=pull)
    if variate.value == "gradient":
        _, new = acting_gradients(jax.random.fold_in(key, _VARIATES), task, state.x, event)
    else:
        direction = scale_rows(1 / (steps.value * rate), back.change)
        new = jax.tree.map(lambda d, c: -d - c, direction, correction)
    innovation = jax.tree.map(jnp.subtract, new, own)
    change, drift = mix(event.mixing, (at_rows(state.x, rows, back.change), at_rows(state.x, rows, innovation)))
    x = add_scaled(state.x, server_rate, change)
    server = add_scaled(state.server, share_of_clients(event, task.num_nodes), drift)
    x, server = same_in_rows((x, server))
    after = ScaffoldState(x, server, put(state.clients, state_rows(event), new))
    info = Info(*traffic_fields(event, 2 * bits_per_row(x), num_rows(x)), back.trained.loss, back.trained.finite)
    return after, info


def _model(state: ScaffoldState) -> Params:
    return state.x


@recorded("karimireddy2020scaffold")
def scaffold(
    task: Task,
    step_size: float | Float[np.ndarray | Array, ""],
    *,
    local_steps: int,
    server_step_size: float | Float[np.ndarray | Array, ""] = 1.0,
    variate: Literal["average", "gradient"] = "average",
) -> Protocol:
    """Build SCAFFOLD on a :func:`~gossipjax.timeline.client_sampling` timeline.

    The server has a model x and a control variate c, client i a control variate c_i; all variates are 0 at the start.
    In each round the clients S are sampled, |S| of n, and take K corrected steps from x::

        y_i = x,   then K times   y_i ← y_i − η_l (g_i(y_i) − c_i + c)
        c_i⁺ = c_i − c + (x − y_i) / (K η_l)        variate="average", option II: the mean of the K gradients
        c_i⁺ = g_i(x)                               variate="gradient", option I: one gradient more, of another batch;
                                                    ``gradient_calls`` is then NaN, not counted
        x ← x + η_g Σ_{i ∈ S} w_i (y_i − x)
        c ← c + (|S|/n) Σ_{i ∈ S} w_i (c_i⁺ − c_i)

    Clients that are not sampled keep their c_i. The published weights are ``w_i = 1/|S|``, the timeline's without
    ``shard_sizes``; then c is always the mean of all c_i. With other weights this holds for the weighted mean, and only
    if all clients take part in every round.

    With all clients in every round, it stops where ``c_i = g_i(x)`` and ``c = Σ_i w_i g_i(x) = 0``: it is exact with
    exact gradients, however much data differ. A message holds two vectors, in both directions.

    Give all rows of x0 the same model (:func:`gossipjax.replicate`).

    Args:
        task: one shard per client.
        step_size: η_l > 0. A new value does not recompile the run.
        local_steps: K ≥ 1.
        server_step_size: η_g > 0. A new value does not recompile the run.
        variate: how a client renews its control variate.

    Raises:
        TypeError: if task has the wrong type.
        ValueError: if local_steps < 1, a step size is not positive and finite, or variate is another word; during a
            run, if the timeline is not one of a server and its clients.

    Reference: Karimireddy, Kale, Mohri, Reddi, Stich, Suresh 2020, arXiv 1910.06378, algorithm 1.
    """
    real("step_size", step_size, above=0, remedy="the learning rate of the local steps")
    real("server_step_size", server_step_size, above=0, remedy="at 1 the server takes the average of the models")
    choice("variate", variate, ("average", "gradient"))
    task = as_task(task)
    return Protocol(
        init=Partial(_init, Frozen(task.num_nodes)),
        step=Partial(_step, task, check_steps(local_steps), Frozen(variate), step_size, server_step_size),
        model=Partial(_model),
        requires=needs_server(task.num_nodes, local_steps if variate == "average" else None),
    )
