"""Push-sum and stochastic gradient push: averaging by sending shares of a mass."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import Partial
from jaxtyping import Array, Key

from gossipjax._base.arguments import shown
from gossipjax._base.binding import as_factory, as_task
from gossipjax._base.calls import recorded
from gossipjax._base.counter import MOST_BITS
from gossipjax._base.outputs import encode
from gossipjax._base.placement import by_rows
from gossipjax._base.rows import bits_per_row, num_rows, put, take, trained_rows
from gossipjax.facts import Requires
from gossipjax.mixing._apply import mix
from gossipjax.mixing._counting import speakers, traffic_fields
from gossipjax.mixing._forms import column
from gossipjax.protocol._local import init_optimizer
from gossipjax.protocol._local_async import node_rows, step_from
from gossipjax.sharing._full import as_sharing
from gossipjax.sharing._wire import Message, has_transfers, mask_of
from gossipjax.types import Event, Info, Params, Protocol, Sharing, Task

Weights: TypeAlias = Params
"""Weights of push-sum: one per row, ``(rows,)``, or one per coordinate, leaves like the models."""
_REQUIRES = Requires({"column_stochastic"}, mixing=True, builder="timeline.directed_push")


class PushSumState(NamedTuple):
    """Numerators and weights of all rows, and the state of the sharing."""

    x: Params
    w: Weights
    sharing: Any


class SGPState(NamedTuple):
    """Numerators and weights of all rows, optimizer states of all nodes, and the state of the sharing."""

    x: Params
    w: Weights
    optimizer: Any
    sharing: Any


def _ones(sharing: Sharing, x0: Params) -> Weights:
    # Rows of messages too: they are written before they are read, and 0/0 in an idle one would only alarm.
    assert sharing.mass is not None
    if sharing.mass.weights in ("whole", "model"):
        return jnp.ones(num_rows(x0))
    if sharing.mass.weights == "coordinates" and 2 * bits_per_row(x0) >= MOST_BITS:
        raise ValueError(
            f"a model has {bits_per_row(x0):,} bits, and as many again for its weights: sizes that change from message "
            f"to message are counted in 32 bits, up to {MOST_BITS - 1:,} a message; share full models or fragments"
        )
    return jax.tree.map(jnp.ones_like, x0)


def _ratio(x: Params, w: Weights) -> Params:
    if isinstance(w, jax.Array) and w.ndim == 1:
        return jax.tree.map(lambda leaf: leaf / column(w, leaf), x)
    # A message has no mass of a coordinate that it does not hold.
    return jax.tree.map(lambda leaf, mass: leaf / jnp.where(mass == 0, 1, mass), x, w)


def _push(
    sharing: Sharing, key: Key[Array, ""], state: PushSumState | SGPState, x: Params, event: Event
) -> tuple[Params, Weights, Any, Any]:
    """Push what is sent of x and w: ``(x, w) ← P (sent) + (rest)``; also return the sharing's state and the bits."""
    assert sharing.mass is not None
    weights, w = sharing.mass.weights, state.w
    shared, (payload, bits) = encode(sharing, key, state.sharing, state.x, x, event)
    if weights == "whole":
        return *mix(event.mixing, (x, w)), shared, bits + bits_per_row(w)
    said = payload if isinstance(payload, Message) else Message(payload)
    rows = speakers(event, num_rows(x)) if has_transfers(event) else None
    if weights == "model":
        unsaid = jax.tree.map(jnp.subtract, take(x, rows), said.values)
        x, w = mix(event.mixing, (put(x, rows, said.values), w))
        return _add(x, rows, unsaid), w, shared, bits + bits_per_row(w)
    assert said.mask is not None
    own = take((x, w), rows)
    mask = mask_of(own[0], said.mask)
    given, kept = (jax.tree.map(partial(_where, held), (mask, mask), own) for held in (True, False))
    x, w = _add(mix(event.mixing, put((x, w), rows, given)), rows, kept)
    each = 8 * max(leaf.dtype.itemsize for leaf in jax.tree.leaves(w))
    carried = 1 if weights == "message" else jnp.sum(said.mask, axis=1, dtype=jnp.uint32)
    return x, w, shared, bits + each * carried


def _add(x: Any, rows: Array | None, change: Any) -> Any:
    """Add to the rows that send, once per row: a row that sends in several lanes sends the same in all of them."""
    return put(x, rows, jax.tree.map(jnp.add, take(x, rows), change))


def _where(held: bool, mask: Array, leaf: Array) -> Array:
    return jnp.where(mask == held, leaf, 0)


def _init_average(sharing: Sharing, key: Key[Array, ""], x0: Params) -> PushSumState:
    del key
    return PushSumState(x0, _ones(sharing, x0), sharing.init(x0))


def _init(task: Task, optimizer: Partial, sharing: Sharing, key: Key[Array, ""], x0: Params) -> SGPState:
    del key
    optimizers = init_optimizer(optimizer, node_rows(x0, task.num_nodes))
    return SGPState(x0, _ones(sharing, x0), optimizers, sharing.init(x0))


