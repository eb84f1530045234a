"""The driver: checks before work, records, bytes, divergence, restarts."""

import dataclasses
import inspect
import itertools
import operator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compilations import compiled
from jax.tree_util import Partial
from problems import CURVATURE, TARGETS, X0, D, N, exact_quadratic

from gossipjax import (
    Diverged,
    Event,
    Info,
    Protocol,
    Requires,
    d2,
    dpsgd,
    gossip_averaging,
    metered,
    simulate,
    track_versions,
)
from gossipjax._base.streams import STARTS
from gossipjax._engine import chunks
from gossipjax._engine.checkpoint import Checkpoint
from gossipjax._engine.chunks import Room
from gossipjax._engine.loop import LOSS, NON_FINITE
from gossipjax.mixing import averaging, lazy, metropolis
from gossipjax.observe import Observer, Variable, consensus_distance, distance_to, models
from gossipjax.sharing import full
from gossipjax.timeline import client_sampling, poisson_pairs, poisson_push, rounds
from gossipjax.topology import barabasi_albert, complete, ring, star

KEY = jax.random.key(0)
GRAPH = barabasi_albert(N, 2, seed=1)
W = lazy(metropolis(GRAPH)).toarray()
SGD = Partial(optax.sgd, 0.1)
START = jnp.asarray(X0)

# Behind the checked annotations, which would refuse some bad input before the checks of simulate do.
simulate_unchecked = inspect.unwrap(simulate)


# --- bad input --------------------------------------------------------------------------------------------------------


def _growing_step(key, state, event):
    del key, event
    return jnp.concatenate([state, state]), Info()


def _forgetful_step(key, state, event):
    del key, event
    return (state,), Info()


def _narrow_step(key, state, event):
    del key, event
    return state.astype(jnp.float32), Info()


def broken(step):
    return Protocol(Partial(_keep), Partial(step), Partial(_same), Requires(mixing=False))


def _keep(key, x0):
    del key
    return x0


def _same(state):
    return state


def _other_name(snapshot):
    del snapshot
    return {"other": jnp.zeros(())}


def bad_calls():
    task = exact_quadratic()
    learn, gossip, plan = dpsgd(task, SGD), gossip_averaging(), rounds(W, 10)
    nan = X0.copy()
    nan[2, 1] = np.nan
    no_mixing = dataclasses.replace(plan, event=_event_without_mixing)
    misnamed = Observer(Partial(_other_name), (Variable("declared", "what it should be"),))
    wrong_dims = Observer(Partial(_other_name), (Variable("other", "a number", dims=("node",)),))
    return {
        "rows": (KEY, gossip, plan, START[:5], {}, r"shape \(5, 3\).*8 model rows"),
        "scalar leaf": (KEY, gossip, plan, {"a": START, "b": jnp.zeros(())}, {}, r"\['b'\].*shape \(\)"),
        "no leaves": (KEY, gossip, plan, {}, {}, "no leaves"),
        "NaN": (KEY, gossip, plan, {"a": START, "b": jnp.asarray(nan)}, {}, r"\['b'\] of x0 holds NaN"),
        "integers": (KEY, gossip, plan, jnp.ones((N, D), jnp.int32), {}, "type int32"),
        "raw key": (jnp.zeros(2, jnp.uint32), gossip, plan, START, {}, "typed key"),
        "no seeds": (jax.random.split(KEY, 3)[:0], gossip, plan, START, {}, "typed key"),
        "no key": (0, gossip, plan, START, {}, "typed key"),
        "key matrix": (jax.random.split(KEY, (2, 2)), gossip, plan, START, {}, "typed key"),
        "other nodes": (KEY, learn, rounds(averaging(6), 10), START[:6], {}, "for 6 nodes, and the protocol for 8"),
        "record_every": (KEY, gossip, plan, START, {"record_every": 11}, "record_every=11"),
        "record_every 0": (KEY, gossip, plan, START, {"record_every": 0}, "record_every=0"),
        "record_at order": (KEY, gossip, plan, START, {"record_at": [5, 3]}, "increasing"),
        "record_at end": (KEY, gossip, plan, START, {"record_at": [5, 11]}, r"1 … 10"),
        "record_at 0": (KEY, gossip, plan, START, {"record_at": [0, 5]}, "increasing"),
        "record_at none": (KEY, gossip, plan, START, {"record_at": []}, "increasing"),
        "both": (KEY, gossip, plan, START, {"record_at": [5], "record_every": 5}, "pass one of them"),
        "push": (KEY, d2(task, SGD), poisson_push(GRAPH, 9, seed=0), START, {}, "needs one fixed mixing matrix"),
        "D2 on a ring": (KEY, d2(task, SGD), rounds(metropolis(ring(N)), 10), START, {}, "smallest eigenvalue.*lazy"),
        "no mixing": (KEY, gossip, no_mixing, START, {}, "carry no mixing"),
        "grows": (KEY, broken(_growing_step), plan, START, {}, r"expected float64\[8, 3\], found float64\[16, 3\]"),
        "structure": (KEY, broken(_forgetful_step), plan, START, {}, "another structure"),
        "type": (KEY, broken(_narrow_step), plan, START, {}, "found float32"),
        "names": (KEY, gossip, plan, START, {"observers": [consensus_distance()] * 2}, "two observers measure"),
        "declared": (KEY, gossip, plan, START, {"observers": [misnamed]}, "declares"),
        "dimensions": (KEY, gossip, plan, START, {"observers": [wrong_dims]}, "declares dimensions"),
    }


