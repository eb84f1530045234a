"""Neural network layers, in forms that are fast if each node has its own weights.

Pure functions of one node: ``x`` is ``(batch, height, width, channels)`` or ``(batch, features)``. On a CPU, XLA uses
naive kernels for the gradients of a convolution inside a loop (30 times slower), does not vectorise grouped statistics
over the innermost axis, and is slow at the scatter in the gradient of a max-pool. The layers here avoid all three. The
convolution has one form for CPUs and one for accelerators, see ``convolution.py``. Every gradient is differentiable
again (reverse mode).
"""

from __future__ import annotations

from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from gossipjax._base.arguments import instance, optional_whole, real, shown, whole
from gossipjax.tasks._models.convolution import Padding, correlate

_IMAGES = "(batch, height, width, channels)"
_MOST = 2**15
"""Maximum side of an image, in pixels."""


def dense(
    x: Float[Array, "batch inputs"],
    kernel: Float[Array, "outputs inputs"],
    bias: Float[Array, " outputs"] | None = None,
) -> Float[Array, "batch outputs"]:
    """Apply an affine map: y = x Wᵀ + b.

    W is stored with the inputs as the inner axis, which is the longer one in a layer that narrows: the gradient of W, a
    sum of a few outer products, then writes whole vectors. For 784 × 12 and batch 8 a step takes 10 instead of 17 µs
    (one core, as above).

    Args:
        x: inputs, ``(batch, inputs)``.
        kernel: W, ``(outputs, inputs)``.
        bias: b, ``(outputs,)``; None adds nothing.

    Returns:
        y, ``(batch, outputs)``.
    """
    _check_rank("x", x, "(batch, inputs)")
    _check_rank("kernel", kernel, "(outputs, inputs)")
    if x.shape[1] != kernel.shape[1]:
        raise ValueError(f"x has {x.shape[1]} inputs, but kernel is for {kernel.shape[1]}: give the same number")
    _check_length("bias", bias, kernel.shape[0])
    y = x @ kernel.T
    return y if bias is None else y + bias[None]


def conv2d(
    x: Float[Array, "batch height width inputs"],
    kernel: Float[Array, "kh kw kernel_inputs outputs"],
    bias: Float[Array, " outputs"] | None = None,
    padding: int | None = None,
    stride: int = 1,
) -> Float[Array, "batch out_height out_width outputs"]:
    """Cross-correlate images with a kernel.

    y[b, i, j, o] = bias[o] + Σ_{u, v, c} x[b, s i + u − p, s j + v − p, c] kernel[u, v, c, o], with zeros outside x.

    Args:
        x: images, channels last.
        kernel: ``(kh, kw, inputs, outputs)``.
        bias: ``(outputs,)``; None adds nothing.
        padding: number p of rows and columns of zeros on every side; 0 is "valid". None keeps the size of the images at
            stride 1 ("same", p = (k − 1)/2).
        stride: step s between the positions of the kernel, in pixels.

    Returns:
        Images of ``(height + 2p − kh)//s + 1`` by ``(width + 2p − kw)//s + 1``.

    Raises:
        ValueError: if the numbers of channels differ, the padding is negative, the stride is below 1, a side of the
            kernel is even and the padding is None, or an image is smaller than the kernel.
    """
    _check_rank("x", x, _IMAGES)
    _check_rank("kernel", kernel, "(height, width, inputs, outputs)")
    _check_length("bias", bias, kernel.shape[3])
    pads = _padding(x.shape, kernel.shape, padding)
    y = correlate(x, kernel, pads, whole("stride", stride, least=1, most=_MOST))
    return y if bias is None else y + bias[None, None, None]


