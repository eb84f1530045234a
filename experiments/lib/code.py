"""The code that makes a run: the definitions that a function reaches, wherever they stand in our packages.

A run of days must not become worthless because somebody corrected a docstring, or added a protocol that it does not
use. So its code is neither the files of the repository nor the modules that Python imports, which are all of them, but
the definitions that its function can reach: top-level functions, classes and constants whose names stand in its body,
those in their bodies, and so on. Names are followed through imports and through attributes of our modules; a module
that is passed on as a value counts with all that it defines. Beside the definitions of a module that is reached count
its statements that define nothing, such as registrations. A local variable counts as the definition that has its
name: rather too much than too little.

Comments, layout, docstrings and what a ``raise`` says do not count: they change no number. Nor do the modules of
:data:`BESIDE`.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import experiments
import gossipjax
import theory

ROOTS = {package.__name__: pathlib.Path(package.__file__ or "").parent for package in (gossipjax, theory, experiments)}
"""Our packages; other packages are identified by version."""


_BASE = (
    "arguments",
    "call_json",
    "call_text",
    "calls",
    "closures",
    "describe",
    "display",
    "figure",
    "memory",
    "palette",
)
BESIDE = (
    "gossipjax.facts",
    "gossipjax.results",
    "gossipjax._engine.checks",
    *(f"gossipjax._base.{name}" for name in _BASE),
    "experiments.lib.store",
    "experiments.lib.kept",
    "experiments.lib.cells",
)
"""Modules, or packages of them, that refuse, describe, draw or store, and change no number."""


class Definition(NamedTuple):
    """A top-level name of a module; empty for the statements that define nothing, ``*`` for all that it has."""

    module: str
    name: str


class Source(NamedTuple):
    """What one module defines and imports."""

    statements: dict[str, list[ast.stmt]]
    """By the name that they bind; under the empty name those that bind none."""
    imports: dict[str, tuple[str, str]]
    """Module and name of what an import binds, anywhere in the module; the name of a whole module is empty."""
    stars: list[str]
    """Modules from which it imports all names."""


@functools.cache
def digest_of_code(function: Callable[..., Any]) -> str:
    """Compute a checksum of all definitions that a module-level function reaches, itself included."""
    found = hashlib.sha256()
    for one in sorted(definitions_of(function)):
        for statement in _source(one.module).statements[one.name]:
            text = f"{one.module}:{one.name}:{_plain(statement)}"
            found.update(f"{len(text)}:{text}".encode())
    return found.hexdigest()[:16]


def definitions_of(function: Callable[..., Any]) -> set[Definition]:
    """Find all definitions of our packages that a module-level function reaches, itself included.

    Raises:
        ValueError: it is no top-level function of a module of ours.
    """
    if _path(function.__module__) is None or function.__qualname__ not in _source(function.__module__).statements:
        raise ValueError(f"{function!r}: must be a top-level function of {', '.join(ROOTS)}, so that its code is known")
    found: set[Definition] = set()
    left = [Definition(function.__module__, function.__qualname__)]
    while left:
        one = left.pop()
        if one in found:
            continue
        found.add(one)
        left += _next(one)
    return {one for one in found if one.name in _source(one.module).statements}


def _next(one: Definition) -> Iterator[Definition]:
    """Name the definitions that one uses directly."""
    source = _source(one.module)
    if one.name == "*":
        for name in source.statements:
            yield Definition(one.module, name)
        for target in source.imports.values():
            yield from _resolved(*target, ())
    elif one.name in source.statements:
        yield Definition(one.module, "")
        for statement in source.statements[one.name]:
            yield from _used(statement, one.module)


def _used(statement: ast.stmt, module: str) -> Iterator[Definition]:
    """Name the definitions that a statement uses directly."""
    for chain in _chains(statement):
        source = _source(module)
        if chain[0] in source.imports:
            yield from _resolved(*source.imports[chain[0]], chain[1:])
        else:
            yield Definition(module, chain[0])


def _chains(node: ast.AST) -> Iterator[tuple[str, ...]]:
    """Yield the names in a statement, each with the attributes that are read from it: ``a.b.c`` as one."""
    at, attributes = node, []
    while isinstance(at, ast.Attribute):
        attributes.append(at.attr)
        at = at.value
    if isinstance(at, ast.Name):
        yield at.id, *reversed(attributes)
    elif not isinstance(at, ast.Raise):
        for child in ast.iter_child_nodes(at):
            yield from _chains(child)


def _resolved(module: str, name: str, attributes: tuple[str, ...]) -> Iterator[Definition]:
    """Follow a name of a module, through imports and attributes of modules, to where it is defined.

    Raises:
        ValueError: there is no such name, so that some of the code would be left out.
    """
    if _path(module) is None or any(f"{module}.".startswith(f"{beside}.") for beside in BESIDE):
        return
    source = _source(module)
    if not name and attributes:
        yield from _resolved(module, attributes[0], attributes[1:])
    elif not name:  # the module itself is passed on
        yield Definition(module, "*")
    elif name in source.statements:
        yield Definition(module, name)
    elif source.imports.get(name, (module, name)) != (module, name):
        yield from _resolved(*source.imports[name], attributes)
    elif _path(f"{module}.{name}") is not None:
        yield from _resolved(f"{module}.{name}", "", attributes)
    elif star := next((star for star in source.stars if _knows(star, name)), None):
        yield from _resolved(star, name, attributes)
    elif not name.startswith("__"):  # such as __file__, which all modules have
        raise ValueError(f"{module} has no {name}: the digest of code follows plain imports only")


def _knows(module: str, name: str) -> bool:
    """Whether a module of ours has a name."""
    if _path(module) is None:
        return False
    source = _source(module)
    return name in source.statements or name in source.imports or any(_knows(star, name) for star in source.stars)


def _path(module: str) -> pathlib.Path | None:
    """Find the file of one of our modules."""
    top, *inner = module.split(".")
    if top not in ROOTS:
        return None
    base = ROOTS[top].joinpath(*inner)
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


@functools.cache
def _source(module: str) -> Source:
    """Read a module once: a process keeps running the code that it began with."""
    path = _path(module)
    assert path is not None, module
    found, package = Source({}, {}, []), module if path.stem == "__init__" else module.rpartition(".")[0]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            bound = dict(_bound(node, package))
            if star := bound.pop("*", None):
                found.stars.append(star[0])
            found.imports.update(bound)
    for statement in tree.body:
        if not isinstance(statement, ast.Import | ast.ImportFrom) and not _is_text(statement):
            for name in sorted(_names(statement)) or [""]:
                found.statements.setdefault(name, []).append(statement)
    return found


def _bound(node: ast.Import | ast.ImportFrom, package: str) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield what an import binds, and to what."""
    for alias in node.names:
        if isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            yield alias.asname or alias.name, (".".join([*above, *filter(None, [node.module])]), alias.name)
        elif alias.asname:
            yield alias.asname, (alias.name, "")
        else:
            yield alias.name.split(".")[0], (alias.name.split(".")[0], "")


def _names(statement: ast.stmt) -> set[str]:
    """Name what a top-level statement binds."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {statement.name}
    inner = {node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    blocks = (block for field in ("body", "orelse", "handlers", "finalbody") for block in getattr(statement, field, []))
    return inner.union(*(_names(block) for block in blocks if isinstance(block, ast.stmt)))


def _is_text(node: Any) -> bool:
    """Whether a statement is a text that stands alone, such as a docstring."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _plain(node: Any) -> str:
    """Write a syntax tree down, without what changes no number, and identically in all versions of Python."""
    if isinstance(node, ast.Raise):
        return "raise"
    if isinstance(node, list):
        return f"[{','.join(_plain(each) for each in node if not _is_text(each))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    # Later versions add fields that are empty in what earlier ones can say.
    fields = [(name, value) for name, value in ast.iter_fields(node) if value is not None and value != []]
    told = ",".join(f"{name}={_plain(value)}" for name, value in fields if name not in ("kind", "type_comment"))
    return f"{type(node).__name__}({told})"
