"""Runs whose nodes are spread over a mesh: the plan by hand, and equality with one device in processes of their own."""

import json
import os
import pathlib
import subprocess
import sys

import combinations
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import Mesh
from xla_flags import flags_after

import gossipjax as gj
from gossipjax._base.placement import by_rows, is_by_rows
from gossipjax._engine.mesh.devices import as_mesh
from gossipjax._engine.mesh.layout import choose_parts, exchange, layout
from gossipjax._engine.mesh.transfers import rows_of
from gossipjax.topology import complete, hypercube, path, ring, star, torus

LIB = pathlib.Path(__file__).parents[1] / "lib"
ROUNDING = 1e-6
"""Relative: sums of a float32 over nodes are taken in another order; the models of these runs have norms of about 1."""


def planned(graph, devices, parts="blocks"):
    n = graph.num_nodes
    edges = np.argwhere(graph.adjacency().toarray() != 0)
    where = layout(choose_parts(parts, n, devices, edges), devices)
    return where, exchange(edges, where)


@pytest.mark.parametrize(
    ("graph", "rows", "bound", "moved"),
    [
        (ring(64), 8, 16, 16),
        (torus(32, 32), 128, 512, 512),
        (hypercube(6), 8, 192, 192),
        (star(64), 8, 63, 112),
        (complete(64), 8, 448, 448),
        (path(10), 2, 14, 14),
    ],
    ids=["ring", "torus", "hypercube", "star", "complete", "path"],
)
def test_rows_that_move_between_eight_blocks(graph, rows, bound, moved):
    """Counted by hand: a ring sends a row each way at 8 borders; a star's hub sends 7 times, and reads 56 leaves."""
    where, plan = planned(graph, 8)
    assert (where.rows, plan.bound, plan.moved) == (rows, bound, moved)


def test_colours_of_the_torus_and_of_the_complete_graph():
    assert planned(torus(32, 32), 8)[1].slots == (32, 32)
    assert len(planned(complete(64), 8)[1].slots) == 7  # all devices meet: a tournament of 8


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 8), st.integers(0, 10_000))
def test_devices_receive_the_rows_they_read(devices, seed):
    """Play the exchange on the host, on random directed graphs and uneven parts."""
    draws = np.random.default_rng(seed)
    n = int(draws.integers(devices, 30))
    edges = np.argwhere(draws.random((n, n)) < 0.2)
    parts = draws.permutation(np.append(np.arange(devices), draws.integers(0, devices, n - devices)))
    where = layout(choose_parts(parts, n, devices, None), devices)
    plan = exchange(edges, where)
    assert sorted(where.ids[where.valid].tolist()) == list(range(n))
    assert (where.ids[where.position] == np.arange(n)).all()
    assert (where.parts[where.ids] == np.arange(len(where.ids)) // where.rows).all()  # a ghost's node is on its device
    held = [list(where.ids[k * where.rows : (k + 1) * where.rows]) for k in range(devices)]
    at = 0
    for pairs, slots in zip(plan.pairs, plan.slots, strict=True):
        busy = [sorted(pair) for pair in pairs]
        assert all(a == b or not set(a) & set(b) for a in busy for b in busy)  # a matching of devices
        senders = dict((target, source) for source, target in pairs)
        for device in range(devices):
            rows = plan.rows[senders[device], at : at + slots] if device in senders else []
            sent = [where.ids[senders[device] * where.rows + row] for row in rows]
            held[device] += sent + [-1] * (slots - len(sent))
        at += slots
    for reader, sender in edges:
        device = where.parts[reader]
        if where.parts[sender] != device:
            assert held[device][plan.place[device, sender]] == sender
    assert plan.bound <= plan.moved


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5), st.integers(0, 12), st.integers(0, 10_000))
def test_rows_have_places_of_their_own(devices, slots, seed):
    """Nodes and messages: each in one place on its device; spare places copy a row of the same device."""
    draws = np.random.default_rng(seed)
    nodes = draws.permutation(np.append(np.arange(devices), draws.integers(0, devices, 6)))
    where = layout(nodes, devices)
    device = np.append(nodes, draws.integers(0, devices, slots)).astype(np.int32)
    row, places = rows_of(device, where)
    each = len(places) // devices
    home = device * each + row
    assert len(set(home.tolist())) == len(device)
    np.testing.assert_array_equal(places[home], np.arange(len(device)))
    np.testing.assert_array_equal(device[places], np.repeat(np.arange(devices), each))


TASK = gj.tasks.quadratic(np.eye(8))
LEARN = gj.dpsgd(TASK, optax.sgd(0.1))
W = gj.mixing.metropolis(ring(8))
PLAN = gj.timeline.rounds(W, 2)
CLOCK = gj.timeline.clocks.deterministic(1.0)
X0 = jnp.ones((8, 8))
KEY = jax.random.key(0)
FULL = gj.sharing.multi_step(1)
MINE = FULL._replace(encode=lambda *arguments: FULL.encode(*arguments))


