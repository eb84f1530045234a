"""Imports run one way: the engine knows no theory, theory knows no engine, figures know results and the palette."""

import ast
import importlib
import inspect
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
OURS = {"gossipjax", "theory", "experiments", "figures", "benchmarks", "paper", "notebooks", "tests"}


def imported(source: str, package: str) -> set[str]:
    """Full dotted names of everything a module imports."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                base = ".".join([*parts[: len(parts) - node.level + 1], *([base] if base else [])])
            names |= {f"{base}.{alias.name}" for alias in node.names}
    return names


def ours(path: pathlib.Path) -> set[str]:
    package = ".".join(path.relative_to(ROOT).parent.parts)
    return {name for name in imported(path.read_text(), package) if name.split(".")[0] in OURS}


def modules(folder: str) -> list[pathlib.Path]:
    """All files but those of the study that ``python -m gossipjax new`` copies, which no one imports from here."""
    return sorted(path for path in (ROOT / folder).rglob("*.py") if "study" not in path.parts)


def allowed(path: pathlib.Path) -> tuple[str, ...]:
    top, relative = path.relative_to(ROOT).parts[0], str(path.relative_to(ROOT))
    if relative.startswith("theory/check/") or relative == "theory/__main__.py":
        return "theory", "gossipjax"
    return {
        "gossipjax": ("gossipjax",),
        "theory": ("theory",),
        "experiments": ("experiments", "gossipjax", "theory"),
        "figures": ("figures", "theory", "experiments.lib.store", "gossipjax._base.palette"),
        "paper": ("paper", "benchmarks.tables"),
        "notebooks": ("gossipjax", "theory"),
    }[top]


@pytest.mark.parametrize("folder", ["gossipjax", "theory", "experiments", "figures", "paper", "notebooks"])
def test_imports_run_one_way(folder):
    for path in modules(folder):
        for name in ours(path):
            fits = any(name == prefix or name.startswith(prefix + ".") for prefix in allowed(path))
            assert fits, f"{path.relative_to(ROOT)} imports {name}"


FLOORS = (
    {"_base", "facts", "types"},
    {"topology"},
    {"mixing"},
    {"compress", "devices", "robust", "tasks", "timeline", "wrappers"},
    {"observe", "privacy", "sharing", "systems"},
    {"protocol", "results"},
    {"_engine"},
    {"decentralizepy", "deploy", "design", "learn", "sweeps", "testing", "_new"},
    {"predict", "review"},
    {"__main__"},
)
"""Rooms of the package, from the ground up: a room imports from lower floors only, never from one beside it."""
FROM_TASKS = {"devices"}
"""Traces of devices come as the files of data sets do."""


def test_rooms_import_from_the_floors_below():
    floor = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
    found = {path.relative_to(ROOT / "gossipjax").parts[0].removesuffix(".py") for path in modules("gossipjax")}
    assert found - {"__init__"} == set(floor)
    for path in modules("gossipjax"):
        room = path.relative_to(ROOT / "gossipjax").parts[0].removesuffix(".py")
        for name in at_import(path) if room != "__init__" else ():
            other = name.split(".")[1] if "." in name else room
            beside = floor[room] == 0 == floor.get(other) or (other == "tasks" and room in FROM_TASKS)
            assert other == room or beside or floor[other] < floor[room], f"{path.relative_to(ROOT)} imports {name}"


PRIVATE = {
    "_engine": {"timeline._moments"},
    "deploy": {
        *(f"protocol.{name}" for name in ("_ad_psgd", "_dpsgd", "_gossip")),
        *(f"sharing.{name}" for name in ("_full", "_jwins", "_random_subset")),
    },
    "testing": {
        *(f"timeline._poisson.{name}" for name in ("_edge_fires", "_node_pushes", "_node_wakes")),
        *(f"timeline._rounds.{name}" for name in ("_cyclic_round", "_fixed_round", "_matching_round")),
    },
}
"""Private modules and names that a room still takes from another."""


def test_rooms_do_not_import_private_names_of_other_rooms():
    found: dict[str, set[str]] = {}
    for path in modules("gossipjax"):
        room = path.relative_to(ROOT / "gossipjax").parts[0].removesuffix(".py")
        for name in ours(path):
            other, _, rest = name.removeprefix("gossipjax.").partition(".")
            if other != room and rest.rpartition(".")[2].startswith("_"):
                found.setdefault(room, set()).add(f"{other}.{rest}")
    assert found == PRIVATE


def at_import(path: pathlib.Path) -> set[str]:
    """What of the package a module imports when it is imported itself: not what its functions import later."""
    tree = ast.parse(path.read_text())
    body = [node for node in tree.body if isinstance(node, ast.ImportFrom | ast.Import)]
    names = imported(ast.unparse(ast.Module(body, [])), "gossipjax")
    return {name for name in names if name.startswith("gossipjax.")}


def test_functions_do_not_hide_their_modules():
    """``import gossipjax.room.name`` is a module wherever there is a file of this name."""
    for path in modules("gossipjax"):
        if path.name != "__init__.py":
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            parent = importlib.import_module(name.rpartition(".")[0])
            assert inspect.ismodule(getattr(importlib.import_module(name) and parent, path.stem)), name


def test_formulas_know_nothing_of_the_claims():
    for path in modules("theory"):
        if "check" not in path.parts and path.name != "__main__.py":
            assert not any(name.startswith("theory.check") for name in ours(path)), path


def test_theory_imports_itself_by_relative_names():
    """A wheel holds the folder as ``gossipjax_theory``."""
    for path in modules("theory"):
        assert not any(name.split(".")[0] == "theory" for name in imported(path.read_text(), "elsewhere")), path


def test_there_is_something_to_check():
    assert len(modules("gossipjax")) > 20
    assert any(
        "gossipjax._engine.loop" in ours(path) or "gossipjax.Event" in ours(path) for path in modules("gossipjax")
    )


@pytest.mark.parametrize(
    ("source", "package", "expected"),
    [
        ("import theory.consensus as c", "gossipjax", {"theory.consensus"}),
        (
            "def f():\n    from experiments import store, heterogeneity",
            "figures",
            {"experiments.store", "experiments.heterogeneity"},
        ),
        ("from .rows import take", "gossipjax.tasks", {"gossipjax.tasks.rows.take"}),
        ("from ..rows import take", "gossipjax.tasks", {"gossipjax.rows.take"}),
    ],
)
def test_imports_are_found(source, package, expected):
    assert imported(source, package) == expected
