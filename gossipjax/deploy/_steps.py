"""What one node computes: the protocol's own step, cut where messages leave and arrive.

Every process holds a row for each node, as the simulator does, so that keys, sizes and the numbers of nodes mean the
same. It trains its own row, and only that row is true; the others are as they were at the start. Three programs:

* in a round, :func:`speak` is the step with a sharing that says nothing (the local steps), followed by the sharing's
  ``encode``; :func:`hear` is its ``merge``, with the messages of the others in the place of their rows;
* at an event, :func:`act` is the whole step with transfers between the node's row and one row of messages. A message is
  that row: sending copies the node's row there, and delivery mixes it into the node's, as in the simulator.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Int, Key, UInt

from gossipjax._base import outputs
from gossipjax._base.arguments import shown
from gossipjax._base.binding import Frozen
from gossipjax._base.rows import put
from gossipjax._base.streams import EVENTS, STEPS
from gossipjax.deploy._programs import Plan
from gossipjax.mixing._counting import no_state
from gossipjax.mixing._forms import PairMixing
from gossipjax.protocol import _ad_psgd, _dpsgd, _gossip
from gossipjax.sharing import _full, _jwins, _random_subset
from gossipjax.sharing._wire import WireState
from gossipjax.timeline._events import event_of
from gossipjax.types import NOBODY, Event, Info, Params, Protocol, Sharing, Timeline

_STEPS = {_dpsgd._adapt_then_combine, _dpsgd._combine_then_adapt, _gossip._step, _ad_psgd._step}
_SHARINGS = {_full._encode, _random_subset._encode, _jwins._encode}


class Said(NamedTuple):
    """The message of one node."""

    values: Params
    mask: Bool[Array, " c"] | None
    bits: UInt[Array, ""]


def sharing_of(protocol: Protocol) -> Sharing:
    """Return the sharing that a protocol uses.

    Raises:
        ValueError: if the protocol or its sharing cannot be deployed.
    """
    step = protocol.step.func  # type: ignore[attr-defined]
    if step not in _STEPS:
        raise ValueError(
            f"protocol={shown(protocol)}: has no form for processes; deploy dpsgd, local_sgd, gossip_averaging or "
            "ad_psgd, without wrappers such as metered (the report has the clocks)"
        )
    (sharing,) = (leaf for leaf in _leaves(protocol.step) if isinstance(leaf, Sharing))
    if sharing.encode.func not in _SHARINGS:  # type: ignore[attr-defined]
        raise ValueError(
            f"sharing={shown(sharing)}: needs more than the message of a neighbour, such as copies that both ends keep "
            "up to date; deploy full(), random_subset, top_k or jwins"
        )
    return sharing


def check_order(protocol: Protocol, plan: Plan) -> None:
    """Refuse the order in which a node adds its step to what it has received, where both are one event.

    Raises:
        ValueError: if a node trains and mixes in one event.
    """
    if protocol.step.func is _dpsgd._combine_then_adapt and any(  # type: ignore[attr-defined]
        turn.acts and (turn.sends or turn.receipts) for turns in plan.turns for turn in turns
    ):
        raise ValueError(
            "order='combine_then_adapt': a node that trains and mixes in one event is deployed in the other order; use "
            "order='adapt_then_combine'"
        )


def _leaves(tree: Any) -> list[Any]:
    return jax.tree.leaves(tree, is_leaf=lambda value: isinstance(value, Sharing))


def _no_message(key, state, x_start, x, event):
    del key, x_start, x, event
    return state, (None, 0)


def _no_receipt(key, state, arrived):
    del key
    return state, arrived[0]


_QUIET = Sharing(Partial(no_state), Partial(_no_message), Partial(_no_receipt))


def _quiet(protocol: Protocol) -> Protocol:
    """Return the protocol with a sharing that neither sends nor receives: its local steps."""
    step = jax.tree.map(
        lambda value: _QUIET if isinstance(value, Sharing) else value,
        protocol.step,
        is_leaf=lambda value: isinstance(value, Sharing),
    )
    return protocol._replace(step=step)


def _size(bits: Any, node: Any) -> Array:
    """Return the bits of one node's message, which are one number or one per node."""
    return jnp.asarray(bits if jnp.ndim(bits) == 0 else bits[node]).astype(jnp.uint32)


def _row(tree: Any, row: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf[row], tree)


def _loss(info: Info) -> Array:
    return jnp.full((), jnp.nan, jnp.float32) if info.loss is None else info.loss[0].astype(jnp.float32)


@jax.jit
def speak(
    key: Key[Array, ""], protocol: Protocol, timeline: Timeline, state: Any, node: Int[Array, ""]
) -> tuple[Any, Any, Said, Array]:
    """Train one node in a round, and encode what it says.

    Args:
        key: of the run.
        protocol: the step.
        timeline: whose ``xs`` are the entry of this round.
        state: before the round.
        node: which.

    Returns:
        State, payloads of all rows, the message of the node, and its loss (NaN without one).
    """
    event, steps = event_of(jax.random.fold_in(key, EVENTS), timeline, timeline.xs), jax.random.fold_in(key, STEPS)
    trained, info = outputs.step(_quiet(protocol), steps, state, event._replace(nodes=node[None]))
    sharing = sharing_of(protocol)
    shared, (payload, bits) = outputs.encode(sharing, steps, state.sharing, state.x, trained.x, event)
    values, mask = payload if _has_mask(payload) else (payload, None)
    said = Said(_row(values, node), None if mask is None else mask[node], _size(bits, node))
    return trained._replace(sharing=shared), payload, said, _loss(info)


