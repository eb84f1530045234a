"""Folders of kept runs: another run's numbers are never returned, damage is named, two processes are kept apart."""

import os
import signal
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from problems import X0, N, exact_quadratic

from gossipjax import dpsgd, gossip_averaging, simulate
from gossipjax.mixing import lazy, metropolis
from gossipjax.observe import Observer, Variable, consensus_distance
from gossipjax.timeline import rounds
from gossipjax.topology import ring

KEY, START = jax.random.key(0), jnp.asarray(X0)
PLAN = rounds(lazy(metropolis(ring(N))), 6)


def run(folder, **changes):
    settings = {"observers": [consensus_distance()], "record_every": 2} | changes
    return simulate(KEY, gossip_averaging(), PLAN, START, checkpoint=folder, **settings)


def measure(function):
    return Observer(function, (Variable("measured", "a number"),))


def closed_over(scale):
    weights = jnp.arange(3.0)[None] * scale

    @jax.jit
    def inner(x):
        return jnp.sum(x * weights)

    return measure(lambda snapshot: {"measured": inner(snapshot.x)})


def on_the_host(host):
    def look(snapshot):
        shape = jax.ShapeDtypeStruct((), jnp.float64)
        return {"measured": jax.pure_callback(host, shape, jnp.sum(snapshot.x))}

    return measure(look)


def scaled_by(factor):
    return lambda x: np.float64(x * factor)


class Scaled:
    def __init__(self, factor):
        self.factor = factor

    def __call__(self, x):
        return np.float64(x * self.factor)


PAIRS = {
    "a sum and 1000 times it": (
        lambda: measure(lambda s: {"measured": jnp.sum(s.x)}),
        lambda: measure(lambda s: {"measured": 1000 * jnp.sum(s.x)}),
    ),
    "a float64 constant in its last digits": (
        lambda: measure(lambda s: {"measured": jnp.sum(s.x) + 0.1}),
        lambda: measure(lambda s: {"measured": jnp.sum(s.x) + 0.1000000000000001}),
    ),
    "an array inside a compiled function": (lambda: closed_over(1.0), lambda: closed_over(2.0)),
    "an array that is an argument": (
        lambda: measure(Partial(lambda w, s: {"measured": jnp.sum(w * s.x)}, jnp.ones((1, 3)))),
        lambda: measure(Partial(lambda w, s: {"measured": jnp.sum(w * s.x)}, jnp.ones((1, 3)) * 2)),
    ),
    "the code of a callback": (
        lambda: on_the_host(lambda x: np.float64(x * 2)),
        lambda: on_the_host(lambda x: np.float64(x * 3)),
    ),
    "a number that a callback closes over": (lambda: on_the_host(scaled_by(2)), lambda: on_the_host(scaled_by(3))),
    "an array that a callback closes over": (
        lambda: on_the_host(scaled_by(np.full((), 2.0))),
        lambda: on_the_host(scaled_by(np.full((), 3.0))),
    ),
    "what a callable object holds": (lambda: on_the_host(Scaled(2)), lambda: on_the_host(Scaled(3))),
}


@pytest.mark.parametrize("name", list(PAIRS))
def test_an_edited_observer_is_another_run(tmp_path, name):
    this, other = PAIRS[name]
    first = run(tmp_path / "run", observers=[this()])
    again = run(tmp_path / "run", observers=[this()])  # made anew: the same run
    assert again.dataset.equals(first.dataset)
    with pytest.raises(ValueError, match=r"holds another run.*program or data"):
        run(tmp_path / "run", observers=[other()])


def test_a_lost_note_does_not_hide_whose_pieces_they_are(tmp_path):
    first = run(tmp_path / "run")
    note = tmp_path / "run" / "run.json"
    note.unlink()
    with pytest.raises(ValueError, match=r"holds another run.*start"):
        simulate(KEY, gossip_averaging(), PLAN, 2 * START, observers=[consensus_distance()], record_every=2,
                 checkpoint=tmp_path / "run")  # fmt: skip
    assert run(tmp_path / "run").dataset.equals(first.dataset)
    assert note.is_file()
    for piece in (tmp_path / "run").glob("after-*.npz"):  # the note of this run beside another run's pieces
        piece.unlink()
    simulate(KEY, gossip_averaging(), PLAN, 2 * START, record_every=2, checkpoint=tmp_path / "other")
    for piece in (tmp_path / "other").glob("after-*.npz"):
        piece.rename(tmp_path / "run" / piece.name)
    with pytest.raises(ValueError, match="holds another run"):
        run(tmp_path / "run")


