"""Messages that are not whole models: their senders, their rows while in flight, and how receivers merge them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Int, Key, PyTree, UInt, UInt8

from gossipjax._base.rows import FEW, before_writing, num_rows, parameters_per_row, put, put_rows, take
from gossipjax._base.streams import node_keys
from gossipjax.compress._compressor import STREAM
from gossipjax.mixing._forms import GroupMixing, PairMixing, column, live_receivers
from gossipjax.mixing._placed import senders_read
from gossipjax.mixing._placed_forms import PlacedPairs
from gossipjax.types import Event, Params


class Message(NamedTuple):
    """Messages, one entry for each row that sends: see :func:`gossipjax.mixing._counting.speakers`."""

    values: Params
    """Models, leaves ``(m, ...)``; receivers read them under the mask only."""
    mask: Bool[Array, "m c"] | None = None
    """Which of the c coordinates, or coefficients, are sent; None: all."""


class WireState(NamedTuple):
    """State of a sharing without other memory."""

    counts: UInt[Array, " rows"]
    """Number of events, other than rounds, in which each row has sent; numbers its random streams."""
    masks: UInt8[Array, "rows b"] | None
    """Masks of messages in flight, in the rows after the models, eight coordinates per byte; None: whole models."""


Fill: TypeAlias = Callable[[Int[Array, " r"], Params, Message], Params]
"""``fill(receivers, own, message) -> models``: messages as their receivers read them, completed with own values."""


def start_wire(x0: Params, coordinates: int | None = None) -> WireState:
    """Return the state before the first message.

    Args:
        x0: stacked models, followed by rows for messages.
        coordinates: length c of a mask; None: messages have no mask.
    """
    rows = num_rows(x0)
    masks = None if coordinates is None else jnp.full((rows, -(-coordinates // 8)), 255, jnp.uint8)
    return WireState(jnp.zeros(rows, jnp.uint32), masks)


def start_masks(x0: Params) -> WireState:
    """Return the state before the first message, for messages with masks."""
    return start_wire(x0, parameters_per_row(x0))


def message_keys(
    key: Key[Array, ""], counts: UInt[Array, " rows"], event: Event, rows: Int[Array, " m"] | None
) -> Key[Array, " m"]:
    """Derive one key per message, from the row and the round, or from the row and the number of its messages so far.

    Unlike a position in an event, a row's own count does not depend on packing.
    """
    key = jax.random.fold_in(key, STREAM)
    if rows is None:
        return node_keys(key, event, len(counts))
    numbers = take(counts, rows)
    if event.local is not None:
        rows = take(event.local.ids, rows)
    return jax.vmap(lambda row, number: jax.random.fold_in(jax.random.fold_in(key, row), number))(rows, numbers)


def count_speech(counts: UInt[Array, " rows"], rows: Int[Array, " m"] | None) -> UInt[Array, " rows"]:
    """Count the messages of rows; rounds are numbered already."""
    return counts if rows is None else put_rows(counts, rows, take(counts, rows) + 1)


def count_participation(counts: UInt[Array, " rows"], event: Event, rows: Int[Array, " m"]) -> UInt[Array, " rows"]:
    """Count an event of transfers once for each row that sends or receives in it."""
    receivers = _transfers(event.mixing, len(counts)).receivers
    listeners = put_rows(counts, receivers, take(counts, receivers) + 1)
    return put_rows(listeners, rows, take(counts, rows) + 1)


def mask_of(x: Params, mask: Bool[Array, "m c"]) -> PyTree[Bool[Array, "m ..."]]:
    """Split flat masks of coordinates into the leaves of m models."""
    leaves, structure = jax.tree.flatten(x)
    parts, start = [], 0
    for leaf in leaves:
        size = leaf.size // leaf.shape[0]
        parts.append(mask[:, start : start + size].reshape(leaf.shape))
        start += size
    return jax.tree.unflatten(structure, parts)


def fill_coordinates(receivers: Int[Array, " r"], own: Params, message: Message) -> Params:
    """Return the coordinates of a message, and the receiver's own where the message has none."""
    del receivers
    if message.mask is None:
        return message.values
    return jax.tree.map(jnp.where, mask_of(own, message.mask), message.values, own)