def _bare_step(key, state, event):
    del key, event
    return state


def _silent_step(key, state, event):
    del key, event
    return state, None


def _two_states(key, state, event):
    del key, event
    return state, state


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (_bare_step, r"an array float64\[8, 3\] alone"),
        (_silent_step, "None in the place of Info"),
        (_two_states, r"an array float64\[8, 3\] in the place of Info"),
    ],
)
@pytest.mark.parametrize("wrap", [None, track_versions, metered])
def test_a_step_must_return_its_report(step, message, wrap):
    """Also inside a wrapper."""
    with pytest.raises(TypeError, match=rf"protocol.step returned {message}: it must return \(state, info\)"):
        simulate(KEY, broken(step) if wrap is None else wrap(broken(step)), rounds(W, 10), START)


def test_a_ring_is_not_a_flag():
    def step(key, state, event):
        return state, Info(bits=64, allreduce=True)

    with pytest.raises(TypeError, match=r"Info\(allreduce=True\): must be \(\) for the messages of a ring"):
        simulate(KEY, broken(step), rounds(W, 10), START)


class Pair(NamedTuple):
    x: Any
    y: Any


def _no_bits(key, state, x_start, x, event):
    del key, x_start, event
    return state, x


def _no_bits_of_a_pair(key, state, x_start, x, event):
    del key, x_start, event
    return state, Pair(x, x)


def _bits_of_none(key, state, x_start, x, event):
    del key, x_start, event
    return state, (x, None)


def _no_state(key, state, x_start, x, event):
    del key, state, x_start, event
    return x


@pytest.mark.parametrize(
    ("encode", "message"),
    [
        (_no_bits, r"an array float64\[8, 3\] and no bits"),
        (_no_bits_of_a_pair, "a Pair and no bits"),
        (_bits_of_none, "bits=None"),
        (_no_state, r"an array float64\[8, 3\]: .*without memory"),
    ],
)
def test_a_sharing_must_return_bits(encode, message):
    sharing = full()._replace(encode=encode)
    with pytest.raises(TypeError, match=rf"sharing.encode returned {message}"):
        simulate(KEY, gossip_averaging(sharing), rounds(W, 10), START)


EDGES = poisson_pairs(GRAPH, 5, seed=0)


def _mask_of_nodes(key, shared, x):
    return EDGES.event(key, shared, x)._replace(nodes=jnp.zeros(N, bool))


def _mask_of_beginners(key, shared, x):
    return EDGES.event(key, shared, x)._replace(begin=jnp.zeros(N, bool))


@pytest.mark.parametrize(("field", "event"), [("nodes", _mask_of_nodes), ("begin", _mask_of_beginners)])
def test_nodes_are_indices_not_masks(field, event):
    masked = dataclasses.replace(EDGES, event=event)
    with pytest.raises(TypeError, match=rf"Event.{field} of .* is an array bool\[8\]: it must hold whole numbers"):
        simulate(KEY, gossip_averaging(), masked, START)


def _start_count(key, x0):
    del key
    return {"x": x0, "count": jnp.zeros((), jnp.int32)}


def _count(key, state, event):
    del key, event
    return {"x": state["x"], "count": state["count"] + 1}, Info()


def test_a_scalar_in_the_state_is_refused():
    """It would count packed events where source events are meant."""
    counting = Protocol(_start_count, _count, operator.itemgetter("x"), Requires(mixing=False))
    with pytest.raises(ValueError, match=r"leaf \['count'\] of the state is a scalar int32: .*event.index"):
        simulate(KEY, counting, EDGES, START)