def _has_mask(payload: Any) -> bool:
    return hasattr(payload, "mask") and hasattr(payload, "values")


@jax.jit
def hear(
    key: Key[Array, ""],
    protocol: Protocol,
    timeline: Timeline,
    state: Any,
    payload: Any,
    rows: Int[Array, " d"],
    values: Params,
    masks: Bool[Array, "d c"] | None,
    node: Int[Array, ""],
) -> Any:
    """Merge what one node has heard in a round.

    Args:
        key: of the run.
        protocol: the step.
        timeline: whose ``xs`` are the entry of this round.
        state: after :func:`speak`.
        payload: of :func:`speak`.
        rows: senders; past the last node in unused lanes.
        values: their messages, leaves ``(d, ...)``.
        masks: of the messages.
        node: which.

    Returns:
        The state after the round, in which the row of the node is true.
    """
    event, steps = event_of(jax.random.fold_in(key, EVENTS), timeline, timeline.xs), jax.random.fold_in(key, STEPS)
    if _has_mask(payload):
        payload, x = type(payload)(_insert(payload.values, rows, values), _insert(payload.mask, rows, masks)), state.x
    else:
        payload = x = _insert(payload, rows, values)
    shared, mixed = sharing_of(protocol).merge(steps, state.sharing, (x, payload, event))
    own = jax.tree.map(lambda leaf, new: leaf.at[node].set(new[node]), state.x, mixed)
    return state._replace(x=own, sharing=shared)


def _insert(tree: Any, rows: Array, values: Any) -> Any:
    return jax.tree.map(lambda leaf, value: leaf.at[rows].set(value, mode="drop"), tree, values)


def event_of_node(
    index: int,
    time: float,
    models: int,
    *,
    acts: int = NOBODY,
    begins: int | None = NOBODY,
    transfer: tuple[int, int, float, float] = (NOBODY, NOBODY, 0.0, 1.0),
    sent: int = 0,
) -> Event:
    """Write an event of one node: it acts, sends to the row of messages, or takes that row in.

    Args:
        index: number of the source event.
        time: seconds.
        models: rows that are models; the row that follows them holds a message.
        acts: node that trains.
        begins: node that takes its snapshot; None: the timeline has no snapshots.
        transfer: sender, receiver, weight, and what the receiver keeps.
        sent: messages that leave.
    """
    sender, receiver, weight, keep = transfer
    node, begin, senders, receivers = (
        None if value is None else np.array([value], np.int32) for value in (acts, begins, sender, receiver)
    )
    arrays: Any = (senders, receivers, np.array([weight]), np.array([keep]))
    rest: Any = {"nodes": node, "begin": begin, "messages": np.array([sent], np.uint32)}
    number: Any = {"index": np.array([index], np.uint32), "time": np.array([time], np.float32)}
    return Event(**number, **rest, mixing=PairMixing(*arrays), models=Frozen(models))


@jax.jit
def act(key: Key[Array, ""], protocol: Protocol, state: Any, event: Event) -> tuple[Any, Said, Array]:
    """Take one step of the protocol at an event of one node.

    Args:
        key: of the run.
        protocol: the step.
        state: before the event.
        event: of :func:`event_of_node`.

    Returns:
        State, the message in the row of messages, and the loss of the node that acts (NaN without one).
    """
    after, info = outputs.step(protocol, jax.random.fold_in(key, STEPS), state, event)
    wire, row = _wire_of(after.sharing), event.models.value
    mask = None if wire is None else _unpack(wire, after.x, row)
    return after, Said(_row(after.x, row), mask, _size(info.bits, 0)), _loss(info)


@jax.jit
def place(models: Frozen[int], state: Any, values: Params, mask: Bool[Array, " c"] | None) -> Any:
    """Put a message that has arrived into the row of messages."""
    row = jnp.full(1, models.value, jnp.int32)
    x = put(state.x, row, jax.tree.map(lambda value: value[None], values))
    if mask is None:
        return state._replace(x=x)
    wire = _wire_of(state.sharing)
    assert wire is not None
    masks = wire.masks.at[models.value].set(jnp.packbits(mask))  # type: ignore[union-attr]
    return state._replace(x=x, sharing=_with_wire(state.sharing, wire._replace(masks=masks)))


def _unpack(wire: WireState, x: Params, row: int) -> Array:
    """Return the mask of the message in a row."""
    assert wire.masks is not None
    size = sum(leaf[0].size for leaf in jax.tree.leaves(x))
    return jnp.unpackbits(wire.masks[row], count=size).astype(bool)


def _wire_of(sharing: Any) -> WireState | None:
    return next((part for part in _wires(sharing) if isinstance(part, WireState)), None)


def _wires(sharing: Any) -> list[Any]:
    return jax.tree.leaves(sharing, is_leaf=lambda value: isinstance(value, WireState))


def _with_wire(sharing: Any, wire: WireState) -> Any:
    return jax.tree.map(
        lambda value: wire if isinstance(value, WireState) else value,
        sharing,
        is_leaf=lambda value: isinstance(value, WireState),
    )


def has_masks(sharing: Sharing) -> bool:
    """Return whether messages hold the entries under a mask only."""
    return sharing.encode.func is not _full._encode  # type: ignore[attr-defined]
