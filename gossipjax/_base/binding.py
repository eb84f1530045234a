"""Compile-time constants: hashable values that become part of jit's cache key, and functions as pytrees."""

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
from gossipjax.facts import Requires
from gossipjax.types import Protocol, Task

T = TypeVar("T")


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True, eq=False)
class Frozen(Generic[T]):
    """A compile-time constant inside a pytree, such as a setting or an optax transformation.

    Two are equal, and share one compiled program, if their values have equal code and captured values: two calls of
    ``optax.sgd(0.1)`` are one transformation.
    """

    value: T

    @functools.cached_property
    def _key(self) -> Hashable:
        return closure_key(self.value)

    def __eq__(self, other: object) -> bool:
        """Return whether both values have the same closure key."""
        return isinstance(other, Frozen) and self._key == other._key

    def __hash__(self) -> int:
        """Hash the closure key of the value."""
        return hash(self._key)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Bound:
    """A function bound to hashable settings. Unlike ``functools.partial``, two with equal parts are equal."""

    function: Callable[..., Any]
    settings: tuple[Hashable, ...]

    def __call__(self, *arguments: Any) -> Any:
        """Call the function with the settings, then the arguments."""
        return self.function(*self.settings, *arguments)


def constant(value: Frozen[Any]) -> Any:
    """Return the value of a constant; bound to one, a factory without arguments."""
    return value.value


def as_task(task: Task) -> Task:
    """Check that the argument is a learning problem, and return it.

    Raises:
        TypeError: if it is not.
    """
    return instance("task", task, Task, "build one with gossipjax.tasks, such as quadratic(targets)")


def call(function: Frozen[Callable[..., Any]], *arguments: Any) -> Any:
    """Call a function that is a compile-time constant."""
    return function.value(*arguments)


def call_with(function: Frozen[Callable[..., Any]], *settings: Any, **named: Any) -> Any:
    """Call a function that is a compile-time constant; settings may be constants too."""
    settings, named = jax.tree.map(
        lambda value: value.value if isinstance(value, Frozen) else value,
        (settings, named),
        is_leaf=lambda value: isinstance(value, Frozen),
    )
    return function.value(*settings, **named)


def as_factory(optimizer: optax.GradientTransformation | Callable[[], optax.GradientTransformation]) -> Partial:
    """Turn an optimizer into a pytree that returns the optimizer when called.

    Args:
        optimizer: an optax transformation, whose numbers become compile-time constants (a second one with equal numbers
            does not recompile); or ``Partial(optax.sgd, 0.1)``, whose numbers stay arguments: a new learning rate does
            not recompile, and can be vmapped over. Functions among its arguments, such as schedules, become constants.

    Raises:
        TypeError: if optimizer is neither, or the Partial does not return an optax transformation.
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
    """Turn a function into a pytree: values bound by ``Partial`` stay arguments, captured values become constants.

    Args:
        name: name of the argument, for the message.
        function: the function.
        signature: expected signature, for the message.

    Raises:
        TypeError: if function is not callable.
    """
    callable_(name, function, signature)
    return function if isinstance(function, Partial) else Partial(call, Frozen(function))


def unwrap(function: Any) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """Return the function inside ``Partial`` and constants, and the values that they bind: in front, and by name."""
    bound: tuple[Any, ...] = ()
    named: dict[str, Any] = {}
    while True:
        if isinstance(function, Partial):
            function, bound, named = function.func, (*function.args, *bound), function.keywords | named
        elif function is call and bound and isinstance(bound[0], Frozen):
            function, bound = bound[0].value, bound[1:]
        else:
            return function, bound, named


def _settings_apart(factory: Partial) -> Partial:
    """Make constants of the functions, flags and strings that a Partial binds, since jit takes arrays only."""
    values, structure = jax.tree.flatten((factory.args, factory.keywords))
    if all(map(_is_number, values)):
        return factory
    arguments, named = jax.tree.unflatten(structure, [v if _is_number(v) else Frozen(v) for v in values])
    return Partial(call_with, Frozen(factory.func), *arguments, **named)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | complex | np.number | np.ndarray | jax.Array) and not isinstance(value, bool)


def _made_by(factory: Partial) -> Any:
    """Call a factory to learn the type of its result; errors repeat the factory's own message."""
    try:
        return factory()
    except Exception as problem:
        raise TypeError(f"optimizer={shown(factory)}: cannot be called: {problem}; {_REMEDY}") from problem


def bind(protocol: Protocol) -> Protocol:
    """Turn the plain functions of a protocol into pytrees, which jit needs.

    Raises:
        TypeError: if protocol is not a protocol, or a field is not callable.
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
"""Signatures, and whether the function is optional."""
