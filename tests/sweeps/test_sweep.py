"""Sweeps against calls one after another: values, what is kept, what fails, and what is refused."""

from __future__ import annotations

import concurrent.futures
import functools
import inspect
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time

import beartype
import jax
import jaxtyping
import joblib
import numpy as np
import pytest
import sweep_cells
import xarray

import gossipjax as gj
from gossipjax.sweeps import _cells

AXES = {"a": [3, 1, 2], "b": [0.5, 4.0]}
free = inspect.unwrap(gj.sweep)


def test_every_cell_stands_at_its_values_in_their_order(tmp_path):
    table = gj.sweep(sweep_cells.product, AXES, tmp_path / "kept")
    assert table["product"].dims == ("a", "b")
    assert table["a"].values.tolist() == [3, 1, 2]
    np.testing.assert_array_equal(table["product"], np.outer(AXES["a"], AXES["b"]))
    assert len(list((tmp_path / "kept").glob("*.nc"))) == 6
    np.testing.assert_array_equal(gj.sweeps.collect(tmp_path / "kept")["product"], np.outer([1, 2, 3], AXES["b"]))


def test_a_cell_that_changes_its_list_changes_no_other(tmp_path):
    axes = {"a": [1, 2], "seed": [3, 1, 2]}
    for _ in range(2):
        table = gj.sweep(sweep_cells.careless, axes, tmp_path, together=["seed"])
        np.testing.assert_array_equal(table["total"], [[3, 1, 2]] * 2)


def test_a_sweep_leaves_the_width_of_floats_alone(tmp_path):
    before = jax.config.jax_enable_x64
    with jax.enable_x64(not before):
        table = gj.sweep(sweep_cells.product, {"a": [1], "b": [2.0]}, tmp_path)
    assert bool(table["x64"].item()) is not before
    assert jax.config.jax_enable_x64 is before


def test_a_damaged_report_is_named(tmp_path):
    gj.sweep(sweep_cells.product, {"a": [1], "b": [2.0]}, tmp_path)
    (tmp_path / "other.error.json").write_text("{")
    with pytest.raises(ValueError, match=r"other\.error\.json is no report on a failed cell, or is damaged.*delete it"):
        gj.sweeps.collect(tmp_path)


def test_runs_with_whole_axes_equal_single_runs(tmp_path):
    axes = {"graph": ["ring", "complete"], "rounds": [2, 3], "seed": [0, 1]}
    table = gj.sweep(sweep_cells.consensus, axes, tmp_path, together=["seed"])
    assert dict(table["consensus_distance"].sizes) == {"graph": 2, "rounds": 2, "seed": 2, "record": 4}
    alone = sweep_cells.consensus({"graph": "ring", "rounds": 3, "seed": [0, 1]})["consensus_distance"].transpose(
        "seed", ...
    )
    np.testing.assert_array_equal(table["consensus_distance"].sel(graph="ring", rounds=3), alone)
    assert np.isnan(table["consensus_distance"].sel(rounds=2).isel(record=-1)).all()
    assert table["consensus_distance"].attrs == alone.attrs
    everything = gj.sweep(sweep_cells.consensus, axes | {"graph": ["ring"], "rounds": [3]}, tmp_path, together=["seed"])
    np.testing.assert_array_equal(everything["consensus_distance"].squeeze(), alone)


def test_shorter_records_are_filled_up(tmp_path):
    table = gj.sweep(sweep_cells.curve, {"length": [1, 3]}, tmp_path)
    np.testing.assert_array_equal(table["time"], [[0, np.nan, np.nan], [0, 1, 2]])
    assert table["time"].attrs == {"units": "s"}


def told(config):
    return xarray.Dataset({"text": repr(config["a"])})


def test_an_axis_of_strings_and_numbers_keeps_both(tmp_path):
    values = [1, "a", "1", 2.5, "False", False]
    table = gj.sweep(told, {"a": values}, tmp_path)
    assert [table["text"].sel(a=value).item() for value in values] == [repr(value) for value in values]
    assert set(gj.sweeps.collect(tmp_path)["a"].values.tolist()) == set(values)


