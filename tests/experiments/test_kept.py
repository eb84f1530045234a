"""Finished runs are found again under the settings, the contents and the code that made them, and under no others."""

import json
import types

import jax
import numpy as np
import optax
import pytest
import xarray as xr

from experiments.lib import compressed, kept, plexus_runs, store
from experiments.lib.problems import of_jwins, of_plexus
from gossipjax.compress import top_k
from gossipjax.sharing import choco, full, jwins


class Maker:
    """Makes a run, and counts how often."""

    def __init__(self):
        self.folders = []

    def __call__(self, checkpoint):
        assert checkpoint.parent.is_dir()
        self.folders.append(checkpoint)
        return xr.Dataset({"number": len(self.folders), "name": ("k", ["a", "bc"])})


def test_a_finished_run_is_not_made_again_and_other_settings_are(tmp_path):
    folder, make = tmp_path / "new" / "runs", Maker()
    found = [int(kept.kept_run(str(folder), {"rounds": rounds}, make).number) for rounds in (5, 6, 5)]
    assert found == [1, 2, 1]
    assert len(set(make.folders)) == 2
    assert len(list(folder.iterdir())) == 2


def test_other_code_makes_runs_again(tmp_path, monkeypatch):
    make = Maker()
    kept.kept_run(str(tmp_path), {}, make)
    monkeypatch.setattr(kept, "CODE", "other")
    assert int(kept.kept_run(str(tmp_path), {}, make).number) == 2
    monkeypatch.undo()
    assert int(kept.kept_run(str(tmp_path), {}, make).number) == 1


@pytest.mark.parametrize("change", ["text", "new file", "renamed", "nested"])
def test_any_change_of_a_source_file_is_other_code(tmp_path, change):
    (tmp_path / "inner").mkdir()
    for name in ("a.py", "inner/b.py"):
        (tmp_path / name).write_text("x = 1\n")
    before = kept.digest_of_code((tmp_path,))
    assert kept.digest_of_code((tmp_path,)) == before
    if change == "renamed":
        (tmp_path / "a.py").rename(tmp_path / "c.py")
    else:
        name = {"text": "a.py", "new file": "c.py", "nested": "inner/b.py"}[change]
        (tmp_path / name).write_text("x = 2\n")
    assert kept.digest_of_code((tmp_path,)) != before


def test_the_code_is_that_of_all_packages_that_make_runs():
    assert sorted(folder.name for folder in kept.FOLDERS) == ["experiments", "gossipjax", "theory"]
    assert kept.digest_of_code() == kept.CODE


def test_other_contents_make_another_run(tmp_path):
    """The same words, but one pixel, one label or one phone differs."""
    make, values = Maker(), np.arange(6.0)
    changed = values.copy()
    changed[3] += 1e-9
    for things in ((values,), (changed,), (values.astype(np.float32),), (values.reshape(2, 3),), (values, values)):
        kept.kept_run(str(tmp_path), {}, make, *things)
    assert len(make.folders) == 5
    few, same, other = (plexus_runs.devices.fitted(4, seed) for seed in (0, 0, 1))
    assert kept.digest(few) == kept.digest(same) != kept.digest(other)


def test_tasks_are_told_apart_by_their_data_and_their_model():
    one, same = (of_jwins("digits", 8).task for _ in range(2))
    assert kept.digest(one) == kept.digest(same) != kept.digest(of_jwins("digits", 8, seed=1).task)
    assert sorted(kept.model_of(one).values()) == ["float32[10, 32]", "float32[10]", "float32[32, 64]", "float32[32]"]


@pytest.mark.parametrize("change", [{"batch_size": 9}, {"local_steps": 4}, {"learning_rate": 0.2}, {"name": "other"}])
def test_a_run_of_a_scheme_is_named_by_how_it_trains(tmp_path, monkeypatch, change):
    made = []
    monkeypatch.setattr(compressed, "learn", lambda *_, **__: made.append(1) or xr.Dataset({"score": len(made)}))
    given, network = of_jwins("digits", 8), compressed.Network(8, 4)
    for one in (given, given, given._replace(**change)):
        compressed.run_of(one, "full", full(), network, str(tmp_path))
    assert len(made) == 2


def captures(value):
    def inner(x):
        return x * value

    return inner


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda: choco(top_k(share=0.1), 0.1), lambda: choco(top_k(share=0.2), 0.1)),
        (lambda: jwins(accumulate="round"), lambda: jwins(accumulate="nothing")),
        (lambda: optax.sgd(0.1), lambda: optax.sgd(0.2)),
        (lambda: captures(1), lambda: captures(2)),
        (lambda: {"a": 1}, lambda: {"b": 1}),
        (lambda: [None, 1], lambda: [1, None]),
        (lambda: [1, 23], lambda: [12, 3]),
        (lambda: jax.random.key(0), lambda: jax.random.key(1)),
        (lambda: of_plexus("digits", 4, batch_size=8).task, lambda: of_plexus("digits", 4, batch_size=9).task),
    ],
    ids=["compressor", "mode", "step size", "captured", "names", "place of None", "split", "key", "batch size"],
)
def test_settings_that_no_array_shows_make_another_run(one, other):
    assert kept.digest(one()) == kept.digest(one()) != kept.digest(other())
    assert kept.digest(one(), other()) != kept.digest(other(), one())


