"""JWINS: nodes send a random number of wavelet coefficients, those that changed most since they were last sent."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int, Key, UInt

from gossipjax._base.arguments import choice, real, reals, shown, whole, wholes
from gossipjax._base.binding import Frozen
from gossipjax._base.calls import recorded
from gossipjax._base.local import network_size
from gossipjax._base.placement import by_rows, map_nodes
from gossipjax._base.rows import before_writing, num_rows, parameters_per_row, put, take
from gossipjax.compress import codes
from gossipjax.compress._compressor import ravel_rows, unravel_rows
from gossipjax.compress._selection import largest
from gossipjax.compress.codes import as_wire, dense_bits, message_bits
from gossipjax.compress.transforms import Transform, as_transform, identity, wavelet
from gossipjax.mixing._counting import EVERYONE, speakers
from gossipjax.sharing._masked import OWN_MODELS, Masked, fill_in
from gossipjax.sharing._wire import (
    Message,
    WireState,
    count_speech,
    fill_coordinates,
    has_transfers,
    if_any_speaks,
    message_keys,
    receive,
    rows_that_speak,
    start_wire,
)
from gossipjax.types import Event, Mass, Params, Sharing

CUT_OFFS = (0.10, 0.15, 0.20, 0.25, 0.30, 0.40, 1.00)
"""Cut-offs of the paper's configurations, all equally likely; their mean is 0.343 of the model."""


class JwinsState(NamedTuple):
    """Memory of each node about itself; there is no memory about neighbours."""

    coefficients: Float[Array, "n c"]
    """Coefficients of its model at the end of the last event in which it sent."""
    scores: Float[Array, "n c"] | None
    """V: change of each coefficient since it was last sent; None: without accumulation."""
    wire: WireState


class _Setting(NamedTuple):
    """Compile-time settings."""

    cut_offs: tuple[float, ...]
    cap: float
    transform: Transform
    accumulate: Literal["round", "training", "nothing"]
    rank_by: Literal["change", "value"]
    wire: codes.Wire


_MOST = 2**26
"""Parameters from which the bits of a message, in float64, may not fit into 32 bits."""


_PIXELS_LAST, _PIXELS_FIRST = (0, 4, 3, 1, 2), (0, 3, 4, 2, 1)


def _vectors(setting: Frozen[_Setting], x: Params) -> Float[Array, "n d"]:
    """Return flat rows, at least in single precision, since a transform and its inverse lose digits.

    Numbers that change alike should lie next to each other in a vector that a wavelet transforms. In kernels of
    convolutions, (height, width, in, out), these are the pixels.
    """
    vectors = ravel_rows(x if setting.value.transform == identity() else _reordered(x, _PIXELS_LAST))
    return vectors if vectors.dtype.itemsize > 2 else vectors.astype(jnp.float32)


def _models(setting: Frozen[_Setting], vectors: Float[Array, "n d"], like: Params) -> Params:
    """Undo :func:`_vectors`."""
    if setting.value.transform == identity():
        return unravel_rows(vectors, like)
    return _reordered(unravel_rows(vectors, _reordered(like, _PIXELS_LAST)), _PIXELS_FIRST)


def _reordered(x: Params, axes: tuple[int, ...]) -> Params:
    return jax.tree.map(lambda leaf: leaf.transpose(axes) if leaf.ndim == len(axes) else leaf, x)


def _init(setting: Frozen[_Setting], x0: Params) -> JwinsState:
    if parameters_per_row(x0) >= _MOST:
        raise ValueError(f"a model of {parameters_per_row(x0):,} numbers: sizes of messages are exact below {_MOST:,}")
    w = map_nodes(setting.value.transform.forward, _vectors(setting, x0))
    scores = None if setting.value.accumulate == "nothing" else jnp.zeros_like(w)
    return JwinsState(w, scores, start_wire(x0, w.shape[1]))


def _draw(shares: Array, draws: Array | None, keys: Key[Array, " m"], event: Event) -> Int[Array, " m"]:
    """Draw the number of the cut-off for every row that sends."""
    if draws is not None:
        n = network_size(event.local, keys.shape[0])
        if draws.shape[1] != n:
            raise ValueError(f"draws for {draws.shape[1]} nodes in a network of {n}: give one column for each node")
        drawn = draws[event.index[0] % draws.shape[0]]
        return drawn if event.local is None else drawn[event.local.ids]
    return jax.vmap(lambda key: jax.random.categorical(key, shares).astype(jnp.int32))(keys)