def many_cells(config):
    return xarray.Dataset({"height": ("cell", [1.0, 2.0]), "cells": 3.0})


def test_cell_is_a_name_like_any_other(tmp_path):
    table = gj.sweep(many_cells, {"a": [1, 2]}, tmp_path / "dimension")
    assert table["height"].transpose("a", "cell").values.tolist() == [[1, 2], [1, 2]]
    table = gj.sweep(told, {"cell": [1, 2], "a": [3]}, tmp_path / "axis")
    assert table["text"].sel(cell=2).values.tolist() == ["3"]


def calls(log):
    return sorted(map(int, log.read_text().split()))


def test_a_cell_is_made_once(tmp_path):
    log, kept = tmp_path / "log", tmp_path / "kept"
    axes = {"a": [1, 2], "log": [str(log)], "fails": [-1]}
    gj.sweep(sweep_cells.logged, axes, kept)
    table = gj.sweep(sweep_cells.logged, axes | {"a": [0, 1, 2, 3]}, kept)
    assert calls(log) == [0, 1, 2, 3]
    assert table["double"].values.ravel().tolist() == [0, 2, 4, 6]
    gj.sweep(sweep_cells.logged, axes, kept, version="2")
    assert calls(log) == [0, 1, 1, 2, 2, 3]


@pytest.mark.parametrize("engine", ["serial", "threads"])
def test_a_failure_is_told_once_and_the_rest_is_made(tmp_path, engine):
    log, kept = tmp_path / "log", tmp_path / "kept"
    axes = {"a": [1, 2, 3], "log": [str(log)], "fails": [2]}
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        chosen = "serial" if engine == "serial" else pool
        with pytest.raises(gj.SweepFailed, match=r"1 of 3 cells failed, first a=2.*ValueError: a=2 is bad.*throw"):
            gj.sweep(sweep_cells.logged, axes, kept, engine=chosen)
        assert calls(log) == [1, 2, 3]
        table = gj.sweep(sweep_cells.logged, axes, kept, throw=False, engine=chosen)
        assert calls(log) == [1, 2, 2, 3]
        np.testing.assert_array_equal(table["double"].values.ravel(), [2, np.nan, 6])
        assert json.loads(table.attrs["failed"])[0]["config"]["a"] == 2
        assert json.loads(gj.sweeps.collect(kept).attrs["failed"])[0]["error"] == "ValueError: a=2 is bad"
        (tmp_path / "log.mended").touch()
        table = gj.sweep(sweep_cells.logged, axes, kept, engine=chosen)
    assert table["double"].values.ravel().tolist() == [2, 4, 6]
    assert not list(kept.glob("*.error.json"))


def test_failures_of_another_version_are_none_of_this_one(tmp_path):
    axes = {"a": [2], "log": [str(tmp_path / "log")], "fails": [2]}
    with pytest.raises(gj.SweepFailed):
        gj.sweep(sweep_cells.logged, axes, tmp_path / "kept")
    (tmp_path / "log.mended").touch()
    gj.sweep(sweep_cells.logged, axes, tmp_path / "kept", version="2")
    assert "failed" not in gj.sweeps.collect(tmp_path / "kept").attrs


def test_a_name_holds_all_that_a_cell_depends_on():
    cell = _cells.Cell("module.cell", "code", "1", False, {"a": 1, "b": 2.0})
    assert cell._replace(config={"b": 2.0, "a": 1}).name == cell.name
    others = [
        cell._replace(function="module.other"),
        cell._replace(code="other"),
        cell._replace(version="2"),
        cell._replace(x64=True),
        cell._replace(config={"a": 1, "b": 2.5}),
        cell._replace(config={"a": True, "b": 2.0}),
    ]
    assert len({cell.name, *(other.name for other in others)}) == 7
    assert _cells.digest_of(sweep_cells.product) != _cells.digest_of(sweep_cells.curve)


def made_with(factor, ignored=()):
    def cell(config, power=factor):
        return xarray.Dataset({"scaled": factor * config["a"] ** power, "ignored": len(ignored)})

    return cell


