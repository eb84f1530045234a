"""Moniqua: quantised models modulo a number, which receivers with similar models can decode."""

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
from gossipjax._base.placement import by_rows
from gossipjax.compress._compressor import STREAM, ravel_rows, unravel_rows
from gossipjax.mixing._apply import neighbor_sum
from gossipjax.mixing._counting import EVERYONE, no_state
from gossipjax.sharing._choco import check_gamma
from gossipjax.types import Event, Params, Sharing

MAX_BITS = 16


def _vectors(x: Params) -> Float[Array, "n d"]:
    """Return flat models in a dtype that holds 16-bit integers exactly."""
    vectors = ravel_rows(x)
    return vectors if vectors.dtype.itemsize >= 4 else vectors.astype(jnp.float32)


def _steps(bits: Frozen[int]) -> int:
    """Return 1/δ, the number of grid steps between 0 and 1."""
    return 2**bits.value - 1


def _modulus(bits: Frozen[int], theta: Any, like: Float[Array, "..."]) -> Float[Array, ""]:
    """Compute ``B = 2θ/(1 − 2δ)``."""
    return jnp.asarray(theta).astype(like.dtype) * (2.0 / (1.0 - 2.0 / _steps(bits)))


@by_rows
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
    """Decode to the vector nearest to the receiver's own: ``((q B − x) mod B) + x``, mod B between −B/2 and B/2.

    A sender's own proxy is ``q B − (x mod B) + x``, the result of decoding its own code.

    Args:
        bits: b of each entry.
        theta: θ.
        codes: numbers q/δ of grid points, integers 0 … 2^b − 1.
        near: x of the receiver.

    Returns:
        The proxy u, with ``|u − x_j| ≤ δ B`` for the sender's model x_j if ``|x_j − x| < θ``.
    """
    B = _modulus(bits, theta, near)
    away = codes / _steps(bits) * B - near
    return away - B * jnp.round(away / B) + near


class _Told(NamedTuple):
    """A node's model, proxy and code; only the code is sent."""

    x: Array
    proxy: Array
    codes: Array


def _pull(bits: Frozen[int], theta: Any, own: _Told, other: _Told) -> Float[Array, " d"]:
    """Compute ``u_j − u_i`` at node i."""
    return decode(bits, theta, other.codes, own.x) - own.proxy


@by_rows
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
    """Build Moniqua: send b bits per entry, its position modulo B; receivers decode to the nearest such value::

        B = 2θ/(1 − 2δ),   δ = 1/(2^b − 1)
        q_i = Q_δ((x_i mod B)/B)                    the message: a multiple of δ in [0, 1], up or down at random
        u_i = q_i B − (x_i mod B) + x_i             by node i
        u_j = ((q_j B − x_i) mod B) + x_i           by node i of its neighbour j, mod B between −B/2 and B/2
        x_i ← x_i + γ Σ_j W_ij (u_j − u_i)

    While neighbours differ by less than θ in every entry, all read the same u_j, ``|u_j − x_j| ≤ δ B``, and the mean is
    conserved up to rounding if W is doubly stochastic. *If they differ by more, u_j is wrong by a multiple of B, which
    nothing reports*, and models stay apart. The mean does not show it either: with symmetric weights the two errors of
    a pair cancel, unless rounding decides between two multiples. Observe :func:`~gossipjax.observe.disagreement`, or
    choose a larger θ, which only costs accuracy. The bound holds in exact arithmetic: if entries are much larger than
    θ, their floating-point type must still resolve far less than δ B. All nodes round with the same random numbers in a
    round, so equal models stay equal up to rounding. There is no memory besides the models, so the graph may change.
    The published algorithm is :func:`~gossipjax.dpsgd` with combine-then-adapt; with adapt-then-combine, the trained
    models must be within θ.

    Args:
        bits: b per entry, 2 … 16; nothing else is sent. With 1 bit δ would be 1, which no θ allows.
        theta: θ > 0, in the unit of the models; must always exceed ``max_c |x_ic − x_jc|`` of neighbours. A new value
            does not recompile the run.
        gamma: consensus step size γ > 0, below 1 for few bits. A new value does not recompile the run.

    Raises:
        ValueError: if bits is out of range, or θ or γ is not positive and finite; during a run, if the timeline is not
            synchronous rounds.

    Reference: Lu and De Sa 2020, arXiv 2002.11787, algorithm 1 and lemma 2 (that the reading is right).
    """
    bits = whole("bits", bits, least=2, most=MAX_BITS, remedy="the bits of one entry")
    real("theta", theta, above=0, remedy="it must exceed the largest difference of neighbours")
    check_gamma(gamma)
    encode, merge = Partial(_encode, Frozen(bits), theta), Partial(_merge, Frozen(bits), theta, gamma)
    return Sharing(Partial(no_state), encode, merge, EVERYONE)
