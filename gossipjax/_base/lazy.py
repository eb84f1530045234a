"""Modules that are imported when they are first used, because only some functions need them.

``import gossipjax`` costs what every run needs. NetworkX, Matplotlib, flax and pooch are slow to import, and many runs
use none of them.
"""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any


class LazyModule(types.ModuleType):
    """A module that is imported when the first of its attributes is read.

    Args:
        name: the full name of the module.
    """

    def __getattr__(self, name: str) -> Any:
        """Import the module and return its attribute."""
        return getattr(importlib.import_module(self.__name__), name)


def names_on_demand(package: str, modules: Mapping[str, Sequence[str]]) -> Callable[[str], Any]:
    """Return a module-level ``__getattr__`` (PEP 562) that imports names when they are first read.

    Args:
        package: ``__name__`` of the package.
        modules: the full name of each module, and the names that it provides.
    """
    where = {name: module for module, names in modules.items() for name in names}

    def find(name: str) -> Any:
        if name not in where:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(where[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    return find


def is_instance(value: Any, module: str, name: str) -> bool:
    """Tell whether a value is of a class without importing its module: without it, no such value exists."""
    return module in sys.modules and isinstance(value, getattr(sys.modules[module], name))


if TYPE_CHECKING:
    import networkx
    import pooch
    from scipy import special, stats
else:
    networkx, pooch = LazyModule("networkx"), LazyModule("pooch")
    special, stats = LazyModule("scipy.special"), LazyModule("scipy.stats")
