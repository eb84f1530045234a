"""The table of names has what exists."""

import importlib
import inspect
import pathlib
import re

import compiling
import pytest

import gossipjax as gj

ROOT = pathlib.Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "names.md").read_text(encoding="utf-8")
ROWS = [line for line in PAGE.splitlines() if line.startswith("| `gj.")]


def test_the_table_has_rows():
    assert len(ROWS) >= 20


@pytest.mark.parametrize("line", ROWS)
def test_tables_name_what_exists(line):
    module = importlib.import_module("gossipjax." + re.match(r"\| `gj\.([\w.]+)`", line).group(1))
    names = re.findall(r"`(\w+)`", line.split("|", 2)[2])
    assert names
    for name in names:
        assert hasattr(module, name), name


@pytest.mark.parametrize("room", ["activity", "clocks", "flights", "losses", "overlays"])
def test_public_modules_of_the_timeline_export_what_they_define(room):
    module = importlib.import_module(f"gossipjax.timeline.{room}")
    functions = {name for name in module.__all__ if inspect.isroutine(getattr(module, name))}
    assert all(getattr(module, name).__module__ == module.__name__ for name in functions)
    named = [line for line in ROWS if line.startswith(f"| `gj.timeline.{room}`")]
    assert {name for line in named for name in re.findall(r"`(\w+)`", line.split("|", 2)[2])} <= functions


def test_every_room_has_a_page_of_the_reference(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs" / "_ext")
    pages = importlib.import_module("api_pages")
    named = {name: getattr(gj, name) for name in gj.__all__ if inspect.ismodule(getattr(gj, name))}
    rooms = {name for name, module in named.items() if module.__name__.startswith("gossipjax.")}
    assert rooms <= set(pages.ROOMS)
    listed = {re.match(r"\| `gj\.([\w.]+)`", line).group(1) for line in ROWS}
    assert listed <= set(pages.ROOMS)


def test_the_table_names_every_protocol():
    (row,) = [line for line in ROWS if line.startswith("| `gj.protocol` |")]
    builders = {name for name in dir(gj.protocol) if inspect.isfunction(getattr(gj.protocol, name))}
    assert "dpsgd" in builders
    assert builders <= set(re.findall(r"`(\w+)`", row.split("|", 2)[2])) | set(re.findall(r"gj\.(\w+)`", row))


def test_files_compiled_without_optimizations_exist():
    """A renamed file would be compiled with them again, in silence."""
    assert all((ROOT / "tests" / name).is_file() for name in compiling.FILES)
