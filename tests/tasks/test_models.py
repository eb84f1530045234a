"""Models: the papers' parameter counts and starts, equality of models built alike, and any NNX module."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from gossipjax.tasks._models import models
from gossipjax.tasks._models.model import num_parameters

IMAGE, GREY, FACE = (2, 32, 32, 3), (2, 28, 28, 1), (2, 84, 84, 3)
BUILDERS = {
    "softmax_regression": (lambda: models.softmax_regression(784, 10), GREY, 7_850),
    "mlp": (lambda: models.mlp(784, (32,), 10), GREY, 25_450),
    "deep_mlp": (lambda: models.mlp(784, (20, 10), 10), GREY, 785 * 20 + 21 * 10 + 11 * 10),
    "gn_lenet": (models.gn_lenet, IMAGE, 89_834),
    "gn_lenet_plexus": (models.gn_lenet_plexus, IMAGE, 85_354),
    "femnist_cnn": (models.femnist_cnn, GREY, 1_690_046),
    "celeba_cnn": (models.celeba_cnn, FACE, 30_242),
}
each = pytest.mark.parametrize(("build", "shape", "count"), BUILDERS.values(), ids=BUILDERS.keys())


@each
def test_parameter_count_is_the_published_one(build, shape, count):
    params = jax.eval_shape(build().init, jax.random.key(0))
    assert num_parameters(params) == count
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}


@each
@pytest.mark.slow
def test_logits_and_gradients_are_finite_under_jit(build, shape, count):
    model = build()
    params = jax.jit(model.init)(jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), shape, jnp.float32)
    logits, grads = jax.jit(jax.value_and_grad(lambda p: jnp.sum(model.apply(p, x) ** 2)))(params)
    assert jax.eval_shape(model.apply, params, x).shape == (2, {1_690_046: 62, 30_242: 2}.get(count, 10))
    assert jnp.isfinite(logits)
    assert jax.tree.structure(grads) == jax.tree.structure(params)
    assert all(jnp.all(jnp.isfinite(leaf)) and jnp.any(leaf != 0) for leaf in jax.tree.leaves(grads))


@each
def test_models_built_alike_are_equal_and_traced_once(build, shape, count):
    one, two = build(), build()
    assert one == two
    assert hash(one) == hash(two)
    assert jax.tree.structure(one) == jax.tree.structure(two)
    traces = []

    def init(model, key):
        traces.append(model)
        return model.init(key)

    as_static, as_pytree = jax.jit(init, static_argnums=0), jax.jit(init)
    for model in (one, two):
        as_static.eval_shape(model, jax.random.key(0))
        as_pytree.eval_shape(model, jax.random.key(0))
    assert len(traces) == 2  # one for each of the two programs


def test_models_built_differently_differ():
    assert models.mlp(784, (32,), 10) != models.mlp(784, (33,), 10)
    assert models.gn_lenet() != models.gn_lenet_plexus()


def test_params_are_nested_dicts_of_plain_arrays():
    params = models.gn_lenet().init(jax.random.key(0))
    assert set(params) == {"conv1", "conv2", "conv3", "norm1", "norm2", "norm3", "dense"}
    assert params["conv1"]["kernel"].shape == (5, 5, 3, 32)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(params))


@each
def test_weights_start_uniform_on_one_over_root_fan_in(build, shape, count):
    # Var of U(±a) is a²/3 and its estimate from N draws has standard error a² √(4/45/N) (Eu⁴ − (Eu²)² = 4a⁴/45).
    params = jax.jit(build().init)(jax.random.key(3))
    kernels = [node for node in _layers(params) if "kernel" in node]
    assert kernels
    for layer in kernels:
        kernel = np.asarray(layer["kernel"], np.float64)
        # Affine kernels are (outputs, inputs), those of convolutions (side, side, inputs, outputs).
        bound = 1 / math.sqrt(kernel.shape[1] if kernel.ndim == 2 else math.prod(kernel.shape[:-1]))
        assert np.abs(kernel).max() <= bound * (1 + 1e-6)  # float32 rounding of the bound
        assert np.abs(np.asarray(layer["bias"])).max() <= bound * (1 + 1e-6)
        error = bound**2 * math.sqrt(4 / 45 / kernel.size)
        assert abs(np.mean(kernel**2) - bound**2 / 3) < 4 * error
        assert abs(kernel.mean()) < 4 * bound / math.sqrt(3 * kernel.size)


def _layers(params):
    below = [node for node in params.values() if isinstance(node, dict)]
    return [params, *(layer for node in below for layer in _layers(node))]


def test_init_depends_on_the_key_alone():
    model = models.mlp(8, (4,), 3)
    one, same, other = [model.init(jax.random.key(seed)) for seed in (0, 0, 1)]
    jax.tree.map(np.testing.assert_array_equal, one, same)
    assert not np.array_equal(one["dense"][0]["kernel"], other["dense"][0]["kernel"])
    stacked = jax.vmap(model.init)(jax.random.split(jax.random.key(0), 3))
    lone = model.init(jax.random.split(jax.random.key(0), 3)[1])
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[1], b), stacked, lone)


def test_mlp_is_affine_relu_affine():
    model = models.mlp(6, (5,), 3)
    p = jax.tree.map(lambda a: a.astype(jnp.float64), model.init(jax.random.key(0)))["dense"]
    x = jax.random.normal(jax.random.key(1), (4, 2, 3, 1), jnp.float64)
    hidden = np.maximum(np.asarray(x).reshape(4, 6) @ p[0]["kernel"].T + p[0]["bias"][None], 0)
    expected = hidden @ p[1]["kernel"].T + p[1]["bias"][None]
    # Float64 sums of six terms in two orders.
    np.testing.assert_allclose(model.apply({"dense": p}, x), expected, rtol=1e-12, atol=1e-12)


def test_celeba_cnn_is_convolve_pool_relu_four_times():
    model = models.celeba_cnn((16, 16, 3))
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), jax.jit(model.init)(jax.random.key(0)))
    x = jax.random.normal(jax.random.key(1), (2, 16, 16, 3), jnp.float64)
    y = np.asarray(x)
    for layer in params["conv"].values():
        kernel, bias, size = np.asarray(layer["kernel"]), np.asarray(layer["bias"]), y.shape[1]
        padded = np.pad(y, ((0, 0), (1, 1), (1, 1), (0, 0)))
        y = sum(padded[:, i : i + size, j : j + size] @ kernel[i, j] for i in range(3) for j in range(3))
        y = (y + bias).reshape(2, size // 2, 2, size // 2, 2, -1).max((2, 4))
        y = np.maximum(y, 0)
    expected = y.reshape(2, -1) @ np.asarray(params["dense"]["kernel"]).T + np.asarray(params["dense"]["bias"])
    # Float64 sums of at most 288 terms in two orders.
    np.testing.assert_allclose(jax.jit(model.apply)(params, x), expected, rtol=1e-11, atol=1e-13)


class _Convolutional(nnx.Module):
    """What a user would write with flax's own layers."""

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        self.conv = nnx.Conv(3, width, (3, 3), rngs=rngs)
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.blocks = nnx.List([nnx.Linear(width, width, rngs=rngs) for _ in range(2)])
        self.head = nnx.Linear(width, 4, rngs=rngs)

    def __call__(self, x):
        x = jnp.mean(self.norm(self.conv(x)), axis=(1, 2))
        for block in self.blocks:
            x = x + nnx.tanh(block(x))
        return self.head(x)