def has_transfers(event: Event) -> bool:
    """Return whether an event has transfers or groups, not a round of all rows."""
    return isinstance(event.mixing, PairMixing | GroupMixing | PlacedPairs)


def rows_that_speak(event: Event, x: Params, rows: Int[Array, " m"] | None) -> Params:
    """Return the models of the rows that send; in a round, all rows in order."""
    return take(x, rows) if has_transfers(event) else x


def if_any_speaks(rows: Int[Array, " m"] | None, num_rows: int, work: Callable[[], PyTree]) -> PyTree:
    """Do the work of the rows that send; return zeros in events without one (most events of some timelines)."""
    if rows is None:
        return work()

    def nothing() -> PyTree:
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(work))

    return jax.lax.cond(jnp.any(rows < num_rows), work, nothing)


class _Transfers(NamedTuple):
    """The mixing of r receivers: ``keep x + Σ_s weights x[members]``."""

    receivers: Int[Array, " r"]
    keep: Float[Array, " r"]
    members: Int[Array, "s r"]
    weights: Float[Array, "s r"]


def _transfers(mixing: Any, rows: int) -> _Transfers:
    if isinstance(mixing, PlacedPairs):
        senders = jnp.where(mixing.slots < 0, mixing.senders, rows)  # one elsewhere is no row of this device
        return _Transfers(mixing.receivers, mixing.keep, senders[None], mixing.weights[None])
    if isinstance(mixing, PairMixing):
        receivers = live_receivers(mixing, rows)
        return _Transfers(receivers, mixing.keep, mixing.senders[None], mixing.weights[None])
    if mixing.parts is not None:
        raise ValueError(
            "the timeline says which fragment of a model each message is: share fragments(...), or use another timeline"
        )
    targets = mixing.targets.shape[1]
    members, weights = (jnp.repeat(array.T, targets, axis=1) for array in (mixing.members, mixing.weights))
    receivers = mixing.targets.ravel()
    return _Transfers(receivers, jnp.zeros(receivers.shape, weights.dtype), members, weights)


def _lanes(speakers: Int[Array, " m"], asked: Int[Array, " r"], rows: int) -> Int[Array, " r"]:
    """Return the lane in which each row sends; the number of lanes if it does not send."""
    m = len(speakers)
    if m <= FEW:
        same = (speakers[:, None] == asked[None]) & (asked < rows)[None]
        return jnp.where(jnp.any(same, axis=0), jnp.argmax(same, axis=0).astype(jnp.int32), m)
    lane = jnp.full(rows, m, jnp.int32).at[speakers].set(jnp.arange(m, dtype=jnp.int32), mode="drop")
    return lane.at[asked].get(mode="fill", fill_value=m)


def _choose(rows: Bool[Array, " r"], yes: PyTree, no: PyTree) -> PyTree:
    return jax.tree.map(lambda a, b: jnp.where(rows.reshape(-1, *(1,) * (a.ndim - 1)), a, b), yes, no)


def _message_of(
    speakers: Int[Array, " m"],
    message: Message,
    x: Params,
    masks: UInt8[Array, "rows b"] | None,
    asked: Int[Array, " r"],
) -> Message:
    """Return the message of each row: the one that it sends now, or the one in flight that the row holds."""
    lanes = _lanes(speakers, asked, num_rows(x))
    now = lanes < len(speakers)
    values = _choose(now, take(message.values, lanes), take(x, asked))
    if masks is None or message.mask is None:
        return Message(values)
    kept = jnp.unpackbits(take(masks, asked), axis=1, count=message.mask.shape[1]).astype(bool)
    return Message(values, _choose(now, take(message.mask, lanes), kept))


