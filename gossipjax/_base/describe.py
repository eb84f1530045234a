"""Short descriptions of protocols and sharings by the functions and settings that they bind.

They show what a value is made of, so two values that do the same have one description, however they were built: it is
part of the identity of a run. :mod:`gossipjax._base.call_text` shows the call that built a value, with hashes of its
arrays, and is preferred wherever there is a call record.
"""

from __future__ import annotations

from typing import Any

import optax
from jax.tree_util import Partial

from gossipjax._base.binding import Frozen, call, call_with, constant
from gossipjax.types import Protocol, Sharing, Task


def describe(value: Any) -> str:
    """Describe a protocol's step with all bound settings: ``dpsgd._adapt_then_combine(task, sgd(0.1), 1, full)``.

    A sharing is described by its ``encode``, arrays and data by their shape. An optax transformation hides its numbers;
    ``Partial(optax.sgd, 0.1)`` shows them.
    """
    match value:
        case Partial():
            return _partial(value)
        case Frozen():
            return describe(value.value)
        case Task():
            return f"task of {value.num_nodes} nodes"
        case Protocol():
            return describe(value.step)
        case Sharing():
            return describe(value.encode)
        case optax.GradientTransformation():
            return "optax transformation"
        case None | bool() | int() | float() | str():
            return repr(value)
    if callable(value):
        return _name(value)
    if hasattr(value, "shape"):
        return f"{float(value):g}" if value.shape == () else f"array{list(value.shape)}"
    return type(value).__name__


def _partial(value: Partial) -> str:
    if value.func is constant:
        return describe(value.args[0])
    if value.func in (call, call_with):
        value = Partial(value.args[0].value, *value.args[1:], **value.keywords)
        if not (value.args or value.keywords):
            return describe(value.func)
    bound = [describe(v) for v in value.args] + [f"{name}={describe(v)}" for name, v in value.keywords.items()]
    return f"{_name(value.func)}({', '.join(bound)})"


def _name(function: Any) -> str:
    module = getattr(function, "__module__", "") or ""
    name = getattr(function, "__qualname__", type(function).__name__)
    return f"{module.rsplit('.', 1)[-1]}.{name}" if module.startswith("gossipjax") else name
