"""FedOpt: a server that applies an optimizer to the average change of its clients; FedAdam, FedYogi, FedAdagrad."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial
from jaxtyping import Array, Float, Key

from gossipjax._base.arguments import instance, real
from gossipjax._base.binding import Frozen, as_factory, as_task
from gossipjax._base.calls import recorded
from gossipjax._base.rows import bits_per_row, num_rows, scale_rows, trained_rows
from gossipjax.mixing._apply import mix
from gossipjax.mixing._counting import traffic_fields
from gossipjax.protocol._local import check_steps, init_optimizer
from gossipjax.protocol._server import at_rows, needs_server, same_in_rows, train_clients
from gossipjax.types import Event, Info, Params, Protocol, Task

Number = float | Float[np.ndarray | Array, ""]


class FedOptState(NamedTuple):
    """The server's model and the state of its optimizer, in equal rows, one for each sampled client."""

    x: Params
    optimizer: Any


class Moments(NamedTuple):
    """First and second moment of the average changes."""

    first: Params
    second: Params


def _init(server: Partial, key: Key[Array, ""], x0: Params) -> FedOptState:
    del key
    return FedOptState(x0, init_optimizer(server, x0))


def _step(
    task: Task, optimizer: Partial, server: Partial, steps: Frozen[int], key, state: FedOptState, event: Event
) -> tuple[FedOptState, Info]:
    back = train_clients(key, task, optimizer, steps, state.x, event)
    change = mix(event.mixing, at_rows(state.x, trained_rows(event), back.change))
    gradient = jax.tree.map(jnp.negative, change)
    updates, after = jax.vmap(server().update)(gradient, state.optimizer, state.x)
    x, after = same_in_rows((optax.apply_updates(state.x, updates), after))
    info = Info(*traffic_fields(event, bits_per_row(x), num_rows(x)), back.trained.loss, back.trained.finite)
    return FedOptState(x, after), info


def _model(state: FedOptState) -> Params:
    return state.x


@recorded("reddi2021adaptive")
def fedopt(
    task: Task,
    optimizer: optax.GradientTransformation | Partial,
    server_optimizer: optax.GradientTransformation | Partial,
    *,
    local_steps: int,
) -> Protocol:
    """Build FedOpt on a :func:`~gossipjax.timeline.client_sampling` timeline.

    Each sampled client takes H steps of a fresh optimizer from the server's model x. The server's own optimizer, whose
    state lasts, takes the average change, with the weights w of the timeline, for a negative gradient::

        Δ = Σ_{i sampled} w_i (y_i − x)        x ← x + server_optimizer(−Δ)

    With ``optax.sgd(1.0)`` it is :func:`~gossipjax.fedavg`, with ``optax.sgd(1.0, momentum=0.9)`` FedAvg with server
    momentum. The rules of :func:`~gossipjax.fedadam`, :func:`~gossipjax.fedyogi` and :func:`~gossipjax.fedadagrad`
    differ from optax's: see there.

    Give all rows of x0 the same model (:func:`gossipjax.replicate`). Each sampled client costs two models per round.

    Args:
        task: one shard per client.
        optimizer: the clients' optax transformation, or a Partial of one; its state is new in every round. A schedule
            counts the steps of a round: 0 … H − 1.
        server_optimizer: the server's; a schedule counts rounds.
        local_steps: H ≥ 1.

    Raises:
        TypeError: if task or an optimizer has the wrong type.
        ValueError: if local_steps < 1; during a run, if the timeline is not one of a server and its clients.

    Reference: Reddi, Charles, Zaheer, Garrett, Rush, Konečný, Kumar, McMahan 2021, arXiv 2003.00295, algorithm 1.
    """
    remedy = "pass the server's optimizer, such as optax.sgd(1.0), which is FedAvg"
    instance("server_optimizer", server_optimizer, (optax.GradientTransformation, Partial), remedy)
    return _built(task, optimizer, as_factory(server_optimizer), local_steps)


@recorded("reddi2021adaptive")
def fedadam(
    task: Task,
    optimizer: optax.GradientTransformation | Partial,
    *,
    local_steps: int,
    server_step_size: Number,
    beta1: Number = 0.9,
    beta2: Number = 0.99,
    tau: Number = 1e-3,
) -> Protocol:
    """Build FedAdam: :func:`~gossipjax.fedopt` with the published Adam at the server.

    With the average change Δ, m = 0 and v = τ² at the start, and all operations by coordinate::

        m ← β₁ m + (1 − β₁) Δ
        v ← β₂ v + (1 − β₂) Δ²
        x ← x + η m / (√v + τ)

    ``fedopt(task, optimizer, optax.adam(η, β₁, β₂, eps=τ))`` differs: optax starts with v = 0 and divides m and v by
    1 − β₁ᵗ and 1 − β₂ᵗ, which makes early steps longer. The published start is any v ≥ τ²; this is the smallest.

    Args:
        task: one shard per client.
        optimizer: the clients' optax transformation, or a Partial of one; its state is new in every round.
        local_steps: H ≥ 1.
        server_step_size: η > 0. A new value does not recompile the run; nor do those of β₁, β₂ and τ.
        beta1: β₁ in [0, 1).
        beta2: β₂ in [0, 1).
        tau: τ > 0, in the unit of the changes.

    Raises:
        TypeError: if task or optimizer has the wrong type.
        ValueError: if a number is out of range; during a run, if the timeline is not one of a server and its clients.

    Reference: Reddi et al. 2021, arXiv 2003.00295, algorithm 2.
    """
    second = Partial(_adam, _beta("beta2", beta2))
    return _built(task, optimizer, _rule(second, server_step_size, beta1, tau), local_steps)


