"""Both forms of the convolution against ``lax.conv_general_dilated``, on the CPU, in float64.

The form for accelerators is called by its name, so that no test needs an accelerator.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from gossipjax.tasks._models import convolution, layers

# Two summation orders of a few hundred float64 terms of size one.
EXACT = {"rtol": 1e-10, "atol": 1e-10}
LAYOUT = ("NHWC", "HWIO", "NHWC")
FORMS = {"loops": convolution.by_loops, "patches": convolution.by_patches}
CASES = {
    "3x3 same": ((6, 7, 3), (3, 3, 5), 1, 1),
    "3x3 valid": ((6, 7, 2), (3, 3, 4), 0, 1),
    "even side": ((5, 6, 4), (2, 2, 3), 1, 1),
    "more padding than kernel": ((4, 4, 6), (3, 3, 2), 4, 1),
    "5x5": ((7, 6, 1), (5, 5, 3), 2, 1),
    "1x1": ((4, 5, 6), (1, 1, 3), 0, 1),
    "oblong": ((6, 8, 3), (3, 5, 2), 2, 1),
    "3x3 stride 2, even": ((8, 6, 3), (3, 3, 4), 1, 2),
    "3x3 stride 2, odd": ((7, 9, 3), (3, 3, 4), 1, 2),
    "1x1 stride 2": ((7, 8, 3), (1, 1, 4), 0, 2),
    "1x1 stride 2, padded": ((4, 5, 3), (1, 1, 4), 1, 2),
    "stride above the side": ((8, 9, 3), (2, 2, 2), 0, 3),
    "5x5 stride 3": ((11, 8, 2), (5, 5, 3), 2, 3),
    "oblong stride 2": ((9, 8, 2), (1, 4, 3), 2, 2),
    "last rows unused": ((8, 8, 2), (3, 3, 2), 0, 4),
}
ALL = [
    pytest.param(form, *case, id=f"{form_name}, {name}")
    for form_name, form in FORMS.items()
    for name, case in CASES.items()
    if form_name == "patches" or case[-1] > 1  # loops at stride 1: test_layers.py
]


def normal(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape))


def native(x, kernel, pads, stride):
    return lax.conv_general_dilated(x, kernel, (stride, stride), pads, dimension_numbers=LAYOUT)


def bound(form, pads, stride):
    return lambda x, kernel: form(x, kernel, pads, stride)


def cubed(f):
    """A scalar of f whose gradient with respect to f's output is neither zero nor constant."""
    return lambda *arguments: jnp.sum(f(*arguments) ** 3)


def value_and_gradients(f):
    return jax.jit(lambda x, kernel: (f(x, kernel), jax.grad(cubed(f), (0, 1))(x, kernel)))


def assert_close(actual, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **EXACT), actual, expected)


@pytest.mark.parametrize(("form", "sides", "kernel", "pad", "stride"), ALL)
def test_value_and_gradients_are_those_of_lax(form, sides, kernel, pad, stride):
    x, weights = normal(0, 2, *sides), normal(1, *kernel[:2], sides[-1], kernel[-1])
    pads = ((pad, pad), (pad, pad))
    ours, theirs = (value_and_gradients(bound(f, pads, stride))(x, weights) for f in (form, native))
    assert ours[0].size > 0
    assert_close(ours, theirs)


@pytest.mark.parametrize(("form", "stride"), [(convolution.by_patches, 1), (convolution.by_loops, 2)])
@pytest.mark.parametrize("axes", [(0, 0), (0, None), (None, 0)])
def test_nodes_with_their_own_kernels_equal_a_loop(form, stride, axes):
    x, kernel = normal(0, 3, 2, 6, 5, 3), normal(1, 3, 3, 3, 3, 2)
    arguments = [a if axis == 0 else a[0] for a, axis in zip((x, kernel), axes, strict=True)]
    one = value_and_gradients(bound(form, ((1, 1), (1, 1)), stride))
    alone = value_and_gradients(bound(native, ((1, 1), (1, 1)), stride))
    stacked = jax.jit(jax.vmap(one, axes))(*arguments)
    for node in range(3):
        own = [a[node] if axis == 0 else a for a, axis in zip(arguments, axes, strict=True)]
        assert_close(jax.tree.map(lambda leaf, node=node: np.asarray(leaf)[node], stacked), alone(*own))


