"""The public strategies draw what they say, in few shapes; timelines replay the tapes that they are made of."""

from math import ceil

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import optax
import pytest
from hypothesis import find, given, settings
from hypothesis import strategies as st
from jax.tree_util import Partial

from gossipjax import dpsgd, gossip_averaging, pack, testing, topology, track_versions
from gossipjax._engine import loop
from gossipjax.mixing import metropolis
from gossipjax.testing import _runs
from gossipjax.timeline import clocks, push_gossip, rounds
from gossipjax.types import NOBODY

N = 4
KEY = jax.random.key(0)
FEW = settings(max_examples=10, deadline=None)
GOSSIP = gossip_averaging()
GRAPH = topology.barabasi_albert(N, 2, seed=1)
X0 = np.random.default_rng(0).standard_normal((N, 3))
ROUNDS = rounds(metropolis(GRAPH), 8)


# --- strategies -------------------------------------------------------------------------------------------------------


@FEW
@given(testing.connected_digraphs(2, 7), testing.connected_graphs(2, 7))
def test_graphs_are_connected_and_of_the_sizes_asked_for(digraph, graph):
    assert nx.is_strongly_connected(digraph.to_networkx())
    assert nx.is_connected(graph.to_networkx())
    assert all(2 <= drawn.num_nodes <= 7 for drawn in (digraph, graph))


@pytest.mark.parametrize("kind", ["row", "column", "doubly", "symmetric"])
@FEW
@given(data=st.data())
def test_matrices_are_what_they_are_called(kind, data):
    W = data.draw(testing.mixing_matrices(kind, 2, 6)).toarray()
    assert (W.diagonal() > 0).all()
    for axis, kinds in ((1, {"row", "doubly", "symmetric"}), (0, {"column", "doubly", "symmetric"})):
        if kind in kinds:
            np.testing.assert_allclose(W.sum(axis), 1, rtol=0, atol=1e-14)  # sums of at most seven terms
    assert kind != "symmetric" or np.array_equal(W, W.T)


@pytest.mark.parametrize(
    "wanted",
    [
        lambda x: not x.any(),
        lambda x: len(set(np.abs(x))) == 2 and x.any() and len(set(x)) > 2,
        lambda x: np.sort(np.abs(x))[-1] > 100 * np.sort(np.abs(x))[-2] > 0,
        lambda x: x[0] != 0 and (x == x[0]).all(),
        lambda x: 0 < np.abs(x).max() < 1e-3,
        lambda x: np.abs(x).max() > 1e5,
    ],
    ids=["zero", "ties", "spike", "equal", "tiny", "huge"],
)
def test_vectors_hold_what_compressors_stumble_over(wanted):
    x = find(testing.vectors(8), wanted, settings=settings(max_examples=2000, database=None))
    assert (x.shape, x.dtype) == ((8,), np.float32)


@FEW
@given(testing.compressor_inputs((1, 9)), testing.stacked_params(3, varied=False), testing.starts(5, 2))
def test_shapes_of_inputs(inputs, params, start):
    k, x = inputs
    assert k in {1, ceil(x.size / 4), x.size}
    assert x.size in (1, 9)
    assert jax.tree.map(np.shape, params) == {"dense": {"kernel": (3, 2, 3), "bias": (3, 3)}, "scale": [(3,)]}
    assert (start.shape, start.dtype) == ((5, 2), jnp.result_type(float))


@jax.jit
def local_gradients(task, x):
    def one(node):
        return jax.grad(lambda x: task.loss(KEY, x, task.batch(KEY, task.data, node)))(x)

    return jax.vmap(one)(jnp.arange(task.num_nodes))


@FEW
@given(testing.small_tasks(N), testing.small_tasks(N, shared_optimum=True), testing.small_tasks(N, kind="softmax"))
def test_small_tasks_are_at_their_optimum_where_they_say(task, shared, softmax):
    # Rounding of 10 × 2 in sums of four.
    np.testing.assert_allclose(local_gradients(task, task.test["optimum"]).sum(0), 0, atol=1e-13)
    np.testing.assert_allclose(local_gradients(shared, shared.test["optimum"]), 0, atol=1e-13)
    w = softmax.init(KEY)
    features, labels = np.asarray(softmax.data["features"]), np.asarray(softmax.data["labels"])
    # At w = 0 all classes have the probability 1/3.
    expected = features.transpose(0, 2, 1) @ (1 / 3 - np.eye(3)[labels]) / 4
    np.testing.assert_allclose(local_gradients(softmax, w), expected, rtol=0, atol=1e-15)


# --- tapes and timelines ----------------------------------------------------------------------------------------------


