"""Where a run came from: call records, files that tell runs apart, runs made again, and what to cite."""

import dataclasses
import itertools
import json
import os
import pathlib
import subprocess
import sys

import h5py
import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import optax
import pytest
from jax.tree_util import Partial

import gossipjax as gj
from gossipjax._base import call_json, calls, functions
from gossipjax._base.call_text import text
from gossipjax._base.calls import Attribute, Call, Function, Object, Opaque, record_of, write_down
from gossipjax._engine import repeat as _repeat
from gossipjax.mixing import mix
from gossipjax.results import _provenance

KEY = jax.random.key(3)
N = 6
RING, PATH = gj.topology.ring(N), gj.topology.path(N)
DIGITS = gj.tasks.digits(limit=(120, 60))
SHARDS = gj.tasks.dirichlet(DIGITS.train.labels, N, alpha=0.5, minimum=2, seed=1)
TASK = gj.tasks.classification(DIGITS, SHARDS, gj.tasks.mlp(64, (4,), 10), batch_size=4)
SGD = Partial(optax.sgd, 0.1)
ROUNDS = gj.timeline.rounds(gj.mixing.metropolis(RING), 6)


def start(task=TASK, rows=N):
    return gj.replicate(task.init(KEY), rows)


# --- records ----------------------------------------------------------------------------------------------------------


def test_a_builder_writes_down_all_its_arguments():
    record = record_of(gj.topology.random_regular(8, 4, seed=2))
    assert isinstance(record, Call)
    assert record.function == "gossipjax.topology:random_regular"
    assert dict(record.arguments) | {"num_nodes": 8, "degree": 4, "seed": 2} == dict(record.arguments)
    assert hash(record) == hash(record_of(gj.topology.random_regular(8, 4, seed=2)))
    assert record != record_of(gj.topology.random_regular(8, 4, seed=3))


def test_a_record_belongs_to_one_object():
    """What is no longer what the builder made must not say that it is."""
    weights = gj.mixing.metropolis(RING)
    protocol, task = gj.gossip_averaging(), TASK
    assert all(record_of(each) is not None for each in (weights, protocol, task, ROUNDS, SHARDS))
    assert record_of(protocol._replace(requires=gj.Requires())) is None
    assert record_of(dataclasses.replace(ROUNDS, xs=ROUNDS.xs)) is None
    assert record_of(dataclasses.replace(SHARDS, indices=SHARDS.indices)) is None
    assert record_of(jax.tree.map(lambda leaf: leaf, task)) is None
    assert record_of(weights * 1.0) is None


def test_records_change_neither_equality_nor_programs():
    one, two = gj.dpsgd(TASK, Partial(optax.sgd, 0.1)), gj.dpsgd(TASK, Partial(optax.sgd, 0.2))
    assert record_of(one) != record_of(two)
    assert jax.tree.structure(one) == jax.tree.structure(two)
    bare = gj.Protocol(*one)
    assert record_of(bare) is None
    assert bare == one
    assert hash(jax.tree.structure(bare)) == hash(jax.tree.structure(one))
    assert isinstance(one, tuple)
    assert gj.tasks.mlp(4, (2,), 3) == gj.tasks.mlp(4, (2,), 3)


def test_arrays_stand_by_their_content():
    labels = np.arange(6)
    record = write_down(labels)
    labels[0] = 5  # after the call, the record keeps what was passed
    assert record == write_down(np.arange(6))
    assert record != write_down(labels)
    assert record != write_down(np.arange(6, dtype=np.int32))
    assert record != write_down(np.arange(6).reshape(2, 3))
    assert record != write_down(jnp.arange(6))
    np.testing.assert_array_equal(record.values, np.arange(6))


def test_large_arrays_are_kept_by_their_hash_only(monkeypatch):
    monkeypatch.setattr(calls, "KEPT_BYTES", 100)
    assert write_down(np.zeros(12)).values is not None
    assert write_down(np.zeros(13)).values is None


def test_parts_that_travel_alone_know_what_they_are_parts_of():
    assert record_of(TASK.init) == Attribute(record_of(TASK), "init")
    plan = gj.systems.allreduce(gj.devices.uniform(4), num_rounds=2, local_steps=1, model_bytes=100)
    assert record_of(plan.timeline) == Attribute(record_of(plan), "timeline")


def module_level(x):
    return x


