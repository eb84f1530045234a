"""Random subset: each node sends coordinates that it drew, and the seed from which the receiver draws them again."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Key, UInt

from gossipjax._base.arguments import real
from gossipjax._base.binding import Frozen
from gossipjax._base.calls import recorded
from gossipjax._base.placement import map_nodes
from gossipjax._base.rows import num_rows
from gossipjax._base.streams import node_keys
from gossipjax.compress._compressor import STREAM, ravel_rows, unravel_rows
from gossipjax.compress.codes import Wire, as_wire, message_bits, seed
from gossipjax.mixing._counting import EVERYONE, no_state
from gossipjax.sharing._masked import Masked, fill_in
from gossipjax.types import Event, Params, Sharing


def _choose(
    wire: Frozen[Wire], share: Array, key: Key[Array, ""], x: Float[Array, " d"]
) -> tuple[Bool[Array, " d"], UInt[Array, ""]]:
    mask = jax.random.bernoulli(key, share, x.shape)
    return mask, message_bits(wire.value, mask, 8 * x.dtype.itemsize)


def _encode(wire: Frozen[Wire], share: Any, key: Key[Array, ""], state: tuple[()], x_start, x, event: Event):
    del x_start
    vectors = ravel_rows(x)
    keys = node_keys(jax.random.fold_in(key, STREAM), event, num_rows(x))
    mask, bits = map_nodes(Partial(_choose, wire, jnp.asarray(share, jnp.float32)), keys, vectors)
    return state, (Masked(vectors, mask), bits)


def _merge(key: Key[Array, ""], state: tuple[()], arrived: tuple[Params, Masked, Event]) -> tuple[tuple[()], Params]:
    del key
    x, sent, event = arrived
    return state, unravel_rows(fill_in(event.mixing, sent), x)


@recorded("dhasade2023jwins")
def random_subset(share: float, *, wire: Wire | None = None) -> Sharing:
    """Build random sampling: each node sends each coordinate with probability α, anew in every round.

    ``x_i ← x_i + Σ_j W_ij M_j (x_j − x_i)`` with masks M_j of independent coins. Equal models are a fixed point; the
    mean is conserved in expectation only, where W is doubly stochastic. A message holds the values, a seed of 64 bits,
    and the envelope: the receiver draws the positions again.

    Args:
        share: α in (0, 1]; an argument of the compiled function.
        wire: how messages are coded; None: float32 values and the seed.

    Raises:
        ValueError: a share out of range; when run, a timeline on which not all nodes act at every event.

    Reference: the baseline of Dhasade et al. 2023, arXiv 2306.04377 (JWINS).
    """
    real("share", share, above=0, most=1, remedy="1 sends every coordinate")
    chosen = Frozen(Wire(indices=seed) if wire is None else as_wire(wire))
    return Sharing(Partial(no_state), Partial(_encode, chosen, share), Partial(_merge), EVERYONE)
