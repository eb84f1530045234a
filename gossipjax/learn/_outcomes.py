"""What a run leads to, as a function that can be differentiated without storing every state of the run."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from gossipjax._base.arguments import instance, optional_whole
from gossipjax._base.leaves import one_key
from gossipjax._engine.loop import check_state, models, run, with_slots
from gossipjax.protocol import gossip_averaging
from gossipjax.types import Protocol, Timeline, as_timeline

_REMEDY = "build one, such as gossipjax.gossip_averaging()"


def final_state(
    key: Key[Array, ""], protocol: Protocol, timeline: Timeline, state: Any, *, chunk: int | None = None
) -> Any:
    """Run a protocol and return its last state; the gradient recomputes the run chunk by chunk.

    Reverse differentiation of :func:`gossipjax.run` stores the state before every event, T states. This stores one
    state for each of T/c chunks, and then c states while it goes through a chunk: ``T/c + c`` states, least for c = √T.
    A gradient costs one more forward pass in return.

    Args:
        key: of the run.
        protocol: the step.
        timeline: T events.
        state: from ``protocol.init``, with :func:`gossipjax.with_slots` before it, as for :func:`gossipjax.run`.
        chunk: c; None: √T, rounded up.

    Raises:
        ValueError: if chunk is not positive, or the state lacks the rows of messages in flight.
    """
    one_key(key)
    instance("protocol", protocol, Protocol, _REMEDY)
    timeline = as_timeline(timeline)
    total, chosen = len(timeline), optional_whole("chunk", chunk, least=1)
    check_state(protocol, state, timeline.properties)
    if total == 0:
        return state
    length = min(total, math.isqrt(total - 1) + 1 if chosen is None else chosen)
    parts = total // length

    @jax.checkpoint
    def advance(state: Any, xs: Any) -> tuple[Any, None]:
        (state, _), _ = run(key, protocol, dataclasses.replace(timeline, xs=xs), state)
        return state, None

    def reshaped(leaf: Any) -> Array:
        return jnp.asarray(leaf[: parts * length]).reshape(parts, length, *leaf.shape[1:])

    state, _ = jax.lax.scan(advance, state, jax.tree.map(reshaped, timeline.xs))
    if parts * length < total:
        state, _ = advance(state, jax.tree.map(lambda leaf: jnp.asarray(leaf[parts * length :]), timeline.xs))
    return state


def consensus_error(
    timeline: Timeline, *, key: Key[Array, ""] | None = None, protocol: Protocol | None = None, chunk: int | None = None
) -> Float[Array, ""]:
    """Compute ``E_T = ‖X_T − J‖²_F / n`` from X_0 = I: what T events leave of random differences.

    It is the mean squared distance of a node after the run from the average of the start, if the entries of all models
    start independent with variance one: it counts disagreement, and how far the average has moved. Where events are
    doubly stochastic, the average stays. Differentiable in the weights of the timeline.

    >>> import jax, gossipjax as gj
    >>> pair, plan = gj.topology.path(2), gj.timeline.rounds(gj.mixing.averaging(2), 2)
    >>> def outcome(weight):
    ...     return gj.learn.consensus_error(gj.timeline.with_mixing(plan, gj.learn.edge_weights(pair, weight[None])))
    >>> float(outcome(jax.numpy.asarray(0.25))), float(jax.grad(outcome)(jax.numpy.asarray(0.25)))
    (0.03125, -0.5)

    Args:
        timeline: T events of averaging.
        key: of the run, where events are drawn inside it; None: ``jax.random.key(0)``.
        protocol: what nodes do; None: :func:`gossipjax.gossip_averaging`. It must be linear, for the meaning above.
        chunk: as in :func:`final_state`.

    Raises:
        ValueError: if chunk is not positive, or the timeline has other models than those of its nodes.
    """
    timeline = as_timeline(timeline)
    key = jax.random.key(0) if key is None else one_key(key)
    protocol = gossip_averaging() if protocol is None else instance("protocol", protocol, Protocol, _REMEDY)
    facts = timeline.properties
    if facts.num_rows != facts.num_nodes:
        raise ValueError(
            f"timeline: holds {facts.num_rows} models for {facts.num_nodes} nodes, such as that of a server, which "
            "have no part in the average; take a timeline with one model for each node, or gossipjax.learn.final_state"
        )
    n, dtype = facts.num_nodes, jnp.result_type(float)
    state = protocol.init(key, with_slots(jnp.eye(n, dtype=dtype), facts))
    x = models(protocol, final_state(key, protocol, timeline, state, chunk=chunk), n)
    return jnp.sum(jnp.square(x - 1 / n)) / n