CASES = {
    "more devices than nodes": (
        lambda: choose_parts("blocks", 2, 3, None),
        "mesh: 3 devices for 2 nodes",
    ),
    "a device without a node": (
        lambda: choose_parts(np.array([0, 0, 2]), 3, 3, None),
        "device 1 holds no node",
    ),
    "parts of another size": (lambda: choose_parts(np.array([0, 1]), 3, 2, None), "parts.*shape"),
    "unknown parts": (lambda: choose_parts("random", 4, 2, None), "must be 'blocks', 'metis'"),
    "metis of changing graphs": (lambda: choose_parts("metis", 4, 2, None), "graphs of this timeline change"),
    "parts without a mesh": (lambda: run(LEARN, PLAN, mesh=None, parts="metis"), "pass mesh=gossipjax.mesh"),
    "shard inside": (lambda: run(LEARN, PLAN, strategy="shard"), "strategy='shard'"),
    "groups": (
        lambda: run(gj.swift(TASK, optax.sgd(0.1)), gj.timeline.swift(ring(8), 9.0, compute=CLOCK, seed=0)),
        "swift.* mixes by GroupMixing",
    ),
    "metis of drawn pairs": (
        lambda: run(gj.gossip_averaging(), gj.timeline.drawn_pairs(8, 4), parts="metis"),
        "graphs of this timeline change",
    ),
    "slots": (
        lambda: run(
            gj.fedavg(TASK, optax.sgd(0.1), local_steps=1), gj.timeline.client_sampling(8, 3, 2, seed=0), X0[:3]
        ),
        "client_sampling.* are not nodes",
    ),
    "a sharing of the user's own": (lambda: run(gj.gossip_averaging(MINE), PLAN), "the sharing .*its encode"),
    "a sharing for rounds": (
        lambda: run(
            gj.gossip_averaging(gj.sharing.robust(gj.robust.clipped_gossip(1.0))),
            gj.timeline.poisson_pairs(ring(8), 4, seed=0),
        ),
        "the sharing robust is written for rounds",
    ),
    "a wrapper": (lambda: run(gj.track_versions(LEARN), PLAN), "is not marked|track_versions"),
    "the user's own": (
        lambda: run(LEARN._replace(step=lambda key, state, event: LEARN.step(key, state, event)), PLAN),
        "is not marked gossipjax.placement.by_rows",
    ),
}


def run(method, plan, x0=X0, **settings):
    settings = {"mesh": gj.mesh(1)} | settings
    return gj.simulate(KEY, method, plan, x0, progress=False, **settings)


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_be_placed_is_refused_by_name(case):
    call, message = CASES[case]
    with pytest.raises(ValueError, match=message):
        call()


def test_meshes():
    with pytest.raises(TypeError, match="mesh"):
        as_mesh(8)
    with pytest.raises(ValueError, match="one axis"):
        run(LEARN, PLAN, mesh=Mesh(np.asarray(jax.devices()[:1]).reshape(1, 1), ("a", "b")))
    with pytest.raises(ValueError, match="JAX has"):
        gj.mesh(10_000)
    with pytest.raises(ValueError, match="each of them once"):
        gj.mesh([jax.devices()[0]] * 2)
    assert run(LEARN, PLAN, mesh=jax.make_mesh((1,), ("rows",))).manifest["placement"]["rows"] == [8]


@by_rows
def as_before(key, state, event):
    return LEARN.step(key, state, event)


def test_a_marked_function_of_a_user_runs_on_a_mesh():
    mine = LEARN._replace(step=as_before)
    np.testing.assert_array_equal(run(mine, PLAN).x, run(mine, PLAN, mesh=None).x)


def test_a_mesh_of_one_device_is_the_same_run():
    one, other = run(LEARN, PLAN, mesh=None), run(LEARN, PLAN)
    np.testing.assert_array_equal(one.x, other.x)
    assert other.gather() is other  # one process has its models
    assert one.manifest["configuration"]["call_sha256"] == other.manifest["configuration"]["call_sha256"]


def in_processes_of_their_own(script, *arguments, optimized=True):
    """Start a script with 8 forced CPU devices, and read what it prints."""
    own = os.environ.get("XLA_FLAGS", "").split()
    flags = " ".join([*(own if optimized else flags_after(own)), "--xla_force_host_platform_device_count=8"])
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, str(LIB / script), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def assert_equal_runs(found):
    assert found["counts"]
    assert max(found[each] for each in ("models", "state", "records", "losses")) < ROUNDING * 10


def test_eight_devices_are_one():
    """D-PSGD on 100 nodes, and messages in flight where node 0 lies on the last device.

    The bytes of the compiled exchange are those of the plan, with nothing gathered.
    """
    found = json.loads(in_processes_of_their_own("mesh_checks.py", "few"))
    assert_equal_runs(found["dpsgd n=100 K=8"])
    assert_equal_runs(found["last device"])
    for devices in (3, 8):
        assert_equal_runs(found[f"levels K={devices}"])
        assert found[f"levels K={devices}"]["models"] == 0
    report = found["moves"]["report"]
    assert report["exchange"] == "halo"
    assert found["moves"]["hlo"] == report["moved"] == report["bound"] == 128
    assert found["moves"]["largest gather"] <= 8  # numbers of devices: counters, no rows