def by_default(power):
    def cell(config, power=power):
        return xarray.Dataset({"scaled": config["a"] ** power})

    return cell


@pytest.mark.parametrize("make", [made_with, by_default])
def test_what_a_function_captured_names_its_cells(tmp_path, make):
    values = [gj.sweep(make(number), {"a": [2]}, tmp_path)["scaled"].item() for number in (1, np.int64(3), 1)]
    assert values == [make(number)({"a": 2})["scaled"].item() for number in (1, 3, 1)]
    assert len(list(tmp_path.glob("*.nc"))) == 2


def scaled(factor):
    def decorator(function):
        @functools.wraps(function)
        def wrapper(config):
            return factor * function(config)

        return wrapper

    return decorator


def silent(factor):
    """Wrap a function without a trace of it."""

    def decorator(function):
        def wrapper(config):
            return factor * function(config)

        return wrapper

    return decorator


class Scaled:
    def __init__(self, factor, function):
        self.factor = factor
        functools.update_wrapper(self, function)

    def __call__(self, config):
        return self.factor * self.__wrapped__(config)


def one(config):
    return xarray.Dataset({"value": 1.0})


def two(config):
    return xarray.Dataset({"value": 2.0})


class Held:
    pass


def summed(numbers):
    def cell(config):
        return xarray.Dataset({"value": float(sum(numbers))})

    return cell


def by_default_sum(numbers):
    def cell(config, a=numbers, *, b=numbers):
        return xarray.Dataset({"value": float(sum(a) + sum(b))})

    return cell


def values_in(folder, *functions):
    return [gj.sweep(each, {"a": [1]}, folder)["value"].item() for each in functions]


@pytest.mark.parametrize(
    "functions",
    [
        [scaled(1)(one), scaled(7)(one)],
        [scaled(1)(scaled(2)(one)), scaled(1)(scaled(3)(one))],
        [scaled(2)(one), scaled(2)(two)],
        [silent(2)(one), silent(2)(two)],
        [Scaled(2, one), Scaled(3, one)],
        [silent(1)(functools.partial(lambda b, config: b * one(config), b)) for b in (1, 2)],
        [summed((1, 2)), summed((5, 5)), summed([1, 4]), summed({1: None, 7: None}), summed({1, 5})],
        [by_default_sum((1, 2)), by_default_sum([5, 5])],
    ],
    ids=["wraps", "inner", "base", "silent", "object", "partial", "captured", "defaults"],
)
def test_all_that_makes_another_function_names_other_cells(tmp_path, functions):
    values = values_in(tmp_path, *functions)
    assert values == [each({"a": 1})["value"].item() for each in functions]
    assert len(set(values)) == len(functions)
    assert values_in(tmp_path, *functions) == values
    assert len(list(tmp_path.glob("*.nc"))) == len(functions)


def test_equal_functions_are_one(tmp_path):
    assert values_in(tmp_path, scaled(2)(one), scaled(2)(one), scaled(np.int64(2))(one)) == [2.0, 2.0, 2.0]
    assert values_in(tmp_path, summed({1: Held(), 2: np.ones(2)}), summed({2: np.ones(3), 1: Held()})) == [3.0, 3.0]
    assert len(list(tmp_path.glob("*.nc"))) == 2


def test_functions_that_hold_themselves_have_a_digest():
    def recursive(config):
        return recursive(config) + len(ring)

    ring = [1]
    ring.append(ring)
    before = _cells.digest_of(recursive)
    ring[0] = 2
    assert _cells.digest_of(recursive) != before


def test_checks_of_types_that_a_library_generates_are_no_hindrance(tmp_path):
    def typed(config: dict[str, int]) -> xarray.Dataset:
        return one(config)

    def other(config: dict[str, int]) -> xarray.Dataset:
        return two(config)

    checked = [jaxtyping.jaxtyped(typechecker=beartype.beartype)(each) for each in (typed, other)]
    assert values_in(tmp_path, *checked) == [1.0, 2.0]
    again = jaxtyping.jaxtyped(typechecker=beartype.beartype)(typed)
    assert _cells.digest_of(again) == _cells.digest_of(checked[0])
    assert values_in(tmp_path, *map(silent(2), checked)) == [2.0, 4.0]


