"""Check annotations during tests: jaxtyping's import hook, with half of its checks left out because they come twice.

The decorator that the hook puts on a function checks the arguments before the call, and again together with the result
after it. Of a test that traces small programs that is a fifth of the time. Here beartype checks arguments and result in
one pass; the sizes of named axes hold for both, as before.
"""

import functools
import inspect
import types
import typing

import jaxtyping
from beartype import BeartypeConf, beartype

_check = beartype(conf=BeartypeConf(violation_type=jaxtyping.TypeCheckError))
_of_jaxtyping = jaxtyping.jaxtyped


def install(packages):
    """Check the annotations of the modules of these packages that are imported from here on."""
    jaxtyping.jaxtyped = _in_one_pass
    return jaxtyping.install_import_hook(packages, "beartype.beartype")


def _in_one_pass(fn=None, *, typechecker=None):
    """Stand in for ``jaxtyping.jaxtyped``, which the hook calls with a type checker alone."""
    usual = functools.partial(_of_jaxtyping, typechecker=typechecker)
    if fn is not None:
        return usual(fn)
    return lambda function: usual(function) if _is_special(function) else _checked(function)


def _is_special(function):
    """Whether jaxtyping has more to do: at classes, and at sizes such as ``{num_rows}`` that are read off arguments."""
    return not inspect.isfunction(function) or any("{" in str(hint) for hint in function.__annotations__.values())


def _checked(function):
    checked = _check(_with_resolved_hints(function))

    @functools.wraps(function)
    def call(*args, **kwargs):
        __tracebackhide__ = True
        if jaxtyping.config.jaxtyping_disable:
            return function(*args, **kwargs)
        with _of_jaxtyping("context"):
            return checked(*args, **kwargs)

    return call


def _with_resolved_hints(function):
    """Copy a function, with types in place of strings and ``Any`` for names that only a type checker imports."""
    copy = types.FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    copy.__module__, copy.__qualname__ = function.__module__, function.__qualname__
    copy.__annotations__ = _resolved(function)
    return copy


def _resolved(function):
    """All annotations at once or, if a name in one of them does not exist when the program runs, one by one."""
    try:
        return typing.get_type_hints(function, include_extras=True)
    except Exception:
        return {name: _one_resolved(hint, function) for name, hint in function.__annotations__.items()}


def _one_resolved(hint, function):
    holder = types.SimpleNamespace(__annotations__={"hint": hint})
    try:
        return typing.get_type_hints(holder, function.__globals__, include_extras=True)["hint"]
    except Exception:
        return typing.Any