@by_rows
def _average(sharing: Sharing, key: Key[Array, ""], state: PushSumState, event: Event) -> tuple[PushSumState, Info]:
    x, w, shared, bits = _push(sharing, key, state, state.x, event)
    return PushSumState(x, w, shared), Info(*traffic_fields(event, bits, num_rows(x)))


@by_rows
def _step(
    task: Task, optimizer: Partial, sharing: Sharing, key, state: SGPState, event: Event
) -> tuple[SGPState, Info]:
    z = _ratio(*take((state.x, state.w), trained_rows(event)))
    x, optimizer_state, trained = step_from(key, task, optimizer, z, state.x, state.optimizer, event)
    x, w, shared, bits = _push(sharing, key, state, x, event)
    info = Info(*traffic_fields(event, bits, num_rows(x)), trained.loss, trained.finite)
    return SGPState(x, w, optimizer_state, shared), info


def _model(state: PushSumState | SGPState) -> Params:
    return _ratio(state.x, state.w)


def _with_mass(sharing: Sharing | None) -> Sharing:
    chosen = as_sharing(sharing)
    if chosen.mass is None:
        raise ValueError(
            f"sharing={shown(chosen)}: push-sum needs messages that are models or parts of one: "
            "use full(), random_subset, top_k, fragments or compressed"
        )
    return chosen


@recorded("kempe2003pushsum", "benezit2010weighted")
def push_sum(sharing: Sharing | None = None) -> Protocol:
    """Build push-sum averaging: numerators x and weights w (1 at the start) are mixed alike; the model is x/w.

    ``x_i ← Σ_j P_ij x_j``, ``w_i ← Σ_j P_ij w_j``, ``z_i = x_i / w_i`` with P column stochastic, also on directed
    networks. ``Σ x`` and ``Σ w = n`` are conserved, messages in flight included, so every z_i converges to the mean of
    the start; a lost message loses its mass. A message is a model and one number.

    If a sharing sends less than the model, the rest stays with the sender. If messages hold some coordinates, every
    coordinate has its own weight, and ``Σ x[c]`` and ``Σ w[c] = n`` are conserved coordinate by coordinate (M_j the
    coordinates that j sends)::

        x_i[c] ← Σ_j P_ij M_j[c] x_j[c] + (1 − M_i[c]) x_i[c]          and w alike

    A message then holds the weights of its coordinates: one for a fragment, or one for each coordinate of a random
    subset or of the k largest. If messages are compressed models Q(x), then ``x ← P Q(x) + x − Q(x)`` with one weight:
    Σ x is conserved, and z is as noisy as Q.

    Args:
        sharing: what nodes send; None: the full model.

    Raises:
        TypeError: if sharing is not a sharing.
        ValueError: if messages of the sharing are not models or parts of one; during a run, if a mixing matrix is not
            column stochastic.

    Reference: Kempe, Dobra, Gehrke 2003, protocol 1; Bénézit et al. 2010.
    """
    chosen = _with_mass(sharing)
    requires = _REQUIRES | Requires(local_steps=0) | chosen.requires
    return Protocol(Partial(_init_average, chosen), Partial(_average, chosen), Partial(_model), requires)


@recorded("assran2019sgp")
def sgp(task: Task, optimizer: optax.GradientTransformation | Partial, *, sharing: Sharing | None = None) -> Protocol:
    """Build stochastic gradient push: push-sum with gradient steps of the numerators at the de-biased models.

    ::

        z_i = x_i / w_i      x_i ← x_i + optimizer(g_i(z_i))      x_i ← Σ_j P_ij x_j      w_i ← Σ_j P_ij w_j

    For SGD the update is ``−γ g_i(z_i)``. P is column stochastic, and may be directed and change over time. On rounds
    over :func:`~gossipjax.topology.one_peer_exponential` it is the paper's algorithm; on
    :func:`~gossipjax.timeline.directed_push` nodes do not wait, and mass is in flight. Unless messages are lost,
    ``Σ w = n``, and ``Σ x`` moves by gradients only, messages in flight included.

    Args:
        task: one shard per node.
        optimizer: any optax transformation, one state per node; or ``Partial(optax.sgd, 0.1)``. A schedule counts the
            node's own local steps, not events or seconds.
        sharing: what nodes send, see :func:`push_sum`; None: the full model.

    Raises:
        TypeError: if task, optimizer or sharing has the wrong type.
        ValueError: if messages of the sharing are not models or parts of one; during a run, if a mixing matrix is not
            column stochastic.

    Reference: Assran et al. 2019, arXiv 1811.10792, algorithm 1.
    """
    task, factory, chosen = as_task(task), as_factory(optimizer), _with_mass(sharing)
    requires = _REQUIRES | Requires({"own_rows"}, num_nodes=task.num_nodes, local_steps=1)
    return Protocol(
        init=Partial(_init, task, factory, chosen),
        step=Partial(_step, task, factory, chosen),
        model=Partial(_model),
        requires=requires | chosen.requires,
    )