LIMITS, CACHE, COUNT = (1.0, ("x", 2)), {}, 0


def of_its_module(config):
    global COUNT
    COUNT += 1
    CACHE[config["a"]] = COUNT
    return xarray.Dataset({"value": sum(LIMITS[0] for _ in range(3))})


def test_constants_of_its_module_name_cells_and_caches_do_not(tmp_path, monkeypatch):
    assert values_in(tmp_path, of_its_module, of_its_module) == [3.0, 3.0]
    assert COUNT == 1
    monkeypatch.setitem(globals(), "LIMITS", (2.0, ("x", 2)))
    assert values_in(tmp_path, of_its_module) == [6.0]
    digest = _cells.digest_of(of_its_module)
    monkeypatch.setitem(globals(), "LIMITS", (2.0, ("x", 3)))
    assert _cells.digest_of(of_its_module) != digest


PAIR = [lambda config: one(config), lambda config: two(config)]
LAMBDAS = {
    "one": lambda config: one(config),
    "two": lambda config: two(config),
}


def test_lambdas_on_one_line_are_refused_and_on_their_own_lines_told_apart(tmp_path):
    for each in (*PAIR, silent(1)(PAIR[0])):
        with pytest.raises(ValueError, match=r"has 2 lambdas.*give them names with def"):
            gj.sweep(each, {"a": [1]}, tmp_path)
    assert values_in(tmp_path, *LAMBDAS.values()) == [1.0, 2.0]


def test_equal_numbers_are_one_cell(tmp_path):
    log, kept = tmp_path / "log", tmp_path / "kept"
    axes = {"log": [str(log)], "fails": [-1]}
    gj.sweep(sweep_cells.logged, axes | {"a": [1, 2, 0]}, kept)
    assert calls(log) == [0, 1, 2]
    log.unlink()
    for values in ([1.0, 2.0], np.linspace(1, 2, 2), np.array([2, 1], np.float32), [-0.0, 0.5 + 0.5]):
        table = gj.sweep(sweep_cells.logged, axes | {"a": values}, kept)
        assert table["double"].values.ravel().tolist() == (2 * np.asarray(values)).tolist()
        assert table["a"].values.tolist() == list(values)
    assert not log.exists()
    gj.sweep(told, {"a": [1, 2]}, tmp_path / "kinds")
    gj.sweep(told, {"a": np.linspace(1, 3, 5)}, tmp_path / "kinds")
    table = gj.sweeps.collect(tmp_path / "kinds")
    assert table["a"].values.tolist() == [1.0, 1.5, 2.0, 2.5, 3.0]
    assert table["text"].values.tolist() == ["1", "1.5", "2", "2.5", "3.0"]
    together = gj.sweep(labelled, {"a": [1, 2]}, tmp_path / "list", together=["a"])
    xarray.testing.assert_equal(together, gj.sweep(labelled, {"a": [1.0, 2.0]}, tmp_path / "list", together=["a"]))
    assert len(list((tmp_path / "list").glob("*.nc"))) == 1


@pytest.mark.parametrize(("first", "second"), [(True, 1), (False, -0.0), (2**53, 2.0**53)])
def test_cells_that_differ_and_have_equal_labels_cannot_be_collected(tmp_path, first, second):
    for value in (first, second):
        assert gj.sweep(told, {"a": [value]}, tmp_path)["text"].values.tolist() == [repr(value)]
    with pytest.raises(ValueError, match=r"cells with equal labels, .*folder of their own"):
        gj.sweeps.collect(tmp_path)


def some_have_records(config):
    if config["a"] == 2:
        return xarray.Dataset({"alone": 7.0})
    seconds = ("record", [0.5, 1.5 * config["a"]])
    return xarray.Dataset({"loss": ("record", [1.0, config["a"]])}, {"seconds": seconds})


def some_have_labels(config):
    if config["a"] == 2:
        return xarray.Dataset({"alone": 7.0})
    return xarray.Dataset({"loss": ("node", [1.0, config["a"]])}, {"node": ["x", "y"]})