def test_samples_lie_on_the_devices_of_their_nodes():
    found = json.loads(in_processes_of_their_own("mesh_checks.py", "data"))
    here, everything = found.pop("data bytes")
    assert 0.4 * everything < here < everything
    for compared in found.values():
        assert_equal_runs(compared)
        report, wanted = compared["report"], compared["wanted"]
        assert report["data"] == wanted or wanted is None
        most, devices = max(report["data"]), report["devices"]
        assert report["data_padding"] == devices * most - sum(report["data"]) if wanted else True
        assert report["data_copied"] == (40 if wanted else 4)  # mean and scale of 5 features; one penalty
    assert len(found) == 6


@pytest.mark.slow
def test_what_is_said_to_each_neighbour_is_that_of_one_device():
    """Bit for bit but for three sharings, whose products and sums XLA fuses in the one program and not in the other.

    "noisy" and "decor" add scaled noise, "chebyshev" mixes in a loop, which differs on AVX2 alone. Which they are was
    found by runs on AVX512, AVX2 and SSE4.2. Records are means over nodes, summed in the order of the devices.
    """
    fused = ("noisy", "decor", "chebyshev")
    found = json.loads(in_processes_of_their_own("mesh_checks.py", "edges"))
    for name, compared in found.items():
        assert_equal_runs(compared)
        assert name.startswith(fused) or compared["models"] == compared["state"] == 0, name
        assert compared.get("exchange", "halo") == ("all rows" if "dense" in name else "halo")
    assert len(found) == 10 * 4 + 6


@pytest.mark.slow
def test_meetings_and_messages_in_flight_are_those_of_one_device():
    """Whole models are equal bit for bit: each transfer is the same two products and a sum, wherever its rows lie."""
    found = json.loads(in_processes_of_their_own("mesh_checks.py", "transfers"))
    for name, compared in found.items():
        assert_equal_runs(compared)
        assert "sequential" not in name or compared["models"] == compared["state"] == 0, name
        assert 0 < compared["bound"] < compared["transfers"], name
    assert len(found) == 8


@pytest.mark.slow
def test_meshes_of_other_sizes_are_one_device():
    found = json.loads(in_processes_of_their_own("mesh_checks.py", "all"))
    equal = [found[f"dpsgd n=64 K={devices}"] for devices in (2, 3, 8)]
    equal += [found[name] for name in ("resumed 8, 4, 1", "continued 3, 8", "seeds", "cycle")]
    for each in equal + [found["metis"]] * ("metis" in found):
        assert_equal_runs(each)
    one, eight = found["fault"]
    assert one == eight
    assert one["node"] == 11
    assert found["cycle report"]["rows"] == [9, 7, 4]
    alone, spread = found["memory"]["events"]
    assert found["memory"]["state"] == [64 * 4000 * 4] * 2
    assert 0.5 * alone < spread < 2 * alone  # 16 rows of a halo beside 64: the same order, and nothing n times K
    if "metis" in found:
        assert found["metis report"]["bound"] <= found["metis report"]["moved"] < 448


@pytest.mark.slow
def test_every_protocol_sharing_and_timeline_is_placed_and_equal_or_refused():
    lines = [line.split("\t") for line in in_processes_of_their_own("mesh_walk.py", optimized=False).splitlines()]
    outcomes = {outcome for _, _, _, outcome, _ in lines}
    assert outcomes == {"placed", "refused"}, [line for line in lines if line[3] not in ("placed", "refused")]
    for name, said, plan, outcome, told in lines:
        # Memories of sharings hold small differences of models, with the rounding errors of models.
        assert outcome == "refused" or float(told) < 10 * ROUNDING, (name, said, plan, told)
    assert sum(outcome == "placed" for _, _, _, outcome, _ in lines) > 35


def test_all_protocols_and_sharings_of_rounds_are_written_for_a_mesh():
    """As docs/devices-and-hosts.md says, with `robust` as the only one that is not for meetings."""
    page = (pathlib.Path(__file__).resolve().parents[2] / "docs" / "devices-and-hosts.md").read_text(encoding="utf-8")
    assert "All protocols and sharings for\nsuch rounds run." in page
    unmarked = [name for name, build in combinations.PROTOCOLS.items() if not is_by_rows(build().step)]
    assert not [name for name in unmarked if any("rounds" in plan for plan in combinations.runs(name, None))]
    built = {name: build() for name, build in combinations.SHARINGS.items()}
    functions = {name: (each.encode, each.merge) for name, each in built.items()}
    assert all(is_by_rows(function, in_rounds=True) for pair in functions.values() for function in pair)
    assert [name for name, pair in functions.items() if not all(map(is_by_rows, pair))] == ["robust"]
    assert "that run there but `robust`" in page