@pytest.mark.slow
def test_any_nnx_module_becomes_a_model():
    module = _Convolutional(6, rngs=nnx.Rngs(jax.random.key(5)))
    model = models.from_nnx(_Convolutional, 6)
    params = model.init(jax.random.key(5))
    jax.tree.map(np.testing.assert_array_equal, params, nnx.to_pure_dict(nnx.state(module, nnx.Param)))
    x = jax.random.normal(jax.random.key(1), (2, 5, 5, 3), jnp.float32)
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):  # flax's layers rely on both
        # One program and the other may fuse float32 sums of tens of terms differently.
        np.testing.assert_allclose(jax.jit(model.apply)(params, x), module(x), rtol=1e-5, atol=1e-6)
        grads = jax.grad(lambda p: jnp.sum(model.apply(p, x)))(params)
    assert jax.tree.structure(grads) == jax.tree.structure(params)
    assert model == models.from_nnx(_Convolutional, 6)


def test_nnx_path_compiles_to_the_same_program_as_plain_functions():
    model = models.mlp(6, (5,), 3)
    params, x = model.init(jax.random.key(0)), jnp.ones((4, 6), jnp.float32)

    def plain(params, x):
        one, two = params["dense"][0], params["dense"][1]
        x = jax.nn.relu(x @ one["kernel"].T + one["bias"][None])
        return x @ two["kernel"].T + two["bias"][None]

    costs = [jax.jit(f).lower(params, x).compile().cost_analysis() for f in (model.apply, plain)]
    assert costs[0]["flops"] == costs[1]["flops"]
    assert costs[0]["bytes accessed"] == costs[1]["bytes accessed"]


def test_modules_with_other_state_are_refused():
    with pytest.raises(ValueError, match="BatchStat"):
        models.from_nnx(lambda rngs: nnx.BatchNorm(3, rngs=rngs))
    with pytest.raises(ValueError, match="Rng"):
        models.from_nnx(lambda rngs: nnx.Dropout(0.5, rngs=rngs))
    with pytest.raises(ValueError, match="hashable"):
        models.from_nnx(lambda widths, rngs: nnx.Linear(*widths, rngs=rngs), [3, 4])


@pytest.mark.parametrize("build", [models.gn_lenet, models.gn_lenet_plexus, models.femnist_cnn, models.celeba_cnn])
def test_images_that_vanish_are_refused(build):
    with pytest.raises(ValueError, match="vanish"):
        build((3, 3, 3))
    with pytest.raises(ValueError, match=r"hidden\[0\]=0: must be whole numbers in 1"):
        models.mlp(4, (0,), 2)


@pytest.mark.parametrize("build", [models.gn_lenet, models.gn_lenet_plexus, models.femnist_cnn, models.celeba_cnn])
def test_smallest_documented_images_work(build):
    side = {models.gn_lenet: 8, models.gn_lenet_plexus: 15, models.femnist_cnn: 4, models.celeba_cnn: 16}[build]
    model = build((side, side, 1), 2)
    params = jax.eval_shape(model.init, jax.random.key(0))
    x = jax.ShapeDtypeStruct((1, side, side, 1), jnp.float32)
    assert jax.eval_shape(model.apply, params, x).shape == (1, 2)