@pytest.mark.parametrize("function", [some_have_records, some_have_labels])
def test_cells_with_and_without_a_dimension_are_joined(tmp_path, function):
    table = gj.sweep(function, {"a": [1, 2, 3]}, tmp_path)
    np.testing.assert_array_equal(table["loss"], [[1, 1], [np.nan, np.nan], [1, 3]])
    np.testing.assert_array_equal(table["alone"], [np.nan, 7, np.nan])
    if function is some_have_records:
        np.testing.assert_array_equal(table.coords["seconds"], [[0.5, 1.5], [np.nan, np.nan], [0.5, 4.5]])
        assert "record" not in table.coords
    else:
        assert table["node"].values.tolist() == ["x", "y"]


def test_arrays_that_a_function_captured_do_not_name_its_cells():
    assert _cells.digest_of(made_with(1, np.arange(2))) == _cells.digest_of(made_with(1, np.arange(3)))


def test_another_sweep_in_the_folder_is_no_part_of_it(tmp_path):
    gj.sweep(sweep_cells.product, {"a": [1], "b": [1.0]}, tmp_path)
    gj.sweep(sweep_cells.curve, {"length": [1]}, tmp_path)
    with pytest.raises(ValueError, match=r"several sweeps .*product.*curve|several sweeps .*curve.*product"):
        gj.sweeps.collect(tmp_path)
    np.testing.assert_array_equal(gj.sweeps.collect(tmp_path, sweep_cells.product)["product"], [[1.0]])
    with pytest.raises(ValueError, match="no finished cell of this function's present source"):
        gj.sweeps.collect(tmp_path, sweep_cells.product, version="2")
    with pytest.raises(ValueError, match="no finished cell"):
        gj.sweeps.collect(tmp_path / "empty")


def test_a_new_version_can_be_collected_and_axes_may_change_their_order(tmp_path):
    gj.sweep(sweep_cells.product, {"a": [1], "b": [2.0]}, tmp_path)
    gj.sweep(sweep_cells.product, {"b": [2.0], "a": [3]}, tmp_path)
    np.testing.assert_array_equal(gj.sweeps.collect(tmp_path)["product"].transpose("a", "b"), [[2.0], [6.0]])
    gj.sweep(sweep_cells.product, {"a": [5], "b": [2.0]}, tmp_path, version="2")
    new = gj.sweeps.collect(tmp_path, sweep_cells.product, version="2")
    np.testing.assert_array_equal(new["product"], [[10.0]])


@pytest.mark.slow
def test_a_pool_that_loses_a_process_does_not_say_that_all_cells_died(tmp_path, monkeypatch):
    in_processes(monkeypatch)
    axes = {"a": [2, 3, 4], "mark": [str(tmp_path / "mark")]}
    spawn = multiprocessing.get_context("spawn")
    told = "3 of 3 cells failed.*lost a process and stopped before"
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as pool, pytest.raises(gj.SweepFailed, match=told):
        gj.sweep(sweep_cells.dies, axes, tmp_path / "kept", engine=pool)


def test_a_damaged_file_is_named(tmp_path):
    gj.sweep(sweep_cells.curve, {"length": [1, 2]}, tmp_path)
    damaged = sorted(tmp_path.glob("*.nc"))[0]
    damaged.write_bytes(damaged.read_bytes()[:100])
    with pytest.raises(ValueError, match=rf"{damaged.name} is no finished cell .*delete it"):
        gj.sweep(sweep_cells.curve, {"length": [1, 2]}, tmp_path)
    damaged.unlink()
    (tmp_path / ".begun.nc").write_text("of a writer that was killed")
    assert gj.sweeps.collect(tmp_path).sizes["length"] == 1
    assert gj.sweep(sweep_cells.curve, {"length": [1, 2]}, tmp_path).sizes["length"] == 2


def no_dataset(config):
    return config["a"]


def hides_an_axis(config):
    return xarray.Dataset({"a": ("record", [1.0])})


