"""FedAvg and local SGD: several local steps, then an exact average."""

from __future__ import annotations

from typing import NamedTuple

import optax
from jax.tree_util import Partial
from jaxtyping import Array, Key

from gossipjax._base.binding import Frozen, as_factory, as_task
from gossipjax._base.calls import recorded
from gossipjax._base.rows import bits_per_row, num_rows, put, trained_rows
from gossipjax.facts import Requires
from gossipjax.mixing._apply import mix
from gossipjax.mixing._counting import traffic_fields
from gossipjax.protocol._dpsgd import dpsgd
from gossipjax.protocol._local import check_steps, init_optimizer, train
from gossipjax.types import Event, Info, Params, Protocol, Sharing, Task


class FedAvgState(NamedTuple):
    """The model slots of the sampled clients; equal after every round."""

    x: Params


def _init(key: Key[Array, ""], x0: Params) -> FedAvgState:
    del key
    return FedAvgState(x0)


def _step(task: Task, optimizer: Partial, steps: Frozen[int], key, state: FedAvgState, event: Event):
    rows = trained_rows(event)
    fresh = init_optimizer(optimizer, state.x)
    trained = train(key, task, optimizer, steps, state.x, fresh, event)
    x = mix(event.mixing, put(state.x, rows, trained.x))
    bits = bits_per_row(x)
    return FedAvgState(x), Info(*traffic_fields(event, bits, num_rows(x)), trained.loss, trained.finite)


def _model(state: FedAvgState) -> Params:
    return state.x


@recorded("mcmahan2017fedavg")
def fedavg(task: Task, optimizer: optax.GradientTransformation | Partial, *, local_steps: int) -> Protocol:
    """Build FedAvg on a :func:`~gossipjax.timeline.client_sampling` timeline.

    Each sampled client takes H steps of a fresh optimizer from the server's model x, then
    ``x ← Σ_{i sampled} (n_i / Σ n_j) x_i``. Each sampled client costs two models per round.

    Give all rows of x0 the same model, as the server would (:func:`gossipjax.replicate`).

    Args:
        task: one shard per client.
        optimizer: the clients' optax transformation, or a Partial of one; its state is new in every round. A schedule
            counts the steps of a round: 0 … H − 1.
        local_steps: H ≥ 1.

    Raises:
        TypeError: if task or optimizer has the wrong type.
        ValueError: if local_steps < 1; during a run, if the timeline has no server that averages.

    Reference: McMahan et al. 2017, algorithm 1.
    """
    task, factory = as_task(task), as_factory(optimizer)
    step = Partial(_step, task, factory, check_steps(local_steps))
    requires = Requires(
        {"averages"},
        mixing=True,
        num_nodes=task.num_nodes,
        local_steps=local_steps,
        builder="timeline.client_sampling",
    )
    return Protocol(Partial(_init), step, Partial(_model), requires)


@recorded("stich2019local")
def local_sgd(
    task: Task,
    optimizer: optax.GradientTransformation | Partial,
    *,
    local_steps: int,
    sharing: Sharing | None = None,
) -> Protocol:
    """Build local SGD: adapt-then-combine D-PSGD with H local steps; on rounds of ``averaging(n)``, Stich's algorithm.

    ``x_i ← Σ_j W_ij x_j^{(H)}``.

    Args:
        task: one shard per node.
        optimizer: any optax transformation, or a Partial of one. A schedule counts the node's own local steps.
        local_steps: H ≥ 1.
        sharing: what nodes send; None: the full model.

    Reference: Stich 2019, arXiv 1805.09767.
    """
    return dpsgd(task, optimizer, order="adapt_then_combine", local_steps=local_steps, sharing=sharing)