@recorded("reddi2021adaptive")
def fedyogi(
    task: Task,
    optimizer: optax.GradientTransformation | Partial,
    *,
    local_steps: int,
    server_step_size: Number,
    beta1: Number = 0.9,
    beta2: Number = 0.99,
    tau: Number = 1e-3,
) -> Protocol:
    """Build FedYogi: :func:`~gossipjax.fedadam` with another second moment, which changes by at most (1 − β₂) Δ²::

        v ← v − (1 − β₂) Δ² sign(v − Δ²)

    ``optax.yogi`` differs: it divides m and v as Adam does, and starts with v = 10⁻⁶.

    Args:
        task: one shard per client.
        optimizer: the clients' optax transformation, or a Partial of one; its state is new in every round.
        local_steps: H ≥ 1.
        server_step_size: η > 0. A new value does not recompile the run; nor do those of β₁, β₂ and τ.
        beta1: β₁ in [0, 1).
        beta2: β₂ in [0, 1).
        tau: τ > 0, in the unit of the changes.

    Raises:
        TypeError: if task or optimizer has the wrong type.
        ValueError: if a number is out of range; during a run, if the timeline is not one of a server and its clients.

    Reference: Reddi et al. 2021, arXiv 2003.00295, algorithm 2.
    """
    second = Partial(_yogi, _beta("beta2", beta2))
    return _built(task, optimizer, _rule(second, server_step_size, beta1, tau), local_steps)


@recorded("reddi2021adaptive")
def fedadagrad(
    task: Task,
    optimizer: optax.GradientTransformation | Partial,
    *,
    local_steps: int,
    server_step_size: Number,
    beta1: Number = 0.0,
    tau: Number = 1e-3,
) -> Protocol:
    """Build FedAdagrad: :func:`~gossipjax.fedadam` with the sum of all squares as second moment::

        v ← v + Δ²

    ``optax.adagrad`` differs: it has no first moment, starts with v = 0.1, and divides by √(v + τ).

    Args:
        task: one shard per client.
        optimizer: the clients' optax transformation, or a Partial of one; its state is new in every round.
        local_steps: H ≥ 1.
        server_step_size: η > 0. A new value does not recompile the run; nor do those of β₁ and τ.
        beta1: β₁ in [0, 1); 0: Adagrad without momentum.
        tau: τ > 0, in the unit of the changes.

    Raises:
        TypeError: if task or optimizer has the wrong type.
        ValueError: if a number is out of range; during a run, if the timeline is not one of a server and its clients.

    Reference: Reddi et al. 2021, arXiv 2003.00295, algorithm 2.
    """
    return _built(task, optimizer, _rule(Partial(_adagrad), server_step_size, beta1, tau), local_steps)


# --- rules ------------------------------------------------------------------------------------------------------------


def _adam(beta2: Any, second: Array, square: Array) -> Array:
    decay = jnp.asarray(beta2, second.dtype)
    return decay * second + (1 - decay) * square


def _yogi(beta2: Any, second: Array, square: Array) -> Array:
    return second - (1 - jnp.asarray(beta2, second.dtype)) * square * jnp.sign(second - square)


def _adagrad(second: Array, square: Array) -> Array:
    return second + square


def _adaptive(
    second_moment: Callable[[Array, Array], Array], rate: Any, beta1: Any, tau: Any
) -> optax.GradientTransformation:
    """Build ``x ← x + η m / (√v + τ)`` without bias correction."""

    def init(x: Params) -> Moments:
        start = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.square(jnp.asarray(tau, leaf.dtype))), x)
        return Moments(jax.tree.map(jnp.zeros_like, x), start)

    def update(gradient: Params, state: Moments, x: Params | None = None) -> tuple[Params, Moments]:
        del x
        first = jax.tree.map(jnp.subtract, scale_rows(beta1, state.first), scale_rows(1 - beta1, gradient))
        second = jax.tree.map(lambda v, g: second_moment(v, jnp.square(g)), state.second, gradient)

        def move(m: Array, v: Array) -> Array:
            return jnp.asarray(rate, m.dtype) * m / (jnp.sqrt(v) + jnp.asarray(tau, m.dtype))

        return jax.tree.map(move, first, second), Moments(first, second)

    return optax.GradientTransformation(init, update)


def _beta(name: str, value: Any) -> Any:
    real(name, value, least=0, below=1, remedy="a share of what is kept in each round")
    return value


def _rule(second_moment: Partial, rate: Any, beta1: Any, tau: Any) -> Partial:
    real("server_step_size", rate, above=0, remedy="the learning rate of the server")
    real("tau", tau, above=0, remedy="such as 1e-3; it keeps steps finite where nothing has changed")
    return Partial(_adaptive, second_moment, rate, _beta("beta1", beta1), tau)


def _built(task: Task, optimizer: Any, server: Partial, local_steps: int) -> Protocol:
    task, factory = as_task(task), as_factory(optimizer)
    return Protocol(
        init=Partial(_init, server),
        step=Partial(_step, task, factory, server, check_steps(local_steps)),
        model=Partial(_model),
        requires=needs_server(task.num_nodes, local_steps),
    )