def group_norm(
    x: Float[Array, "batch height width channels"],
    scale: Float[Array, " channels"],
    bias: Float[Array, " channels"],
    groups: int,
    epsilon: float = 1e-5,
) -> Float[Array, "batch height width channels"]:
    """Normalise each image over each group of channels.

    y = scale (x − μ)/√(σ² + ε) + bias, where μ and σ² are the mean and variance over height, width and the channels of
    a group, for one image. They are computed as means over height and width of each channel (column reductions, which
    vectorise), then as means over the few channels of a group.

    Args:
        x: images, channels last.
        scale: ``(channels,)``.
        bias: ``(channels,)``.
        groups: number of groups of adjacent channels; divides the number of channels.
        epsilon: ε > 0.

    Returns:
        y, the shape of x.

    Raises:
        ValueError: if the number of groups does not divide the number of channels.

    Reference:
        Wu and He, "Group Normalization", ECCV 2018, eq. 7.
    """
    _check_rank("x", x, _IMAGES)
    channels, groups = x.shape[-1], whole("groups", groups, least=1)
    epsilon = real("epsilon", epsilon, above=0)
    _check_length("scale", instance("scale", scale, (jax.Array, np.ndarray), "(channels,)"), channels)
    _check_length("bias", instance("bias", bias, (jax.Array, np.ndarray), "(channels,)"), channels)
    if channels % groups:
        raise ValueError(f"groups={groups} does not divide the {channels} channels: give a divisor of {channels}")

    def over_group(per_channel: Array) -> Array:
        means = jnp.mean(per_channel.reshape(-1, groups, channels // groups), axis=2)
        return jnp.repeat(means, channels // groups, axis=1)

    mean = over_group(jnp.mean(x, axis=(1, 2)))
    variance = over_group(jnp.mean(jnp.square(x - mean[:, None, None]), axis=(1, 2)))
    slope = scale[None] * lax.rsqrt(variance + epsilon)
    return x * slope[:, None, None] + (bias[None] - mean * slope)[:, None, None]


def max_pool(
    x: Float[Array, "batch height width channels"], window: int = 2, stride: int | None = None
) -> Float[Array, "batch out_height out_width channels"]:
    """Take the maximum over square windows, without padding.

    If several entries of a window attain the maximum, they share the gradient equally (PyTorch and
    ``lax.reduce_window`` give all of it to the first). After a ReLU the usual tie is at zero, where neither rule passes
    a gradient.

    Args:
        x: images, channels last.
        window: side of a window.
        stride: step between windows; None: the side of the window.

    Returns:
        Images of ``(height − window)//stride + 1`` by ``(width − window)//stride + 1``.

    Raises:
        ValueError: if the window or the stride is below 1, or an image is smaller than the window.
    """
    _check_rank("x", x, _IMAGES)
    window = whole("window", window, least=1, most=_MOST)
    stride = whole("stride", window if stride is None else stride, least=1, most=_MOST)
    if min(x.shape[1:3]) < window:
        raise ValueError(
            f"images of {x.shape[1]} by {x.shape[2]} are smaller than the window {window}: pool less often"
        )
    return _pool(x, window, stride)


def _check_rank(name: str, value: Any, axes: str) -> None:
    """Check that a value is an array with the named axes."""
    if getattr(value, "ndim", None) != axes.count(",") + 1:
        actual = f" of shape {value.shape}" if hasattr(value, "shape") else f"={shown(value)}"
        raise ValueError(f"{name}{actual}: must be an array {axes}")


def _check_length(name: str, value: Any, length: int) -> None:
    if value is not None and getattr(value, "shape", None) != (length,):
        actual = f" of shape {value.shape}" if hasattr(value, "shape") else f"={shown(value)}"
        raise ValueError(f"{name}{actual}: must be an array ({length},), one number for each output")


def _padding(x_shape: tuple[int, ...], kernel_shape: tuple[int, ...], padding: int | None) -> Padding:
    sides = kernel_shape[:2]
    if x_shape[-1] != kernel_shape[2]:
        raise ValueError(
            f"images have {x_shape[-1]} channels, but kernel is for {kernel_shape[2]}: give the same number"
        )
    if padding is None and any(side % 2 == 0 for side in sides):
        raise ValueError(f"a kernel of {sides} has no middle, so padding=None cannot keep the size: give a number")
    padding = optional_whole("padding", padding, least=0, most=_MOST)
    rows, columns = [(side - 1) // 2 if padding is None else padding for side in sides]
    if x_shape[1] + 2 * rows < sides[0] or x_shape[2] + 2 * columns < sides[1]:
        raise ValueError(f"images of {x_shape[1:3]} with padding {(rows, columns)} are smaller than the kernel {sides}")
    return (rows, rows), (columns, columns)


@partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _pool(x: Array, window: int, stride: int) -> Array:
    # Cut images into stride-by-stride tiles; a window starts at the corner of a tile and extends into the next ones.
    # Strided slices of the images take twice the time.
    for axis in (1, 2):
        tiles, outputs = _tiles(x, axis, window, stride, fill=-jnp.inf)
        near = [lax.slice_in_dim(tiles, offset, offset + outputs, axis=axis) for offset in _reach(window, stride)]
        parts = [
            lax.slice_in_dim(n, 0, used, axis=axis + 1) for n, used in zip(near, _used(window, stride), strict=True)
        ]
        x = reduce(jnp.maximum, [jnp.max(part, axis=axis + 1) for part in parts])
    return x


def _reach(window: int, stride: int) -> range:
    """Return the offsets, in tiles, of the tiles that a window overlaps."""
    return range(-(-window // stride))


def _used(window: int, stride: int) -> list[int]:
    """Return how many rows of each of these tiles the window covers."""
    return [min(stride, window - offset * stride) for offset in _reach(window, stride)]


def _tiles(x: Array, axis: int, window: int, stride: int, fill: float) -> tuple[Array, int]:
    """Cut an axis into the tiles that windows overlap; return the tiles and the number of windows."""
    size = x.shape[axis]
    outputs = (size - window) // stride + 1
    tiles = outputs - 1 + len(_reach(window, stride))
    edges = [(0, tiles * stride - size if at == axis else 0, 0) for at in range(x.ndim)]
    x = lax.pad(x, jnp.asarray(fill, x.dtype), edges)
    return x.reshape(*x.shape[:axis], tiles, stride, *x.shape[axis + 1 :]), outputs


def _pool_fwd(x: Array, window: int, stride: int) -> tuple[Array, tuple[Array, Array]]:
    y = _pool(x, window, stride)
    return y, (x, y)


def _pool_bwd(window: int, stride: int, saved: tuple[Array, Array], dy: Array) -> tuple[Array]:
    x, y = saved
    tiles, _ = _tiles(x, 1, window, stride, fill=-jnp.inf)
    tiles, _ = _tiles(tiles, 3, window, stride, fill=-jnp.inf)
    rows, columns = tiles.shape[1], tiles.shape[3]

    def onto_tiles(a: Array, at: tuple[int, int], fill: float) -> Array:
        """Assign to every tile the value of the window that starts ``at`` tiles before it."""
        edges = [(i, size - a.shape[axis] - i) for axis, size, i in ((1, rows, at[0]), (2, columns, at[1]))]
        return jnp.pad(a, ((0, 0), *edges, (0, 0)), constant_values=fill)[:, :, None, :, None]

    reach = _reach(window, stride)
    offsets = [(i, j) for i in reach for j in reach]
    # NaN marks tiles where no window starts: it equals nothing.
    hits = [_covered(window, stride, at) & (tiles == onto_tiles(y, at, jnp.nan)) for at in offsets]
    counts = [
        jnp.sum(hit[:, i : i + y.shape[1], :, j : j + y.shape[2]], axis=(2, 4), dtype=dy.dtype)
        for hit, (i, j) in zip(hits, offsets, strict=True)
    ]
    # The barrier keeps XLA from recounting the ties for every pixel.
    share = lax.optimization_barrier(dy / reduce(jnp.add, counts))
    parts = [jnp.where(hit, onto_tiles(share, at, 0.0), 0) for hit, at in zip(hits, offsets, strict=True)]
    dx = reduce(jnp.add, parts)
    dx = dx.reshape(x.shape[0], rows * stride, columns * stride, x.shape[3])
    edges = [
        (0, 0, 0),
        *((0, size - have, 0) for size, have in zip(x.shape[1:3], dx.shape[1:3], strict=True)),
        (0, 0, 0),
    ]
    return (lax.pad(dx, jnp.zeros((), dx.dtype), edges),)


def _covered(window: int, stride: int, at: tuple[int, int]) -> Array | bool:
    """Mark the pixels of a tile that a window starting ``at`` tiles before it covers: ``(1, 1, s, 1, s, 1)``."""
    used = _used(window, stride)
    if used[at[0]] == used[at[1]] == stride:
        return True
    row, column = (jnp.arange(stride) < used[i] for i in at)
    return row.reshape(1, 1, stride, 1, 1, 1) & column.reshape(1, 1, 1, 1, stride, 1)


_pool.defvjp(_pool_fwd, _pool_bwd)
