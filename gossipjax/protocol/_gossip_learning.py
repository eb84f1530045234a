"""Gossip learning: models walk from node to node, merge with the models there, and train on local data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import Partial
from jaxtyping import Array, Int, Key

from gossipjax._base.arguments import choice
from gossipjax._base.binding import Frozen, as_factory, as_partial, as_task
from gossipjax._base.calls import recorded
from gossipjax._base.outputs import encode
from gossipjax._base.rows import increase, num_rows, put, take, trained_rows
from gossipjax.facts import Requires
from gossipjax.mixing._apply import GroupMixing, PairMixing, live_receivers
from gossipjax.mixing._counting import count, speakers, traffic_fields
from gossipjax.protocol._local import check_steps, init_optimizer
from gossipjax.protocol._local_async import node_rows, train_apart
from gossipjax.sharing._full import as_own_pace_sharing
from gossipjax.types import Event, Info, Params, Protocol, Sharing, Task


class GossipLearningState(NamedTuple):
    """Models and ages of all rows, optimizer states of all nodes."""

    x: Params
    age: Int[Array, " rows"]
    """Number of updates on the longest path into each model."""
    optimizer: Any
    sharing: Any


def _init(task: Task, optimizer: Partial, sharing: Sharing, key: Key[Array, ""], x0: Params) -> GossipLearningState:
    del key
    age = jnp.zeros(num_rows(x0), jnp.int32)
    optimizers = init_optimizer(optimizer, node_rows(x0, task.num_nodes))
    return GossipLearningState(x0, age, optimizers, sharing.init(x0))


def _in_groups(event: Event, rows: int) -> Event:
    """Write transfers as groups of two."""
    match event.mixing:
        case GroupMixing():
            return event
        case PairMixing(senders=senders, receivers=receivers, weights=weights, keep=keep):
            members, shares = jnp.stack([receivers, senders], axis=1), jnp.stack([keep, weights], axis=1)
            groups = GroupMixing(members, shares, live_receivers(event.mixing, rows)[:, None])
            return event._replace(mixing=groups, messages=count(event, rows), speakers=speakers(event, rows))
    raise ValueError(
        f"gossip learning merges pairs or groups of models, not {type(event.mixing).__name__}; use "
        "timeline.gossip_learning"
    )


def _merge_ages(groups: GroupMixing, age: Int[Array, " rows"]) -> tuple[Int[Array, "g s"], Int[Array, " rows"]]:
    """Return the ages of the members, and the new ages of all rows: a merged model is as old as its oldest part."""
    ages = jnp.where(groups.weights != 0, age.at[groups.members].get(mode="fill", fill_value=0), 0)
    oldest = jnp.broadcast_to(ages.max(axis=1, keepdims=True), groups.targets.shape)
    return ages, age.at[groups.targets].set(oldest, mode="drop")


def _by_age(groups: GroupMixing, ages: Int[Array, "g s"]) -> GroupMixing:
    """Weight members in proportion to their ages; if all are 0, use the weights of the plan."""
    ages = ages.astype(groups.weights.dtype)
    total = ages.sum(axis=1, keepdims=True)
    return groups._replace(weights=jnp.where(total > 0, ages / jnp.maximum(total, 1), groups.weights))


def _step(
    task,
    optimizer: Partial,
    steps: Frozen[int],
    by_age: Frozen[bool],
    scale,
    sharing: Sharing,
    key,
    state,
    event: Event,
) -> tuple[GossipLearningState, Info]:
    rows, before = trained_rows(event), state.x
    x, optimizer_state, trained = train_apart(key, task, optimizer, steps, before, state.optimizer, event)
    age = increase(state.age, rows, jnp.full_like(take(state.age, rows), steps.value))
    if scale is not None:
        x = put(x, rows, _scaled(scale(take(age, rows)), take(before, rows), trained.x))
    event = _in_groups(event, num_rows(x))
    ages, age = _merge_ages(event.mixing, age)
    event = event._replace(mixing=_by_age(event.mixing, ages)) if by_age.value else event
    shared, (payload, bits) = encode(sharing, key, state.sharing, before, x, event)
    shared, x = sharing.merge(key, shared, (x, payload, event))
    info = Info(*traffic_fields(event, bits, num_rows(x)), trained.loss, trained.finite)
    return GossipLearningState(x, age, optimizer_state, shared), info


def _scaled(factor: Array, before: Params, after: Params) -> Params:
    def scale(old: Array, new: Array) -> Array:
        return old + factor.astype(old.dtype).reshape(-1, *(1,) * (old.ndim - 1)) * (new - old)

    return jax.tree.map(scale, before, after)


def _model(state: GossipLearningState) -> Params:
    return state.x


@recorded("ormandi2013gossip", "hegedus2019gossip")
def gossip_learning(
    task: Task,
    optimizer: optax.GradientTransformation | Partial,
    *,
    merge: Literal["average", "age"] = "average",
    local_steps: int = 1,
    scale: Callable[[Int[Array, " k"]], Array] | None = None,
    sharing: Sharing | None = None,
) -> Protocol:
    """Build gossip learning on models (w, t) with an age t, the number of updates in them.

    The timeline (:func:`~gossipjax.timeline.gossip_learning`) decides who receives a model (w_r, t_r), when, and
    whether it is merged or updated first. The operations of a node are::

        update:          w ← w + optimizer(g_i(w))                t ← t + 1
        merge, average:  w ← (1 − a) w + a w_r                    t ← max(t, t_r)        a = 1/2 in the plan
        merge, age:      the same with a = t_r / (t_r + t), or the plan's weight where both are 0

    A message with a part of a model is merged coordinate by coordinate, and has the age of its sender. Equal models
    stay equal; one-way messages conserve the mean in expectation at best.

    Args:
        task: one shard per node.
        optimizer: any optax transformation; its state stays with the node. A schedule counts the node's own local
            steps; use ``scale`` for a factor that depends on the age of the model.
        merge: whether models are weighted by the plan ("average") or by age ("age").
        local_steps: H ≥ 1 steps per update; each update adds H to the age.
        scale: factor of an update as a function of the age after it, such as ``1/t`` of Pegasos (optimizer
            ``sgd(1/λ)``); None: 1. A plain function, or a Partial to keep its numbers as arguments.
        sharing: what nodes send; None: the full model.

    Raises:
        TypeError: if task, optimizer, scale or sharing has the wrong type.
        ValueError: if merge is unknown, local_steps < 1, or the sharing needs synchronous rounds; during a run, if
            nodes average more than two models at a time.

    Reference: Ormándi, Hegedűs, Jelasity 2013, arXiv 1109.1396, algorithms 1–3; Hegedűs, Danner, Jelasity 2019 (ages).
    """
    choice("merge", merge, ("average", "age"))
    task, factory, chosen = as_task(task), as_factory(optimizer), as_own_pace_sharing(sharing)
    factor = None if scale is None else as_partial("scale", scale, "scale(ages) -> factors")
    return Protocol(
        init=Partial(_init, task, factory, chosen),
        step=Partial(_step, task, factory, check_steps(local_steps), Frozen(merge == "age"), factor, chosen),
        model=Partial(_model),
        requires=Requires(
            {"row_stochastic", "meetings"},
            mixing=True,
            num_nodes=task.num_nodes,
            local_steps=local_steps,
            made_for="gossip learning",
            builder="timeline.gossip_learning",
        )
        | chosen.requires,
    )
