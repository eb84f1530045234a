"""Every builder of the public interface, with one bad argument after another, in a process of its own."""

import json
import pathlib
import subprocess
import sys

import pytest

WALK = pathlib.Path(__file__).with_name("walk.py")
ROOMS = ("topology weights clocks timelines protocols sharing", "tasks devices systems observers runs")


@pytest.mark.parametrize("rooms", ROOMS)
def test_no_argument_is_wrong_in_silence_or_raises_from_inside(rooms):
    """An argument of another sort, NaN, an infinity, a negative number, a fraction, an empty array, another shape."""
    done = subprocess.run(
        [sys.executable, str(WALK), *rooms.split()], capture_output=True, text=True, check=False, cwd=WALK.parents[1]
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert set(found["counts"]) == set(rooms.split())
    assert sum(found["counts"].values()) > 1000
    assert found["wrong"] == []