def wrong_length(config):
    return xarray.Dataset({"loss": ("a", [1.0])})


def in_another_order(config):
    return xarray.Dataset({"loss": ("a", [2.0, 1.0])}, {"a": [2, 1]})


def labelled(config):
    kind = np.float32 if isinstance(config["a"][0], float) else None
    return xarray.Dataset({"loss": ("a", [1.0, 2.0])}, {"a": np.array(config["a"], kind)})


@pytest.mark.parametrize("values", [[0.1, 0.2], [2, 1], [True, False], ["x", "y"], [1, "y"]])
def test_a_cell_may_label_the_values_that_it_got(tmp_path, values):
    table = gj.sweep(labelled, {"a": values}, tmp_path, together=["a"])
    assert table["loss"].sel(a=values[1]) == 2
    assert table["a"].values.tolist() == values


@pytest.mark.parametrize(
    ("cell", "settings", "told"),
    [
        (no_dataset, {}, "TypeError: a cell must return an xarray Dataset"),
        (hides_an_axis, {}, "ValueError: 'a' is an axis"),
        (wrong_length, {"together": ["a"]}, "ValueError: together='a': the cell got 2 values"),
        (in_another_order, {"together": ["a"]}, "ValueError: together='a': .* another order"),
    ],
)
def test_a_cell_that_returns_something_else_fails(tmp_path, cell, settings, told):
    with pytest.raises(gj.SweepFailed, match=told):
        gj.sweep(cell, {"a": [1, 2]}, tmp_path, **settings)


@pytest.mark.parametrize(
    ("kind", "told", "changed"),
    [
        (TypeError, "cell=3", {"cell": 3}),
        (TypeError, "axes=", {"axes": []}),
        (TypeError, "axes=", {"axes": {}}),
        (TypeError, "a='xyz'", {"axes": {"a": "xyz"}}),
        (TypeError, "a=3", {"axes": {"a": 3}}),
        (TypeError, "None", {"axes": {"a": [None]}}),
        (TypeError, "nan", {"axes": {"a": [float("nan")]}}),
        (TypeError, "inf", {"axes": {"a": [np.inf]}}),
        (TypeError, "a name", {"axes": {"a b": [1]}}),
        (ValueError, "all different", {"axes": {"a": []}}),
        (ValueError, "all different", {"axes": {"a": [1, 1.0]}}),
        (ValueError, "all different", {"axes": {"a": [1, True]}}),
        (TypeError, "a=array.3.", {"axes": {"a": np.array(3)}}),
        (TypeError, "together='a'", {"together": "a"}),
        (ValueError, "'c' is no axis", {"together": ["c"]}),
        (TypeError, "engine=", {"engine": "threads"}),
        (TypeError, "engine=", {"engine": 3}),
        (ValueError, "workers=0", {"workers": 0, "engine": "processes"}),
        (ValueError, "workers=2 is for", {"workers": 2}),
        (ValueError, "retries_after_death=-1", {"retries_after_death": -1, "engine": "processes"}),
        (ValueError, "retries_after_death=1 is for", {"retries_after_death": 1}),
        (ValueError, "throw=", {"throw": "no"}),
        (ValueError, "progress=", {"progress": "no"}),
        (TypeError, "version=2", {"version": 2}),
        (TypeError, "folder=3", {"folder": 3}),
    ],
)
def test_what_is_no_sweep_is_refused(tmp_path, kind, told, changed):
    asked = {"cell": sweep_cells.product, "axes": AXES, "folder": tmp_path / "kept"} | changed
    with pytest.raises(kind, match=told):
        free(**asked)
    assert not list(tmp_path.glob("kept/*.nc"))


class Study:
    def cell(self, config):
        raise NotImplementedError


