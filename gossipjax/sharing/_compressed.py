"""Compressed models on the wire, as they are or with the errors of earlier messages added: DeepSqueeze."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int, Key, UInt

from gossipjax._base.calls import recorded
from gossipjax._base.outputs import encode
from gossipjax._base.rows import num_rows
from gossipjax.compress._compressor import Compressor, as_compressor, compress_each
from gossipjax.mixing._counting import EVERYONE, speakers
from gossipjax.sharing._choco import check_gamma, check_quality, consensus_step
from gossipjax.sharing._full import as_sharing
from gossipjax.sharing._masked import OWN_MODELS
from gossipjax.sharing._wire import (
    Message,
    WireState,
    count_participation,
    count_speech,
    has_transfers,
    message_keys,
    receive,
    rows_that_speak,
    start_wire,
)
from gossipjax.types import Event, Mass, Params, Sharing


def _encode(
    compressor: Compressor, key: Key[Array, ""], state: WireState, x_start: Params, x: Params, event: Event
) -> tuple[WireState, tuple[Params, int | UInt[Array, " m"]]]:
    del x_start
    rows = speakers(event, num_rows(x))
    keys = message_keys(key, state.counts, event, rows)
    return state, compress_each(keys, compressor, rows_that_speak(event, x, rows))


def _merge(
    compressor: Compressor, gamma: Any, key: Key[Array, ""], state: WireState, arrived: tuple[Params, Params, Event]
) -> tuple[WireState, Params]:
    x, message, event = arrived
    rows = speakers(event, num_rows(x))
    if rows is None or not has_transfers(event):
        return state._replace(counts=count_speech(state.counts, rows)), consensus_step(gamma, event.mixing, x, message)

    def fill(receivers: Int[Array, " r"], own: Params, heard: Message) -> Params:
        """Move by the difference to what the receiver itself says, or would say, in this event."""
        same, _ = compress_each(message_keys(key, state.counts, event, receivers), compressor, own)

        def move(leaf: Array, other: Array, mine: Array) -> Array:
            return leaf + jnp.asarray(gamma).astype(leaf.dtype) * (other - mine)

        return jax.tree.map(move, own, heard.values, same)

    x, _ = receive(event, x, None, Message(message), rows, fill)
    return state._replace(counts=count_participation(state.counts, event, rows)), x


@recorded("koloskova2019choco")
def compressed(compressor: Compressor, gamma: float | Float[np.ndarray | Array, ""] = 1.0) -> Sharing:
    """Build naive compression: nodes send Q of their models, and move by the difference to what they sent themselves::

        x_i ← x_i + γ Σ_j W_ij (Q(x_j) − Q(x_i))

    Conserves the mean to rounding, whatever Q does, where W is doubly stochastic. With ω = 1 and γ = 1 it is
    ``x ← W x``. At meetings and on arrival it is the same step for the receivers alone: a message in flight is Q of the
    sender's model, and Q(x_i) is what the receiver would say itself at that moment (what it does say, where both
    exchange). Nothing is remembered, so that the graph may change; but the errors of Q do not vanish where models
    agree, and what Q never sends is never mixed: see :func:`error_feedback`,
    :func:`~gossipjax.sharing.choco`.

    Args:
        compressor: Q, any (:mod:`gossipjax.compress`).
        gamma: consensus step size γ > 0. An argument of the compiled function.

    Raises:
        ValueError: γ that is not positive and finite; when run, nodes that train other rows than their own.

    Reference: Koloskova, Stich, Jaggi 2019, arXiv 1902.00340, scheme (Q2-G), with the step size γ; Tang, Gan, Zhang,
    Zhang, Liu 2018, arXiv 1803.06443, on how it fails.
    """
    as_compressor(compressor)
    check_gamma(gamma)
    return Sharing(
        Partial(start_wire), Partial(_encode, compressor), Partial(_merge, compressor, gamma), OWN_MODELS, Mass("model")
    )


class ErrorFeedbackState(NamedTuple):
    """What each node has not yet managed to say."""

    error: Params
    """e, leaves ``(n, ...)`` like the models."""
    sharing: Any
    """State of the sharing within: nothing that it sends differences to."""


def _init_feedback(sharing: Sharing, x0: Params) -> ErrorFeedbackState:
    inner = sharing.init(x0)
    if jax.tree.leaves(inner) and not isinstance(inner, WireState):
        raise ValueError(
            f"a sharing whose state is {type(inner).__name__} sends differences to what it remembers: error feedback "
            "is for messages that stand for the models themselves, such as those of compressed(Q)"
        )
    return ErrorFeedbackState(jax.tree.map(jnp.zeros_like, x0), inner)


def _check_payload(x: Params, payload: Any) -> None:
    """Refuse messages that cannot be read as models."""

    def form(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: f"{leaf.dtype}{list(leaf.shape)}", tree)

    if form(x) != form(payload):
        raise ValueError(
            f"a message of the form {form(payload)} is not read as a model {form(x)}: error feedback subtracts the "
            "one from the other; wrap a sharing whose messages are models, such as compressed(Q)"
        )


def _encode_feedback(
    sharing: Sharing, key: Key[Array, ""], state: ErrorFeedbackState, x_start: Params, x: Params, event: Event
) -> tuple[ErrorFeedbackState, tuple[Params, int | UInt[Array, "..."]]]:
    wanted = jax.tree.map(jnp.add, x, state.error)
    inner, (payload, bits) = encode(sharing, key, state.sharing, x_start, wanted, event)
    _check_payload(x, payload)
    return ErrorFeedbackState(jax.tree.map(jnp.subtract, wanted, payload), inner), (payload, bits)


def _merge_feedback(
    sharing: Sharing, key: Key[Array, ""], state: ErrorFeedbackState, arrived: tuple[Params, Params, Event]
) -> tuple[ErrorFeedbackState, Params]:
    inner, x = sharing.merge(key, state.sharing, arrived)
    return ErrorFeedbackState(state.error, inner), x


@recorded("seide2014onebit")
def error_feedback(sharing: Sharing) -> Sharing:
    """Wrap a sharing so that what a message leaves out is added to the next model that is encoded::

        v_i = x_i + e_i                             encoded in place of x_i; e_i = 0 at the start
        e_i ← v_i − p_i                             p_i the message: what receivers read v_i as

    x itself is merged without e. Conserves what the sharing conserves. What was sent up to round t is what was to be
    sent but for the last error, ``Σ p = Σ x − e``: nothing stays unsaid, as long as e stays bounded.

    The message must be the model as its receivers read it. Sharings that remember something between rounds (CHOCO and
    its kin send differences to it) and messages of another structure, shape or type than the model are refused; of
    others, it is the caller's promise.

    Args:
        sharing: one without state whose message has the leaves of the models: :func:`compressed`, or
            :func:`~gossipjax.sharing.full`, of which it changes nothing.

    Raises:
        ValueError: when the models are known, a sharing with a state of its own; when traced, a message that has not
            the structure, shapes and types of the models.

    Reference: Seide, Fu, Droppo, Li, Yu 2014; Tang et al. 2019, arXiv 1907.07346.
    """
    sharing = as_sharing(sharing)
    init, encode, merge = Partial(_init_feedback, sharing), Partial(_encode_feedback, sharing), _merge_feedback
    return Sharing(init, encode, Partial(merge, sharing), sharing.requires | EVERYONE)


def _init_squeeze(compressor: Compressor, init: Partial, x0: Params) -> ErrorFeedbackState:
    check_quality(compressor, x0)
    return init(x0)


@recorded("tang2019deepsqueeze")
def deep_squeeze(compressor: Compressor, gamma: float | Float[np.ndarray | Array, ""]) -> Sharing:
    """Build DeepSqueeze: naive compression with error feedback, ``error_feedback(compressed(Q, γ))``::

        v_i = x_i + e_i                             x_i after its local steps; e_i = 0 at the start
        e_i ← v_i − Q(v_i)
        x_i ← x_i + γ Σ_j (W_ij − [i = j]) Q(v_j)

    Conserves the mean to rounding, whatever Q does, where W is doubly stochastic. With ω = 1 and γ = 1 it is
    ``x ← W x``. No copies of neighbours are kept, so that the graph may change. In
    :func:`~gossipjax.dpsgd` with adapt-then-combine it is the published algorithm.

    Models agree up to a noise that grows with γ and 1/ω, since models, not differences, are compressed. In
    :func:`~gossipjax.gossip_averaging`, ``x(T) = x(0) + γ (W − I) (Σ_{t<T} x(t) − e(T))``: their time average agrees to
    ``O(1/T)``.

    Args:
        compressor: Q, with a quality ω (:mod:`gossipjax.compress`), for the errors to stay bounded.
        gamma: consensus step size γ > 0, small for aggressive compressors. An argument of the compiled function.

    Raises:
        ValueError: γ that is not positive and finite; a compressor without ω, when the models are known; when run, a
            timeline that is not of synchronous rounds.

    Reference: Tang, Lian, Qiu, Yuan, Zhang, Zhang, Liu 2019, arXiv 1907.07346, algorithm 1.
    """
    sharing = error_feedback(compressed(compressor, gamma))
    return sharing._replace(init=Partial(_init_squeeze, compressor, sharing.init))
