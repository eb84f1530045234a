"""Plans in files: what is read is what was written, and runs as it would have run."""

import dataclasses
import json
import re
import tracemalloc
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from plexus_runs import run as run_plexus
from plexus_runs import uneven
from problems import X0, exact_quadratic
from system_runs import KEY, LEARN, MODEL, STEPS
from test_contract import CASES

from gossipjax import Timeline, devices, dpsgd, fedavg, hadfl, simulate, systems, timeline
from gossipjax._base import npz
from gossipjax.systems import traffic_series, training_series
from gossipjax.topology import one_peer_exponential, ring

N = len(X0)
BUILT = {case.name: case.timeline(np.arange(N)) for case in CASES}


def alike(a, b):
    """Bit for bit, in the same containers."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for left, right in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert type(left) is type(right)
        assert np.asarray(left).dtype == np.asarray(right).dtype
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("name", BUILT)
def test_every_timeline_is_what_it_was(name, tmp_path):
    """The structure holds the static facts and functions, which are compared too."""
    alike(BUILT[name], timeline.load(timeline.save(BUILT[name], tmp_path / "kept.npz")))


PLANS = {
    "Plexus": lambda: run_plexus(uneven(N), num_rounds=6, seed=2, local_steps=STEPS),
    "rounds on a clock": lambda: systems.synchronous(uneven(N), ring(N), 5, round_seconds=0.7, **LEARN),
    "barriers": lambda: systems.synchronous(uneven(N), one_peer_exponential(N), 5, round_seconds=None, **LEARN),
    "epidemic": lambda: systems.epidemic(uneven(N), 3, 5, round_seconds=0.7, seed=0, **LEARN),
    "all-reduce": lambda: systems.allreduce(uneven(N), 5, **LEARN),
    "gossip learning": lambda: systems.gossip_learning(uneven(N), 12.0, period_s=2.0, seed=0, **LEARN),
    "HADFL": lambda: systems.hadfl(uneven(N, changes=[(5.0, 1, False)]), 20.0, seed=0, **LEARN),
    "AD-PSGD": lambda: systems.ad_psgd(uneven(N), N, 3.0, model_bytes=MODEL, time_batch=4, seed=0),
}


def learned(plan):
    given = exact_quadratic()
    build = {"D-PSGD": dpsgd, "FedAvg": fedavg, "HADFL": hadfl}[plan.timeline.properties.made_for]
    made = plan.timeline
    protocol = build(given, optax.sgd(0.1), local_steps=STEPS)
    start = jnp.broadcast_to(jnp.asarray(X0[0]), (made.properties.num_rows, X0.shape[1]))
    return simulate(KEY, protocol, systems.stand_in(plan), start, record_every=len(made), progress=False).x


@pytest.mark.parametrize("name", ["Plexus", "rounds on a clock", "barriers", "epidemic", "HADFL"])
def test_a_plan_that_was_kept_gives_the_same_parameters(name, tmp_path):
    plan = PLANS[name]()
    read = systems.load_plan(plan.save(tmp_path / "plan.npz"))
    np.testing.assert_array_equal(learned(read), learned(plan))


@pytest.mark.parametrize("name", PLANS)
def test_a_plan_that_was_kept_says_the_same(name, tmp_path):
    plan = PLANS[name]()
    read = systems.load_plan(plan.save(tmp_path / "plan.npz"))
    assert type(read) is type(plan)
    assert read.summary() == plan.summary()
    times = np.linspace(0, plan.end_s, 40)
    for series in (traffic_series, training_series):
        np.testing.assert_array_equal(series(read, times), series(plan, times))
    alike(read.timeline, plan.timeline)
    np.testing.assert_array_equal(read.round_seconds, plan.round_seconds)
    alike(systems.activity(read), systems.activity(plan))
    assert [path.name for path in tmp_path.iterdir()] == ["plan.npz"]


def own_event(key, shared, x):
    del key, shared, x


def test_what_cannot_be_kept(tmp_path):
    plan = BUILT["gossip_rounds"]
    path = timeline.save(plan, tmp_path / "kept.npz")
    before = path.read_bytes()
    changes = (
        ({"event": lambda *_: None}, "define by name"),
        ({"event": own_event}, "define by name"),
        ({"shared": jax.random.key(0)}, "random key"),
        ({"shared": np.array([object()])}, "array of object"),
        ({"shared": {1: np.zeros(2)}}, "keep what it was made from"),
    )
    for change, words in changes:
        with pytest.raises(ValueError, match=words):
            timeline.save(dataclasses.replace(plan, **change), path)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["kept.npz"]
    with pytest.raises(ValueError, match="suffix"):
        timeline.save(plan, tmp_path / "kept.txt")
    with pytest.raises(ValueError, match="no folder"):
        timeline.save(plan, tmp_path / "none" / "kept.npz")


def changed(path, change):
    """Write the file again with another structure."""
    with np.load(path) as file:
        found = {name: file[name] for name in file.files}
    found["structure"] = np.asarray(change(str(found["structure"])))
    np.savez(path, **found)
    return path


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("gossipjax.timeline", "os.path"),
        lambda text: text.replace("gossipjax.timeline", "gossipjax.nowhere"),
        lambda text: text.replace('"num_nodes"', '"nodes"'),
        lambda text: text.replace('"array": 0', '"array": 99'),
        lambda text: text[:-1],
        lambda text: '{"class": "gossipjax._base.npz:save", "fields": {"value": 1, "path": "written.npz"}}',
        lambda text: '{"class": "gossipjax._base.npz:Any", "fields": {}}',
    ],
)
def test_files_of_others_are_refused(change, tmp_path, monkeypatch):
    """Also those that would have something called: only classes that hold values are."""
    monkeypatch.chdir(tmp_path)
    path = timeline.save(BUILT["gossip_pairs"], tmp_path / "kept.npz")
    with pytest.raises(ValueError, match="another version"):
        timeline.load(changed(path, change))
    assert not (tmp_path / "written.npz").exists()


def test_damaged_files_are_refused(tmp_path):
    whole = timeline.save(BUILT["gossip_pairs"], tmp_path / "kept.npz").read_bytes()
    with zipfile.ZipFile(tmp_path / "kept.npz") as archive:
        member = archive.getinfo("structure.npy")
    broken = bytearray(whole)
    broken[member.header_offset + 60 + member.compress_size // 2] ^= 255
    for name, content in (("short", whole[:-40]), ("flipped", bytes(broken)), ("empty", b"")):
        path = tmp_path / f"{name}.npz"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"{name}\.npz is no \.npz file"):
            timeline.load(path)
    with (tmp_path / "single.npz").open("wb") as stream:
        np.save(stream, np.zeros(3))
    with pytest.raises(ValueError, match="single array"):
        timeline.load(tmp_path / "single.npz")


def test_numpy_numbers_come_back_as_numbers(tmp_path):
    plan = BUILT["gossip_pairs"]
    plan = dataclasses.replace(plan, shared=plan.shared | {"whole": np.int64(3), "half": np.float32(0.5)})
    read = timeline.load(timeline.save(plan, tmp_path / "kept.npz")).shared
    assert (read["whole"], read["half"]) == (3, 0.5)
    assert (type(read["whole"]), type(read["half"])) == (int, float)


def test_a_file_of_another_kind(tmp_path):
    path = timeline.save(BUILT["gossip_pairs"], tmp_path / "kept.npz")
    with pytest.raises(ValueError, match="a Timeline, not a Plan"):
        systems.load_plan(path)
    assert isinstance(npz.load(path, Timeline), Timeline)


def test_structure_is_text(tmp_path):
    """Nothing is pickled: the file opens without, and its structure is JSON."""
    path = PLANS["epidemic"]().save(tmp_path / "plan.npz")
    with np.load(path, allow_pickle=False) as file:
        assert json.loads(str(file["structure"]))["class"].endswith(":Plan")


def relabelled(plan, **changes):
    """The same arrays under other facts, saved by ourselves."""
    return dataclasses.replace(plan, properties=dataclasses.replace(plan.properties, **changes))


@pytest.mark.parametrize("name", BUILT)
def test_a_file_whose_numbers_of_nodes_lie_is_refused(name, tmp_path):
    plan = BUILT[name]
    path = timeline.save(relabelled(plan, num_nodes=2, num_rows=2, num_slots=0), tmp_path / "kept.npz")
    with pytest.raises(ValueError, match="contradicts itself"):
        timeline.load(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda plan: dataclasses.replace(plan, xs=plan.xs | {"time": plan.xs["time"][::-1]}), "earlier"),
        (lambda plan: dataclasses.replace(plan, xs=plan.xs | {"time": plan.xs["time"][:3]}), "lengths"),
        (lambda plan: dataclasses.replace(plan, xs=plan.xs | {"time": plan.xs["time"] * np.nan}), "not finite"),
        (lambda plan: dataclasses.replace(plan, xs={"index": plan.xs["index"]}), "no event can be made"),
    ],
)
def test_files_that_contradict_themselves_are_refused(change, words, tmp_path):
    path = timeline.save(change(BUILT["gossip_pairs"]), tmp_path / "kept.npz")
    with pytest.raises(ValueError, match=words):
        timeline.load(path)


def test_a_changed_file_is_refused(tmp_path):
    """Also where what it says now would be possible: one node more, that nobody meets."""
    path = timeline.save(BUILT["gossip_pairs"], tmp_path / "kept.npz")
    number = f'"num_nodes": {N}, "num_rows": {N}'
    more = changed(path, lambda text: text.replace(number, number.replace(f"{N}", f"{N + 1}")))
    with pytest.raises(ValueError, match="changed after it was saved"):
        timeline.load(more)


def test_deep_files_are_refused(tmp_path):
    path = timeline.save(BUILT["gossip_pairs"], tmp_path / "kept.npz")
    for deep in ("[" * 100_000 + "]" * 100_000, '{"tuple": [' * 2000 + "1" + "]}" * 2000):
        with pytest.raises(ValueError, match="another version"):
            timeline.load(changed(path, lambda text, deep=deep: deep))


# What others may have put into a file.


def written(path, **changes):
    """Write a file again with other contents, of which it then says that they are its own."""
    with np.load(path) as file:
        found = {name: file[name] for name in file.files} | changes
    arrays = [found[f"array_{number}"] for number in range(sum(name.startswith("array_") for name in found))]
    found["checksum"] = np.asarray(npz._checksum(str(found["structure"]), arrays))
    np.savez_compressed(path, **found)
    return path


@pytest.mark.parametrize("name", PLANS)
def test_a_changed_plan_is_refused(name, tmp_path):
    """Also where only a number in the structure was: of nodes, rounds, bytes."""
    path = PLANS[name]().save(tmp_path / "plan.npz")
    pattern = rf'"num_nodes": {N}\b'
    with pytest.raises(ValueError, match="was changed after it was saved"):
        systems.load_plan(changed(path, lambda text: re.sub(pattern, '"num_nodes": 9', text)))
    path = PLANS[name]().save(tmp_path / "plan.npz")
    with np.load(path) as file:
        found = {key: file[key] for key in file.files}
    found["array_0"] = found["array_0"] + found["array_0"].dtype.type(1)
    np.savez(path, **found)
    with pytest.raises(ValueError, match="was changed after it was saved"):
        systems.load_plan(path)


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("nodes", [3, 0, -1, 2.5, '"8"'])
def test_a_number_of_nodes_that_lies_is_refused(name, nodes, tmp_path):
    path = PLANS[name]().save(tmp_path / "plan.npz")
    with np.load(path) as file:
        structure = str(file["structure"])
    lie = re.sub(rf'"num_nodes": {N}\b', f'"num_nodes": {nodes}', structure)
    assert lie != structure
    with pytest.raises(ValueError, match=r"plan\.npz (holds no plan|was saved by another|holds a timeline that)"):
        systems.load_plan(written(path, structure=np.asarray(lie)))


@pytest.mark.parametrize("name", [name for name in PLANS if name != "Plexus"])
def test_more_nodes_than_there_are_are_refused(name, tmp_path):
    path = PLANS[name]().save(tmp_path / "plan.npz")
    with np.load(path) as file:
        lie = str(file["structure"]).replace(f'"num_nodes": {N}', '"num_nodes": 9')
    with pytest.raises(ValueError, match=r"node_round_end_s of shape|contradicts itself"):
        systems.load_plan(written(path, structure=np.asarray(lie)))


@pytest.mark.parametrize("depth", [2_000, 200_000])
def test_deep_structures_are_refused(depth, tmp_path):
    path = PLANS["epidemic"]().save(tmp_path / "plan.npz")
    for deep in ("[" * depth + "]" * depth, '{"tuple": [' * depth + "]}" * depth):
        with pytest.raises(ValueError, match=r"plan\.npz was saved by another version .*recursion"):
            systems.load_plan(written(path, structure=np.asarray(deep)))


@pytest.fixture(scope="module")
def bomb(tmp_path_factory):
    """A megabyte that would be a gigabyte and more, of zeros."""
    path = tmp_path_factory.mktemp("inflates") / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("a.npy", "w", force_zip64=True) as member:
            np.lib.format.write_array_header_1_0(member, {"descr": "|u1", "fortran_order": False, "shape": (2**30,)})
            block = bytes(2**24)
            for _ in range(64):
                member.write(block)
    assert path.stat().st_size < 2**21
    return path


@pytest.mark.parametrize("load", [systems.load_plan, timeline.load, devices.load, devices.read_availability])
def test_files_that_inflate_are_refused_before_they_do(load, bomb):
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"bomb\.npz .* inflate to 1,073,741,9.* pass max_bytes"):
        load(bomb)
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()


def test_a_plan_may_be_as_large_as_one_says(tmp_path):
    path = PLANS["epidemic"]().save(tmp_path / "plan.npz")
    with pytest.raises(ValueError, match="more than 100; pass max_bytes"):
        systems.load_plan(path, max_bytes=100)
    assert systems.load_plan(path, max_bytes=2**40).num_nodes == N


def test_headers_that_promise_more_than_there_is_are_refused(tmp_path):
    path = tmp_path / "header.npz"
    with zipfile.ZipFile(path, "w") as archive, archive.open("a.npy", "w") as member:
        np.lib.format.write_array_header_1_0(member, {"descr": "<f8", "fortran_order": False, "shape": (2**45,)})
    with pytest.raises(ValueError, match=r"header\.npz is no \.npz file of plain arrays \(a\.npy claims the shape"):
        systems.load_plan(path)


@pytest.mark.parametrize(
    "name",
    [
        "gossipjax._base.npz:save",
        "gossipjax._engine.simulate:simulate",
        "gossipjax._engine.packing:pack",
        "gossipjax.types:Timeline",
    ],
)
def test_only_functions_of_timelines_are_looked_up(name, tmp_path):
    """A function of this package is none of a timeline's: a run would call it with whatever the file holds."""
    path = timeline.save(BUILT["gossip_pairs"], tmp_path / "kept.npz")
    own = f"{BUILT['gossip_pairs'].event.__module__}:{BUILT['gossip_pairs'].event.__qualname__}"
    with pytest.raises(ValueError, match="another version"):
        timeline.load(changed(path, lambda text: text.replace(own, name)))
    with pytest.raises(ValueError, match="cannot be kept"):
        timeline.save(dataclasses.replace(BUILT["gossip_pairs"], event=npz.save), path)


@pytest.mark.parametrize(
    "name",
    [
        "gossipjax._engine.simulate:simulate",
        "gossipjax.timeline._rounds:rounds",
        "gossipjax.timeline._files:save",
        "gossipjax._base.npz:save",
        "gossipjax._base.arguments:whole",
        "os:system",
    ],
)
def test_functions_that_are_no_events_are_not_looked_up(name, tmp_path):
    path = PLANS["epidemic"]().save(tmp_path / "plan.npz")
    with np.load(path) as file:
        structure = str(file["structure"])
    other = structure.replace("gossipjax.systems._rounds.plans:_event", name)
    assert other != structure
    with pytest.raises(ValueError, match=r"no function of a timeline|is not of gossipjax|is defined elsewhere"):
        systems.load_plan(written(path, structure=np.asarray(other)))
