"""The result: names, units, files, and what happens when a file cannot be written or read."""

import errno
import inspect
import json
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from problems import X0, N, exact_quadratic

import gossipjax as gj
from gossipjax import Trajectory, gossip_averaging, load, simulate
from gossipjax.mixing import metropolis
from gossipjax.observe import consensus_distance, models, node_metrics
from gossipjax.observe._models import STATISTICS
from gossipjax.results import _trajectory
from gossipjax.results._trajectory import FORMAT
from gossipjax.timeline import poisson_pairs, rounds
from gossipjax.topology import ring

KEY = jax.random.key(7)
W = metropolis(ring(N))


@pytest.fixture(scope="module")
def result() -> Trajectory:
    observers = [consensus_distance(), models(), node_metrics(exact_quadratic())]
    return simulate(
        jax.random.split(KEY, 2), gossip_averaging(), rounds(W, 6), jnp.asarray(X0), observers=observers, record_every=3
    )


def test_dimensions_coordinates_and_units(result):
    dataset = result.to_dataset()
    assert dataset["model"].dims == ("record", "seed", "node", "parameter")
    assert dataset["test_squared_error"].dims == ("record", "seed", "statistic")
    assert dataset["consensus_distance"].dims == dataset["bytes_sent"].dims == ("record", "seed")
    assert dataset.sizes == {"record": 3, "seed": 2, "node": N, "parameter": 3, "statistic": 6}
    assert dataset["statistic"].values.tolist() == list(STATISTICS)
    assert dataset["event"].values.tolist() == [0, 3, 6]
    units = {name: variable.attrs["units"] for name, variable in dataset.variables.items() if name != "statistic"}
    assert units["bytes_sent"] == "B"
    assert units["time"] == "s"
    assert set(units.values()) == {"B", "s", "1"}
    assert all(variable.attrs["long_name"] for name, variable in dataset.variables.items() if name != "statistic")
    assert np.isnan(dataset["train_loss"]).all()  # nobody learns


def test_a_variable_by_name(result):
    assert result["bytes_sent"].identical(result.dataset["bytes_sent"])
    with pytest.raises(ValueError, match=r"no variable 'accuracy'.*bytes_sent"):
        result["accuracy"]


def test_manifest_says_how_to_repeat_it(result):
    found = result.manifest
    settings = found["configuration"]
    assert settings["num_events"] == 6
    assert settings["num_nodes"] == settings["num_rows"] == N
    assert settings["protocol"] == "gossip_averaging(sharing=None)"
    assert settings["timeline"].startswith("rounds(weights=metropolis(topology=ring(num_nodes=8)")
    assert settings["records"] == 2
    assert settings["bytes_per_row"] == 24
    assert "consensus_distance" in settings["variables"]
    assert found["versions"]["jax"] == jax.__version__
    assert found["device"].startswith("2 x ")
    assert found["code"]
    again = jax.random.wrap_key_data(jnp.asarray(found["key"], jnp.uint32), impl=found["key_type"])
    assert (again == jax.random.split(KEY, 2)).all()
    json.dumps(found)


def test_records_of_a_long_plan_are_counted():
    plan = poisson_pairs(ring(N), 50, seed=0)
    result = simulate(KEY, gossip_averaging(), plan, jnp.asarray(X0), record_at=[3, 30])
    assert result.manifest["configuration"]["records"] == len(result["event"]) - 1 == 3


def test_a_file_keeps_everything(result, tmp_path):
    path = result.save(tmp_path / "run.nc")
    again = load(path)
    assert again.dataset.identical(result.dataset)
    assert again.manifest == result.manifest
    assert again.state is None
    assert [file.name for file in tmp_path.iterdir()] == ["run.nc"]


def test_one_seed_has_no_seed_dimension(tmp_path):
    result = simulate(KEY, gossip_averaging(), rounds(W, 6), jnp.asarray(X0), observers=[models()], record_every=3)
    assert result["model"].dims == ("record", "node", "parameter")
    assert load(result.save(tmp_path / "one.nc")).dataset.identical(result.dataset)


def test_a_missing_folder_is_named(result, tmp_path):
    with pytest.raises(ValueError, match=r"no folder .*missing"):
        result.save(tmp_path / "missing" / "run.nc")