def _event_without_mixing(key, shared, x):
    del key, shared
    return Event(index=x["index"][None], time=x["index"][None].astype(jnp.float32))


@pytest.mark.parametrize("name", list(bad_calls()))
def test_bad_input_is_refused_before_any_work(name):
    key, protocol, plan, x0, settings, message = bad_calls()[name]
    with pytest.raises(ValueError, match=message):
        simulate_unchecked(key, protocol, plan, x0, **settings)


@pytest.mark.parametrize(
    ("requires", "plan", "message"),
    [
        (Requires({"doubly_stochastic"}), poisson_push(GRAPH, 5, seed=0), "doubly stochastic"),
        (Requires({"symmetric"}), poisson_push(GRAPH, 5, seed=0), "symmetric"),
        (Requires({"synchronous"}), poisson_pairs(GRAPH, 5, seed=0), "synchronous rounds"),
        (Requires({"fixed"}), rounds([averaging(N)] * 2, 5), "one fixed mixing matrix"),
    ],
)
def test_requirements_are_held_against_the_timeline(requires, plan, message):
    with pytest.raises(ValueError, match=f"needs.*{message}"):
        simulate(KEY, gossip_averaging()._replace(requires=requires), plan, START)


# --- records ----------------------------------------------------------------------------------------------------------


def test_records_are_where_they_were_asked_for():
    def events(**settings):
        return simulate(KEY, gossip_averaging(), rounds(W, 10), START, **settings)["event"].values.tolist()

    assert events(record_every=4) == [0, 4, 8, 10]
    assert events(record_at=[1, 7]) == [0, 1, 7, 10]
    assert events() == list(range(11))


@pytest.mark.parametrize("chunk", [3, 1 << 20])
@pytest.mark.parametrize(
    ("num_events", "settings"),
    [(10, {"record_every": 4}), (100, {"record_every": 1}), (97, {"record_every": 5}), (50, {"record_at": [7, 8, 31]})],
)
def test_pieces_cover_every_event_once(monkeypatch, chunk, num_events, settings):
    monkeypatch.setattr(chunks, "CHUNK_EVENTS", chunk)
    ends = chunks.positions(num_events, settings.get("record_every"), settings.get("record_at"))
    found = chunks.plan(ends, 0, Room(64, 2))
    assert found[0].start == 0
    assert found[-1].stop == num_events
    assert all(a.stop == b.start for a, b in itertools.pairwise(found))
    assert all(piece.stop - piece.start <= chunk and len(piece.records) <= 2 for piece in found)
    every = settings.get("record_every", num_events)
    wanted = settings.get("record_at") or list(range(every, num_events + 1, every))
    assert np.concatenate([piece.records for piece in found]).tolist() == sorted({*wanted, num_events})


@pytest.mark.parametrize("when", [{"record_every": 5}, {"record_at": [5, 10]}], ids=str)
def test_records_equal_a_loop(when):
    """Consensus distance, distance to a target, mean loss, time and counts of every fifth round."""
    x, expected, losses = X0.copy(), [], []
    for t in range(11):
        if t % 5 == 0:
            expected.append((np.mean(np.sum((x - x.mean(0)) ** 2, 1)), np.mean(np.sum((x - 1) ** 2, 1))))
        losses.append(np.mean(0.5 * np.sum(CURVATURE * (x - TARGETS) ** 2, 1)))
        x = W @ (x - 0.1 * CURVATURE * (x - TARGETS))
    observers = [consensus_distance(), distance_to(jnp.ones(D))]
    plan = rounds(W, 10, seconds_per_round=2.0)
    result = simulate(KEY, dpsgd(exact_quadratic(), SGD), plan, START, observers=observers, **when)
    consensus, error = np.asarray(expected).T
    np.testing.assert_allclose(result["consensus_distance"], consensus, rtol=1e-12)
    np.testing.assert_allclose(result["squared_error"], error, rtol=1e-12)
    # Losses are added up in float32.
    np.testing.assert_allclose(result["train_loss"], [np.nan, np.mean(losses[:5]), np.mean(losses[5:10])], rtol=1e-6)
    np.testing.assert_array_equal(result["time"], [0.0, 10.0, 20.0])
    np.testing.assert_allclose(result.x, result.state.x, rtol=0)


