"""ResNet-18 and VGG-16: parameters counted by hand, bytes of their messages, and what one forward pass computes."""

from __future__ import annotations

import math
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

import gossipjax as gj
from gossipjax.tasks._models import deep
from gossipjax.tasks._models.model import num_parameters

NORM = 2
"""Numbers per channel of a normalisation: a scale and a bias."""

# Layer tables: (side of the kernel, input channels, output channels), each followed by a normalisation.
RESNET18 = [
    (3, 3, 64),
    *[(3, 64, 64)] * 4,
    *[(3, 64, 128), (3, 128, 128), (1, 64, 128), (3, 128, 128), (3, 128, 128)],
    *[(3, 128, 256), (3, 256, 256), (1, 128, 256), (3, 256, 256), (3, 256, 256)],
    *[(3, 256, 512), (3, 512, 512), (1, 256, 512), (3, 512, 512), (3, 512, 512)],
]
VGG16 = [
    *[(3, 3, 64), (3, 64, 64)],
    *[(3, 64, 128), (3, 128, 128)],
    *[(3, 128, 256), (3, 256, 256), (3, 256, 256)],
    *[(3, 256, 512), (3, 512, 512), (3, 512, 512)],
    *[(3, 512, 512)] * 3,
]
MODELS = {"resnet18": (deep.resnet18, RESNET18, 11_173_962), "vgg16": (deep.vgg16, VGG16, 14_724_042)}
each = pytest.mark.parametrize(("build", "table", "count"), MODELS.values(), ids=MODELS.keys())


def shapes_of(model):
    return jax.eval_shape(model.init, jax.random.key(0))


@each
def test_parameter_count_is_that_of_the_layer_table(build, table, count):
    by_hand = sum(side**2 * inputs * outputs + NORM * outputs for side, inputs, outputs in table) + 512 * 10 + 10
    assert by_hand == count
    params = shapes_of(build())
    assert num_parameters(params) == by_hand
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}


@each
def test_kernels_have_the_shapes_of_the_layer_table(build, table, count):
    kernels = [leaf.shape for leaf in jax.tree.leaves(shapes_of(build())) if len(leaf.shape) == 4]
    assert sorted(kernels) == sorted((side, side, inputs, outputs) for side, inputs, outputs in table)


@each
@pytest.mark.slow
def test_a_message_holds_four_bytes_for_each_parameter(build, table, count):
    x = jax.tree.map(lambda leaf: jnp.zeros((2, *leaf.shape), leaf.dtype), shapes_of(build()))
    plan = gj.timeline.rounds(gj.mixing.averaging(2), 1)
    run = gj.simulate(jax.random.key(0), gj.gossip_averaging(), plan, x)
    assert float(run["messages_sent"][-1]) == 2
    assert float(run["bytes_sent"][-1]) == 2 * 4 * count


def test_other_images_and_classes():
    assert num_parameters(shapes_of(deep.resnet18((28, 28, 1), 62))) == 11_173_962 - 2 * 9 * 64 + 52 * 513
    assert num_parameters(shapes_of(deep.vgg16((64, 32, 3), 10))) == 14_724_042 + 512 * 10
    for model, side in ((deep.resnet18((1, 1, 1), 2), 1), (deep.vgg16((32, 32, 1), 2), 32)):
        x = jax.ShapeDtypeStruct((3, side, side, 1), jnp.float32)
        assert jax.eval_shape(model.apply, shapes_of(model), x).shape == (3, 2)
    with pytest.raises(ValueError, match="vanish"):
        deep.vgg16((31, 32, 3))
    with pytest.raises(ValueError, match="num_classes=0"):
        deep.resnet18(num_classes=0)


@each
def test_models_built_alike_are_equal(build, table, count):
    assert build() == build()
    assert hash(build()) == hash(build())
    assert build() != build((32, 32, 1))


# --- values -----------------------------------------------------------------------------------------------------------


def conv_norm(x, p, stride=1):
    """A convolution with SAME padding, and flax's group normalisation."""
    side, channels = p["kernel"].shape[0] // 2, p["scale"].size
    pads = [(side, side)] * 2
    y = lax.conv_general_dilated(x, p["kernel"], (stride,) * 2, pads, dimension_numbers=("NHWC", "HWIO", "NHWC"))
    graph, _ = nnx.split(nnx.GroupNorm(channels, num_groups=32, epsilon=1e-5, rngs=nnx.Rngs(0)))
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):  # flax relies on both
        return nnx.merge(graph, nnx.State({"scale": p["scale"], "bias": p["offset"]}))(y)


def resnet_by_hand(params, x):
    x = jax.nn.relu(conv_norm(x, params["stem"]))
    for number, block in params["blocks"].items():
        stride = 2 if int(number) in (2, 4, 6) else 1
        y = conv_norm(jax.nn.relu(conv_norm(x, block["first"], stride)), block["second"])
        x = jax.nn.relu(y + (conv_norm(x, block["shortcut"], stride) if "shortcut" in block else x))
    return jnp.mean(x, (1, 2)) @ params["dense"]["kernel"].T + params["dense"]["bias"][None]


def vgg_by_hand(params, x):
    for number, layer in params["conv"].items():
        x = jax.nn.relu(conv_norm(x, layer))
        if int(number) in (1, 3, 6, 9, 12):
            x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    return x.reshape(x.shape[0], -1) @ params["dense"]["kernel"].T + params["dense"]["bias"][None]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "by_hand", "side"),
    [(deep.resnet18((9, 9, 3)), resnet_by_hand, 9), (deep.vgg16(), vgg_by_hand, 32)],
    ids=["resnet18", "vgg16"],
)
def test_logits_are_those_of_the_layers_of_jax_and_flax(model, by_hand, side):
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), jax.jit(model.init)(jax.random.key(0)))
    x = jnp.asarray(np.random.default_rng(0).standard_normal((1, side, side, 3)))
    # Float64 sums of up to 4,608 terms in two orders, through up to 17 normalised layers.
    np.testing.assert_allclose(jax.jit(model.apply)(params, x), jax.jit(by_hand)(params, x), rtol=1e-9, atol=1e-10)


@each
@pytest.mark.slow
def test_forward_and_gradient_at_batch_two(build, table, count):
    model = build()
    params = jax.jit(model.init)(jax.random.key(0))
    x, y = jax.random.normal(jax.random.key(1), (2, 32, 32, 3), jnp.float32), jnp.asarray([3, 7])

    @jax.jit
    def loss_and_gradient(params):
        def loss(params):
            log_p = jax.nn.log_softmax(model.apply(params, x))
            return -(log_p[0, y[0]] + log_p[1, y[1]]) / 2

        return jax.value_and_grad(loss)(params)

    @jax.jit
    def step(params, grads):
        return jax.tree.map(lambda p, g: p - jnp.float32(3e-4) * g, params, grads)

    loss, grads = loss_and_gradient(params)
    # Ten classes at random: the loss starts near log 10, as the logits are small.
    assert 0.5 * math.log(10) < float(loss) < 2 * math.log(10)
    for path, leaf in jax.tree.leaves_with_path(grads):
        leaf = np.asarray(leaf)  # in NumPy, and the steps below in one program: JAX compiles for each shape of a leaf
        assert np.isfinite(leaf).all(), path
        assert leaf.any(), path
    losses = [float(loss)]
    for _ in range(4):  # steps small enough for gradient descent to fall at each, and two images are learned at once
        params = step(params, grads)
        loss, grads = loss_and_gradient(params)
        losses.append(float(loss))
    assert all(after < before for before, after in pairwise(losses))
    assert losses[-1] < losses[0] / 2