@pytest.mark.parametrize(("form", "stride"), [(convolution.by_patches, 1), (convolution.by_loops, 2)])
def test_gradients_of_gradients(form, stride):
    x, kernel = normal(0, 1, 4, 5, 2), normal(1, 3, 3, 2, 2)

    def slope(conv):
        def penalty(x, kernel):
            return sum(jnp.sum(jnp.sin(g)) for g in jax.grad(cubed(conv), (0, 1))(x, kernel))

        return jax.jit(jax.grad(penalty, (0, 1)))

    ours, theirs = (slope(bound(f, ((1, 1), (1, 1)), stride))(x, kernel) for f in (form, native))
    assert_close(ours, theirs)


def test_stride_of_conv2d():
    x, kernel, bias = normal(0, 2, 7, 8, 3), normal(1, 3, 3, 3, 4), normal(2, 4)
    y = layers.conv2d(x, kernel, bias, stride=2)
    assert y.shape == (2, 4, 4, 4)
    assert_close(y, native(x, kernel, [(1, 1), (1, 1)], 2) + bias[None, None, None])
    with pytest.raises(ValueError, match="stride=0: must be a whole number in 1"):
        layers.conv2d(x, kernel, stride=0)


# --- what is compiled -------------------------------------------------------------------------------------------------


def program(form, stride):
    """Value and both gradients of three nodes, as HLO before optimization, the same for every backend."""

    def one(x, kernel):
        y, pull = jax.vjp(bound(form, ((1, 1), (1, 1)), stride), x, kernel)
        return y, pull(y)

    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((3, 2, 8, 8, 4), (3, 3, 3, 4, 6))]
    return jax.jit(jax.vmap(one)).lower(*shapes).as_text(dialect="hlo")


@pytest.mark.parametrize("stride", [1, 2])
def test_the_form_for_accelerators_has_no_convolution_and_batched_products(stride):
    text = program(convolution.by_patches, stride)
    assert "feature_group_count" not in text
    assert "batch_group_count" not in text
    assert "convolution" not in text
    products = [line for line in text.splitlines() if " dot(" in line]
    assert len(products) == 3  # the value, and a gradient each
    assert all("lhs_batch_dims={0}" in line for line in products)


def test_the_native_convolution_has_groups():
    """What the form for accelerators avoids."""
    assert "feature_group_count=3" in program(native, 1)


@pytest.mark.parametrize("stride", [1, 2])
def test_the_form_for_cpus_has_no_groups(stride):
    text = program(convolution.by_loops, stride)
    assert "convolution" in text
    assert "feature_group_count" not in text


def test_products_cost_what_the_table_says():
    """FLOPs of the compiled value: 2 m q c o, and less than a tenth more for the rest."""
    x, kernel = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((2, 8, 8, 16), (3, 3, 16, 32)))
    compiled = jax.jit(bound(convolution.by_patches, ((1, 1), (1, 1)), 1)).lower(x, kernel).compile()
    product = 2 * (2 * 8 * 8) * 9 * 16 * 32
    assert product <= compiled.cost_analysis()["flops"] < 1.1 * product


def test_patches_are_not_kept_for_the_gradient():
    """Between value and gradient, only x and the kernel are in memory."""
    x, kernel = normal(0, 2, 8, 8, 4), normal(1, 3, 3, 4, 6)
    _, pull = jax.vjp(bound(convolution.by_patches, ((1, 1), (1, 1)), 1), x, kernel)
    assert sum(leaf.size for leaf in jax.tree.leaves(pull)) == x.size + kernel.size


@pytest.mark.parametrize(("backend", "form"), [("cpu", "by_loops"), ("gpu", "by_patches"), ("tpu", "by_patches")])
def test_the_backend_chooses_the_form(monkeypatch, backend, form):
    monkeypatch.setattr(convolution, form, lambda x, kernel, pads, stride: jnp.full((1, 1, 1, 1), 7.0))
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    assert convolution.correlate(normal(0, 1, 3, 3, 1), normal(1, 3, 3, 1, 1), ((0, 0), (0, 0)), 1) == 7.0
