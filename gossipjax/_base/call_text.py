"""Call records as Python expressions, for manifests.

They show how a value was built. :mod:`gossipjax._base.describe` shows what a value is made of, for values without a
record, such as ``protocol._replace(...)``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gossipjax._base.calls import Array, Attribute, Call, Closure, Function, Many, Object, Opaque, record_of


def brief(value: Any) -> str | None:
    """Format the call that built a value, with nested calls by name only; None if the value has no call record."""
    record = record_of(value)
    return _brief(record) if isinstance(record, Call) else None


def _brief(record: Call) -> str:
    shown = (
        f"{name}={_short(value.function) if isinstance(value, Call) else text(value)}"
        for name, value in record.arguments
    )
    return f"{_short(record.function)}({', '.join(shown)})"


def text(record: Any) -> str:
    """Format a record as a Python expression; arrays by dtype, shape and hash."""
    show = _TEXTS.get(type(record))
    return repr(record) if show is None else show(record)


def _call_text(record: Call) -> str:
    found = f" [sha256 {record.checksum[:12]}]" if record.checksum else ""
    return f"{_short(record.function)}({_pairs(record.arguments)}){found}"


def _array_text(record: Array) -> str:
    if record.values is not None and record.values.size <= 8:
        return f"array({record.values.tolist()}, {record.dtype})"
    return f"array {record.dtype}{list(record.shape)} [sha256 {record.sha256[:12]}]"


def _many_text(record: Many) -> str:
    shown = list(map(text, record.values))
    if record.kind == "dict":
        return "{" + ", ".join(f"{name!r}: {value}" for name, value in zip(record.names, shown, strict=True)) + "}"
    if record.kind == "set":
        return "{" + ", ".join(shown) + "}"
    return f"[{', '.join(shown)}]" if record.kind == "list" else f"({', '.join(shown)}{',' * (len(shown) == 1)})"


def _object_text(record: Object) -> str:
    fields: dict[str, Any] = dict(record.fields)
    if record.kind.endswith(":Frozen"):
        return text(fields["value"])
    if record.kind.rpartition(":")[2].startswith("GradientTransformation"):
        return text(fields["update"])
    if record.kind.endswith((":Partial", ":partial")):
        keywords = zip(fields["keywords"].names, fields["keywords"].values, strict=True)
        bound = [*map(text, fields["args"].values), *(f"{name}={text(value)}" for name, value in keywords)]
        return f"{text(fields['func'])}({', '.join(bound)})"
    return f"{_short(record.kind)}({_pairs(record.fields)})"


def _pairs(named: tuple[tuple[str, Any], ...]) -> str:
    return ", ".join(f"{name}={text(value)}" for name, value in named)


def _short(name: str) -> str:
    """Shorten a full name to the one that users know: ``optax._src.alias:sgd`` is optax.sgd."""
    module, _, inside = name.partition(":")
    return f"{module.partition('.')[0]}.{inside}" if module.startswith("optax") else inside


_TEXTS: dict[type, Callable[[Any], str]] = {
    Call: _call_text,
    Attribute: lambda record: f"{text(record.of)}.{record.name}",
    Array: _array_text,
    Many: _many_text,
    Function: lambda record: _short(record.name),
    Closure: lambda record: f"{_short(record.name.split('.<locals>')[0])}({_pairs(record.captured)})",
    Object: _object_text,
    Opaque: lambda record: f"<{record.text}>",
}