def _sizes(setting: _Setting, c: int) -> tuple[list[int], list[bool]]:
    """Return for each cut-off the number of coefficients, and whether the whole model is sent, without indices."""
    whole = [share >= setting.cap for share in setting.cut_offs]
    sizes = [max(1, round(share * c)) for share in setting.cut_offs]
    return [c if every else size for size, every in zip(sizes, whole, strict=True)], whole


def _select(
    setting: Frozen[_Setting], scores: Array | None, x: Float[Array, " d"], start: Array, drawn: Int[Array, ""]
) -> tuple[Float[Array, " c"] | None, Masked, UInt[Array, ""]]:
    """Return the scores of one node after sending, its message, and the bits of the message."""
    options = setting.value
    w = options.transform.forward(x)
    change = w - start
    changed = None if scores is None else scores + change
    ranked = {"change": change if changed is None else changed, "value": w}[options.rank_by]
    sizes, whole = _sizes(options, w.shape[0])
    mask = largest(ranked, jnp.asarray(sizes, jnp.int32)[drawn])
    kept = scores if options.accumulate == "round" else changed
    value_bits = 8 * w.dtype.itemsize
    dense = jnp.asarray(dense_bits(options.wire, w.shape[0], value_bits), jnp.uint32)
    bits = jnp.where(jnp.asarray(whole)[drawn], dense, message_bits(options.wire, mask, value_bits))
    return None if kept is None else jnp.where(mask, 0, kept), Masked(w, mask), bits


@by_rows
def _encode(
    setting: Frozen[_Setting], shares: Array, draws: Array | None, key, state: JwinsState, x_start, x, event: Event
) -> tuple[JwinsState, tuple[Masked | Message, UInt[Array, " m"]]]:
    del x_start
    rows = speakers(event, num_rows(x))
    values, lanes = rows_that_speak(event, x, rows), rows if has_transfers(event) else None

    def select() -> tuple[Masked, Array | None, Array]:
        drawn = _draw(shares, draws, message_keys(key, state.wire.counts, event, rows), event)
        start, scores = take((state.coefficients, state.scores), lanes)
        scores, sent, bits = map_nodes(Partial(_select, setting), scores, _vectors(setting, values), start, drawn)
        return sent, scores, bits

    sent, scores, bits = if_any_speaks(rows, num_rows(x), select)
    wire = state.wire._replace(counts=count_speech(state.wire.counts, rows))
    state = JwinsState(state.coefficients, None if scores is None else put(state.scores, rows, scores), wire)
    whole = rows is None and setting.value.transform != identity()  # spares transforming again what is averaged
    return state, (sent if whole else Message(values, sent.mask), bits)


def _finish(
    setting: Frozen[_Setting], w: Float[Array, " c"], scores: Array | None, x: Float[Array, " d"], start: Array
) -> tuple[Float[Array, " c"], Array | None, Float[Array, " d"]]:
    """Return the coefficients of the new model of one node, its scores after a round, and the new model.

    Args:
        setting: of the sharing.
        w: mixed coefficients.
        scores: before.
        x: the old model, which the new one replaces.
        start: coefficients at the start of the round.
    """
    transform = setting.value.transform
    x = transform.inverse(w, x.shape[0])
    # Where T has more coefficients than there are parameters, mixed ones need not be those of a vector.
    w = w if transform == identity() else transform.forward(x)
    if scores is not None and setting.value.accumulate == "round":
        scores = scores + (w - start)
    return w, scores, x


@by_rows
def _merge(setting: Frozen[_Setting], key, state: JwinsState, arrived: tuple[Params, Masked | Message, Event]):
    del key
    x, sent, event = arrived
    rows = speakers(event, num_rows(x))
    if isinstance(sent, Message) and has_transfers(event) and rows is not None:
        return _merge_transfers(setting, state, x, sent, event, rows)
    if isinstance(sent, Message):
        assert sent.mask is not None
        sent = Masked(map_nodes(setting.value.transform.forward, _vectors(setting, sent.values)), sent.mask)
    # Results replace arguments in this order: new models the old ones, their coefficients the mixed ones.
    memory = fill_in(event.mixing, sent), state.scores, _vectors(setting, x)
    w, scores, vectors = map_nodes(Partial(_finish, setting), *memory, state.coefficients)
    w, scores = put((state.coefficients, state.scores), rows, (w, scores))
    return JwinsState(w, scores, state.wire), _models(setting, vectors, x)


