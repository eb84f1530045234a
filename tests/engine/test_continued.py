"""Runs that go on, callbacks at records, and starts that differ by seed."""

import csv
import inspect
import itertools
import subprocess
import sys

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import optax
import pytest
from jax.tree_util import Partial
from problems import CURVATURE, TARGETS, X0, N, exact_quadratic

import gossipjax
from gossipjax import Diverged, Info, Protocol, dpsgd, gossip_averaging, load, run, simulate, track_versions
from gossipjax._engine import chunks, loop
from gossipjax._engine.chunks import Room
from gossipjax._engine.loop import Losses, no_losses
from gossipjax.mixing import metropolis
from gossipjax.observe import Observer, Variable, consensus_distance, models, node_metrics
from gossipjax.tasks import classification, digits, iid, softmax_regression
from gossipjax.timeline import clocks, fedbuff, poisson_pairs, push_gossip, rounds
from gossipjax.topology import ring

KEY, START = jax.random.key(0), jnp.asarray(X0)
W = metropolis(ring(N))
LEARN = track_versions(dpsgd(exact_quadratic(), Partial(optax.sgd, 0.1, 0.9)))
WATCH = [consensus_distance(), models()]
PAIRS = poisson_pairs(ring(N), 60, seed=0)


def learn(plan, x0=START, key=KEY, **settings):
    return simulate(key, LEARN, plan, x0, observers=WATCH, **settings)


def assert_same(one, other):
    assert one.dataset.drop_attrs().equals(other.dataset.drop_attrs())
    jax.tree.map(np.testing.assert_array_equal, one.state, other.state)
    jax.tree.map(np.testing.assert_array_equal, one.x, other.x)


# --- going on ---------------------------------------------------------------------------------------------------------


@pytest.mark.exact
@pytest.mark.parametrize("settings", [{}, {"record_every": 10}, {"record_every": 7}, {"record_every": 200}], ids=str)
def test_a_hundred_and_a_hundred_more_are_two_hundred(settings):
    """Also where the first part ends between two records of the whole: its last record is then dropped."""
    short = settings if settings.get("record_every", 0) <= 100 else {}
    half = learn(rounds(W, 100), **short)
    kept = half.dataset.copy(deep=True)
    whole = learn(rounds(W, 200), **settings)
    assert_same(learn(rounds(W, 200), half, **settings), whole)
    assert_same(learn(rounds(W, 200), half, **settings), whole)  # the half is not used up
    assert half.dataset.identical(kept)


@pytest.mark.exact
@pytest.mark.parametrize("width", [1, 3])
def test_models_do_not_depend_on_the_interval_between_records(width):
    """Intervals of one event are loops of one turn, which XLA must not dissolve; 120 = 17 · 7 + 1 ends with one."""
    start = jax.random.normal(KEY, (N, width), jnp.float32)
    found = [
        simulate(KEY, gossip_averaging(), rounds(W, 120, form=form), start, record_every=every).x
        for form in ("dense", "table")
        for every in (1, 2, 7, 120)
    ]
    for same in (found[:4], found[4:]):
        for x in same[1:]:
            np.testing.assert_array_equal(x, same[0])


@pytest.mark.exact
def test_a_hundred_with_a_record_each_round_and_a_hundred_without():
    start = jax.random.normal(KEY, (N, 1), jnp.float32)
    half = simulate(KEY, gossip_averaging(), rounds(W, 100), start)
    end = simulate(KEY, gossip_averaging(), rounds(W, 200), half, record_every=100)
    np.testing.assert_array_equal(end.x, simulate(KEY, gossip_averaging(), rounds(W, 200), start).x)


@pytest.mark.exact
@pytest.mark.parametrize("cut", [1, 13, 20, 59])
def test_events_go_on_wherever_they_were_cut(cut):
    asked = {"record_at": [5, 20, 41], "packing": "sequential"}
    first = learn(PAIRS[:cut], record_at=[each for each in (5, 20, 41) if each <= cut] or [cut], packing="sequential")
    assert_same(learn(PAIRS, first, **asked), learn(PAIRS, **asked))