def test_the_borders_between_things_count():
    assert len({kept.digest(*things) for things in ((), ([],), ([], []), ([[], []],))}) == 4


def test_one_call_that_read_other_files_makes_another_run():
    """The records are equal; the arrays differ."""
    one, other = (plexus_runs.devices.fitted(4, 0) for _ in range(2))
    object.__setattr__(other, "city", other.city + 1)
    assert kept.digest(one) != kept.digest(other)


def test_what_cannot_be_told_apart_is_refused():
    with pytest.raises(TypeError, match="cannot be told from others"):
        kept.digest([1, object()])


@pytest.mark.parametrize("package", ["jax", "optax"])
def test_other_versions_make_runs_again(tmp_path, monkeypatch, package):
    make, known = Maker(), kept.environment()
    kept.kept_run(str(tmp_path), {}, make)
    other = known | {"versions": known["versions"] | {package: "0.0"}}
    monkeypatch.setattr(kept, "environment", lambda: other)
    assert int(kept.kept_run(str(tmp_path), {}, make).number) == 2


def test_floats_of_another_width_and_devices_of_another_kind_make_runs_again(tmp_path, monkeypatch):
    make, known = Maker(), kept.environment()
    kept.kept_run(str(tmp_path), {}, make)
    monkeypatch.setattr(kept, "environment", lambda: known | {"x64": not known["x64"]})
    assert int(kept.kept_run(str(tmp_path), {}, make).number) == 2
    monkeypatch.setattr(kept, "environment", lambda: known)
    other = types.SimpleNamespace(device_kind="another")
    monkeypatch.setattr(kept.jax, "devices", lambda: [other])
    assert int(kept.kept_run(str(tmp_path), {}, make).number) == 3


def test_a_folder_in_the_place_of_a_run_is_refused_before_the_run(tmp_path):
    make = Maker()
    kept.kept_run(str(tmp_path), {}, make)
    (path,) = tmp_path.iterdir()
    path.unlink()
    path.mkdir()
    with pytest.raises(ValueError, match="is a folder"):
        kept.kept_run(str(tmp_path), {}, make)
    assert len(make.folders) == 1


DAMAGES = ("empty", "short", "garbage", "flipped", "other run", "no manifest", "no checksum")


@pytest.mark.parametrize("damage", [*DAMAGES, "manifest []", "manifest 7", 'manifest "text"', "manifest null"])
def test_a_damaged_file_is_made_again(tmp_path, damage):
    def make(_):
        return xr.Dataset({"score": ("record", np.linspace(0, 1, 1000))})

    kept.kept_run(str(tmp_path), {"rounds": 5}, make)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    if damage == "flipped":  # one bit of a number in the middle, where the format has no checksum
        at = whole.index(np.linspace(0, 1, 1000)[500:502].tobytes())
        path.write_bytes(whole[: at + 6] + bytes([whole[at + 6] ^ 1]) + whole[at + 7 :])
    elif damage == "other run":
        store.save(path.stem, xr.Dataset({"score": 7}), {"configuration": {"rounds": 6}}, tmp_path)
    elif damage == "no manifest":
        xr.Dataset({"score": 7}).to_netcdf(path, engine="h5netcdf")
    elif damage == "no checksum":
        found = store.load(path.stem, tmp_path)
        del found.attrs["checksum"]
        found.assign(score=found.score + 1).to_netcdf(path, engine="h5netcdf")
    elif damage.startswith("manifest"):
        store.save(path.stem, xr.Dataset({"score": 7}), json.loads(damage.removeprefix("manifest ")), tmp_path)
    else:
        path.write_bytes({"empty": b"", "short": whole[: len(whole) // 2], "garbage": b"no netCDF" * 100}[damage])
    again = kept.kept_run(str(tmp_path), {"rounds": 5}, make)
    np.testing.assert_array_equal(again.score, np.linspace(0, 1, 1000))
    assert kept.kept_run(str(tmp_path), {"rounds": 5}, None).equals(again)


@pytest.mark.parametrize("change", ["number", "attribute", "attribute of a variable", "manifest"])
def test_a_result_with_other_content_than_was_written_is_damaged(tmp_path, change):
    made = xr.Dataset({"a": ((), 1.5, {"unit": "s"}), "words": ("k", ["one", "three"])})
    facts = {"count": 3, "rate": 0.1, "one": [4], "many": [1, 2], "names": ["x", "yz"], "text": "", "limit": np.inf}
    store.save("kept", made.assign_attrs(facts), {"rounds": 5}, tmp_path)
    assert store.load("kept", tmp_path).words.values.tolist() == ["one", "three"]
    changed = store.load("kept", tmp_path)
    match change:
        case "number":
            changed["a"] = ((), 2.5, {"unit": "s"})
        case "attribute":
            changed.attrs["count"] = 4
        case "manifest":
            changed.attrs["manifest"] = '{"rounds": 6}'
        case _:
            changed.a.attrs["unit"] = "ms"
    changed.to_netcdf(tmp_path / "kept.nc", engine="h5netcdf")
    with pytest.raises(ValueError, match="damaged"):
        store.load("kept", tmp_path)