@pytest.mark.parametrize("seeds", [1, 3])
def test_seeds_are_runs_of_their_own(seeds):
    """A batch of keys equals single runs, also where starts are drawn."""

    def start(key):
        return jax.random.normal(key, (N, D))

    keys, plan = jax.random.split(KEY, seeds), rounds(W, 6)
    batch = simulate(keys, gossip_averaging(), plan, start, observers=[models()], record_every=3)
    assert batch["model"].dims == ("record", "seed", "node", "parameter")
    assert batch["event"].dims == ("record",)
    assert batch["time"].dims == ("record",)
    for number, key in enumerate(keys):
        one = simulate(key, gossip_averaging(), plan, start, observers=[models()], record_every=3)
        np.testing.assert_allclose(batch["model"].isel(seed=number), one["model"], rtol=1e-12, atol=1e-14)
        np.testing.assert_array_equal(batch["bytes_sent"].isel(seed=number), one["bytes_sent"])
    if seeds > 1:
        assert np.ptp(batch["model"].values[0], axis=0).min() > 0


def test_strategies_agree():
    def final(strategy):
        return simulate(KEY, dpsgd(exact_quadratic(), SGD), rounds(W, 4), START, strategy=strategy).x

    for strategy in ("map", "shard"):
        np.testing.assert_allclose(final(strategy), final("vmap"), rtol=1e-12, atol=1e-14)


# --- bytes ------------------------------------------------------------------------------------------------------------

WIDE = {"a": jnp.zeros((N, 5)), "b": jnp.zeros((N, 2, 3), jnp.float32)}
BYTES = 5 * 8 + 6 * 4


@pytest.mark.parametrize("form", ["dense", "table"])
@pytest.mark.parametrize("topology", [star(N), complete(N), ring(N), GRAPH], ids=lambda t: t.name)
def test_rounds_send_degree_times_model_bytes(topology, form):
    """Every round, every node sends its model to each neighbour: Σ degrees · bytes, at the width of each leaf."""
    result = simulate(KEY, gossip_averaging(), rounds(metropolis(topology), 6, form=form), WIDE, record_every=3)
    total = int(topology.degrees.sum())
    np.testing.assert_array_equal(result["messages_sent"], [0, 3 * total, 6 * total])
    np.testing.assert_array_equal(result["bytes_sent"], np.asarray([0.0, 3 * total, 6 * total]) * BYTES)


@pytest.mark.parametrize(
    ("plan", "rows", "messages"),
    [
        (poisson_pairs(GRAPH, 6, seed=0), N, 2 * 6),
        (poisson_push(GRAPH, 6, seed=0), N, 6),
        (client_sampling(20, N, 6, seed=0), N, 2 * N * 6),
    ],
    ids=["pairs: two models", "push: one model", "sampling: up and down"],
)
def test_events_send_what_they_exchange(plan, rows, messages):
    result = simulate(KEY, gossip_averaging(), plan, jax.tree.map(lambda leaf: leaf[:rows], WIDE))
    assert result["messages_sent"].values[-1] == messages
    assert result["bytes_sent"].values[-1] == messages * BYTES


def test_totals_outlive_pieces_and_32_bits():
    """1 GB a round over twelve calls: more than 2^32 bits, exactly."""

    def claim(key, state, event):
        del key, event
        bits = jnp.full((4,), 2**31, jnp.uint32)
        return state, Info(bits, jnp.ones_like(bits))

    protocol = Protocol(Partial(_keep), claim, Partial(_same))
    result = simulate(KEY, protocol, rounds(W, 12), START, record_at=[1, 5, 12])
    np.testing.assert_array_equal(result["bytes_sent"], np.asarray([0, 1, 5, 12]) * 2.0**30)


# --- divergence -------------------------------------------------------------------------------------------------------


def first_bad_round(rate, x=X0):
    """The round in which a loss or a parameter is no finite number any more, and the node."""
    with np.errstate(over="ignore", invalid="ignore"):
        for t in range(2000):
            losses = 0.5 * np.sum(CURVATURE * (x - TARGETS) ** 2, axis=1)
            y = x - rate * CURVATURE * (x - TARGETS)
            good = np.isfinite(losses) & np.isfinite(y).all(axis=1)
            if not good.all():
                return t, int(np.argmin(good))
            x = W @ y
    raise AssertionError("does not diverge")


def test_divergence_names_its_first_event():
    bad, node = first_bad_round(50.0)
    assert bad > 20
    plan = rounds(W, bad + 30, seconds_per_round=0.5)
    protocol = dpsgd(exact_quadratic(), Partial(optax.sgd, 50.0))
    for settings in ({"record_every": 1}, {"record_every": bad + 30}, {"record_at": [bad - 3, bad + 5]}):
        message = rf"of node {node} became .* at event {bad} \(simulated time {0.5 * (bad + 1):g} s\)"
        with pytest.raises(Diverged, match=message):
            simulate(KEY, protocol, plan, START, **settings)


