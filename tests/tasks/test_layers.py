"""Layers against JAX's and flax's own, in float64: values, gradients, gradients of gradients, stacked nodes."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from gossipjax.tasks._models import layers

# Two summation orders of a few hundred float64 terms of size one.
EXACT = {"rtol": 1e-10, "atol": 1e-10}


def normal(seed: int, *shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape, jnp.float64)


def native_conv(x, kernel, bias, pad):
    y = lax.conv_general_dilated(x, kernel, (1, 1), [(pad, pad)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return y + bias[None, None, None]


def native_pool(x, window, stride):
    sides = (1, window, window, 1)
    return lax.reduce_window(x, -jnp.inf, lax.max, sides, (1, stride, stride, 1), "VALID")


def assert_close(actual, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **EXACT), actual, expected)


def cubed(f):
    """A scalar of f whose gradient with respect to f's output is neither zero nor constant."""
    return lambda *arguments: jnp.sum(f(*arguments) ** 3)


@pytest.mark.parametrize(
    ("channels", "side", "pad"), [(1, 5, 2), (2, 3, 0), (3, 3, 1), (3, 5, 2), (4, 2, 1), (6, 3, 4), (6, 1, 0)]
)
def test_conv2d_equals_lax_conv_with_gradients(channels, side, pad):
    x, kernel, bias = normal(0, 2, 6, 7, channels), normal(1, side, side, channels, 3), normal(2, 3)

    def ours(x, kernel, bias):
        return layers.conv2d(x, kernel, bias, pad)

    def theirs(x, kernel, bias):
        return native_conv(x, kernel, bias, pad)

    assert_close(ours(x, kernel, bias), theirs(x, kernel, bias))
    grads = [jax.jit(jax.grad(cubed(f), (0, 1, 2)))(x, kernel, bias) for f in (ours, theirs)]
    assert_close(*grads)


def test_conv2d_keeps_the_size_by_default_and_takes_rectangular_kernels():
    x, kernel = normal(0, 2, 6, 7, 4), normal(1, 3, 5, 4, 2)
    expected = lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    assert_close(layers.conv2d(x, kernel), expected)


@pytest.mark.slow
def test_conv2d_gradient_of_gradient():
    x, kernel, bias = normal(0, 2, 4, 4, 2), normal(1, 3, 3, 2, 2), normal(2, 2)

    def slope(conv):
        def penalty(x, kernel):
            grads = jax.grad(cubed(conv), (0, 1))(x, kernel, bias)
            return sum(jnp.sum(jnp.sin(g)) for g in grads)

        return jax.grad(penalty, (0, 1))

    ours = slope(lambda x, kernel, bias: layers.conv2d(x, kernel, bias, 1))(x, kernel)
    assert_close(ours, slope(lambda x, kernel, bias: native_conv(x, kernel, bias, 1))(x, kernel))


@pytest.mark.parametrize("axes", [(0, 0), (0, None), (None, 0)])
def test_conv2d_stacked_over_nodes_equals_a_loop(axes):
    x, kernel, bias = normal(0, 3, 2, 5, 5, 3), normal(1, 3, 3, 3, 3, 2), normal(2, 2)
    arguments = [a if axis == 0 else a[0] for a, axis in zip((x, kernel), axes, strict=True)]
    grad = jax.jit(jax.grad(cubed(lambda x, kernel: layers.conv2d(x, kernel, bias)), (0, 1)))
    stacked = jax.jit(jax.vmap(grad, axes))(*arguments)
    for node in range(3):
        own = [a[node] if axis == 0 else a for a, axis in zip(arguments, axes, strict=True)]
        assert_close([leaf[node] for leaf in stacked], list(grad(*own)))


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_group_norm_equals_flax(groups):
    x, scale, bias = 3 * normal(0, 2, 5, 4, 6) + 1, normal(1, 6), normal(2, 6)
    graph, _ = nnx.split(nnx.GroupNorm(6, num_groups=groups, epsilon=1e-5, rngs=nnx.Rngs(0)))

    def theirs(x, scale, bias):
        with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):  # flax relies on both
            return nnx.merge(graph, nnx.State({"scale": scale, "bias": bias}))(x)

    def ours(x, scale, bias):
        return layers.group_norm(x, scale, bias, groups)

    # Compiled whole, each in a tenth of the time that its operations take one by one.
    both = [jax.jit(lambda *a, f=f: (f(*a), jax.grad(cubed(f), (0, 1, 2))(*a)))(x, scale, bias) for f in (ours, theirs)]
    assert_close(*both)


def test_group_norm_output_has_mean_zero_and_variance_one():
    # Both exact but for ε: variance is σ²/(σ² + ε), 1 − 1e-5/9 to first order.
    y = layers.group_norm(3 * normal(0, 4, 8, 8, 6) + 100, jnp.ones(6), jnp.zeros(6), 2).reshape(4, 64, 2, 3)
    np.testing.assert_allclose(jnp.mean(y, (1, 3)), 0, atol=1e-10)
    np.testing.assert_allclose(jnp.var(y, (1, 3)), 1, atol=5e-6)