@pytest.mark.exact
def test_seeds_and_loaded_trajectories_go_on(tmp_path):
    keys = jax.random.split(KEY, 2)
    for key in (KEY, keys):
        half = learn(rounds(W, 6), _draw, key, record_every=2)
        whole = learn(rounds(W, 12), _draw, key, record_every=2)
        loaded = load(half.save(tmp_path / "half.nc", models=True))
        for earlier in (half, loaded):
            assert_same(learn(rounds(W, 12), earlier, key, record_every=2), whole)


def _draw(key):
    return jax.random.normal(key, (N, 3))


@pytest.mark.exact
def test_three_parts_and_folders_and_trajectories_together(tmp_path):
    whole = learn(rounds(W, 9), record_every=1)
    first = learn(rounds(W, 3), record_every=1)
    second = learn(rounds(W, 6), first, record_every=1, checkpoint=tmp_path / "run")
    assert_same(learn(rounds(W, 9), second, record_every=1), whole)
    assert_same(learn(rounds(W, 9), first, record_every=1, checkpoint=tmp_path / "run"), whole)


@pytest.mark.exact
def test_intervals_that_fit_no_other_are_kept():
    found = learn(rounds(W, 400), learn(rounds(W, 300)))  # every third, where every fourth was due
    assert_same(found, learn(rounds(W, 400), record_every=3))


def test_what_cannot_go_on_is_refused(tmp_path):
    half = learn(rounds(W, 10), record_every=2)
    other = dpsgd(exact_quadratic(), Partial(optax.sgd, 0.2))
    without = load(half.save(tmp_path / "half.nc"))
    cases = {
        "differs in key": lambda: learn(rounds(W, 20), half, jax.random.key(1)),
        "differs in program or data, protocol": lambda: simulate(KEY, other, rounds(W, 20), half, observers=WATCH),
        "differs in program or data, variables": lambda: simulate(KEY, LEARN, rounds(W, 20), half),
        "program or data": lambda: learn(rounds(metropolis(ring(N)).toarray() ** 2, 20, stochastic="none"), half),
        "10 events are done already": lambda: learn(rounds(W, 5), half, record_every=1),
        "are not the first of this timeline": lambda: learn(PAIRS, learn(poisson_pairs(ring(N), 50, seed=1))),
        "differs in its records": lambda: learn(rounds(W, 20), half, record_every=1),
        "save it with models=True": lambda: learn(rounds(W, 20), without),
    }
    del cases["program or data"]
    for message, call in cases.items():
        with pytest.raises(ValueError, match=message):
            call()


