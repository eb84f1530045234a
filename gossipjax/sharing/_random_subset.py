"""Random subset: each node sends randomly drawn coordinates, and the seed with which receivers draw them again."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Key, UInt

from gossipjax._base.arguments import real
from gossipjax._base.binding import Frozen
from gossipjax._base.calls import recorded
from gossipjax._base.placement import by_rows, map_nodes
from gossipjax._base.rows import num_rows
from gossipjax.compress._compressor import ravel_rows
from gossipjax.compress.codes import Wire, as_wire, message_bits, seed
from gossipjax.mixing._counting import speakers
from gossipjax.sharing._masked import OWN_MODELS, merge_masked
from gossipjax.sharing._wire import (
    Message,
    WireState,
    count_speech,
    if_any_speaks,
    message_keys,
    rows_that_speak,
    start_masks,
)
from gossipjax.types import Event, Mass, Sharing


def _choose(
    wire: Frozen[Wire], share: Array, key: Key[Array, ""], x: Float[Array, " d"]
) -> tuple[Bool[Array, " d"], UInt[Array, ""]]:
    mask = jax.random.bernoulli(key, share, x.shape)
    return mask, message_bits(wire.value, mask, 8 * x.dtype.itemsize)


@by_rows
def _encode(wire: Frozen[Wire], share: Any, key: Key[Array, ""], state: WireState, x_start, x, event: Event):
    del x_start
    rows = speakers(event, num_rows(x))
    values = rows_that_speak(event, x, rows)

    def choose() -> tuple[Array, Array]:
        keys = message_keys(key, state.counts, event, rows)
        return map_nodes(Partial(_choose, wire, jnp.asarray(share, jnp.float32)), keys, ravel_rows(values))

    mask, bits = if_any_speaks(rows, num_rows(x), choose)
    return state._replace(counts=count_speech(state.counts, rows)), (Message(values, mask), bits)


@recorded("dhasade2023jwins")
def random_subset(share: float, *, wire: Wire | None = None) -> Sharing:
    """Build random sampling: each message holds each coordinate with probability α.

    ``x_i ← x_i + Σ_j W_ij M_j (x_j − x_i)`` where the entries of the mask M_j are 1 with probability α, independently,
    and all receivers of j in one event get the same mask. Equal models are a fixed point; if W is doubly stochastic,
    the mean is conserved in expectation. A message holds the values, a seed of 64 bits with which the receiver draws
    the positions again, and the envelope.

    Args:
        share: α in (0, 1]. A new value does not recompile the run.
        wire: encoding of messages; None: float32 values and the seed.

    Raises:
        ValueError: if share is out of range; during a run, if nodes train rows other than their own.

    Reference: the baseline of Dhasade et al. 2023, arXiv 2306.04377 (JWINS).
    """
    real("share", share, above=0, most=1, remedy="1 sends every coordinate")
    chosen = Frozen(Wire(indices=seed) if wire is None else as_wire(wire))
    return Sharing(
        Partial(start_masks), Partial(_encode, chosen, share), Partial(merge_masked), OWN_MODELS, Mass("coordinates")
    )