def test_a_diverged_run_can_go_on():
    bad, node = first_bad_round(50.0)
    protocol = dpsgd(exact_quadratic(), Partial(optax.sgd, 50.0))
    plan = rounds(W, 2 * bad + 10)
    result = simulate(KEY, protocol, plan, START, observers=[consensus_distance()], record_every=5, throw=False)
    assert result.manifest["diverged"]["event"] == bad
    assert result.manifest["diverged"]["node"] == node
    assert result.manifest["diverged"]["time"] == bad + 1
    assert len(result["event"]) > bad // 5
    assert not np.isfinite(result["consensus_distance"].values[-1])
    assert "diverged" not in simulate(KEY, gossip_averaging(), plan, START).manifest


def test_every_seed_has_its_own_first_bad_event():
    """Seed 1 starts far out and diverges in an earlier piece than seed 0; both are noted."""

    def start(key):
        far = jax.random.key_data(key)[0] == jax.random.key_data(started[1])[0]
        return START * jnp.where(far, 1e60, 1.0)

    keys = jax.random.split(KEY, 2)
    started = [jax.random.fold_in(key, STARTS) for key in keys]
    expected = [first_bad_round(50.0), first_bad_round(50.0, 1e60 * X0)]
    bad = expected[0][0]
    protocol = dpsgd(exact_quadratic(), Partial(optax.sgd, 50.0))
    result = simulate(keys, protocol, rounds(W, bad + 10), start, record_every=5, throw=False)
    found = result.manifest["diverged"]
    assert found["bits"] == [LOSS, LOSS]
    assert list(zip(found["event"], found["node"], strict=True)) == expected
    assert expected[1][0] < bad - 10
    with pytest.raises(Diverged, match=f"at event {found['event'][1]} of seed 1"):
        simulate(keys, protocol, rounds(W, bad + 10), start, record_every=5)


def test_without_a_report_the_next_record_finds_it():
    """Gossip says nothing about finiteness; weights that blow up are found at the record."""
    result = simulate(
        KEY, gossip_averaging(), rounds(5 * np.eye(N) - 4 * averaging(N).toarray(), 600), START, record_every=100,
        throw=False,
    )  # fmt: skip
    grown = int(np.ceil(np.log(np.finfo(float).max / np.ptp(X0)) / np.log(5)))
    assert result.manifest["diverged"]["event"] == 100 * int(np.ceil(grown / 100)) - 1
    assert result.manifest["diverged"]["bits"] == NON_FINITE


# --- restarts ---------------------------------------------------------------------------------------------------------


class Interrupted(Exception):
    pass


def interrupt(monkeypatch, after):
    save = Checkpoint.save

    def failing(self, done, *rest):
        save(self, done, *rest)
        if done == after:
            raise Interrupted

    monkeypatch.setattr(Checkpoint, "save", failing)


@pytest.mark.exact
@pytest.mark.parametrize("keys", [KEY, jax.random.split(KEY, 2)], ids=["one", "seeds"])
def test_an_interrupted_run_goes_on(tmp_path, monkeypatch, keys):
    """Also in the middle of an interval between records, and with the momentum of the optimizer."""
    protocol, plan = dpsgd(exact_quadratic(), Partial(optax.sgd, 0.1, 0.9)), rounds(W, 12)

    def run(**settings):
        return simulate(keys, protocol, plan, START, observers=[consensus_distance()], record_at=[3, 10], **settings)

    whole = run()
    with monkeypatch.context() as patch:
        interrupt(patch, after=5)
        patch.setattr(chunks, "CHUNK_EVENTS", 1)
        with pytest.raises(Interrupted):
            run(checkpoint=tmp_path / "run")
    calls = []
    with monkeypatch.context() as patch:
        save = Checkpoint.save
        patch.setattr(chunks, "CHUNK_EVENTS", 1)
        patch.setattr(Checkpoint, "save", lambda self, done, *rest: (calls.append(done), save(self, done, *rest))[1])
        resumed = run(checkpoint=tmp_path / "run")
    assert calls == list(range(6, 13))
    again = run(checkpoint=tmp_path / "run")  # finished already: only read
    for result in (resumed, again):
        assert result.dataset.equals(whole.dataset)
        jax.tree.map(np.testing.assert_array_equal, result.state, whole.state)