def _merge_transfers(
    setting: Frozen[_Setting], state: JwinsState, x: Params, sent: Message, event: Event, rows: Int[Array, " m"]
) -> tuple[JwinsState, Params]:
    """Send and deliver messages; update the scores of the rows that sent."""
    x, masks = receive(event, x, state.wire.masks, sent, rows, Partial(_fill, setting))
    memory = state.coefficients, state.scores

    def new() -> tuple[Array, Array | None]:
        start, scores = take(memory, rows)
        w = map_nodes(setting.value.transform.forward, _vectors(setting, take(x, rows)))
        if scores is not None and setting.value.accumulate == "round":
            scores = scores + (w - start)
        return w, scores

    w, scores = put(memory, rows, before_writing(jnp.any(rows < num_rows(x)), new, lambda: take(memory, rows)))
    return JwinsState(w, scores, state.wire._replace(masks=masks)), x


def _fill(setting: Frozen[_Setting], receivers: Int[Array, " r"], own: Params, heard: Message) -> Params:
    """Return the coefficients of a message, filled in with those of the receiver."""
    transform = setting.value.transform
    if transform == identity():
        return fill_coordinates(receivers, own, heard)
    read = Partial(_read, setting, Frozen(parameters_per_row(own)))
    vectors = map_nodes(read, _vectors(setting, own), _vectors(setting, heard.values), heard.mask)
    return _models(setting, vectors, own)


def _read(setting: Frozen[_Setting], d: Frozen[int], own: Array, other: Array, mask: Array) -> Float[Array, " d"]:
    transform = setting.value.transform
    return transform.inverse(jnp.where(mask, transform.forward(other), transform.forward(own)), d.value)


@recorded("dhasade2023jwins")
def jwins(
    cut_offs: Sequence[float] = CUT_OFFS,
    *,
    probabilities: Sequence[float] | None = None,
    cap: float = 0.5,
    transform: Transform | None = None,
    accumulate: Literal["round", "training", "nothing"] = "round",
    rank_by: Literal["change", "value"] = "change",
    wire: codes.Wire | None = None,
    draws: Int[np.ndarray, "T n"] | None = None,
) -> Sharing:
    """Build JWINS: in each round every node sends a random share of its coefficients, those that changed most.

    Let T be the transform of the whole flat model, s_i the model at the start of the round and x_i the trained one::

        draw α_i from the cut-offs
        w_i = T x_i,  score_i = V_i + T (x_i − s_i)
        I_i = the k = round(α_i C) largest |score_i|      (α_i ≥ cap: all of them, without indices)
        send w_i on I_i;  V_i ← 0 on I_i
        w_i ← w_i + Σ_j W_ij M_j (w_j − w_i)              (M_j: the mask of I_j)
        x_i = T⁻¹ w_i;  V_i ← V_i + T (x_i − s_i)

    A leaf of four axes, the kernel of a convolution (height, width, in, out), is flattened with its pixels next to each
    other, as PyTorch stores it, unless T is the identity: their changes are alike, and a wavelet gathers them. With
    channels next to each other JWINS learns much worse.

    Messages hold coefficients of the model, not of its change. V adds the whole change of a round, averaging included,
    also for coefficients that were just sent. Nodes have no memory about their neighbours, so the graph may change.
    Rounds are not needed: at meetings and in flight, a round of a node lasts from the end of one event in which it
    sends to the end of the next. Equal models are a fixed point up to rounding and the error of T⁻¹ T (about 1e-11 of x
    for sym2, whose filters have 12 digits in PyWavelets); the network mean is not conserved. ``cut_offs=(1.0,)`` is
    full sharing. The bits of a message are those of the values (in the widest dtype of the model, at least 32 bits
    each), of their encoded positions, and of the envelope (:class:`gossipjax.compress.codes.Wire`).

    Args:
        cut_offs: shares α in (0, 1], of which every node draws one in every round.
        probabilities: of the cut-offs; None: all equally likely.
        cap: share from which on the whole model is sent.
        transform: T (:mod:`gossipjax.compress.transforms`); None: 4 levels of the wavelet sym2.
        accumulate: whether V adds the change of the whole round, only that of training, or there is no V.
        rank_by: |score|, or |w| itself.
        wire: encoding of messages; None: float32 values, and Elias gamma codes of the gaps between positions.
        draws: numbers of the cut-offs by round (modulo T) and node, instead of random ones.

    Raises:
        ValueError: if cut-offs, probabilities or draws are out of range; during a run, if nodes train rows other than
            their own, or, with draws, not all nodes act at every event.

    Reference: Dhasade, Kermarrec, Pires, Sharma, Vujasinovic, Wigger 2023, arXiv 2306.04377, and its released code.
    """
    shares = reals("cut_offs", cut_offs, shape=(None,), above=0, most=1, remedy="shares of the coefficients")
    if not shares.size:
        raise ValueError("cut_offs is empty: give at least one share of the coefficients, each in (0, 1]")
    chosen = tuple(shares.tolist())
    cap = real("cap", cap, above=0, infinite=True, remedy="above 1 every message has indices")
    choice("accumulate", accumulate, ("round", "training", "nothing"))
    choice("rank_by", rank_by, ("change", "value"))
    T = wavelet("sym2", levels=4) if transform is None else as_transform(transform)
    setting = Frozen(_Setting(chosen, cap, T, accumulate, rank_by, codes.Wire() if wire is None else as_wire(wire)))
    encode = Partial(_encode, setting, _log_shares(chosen, probabilities), _check_draws(draws, len(chosen)))
    needs = OWN_MODELS if draws is None else OWN_MODELS | EVERYONE
    mass = Mass("coordinates") if T == identity() else None
    return Sharing(Partial(_init, setting), encode, Partial(_merge, setting), needs, mass)