def test_folders_and_functions_that_others_cannot_reach_are_refused(tmp_path):
    with pytest.raises(ValueError, match="parent exists"):
        gj.sweep(sweep_cells.product, AXES, tmp_path / "no" / "kept")
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="parent exists"):
        gj.sweep(sweep_cells.product, AXES, tmp_path / "file")
    with pytest.raises(TypeError, match="move it, at the top level, to a module"):
        gj.sweep(lambda config: None, AXES, tmp_path / "kept", engine="processes")
    with pytest.raises(TypeError, match="is a method"):
        gj.sweep(Study().cell, AXES, tmp_path / "kept")
    typed = eval("lambda config: None")
    with pytest.raises(ValueError, match="no source file"):
        gj.sweep(typed, AXES, tmp_path / "kept")


def test_numpy_numbers_name_the_same_cells(tmp_path):
    gj.sweep(sweep_cells.product, AXES, tmp_path)
    before = {path.name for path in tmp_path.iterdir()}
    gj.sweep(sweep_cells.product, {"a": np.asarray([3, 1, 2]), "b": np.asarray([0.5, 4.0])}, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == before


def in_processes(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))


@pytest.mark.slow
def test_worker_processes_give_the_same_records(tmp_path, monkeypatch):
    in_processes(monkeypatch)
    axes = {"graph": ["ring", "complete"], "rounds": [2, 3], "seed": [0, 1]}
    asked = (sweep_cells.consensus, axes)
    here = gj.sweep(*asked, tmp_path / "here", together=["seed"])
    there = gj.sweep(*asked, tmp_path / "there", together=["seed"], engine="processes", workers=2)
    xarray.testing.assert_identical(here, there)
    width = gj.sweep(sweep_cells.product, {"a": [1], "b": [1.0]}, tmp_path / "width", engine="processes", workers=1)
    assert bool(width["x64"].item()) == jax.config.jax_enable_x64


def _part(folder, value):
    gj.sweep(sweep_cells.product, AXES | {"a": [value]}, folder)


@pytest.mark.slow
def test_executors_and_jobs_of_other_tools_fill_the_same_folder(tmp_path, monkeypatch):
    in_processes(monkeypatch)
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=spawn) as pool:
        by_executor = gj.sweep(sweep_cells.product, AXES, tmp_path / "executor", engine=pool)
    joblib.Parallel(n_jobs=2)(joblib.delayed(_part)(tmp_path / "jobs", value) for value in AXES["a"])
    np.testing.assert_array_equal(by_executor["product"], np.outer(AXES["a"], AXES["b"]))
    np.testing.assert_array_equal(gj.sweeps.collect(tmp_path / "jobs")["product"], np.outer([1, 2, 3], AXES["b"]))


@pytest.mark.slow
def test_a_worker_that_dies_is_replaced_and_the_rest_is_made(tmp_path, monkeypatch):
    in_processes(monkeypatch)
    axes = {"a": [0, 1, 2, 3], "mark": [str(tmp_path / "mark")]}
    with pytest.raises(gj.SweepFailed, match=r"1 of 4 cells failed, first a=2.*died each time"):
        gj.sweep(sweep_cells.dies, axes, tmp_path / "kept", engine="processes", workers=2, retries_after_death=2)
    assert gj.sweeps.collect(tmp_path / "kept")["double"].values.ravel().tolist() == [0, 2, 6]


KILLED = """
    import sys, gossipjax as gj, sweep_cells
    gj.sweep(sweep_cells.slow, {"a": list(range(40))}, sys.argv[1])
"""


@pytest.mark.slow
def test_a_sweep_that_is_killed_goes_on(tmp_path, monkeypatch):
    in_processes(monkeypatch)
    wait, kept = random.Random(0), tmp_path / "kept"
    for _ in range(4):
        with subprocess.Popen([sys.executable, "-c", inspect.cleandoc(KILLED), str(kept)]) as run:
            began = time.monotonic()
            before = len(list(kept.glob("[!.]*.nc")))
            while len(list(kept.glob("[!.]*.nc"))) == before and time.monotonic() - began < 60:
                time.sleep(0.01)
            time.sleep(wait.uniform(0, 0.3))
            run.send_signal(signal.SIGKILL)
    assert 0 < len(list(kept.glob("[!.]*.nc"))) < 40
    table = gj.sweep(sweep_cells.slow, {"a": list(range(40))}, kept)
    assert table["double"].values.tolist() == list(range(0, 80, 2))
