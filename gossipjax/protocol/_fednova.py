"""FedNova: clients that take different numbers of steps, whose changes are normalized before they are averaged."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import optax
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int, Key

from gossipjax._base.arguments import real, wholes
from gossipjax._base.binding import Frozen, as_task
from gossipjax._base.calls import recorded
from gossipjax._base.rows import acting_nodes, bits_per_row, num_rows, scale_rows, trained_rows
from gossipjax.mixing._apply import mix
from gossipjax.mixing._counting import traffic_fields
from gossipjax.protocol._local import init_optimizer
from gossipjax.protocol._server import add_scaled, at_rows, needs_server, same_in_rows, train_clients
from gossipjax.types import Event, Info, Params, Protocol, Task

MOST_STEPS = 2**31 - 1
"""Numbers of steps are int32 in the loop."""


class FedNovaState(NamedTuple):
    """The server's model, one equal row for each sampled client."""

    x: Params


class CountedState(NamedTuple):
    """State of SGD with momentum that stops after some steps."""

    left: Int[Array, ""]
    """Steps still to take."""
    velocity: Params
    weight: Float[Array, ""]
    """Of the first gradient in the velocity: 1 + ρ + … + ρ^(h − 1) after h steps."""
    norm: Float[Array, ""]
    """‖a‖₁: the sum of the weights with which all gradients stand in the change of the model over −η."""


def _counted_sgd(rate: Any, momentum: Any) -> optax.GradientTransformation:
    """Build ``v ← ρ v + g``, ``x ← x − η v`` for as many steps as the state has left; then nothing moves."""

    def init(x: Params) -> CountedState:
        return CountedState(jnp.zeros((), jnp.int32), jax.tree.map(jnp.zeros_like, x), jnp.zeros(()), jnp.zeros(()))

    def update(gradient: Params, state: CountedState, x: Params | None = None) -> tuple[Params, CountedState]:
        del x
        live = state.left > 0
        velocity = jax.tree.map(lambda v, g: jnp.asarray(momentum, v.dtype) * v + g, state.velocity, gradient)
        weight = jnp.asarray(momentum, state.weight.dtype) * state.weight + 1
        moved = CountedState(state.left - 1, velocity, weight, state.norm + weight)
        step = jax.tree.map(lambda v: -jnp.asarray(rate, v.dtype) * v, velocity)
        stay = jax.tree.map(jnp.zeros_like, step)
        return jax.tree.map(lambda a, b: jnp.where(live, a, b), (step, moved), (stay, state))

    return optax.GradientTransformation(init, update)


def _init(key: Key[Array, ""], x0: Params) -> FedNovaState:
    del key
    return FedNovaState(x0)


def _step(
    task: Task,
    counts: Int[np.ndarray | Array, " n"],
    most: Frozen[int],
    rate: Any,
    momentum: Any,
    key,
    state: FedNovaState,
    event: Event,
) -> tuple[FedNovaState, Info]:
    rows, nodes = trained_rows(event), acting_nodes(event, task.num_nodes)
    sgd = Partial(_counted_sgd, rate, momentum)
    fresh = init_optimizer(sgd, state.x)
    fresh = fresh._replace(left=at_rows(fresh.left, rows, jnp.asarray(counts).at[nodes].get(mode="clip")))
    back = train_clients(key, task, sgd, most, state.x, event, state=fresh)
    norm = back.trained.optimizer.norm
    each = scale_rows(1 / norm, back.change), norm
    change, steps = mix(event.mixing, at_rows((state.x, jnp.zeros(num_rows(state.x))), rows, each))
    x = same_in_rows(add_scaled(state.x, steps, change))
    info = Info(*traffic_fields(event, bits_per_row(x), num_rows(x)), back.trained.loss, back.trained.finite)
    return FedNovaState(x), info


def _model(state: FedNovaState) -> Params:
    return state.x


@recorded("wang2020fednova")
def fednova(
    task: Task,
    step_size: float | Float[np.ndarray | Array, ""],
    *,
    local_steps: npt.ArrayLike,
    momentum: float | Float[np.ndarray | Array, ""] = 0.0,
) -> Protocol:
    """Build FedNova on a :func:`~gossipjax.timeline.client_sampling` timeline.

    Client i takes τ_i steps of SGD with momentum ρ from the server's model x. The server divides its change by the sum
    of the weights of its gradients, and averages with the weights w of the timeline::

        y_i = x, v_i = 0,   then τ_i times   v_i ← ρ v_i + g_i(y_i),   y_i ← y_i − η v_i
        a_i = Σ_{k ≤ τ_i} (1 − ρ^k) / (1 − ρ)           τ_i without momentum
        x ← x + (Σ_i w_i a_i) Σ_i w_i (y_i − x) / a_i

    An average of the models themselves would favour clients with many steps: it minimizes ``Σ_i w_i a_i f_i`` for small
    η. This one minimizes ``Σ_i w_i f_i``, up to a bias in the order of η from the drift of local steps. If all clients
    take equally many steps, it is :func:`~gossipjax.fedavg` with SGD.

    Momenta are new in every round; the published momentum of the server is left out. A message holds one vector: the
    server knows τ_i and ρ. The simulation computes max τ gradients of each client, and ``gradient_calls`` counts them;
    those after the τ_i-th move nothing.

    Give all rows of x0 the same model (:func:`gossipjax.replicate`).

    Args:
        task: one shard per client.
        step_size: η > 0. A new value does not recompile the run.
        local_steps: τ_i ≥ 1 of each client, ``(n,)``. New values with the same maximum do not recompile the run.
        momentum: ρ in [0, 1). A new value does not recompile the run.

    Raises:
        TypeError: if task has the wrong type.
        ValueError: if a number is out of range, or there is not one number of steps per client; during a run, if the
            timeline is not one of a server and its clients.

    Reference: Wang, Liu, Liang, Joshi, Poor 2020, arXiv 2007.07481; a_i and Σ_i w_i a_i (their τ_eff) as in
        the authors' code.
    """
    real("step_size", step_size, above=0, remedy="the learning rate of the local steps")
    real("momentum", momentum, least=0, below=1, remedy="0 is plain SGD")
    task = as_task(task)
    counts = wholes(
        "local_steps",
        local_steps,
        shape=(task.num_nodes,),
        least=1,
        most=MOST_STEPS,
        remedy="one number of steps per client",
    )
    most = int(counts.max())
    step = Partial(_step, task, counts.astype(np.int32), Frozen(most), step_size, momentum)
    return Protocol(Partial(_init), step, Partial(_model), needs_server(task.num_nodes, most))