@pytest.mark.parametrize("note", ["", "{", "[1, 2", "null", "\x00\x01"])
def test_a_damaged_note_is_named_with_the_remedy(tmp_path, note):
    first = run(tmp_path / "run")
    path = tmp_path / "run" / "run.json"
    path.write_text(note)
    with pytest.raises(ValueError, match=f"{tmp_path / 'run'}"):
        run(tmp_path / "run")
    path.unlink()
    assert run(tmp_path / "run").dataset.equals(first.dataset)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    content = bytearray(path.read_bytes())
    middle = len(content) // 2  # many bytes, for some of a zip file are never read
    content[middle : middle + 64] = bytes(byte ^ 0xFF for byte in content[middle : middle + 64])
    path.write_bytes(bytes(content))


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut, flip, empty])
def test_the_piece_before_is_used_when_the_newest_is_damaged(tmp_path, damage):
    first = run(tmp_path / "run")
    pieces = sorted((tmp_path / "run").glob("after-*.npz"))
    assert [piece.name for piece in pieces] == ["after-000000000000004.npz", "after-000000000000006.npz"]
    damage(pieces[-1])
    with pytest.warns(UserWarning, match="going on from after-000000000000004"):
        again = run(tmp_path / "run")
    assert again.dataset.equals(first.dataset)
    assert run(tmp_path / "run").dataset.equals(first.dataset)  # whole again, without a warning
    for piece in pieces:
        damage(piece)
    with pytest.raises(ValueError, match=rf"every piece in {tmp_path / 'run'} is damaged.*delete the folder"):
        run(tmp_path / "run")


def test_a_folder_must_be_one(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file"):
        run(tmp_path / "file")


WORK = textwrap.dedent("""
    import sys, time
    import jax, jax.numpy as jnp
    import gossipjax as gj
    plan = gj.timeline.rounds(gj.mixing.metropolis(gj.topology.ring(4)), 100)
    def slow(record):
        print(record["event"], flush=True)
        time.sleep(float(sys.argv[2]))
    gj.simulate(jax.random.key(0), gj.gossip_averaging(), plan, jnp.arange(4.0), record_every=1,
                checkpoint=sys.argv[1], callback=slow)
""")


@pytest.mark.slow
def test_two_processes_are_kept_apart_and_a_dead_one_is_not_waited_for(tmp_path):
    pytest.importorskip("fcntl")
    folder = tmp_path / "run"
    command = [sys.executable, "-c", WORK, str(folder)]
    with subprocess.Popen([*command, "0.2"], stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        while first.stdout.readline().strip() != "3":
            assert first.poll() is None
        second = subprocess.run([*command, "0"], capture_output=True, text=True, timeout=120, check=False)
        os.kill(first.pid, signal.SIGKILL)
    assert f"{folder} is in use by process {first.pid}" in second.stderr
    (folder / ".after-000000000000009.npz.half.npz").write_bytes(b"half")
    third = subprocess.run([*command, "0"], capture_output=True, text=True, timeout=120, check=False)
    assert third.returncode == 0, third.stderr
    assert [int(line) for line in third.stdout.split()] == list(range(101))
    left = sorted(path.name for path in folder.iterdir())
    assert left == ["after-000000000000099.npz", "after-000000000000100.npz", "lock", "run.json"]


@pytest.mark.exact
@pytest.mark.parametrize("record_every", [None, 1, 5])
def test_a_folder_goes_on_to_a_longer_run(tmp_path, record_every):
    protocol = dpsgd(exact_quadratic(), Partial(_momentum))

    def learn(rounds_, **settings):
        return simulate(
            KEY, protocol, rounds(metropolis(ring(N)), rounds_), START, record_every=record_every, **settings
        )

    learn(100, checkpoint=tmp_path / "run")
    longer, whole = learn(200, checkpoint=tmp_path / "run"), learn(200)
    assert longer.dataset.equals(whole.dataset)
    jax.tree.map(np.testing.assert_array_equal, longer.state, whole.state)
    with pytest.raises(ValueError, match="200 events are done already"):
        learn(100, checkpoint=tmp_path / "run")


def _momentum():
    import optax

    return optax.sgd(0.1, 0.9)
