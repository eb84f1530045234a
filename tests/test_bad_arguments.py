"""Every public function of devices and systems refuses wrong arguments in words of its own, naming the argument."""

import os
import pathlib
import subprocess
import sys


def test_wrong_arguments_of_devices_and_systems_are_named():
    program = pathlib.Path(__file__).with_name("bad_arguments.py")
    given = os.environ | {"PYTHONPATH": str(program.parents[1])}
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, check=False, env=given)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.split()[0]) > 1500
