"""Strict JAX for all tests: 64-bit floats, no silent rank or dtype promotion, two CPU devices, annotations checked."""

import gc
import itertools
import os
import pathlib
import time

# Tests, and the processes that they start, compile anew: they must not depend on what earlier ones left in a folder.
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "0"

import annotations
import compiling
import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_traceback_in_locations_limit", 0)  # noting where each operation is from takes time

# Before the first import of the packages: only modules imported later are checked.
_HOOK = annotations.install(["gossipjax", "theory"])

import gossipjax  # noqa: E402

gossipjax.configure(host_devices=2, x64=True)

MOST_MAPS = 20_000
"""Memory maps of a process from which its compiled programs are dropped: Linux allows 65,530, and XLA ends the process
where it gets none. Every compiled program holds several, some hundred tests gather ten thousand, and so may a few slow
ones."""
_DONE = itertools.count(1)
UNTIL = float(os.environ.get("GOSSIPJAX_TESTS_UNTIL", "inf"))
"""When slow tests that have not begun are left out, but for those of equality bit for bit, in seconds since 1970:
``.ci/run`` has a limit, on slow machines too."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark the tests of files that do little but compile, before tests are chosen by their marks."""
    for item in items:
        if item.path.relative_to(pathlib.Path(__file__).parent).as_posix() in compiling.FILES:
            item.add_marker("compiling")


def pytest_collection_finish():
    """Let Python look for garbage more rarely, and not among what was imported and collected."""
    gc.freeze()
    gc.set_threshold(20_000)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Leave out, by name, what begins too late."""
    if time.time() > UNTIL and not item.get_closest_marker("exact"):
        pytest.skip(f"left out, because the time that was given is over: {item.nodeid}")


def pytest_runtest_teardown(item):
    """Drop compiled programs where a long run of tests has gathered too many; to count them takes milliseconds."""
    due = next(_DONE) % 20 == 0 or item.get_closest_marker("slow") is not None
    if due and num_maps() > MOST_MAPS:
        jax.clear_caches()
        gc.collect()


def num_maps():
    """Count the memory maps of this process; 0 where the system does not list them."""
    maps = pathlib.Path("/proc/self/maps")
    return maps.read_bytes().count(b"\n") if maps.exists() else 0
