"""Imports run one way: the engine knows no theory, theory knows no engine, figures know results and the palette."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
OURS = {"gossipjax", "theory", "experiments", "figures", "benchmarks", "tests"}


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
    return sorted((ROOT / folder).rglob("*.py"))


def allowed(path: pathlib.Path) -> tuple[str, ...]:
    top, relative = path.relative_to(ROOT).parts[0], str(path.relative_to(ROOT))
    if relative.startswith("theory/check/") or relative == "theory/__main__.py":
        return "theory", "gossipjax"
    return {
        "gossipjax": ("gossipjax",),
        "theory": ("theory",),
        "experiments": ("experiments", "gossipjax", "theory"),
        "figures": ("figures", "theory", "experiments.lib.store", "gossipjax._base.palette"),
    }[top]


@pytest.mark.parametrize("folder", ["gossipjax", "theory", "experiments", "figures"])
def test_imports_run_one_way(folder):
    for path in modules(folder):
        for name in ours(path):
            fits = any(name == prefix or name.startswith(prefix + ".") for prefix in allowed(path))
            assert fits, f"{path.relative_to(ROOT)} imports {name}"


def test_formulas_know_nothing_of_the_claims():
    for path in modules("theory"):
        if "check" not in path.parts and path.name != "__main__.py":
            assert not any(name.startswith("theory.check") for name in ours(path)), path


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
