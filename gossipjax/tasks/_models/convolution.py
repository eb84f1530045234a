"""Two forms of one convolution, for nodes whose kernels differ: loops of native convolutions, and batched matmuls.

Under ``vmap`` over nodes XLA turns a convolution whose kernel is batched into one grouped convolution, a group for each
node, for which it has no fast kernels. :func:`correlate` chooses a form without groups by the backend:

* :func:`by_loops`, on a CPU: the native convolution of one node at a time, with gradients that are again such
  convolutions.
* :func:`by_patches`, on accelerators: every patch that the kernel sees becomes a row of a matrix (im2col), and the
  convolution is a product with the kernel as a matrix, batched over nodes.

FLOPs and bytes of one node in float32, for m = batch · out_height · out_width positions, a kernel of q = kh · kw
pixels, c input and o output channels:

===============  ====================  ================================================
pass             FLOPs                 bytes of :func:`by_patches`
===============  ====================  ================================================
value            2 m q c o             4 (2 m q c + m o): write and read patches, y
kernel gradient  2 m q c o             4 (2 m q c + m o): patches are made anew, not kept
input gradient   2 m q c o             4 (2 m q c + m o): write and read rows, read dy
===============  ====================  ================================================

Beside these, x (m c at stride 1) and the kernel (q c o) count little. So a product does about o/4 FLOPs a byte: 16 with
64 output channels, 128 with 512. A kernel of 1 by 1 at stride 1 is its own patch. :func:`by_loops` at a stride of s
takes as many FLOPs as a kernel whose sides are rounded up to multiples of s: 16/9 for 3 by 3 and s = 2.

Measured in GFLOP/s on one of 2 cores (AMD Zen 5, AVX-512, matmul peak 220 GFLOP/s on one core and 430 on two, JAX
0.10.2, 2026), batch 8, inside ``lax.map`` over nodes. "loops" is :func:`by_loops`; "patches" is 25 slices and one
matmul; "rows" is 5 slices along the width and 5 matmuls.

==================  ====  =======  ====
5x5 convolution    loops  patches  rows
==================  ====  =======  ====
32x32, 4 to 32       152       54   107
its kernel gradient  156       49    93
16x16, 32 to 32      215      117   149
its input gradient   208        -     -
its kernel gradient  210       57    66
8x8, 32 to 64        181      147   161
its input gradient   182        -     -
its kernel gradient  207       90    98
==================  ====  =======  ====
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

Padding = tuple[tuple[int, int], tuple[int, int]]
"""Rows of zeros above and below, columns of zeros on the left and on the right; negative: cut off."""

_LAYOUT = ("NHWC", "HWIO", "NHWC")
_NARROW = 4
"""With fewer input channels, XLA's CPU convolution leaves vector lanes empty: 3 channels padded to 4 run twice as
fast."""


def correlate(
    x: Float[Array, "batch height width inputs"],
    kernel: Float[Array, "kh kw inputs outputs"],
    pads: Padding,
    stride: int,
) -> Float[Array, "batch out_height out_width outputs"]:
    """Cross-correlate in the form that suits the backend; the arguments are those of ``layers.conv2d``, checked."""
    form = by_loops if jax.default_backend() == "cpu" else by_patches
    return form(x, kernel, pads, stride)


def by_patches(
    x: Float[Array, "batch height width inputs"],
    kernel: Float[Array, "kh kw inputs outputs"],
    pads: Padding,
    stride: int,
) -> Float[Array, "batch out_height out_width outputs"]:
    """Cross-correlate by one product of patches and kernel; see the head of this module.

    Patches are q times as large as the images. So the gradient makes them anew instead of keeping them.
    """
    return jax.checkpoint(partial(_patch_product, pads=pads, stride=stride))(x, kernel)


def _patch_product(x: Array, kernel: Array, pads: Padding, stride: int) -> Array:
    kh, kw, inputs, outputs = kernel.shape
    rows, columns = (_positions(n, pad, k, stride) for n, pad, k in zip(x.shape[1:3], pads, (kh, kw), strict=True))
    x = _pad(x, pads)
    # Slices and not lax.conv_general_dilated_patches, which is a grouped convolution itself.
    slices = [
        x[:, u : u + (rows - 1) * stride + 1 : stride, v : v + (columns - 1) * stride + 1 : stride]
        for u in range(kh)
        for v in range(kw)
    ]
    patches = jnp.concatenate(slices, axis=-1).reshape(-1, kh * kw * inputs)
    return (patches @ kernel.reshape(-1, outputs)).reshape(-1, rows, columns, outputs)


def by_loops(
    x: Float[Array, "batch height width inputs"],
    kernel: Float[Array, "kh kw inputs outputs"],
    pads: Padding,
    stride: int,
) -> Float[Array, "batch out_height out_width outputs"]:
    """Cross-correlate by native convolutions at stride 1, one node after another; see the head of this module."""
    if stride > 1:
        x, kernel, pads = _at_stride_one(x, kernel, pads, stride)
    return _correlate(*_widen(x, kernel), pads)


def _at_stride_one(x: Array, kernel: Array, pads: Padding, stride: int) -> tuple[Array, Array, Padding]:
    """Turn a stride into channels: tiles of s by s pixels become pixels with s² times the channels.

    With u = s a + b, ``Σ_u x[s i + u] k[u] = Σ_a Σ_b x[s (i + a) + b] k[s a + b]``: stride 1 over tiles i + a, and the
    place b within a tile is a channel.
    """
    none = ((0, 0), (0, 0))
    sides = kernel.shape[:2]
    if sides == (1, 1):
        return _pad(x, pads)[:, ::stride, ::stride], kernel, none
    tiles = [-(-k // stride) for k in sides]
    counts = [
        _positions(n, pad, k, stride) - 1 + t for n, pad, k, t in zip(x.shape[1:3], pads, sides, tiles, strict=True)
    ]
    # Exactly the rows that the tiles cover: the last few may be cut off, or missing.
    (top, _), (left, _) = pads
    rows, columns = (count * stride - n for count, n in zip(counts, x.shape[1:3], strict=True))
    x = _pad(x, ((top, rows - top), (left, columns - left)))
    x = x.reshape(-1, counts[0], stride, counts[1], stride, x.shape[-1]).transpose(0, 1, 3, 2, 4, 5)
    kernel = jnp.pad(kernel, [(0, t * stride - k) for t, k in zip(tiles, sides, strict=True)] + [(0, 0), (0, 0)])
    kernel = kernel.reshape(tiles[0], stride, tiles[1], stride, *kernel.shape[2:]).transpose(0, 2, 1, 3, 4, 5)
    return x.reshape(*x.shape[:3], -1), kernel.reshape(*tiles, -1, kernel.shape[-1]), none


def _positions(size: int, pad: tuple[int, int], side: int, stride: int) -> int:
    return (size + sum(pad) - side) // stride + 1


def _pad(x: Array, pads: Padding) -> Array:
    """Add zeros, or cut off where a number is negative."""
    edges = [(0, 0, 0), *((low, high, 0) for low, high in pads), (0, 0, 0)]
    return lax.pad(x, jnp.zeros((), x.dtype), edges)


def _widen(x: Array, kernel: Array) -> tuple[Array, Array]:
    """Pad 2 or 3 input channels with zeros to ``_NARROW``; XLA has a fast path for a single channel."""
    missing = _NARROW - x.shape[-1]
    if missing <= 0 or x.shape[-1] == 1:
        return x, kernel
    return jnp.pad(x, ((0, 0),) * 3 + ((0, missing),)), jnp.pad(kernel, ((0, 0),) * 2 + ((0, missing), (0, 0)))


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _correlate(x: Array, kernel: Array, pads: Padding) -> Array:
    """Correlate with stride 1; both gradients are again stride-1 correlations of this kind, to any order."""
    return _forward(pads)(x, kernel)


def _correlate_fwd(x: Array, kernel: Array, pads: Padding) -> tuple[Array, tuple[Array, Array]]:
    return _correlate(x, kernel, pads), (x, kernel)


def _correlate_bwd(pads: Padding, saved: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    x, kernel = saved
    (top, bottom), (left, right) = pads
    kh, kw = kernel.shape[:2]
    flipped = jnp.flip(kernel, (0, 1)).transpose(0, 1, 3, 2)
    dx = _correlate(dy, flipped, ((kh - 1 - top, kh - 1 - bottom), (kw - 1 - left, kw - 1 - right)))
    # The gradient sums over the batch, so the batch takes the place of the channels, and vice versa.
    dkernel = _correlate(x.transpose(3, 1, 2, 0), dy.transpose(1, 2, 0, 3), pads)
    return dx, dkernel.transpose(1, 2, 0, 3)


_correlate.defvjp(_correlate_fwd, _correlate_bwd)


def _forward(pads: Padding) -> Callable[[Array, Array], Array]:
    """Return the native convolution with a vmap rule that loops over kernels (grouped: 30 times slower)."""

    @jax.custom_batching.custom_vmap
    def forward(x: Array, kernel: Array) -> Array:
        return lax.conv_general_dilated(x, kernel, (1, 1), pads, dimension_numbers=_LAYOUT)

    @forward.def_vmap
    def over_nodes(size: int, batched: list[bool], x: Array, kernel: Array) -> tuple[Array, bool]:
        if batched[1]:
            x = x if batched[0] else jnp.broadcast_to(x[None], (size, *x.shape))
            return lax.map(lambda pair: forward(*pair), (x, kernel)), True
        y = forward(x.reshape(-1, *x.shape[2:]), kernel)
        return y.reshape(size, -1, *y.shape[1:]), True

    return forward
