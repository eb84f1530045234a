"""Models: pairs of pure functions ``init(key) -> params`` and ``apply(params, x) -> logits``.

A task accepts any such pair. Nothing here needs flax.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Key

from gossipjax._base.arguments import shown
from gossipjax._base.calls import recordable
from gossipjax._base.display import displayed
from gossipjax.types import Params


@displayed
@recordable
class Model(NamedTuple):
    """A pair of pure, hashable functions.

    Models of this module that are built with the same arguments are equal and share one compiled program.

    Attributes:
        init: ``init(key) -> params``.
        apply: ``apply(params, x) -> logits``, x ``(batch, ...)``, logits ``(batch, num_classes)``.
    """

    init: Callable[[Key[Array, ""]], Params]
    apply: Callable[[Params, Array], Array]

    def _facts(self) -> tuple[str, dict[str, Any]]:
        params = jax.eval_shape(self.init, jax.random.key(0))
        layers = [f"{jax.tree_util.keystr(at)} {leaf.shape}" for at, leaf in jax.tree.leaves_with_path(params)]
        return "", {"parameters": num_parameters(params), "arrays": ", ".join(layers)}


def check_model(model: Any, inputs: jax.ShapeDtypeStruct, num_outputs: int, outputs: str) -> Model:
    """Check the shapes of a model on a batch, without computing it.

    Args:
        model: ``(init, apply)``.
        inputs: shape and type of a batch, ``(b, ...)``.
        num_outputs: logits per input that the task needs.
        outputs: meaning of the logits, for the message.

    Returns:
        The model.

    Raises:
        TypeError: if the model is not a pair of hashable functions.
        ValueError: if the model rejects such inputs or has another number of outputs; the message names both shapes.
    """
    remedy = "build one with gossipjax.tasks, such as mlp(64, (32,), 10), or from_nnx(YourModule, *settings)"
    if not (isinstance(model, tuple) and len(model) == 2 and all(map(callable, model))):
        raise TypeError(f"model={shown(model)}: must be a pair of functions (init, apply); {remedy}")
    model = Model(*model)
    try:
        hash(model)
    except TypeError as error:
        raise TypeError(f"model={shown(model)}: its functions must be hashable; {remedy}") from error
    try:
        params = jax.eval_shape(model.init, jax.random.key(0))
    except Exception as error:
        raise ValueError(f"model={shown(model)}: init(key) fails: {first_line(error)}") from error
    leaves = [
        f"{jax.tree_util.keystr(path)} {leaf.shape}" for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    ]
    try:
        logits = jax.eval_shape(model.apply, params, inputs)
    except Exception as error:
        numbers = math.prod(inputs.shape[1:])
        raise ValueError(
            f"the model does not take inputs of shape {inputs.shape[1:]} ({numbers} numbers each): "
            f"{first_line(error)}; its parameters begin {', '.join(leaves[:4])}; build it for these inputs"
        ) from error
    if (shape := getattr(logits, "shape", None)) != (expected := (inputs.shape[0], num_outputs)):
        raise ValueError(
            f"the model gives logits of shape {shape} for a batch of {inputs.shape[0]} inputs of shape "
            f"{inputs.shape[1:]}, but must give {expected}: one for each of {outputs}; build it with that many outputs"
        )
    return model


def num_parameters(params: Any) -> int:
    """Count the parameters of a model.

    Raises:
        TypeError: if a leaf is not an array.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if not hasattr(leaf, "size"):
            where = f"params{jax.tree_util.keystr(path)}"
            raise TypeError(f"{where}={shown(leaf)}: must be an array; pass a model's parameters")
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def first_line(error: Exception) -> str:
    """Return the first line of the message of an error, without its last punctuation."""
    return str(error).strip().partition("\n")[0].rstrip(".:; ")
