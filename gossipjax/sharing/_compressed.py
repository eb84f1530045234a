"""Messages that are compressed models, without and with error feedback (DeepSqueeze)."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int, Key, UInt

from gossipjax._base.calls import recorded
from gossipjax._base.outputs import encode
from gossipjax._base.placement import by_rows
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


@by_rows
def _encode(
    compressor: Compressor, key: Key[Array, ""], state: WireState, x_start: Params, x: Params, event: Event
) -> tuple[WireState, tuple[Params, int | UInt[Array, " m"]]]:
    del x_start
    rows = speakers(event, num_rows(x))
    keys = message_keys(key, state.counts, event, rows)
    return state, compress_each(keys, compressor, rows_that_speak(event, x, rows))


@by_rows
def _merge(
    compressor: Compressor, gamma: Any, key: Key[Array, ""], state: WireState, arrived: tuple[Params, Params, Event]
) -> tuple[WireState, Params]:
    x, message, event = arrived
    rows = speakers(event, num_rows(x))
    if rows is None or not has_transfers(event):
        return state._replace(counts=count_speech(state.counts, rows)), consensus_step(gamma, event.mixing, x, message)

    def fill(receivers: Int[Array, " r"], own: Params, heard: Message) -> Params:
        """Move by γ (message − own message), where a receiver that does not send compresses its model all the same."""
        same, _ = compress_each(message_keys(key, state.counts, event, receivers), compressor, own)

        def move(leaf: Array, other: Array, mine: Array) -> Array:
            return leaf + jnp.asarray(gamma).astype(leaf.dtype) * (other - mine)

        return jax.tree.map(move, own, heard.values, same)

    x, _ = receive(event, x, None, Message(message), rows, fill)
    return state._replace(counts=count_participation(state.counts, event, rows)), x


@recorded("koloskova2019choco")
def compressed(compressor: Compressor, gamma: float | Float[np.ndarray | Array, ""] = 1.0) -> Sharing:
    """Build naive compression: nodes send Q of their models, and move by differences between such messages::

        x_i ← x_i + γ Σ_j W_ij (Q(x_j) − Q(x_i))

    If W is doubly stochastic, the mean is conserved up to rounding, for any Q. With ω = 1 and γ = 1 it is ``x ← W x``.
    At meetings and on arrival, only the receivers take this step: a message in flight is Q of the sender's model, and
    Q(x_i) is the message that the receiver would send at that moment (or sends, in an exchange). There is no memory, so
    the graph may change. But the errors of Q do not vanish when models agree, and coordinates that Q never sends are
    never mixed: see :func:`error_feedback` and :func:`~gossipjax.sharing.choco`.

    Args:
        compressor: any compressor Q (:mod:`gossipjax.compress`).
        gamma: consensus step size γ > 0. A new value does not recompile the run.

    Raises:
        ValueError: if γ is not positive and finite; during a run, if nodes train rows other than their own.

    Reference: Koloskova, Stich, Jaggi 2019, arXiv 1902.00340, scheme (Q2-G), with the step size γ; Tang, Gan, Zhang,
    Zhang, Liu 2018, arXiv 1803.06443, which shows that it may fail.
    """
    as_compressor(compressor)
    check_gamma(gamma)
    return Sharing(
        Partial(start_wire), Partial(_encode, compressor), Partial(_merge, compressor, gamma), OWN_MODELS, Mass("model")
    )


class ErrorFeedbackState(NamedTuple):
    """The error that each node has not sent yet."""

    error: Params
    """e, leaves ``(n, ...)`` like the models."""
    sharing: Any
    """State of the inner sharing, which must be empty."""


def _init_feedback(sharing: Sharing, x0: Params) -> ErrorFeedbackState:
    inner = sharing.init(x0)
    if jax.tree.leaves(inner) and not isinstance(inner, WireState):
        raise ValueError(
            f"the sharing has a state, {type(inner).__name__}: error feedback needs messages that are the models "
            "themselves, not differences to a memory, such as those of compressed(Q)"
        )
    return ErrorFeedbackState(jax.tree.map(jnp.zeros_like, x0), inner)


def _check_payload(x: Params, payload: Any) -> None:
    """Raise ValueError if messages cannot be read as models."""

    def form(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: f"{leaf.dtype}{list(leaf.shape)}", tree)

    if form(x) != form(payload):
        raise ValueError(
            f"a message of the form {form(payload)} differs from the models {form(x)}, from which error feedback "
            "subtracts it; wrap a sharing whose messages are models, such as compressed(Q)"
        )


@by_rows
def _encode_feedback(
    sharing: Sharing, key: Key[Array, ""], state: ErrorFeedbackState, x_start: Params, x: Params, event: Event
) -> tuple[ErrorFeedbackState, tuple[Params, int | UInt[Array, "..."]]]:
    wanted = jax.tree.map(jnp.add, x, state.error)
    inner, (payload, bits) = encode(sharing, key, state.sharing, x_start, wanted, event)
    _check_payload(x, payload)
    return ErrorFeedbackState(jax.tree.map(jnp.subtract, wanted, payload), inner), (payload, bits)


@by_rows
def _merge_feedback(
    sharing: Sharing, key: Key[Array, ""], state: ErrorFeedbackState, arrived: tuple[Params, Params, Event]
) -> tuple[ErrorFeedbackState, Params]:
    inner, x = sharing.merge(key, state.sharing, arrived)
    return ErrorFeedbackState(state.error, inner), x


@recorded("seide2014onebit")
def error_feedback(sharing: Sharing) -> Sharing:
    """Wrap a sharing so that the error of a message is added to the next model before it is encoded::

        v_i = x_i + e_i                             encoded in place of x_i; e_i = 0 at the start
        e_i ← v_i − p_i                             p_i the message: what receivers read v_i as

    x itself is merged without e. Conserves the same quantities as the sharing. The sum of all messages equals the sum
    of all models except for the last error, ``Σ p = Σ x − e``, so nothing is lost as long as e stays bounded.

    The message must be the model as its receivers read it. Sharings with a memory (CHOCO and similar ones send
    differences) and messages with another structure, shape or dtype than the model raise an error; otherwise the caller
    is responsible.

    Args:
        sharing: a sharing without state whose message has the leaves of the models: :func:`compressed`, or
            :func:`~gossipjax.sharing.full`, which stays unchanged.

    Raises:
        ValueError: during a run, if the sharing has a state, or a message does not have the structure, shapes and
            dtypes of the models.

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

    If W is doubly stochastic, the mean is conserved up to rounding, for any Q. With ω = 1 and γ = 1 it is ``x ← W x``.
    Nodes keep no copies of neighbours, so the graph may change. The published algorithm is :func:`~gossipjax.dpsgd`
    with adapt-then-combine.

    Models agree up to a noise that grows with γ and 1/ω, since Q compresses models, not differences. In
    :func:`~gossipjax.gossip_averaging`, ``x(T) = x(0) + γ (W − I) (Σ_{t<T} x(t) − e(T))``, so their time averages agree
    up to ``O(1/T)``.

    Args:
        compressor: Q, with a quality ω (:mod:`gossipjax.compress`), for the errors to stay bounded.
        gamma: consensus step size γ > 0, small for aggressive compressors. A new value does not recompile the run.

    Raises:
        ValueError: if γ is not positive and finite; if the compressor has no ω for models of this size; during a run,
            if the timeline is not synchronous rounds.

    Reference: Tang, Lian, Qiu, Yuan, Zhang, Zhang, Liu 2019, arXiv 1907.07346, algorithm 1.
    """
    sharing = error_feedback(compressed(compressor, gamma))
    return sharing._replace(init=Partial(_init_squeeze, compressor, sharing.init))