def _log_shares(cut_offs: tuple[float, ...], probabilities: Sequence[float] | None) -> Float[Array, " m"]:
    number = len(cut_offs)
    if probabilities is None:
        p = np.full(number, 1 / number)
    else:
        remedy = f"give one for each of {number} cut-offs, with sum 1"
        p = reals("probabilities", probabilities, shape=(number,), least=0, remedy=remedy)
        if abs(p.sum() - 1) > 1e-6:  # they may be float32
            raise ValueError(f"probabilities={shown(probabilities)}: {remedy}")
    return jnp.log(jnp.asarray(p, jnp.float32))


def _check_draws(draws: Int[np.ndarray, "T n"] | None, number: int) -> Int[Array, "T n"] | None:
    if draws is None:
        return None
    remedy = "by round and node, which of the cut-offs is drawn"
    draws = wholes("draws", draws, shape=(None, None), least=0, most=number - 1, remedy=remedy)
    if not draws.size:
        raise ValueError(f"draws of shape {draws.shape}: give at least one round and one node; {remedy}")
    return jnp.asarray(draws, jnp.int32)


def cpython_draws(num_cut_offs: int, num_nodes: int, num_rounds: int) -> Int[np.ndarray, "num_rounds num_nodes"]:
    """Reproduce the draws of the released code: ``random.choice`` of a generator with seed i for node i.

    >>> [CUT_OFFS[number] for number in cpython_draws(7, 1, 5)[:, 0]]
    [1.0, 0.25, 1.0, 0.25, 0.1]

    Args:
        num_cut_offs: length of the list of cut-offs.
        num_nodes: n.
        num_rounds: T.

    Returns:
        Numbers of cut-offs, for :func:`jwins`.
    """
    num_cut_offs = whole("num_cut_offs", num_cut_offs, least=1)
    num_nodes, num_rounds = whole("num_nodes", num_nodes, least=1), whole("num_rounds", num_rounds, least=0)
    streams = [random.Random(node) for node in range(num_nodes)]
    numbers: Any = [[stream.choice(range(num_cut_offs)) for stream in streams] for _ in range(num_rounds)]
    return np.asarray(numbers, np.int32).reshape(num_rounds, num_nodes)
