"""Two processes that do one run together over the loopback: the same numbers, files by one, and death."""

import os
import pathlib
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gossipjax as gj
from gossipjax._base import hosts

SCRIPT = pathlib.Path(__file__).parents[1] / "lib" / "host_checks.py"


def start(work, processes, folder):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    commands = [
        [sys.executable, str(SCRIPT), work, address, str(processes), str(own), str(folder)] for own in range(processes)
    ]
    return [
        subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for command in commands
    ]


def end(running):
    """Wait for all, and return exit codes and what they said."""
    try:
        said = [each.communicate(timeout=240)[1] for each in running]
    finally:
        for each in running:
            each.kill()
    return [each.returncode for each in running], said


def models(folder, processes):
    with np.load(folder / f"models{processes}.npz") as found:
        return dict(found)


@pytest.mark.slow
def test_two_processes_are_one(tmp_path):
    """2 processes of 2 devices, and 1 of 4: models and counts are equal, the sums of records up to rounding."""
    for processes in (1, 2):
        codes, said = end(start("run", processes, tmp_path))
        assert codes == [0] * processes, said[-1][-3000:]
    one, two = models(tmp_path, 1), models(tmp_path, 2)
    assert (int(one["processes"]), int(two["processes"])) == (1, 2)
    assert int(two["moved"]) > 0
    for name in set(one) - {"processes", "loss", "distance"}:
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)
    for name in ("loss", "distance"):  # all-reduce over processes adds in another order
        np.testing.assert_allclose(one[name], two[name], rtol=1e-5, err_msg=name)
    np.testing.assert_array_equal(gj.load(tmp_path / "run2.nc")["event"], gj.load(tmp_path / "run1.nc")["event"])


@pytest.mark.slow
def test_a_killed_process_ends_the_run_and_the_checkpoint_goes_on_alone(tmp_path):
    codes, said = end(start("killed", 2, tmp_path))
    assert codes[1] == -9
    assert codes[0] not in (0, None)
    assert any(words in said[0] for words in ("unhealthy", "Connection closed", "Gloo")), said[0][-3000:]
    (tmp_path / "checkpoint2").rename(tmp_path / "checkpoint1")
    assert any((tmp_path / "checkpoint1").glob("after-*.npz"))
    codes, said = end(start("run", 1, tmp_path))
    assert codes == [0], said[0][-3000:]
    with np.load(max((tmp_path / "checkpoint1").glob("after-*.npz"))) as last:
        assert int(last["done"]) == 4


@pytest.mark.slow
def test_a_progress_bar_on_one_process_changes_nothing(tmp_path):
    codes, said = end(start("bar", 2, tmp_path))
    assert codes == [0, 0], said[0][-3000:]


def test_several_processes_need_a_mesh(monkeypatch):
    monkeypatch.setattr(hosts, "process_count", lambda: 2)
    plan = gj.timeline.rounds(np.eye(4), 2)
    with pytest.raises(ValueError, match=r"mesh=None: 2 processes.*mesh=gossipjax.mesh\(\)"):
        gj.simulate(jax.random.key(0), gj.gossip_averaging(), plan, jnp.ones((4, 1)))


@pytest.mark.slow
def test_processes_with_other_arguments_are_refused(tmp_path):
    codes, said = end(start("differ", 2, tmp_path))
    assert 0 not in codes
    assert all("process 1 was given another run than process 0" in each for each in said), said[0][-3000:]


@pytest.mark.parametrize(
    "given", [("127.0.0.1", 2, 0), ("127.0.0.1:1", 0, 0), ("127.0.0.1:1", 2, 2), ("127.0.0.1:1", 2)], ids=str
)
def test_settings_of_hosts(given):
    with pytest.raises(ValueError, match="hosts"):
        hosts.join(given, started=True)


def test_hosts_come_before_the_first_array():
    with pytest.raises(RuntimeError, match="before the first JAX computation"):
        hosts.join(("127.0.0.1:1", 2, 0), started=True)