def test_functions_are_named_and_closures_taken_apart():
    assert write_down(module_level) == Function(f"{__name__}:module_level", write_down(module_level).code)
    assert write_down(optax.sgd) == Function("optax:sgd")
    scale = 3.0
    inner = write_down(lambda x: scale * x)
    assert inner.captured == (("scale", 3.0),)
    assert write_down(optax.sgd(0.1)) == write_down(optax.sgd(0.1))
    assert write_down(optax.sgd(0.1)) != write_down(optax.sgd(0.2))
    assert "step_size=-0.1" in text(write_down(optax.sgd(0.1)))
    assert isinstance(write_down(object()), Opaque)


def test_every_builder_writes_itself_down():
    """Whatever a user passes to a run, or to what makes one, is made by a builder that records its call."""
    rooms = {
        gj.topology: {"Topology", "write_graph"},
        gj.mixing: set(),
        gj.protocol: set(),
        gj.sharing: {"tune_gamma"},
        gj.compress: {"Compressor", "compress_rows", "largest"},
        gj.timeline: {"Clock", "RandomizedTokens", "save", "opportunistic_windows"},
        gj.timeline.clocks: {"Clock", "Ticks", "as_clock"},
        gj.observe: set(),
    }
    makes = ("Topology", "csr_array", "Matrix", "Timeline", "Protocol", "Sharing", "Compressor", "Clock", "Observer")
    for room, others in rooms.items():
        for name, thing in vars(room).items():
            result = str(getattr(thing, "__annotations__", {}).get("return", ""))
            if name.startswith("_") or name in others or not callable(thing) or result not in makes:
                continue
            assert calls.citations(thing) is not None, f"{room.__name__}.{name} is not recorded"


# --- manifests --------------------------------------------------------------------------------------------------------


def run(protocol=None, timeline=ROUNDS, x0=None, **settings):
    protocol = gj.dpsgd(TASK, SGD) if protocol is None else protocol
    return gj.simulate(KEY, protocol, timeline, start() if x0 is None else x0, **settings)


DIFFERENT = {
    "learning rate": lambda: run(gj.dpsgd(TASK, optax.sgd(0.2))),
    "optimizer": lambda: run(gj.dpsgd(TASK, optax.sgd(0.7, momentum=0.9))),
    "sharing": lambda: run(gj.dpsgd(TASK, SGD, sharing=gj.sharing.jwins((0.1, 0.7), cap=2.0, accumulate="nothing"))),
    "sharing's numbers": lambda: run(gj.dpsgd(TASK, SGD, sharing=gj.sharing.jwins((0.1, 0.8), cap=2.0))),
    "graph": lambda: run(timeline=gj.timeline.rounds(gj.mixing.metropolis(PATH), 6)),
    "weights": lambda: run(timeline=gj.timeline.rounds(gj.mixing.lazy(gj.mixing.metropolis(RING)), 6)),
    "seconds": lambda: run(timeline=gj.timeline.rounds(gj.mixing.metropolis(RING), 6, seconds_per_round=2.0)),
    "start": lambda: run(x0=gj.replicate(TASK.init(jax.random.key(4)), N)),
    "observers": lambda: run(observers=[gj.observe.node_metrics(TASK, samples=20)]),
    "batch size": lambda: run(gj.dpsgd(_task(batch_size=5), SGD)),
    "alpha": lambda: run(gj.dpsgd(_task(alpha=0.6), SGD)),
    "partition's seed": lambda: run(gj.dpsgd(_task(seed=2), SGD)),
}


def _task(*, batch_size=4, alpha=0.5, seed=1):
    shards = gj.tasks.dirichlet(DIGITS.train.labels, N, alpha=alpha, minimum=2, seed=seed)
    return gj.tasks.classification(DIGITS, shards, gj.tasks.mlp(64, (4,), 10), batch_size=batch_size)


def _of(trajectory):
    return {
        name: trajectory.manifest["configuration"][name]
        for name in ("protocol", "timeline", "x0", "observers", "call_sha256")
    }


@pytest.mark.slow
def test_manifests_tell_runs_apart():
    manifests = [_of(run())] + [_of(make()) for make in DIFFERENT.values()]
    words = [json.dumps({name: value for name, value in each.items() if name != "call_sha256"}) for each in manifests]
    hashes = [each["call_sha256"] for each in manifests]
    assert len(set(words)) == len(set(hashes)) == len(DIFFERENT) + 1
    assert _of(run()) == manifests[0]
    assert "sgd(0.1)" in words[0]
    assert "alpha=0.5" in words[0]
    assert "ring(num_nodes=6)" in words[0]
    assert "step_size=-0.7" in words[1 + list(DIFFERENT).index("optimizer")]