def replay(tape, how, x):
    """One push after another; of flights, sends and deliveries in the order of time, at equal times sends first."""
    x, posted = x.copy(), {}
    pushes = [int(e) for e in np.flatnonzero((tape.peers != NOBODY) & ~tape.lost)]
    acts = [(tape.times[e], 0, e) for e in pushes]
    if how == "flight":
        arrivals = tape.times + tape.delays
        acts = sorted(acts + [(arrivals[e], 1, e) for e in pushes if arrivals[e] < tape.times[-1] + 1])
    for _, delivery, e in acts:
        i, j = tape.nodes[e], tape.peers[e]
        if not delivery:
            posted[e] = x[i].copy()
        if how == "exchange":
            x[i] = 0.75 * x[i] + 0.25 * x[j]
        if delivery or how != "flight":
            x[j] = 0.75 * x[j] + 0.25 * posted[e]
    return x


@pytest.mark.parametrize("how", ["push", "exchange", "flight"])
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_timelines_replay_their_tape(how, data):
    tape = data.draw(testing.event_tapes(data.draw(testing.connected_graphs(N, N))))
    plan = testing.tape_timeline(tape, how, weight=0.25)
    run = testing.history(track_versions(GOSSIP, num_nodes=N), plan, X0)
    # Convex combinations of numbers near 1, at most 24 in a row.
    np.testing.assert_allclose(run.models[-1], replay(tape, how, X0), rtol=0, atol=1e-14)
    updates = np.bincount(tape.nodes[tape.peers == NOBODY], minlength=N)
    np.testing.assert_array_equal(run.own[-1], updates)
    sent = (tape.peers != NOBODY).sum() * (2 if how == "exchange" else 1) - tape.lost.sum() * (how == "exchange")
    assert plan.properties.traffic.sent == sent
    testing.check_message_conservation(plan)


def run_whole(plan):
    start = GOSSIP.init(KEY, loop.with_slots(jnp.asarray(X0), plan.properties))
    (state, _), records = loop.run(KEY, GOSSIP, plan, start)
    return np.asarray(state.x[:N]), records


@pytest.mark.parametrize("wide", [False, True])
def test_padding_changes_nothing(wide):
    plan = push_gossip(GRAPH, 4.0, compute=clocks.poisson(1.0), gossip=1.0, latency=0.3, seed=3)
    plan = pack(plan, 2) if wide else plan
    padded = testing.pad_timeline(plan, acting=8)
    assert len(padded) in testing.EVENT_COUNTS
    assert padded.properties.num_slots in testing.SLOT_COUNTS
    assert len(padded) > len(plan)
    (x, records), (other, other_records) = run_whole(plan), run_whole(padded)
    np.testing.assert_array_equal(x, other)
    for name in ("messages", "bits", "time"):
        jax.tree.map(np.testing.assert_array_equal, getattr(records, name), getattr(other_records, name))
    assert other_records.event[-1] == (records.event[-1] if wide else len(padded))
    if not wide:
        for settings_, message in (({"num_events": 2}, "num_events=2"), ({"num_slots": 0}, "num_slots=0")):
            with pytest.raises(ValueError, match=message):
                testing.pad_timeline(plan, **settings_)
        with pytest.raises(ValueError, match="not a planned timeline"):
            testing.pad_timeline(ROUNDS)


def test_examples_of_one_shape_share_one_program():
    before, kinds = _runs._history._cache_size(), set()

    # Derandomized, for random examples may leave one of the four kinds out.
    @settings(max_examples=40, deadline=None, database=None, derandomize=True)
    @given(testing.timelines(sizes=(3,)), testing.small_tasks(3))
    def runs_through(plan, task):
        kinds.add(plan.properties.name)
        testing.history(dpsgd(task, Partial(optax.sgd, 0.1)), plan, np.zeros((3, 3)))

    runs_through()
    assert len(kinds) == 4
    assert _runs._history._cache_size() - before == 3  # rounds, messages at once, messages in flight


def test_unknown_settings_of_strategies_are_named():
    tape = testing.EventTape(2, np.zeros(1), np.array([0]), np.array([5]), np.ones(1), np.zeros(1, bool))
    for build, message in (
        (lambda: find(testing.timelines(("walks",)), bool), "'walks' is unknown"),
        (lambda: find(testing.small_tasks(2, kind="softmax", shared_optimum=True), bool), "without it"),
        (lambda: find(testing.vectors(0), bool), "dimension=0"),
        (lambda: testing.tape_timeline(tape, "push"), "nodes 0 … 5"),
        (lambda: testing.tape_timeline(tape._replace(peers=tape.nodes), "push", weight=0.0), "weight=0.0"),
    ):
        with pytest.raises(ValueError, match=message):
            build()
