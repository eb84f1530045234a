"""Modules that are imported when they are first used."""

import subprocess
import sys

import pytest

from gossipjax import tasks
from gossipjax._base.lazy import is_instance, names_on_demand

HEAVY = ("flax", "matplotlib", "networkx", "pandas", "pooch", "rich", "scipy.special", "scipy.stats", "xarray")


def test_importing_the_package_imports_nothing_that_only_some_functions_need() -> None:
    """In a new interpreter, because the tests themselves import these."""
    script = f"import sys, gossipjax; print(*[name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_every_public_name_can_be_found() -> None:
    assert {"mlp", "resnet18", "lstm", "Model", "iid"} <= set(tasks.__all__) == set(dir(tasks))
    assert all(hasattr(tasks, name) for name in tasks.__all__)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(AttributeError, match=r"'gossipjax\.tasks' has no attribute 'mpl'"):
        names_on_demand("gossipjax.tasks", {"gossipjax.tasks._models.models": ("mlp",)})("mpl")


def test_a_class_that_was_never_imported_has_no_values() -> None:
    assert not is_instance(1, "a_module_that_does_not_exist", "Graph")
    assert is_instance(1, "builtins", "int")
    assert not is_instance("1", "builtins", "int")