# --- made again -------------------------------------------------------------------------------------------------------


class _Halved:
    """Protocols of a user, for which nothing of this package is a record."""

    @staticmethod
    def init(key, x0):
        return x0

    @staticmethod
    def step(key, x, event):
        return jax.tree.map(lambda old, new: 0.5 * (old + new), x, mix(event.mixing, x)), gj.Info()


def _identity(x):
    return x


OWN = gj.Protocol(_Halved.init, _Halved.step, _identity)


def _plexus():
    devices = gj.devices.fitted(20, seed=0)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(TASK20.init(KEY)))
    plan = gj.systems.plexus(devices, num_rounds=3, model_bytes=size, sample_size=4, local_steps=2, seed=0)
    timeline = plan.timeline
    return run(gj.fedavg(TASK20, SGD, local_steps=2), timeline, start(TASK20, timeline.properties.num_rows))


TASK20 = gj.tasks.classification(DIGITS, gj.tasks.iid(120, 20, seed=0), gj.tasks.mlp(64, (4,), 10), batch_size=4)
RANDOM = jax.random.normal(KEY, (N, 3))
COMPUTE = gj.timeline.clocks.shifted_exponential(0.5, 0.5)
RUNS = {
    "rounds": lambda: run(observers=[gj.observe.node_metrics(TASK), gj.observe.consensus_distance()]),
    "closures": lambda: run(gj.dpsgd(TASK, optax.chain(optax.scale(0.5), optax.sgd(0.1, momentum=0.9)))),
    "compressed": lambda: run(gj.dpsgd(TASK, SGD, sharing=gj.sharing.choco(gj.compress.top_k(share=0.2), 0.3))),
    "events": lambda: run(
        gj.track_versions(gj.ad_psgd(TASK, SGD)),
        gj.timeline.pairwise(
            RING, 5.0, compute=gj.timeline.clocks.shifted_exponential(0.5, 0.5), communicate=0.1, seed=0
        ),
        observers=[gj.observe.staleness_matrix()],
        record_times=[1.0, 4.0],
    ),
    "seeds and starts": lambda: gj.simulate(jax.random.split(KEY, 2), gj.dpsgd(TASK, SGD), ROUNDS, _per_node_start()),
    "matrix by hand": lambda: run(gj.gossip_averaging(), gj.timeline.rounds(np.full((N, N), 1 / N), 4), RANDOM),
    "window": lambda: run(gj.gossip_averaging(), ROUNDS[2:5], RANDOM),
    "packed": lambda: run(gj.gossip_averaging(), gj.pack(gj.timeline.poisson_pairs(RING, 50, seed=0)), RANDOM),
    "phones": _plexus,
}


def _per_node_start():
    return Partial(_rows, TASK.init)


def _rows(init, key):
    return jax.vmap(init)(jax.random.split(key, N))


LONG = {"seeds and starts", "events", "phones"}


@pytest.mark.exact
@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in LONG)) for name in RUNS])
def test_a_run_is_made_again_from_its_file(name, tmp_path):
    """Bit for bit: the same call on the same machine runs the same programs on the same numbers."""
    once = RUNS[name]()
    path = once.save(tmp_path / "run.nc")
    again = gj.repeat(path, given=[_rows])
    assert again.dataset.drop_attrs().equals(once.dataset.drop_attrs())
    assert _of(again) == _of(once)
    assert _of(gj.load(path)) == _of(once)


def test_graphs_from_files_and_networkx_are_held_against_what_they_were(tmp_path):
    file = tmp_path / "ring.txt"
    gj.topology.write_graph(file, RING)
    once = run(gj.gossip_averaging(), gj.timeline.rounds(gj.mixing.metropolis(gj.topology.read_graph(file)), 3), RANDOM)
    assert gj.repeat(once).dataset.drop_attrs().equals(once.dataset.drop_attrs())
    gj.topology.write_graph(file, PATH)
    with pytest.raises(ValueError, match=r"read_graph.*gives something else here"):
        gj.repeat(once)
    by_hand = gj.topology.from_networkx(nx.cycle_graph(N))
    with_it = run(gj.gossip_averaging(), gj.timeline.rounds(gj.mixing.metropolis(by_hand), 3), RANDOM)
    assert "sha256" in with_it.manifest["configuration"]["timeline"]


