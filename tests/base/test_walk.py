"""Every builder of the public interface, with one bad argument after another, in a process of its own."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

WALK = pathlib.Path(__file__).parents[1] / "lib" / "walk.py"
ROOMS = (
    (2000, ("topology", "weights", "clocks", "timelines", "protocols", "sharing", "tasks", "devices", "systems")),
    (
        2300,
        (
            "observers",
            "runs",
            "deploy",
            "gradients",
            "networks",
            "predictions",
            "reviews",
            "privacy",
            "robust",
            "graphs",
            "systems in detail",
        ),
    ),
)


@pytest.mark.parametrize(("least", "rooms"), ROOMS)
def test_no_argument_is_wrong_in_silence_or_raises_from_inside(least, rooms):
    """An argument of another sort, NaN, an infinity, a negative number, a fraction, an empty array, another shape."""
    here = os.environ | {"PYTHONPATH": str(WALK.parents[2])}
    done = subprocess.run([sys.executable, str(WALK), *rooms], capture_output=True, text=True, check=False, env=here)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert set(found["counts"]) == set(rooms)
    assert sum(found["counts"].values()) > least
    assert found["wrong"] == []