@pytest.mark.parametrize("write", ["save", "plot"])
def test_a_full_disk_leaves_the_old_file(result, tmp_path, monkeypatch, write):
    path = tmp_path / "run.png"
    getattr(result, write)(path)
    before = path.read_bytes()

    def full(self, data):
        with self.open("wb") as file:
            file.write(bytes(data)[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pathlib.Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        getattr(result, write)(path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["run.png"]


LITTLE_SPACE = """
import pathlib, resource, sys
import jax, jax.numpy as jnp, matplotlib
matplotlib.use("agg")
import gossipjax as gj
folder = pathlib.Path(sys.argv[1])
plan = gj.timeline.rounds(gj.mixing.metropolis(gj.topology.ring(64)), 200)
def run(**settings):
    observers = [gj.observe.models()]
    return gj.simulate(jax.random.key(0), gj.gossip_averaging(), plan, jnp.eye(64), observers=observers, **settings)
found = run()
found.plot()
for limit in (8_000, 16_000, 32_000):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    for write in (
        lambda: found.save(folder / "run.nc"),
        lambda: found.save(folder / "run.nc", models=True),
        lambda: found.plot(folder / "run.png", variables=["bytes_sent"]),
        lambda: run(checkpoint=folder / "kept"),
    ):
        try:
            write()
        except OSError as error:
            left = [p.name for p in folder.rglob("*") if p.is_file() and p.name not in ("lock", "run.json")]
            assert not left, left
            print(type(error).__name__)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert gj.load(found.save(folder / "run.nc")).dataset.equals(found.dataset)
assert run(checkpoint=folder / "kept").dataset.equals(found.dataset)
"""


def test_files_that_may_not_grow_are_an_error_of_the_system(tmp_path):
    """As on a full disk: HDF5 and Orbax would end Python itself, or leave half a file."""
    pytest.importorskip("resource")
    command = [sys.executable, "-c", LITTLE_SPACE, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    # The picture of one curve may fit into the larger ones.
    assert 3 * 3 <= done.stdout.split().count("OSError") <= 3 * 4


@pytest.mark.parametrize("keys", [KEY, jax.random.split(KEY, 2)], ids=["one", "seeds"])
def test_models_travel_with_the_file_when_asked(tmp_path, keys):
    x0 = {"a": [jnp.asarray(X0), jnp.asarray(X0[:, 0], jnp.bfloat16)], "b": {3: (jnp.asarray(X0, jnp.float16),)}}
    found = simulate(keys, gossip_averaging(), rounds(W, 6), x0)
    small, large = (found.save(tmp_path / f"{models}.nc", models=models) for models in (False, True))
    assert load(small).x is load(small).state is None
    again = load(large)
    assert again.dataset.identical(found.dataset)
    assert jax.tree.structure(again.x) == jax.tree.structure(found.x)
    for one, other in zip(jax.tree.leaves(again.x), jax.tree.leaves(found.x), strict=True):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        assert one.tobytes() == np.asarray(other).tobytes()
    for one, other in zip(again.state, jax.tree.leaves(found.state), strict=True):
        assert one.tobytes() == np.asarray(other).tobytes()
    assert load(again.save(tmp_path / "again.nc", models=True)).dataset.identical(found.dataset)
    with pytest.raises(ValueError, match="models=True: this trajectory has no models"):
        load(small).save(tmp_path / "more.nc", models=True)


def test_paths_and_flags_are_checked(result, tmp_path):
    save, plot, read = inspect.unwrap(Trajectory.save), inspect.unwrap(Trajectory.plot), inspect.unwrap(load)
    for wrong in (3, None, b"run.nc", ["run.nc"]):
        for call in (lambda: save(result, wrong), lambda: read(wrong)):  # noqa: B023
            with pytest.raises(TypeError, match="path="):
                call()
    with pytest.raises(TypeError, match="path=3"):
        plot(result, 3)
    with pytest.raises(ValueError, match="is a folder"):
        save(result, tmp_path)
    with pytest.raises(ValueError, match="models='yes'"):
        save(result, tmp_path / "run.nc", models="yes")


def test_bad_files_are_named(result, tmp_path):
    with pytest.raises(ValueError, match=r"no file .*absent\.nc"):
        load(tmp_path / "absent.nc")
    path = result.save(tmp_path / "run.nc")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="not a readable netCDF file"):
        load(path)
    path.write_text("not a file of numbers")
    with pytest.raises(ValueError, match="not a readable netCDF file"):
        load(path)
    xr.Dataset({"a": ("x", [1.0])}).to_netcdf(path, engine="h5netcdf")
    with pytest.raises(ValueError, match=FORMAT):
        load(path)


def test_a_picture(result, tmp_path):
    pytest.importorskip("gossipjax.results._plot")
    figure = result.plot(tmp_path / "run.png")
    assert figure.axes
    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")
    assert [file.name for file in tmp_path.iterdir()] == ["run.png"]
    assert result.plot(variables=["consensus_distance"], x="bytes_sent").axes


def test_the_code_of_a_run_is_the_commit_of_its_checkout(tmp_path, monkeypatch):
    package = tmp_path / "gossipjax"
    (package / "results").mkdir(parents=True)
    (package / "results" / "one.py").write_text("")
    monkeypatch.setattr(_trajectory, "__file__", str(package / "results" / "one.py"))
    version = _trajectory.code_version.__wrapped__
    assert version() == gj.__version__  # installed, not checked out

    def git(*words):
        names = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        done = subprocess.run(["git", *names, "-C", str(tmp_path), *words], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    commit = git("rev-parse", "--short=12", "HEAD")
    assert version() == commit
    (tmp_path / "notes.txt").write_text("beside the package")
    assert version() == commit
    (package / "new.py").write_text("")
    assert version() == f"{commit}+"
    monkeypatch.setenv("PATH", "")  # no git
    assert version() == gj.__version__


def test_this_checkout_is_told_by_its_commit():
    root = pathlib.Path(gj.__file__).parents[1]
    if not (root / ".git").exists():
        pytest.skip("not a checkout")
    head = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    assert _trajectory.environment()["code"].removesuffix("+") == head[:12]