def test_a_resumed_run_remembers_its_divergence(tmp_path, monkeypatch):
    bad, _ = first_bad_round(50.0)
    protocol = dpsgd(exact_quadratic(), Partial(optax.sgd, 50.0))

    def run():
        return simulate(
            KEY, protocol, rounds(W, 2 * bad), START, record_every=bad, throw=False, checkpoint=tmp_path / "run"
        )

    with monkeypatch.context() as patch:
        interrupt(patch, after=2 * bad)
        with pytest.raises(Interrupted):
            run()
    assert run().manifest["diverged"]["event"] == bad


THIS_RUN = {
    "key": KEY,
    "optimizer": optax.sgd(0.1),
    "task": exact_quadratic(),
    "x0": START,
    "plan": rounds(W, 4),
    "record_every": 2,
}
OTHER_RUNS = {
    "key": {"key": jax.random.key(1)},
    "learning rate": {"optimizer": Partial(optax.sgd, 0.2)},
    "compiled learning rate": {"optimizer": optax.sgd(0.2)},
    "data": {"task": exact_quadratic(-TARGETS)},
    "start": {"x0": -START},
    "weights": {"plan": rounds(metropolis(ring(N)), 4)},
    "records": {"record_every": 1},
}


@pytest.mark.parametrize("name", list(OTHER_RUNS))
def test_another_runs_folder_is_refused(tmp_path, name):
    def run(**changes):
        now = THIS_RUN | changes
        protocol, folder = dpsgd(now["task"], now["optimizer"]), tmp_path / "run"
        return simulate(
            now["key"], protocol, now["plan"], now["x0"], record_every=now["record_every"], checkpoint=folder
        )

    first = run()
    assert run().dataset.equals(first.dataset)
    with pytest.raises(ValueError, match="holds another run"):
        run(**OTHER_RUNS[name])


def test_a_checkpoint_needs_a_place(tmp_path):
    with pytest.raises(ValueError, match="make it first"):
        simulate(KEY, gossip_averaging(), rounds(W, 4), START, checkpoint=tmp_path / "missing" / "run")


# --- compilation ------------------------------------------------------------------------------------------------------


def test_a_second_run_compiles_nothing():
    """Other data, start, key, weights and learning rate are arguments."""

    def run(seed, rate, targets, weights):
        protocol = dpsgd(exact_quadratic(targets), Partial(optax.sgd, rate))
        x0 = jnp.asarray(X0 * rate)
        simulate(jax.random.key(seed), protocol, rounds(weights, 9), x0, observers=[models()], record_every=3)

    run(0, 0.1, TARGETS, W)
    with compiled() as names:
        run(1, 0.3, -TARGETS, W[::-1, ::-1])
        assert names == []
        jax.jit(jnp.cos)(1.0)
        assert names  # the listener listens


def test_gradient_calls_are_those_of_acting_nodes():
    """All nodes H times a round, the acting one at a meeting; a run that is continued goes on counting."""
    task, x0 = exact_quadratic(), START
    rounds_run = simulate(KEY, dpsgd(task, SGD, local_steps=3), rounds(W, 6), x0, record_every=2)
    assert rounds_run["gradient_calls"].values.tolist() == [0, 6 * N, 12 * N, 18 * N]
    meetings = poisson_pairs(GRAPH, 30, seed=0)
    for packing in ("sequential", "packed"):
        met = simulate(KEY, dpsgd(task, SGD), meetings, x0, record_every=10, packing=packing)
        assert met["gradient_calls"].values.tolist() == [0, 10, 20, 30]
    half = simulate(KEY, dpsgd(task, SGD), meetings[:10], x0)
    assert simulate(KEY, dpsgd(task, SGD), meetings, half, record_every=10)["gradient_calls"].values[-1] == 30
    seeds = simulate(jax.random.split(KEY, 2), dpsgd(task, SGD), rounds(W, 2), x0)
    assert seeds["gradient_calls"].values[-1].tolist() == [2 * N, 2 * N]
    assert simulate(KEY, gossip_averaging(), rounds(W, 2), x0)["gradient_calls"].values.tolist() == [0, 0, 0]
    for steps in (None, 2):  # nothing is said of steps; or of losses, which tell who acts
        silent = gossip_averaging()._replace(requires=Requires({"row_stochastic"}, mixing=True, local_steps=steps))
        assert np.isnan(simulate(KEY, silent, rounds(W, 2), x0)["gradient_calls"]).all()
