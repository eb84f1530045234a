"""The cache of compiled programs: who decides, what is stored, and what a killed process leaves."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import textwrap

import filelock
import jax
import pytest

from gossipjax._base import program_cache

SETTINGS = (
    "jax_compilation_cache_dir",
    "jax_enable_compilation_cache",
    "jax_compilation_cache_max_size",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)

RUN = """
    import collections, json, sys
    import jax
    import gossipjax as gj
    from gossipjax._base import program_cache
    program_cache.SHORTEST_SECONDS = 0.0  # else programs that take about this long are stored by chance
    if sys.argv[1:]:
        gj.configure(cache=eval(sys.argv[1]))
    import jax.numpy as jnp, optax
    from jax.tree_util import Partial
    found = collections.Counter()
    jax.monitoring.register_event_listener(lambda event, **_: found.update([event.rsplit("/", 1)[-1]]))
    task = gj.tasks.quadratic(jnp.ones((8, 3)))
    plan = gj.timeline.rounds(gj.mixing.metropolis(gj.topology.ring(8)), 20)
    run = gj.simulate(jax.random.key(0), gj.dpsgd(task, Partial(optax.sgd, 0.1)), plan, task)
    numbers = found["cache_hits"], found["cache_misses"]
    print(json.dumps([jax.config.jax_compilation_cache_dir, *numbers, run.x.tolist()]))
"""


def run_in_process(environment, *arguments):
    """Return the folder, the numbers of programs that were read from it and not found, and the models."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "GOSSIPJAX_CACHE"))}
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(RUN), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=kept | environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def undecided(monkeypatch):
    """A process in which nobody has chosen a cache; its settings are restored."""
    before = {name: getattr(jax.config, name) for name in SETTINGS}
    jax.config.update("jax_compilation_cache_dir", None)
    jax.config.update("jax_enable_compilation_cache", True)
    monkeypatch.setattr(program_cache, "_decided", False)
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    program_cache.compilation_cache.reset_cache()


@pytest.mark.slow
def test_a_second_process_reads_its_programs_from_the_default_folder(tmp_path):
    own = {"GOSSIPJAX_CACHE": str(tmp_path / "own")}
    folder, hits, misses, models = run_in_process(own)
    stored = [path.name for path in pathlib.Path(folder).glob("*-cache")]
    assert pathlib.Path(folder).parts[-3:-1] == ("own", "programs")
    assert hits == 0
    assert any("_advance_call" in name for name in stored)
    assert run_in_process(own) == [folder, misses, 0, models]

    # A writer that is killed leaves a part of a program without its time of use.
    damaged = next(path for path in pathlib.Path(folder).glob("*_advance_call*-cache"))
    damaged.write_bytes(damaged.read_bytes()[:1000])
    damaged.with_name(damaged.name.removesuffix("-cache") + "-atime").unlink()
    assert run_in_process(own) == [folder, misses - 1, 1, models]
    assert run_in_process(own) == [folder, misses, 0, models]


@pytest.mark.slow
def test_a_user_decides(tmp_path):
    own = {"GOSSIPJAX_CACHE": str(tmp_path / "own")}
    assert run_in_process(own, "False")[:2] == [None, 0]
    assert run_in_process(own, repr(str(tmp_path / "other")))[0] == str(tmp_path / "other")
    assert run_in_process(own | {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "jax")})[0] == str(tmp_path / "jax")
    assert run_in_process(own | {"JAX_ENABLE_COMPILATION_CACHE": "0"})[:2] == [None, 0]
    assert not (tmp_path / "own").exists()


def test_the_first_run_decides_once(undecided, tmp_path, monkeypatch):
    monkeypatch.setenv("GOSSIPJAX_CACHE", str(tmp_path / "first"))
    program_cache.use_default_cache()
    folder = program_cache.programs_folder()
    assert pathlib.Path(jax.config.jax_compilation_cache_dir) == folder
    assert folder.is_dir()
    assert jax.config.jax_compilation_cache_max_size == program_cache.LIMIT_BYTES
    monkeypatch.setenv("GOSSIPJAX_CACHE", str(tmp_path / "second"))
    program_cache.use_default_cache()
    assert pathlib.Path(jax.config.jax_compilation_cache_dir) == folder
    program_cache.set_cache(False)
    program_cache.use_default_cache()
    assert jax.config.jax_compilation_cache_dir is None


def test_a_relative_folder_stays_where_it_is(undecided, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GOSSIPJAX_CACHE", "own")
    program_cache.use_default_cache()
    assert pathlib.Path(jax.config.jax_compilation_cache_dir).is_relative_to(tmp_path / "own")


def test_limits_that_a_user_chose_are_kept(undecided, tmp_path):
    jax.config.update("jax_compilation_cache_max_size", 5_000_000)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 7.0)
    program_cache.set_cache(tmp_path)
    assert jax.config.jax_compilation_cache_max_size == 5_000_000
    assert jax.config.jax_persistent_cache_min_compile_time_secs == 7.0


def test_a_folder_that_cannot_be_used_is_no_cache_or_an_error(undecided, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GOSSIPJAX_CACHE", str(tmp_path / "file"))
    program_cache.use_default_cache()
    assert jax.config.jax_compilation_cache_dir is None
    with pytest.raises(ValueError, match="cannot be written and locked"):
        program_cache.set_cache(True)


def test_who_holds_the_lock_for_long_costs_the_cache_and_not_the_run(undecided, tmp_path, monkeypatch):
    monkeypatch.setattr(program_cache, "PATIENCE_SECONDS", 0.05)
    with filelock.FileLock(tmp_path / ".lockfile"):
        monkeypatch.setattr(program_cache, "programs_folder", lambda: tmp_path)
        program_cache.use_default_cache()
        assert jax.config.jax_compilation_cache_dir is None
        with pytest.raises(ValueError, match="cannot be written and locked"):
            program_cache.set_cache(tmp_path)


def test_only_programs_without_a_time_of_use_are_removed(undecided, tmp_path):
    for name in ("a-cache", "a-atime", "b-cache", "other"):
        (tmp_path / name).write_text("")
    program_cache.set_cache(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} >= {"a-cache", "a-atime", "other"}
    assert not (tmp_path / "b-cache").exists()


def test_programs_of_another_processor_have_another_folder(monkeypatch):
    here = program_cache.programs_folder()
    assert program_cache.programs_folder() == here
    read = pathlib.Path.read_text
    monkeypatch.setattr(pathlib.Path, "read_text", lambda *args, **named: read(*args, **named).replace("avx2", "avx9"))
    monkeypatch.setattr(program_cache.platform, "processor", lambda: "another")  # where no features are listed
    assert program_cache.programs_folder() != here
