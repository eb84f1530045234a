"""Values that jit compares instead of tracing."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

import jax
import numpy as np
import optax
from jax.tree_util import Partial

from gossipjax._base.arguments import callable_, instance, shown
from gossipjax._base.closures import closure_key
from gossipjax.types import Protocol, Requires, Task

T = TypeVar("T")


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True, eq=False)
class Frozen(Generic[T]):
    """A value inside a pytree that is compiled in: a setting, an optax transformation.

    Two are equal, and share one compiled program, where their values are built alike
    (:func:`gossipjax._base.closures.closure_key`): ``optax.sgd(0.1)`` written twice is one transformation.
    """

    value: T

    @functools.cached_property
    def _key(self) -> Hashable:
        return closure_key(self.value)

    def __eq__(self, other: object) -> bool:
        """Whether both hold values that are built alike."""
        return isinstance(other, Frozen) and self._key == other._key

    def __hash__(self) -> int:
        """Hash what the value is built of."""
        return hash(self._key)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Bound:
    """A function bound to hashable settings: equal where these are, while ``functools.partial`` equals only itself."""

    function: Callable[..., Any]
    settings: tuple[Hashable, ...]

    def __call__(self, *arguments: Any) -> Any:
        """Call the function with its settings first."""
        return self.function(*self.settings, *arguments)


def constant(value: Frozen[Any]) -> Any:
    """Return what is inside, as a function of no further arguments."""
    return value.value


def as_task(task: Task) -> Task:
    """Return a learning problem.

    Raises:
        TypeError: something else.
    """
    return instance("task", task, Task, "build one with gossipjax.tasks, such as quadratic(targets)")


def call(function: Frozen[Callable[..., Any]], *arguments: Any) -> Any:
    """Call a function that is compiled in."""
    return function.value(*arguments)


def call_with(function: Frozen[Callable[..., Any]], *settings: Any, **named: Any) -> Any:
    """Call a function that is compiled in, with settings of which some are compiled in too."""
    settings, named = jax.tree.map(
        lambda value: value.value if isinstance(value, Frozen) else value,
        (settings, named),
        is_leaf=lambda value: isinstance(value, Frozen),
    )
    return function.value(*settings, **named)


def as_factory(optimizer: optax.GradientTransformation | Callable[[], optax.GradientTransformation]) -> Partial:
    """Turn an optimizer into a pytree that makes it when called.

    Args:
        optimizer: an optax transformation, whose numbers are then compiled in (written again with equal numbers it
            does not recompile); or ``Partial(optax.sgd, 0.1)``, whose numbers are arguments: another learning rate
            does not recompile, and it can be vmapped over. A function among its arguments, such as a schedule, is
            compiled in.

    Raises:
        TypeError: neither of them, or a Partial that does not make an optax transformation.
    """
    if isinstance(optimizer, Partial):
        _check_rate(optimizer)
        factory = _settings_apart(optimizer)
        if not isinstance(_made_by(factory), optax.GradientTransformation):
            raise TypeError(f"optimizer={shown(optimizer)}: must make an optax transformation when called; {_REMEDY}")
        return factory
    if isinstance(optimizer, optax.GradientTransformation):
        return Partial(constant, Frozen(optimizer))
    raise TypeError(f"optimizer={shown(optimizer)}: must be an optax transformation; {_REMEDY}")


_REMEDY = "pass optax.sgd(0.1), or jax.tree_util.Partial(optax.sgd, 0.1) to keep its numbers as arguments"


def _check_rate(factory: Partial) -> None:
    """Refuse a word in the place of a learning rate: optax would fail at the first step."""
    rate = factory.keywords.get("learning_rate", factory.args[0] if factory.args else None)
    if isinstance(rate, str):
        raise TypeError(f"optimizer={shown(factory)}: its learning rate {rate!r} must be a number; {_REMEDY}")


def as_partial(name: str, function: Callable[..., Any], signature: str) -> Partial:
    """Turn a function into a pytree: what ``Partial`` binds stays an argument, what a closure captured is compiled in.

    Args:
        name: of the argument, for the message.
        function: what was passed.
        signature: that it must have, for the message.

    Raises:
        TypeError: something that cannot be called.
    """
    callable_(name, function, signature)
    return function if isinstance(function, Partial) else Partial(call, Frozen(function))


def _settings_apart(factory: Partial) -> Partial:
    """Compile in what is no number (functions, flags, words) among what a Partial binds: jit takes arrays only."""
    values, structure = jax.tree.flatten((factory.args, factory.keywords))
    if all(map(_is_number, values)):
        return factory
    arguments, named = jax.tree.unflatten(structure, [v if _is_number(v) else Frozen(v) for v in values])
    return Partial(call_with, Frozen(factory.func), *arguments, **named)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | complex | np.number | np.ndarray | jax.Array) and not isinstance(value, bool)


def _made_by(factory: Partial) -> Any:
    """Call a factory for its kind only; numbers of wrong kinds are refused in its own words."""
    try:
        return factory()
    except Exception as problem:
        raise TypeError(f"optimizer={shown(factory)}: cannot be called: {problem}; {_REMEDY}") from problem


def bind(protocol: Protocol) -> Protocol:
    """Let plain functions stand in a protocol: jit needs pytrees.

    Raises:
        TypeError: something that is no protocol, or whose functions are none.
    """
    instance("protocol", protocol, Protocol, "build one with gossipjax.protocol, such as gossip_averaging()")
    instance("protocol.requires", protocol.requires, Requires, "leave it out, or pass gossipjax.Requires(...)")
    functions = {name: getattr(protocol, name) for name in _PROTOCOL}
    bound: dict[str, Any] = {
        name: function if function is None and optional else as_partial(f"protocol.{name}", function, signature)
        for (name, function), (signature, optional) in zip(functions.items(), _PROTOCOL.values(), strict=True)
    }
    return protocol._replace(**bound)


_PROTOCOL = {
    "init": ("init(key, x0) -> state", False),
    "step": ("step(key, state, event) -> (state, Info)", False),
    "model": ("model(state) -> x", False),
    "versions": ("versions(state) -> Versions", True),
    "meter": ("meter(state) -> Meter", True),
}
"""Signatures, and whether a protocol may leave the function out."""
