"""INI files with typed keys: every key is known or refused by name, and nothing in a file is ever executed."""

from __future__ import annotations

import configparser
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, NoReturn

REQUIRED = object()
"""In the place of a default: the key must be there."""


class Kind(NamedTuple):
    """What a key holds."""

    parse: Callable[[str], Any]
    rule: str
    default: Any = REQUIRED
    """Of a key that is missing or empty."""


class Section(NamedTuple):
    """One section of a file."""

    path: pathlib.Path
    name: str
    values: Mapping[str, str]

    def refuse(self, key: str, reason: str) -> NoReturn:
        """Raise ValueError that names the file, the section, the key and its value."""
        raise ValueError(f"{self.path}, [{self.name}] {key} = {self.values.get(key, '')}: {reason}")

    def choose(self, key: str, known: Mapping[str, Any], refused: Mapping[str, str], default: str | None = None) -> str:
        """Return the value of a key that must be one of the known ones; those that are refused have a reason."""
        value = self.values.get(key) or default
        if value is None:
            raise ValueError(f"{self.path}: [{self.name}] has no {key}; use one of {', '.join(known)}")
        if value in refused:
            self.refuse(key, f"{refused[value]}; use one of {', '.join(known)}")
        if value not in known:
            self.refuse(key, f"unknown; use one of {', '.join(known)}")
        return value

    def take(self, known: Mapping[str, Kind]) -> dict[str, Any]:
        """Parse all keys, and fill in the defaults.

        Raises:
            ValueError: a key that is not known, a value of the wrong form, or a required key that is missing.
        """
        if unknown := [key for key in self.values if key not in known]:
            self.refuse(unknown[0], f"unknown key; use one of {', '.join(known)}")
        return {key: self.one(key, kind) for key, kind in known.items()}

    def one(self, key: str, kind: Kind) -> Any:
        """Parse one key, or return its default; ValueError as of :meth:`take`."""
        text = self.values.get(key, "")
        if not text:
            if kind.default is REQUIRED:
                raise ValueError(f"{self.path}: [{self.name}] has no {key}; use {kind.rule}")
            return kind.default
        try:
            return kind.parse(text)
        except (ValueError, TypeError):
            self.refuse(key, f"use {kind.rule}")

    def unused(self, keys: Mapping[str, str]) -> tuple[str, ...]:
        """Say of each of these keys that the file has why it has no effect."""
        return tuple(f"{key} has no effect: {reason}" for key, reason in keys.items() if self.values.get(key))


def read_sections(path: pathlib.Path, required: tuple[str, ...], optional: tuple[str, ...]) -> dict[str, Section]:
    """Read a file; an optional section that is missing is left out.

    Raises:
        ValueError: no such file, not an INI file, or a section that is missing or unknown.
    """
    parser = configparser.ConfigParser(interpolation=None, inline_comment_prefixes=(";", "#"))
    try:
        parser.read_string(path.read_text(encoding="utf-8"), source=str(path))
    except OSError as error:
        raise ValueError(
            f"path={str(path)!r}: cannot be read ({error.strerror}); use the path of an INI file"
        ) from error
    except (configparser.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not an INI file: {str(error).splitlines()[0]}") from error
    if unknown := [name for name in parser.sections() if name not in (*required, *optional)]:
        raise ValueError(f"{path}: unknown section [{unknown[0]}]; use {', '.join((*required, *optional))}")
    if missing := [name for name in required if name not in parser]:
        raise ValueError(f"{path}: there is no section [{missing[0]}]; use {', '.join(required)}")
    return {name: Section(path, name, dict(parser[name])) for name in parser.sections()}


def _truth(text: str) -> bool:
    return text == "True" if text in ("True", "False") else _fail()


def _fail() -> NoReturn:
    raise ValueError


def _count(text: str) -> int:
    return number if (number := int(text)) >= 1 else _fail()


def _shares(text: str) -> tuple[float, ...]:
    values = json.loads(text)
    if not isinstance(values, list) or not values or not all(type(v) in (int, float) and 0 < v <= 1 for v in values):
        _fail()
    return tuple(float(value) for value in values)


def _positive(text: str) -> float:
    return value if 0 < (value := float(text)) < float("inf") else _fail()


def _nonnegative(text: str) -> float:
    return value if 0 <= (value := float(text)) < float("inf") else _fail()


def _seed(text: str) -> int:
    return number if (number := int(text)) >= 0 else _fail()


def _share(text: str) -> float:
    return value if 0 < (value := float(text)) <= 1 else _fail()


def flag(default: Any = REQUIRED) -> Kind:
    """``True`` or ``False``."""
    return Kind(_truth, "True or False", default)


def count(default: Any = REQUIRED) -> Kind:
    """A whole number from 1 on."""
    return Kind(_count, "a whole number from 1 on", default)


def seed(default: Any = REQUIRED) -> Kind:
    """A whole number from 0 on."""
    return Kind(_seed, "a whole number from 0 on", default)


def positive(default: Any = REQUIRED) -> Kind:
    """A number above 0."""
    return Kind(_positive, "a number above 0", default)


def nonnegative(default: Any = REQUIRED) -> Kind:
    """A number from 0 on."""
    return Kind(_nonnegative, "a number from 0 on", default)


def share(default: Any = REQUIRED) -> Kind:
    """A number in (0, 1]."""
    return Kind(_share, "a number above 0, up to 1", default)


def shares(default: Any = REQUIRED) -> Kind:
    """A list of numbers in (0, 1]."""
    return Kind(_shares, "a list of numbers above 0, up to 1, such as [0.1, 1.0]", default)


def word(default: Any = None) -> Kind:
    """Any text."""
    return Kind(str, "a name", default)