def _csv(path, milliseconds):
    path.write_text("compute_ms_per_sample,bandwidth_kbps\n" + f"{milliseconds},8000\n" * N)
    return gj.devices.read_csv(path)


def _saved(path, powers):
    gj.devices.save(gj.devices.from_powers(powers), path)
    return gj.devices.load(path)


@pytest.mark.parametrize(
    ("read", "first", "second"), [(_csv, 10, 20), (_saved, (3.0, *[1.0] * (N - 1)), (2.0, *[1.0] * (N - 1)))]
)
def test_a_plan_is_held_against_the_file_of_its_devices(read, first, second, tmp_path):
    """Devices have no checksum of their own: that of the file that they were read from is in the record."""
    path = tmp_path / "devices"
    plan = gj.systems.synchronous(
        read(path, first), gj.mixing.metropolis(RING), 3, round_seconds=None, local_steps=1, model_bytes=8
    )
    once = run(gj.gossip_averaging(), gj.systems.stand_in(plan), RANDOM)
    assert gj.repeat(once).dataset.drop_attrs().equals(once.dataset.drop_attrs())
    read(path, second)
    with pytest.raises(ValueError, match=r"devices.*gives something else here"):
        gj.repeat(once)


def test_weights_are_held_against_their_file(tmp_path):
    path = tmp_path / "weights.csv"
    lines = [f"{i},{i + 1},0.25\n" for i in range(N - 1)]
    path.write_text("".join(lines))
    once = run(gj.gossip_averaging(), gj.timeline.rounds(gj.mixing.read_weights(path, kind="doubly"), 3), RANDOM)
    assert gj.repeat(once).dataset.drop_attrs().equals(once.dataset.drop_attrs())
    path.write_text("".join(lines).replace("1,2,0.25", "1,2,0.4"))
    with pytest.raises(ValueError, match=r"read_weights.*gives something else here"):
        gj.repeat(once)


def _star(kind, **weight):
    graph = kind(name="star")
    graph.add_nodes_from(["d", ("c", 1), "b", np.int64(7), 2.5, "f"])
    graph.add_edges_from((u, v, weight) for u, v in itertools.pairwise([*graph, "d"]))
    return graph


@pytest.mark.parametrize(
    "weights",
    [
        lambda: gj.mixing.metropolis(gj.topology.from_networkx(nx.gnm_random_graph(N, 12, seed=1))),
        lambda: gj.mixing.metropolis(gj.topology.from_networkx(_star(nx.Graph))),
        lambda: gj.mixing.uniform(gj.topology.from_networkx(_star(nx.DiGraph))),
        lambda: gj.mixing.from_edge_weights(_star(nx.Graph, weight=0.25)),
        lambda: gj.mixing.from_edge_weights(_star(nx.DiGraph, share=0.5), attribute="share"),
    ],
    ids=["plain", "labels", "directed", "weights", "directed weights"],
)
def test_runs_on_graphs_of_networkx_are_made_again(weights, tmp_path):
    """The graph itself is kept in the file: no other program has to make it."""
    once = run(gj.gossip_averaging(), gj.timeline.rounds(weights(), 3), RANDOM)
    again = gj.repeat(once.save(tmp_path / "run.nc"))
    assert again.dataset.drop_attrs().equals(once.dataset.drop_attrs())
    assert " at 0x" not in str(once.manifest)


def test_functions_of_ones_own_must_be_given():
    once = run(OWN, ROUNDS, RANDOM)
    with pytest.raises(ValueError, match=r"_Halved.init is a function of your own: pass it in given=\[_Halved.init\]"):
        gj.repeat(once)
    again = gj.repeat(once, given=[_Halved.init, _Halved.step, _identity])
    assert again.dataset.drop_attrs().equals(once.dataset.drop_attrs())


def test_a_given_lambda_must_have_the_code_that_it_had():
    def make(factor):
        return gj.Protocol(_Halved.init, _Halved.step, lambda x: x) if factor else None

    once = run(make(1), ROUNDS, RANDOM)
    lambda_ = once_model = make(1).model
    again = gj.repeat(once, given=[_Halved.init, _Halved.step, once_model])
    assert again.dataset.drop_attrs().equals(once.dataset.drop_attrs())

    def other(x):
        return jax.tree.map(lambda leaf: 2 * leaf, x)

    other.__qualname__ = lambda_.__qualname__
    with pytest.raises(ValueError, match="has another code than in the run"):
        gj.repeat(once, given=[_Halved.init, _Halved.step, other])


