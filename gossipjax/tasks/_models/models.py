"""The models of the papers, written as flax NNX modules; :func:`from_nnx` builds a model from any such module.

Parameters are nested dicts of float32 arrays.

Initialization follows PyTorch's ``nn.Linear`` and ``nn.Conv2d``, as in the papers: weights and biases are uniform on
±1/√fan_in; normalisation scales are 1 and biases 0. Images are ``(batch, height, width, channels)`` and are flattened
in that order; PyTorch has channels first, which is the same model with permuted inputs. The task scales the inputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from gossipjax._base.arguments import callable_, instance, shown, whole, wholes
from gossipjax._base.binding import Bound
from gossipjax._base.calls import recorded
from gossipjax.tasks._models import layers
from gossipjax.tasks._models.model import Model, first_line
from gossipjax.types import Params

_MOST = 2**31 - 1


@recorded()
def from_nnx(make_module: Callable[..., nnx.Module], *config: Any) -> Model:
    """Build a model from a flax NNX module whose only state is its parameters.

    Args:
        make_module: a module class or a function, called as ``make_module(*config, rngs=rngs)``.
        *config: hashable settings. Models with the same ``make_module`` and equal settings share one compiled program.

    Returns:
        The model; its parameters are a nested dict named after the module's attributes.

    Raises:
        TypeError: if ``make_module`` is not callable or does not return an NNX module.
        ValueError: if the module has other state, such as running statistics or random streams, if a setting is not
            hashable, or if the module rejects the settings.
    """
    callable_("make_module", make_module, "make_module(*config, rngs=rngs) -> flax.nnx.Module, such as a module class")
    try:
        hash((make_module, config))
    except TypeError as error:
        raise ValueError(f"config={shown(config)}: must be hashable; pass tuples instead of lists") from error
    graph, _, rest = nnx.split(_module_form(make_module, config), nnx.Param, ...)  # type: ignore[misc]
    if others := sorted({type(leaf).__name__ for _, leaf in nnx.to_flat_state(rest)}):
        raise ValueError(
            f"the module has {', '.join(others)} in its state, but a model is a pure function of its parameters: "
            "replace BatchNorm by GroupNorm or LayerNorm, and remove Dropout"
        )
    return Model(Bound(_init, (make_module, config)), Bound(_apply, (graph,)))


def _module_form(make_module: Callable[..., nnx.Module], config: tuple) -> nnx.Module:
    """Build the module without computing its parameters."""
    call = f"make_module={shown(make_module)} with config={shown(config)}"
    try:
        module = nnx.eval_shape(lambda: make_module(*config, rngs=nnx.Rngs(0)))
    except Exception as error:
        raise ValueError(f"{call} does not build a module: {first_line(error)}") from error
    return instance(call, module, nnx.Module, "make_module(*config, rngs=rngs) must return one")


def _init(make_module: Callable[..., nnx.Module], config: tuple, key: Key[Array, ""]) -> Params:
    return nnx.to_pure_dict(nnx.state(make_module(*config, rngs=nnx.Rngs(key)), nnx.Param))


def _apply(graph: nnx.GraphDef, params: Params, x: Array) -> Array:
    return nnx.merge(graph, nnx.State(params))(x)


@recorded()
def softmax_regression(num_inputs: int, num_classes: int) -> Model:
    """Build multinomial logistic regression: logits = x W + b.

    Args:
        num_inputs: numbers per input; images are flattened.
        num_classes: number of classes.

    Returns:
        A model of ``(num_inputs + 1) num_classes`` parameters.
    """
    return mlp(num_inputs, (), num_classes)


@recorded()
def mlp(num_inputs: int, hidden: Sequence[int], num_classes: int) -> Model:
    """Build a multi-layer perceptron with ReLU between its affine layers.

    Args:
        num_inputs: numbers per input; images are flattened.
        hidden: widths of the hidden layers.
        num_classes: number of classes.

    Returns:
        The model.

    Raises:
        ValueError: if a width is below 1.
    """
    inner = wholes("hidden", hidden, shape=(None,), least=1, most=_MOST, remedy="widths, such as (32,); () for none")
    first, last = whole("num_inputs", num_inputs, least=1, most=_MOST), _classes(num_classes)
    return from_nnx(_MLP, (first, *inner.tolist(), last))


@recorded("hsieh2020noniid")
def gn_lenet(input_shape: tuple[int, int, int] = (32, 32, 3), num_classes: int = 10) -> Model:
    """Build LeNet with group normalisation, as in DecentralizePy and JWINS on CIFAR-10 (89,834 parameters).

    Three blocks of 5x5 convolution (to 32, 32, 64 channels), GroupNorm with 2 groups, ReLU and 2x2 max-pool; then an
    affine layer.

    Args:
        input_shape: ``(height, width, channels)``; height and width at least 8.
        num_classes: number of classes.

    Returns:
        The model.

    Raises:
        ValueError: images that vanish in the pools.

    Reference:
        Hsieh, Phanishayee, Mutlu and Gibbons, "The Non-IID Data Quagmire of Decentralized Machine Learning", ICML 2020.
    """
    return from_nnx(_GNLeNet, _image(input_shape, lambda side: side // 8), _classes(num_classes))


@recorded("dhasade2025plexus")
def gn_lenet_plexus(input_shape: tuple[int, int, int] = (32, 32, 3), num_classes: int = 10) -> Model:
    """Build LeNet with group normalisation and overlapping pools, as in Plexus on CIFAR-10 (85,354 parameters).

    Three 5x5 convolutions (to 32, 32, 64 channels), each with a 3x3 max-pool of stride 2, GroupNorm with 2 groups and
    ReLU: the order is pool, norm, ReLU after the first convolution, and norm, pool, ReLU after the others. Then an
    affine layer.

    Args:
        input_shape: ``(height, width, channels)``; height and width at least 15.
        num_classes: number of classes.

    Returns:
        The model.

    Raises:
        ValueError: images that vanish in the pools.

    Reference:
        Dhasade, Kermarrec, de Vos et al., "Practical Federated Learning without a Server" (Plexus), EuroMLSys 2025.
    """
    return from_nnx(_PlexusLeNet, _image(input_shape, _three_overlapping_pools), _classes(num_classes))


@recorded("caldas2018leaf")
def femnist_cnn(input_shape: tuple[int, int, int] = (28, 28, 1), num_classes: int = 62) -> Model:
    """Build the convolutional network of LEAF's FEMNIST (1,690,046 parameters).

    Two blocks of 5x5 convolution (to 32, 64 channels), ReLU and 2x2 max-pool; then an affine layer to 512, ReLU, and an
    affine layer to the classes.

    Args:
        input_shape: ``(height, width, channels)``; height and width at least 4.
        num_classes: number of classes.

    Returns:
        The model.

    Raises:
        ValueError: images that vanish in the pools.

    Reference:
        Caldas et al., "LEAF: A Benchmark for Federated Settings", arXiv:1812.01097.
    """
    return from_nnx(_FemnistCNN, _image(input_shape, lambda side: side // 4), _classes(num_classes))


@recorded("caldas2018leaf")
def celeba_cnn(input_shape: tuple[int, int, int] = (84, 84, 3), num_classes: int = 2) -> Model:
    """Build the convolutional network of LEAF's CelebA, as in JWINS and Plexus (30,242 parameters).

    Four blocks of 3x3 convolution to 32 channels, 2x2 max-pool and ReLU; then an affine layer.

    Args:
        input_shape: ``(height, width, channels)``; height and width at least 16.
        num_classes: number of classes.

    Returns:
        The model.

    Raises:
        ValueError: images that vanish in the pools.

    Reference:
        Caldas et al., "LEAF: A Benchmark for Federated Settings", arXiv:1812.01097.
    """
    return from_nnx(_CelebaCNN, _image(input_shape, lambda side: side // 16), _classes(num_classes))


def _three_overlapping_pools(side: int) -> int:
    for _ in range(3):
        side = (side - 1) // 2
    return side


def _image(shape: tuple[int, int, int], pooled: Callable[[int], int]) -> tuple[int, int, int]:
    """Return height and width at the affine layer, and the number of input channels."""
    sides = wholes("input_shape", shape, shape=(3,), least=1, most=_MOST, remedy="(height, width, channels)")
    height, width, channels = (int(side) for side in sides)
    if min(pooled(height), pooled(width), channels) < 1:
        raise ValueError(f"images of shape {shape} (height, width, channels) vanish in the pools: give larger images")
    return pooled(height), pooled(width), channels


def _classes(num_classes: Any) -> int:
    return whole("num_classes", num_classes, least=1, most=_MOST)


def _uniform(rngs: nnx.Rngs, fan_in: int, *shapes: tuple[int, ...]) -> list[nnx.Param]:
    bound = 1 / math.sqrt(fan_in)
    return [nnx.Param(jax.random.uniform(rngs.params(), shape, jnp.float32, -bound, bound)) for shape in shapes]


class _Dense(nnx.Module):
    def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs):
        self.kernel, self.bias = _uniform(rngs, inputs, (outputs, inputs), (outputs,))

    def __call__(self, x: Float[Array, "batch inputs"]) -> Float[Array, "batch outputs"]:
        return layers.dense(x, self.kernel[...], self.bias[...])


class _Conv(nnx.Module):
    def __init__(self, inputs: int, outputs: int, side: int = 5, *, rngs: nnx.Rngs):
        self.kernel, self.bias = _uniform(rngs, side**2 * inputs, (side, side, inputs, outputs), (outputs,))

    def __call__(self, x: Float[Array, "batch height width inputs"]) -> Float[Array, "batch height width outputs"]:
        return layers.conv2d(x, self.kernel[...], self.bias[...])


class _Norm(nnx.Module):
    def __init__(self, channels: int):
        self.scale = nnx.Param(jnp.ones(channels, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(channels, jnp.float32))

    def __call__(self, x: Float[Array, "batch height width channels"]) -> Float[Array, "batch height width channels"]:
        return layers.group_norm(x, self.scale[...], self.bias[...], groups=2)


class _MLP(nnx.Module):
    def __init__(self, widths: tuple[int, ...], *, rngs: nnx.Rngs):
        self.dense = nnx.List([_Dense(a, b, rngs=rngs) for a, b in pairwise(widths)])

    def __call__(self, x: Float[Array, "batch ..."]) -> Float[Array, "batch classes"]:
        x = x.reshape(x.shape[0], -1)
        for layer in self.dense[:-1]:
            x = nnx.relu(layer(x))
        return self.dense[-1](x)


class _GNLeNet(nnx.Module):
    def __init__(self, pooled: tuple[int, int, int], num_classes: int, *, rngs: nnx.Rngs):
        height, width, channels = pooled
        self.conv1, self.norm1 = _Conv(channels, 32, rngs=rngs), _Norm(32)
        self.conv2, self.norm2 = _Conv(32, 32, rngs=rngs), _Norm(32)
        self.conv3, self.norm3 = _Conv(32, 64, rngs=rngs), _Norm(64)
        self.dense = _Dense(height * width * 64, num_classes, rngs=rngs)

    def __call__(self, x: Float[Array, "batch height width channels"]) -> Float[Array, "batch classes"]:
        for conv, norm in ((self.conv1, self.norm1), (self.conv2, self.norm2), (self.conv3, self.norm3)):
            x = layers.max_pool(nnx.relu(norm(conv(x))))
        return self.dense(x.reshape(x.shape[0], -1))


class _PlexusLeNet(_GNLeNet):
    def __call__(self, x: Float[Array, "batch height width channels"]) -> Float[Array, "batch classes"]:
        x = nnx.relu(self.norm1(layers.max_pool(self.conv1(x), 3, 2)))
        x = nnx.relu(layers.max_pool(self.norm2(self.conv2(x)), 3, 2))
        x = nnx.relu(layers.max_pool(self.norm3(self.conv3(x)), 3, 2))
        return self.dense(x.reshape(x.shape[0], -1))


class _FemnistCNN(nnx.Module):
    def __init__(self, pooled: tuple[int, int, int], num_classes: int, *, rngs: nnx.Rngs):
        height, width, channels = pooled
        self.conv1 = _Conv(channels, 32, rngs=rngs)
        self.conv2 = _Conv(32, 64, rngs=rngs)
        self.dense1 = _Dense(height * width * 64, 512, rngs=rngs)
        self.dense2 = _Dense(512, num_classes, rngs=rngs)

    def __call__(self, x: Float[Array, "batch height width channels"]) -> Float[Array, "batch classes"]:
        for conv in (self.conv1, self.conv2):
            x = layers.max_pool(nnx.relu(conv(x)))
        return self.dense2(nnx.relu(self.dense1(x.reshape(x.shape[0], -1))))


class _CelebaCNN(nnx.Module):
    def __init__(self, pooled: tuple[int, int, int], num_classes: int, *, rngs: nnx.Rngs):
        height, width, channels = pooled
        self.conv = nnx.List([_Conv(inputs, 32, 3, rngs=rngs) for inputs in (channels, 32, 32, 32)])
        self.dense = _Dense(height * width * 32, num_classes, rngs=rngs)

    def __call__(self, x: Float[Array, "batch height width channels"]) -> Float[Array, "batch classes"]:
        for conv in self.conv:
            x = nnx.relu(layers.max_pool(conv(x)))
        return self.dense(x.reshape(x.shape[0], -1))