def receive(
    event: Event,
    x: Params,
    masks: UInt8[Array, "rows b"] | None,
    message: Message,
    speakers: Int[Array, " m"],
    fill: Fill,
) -> tuple[Params, UInt8[Array, "rows b"] | None]:
    """Send and deliver messages: rows of messages store them unchanged, and model rows merge them.

    With z_s the message of member s as receiver r reads it, model rows become ``x_r ← keep x_r + Σ_s w_s z_s``.

    Args:
        event: an event of transfers or groups.
        x: all rows.
        masks: masks of all rows.
        message: messages that are sent now, one per speaker.
        speakers: the rows that send.
        fill: see :data:`Fill`.

    Returns:
        The new models and masks of all rows.

    Raises:
        ValueError: if the message does not have one entry per speaker.
    """
    if num_rows(message.values) != len(speakers):
        raise ValueError(
            f"the sharing encodes {num_rows(message.values)} messages in an event with {len(speakers)} speakers: "
            "encode one entry for each of gossipjax.mixing.speakers(event, rows), in order"
        )
    rows, moves = num_rows(x), _transfers(event.mixing, num_rows(x))
    lies = jnp.zeros(moves.receivers.shape, bool) if event.models is None else moves.receivers >= event.models.value
    flying = None if event.models is None else masks
    nothing = None if flying is None else jnp.zeros((len(lies), flying.shape[1]), jnp.uint8)

    read = Partial(_message_of, speakers, message, x, masks)

    def new() -> tuple[Params, UInt8[Array, "r b"] | None]:
        return _new_rows(moves, lies, x, read, fill, nothing)

    def idle() -> tuple[Params, UInt8[Array, "r b"] | None]:
        return take(x, moves.receivers), nothing

    if isinstance(event.mixing, PlacedPairs):  # devices exchange messages: none may take another branch
        arrived = senders_read(event.mixing, read)
        mixed, copies = _new_rows(moves, lies, x, lambda members: arrived, fill, nothing)
    else:
        mixed, copies = before_writing(jnp.any(moves.receivers < rows), new, idle)
    x = put(x, moves.receivers, mixed)
    if flying is not None:
        assert copies is not None
        masks = put_rows(flying, jnp.where(lies, moves.receivers, rows), copies)
    return x, masks


def _new_rows(
    moves: _Transfers,
    lies: Bool[Array, " r"],
    x: Params,
    read_message: Callable[[Int[Array, " r"]], Message],
    fill: Fill,
    copies: UInt8[Array, "r b"] | None,
) -> tuple[Params, UInt8[Array, "r b"] | None]:
    """Return the new rows of the receivers, added up member by member, and the masks of rows of messages."""
    own = take(x, moves.receivers)

    def add(carry: Any, move: tuple[Int[Array, " r"], Float[Array, " r"]]) -> tuple[Any, None]:
        (total, copies), (members, weights) = carry, move
        message = read_message(members)
        read = _choose(members == moves.receivers, own, fill(moves.receivers, own, message))
        read = _choose(lies, message.values, read)
        total = jax.tree.map(lambda sum_, leaf: sum_ + _scaled(weights, leaf), total, read)
        if copies is not None:
            copies = copies | jnp.where((weights != 0)[:, None], _packed(message, copies), 0)
        return (total, copies), None

    carry = jax.tree.map(lambda leaf: column(moves.keep, leaf) * leaf, own), copies
    if len(moves.members) > FEW:
        return jax.lax.scan(add, carry, (moves.members, moves.weights))[0]
    for move in zip(moves.members, moves.weights, strict=True):
        carry, _ = add(carry, move)
    return carry


def _scaled(weights: Float[Array, " r"], leaf: Array) -> Array:
    factor = column(weights, leaf)
    return jnp.where(factor == 0, 0, factor * leaf)  # a weight of 0 does not silence a row that is not finite


def _packed(message: Message, like: UInt8[Array, "r b"]) -> UInt8[Array, "r b"]:
    return jnp.full_like(like, 255) if message.mask is None else jnp.packbits(message.mask, axis=1)