def _from_one(key):
    return jnp.arange(float(N))


def _from_two(key):
    return jnp.arange(float(N)) * 2


def test_a_given_function_must_have_the_code_that_it_had(monkeypatch):
    once = run(gj.gossip_averaging(), ROUNDS, _from_one)
    assert gj.repeat(once, given=[_from_one]).dataset.drop_attrs().equals(once.dataset.drop_attrs())
    _from_two.__qualname__ = _from_two.__name__ = "_from_one"
    monkeypatch.setattr(sys.modules[__name__], "_from_one", _from_two)
    with pytest.raises(ValueError, match="_from_one has another code than in the run"):
        gj.repeat(once, given=[_from_two])


def test_defaults_count(monkeypatch):
    first, code = write_down(module_level).code, functions.code_hash(module_level)
    for name, value in (("__defaults__", (3.0,)), ("__kwdefaults__", {"by": 3.0})):
        with monkeypatch.context() as patch:
            patch.setattr(module_level, name, value)
            assert functions.code_hash(module_level) == code
            assert write_down(module_level).code != first


@pytest.mark.parametrize("other", [2.0, True, jnp.ones(2)])
def test_a_given_function_must_have_captured_what_it_had(other):
    def scaled(factor):
        return lambda key: jnp.ones(2) @ jnp.ones(2) * factor * jnp.arange(float(N))

    once = run(gj.gossip_averaging(), ROUNDS, scaled(1.0))
    assert gj.repeat(once, given=[scaled(1.0)]).dataset.drop_attrs().equals(once.dataset.drop_attrs())
    with pytest.raises(ValueError, match="captured other values than in the run"):
        gj.repeat(once, given=[scaled(other)])


def test_functions_that_name_themselves_and_lists_that_hold_themselves_are_written_down():
    def product(n):
        return 1.0 if n == 0 else n * product(n - 1)

    assert dict(write_down(product).captured) == {"product": Opaque("itself")}
    endless: list = [1]
    endless.append(endless)
    assert write_down(endless).values == (1, Opaque("itself"))
    twice = (1, 2)
    assert write_down([twice, twice]).values == (write_down(twice), write_down(twice))
    once = run(gj.gossip_averaging(), ROUNDS, lambda key: product(3) * jnp.arange(float(N)))
    assert "itself" in once.manifest["configuration"]["x0"]


@pytest.mark.exact
def test_records_are_the_same_in_every_process():
    """Words in sets, and addresses of objects, are not."""
    program = (
        "from gossipjax._base.calls import write_down\nfrom gossipjax._base.functions import code_hash\n"
        "class Thing: pass\n"
        "def known(name): return name in {'alpha', 'beta', 'gamma', 'delta', ('epsilon', 'zeta')}\n"
        "print(code_hash(known), write_down([Thing(), object()]))"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", f"x = [[] for _ in range({1000 * seed})]\n{program}"],
            capture_output=True, text=True, check=True, env=os.environ | {"PYTHONHASHSEED": str(seed)},
            cwd=pathlib.Path(gj.__file__).parents[1],
        ).stdout
        for seed in (1, 2)
    }  # fmt: skip
    assert len(said) == 1


def test_numbers_that_are_equal_but_of_other_types_are_made_again_as_they_were():
    make = _repeat._Maker([]).make
    for values in ((1, 0), (1.0, 0.0), (True, False), (1.0, -0.0)):
        assert repr(make(write_down(values))) == repr(values)


@pytest.mark.parametrize("window", [slice(0, 6), slice(2, 6)])
def test_a_run_that_was_stopped_stops_there_again(window, tmp_path):
    """Also inside another run that goes on from it, over fewer events than the first was planned for."""
    part, stop = ROUNDS[window], window.start + 2
    once = run(gj.gossip_averaging(), part, RANDOM, callback=lambda record: record["event"] >= stop)
    assert once.manifest["stopped"] == {"event": stop}
    assert gj.repeat(once.save(tmp_path / "once.nc")).dataset.drop_attrs().equals(once.dataset.drop_attrs())
    longer = run(gj.gossip_averaging(), part[:3], once)
    assert gj.repeat(longer).dataset.drop_attrs().equals(longer.dataset.drop_attrs())


