"""Full sharing: the whole model travels, in the precision in which it is stored."""

from __future__ import annotations

from jax.tree_util import Partial
from jaxtyping import Array, Key

from gossipjax.mixing import mix
from gossipjax.rows import bits_per_row
from gossipjax.sharing.messages import no_state
from gossipjax.types import Event, Params, Sharing


def _encode(
    key: Key[Array, ""], state: tuple[()], x_start: Params, x: Params, event: Event
) -> tuple[tuple[()], tuple[Params, int]]:
    del key, x_start, event
    return state, (x, bits_per_row(x))


def _merge(key: Key[Array, ""], state: tuple[()], arrived: tuple[Params, Params, Event]) -> tuple[tuple[()], Params]:
    del key
    x, _, event = arrived
    return state, mix(event.mixing, x)


def full() -> Sharing:
    """Build full sharing: ``x_i ← Σ_j W_ij x_j``; a message is 32 bits per float32 parameter."""
    return Sharing(Partial(no_state), Partial(_encode), Partial(_merge))
