"""Random-walk SGD: models walk through the network and train on the data of each node that they visit."""

from __future__ import annotations

from typing import Any, NamedTuple

import optax
from jax.tree_util import Partial
from jaxtyping import Array, Key

from gossipjax._base.binding import Frozen, as_factory, as_task
from gossipjax._base.calls import recorded
from gossipjax._base.rows import bits_per_row, num_rows
from gossipjax.facts import Requires
from gossipjax.mixing._apply import mix
from gossipjax.mixing._counting import traffic_fields
from gossipjax.protocol._local import check_steps, init_optimizer, train, write
from gossipjax.types import Event, Info, Params, Protocol, Task


class RandomWalkState(NamedTuple):
    """Models and optimizer states of the walks, and of the copies at the nodes if walks average."""

    y: Params
    optimizer: Any


def _init(optimizer: Partial, key: Key[Array, ""], x0: Params) -> RandomWalkState:
    del key
    return RandomWalkState(x0, init_optimizer(optimizer, x0))


def _step(task: Task, optimizer: Partial, steps: Frozen[int], key, state: RandomWalkState, event: Event):
    trained = train(key, task, optimizer, steps, state.y, state.optimizer, event)
    y, optimizer_state = write(state.y, state.optimizer, trained, event)
    info = Info(*traffic_fields(event, bits_per_row(y), num_rows(y)), trained.loss, trained.finite)
    return RandomWalkState(y if event.mixing is None else mix(event.mixing, y), optimizer_state), info


def _model(state: RandomWalkState) -> Params:
    return state.y


@recorded("gholami2025walks", "takezawa2025teleportation")
def random_walk(task: Task, optimizer: optax.GradientTransformation | Partial, *, local_steps: int = 1) -> Protocol:
    """Build SGD on R walking models (Multi-Walk): walk r takes a step on the data of its node v, and moves on.

    ``y_r ← y_r + optimizer(g_v(y_r))`` (``−γ g_v`` for SGD). If the timeline lets walks average on arrival,
    ``y_r ← (y_r + s_u)/2`` follows, where s_u is the model that the last other walk left at the next node u. The
    timeline (:func:`~gossipjax.timeline.random_walks`) determines paths and times of service. With Metropolis
    transitions every node is visited equally often, so the steps minimise the mean objective. Independent walks
    conserve no quantity; evaluate the average of the R models.

    On :func:`~gossipjax.timeline.teleportation` it is Teleportation: all R models take a step in every round, each at a
    fresh node, and then mix, ``y_r ← Σ_s W_rs (y_s + u_s)``. With a doubly stochastic W the mixing conserves their
    mean, so that it moves by the mean of the u_s.

    Args:
        task: one shard per node.
        optimizer: any optax transformation; its state moves with the walk and is not counted as traffic. A schedule
            counts the walk's own steps.
        local_steps: H ≥ 1 steps per visit.

    Raises:
        TypeError: if task or optimizer has the wrong type.
        ValueError: if local_steps < 1; during a run, if rows of the timeline do not walk.

    Reference: Gholami and Seferoglu 2025, arXiv 2504.09792; Johansson, Rabi, Johansson 2009 (one walk); Takezawa, Stich
        2025, arXiv 2501.15259 (Teleportation).
    """
    task, factory = as_task(task), as_factory(optimizer)
    requires = Requires({"walks"}, num_nodes=task.num_nodes, local_steps=local_steps, builder="timeline.random_walks")
    step = Partial(_step, task, factory, check_steps(local_steps))
    return Protocol(Partial(_init, factory), step, Partial(_model), requires)