def test_the_strategy_in_force_is_written_down():
    with gj.placement.using("map"):
        once = run(gj.gossip_averaging(), ROUNDS, RANDOM)
    assert gj.repeat(once).manifest["configuration"]["strategy"] == "map: asked for"


def test_large_arrays_must_be_given(monkeypatch):
    monkeypatch.setattr(calls, "KEPT_BYTES", 100)
    once = run(gj.gossip_averaging(), ROUNDS, RANDOM)
    with pytest.raises(ValueError, match=r"array float64\[6, 3\].*too large to be kept"):
        gj.repeat(once)
    again = gj.repeat(once, given=[RANDOM])
    assert again.dataset.drop_attrs().equals(once.dataset.drop_attrs())


@pytest.mark.parametrize(
    "record",
    [
        Function("os:system"),
        Function("gossipjax.results._trajectory:subprocess.run"),
        Function("gossipjax.results._trajectory:os.remove"),
        Call("os:system", (("command", "true"),)),
        Call("gossipjax.results._trajectory:code_version", ()),
        Call("gossipjax_of_another:ring", ()),
        Object("subprocess:Popen", (("args", "true"),)),
        Object("gossipjax._engine.records:Log", (("first", None), ("num_seeds", None))),
        Attribute(Call("gossipjax.topology._families:ring", (("num_nodes", 4),)), "__class__"),
        Opaque("Generator"),
    ],
    ids=str,
)
def test_a_file_calls_nothing_but_builders(record):
    once = run(gj.gossip_averaging(), ROUNDS, RANDOM)
    arguments = dict(record_of(once).arguments) | {"protocol": record}
    calls.attach(once, Call("gossipjax._engine.simulate:simulate", tuple(arguments.items())))
    with pytest.raises(ValueError, match=r"not one of ours|your own|cannot be made|not to be found|not defined there"):
        gj.repeat(once)


def test_damaged_and_missing_records(tmp_path):
    once = run(gj.gossip_averaging(), ROUNDS, RANDOM)
    path = once.save(tmp_path / "run.nc")
    with h5py.File(path, "a") as file:
        file["call/npz"][100:140] = 0
    with pytest.raises(ValueError, match="record of the call is damaged"):
        gj.load(path)
    with h5py.File(path, "a") as file:
        del file["call"]
    with pytest.raises(ValueError, match="no record of its call"):
        gj.repeat(path)
    with pytest.raises(ValueError, match="damaged"):
        call_json.from_json("[" * 100_000, [])


def test_another_environment_is_said(monkeypatch):
    once = run(gj.gossip_averaging(), ROUNDS, RANDOM)
    monkeypatch.setattr(_repeat, "environment", lambda: once.manifest | {"versions": {"jax": "0.0"}})
    with pytest.warns(UserWarning, match="another versions"):
        gj.repeat(once)
    monkeypatch.setattr(_repeat, "environment", lambda: once.manifest | {"x64": False})
    with pytest.raises(ValueError, match="jax_enable_x64=True"):
        gj.repeat(once)


# --- citations --------------------------------------------------------------------------------------------------------


def test_what_was_used_is_cited(capsys, tmp_path):
    once = RUNS["compressed"]()
    entries = once.cite()
    assert capsys.readouterr().out.strip() == entries
    for key in ("gossipjax", "lian2017dpsgd", "koloskova2019choco", "stich2018sparsified", "hsu2019dirichlet"):
        assert f"{{{key}," in entries
    assert "mcmahan2017fedavg" not in entries
    assert gj.load(once.save(tmp_path / "run.nc")).cite() == entries


def test_all_references_exist_and_are_used():
    used = {"gossipjax", "jax"}
    for path in pathlib.Path(gj.__file__).parent.rglob("*.py"):
        for line in path.read_text().splitlines():
            if line.startswith("@recorded("):
                words = [word.strip() for word in line[len("@recorded(") : -1].split(",")]
                used |= {word.strip('"') for word in words if word.startswith('"')}
    assert used == set(_provenance.references())


@pytest.mark.parametrize("room", [gj.protocol, gj.sharing])
def test_every_algorithm_cites_its_source(room):
    named = {
        name: thing for name, thing in vars(room).items() if callable(thing) and calls.citations(thing) is not None
    }
    assert [name for name, thing in named.items() if not calls.citations(thing)] in ([], ["full"])
