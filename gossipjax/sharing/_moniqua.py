"""Moniqua: models modulo a number, quantised; receivers know the rest, for they are near."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float, Key, UInt

from gossipjax._base.arguments import real, whole
from gossipjax._base.binding import Frozen
from gossipjax._base.calls import recorded
from gossipjax.compress._compressor import STREAM, ravel_rows, unravel_rows
from gossipjax.mixing._apply import neighbor_sum
from gossipjax.mixing._counting import EVERYONE, no_state
from gossipjax.sharing._choco import check_gamma
from gossipjax.types import Event, Params, Sharing

MAX_BITS = 16


def _vectors(x: Params) -> Float[Array, "n d"]:
    """Lay out the models in a type that holds whole numbers of 16 bits."""
    vectors = ravel_rows(x)
    return vectors if vectors.dtype.itemsize >= 4 else vectors.astype(jnp.float32)


def _steps(bits: Frozen[int]) -> int:
    """Return 1/δ: as many steps of the grid lie between 0 and 1."""
    return 2**bits.value - 1


def _modulus(bits: Frozen[int], theta: Any, like: Float[Array, "..."]) -> Float[Array, ""]:
    """Compute ``B = 2θ/(1 − 2δ)``."""
    return jnp.asarray(theta).astype(like.dtype) * (2.0 / (1.0 - 2.0 / _steps(bits)))


def _encode(
    bits: Frozen[int],
    theta: Any,
    key: Key[Array, ""],
    state: tuple[()],
    x_start: Params,
    x: Params,
    event: Event,
) -> tuple[tuple[()], tuple[UInt[Array, "n d"], int]]:
    del x_start
    vectors = _vectors(x)
    d = vectors.shape[1]
    shared = jax.random.fold_in(jax.random.fold_in(key, STREAM), event.index[0])
    noise = jax.random.uniform(shared, (1, d), vectors.dtype)
    turns = vectors / _modulus(bits, theta, vectors)
    level = (turns - jnp.floor(turns)) * _steps(bits)
    below = jnp.floor(level)
    # A sum level + noise before rounding down would lose the last digits of the noise, and reach 2^b.
    up = noise < level - below
    return state, (below.astype(jnp.uint16) + up.astype(jnp.uint16), bits.value * d)


def decode(
    bits: Frozen[int], theta: Any, codes: Float[Array, "*n d"], near: Float[Array, "*n d"]
) -> Float[Array, "*n d"]:
    """Read codes as the vector nearest to one's own: ``((q B − x) mod B) + x``, mod B between −B/2 and B/2.

    The sender's own proxy ``q B − (x mod B) + x`` is what it reads in its own code.

    Args:
        bits: b of each entry.
        theta: θ.
        codes: numbers of grid points q/δ, whole numbers of 0 … 2^b − 1.
        near: x of the receiver.

    Returns:
        The proxy u, with ``|u − x_j| ≤ δ B`` for the sender's model x_j if ``|x_j − x| < θ``.
    """
    B = _modulus(bits, theta, near)
    away = codes / _steps(bits) * B - near
    return away - B * jnp.round(away / B) + near


class _Told(NamedTuple):
    """A node's model, its proxy, and its code; others see the code only."""

    x: Array
    proxy: Array
    codes: Array


def _pull(bits: Frozen[int], theta: Any, own: _Told, other: _Told) -> Float[Array, " d"]:
    """Compute ``u_j − u_i`` as node i sees it."""
    return decode(bits, theta, other.codes, own.x) - own.proxy


def _merge(
    bits: Frozen[int],
    theta: Any,
    gamma: Any,
    key: Key[Array, ""],
    state: tuple[()],
    arrived: tuple[Params, UInt[Array, "n d"], Event],
) -> tuple[tuple[()], Params]:
    del key
    x, payload, event = arrived
    vectors = _vectors(x)
    codes = payload.astype(vectors.dtype)
    told = _Told(vectors, decode(bits, theta, codes, vectors), codes)
    pulled = neighbor_sum(event.mixing, Partial(_pull, bits, theta), told)
    change = unravel_rows(jnp.asarray(gamma).astype(vectors.dtype) * pulled, x)
    return state, jax.tree.map(jnp.add, x, change)


@recorded("lu2020moniqua")
def moniqua(
    bits: int,
    theta: float | Float[np.ndarray | Array, ""],
    gamma: float | Float[np.ndarray | Array, ""] = 1.0,
) -> Sharing:
    """Build Moniqua: send b bits of every entry, which say where it lies modulo B; receivers take the nearest such::

        B = 2θ/(1 − 2δ),   δ = 1/(2^b − 1)
        q_i = Q_δ((x_i mod B)/B)                    the message: a multiple of δ in [0, 1], up or down at random
        u_i = q_i B − (x_i mod B) + x_i             by node i
        u_j = ((q_j B − x_i) mod B) + x_i           by node i of its neighbour j, mod B between −B/2 and B/2
        x_i ← x_i + γ Σ_j W_ij (u_j − u_i)

    While neighbours differ by less than θ in every entry, all read the same u_j, ``|u_j − x_j| ≤ δ B``, and the mean
    is conserved to rounding where W is doubly stochastic. *Where they differ by more, u_j is wrong by a multiple of B,
    and nothing says so*: models stay apart. Not even the mean tells, for with symmetric weights the two errors of a
    pair cancel, unless the rounding decides between two multiples. Watch :func:`~gossipjax.observe.disagreement`, or
    choose θ with room: a larger θ costs accuracy only. The bound is that of exact arithmetic: entries that are large
    beside θ must still be resolved to far less than δ B by their floating-point type.
    The random numbers of the rounding are the same at all nodes in a round, so that equal models stay equal.

    Nothing is remembered: no memory besides the models, and the graph may change. The published algorithm is
    :func:`~gossipjax.dpsgd` with combine-then-adapt; with adapt-then-combine, the trained models must be within θ.

    Args:
        bits: b of each entry, 2 … 16; nothing else is sent. With 1 bit δ is 1, and no θ would do.
        theta: θ > 0, in the unit of the models: above every ``max_c |x_ic − x_jc|`` of neighbours at all times. An
            argument of the compiled function.
        gamma: consensus step size γ > 0, below 1 for few bits. An argument of the compiled function.

    Raises:
        ValueError: bits out of range, θ or γ that is not positive and finite; when run, a timeline that is not of
            synchronous rounds.

    Reference: Lu and De Sa 2020, arXiv 2002.11787, algorithm 1 and lemma 2 (that the reading is right).
    """
    bits = whole("bits", bits, least=2, most=MAX_BITS, remedy="the bits of one entry")
    real("theta", theta, above=0, remedy="it must exceed the largest difference of neighbours")
    check_gamma(gamma)
    encode, merge = Partial(_encode, Frozen(bits), theta), Partial(_merge, Frozen(bits), theta, gamma)
    return Sharing(Partial(no_state), encode, merge, EVERYONE)
