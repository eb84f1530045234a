"""The Compressor type, and the compression of every row of a network."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float, Key, UInt

from gossipjax._base.arguments import instance
from gossipjax._base.calls import recorded
from gossipjax._base.display import displayed
from gossipjax._base.placement import map_nodes
from gossipjax._base.rows import check_stacked, num_rows
from gossipjax._base.streams import node_keys
from gossipjax.types import Event, Params

Bits: TypeAlias = int | UInt[Array, ""]
"""Size of one message: an int if it never changes."""
Constant: TypeAlias = Callable[[int], Any]
"""A number as a function of the number of coordinates d; the function returns None if no such number exists."""
STREAM = 2**32 - 1
"""Folded into keys to separate the random streams of messages from those of local steps: no node has this number."""


@jax.tree_util.register_dataclass
@displayed
@dataclasses.dataclass(frozen=True)
class Compressor:
    """A compression operator Q. A pytree: its numbers are arguments of the compiled function.

    Attributes:
        apply: ``apply(key, x) -> (Q(x), bits)`` for one vector ``(d,)``; ``Q(x)`` is the vector that the receiver
            decodes, bits the size of the message.
        omega: ``omega(d)``: the quality ω in (0, 1] with ``E ‖Q(x) − x‖² ≤ (1 − ω) ‖x‖²`` for every x; None if no such
            ω exists.
        name: the builder and its settings.
        variance: ``variance(d)``: v with ``E ‖Q(x) − x‖² ≤ v ‖x‖²``, given ``E Q(x) = x``; None: Q is biased.

    Reference: Koloskova, Stich, Jaggi 2019, arXiv 1902.00340, assumption 1 (ω).
    """

    apply: Callable[[Key[Array, ""], Float[Array, " d"]], tuple[Float[Array, " d"], Bits]]
    omega: Constant
    name: str = dataclasses.field(metadata={"static": True})
    variance: Constant | None = None

    def _facts(self) -> tuple[str, dict[str, Any]]:
        return self.name, {"unbiased": self.unbiased, "biased": not self.unbiased}

    @property
    def unbiased(self) -> bool:
        """Whether ``E Q(x) = x`` for every x."""
        return self.variance is not None


def as_compressor(compressor: Compressor) -> Compressor:
    """Check that the argument is a compressor, and return it.

    Raises:
        TypeError: if it is not.
    """
    return instance("compressor", compressor, Compressor, "build one with gossipjax.compress, such as top_k(share=0.1)")


def value_bits(x: Float[Array, " d"]) -> int:
    """Return the width of one stored value, in bits."""
    return 8 * x.dtype.itemsize


def quality_of_unbiased(variance: Constant, d: int) -> Any:
    """Return ``ω = 1 − v`` for an unbiased Q of variance v; None if v ≥ 1."""
    v = variance(d)
    return 1.0 - v if v < 1.0 else None


def _shrink(compressor: Compressor, key: Key[Array, ""], x: Float[Array, " d"]) -> tuple[Float[Array, " d"], Bits]:
    assert compressor.variance is not None
    value, bits = compressor.apply(key, x)
    return value / (1.0 + compressor.variance(x.shape[0])), bits


def _shrunk_quality(variance: Constant, d: int) -> float:
    return 1.0 / (1.0 + variance(d))


@recorded("koloskova2019choco")
def contractive(compressor: Compressor) -> Compressor:
    """Rescale an unbiased compressor to ``Q(x)/(1 + v)``, which has the quality ``ω = 1/(1 + v)`` for every v.

    The receiver divides, so that messages do not change. Unbiased random-k becomes random-k without scaling.

    Args:
        compressor: unbiased, with ``E ‖Q(x) − x‖² ≤ v ‖x‖²``.

    Raises:
        ValueError: if the compressor is biased.

    Reference: Koloskova, Stich, Jaggi 2019, arXiv 1902.00340, section 3.5.
    """
    if as_compressor(compressor).variance is None:
        raise ValueError(f"{compressor.name} is biased: only unbiased compressors can be rescaled; use it unchanged")
    omega = Partial(_shrunk_quality, compressor.variance)
    return Compressor(Partial(_shrink, compressor), omega, f"contractive({compressor.name})")


def compress_rows(
    key: Key[Array, ""], compressor: Compressor, x: Params, event: Event
) -> tuple[Params, int | UInt[Array, " n"]]:
    """Compress every row of a stacked pytree as one flat vector; each row has a separate random stream.

    Args:
        key: of the protocol; the same at every event.
        compressor: Q.
        x: leaves ``(n, ...)``, one row per node.
        event: one in which every node acts; its number is folded into the streams.

    Returns:
        Q of every row, in the dtypes of the leaves, and the bits of one message: an int, or one number per node.
    """
    as_compressor(compressor)
    instance("event", event, Event, "pass the event that encode receives")
    check_stacked("x", x)
    return compress_each(node_keys(jax.random.fold_in(key, STREAM), event, num_rows(x)), compressor, x)


def compress_each(keys: Key[Array, " n"], compressor: Compressor, x: Params) -> tuple[Params, int | UInt[Array, " n"]]:
    """Compress every row of a stacked pytree as one flat vector, each with a key of its own."""
    vectors = ravel_rows(x)
    values, bits = map_nodes(Partial(_one, compressor), keys, vectors)
    if bits is None:
        bits = _constant_bits(compressor, keys, vectors)
    return unravel_rows(values, x), bits


def _one(compressor: Compressor, key: Key[Array, ""], x: Float[Array, " d"]) -> tuple[Array, Array | None]:
    value, bits = compressor.apply(key, x)
    return value, None if isinstance(bits, int) else bits


def _constant_bits(compressor: Compressor, keys: Key[Array, " n"], vectors: Float[Array, "n d"]) -> int:
    """Get the Python int of bits out of a trace, since vmap would turn it into an array."""
    bits: list[Any] = []
    jax.eval_shape(lambda key, x: bits.append(compressor.apply(key, x)[1]), keys[0], vectors[0])
    return bits[0]


def common_type(x: Params) -> jnp.dtype:
    """Return the dtype to which the leaves promote."""
    with jax.numpy_dtype_promotion("standard"):
        return jnp.result_type(*jax.tree.leaves(x))


def ravel_rows(x: Params) -> Float[Array, "n d"]:
    """Flatten and concatenate the leaves of every row."""
    rows, kind = num_rows(x), common_type(x)
    return jnp.concatenate([leaf.reshape(rows, -1).astype(kind) for leaf in jax.tree.leaves(x)], axis=1)


def unravel_rows(vectors: Float[Array, "n d"], like: Params) -> Params:
    """Split flat rows into leaves with the shapes and dtypes of ``like``."""
    leaves, structure = jax.tree.flatten(like)
    parts, start = [], 0
    for leaf in leaves:
        size = leaf.size // leaf.shape[0]
        parts.append(vectors[:, start : start + size].reshape(leaf.shape).astype(leaf.dtype))
        start += size
    return jax.tree.unflatten(structure, parts)
