"""ResNet-18 and VGG-16 for small images: models of millions of parameters, for message sizes and accelerators.

Both normalise over groups of channels where the originals take batch statistics. A batch of a node has the statistics
of that node's data, and their running averages are state beside the parameters, which averaging models does not bring
together; on data that differ between nodes batch normalisation loses accuracy that group normalisation keeps (Hsieh et
al., ICML 2020). The number of parameters is the same: a scale and a bias for each channel. Convolutions have no bias of
their own, as the normalisation that follows has one.

Initialization is that of the other models: uniform on ±1/√fan_in.
"""

from __future__ import annotations

from itertools import pairwise

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from gossipjax._base.calls import recorded
from gossipjax.tasks._models import layers
from gossipjax.tasks._models.model import Model
from gossipjax.tasks._models.models import _classes, _Dense, _image, _uniform, from_nnx

_GROUPS = 32
"""The number of groups that Wu and He recommend; at least 2 channels in each."""
_STAGES = (64, 128, 256, 512)
_VGG16 = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Channels after each convolution; a pool follows every stage."""


@recorded("he2016resnet", "wu2018groupnorm")
def resnet18(input_shape: tuple[int, int, int] = (32, 32, 3), num_classes: int = 10) -> Model:
    """Build ResNet-18 for small images, with group normalisation (11,173,962 parameters for CIFAR-10).

    The usual variant for CIFAR: the first convolution is 3x3 at stride 1, and no max-pool follows. Then four stages of
    two blocks with 64, 128, 256 and 512 channels; the stages after the first halve the images, by the stride of their
    first convolution. A block adds its input to two 3x3 convolutions with a ReLU between them; where the shape changes,
    the input passes a 1x1 convolution. Every convolution is followed by GroupNorm with 32 groups. At the end come the
    mean over the image and an affine layer.

    GroupNorm takes the place of BatchNorm, whose statistics would differ between nodes.

    Args:
        input_shape: ``(height, width, channels)``, of any size.
        num_classes: number of classes.

    Returns:
        The model. One gradient step on one 32x32 image takes some 3.3 GFLOPs: train it on an accelerator.

    Raises:
        ValueError: if a number is below 1.

    Reference:
        He, Zhang, Ren and Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, table 1; Wu and He, "Group
        Normalization", ECCV 2018.
    """
    _, _, channels = _image(input_shape, lambda side: side)
    return from_nnx(_ResNet18, channels, _classes(num_classes))


@recorded("simonyan2015vgg", "wu2018groupnorm")
def vgg16(input_shape: tuple[int, int, int] = (32, 32, 3), num_classes: int = 10) -> Model:
    """Build VGG-16 for small images, with group normalisation (14,724,042 parameters for CIFAR-10).

    Thirteen 3x3 convolutions to 64, 64; 128, 128; 256 three times; 512 three times; and 512 three times, each with
    GroupNorm of 32 groups and ReLU. A 2x2 max-pool follows every stage. In place of the original's three affine layers,
    which are for images of 224x224, there is one.

    The original has no normalisation. Without any, and from the initialization used here, each layer divides the mean
    square of the signal by 6, so that after thirteen of them it is below 1e-10 of the input and nothing is learned.

    Args:
        input_shape: ``(height, width, channels)``; height and width at least 32.
        num_classes: number of classes.

    Returns:
        The model.

    Raises:
        ValueError: images that vanish in the pools.

    Reference:
        Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015, table
        1, column D; Wu and He, "Group Normalization", ECCV 2018.
    """
    return from_nnx(_VGG16Net, _image(input_shape, lambda side: side // 32), _classes(num_classes))


class _ConvNorm(nnx.Module):
    """A convolution without bias, and the normalisation that follows it."""

    def __init__(self, inputs: int, outputs: int, side: int = 3, stride: int = 1, *, rngs: nnx.Rngs):
        (self.kernel,) = _uniform(rngs, side**2 * inputs, (side, side, inputs, outputs))
        self.scale = nnx.Param(jnp.ones(outputs, jnp.float32))
        self.offset = nnx.Param(jnp.zeros(outputs, jnp.float32))
        self.stride = stride

    def __call__(self, x: Float[Array, "batch height width inputs"]) -> Float[Array, "batch rows columns outputs"]:
        y = layers.conv2d(x, self.kernel[...], stride=self.stride)
        return layers.group_norm(y, self.scale[...], self.offset[...], _GROUPS)


class _Block(nnx.Module):
    """y = relu(x' + f(x)), f two convolutions, x' the input or its 1x1 convolution."""

    def __init__(self, inputs: int, outputs: int, stride: int, *, rngs: nnx.Rngs):
        self.first = _ConvNorm(inputs, outputs, stride=stride, rngs=rngs)
        self.second = _ConvNorm(outputs, outputs, rngs=rngs)
        changes = stride > 1 or inputs != outputs
        self.shortcut = _ConvNorm(inputs, outputs, 1, stride, rngs=rngs) if changes else None

    def __call__(self, x: Float[Array, "batch height width inputs"]) -> Float[Array, "batch rows columns outputs"]:
        y = self.second(nnx.relu(self.first(x)))
        return nnx.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class _ResNet18(nnx.Module):
    def __init__(self, channels: int, num_classes: int, *, rngs: nnx.Rngs):
        self.stem = _ConvNorm(channels, _STAGES[0], rngs=rngs)
        blocks = []
        for inputs, outputs in pairwise((_STAGES[0], *_STAGES)):
            blocks.append(_Block(inputs, outputs, stride=1 if inputs == outputs else 2, rngs=rngs))
            blocks.append(_Block(outputs, outputs, stride=1, rngs=rngs))
        self.blocks = nnx.List(blocks)
        self.dense = _Dense(_STAGES[-1], num_classes, rngs=rngs)

    def __call__(self, x: Float[Array, "batch height width channels"]) -> Float[Array, "batch classes"]:
        x = nnx.relu(self.stem(x))
        for block in self.blocks:
            x = block(x)
        return self.dense(jnp.mean(x, axis=(1, 2)))


class _VGG16Net(nnx.Module):
    def __init__(self, pooled: tuple[int, int, int], num_classes: int, *, rngs: nnx.Rngs):
        height, width, channels = pooled
        widths = (channels, *(width for stage in _VGG16 for width in stage))
        self.conv = nnx.List([_ConvNorm(inputs, outputs, rngs=rngs) for inputs, outputs in pairwise(widths)])
        self.dense = _Dense(height * width * widths[-1], num_classes, rngs=rngs)

    def __call__(self, x: Float[Array, "batch height width channels"]) -> Float[Array, "batch classes"]:
        convolutions = iter(self.conv)
        for stage in _VGG16:
            for _ in stage:
                x = nnx.relu(next(convolutions)(x))
            x = layers.max_pool(x)
        return self.dense(x.reshape(x.shape[0], -1))
