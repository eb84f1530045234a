"""Loops that write results in place of their arguments: the values of the plain form, and no second copy in memory."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial

import gossipjax as gj
from gossipjax._base import in_place

N, D = 6, 4000


def rows_of(dtype=jnp.float32):
    x = jax.random.normal(jax.random.key(0), (N, D), dtype)
    return jax.random.split(jax.random.key(1), N), x, {"y": 2 * x, "count": jnp.arange(N).astype(dtype)}


def one_row(scale, key, x, other):
    """Results in the forms of x, of a sum that no argument has the form of, and of y."""
    return jnp.sin(x) * scale + jax.random.normal(key, x.shape, x.dtype), jnp.sum(x), other["y"] + other["count"] * x


def plain(fn, *stacked):
    return jax.lax.map(lambda rows: fn(*rows), stacked)


def test_rows_have_the_results_and_derivatives_of_a_map():
    fn, stacked = Partial(one_row, jnp.linspace(0.5, 1.5, D, dtype=jnp.float32)), rows_of()
    found, wanted = jax.jit(in_place.over_rows)(fn, *stacked), jax.jit(plain)(fn, *stacked)
    jax.tree.map(np.testing.assert_array_equal, found, wanted)

    def loss(loop, scale, x):
        return sum(jnp.sum(part**2) for part in loop(Partial(one_row, scale), keys, x, other))

    # In float64, so that only the order of sums differs.
    keys, x, other = rows_of(jnp.float64)
    scale = jnp.linspace(0.5, 1.5, D, dtype=jnp.float64)
    slopes = [jax.grad(lambda *a, loop=loop: loss(loop, *a), (0, 1)) for loop in (in_place.over_rows, plain)]
    found, wanted = (jax.jit(jax.vmap(slope, (0, None)))(jnp.stack([scale, 2 * scale]), x) for slope in slopes)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12), found, wanted)


def weighted_sum(x, weights):
    return jnp.tensordot(weights, jnp.sin(x), axes=1)


@pytest.mark.parametrize("shape", [(N, 640), (N, 3, 7, 5), (N, 1)])
def test_columns_have_the_results_and_derivatives_of_one_call(shape, monkeypatch):
    monkeypatch.setattr(in_place, "LARGE", 0)
    monkeypatch.setattr(in_place, "BLOCK", N * 8 * 32)
    x, weights = (jax.random.normal(jax.random.key(k), s, jnp.float64) for k, s in enumerate((shape, (N, N))))
    blocks = lambda x, weights: in_place.over_columns(weighted_sum, x, weights)  # noqa: E731
    assert in_place.block_width(N, x[0].size, 8) == 32

    def slope(f):
        return jax.jit(jax.grad(lambda x, weights: jnp.sum(f(x, weights) ** 2), (0, 1)))(x, weights)

    # The same products, whose sums over 6 rows may be added in another order.
    np.testing.assert_allclose(jax.jit(blocks)(x, weights), weighted_sum(x, weights), rtol=1e-12, atol=1e-12)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12), slope(blocks), slope(weighted_sum)
    )


def test_a_small_array_is_one_block():
    x = jnp.zeros((N, D))
    text = str(jax.make_jaxpr(lambda x: in_place.over_columns(jnp.sin, x))(x))
    assert text == str(jax.make_jaxpr(jnp.sin)(x))


def extra(protocol, plan, x0, strategy):
    """Bytes that a compiled run needs beside its arguments, in copies of the models."""
    with gj.placement.using(strategy):
        state = jax.eval_shape(protocol.init, jax.random.key(0), x0)
        program = (
            jax.jit(lambda *call: gj.run(*call), donate_argnums=3)
            .lower(jax.random.key(0), protocol, plan, state)
            .compile()
        )
    return program.memory_analysis().temp_size_in_bytes / (x0.size * x0.dtype.itemsize)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="another backend lays out its programs otherwise")
@pytest.mark.parametrize("sparse", [True, False])
def test_rounds_of_large_models_need_no_second_copy(sparse, monkeypatch):
    monkeypatch.setattr(in_place, "LARGE", 0)
    monkeypatch.setattr(in_place, "BLOCK", 1 << 14)
    n = 96 if sparse else 24  # mixing takes a table of neighbours above 64 nodes, and the matrix below
    plan = gj.timeline.rounds(gj.mixing.metropolis(gj.topology.ring(n)), 4)
    task, x0 = gj.tasks.quadratic(np.ones((n, D))), jax.eval_shape(lambda: jnp.zeros((n, D)))
    # A quarter is the mask of finite entries, which XLA keeps where it does not fuse.
    assert extra(gj.gossip_averaging(), plan, x0, "map") < 0.5
    assert extra(gj.dpsgd(task, Partial(optax.sgd, 0.1)), plan, x0, "map") < 0.5
    monkeypatch.setattr(in_place, "LARGE", 1 << 40)
    assert extra(gj.gossip_averaging(), plan, x0, "map") > 0.9  # the measure sees a copy