def test_plans_with_messages_in_flight_are_not_cut_before_a_run():
    """A window has not the messages that were sent before it; rows of zeros took their place."""
    pushes = push_gossip(ring(N), 6.0, compute=clocks.poisson(1.0), gossip=1.0, latency=0.5, seed=0)
    returns = fedbuff(N, 6.0, concurrency=2, train_time=clocks.deterministic(1.0), buffer_size=1, seed=0)
    server = gossipjax.fedbuff(exact_quadratic(), Partial(optax.sgd, 0.1))
    for protocol, plan in ((gossip_averaging(), pushes), (server, returns)):
        with pytest.raises(ValueError, match=r"begins with event 4 of .*, and messages sent before are missing"):
            simulate(KEY, protocol, plan[4:], START[: plan.properties.num_rows])


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("total", [1, 7, 100, 333])
@pytest.mark.parametrize("every", [1, 3, 7, None])
def test_pieces_go_on_from_any_event(total, every, packed):
    every = every if every is None or every <= total else total
    wanted = chunks.positions(total, every, None)
    for start, records in itertools.product({0, 1, total // 2, total - 1, total}, (1, 64)):
        due = wanted[wanted > start] if start else np.append(0, wanted)  # a run that begins also records its start
        cut = chunks.plan(due, start, Room(8, records), packed=packed)
        assert [piece.start for piece in cut] == [start, *(piece.stop for piece in cut)][: len(cut)]
        assert (cut[-1].stop if cut else start) == total
        assert [end for piece in cut for end in piece.records] == due.tolist()
        assert all(len(piece.records) <= records and (packed or piece.stop - piece.start <= 8) for piece in cut)
        if packed:
            assert all(len(set(np.diff(piece.records, prepend=piece.start)) - {0}) <= 1 for piece in cut)


# --- callbacks --------------------------------------------------------------------------------------------------------


def test_a_callback_gets_every_record_in_plain_values():
    seen = []
    task = exact_quadratic()
    watch = [consensus_distance(), node_metrics(task), models()]
    plan = rounds(W, 10, seconds_per_round=2.0)
    run = simulate(
        KEY, dpsgd(task, Partial(optax.sgd, 0.1)), plan, START, observers=watch, record_every=4, callback=seen.append
    )
    assert [record["event"] for record in seen] == [0, 4, 8, 10]
    plain = ["event", "time", "bytes_sent", "messages_sent", "train_loss", "gradient_calls", "consensus_distance"]
    for number, record in enumerate(seen):
        assert all(type(record[name]) in (int, float) for name in plain)
        for name in plain:
            np.testing.assert_array_equal(record[name], run[name].values[number])
        for at, statistic in enumerate(run["statistic"].values):
            assert record[f"test_squared_error_{statistic}"] == run["test_squared_error"].values[number, at]
        np.testing.assert_array_equal(record["model"], run["model"].values[number])
    alone = simulate(KEY, dpsgd(task, Partial(optax.sgd, 0.1)), plan, START, observers=watch, record_every=4)
    assert alone.dataset.equals(run.dataset)  # looking changes nothing


def test_a_callback_of_seeds_gets_arrays():
    seen = []
    keys = jax.random.split(KEY, 3)
    run = learn(rounds(W, 4), _draw, keys, record_every=2, callback=seen.append)
    assert [record["event"] for record in seen] == [0, 2, 4]
    for name in ("consensus_distance", "train_loss", "bytes_sent"):
        np.testing.assert_array_equal(np.stack([record[name] for record in seen]), run[name].values)


@pytest.mark.exact
def test_a_run_ends_when_told_and_can_go_on():
    whole = learn(rounds(W, 20), record_every=2)
    limit = float(whole["consensus_distance"][3])
    found = learn(rounds(W, 20), record_every=2, callback=lambda record: record["consensus_distance"] <= limit)
    stop = int(np.argmax(whole["consensus_distance"].values <= limit))
    assert found.dataset.drop_attrs().equals(whole.dataset.isel(record=slice(stop + 1)).drop_attrs())
    assert found.manifest["stopped"] == {"event": 2 * stop}
    np.testing.assert_array_equal(found.x, whole["model"].values[stop].reshape(X0.shape))
    assert "stopped" not in whole.manifest
    seen = []
    assert_same(learn(rounds(W, 20), found, record_every=2, callback=seen.append), whole)
    assert [record["event"] for record in seen] == list(range(2 * stop + 2, 21, 2))  # only what is new


def test_a_run_that_was_told_to_end_at_once_holds_its_start():
    found = learn(rounds(W, 20), callback=lambda record: True)
    assert found["event"].values.tolist() == [0]
    np.testing.assert_array_equal(found.x, X0)


def test_a_resumed_run_shows_the_callback_all_records(tmp_path):
    def patient(record, seen):
        seen.append(record["event"])
        return len(seen) == 5

    for _ in range(2):
        seen = []
        found = learn(rounds(W, 20), record_every=2, checkpoint=tmp_path / "run", callback=lambda r: patient(r, seen))  # noqa: B023
        assert seen == [0, 2, 4, 6, 8]
        assert found["event"].values.tolist() == seen


def test_a_log_in_two_lines(tmp_path):
    with (tmp_path / "log.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["event", "train_loss", "consensus_distance"], extrasaction="ignore")
        writer.writeheader()
        run = learn(rounds(W, 6), record_every=2, callback=lambda record: writer.writerow(record) and None)
    with (tmp_path / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["consensus_distance"]) for row in rows] == run["consensus_distance"].values.tolist()


def test_callbacks_that_are_none_are_refused():
    free = inspect.unwrap(simulate)
    with pytest.raises(TypeError, match="callback=3"):
        free(KEY, LEARN, rounds(W, 4), START, callback=3)
    with pytest.raises(TypeError, match="callback returned 'stop'"):
        free(KEY, LEARN, rounds(W, 4), START, callback=lambda record: "stop")


# --- starts -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def images():
    return classification(digits(limit=(64, 32)), iid(64, N, seed=0), softmax_regression(64, 10), batch_size=4)


def test_a_task_starts_every_seed_apart_and_all_its_nodes_together(images):
    keys = jax.random.split(KEY, 3)
    found = simulate(keys, dpsgd(images, Partial(optax.sgd, 0.1)), rounds(W, 1), images, observers=[models()])
    start = found["model"].values[0]
    assert (start == start[:, :1]).all()
    assert np.abs(start[0] - start[1]).max() > 0.01
    one = simulate(keys[1], dpsgd(images, Partial(optax.sgd, 0.1)), rounds(W, 1), images, observers=[models()])
    np.testing.assert_array_equal(one["model"].values[0], start[1])
    assert found.manifest["configuration"]["start"] == "each seed its own"


@pytest.mark.parametrize("change", ["shape", "leaf", "container"])
def test_starts_of_another_model_are_refused(images, change):
    x0 = jax.tree.map(lambda leaf: jnp.zeros((N, *leaf.shape)), images.init(KEY))
    wrong = {
        "shape": jax.tree.map(lambda leaf: leaf[:, :-1], x0),
        "leaf": {"other": x0},
        "container": jax.tree.leaves(x0),
    }[change]
    message = r"models of shape \(.*the task's model has \(" if change == "shape" else "x0 has the leaves"
    with pytest.raises(ValueError, match=message):
        simulate(KEY, dpsgd(images, Partial(optax.sgd, 0.1)), rounds(W, 1), wrong)


# --- losses -----------------------------------------------------------------------------------------------------------


def _loss_of(values, key, state, event):
    del key
    at = event.index[0]
    return state, Info(loss=values[at] if event.nodes is None else values[at, 0][None])


def reporting(values):
    return Protocol(lambda key, x: x, Partial(_loss_of, jnp.asarray(values)), lambda x: x)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_loss_that_is_no_number_is_divergence(bad):
    values = np.ones((6, N))
    values[3, 5] = bad
    with pytest.raises(Diverged, match=r"training loss of node 5 became infinite or NaN at event 3.*labels"):
        simulate(KEY, reporting(values), rounds(W, 6), START)
    found = simulate(KEY, reporting(values), rounds(W, 6), START, throw=False, record_every=1)
    assert found.manifest["diverged"] == {"bits": loop.LOSS, "event": 3, "time": 4.0, "node": 5}
    assert np.isnan(found["train_loss"].values).tolist() == [True, False, False, False, True, False, False]


def test_the_loss_of_an_event_names_the_node_that_acts():
    values = np.ones((60, N))
    values[17] = np.nan
    found = simulate(KEY, reporting(values), PAIRS, START, throw=False)
    acting = int(PAIRS.event(KEY, PAIRS.shared, jax.tree.map(lambda leaf: jnp.asarray(leaf[17]), PAIRS.xs)).nodes[0])
    assert (found.manifest["diverged"]["event"], found.manifest["diverged"]["node"]) == (17, acting)


def test_a_node_whose_rate_is_too_large_is_named():
    curvature = CURVATURE.copy()
    curvature[3] = 1e4
    with pytest.raises(Diverged, match="of node 3 became"):
        simulate(KEY, dpsgd(exact_quadratic(TARGETS, curvature), Partial(optax.sgd, 0.1)), rounds(W, 400), START)


def test_sums_of_losses_do_not_depend_on_cuts_and_do_not_stand_still():
    """Float32 alone would stop at 2^24: a large loss hides small ones."""
    add = jax.jit(lambda losses, loss: loop._add_loss(losses, loss, jnp.ones(1, bool)))
    losses = add(no_losses(), jnp.full(1, 2.0**25, jnp.float32))

    def body(losses, _):
        return loop._add_loss(losses, jnp.full(1, 0.25, jnp.float32), jnp.ones(1, bool)), None

    losses, _ = jax.lax.scan(body, losses, None, length=1001)
    assert isinstance(losses, Losses)
    assert losses.total.astype(jnp.float64).sum() == 2.0**25 + 1001 * 0.25
    assert losses.numbers.tolist() == [1002, 0]


# --- arguments --------------------------------------------------------------------------------------------------------


WRONG_CALLS = """
import pathlib, traceback
import jax, jax.numpy as jnp, numpy as np
import gossipjax as gj
key, gossip, ring = jax.random.key(0), gj.gossip_averaging(), gj.topology.ring(8)
plan, start = gj.timeline.rounds(gj.mixing.metropolis(ring), 10), jnp.ones((8, 3))
def plain(snapshot):
    return {"a": jnp.zeros(())}
wrong = {
    "observers": [gj.observe.consensus_distance(), [plain], 3, "consensus", [None], None],
    "record_every": [2.0, "a", -1, 0, np.nan, True, [2], 11],
    "record_at": [[1.5], [np.nan], 3, "abc", [[1, 2]], [True, False], [-1], [], {}, [2**70]],
    "strategy": ["pmap", 3],
    "packing": ["no", 3, None],
    "progress": ["no", 1],
    "checkpoint": [3, ["a"], b"folder"],
    "callback": [3, "print"],
    "throw": ["no", 1, None],
    "protocol": [None, gj.gossip_averaging, plan],
    "timeline": [None, ring, gossip],
    "key": ["a", 0, None, np.zeros(2), [key]],
    "x0": [None, "a", np.zeros((8, 3), int), np.zeros((0, 3)), {"a": ["b"]}, np.array(["a"] * 8), object(), 3.0, plan],
}
for name, values in wrong.items():
    for value in values:
        given = {"key": key, "protocol": gossip, "timeline": plan, "x0": start} | {name: value}
        try:
            gj.simulate(**given)
        except (ValueError, TypeError) as error:
            last = traceback.extract_tb(error.__traceback__)[-1].filename
            assert name in str(error) and "gossipjax" in pathlib.Path(last).parts, (name, value, error, last)
        else:
            raise AssertionError((name, value))
print("all named")
"""


def test_wrong_sorts_are_named():
    """Without the checks of annotations that tests have, which would refuse most of them first."""
    done = subprocess.run([sys.executable, "-c", WRONG_CALLS], capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout.strip() == "all named", done.stderr[-2000:]


def test_a_plain_function_may_measure():
    observer = Observer(lambda snapshot: {"total": jnp.sum(snapshot.x)}, (Variable("total", "sum of all parameters"),))
    found = simulate(KEY, gossip_averaging(), rounds(W, 3), START, observers=[observer])
    # A sum of 24 float64 numbers of size one, in another order.
    np.testing.assert_allclose(found["total"], X0.sum(), rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    ("measure", "variables", "message"),
    [
        (3, (Variable("a", "a"),), r"observers\[0\].measure"),
        (lambda snapshot: {}, "a", r"observers\[0\].variables='a'"),
        (lambda snapshot: jnp.zeros(()), (Variable("a", "a"),), "must be a dict"),
        (lambda snapshot: {"time": jnp.zeros(())}, (Variable("time", "a"),), "'time', which every record has"),
    ],
)
def test_observers_that_are_none_are_named(monkeypatch, measure, variables, message):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # a user has no beartype between
    with pytest.raises((ValueError, TypeError), match=message):
        simulate(KEY, gossip_averaging(), rounds(W, 3), START, observers=[Observer(measure, variables)])


def test_what_used_to_fail_inside_is_named(tmp_path):
    plan, run_call = rounds(W, 3), inspect.unwrap(simulate)
    with pytest.raises(TypeError, match=r"callback=.*callback\(record\).* of one argument"):
        run_call(KEY, gossip_averaging(), plan, START, callback=lambda: True)
    (tmp_path / "nowhere").symlink_to(tmp_path / "missing" / "folder")
    with pytest.raises(ValueError, match=r"checkpoint=.*nowhere: cannot be made or written to"):
        run_call(KEY, gossip_averaging(), plan, START, checkpoint=tmp_path / "nowhere")
    with pytest.raises(TypeError, match="learning rate 'fast' must be a number"):
        dpsgd(exact_quadratic(), Partial(optax.sgd, "fast"))
    with pytest.raises(TypeError, match=r"state=.* is none of this protocol's.*protocol\.init"):
        run(KEY, LEARN, plan, START)