def test_group_norm_survives_a_large_mean_in_float32():
    # The one-pass variance E[x²] − E[x]² would lose all digits: 1000² has spacing 0.06 in float32.
    x = (normal(0, 2, 8, 8, 4) * 0.1 + 1000).astype(jnp.float32)
    y = layers.group_norm(x, jnp.ones(4, jnp.float32), jnp.zeros(4, jnp.float32), 2)
    exact = layers.group_norm(x.astype(jnp.float64), jnp.ones(4), jnp.zeros(4), 2)
    # x·slope and mean·slope are near 10⁴, where float32 has spacing 1e-3.
    np.testing.assert_allclose(y, exact, atol=5e-3)


@pytest.mark.parametrize(
    ("sides", "window", "stride"),
    [((6, 4), 2, 2), ((7, 9), 2, None), ((7, 9), 3, 2), ((6, 8), 3, 2), ((5, 6), 2, 3), ((7, 8), 5, 2), ((4, 5), 3, 1)],
)
def test_max_pool_equals_reduce_window_away_from_ties(sides, window, stride):
    x = normal(0, 2, *sides, 3)

    def ours(x):
        return layers.max_pool(x, window, stride)

    def theirs(x):
        return native_pool(x, window, stride or window)

    assert_close(ours(x), theirs(x))
    assert_close(jax.grad(cubed(ours))(x), jax.grad(cubed(theirs))(x))


def test_max_pool_gradient_of_gradient():
    x = normal(0, 1, 5, 5, 2)
    penalty = [lambda x, f=f: jnp.sum(jnp.sin(jax.grad(cubed(f))(x))) for f in _POOLS]
    assert_close(*[jax.jit(jax.grad(p))(x) for p in penalty])


_POOLS = (lambda x: layers.max_pool(x, 3, 2), lambda x: native_pool(x, 3, 2))


@settings(max_examples=20, deadline=None)
@given(st.sampled_from([((6, 8), 2, 2), ((7, 6), 3, 2)]), st.integers(0, 5), st.integers(0, 99))
def test_max_pool_passes_on_the_whole_gradient(shape, levels, seed):
    # Integer entries tie often; each output's gradient must arrive in full, however it is shared.
    sides, window, stride = shape
    x = np.random.default_rng(seed).integers(0, levels + 1, (2, *sides, 3)).astype(float)
    dy = np.random.default_rng(seed).normal(size=layers.max_pool(jnp.asarray(x), window, stride).shape)
    np.testing.assert_allclose(jnp.sum(_pull_pool(x, dy, window, stride)), np.sum(dy), **EXACT)


@partial(jax.jit, static_argnums=(2, 3))
def _pull_pool(x, dy, window, stride):
    return jax.vjp(lambda x: layers.max_pool(x, window, stride), x)[1](dy)[0]


@pytest.mark.parametrize("stride", [2, 1])
def test_max_pool_shares_the_gradient_between_ties(stride):
    x = jnp.asarray([[1.0, 1.0], [0.0, 1.0]]).reshape(1, 2, 2, 1)
    grad = jax.grad(lambda x: 6 * jnp.sum(layers.max_pool(x, 2, stride)))(x)
    np.testing.assert_allclose(grad[0, :, :, 0], [[2, 2], [0, 2]])


def test_dense_is_affine():
    x, kernel, bias = normal(0, 4, 5), normal(1, 3, 5), normal(2, 3)
    assert_close(layers.dense(x, kernel, bias), jnp.einsum("bi,oi->bo", x, kernel) + bias[None])
    assert_close(layers.dense(x, kernel), jnp.einsum("bi,oi->bo", x, kernel))


@pytest.mark.slow
def test_composition_under_vmap_and_scan_equals_a_loop():
    sizes = [3, 4, 6]
    kernels = [normal(i, 3, 3, 3, a, b) for i, (a, b) in enumerate(pairwise(sizes))]
    x = normal(9, 3, 2, 8, 8, 3)

    def loss(kernels, x):
        for kernel in kernels:
            ones, zeros = jnp.ones(kernel.shape[-1]), jnp.zeros(kernel.shape[-1])
            x = layers.max_pool(jax.nn.relu(layers.group_norm(layers.conv2d(x, kernel), ones, zeros, 2)))
        return jnp.sum(x**2)

    grad = jax.jit(jax.grad(loss))
    wide = jax.jit(jax.vmap(grad))(kernels, x)
    narrow = jax.jit(lambda *stacked: lax.map(lambda node: grad(*node), stacked))(kernels, x)
    loop = [grad([k[node] for k in kernels], x[node]) for node in range(3)]
    assert_close(wide, narrow)
    assert_close(wide, jax.tree.map(lambda *leaves: jnp.stack(leaves), *loop))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: layers.conv2d(x, normal(0, 3, 3, 2, 4)), "3 channels"),
        (lambda x: layers.conv2d(x, normal(0, 2, 2, 3, 4)), "no middle"),
        (lambda x: layers.conv2d(x, normal(0, 3, 3, 3, 4), padding=-1), "padding=-1"),
        (lambda x: layers.conv2d(x, normal(0, 9, 9, 3, 4), padding=0), "smaller than the kernel"),
        (lambda x: layers.group_norm(x, jnp.ones(3), jnp.zeros(3), 2), "groups=2"),
        (lambda x: layers.max_pool(x, 9), "smaller than the window"),
        (lambda x: layers.max_pool(x, 0), "window=0"),
    ],
)
def test_bad_arguments_name_the_value(call, message):
    with pytest.raises(ValueError, match=message):
        call(normal(1, 2, 6, 6, 3))
