"""The public strategies and properties: each property holds on the real thing and fails on a planted bug."""

import ast
import dataclasses
import importlib
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from jax.tree_util import Partial
from problems import CURVATURE, TARGETS, exact_quadratic

import gossipjax
from gossipjax import dpsgd, gossip_averaging, pack, push_sum, testing, timeline, topology, track_versions
from gossipjax.mixing import averaging, metropolis, uniform
from gossipjax.timeline import clocks, push_gossip, rounds
from gossipjax.types import NOBODY

N = 4
FEW = settings(max_examples=10, deadline=None)
GOSSIP = gossip_averaging()
GRAPH = topology.barabasi_albert(N, 2, seed=1)
TASK = exact_quadratic(TARGETS[:N], CURVATURE[:N])
NOISY = gossipjax.tasks.quadratic(TARGETS[:N], curvature=CURVATURE[:N], noise_std=0.3)
X0 = np.random.default_rng(0).standard_normal((N, 3))
ROUNDS = rounds(metropolis(GRAPH), 8)
PUSHES = testing.pad_timeline(push_gossip(GRAPH, 3.0, compute=clocks.poisson(1.0), gossip=1.0, seed=3))
FLIGHTS = push_gossip(GRAPH, 6.0, compute=clocks.poisson(1.0), gossip=1.0, latency=0.3, drop=0.1, seed=3)
FLIGHTS = testing.pad_timeline(FLIGHTS, num_events=128, num_slots=32)


def learner(task, rate=0.1):
    return dpsgd(task, Partial(optax.sgd, rate))


def fails(check, *arguments, match, **settings):
    with pytest.raises(AssertionError, match=match):
        check(*arguments, **settings)


# --- runs -------------------------------------------------------------------------------------------------------------


def _draw_start(key, x0):
    return GOSSIP.init(key, x0 + jax.random.normal(key, x0.shape))


@pytest.mark.parametrize(
    "plan", [PUSHES, FLIGHTS, ROUNDS, timeline.drawn_pairs(N, 24)], ids=["pushes", "flights", "rounds", "drawn"]
)
def test_a_history_is_the_run_of_simulate(plan):
    """Bit for bit, with noisy gradients, flight times, draws of the timeline and of the start."""
    key = jax.random.key(4)
    drawn = GOSSIP._replace(init=Partial(_draw_start))
    for protocol in (learner(NOISY), drawn):
        run = testing.history(protocol, plan, X0, key=key)
        whole = gossipjax.simulate(
            key, protocol, plan, jnp.asarray(X0), observers=[gossipjax.observe.models()], record_every=1, progress=False
        )
        np.testing.assert_array_equal(run.models.reshape(len(plan), N, -1), whole["model"].values[1:])
        jax.tree.map(np.testing.assert_array_equal, run.state, jax.device_get(whole.state))


# --- conservation, consensus, fixed points ----------------------------------------------------------------------------


def _leaky(key, state, event):
    state, info = GOSSIP.step(key, state, event)
    return state._replace(x=0.999 * state.x), info


def _explodes(key, state, event):
    state, info = GOSSIP.step(key, state, event)
    return state._replace(x=state.x / 0.0), info


def _favours_node_0(key, state, event):
    state, info = GOSSIP.step(key, state, event)
    return state._replace(x=state.x.at[0].set(state.x[1] + 1e-6)), info


def _drifts(key, state, event):
    state, info = GOSSIP.step(key, state, event)
    return state._replace(x=state.x + 1e-9), info


def _numerators(state):
    return state.x


@FEW
@given(testing.timelines(("rounds", "exchanges"), sizes=(N,)), testing.starts(N), testing.small_tasks(N))
def test_mixing_conserves_the_mean(plan, x0, task):
    testing.check_conserves_mean(GOSSIP, plan, x0)
    testing.check_conserves_mean(learner(task, 0.0), plan, x0)


def test_numbers_that_are_flushed_to_zero_are_no_loss():
    testing.check_conserves_mean(GOSSIP, ROUNDS, np.full((N, 3), 1e-310))


def test_what_loses_mass_is_caught():
    fails(
        testing.check_conserves_mean, GOSSIP._replace(step=_leaky), ROUNDS, X0, match="after event 0 of rounds.*off by"
    )
    fails(testing.check_conserves_mean, GOSSIP._replace(step=_explodes), ROUNDS, X0, match="must be finite")
    fails(testing.check_conserves_mean, GOSSIP, PUSHES, X0, match="conserved: off by .*is allowed")
    testing.check_conserves_mean(GOSSIP._replace(step=_leaky), ROUNDS, X0, tolerance=1.0)


@FEW
@given(testing.timelines(("column_rounds",), sizes=(N,)))
def test_push_sum_conserves_its_numerators(plan):
    testing.check_conserves_mean(push_sum(), plan, X0, quantity=_numerators)
    testing.check_consensus(push_sum(), plan, X0, tolerance=1e-6, repeats=200, on_mean=True)


def test_push_sums_models_have_another_mean_on_the_way():
    P = np.array([[0.5, 0, 0, 0.9], [0.5, 0.2, 0, 0], [0, 0.8, 0.3, 0], [0, 0, 0.7, 0.1]])
    plan = rounds(P, 8, stochastic="column", form="dense")
    fails(testing.check_conserves_mean, push_sum(), plan, X0, match="must be conserved")


def test_consensus_and_its_lack():
    testing.check_consensus(GOSSIP, ROUNDS, X0, tolerance=1e-10, repeats=20, on_mean=True)
    # One round of averaging is exact.
    testing.check_consensus(GOSSIP, rounds(averaging(N), 1), X0, tolerance=1e-14, on_mean=True)
    fails(testing.check_consensus, GOSSIP, ROUNDS, X0, tolerance=1e-10, match="1 times 8 events .*must agree: off by")
    apart = np.kron(np.eye(2), np.full((2, 2), 0.5))
    fails(testing.check_consensus, GOSSIP, rounds(apart, 8), X0, tolerance=0.01, repeats=99, match="rows . and . hold")
    star = rounds(uniform(topology.star(N)), 8)
    testing.check_consensus(GOSSIP, star, X0, tolerance=1e-9, repeats=40)
    fails(testing.check_consensus, GOSSIP, star, X0, tolerance=1e-9, repeats=40, on_mean=True, match="from the mean")
    for wrong in ({"tolerance": 0.0}, {"tolerance": 1.0, "repeats": 0}):
        with pytest.raises(ValueError, match="positive tolerance"):
            testing.check_consensus(GOSSIP, ROUNDS, X0, **wrong)
    with pytest.raises(ValueError, match="4 model rows"):
        testing.check_consensus(GOSSIP, ROUNDS, X0[:2], tolerance=1.0)
    with pytest.raises(ValueError, match="rows sum to one"):
        testing.check_conserves_mean(GOSSIP, rounds(np.eye(N)[::-1] * 0.5 + 0.125, 8, stochastic="column"), X0) or (
            testing.check_conserves_mean(GOSSIP, timeline.directed_push(GRAPH, 3.0, compute=None, send=1.0, seed=0), X0)
        )


@FEW
@given(testing.timelines(sizes=(N,)), testing.small_tasks(N, shared_optimum=True))
def test_a_common_optimum_is_a_fixed_point(plan, task):
    testing.check_fixed_point(learner(task), plan, task.test["optimum"])


def test_what_leaves_the_optimum_is_caught():
    zero = np.zeros(3)
    fails(
        testing.check_fixed_point, GOSSIP._replace(step=_drifts), ROUNDS, zero, match="after event 0 .*no fixed point"
    )
    fails(testing.check_fixed_point, learner(TASK), PUSHES, TASK.test["optimum"], match="began at the optimum")


@FEW
@given(testing.timelines(("rounds",), sizes=(N,)), testing.small_tasks(N, shared_optimum=True))
def test_learning_approaches_a_common_optimum(plan, task):
    best = task.test["optimum"]
    start = np.asarray(best) + 1.0 + np.arange(3.0 * N).reshape(N, 3)
    testing.check_approaches(learner(task), plan, start[:, : best.shape[-1]], best, share=0.9, repeats=200)


def test_what_leaves_from_another_start_is_caught():
    """SGD with a step of 2.5 over the curvature keeps the optimum, and triples the distance in two rounds."""
    task = exact_quadratic(np.ones((N, 3)), np.ones((N, 1)))
    unstable = learner(task, 2.5)
    testing.check_fixed_point(unstable, ROUNDS, task.test["optimum"])
    best, start = task.test["optimum"], np.zeros((N, 3))
    fails(testing.check_approaches, unstable, ROUNDS, start, best, match="from the optimum after 1 times 8 events")
    for share, repeats in ((0.0, 1), (1.5, 1), (0.5, 0)):
        with pytest.raises(ValueError, match=r"share|repeats"):
            testing.check_approaches(unstable, ROUNDS, start, best, share=share, repeats=repeats)
    with pytest.raises(ValueError, match="start elsewhere"):
        testing.check_approaches(unstable, ROUNDS, np.ones((N, 3)), best)


# --- names of nodes, packing ------------------------------------------------------------------------------------------


@settings(max_examples=10, deadline=None)
@given(testing.timelines(sizes=(N,)), testing.starts(N), testing.small_tasks(N), testing.permutations(N))
def test_names_do_not_matter(plan, x0, task, new):
    renamed = learner(testing.relabel_task(task, new))
    testing.check_permutation_equivariance(learner(task), plan, x0, new, renamed=renamed)


ONE_PEER = [uniform(graph) for graph in topology.one_peer_exponential(N)]
NEW = np.array([2, 0, 3, 1])


@pytest.mark.parametrize(
    "plan",
    [
        rounds(metropolis(GRAPH), 8, form="table"),
        rounds(ONE_PEER, 8, form="dense"),
        rounds(ONE_PEER, 8, form="table"),
        timeline.matching_rounds(N, 8, seed=1),
        timeline.changing_rounds(timeline.overlays.epidemic(N, 1, seed=1), 8, weights="uniform"),
        timeline.poisson_pairs(GRAPH, 8, seed=1),
        timeline.poisson_edges(GRAPH, 8, seed=1),
        timeline.poisson_push(GRAPH, 8, seed=1),
        pack(push_gossip(GRAPH, 3.0, compute=None, gossip=1.0, latency=0.1, seed=3), 4),
    ],
    ids=["table", "dense_cycle", "table_cycle", "matchings", "changing", "pairs", "edges", "push", "packed"],
)
def test_forms_that_can_be_relabelled(plan):
    testing.check_permutation_equivariance(GOSSIP, plan, X0, NEW)
    moved = testing.history(GOSSIP, testing.relabel_timeline(plan, NEW), X0).models
    assert np.abs(moved - testing.history(GOSSIP, plan, X0).models).max() > 1e-3  # it is another run


def test_what_goes_by_names_is_caught():
    favour = GOSSIP._replace(step=_favours_node_0)
    fails(
        testing.check_permutation_equivariance, favour, ROUNDS, X0, NEW, match="if it is called .*must not matter: off"
    )
    fails(testing.check_permutation_equivariance, learner(TASK), PUSHES, X0, NEW, match="names must not matter")
    for plan in (timeline.client_sampling(N, 2, 4, seed=0), timeline.drawn_pairs(N, 10)):
        with pytest.raises(ValueError, match="cannot be relabelled: supported are"):
            testing.relabel_timeline(plan, NEW)
    with pytest.raises(ValueError, match="name each of the 4 nodes once"):
        testing.relabel_timeline(ROUNDS, np.array([0, 0, 1, 2]))
    pooled = dataclasses.replace(TASK, data=TASK.data | {"pool": jnp.zeros((9, 3))})
    with pytest.raises(ValueError, match=r"data\['pool'\] has shape \(9, 3\)"):
        testing.relabel_task(pooled, NEW)


def _counts_events(key, state, event):
    """Not by rows but by events, of which packing leaves fewer."""
    state, info = GOSSIP.step(key, state, event)
    return state._replace(x=state.x.at[0].add(1.0)), info


@FEW
@given(testing.timelines(("flights",), sizes=(N,)), testing.starts(N))
def test_packed_equals_sequential(plan, x0):
    testing.check_packing(GOSSIP, plan, x0)


def test_what_packing_changes_is_caught():
    broken = GOSSIP._replace(step=_counts_events)
    fails(testing.check_packing, broken, FLIGHTS, X0, match=r"the state\.x\[., .\] is .*packed to width 4.*off by")
    with pytest.raises(ValueError, match="cannot be packed"):
        testing.check_packing(GOSSIP, ROUNDS, X0)


# --- counters and messages --------------------------------------------------------------------------------------------


@FEW
@given(testing.timelines(("rounds", "flights"), sizes=(N,)), testing.small_tasks(N))
def test_counters_keep_their_rules(plan, task):
    testing.check_staleness_rules(plan)
    if "fixed" in plan.properties:
        testing.check_staleness_rules(plan, learner(task), X0)


CLOCK = clocks.shifted_exponential(0.2, 0.6)
PLANS = {
    "inbox": push_gossip(GRAPH, 4.0, compute=CLOCK, gossip=2.0, inbox="newest", latency=0.1, seed=5),
    "replies": timeline.pairwise(GRAPH, 4.0, compute=CLOCK, communicate=1.0, atomic=False, latency=0.1, seed=5),
    "halves": timeline.directed_push(GRAPH, 4.0, compute=CLOCK, send=1.0, latency=0.1, drop=0.2, seed=5),
    "relayed": timeline.opportunistic(N, 4.0, update_rate=1.0, capacity=2.0, relay="newest", seed=5),
    "walking_models": timeline.gossip_learning(GRAPH, 4.0, period=1.0, create="update_merge", latency=0.1, seed=5),
}
PLANS = {name: testing.pad_timeline(plan, num_events=128, num_slots=32) for name, plan in PLANS.items()}


@pytest.mark.parametrize("name", PLANS)
def test_planners_keep_the_rules(name):
    testing.check_staleness_rules(PLANS[name])
    if name == "relayed":
        with pytest.raises(ValueError, match="traffic is None"):
            testing.check_message_conservation(PLANS[name])
    else:
        testing.check_message_conservation(PLANS[name])


COUNTING = track_versions(GOSSIP, num_nodes=N)
EYE = np.eye(N + FLIGHTS.properties.num_slots, N, dtype=np.int32)
MISREADINGS = {
    "deaf": (lambda held, own: (jnp.where((held > 1) & (EYE == 0), 1, held), own), "after a transfer .* short by"),
    "forgets": (lambda held, own: (held * jnp.where(own.sum() > 4, EYE, 1), own), r"N\^. never decreases.*short by"),
    "too_new": (lambda held, own: (held + 1 - EYE, own), "N_i.j ≤ N_i.i: staleness -1"),
    "negative": (lambda held, own: (held - 1 + EYE, own), "N_i.j ≥ 0: off by -1"),
    "jumps": (lambda held, own: (2 * held, 2 * own), r"only these change it: off by \+1"),
    "not_own": (lambda held, own: (held * (1 - EYE), own), "version 0 of itself .*must be equal: off by -"),
    "nowhere": (lambda held, own: (jnp.broadcast_to(own, held.shape), own), "versions come from transfers only"),
}


def _misread(number, state):
    true = COUNTING.versions(state)
    held, own = jax.lax.switch(number, [change for change, _ in MISREADINGS.values()], true.held, true.own)
    return true._replace(held=held, own=own)


@pytest.mark.parametrize("name", MISREADINGS)
def test_broken_counters_are_caught(name):
    protocol = COUNTING._replace(versions=Partial(_misread, jnp.asarray(list(MISREADINGS).index(name))))
    fails(testing.check_staleness_rules, FLIGHTS, protocol, match=MISREADINGS[name][1])


def test_counters_that_cannot_be_checked_are_named():
    with pytest.raises(ValueError, match="2 sources of 4 nodes"):
        testing.check_staleness_rules(PUSHES, track_versions(GOSSIP, [0, 1], num_nodes=N))
    with pytest.raises(ValueError, match="rows must be the nodes"):
        testing.check_staleness_rules(timeline.client_sampling(N, 2, 4, seed=0))


def accounted(plan, **changes):
    counts = plan.properties.traffic
    counts = dataclasses.replace(counts, **{name: getattr(counts, name) + by for name, by in changes.items()})
    return dataclasses.replace(plan, properties=dataclasses.replace(plan.properties, traffic=counts))


def without(plan, name, which):
    """Without the first transfer that puts, or reads, a message."""
    xs = {field: np.array(array) for field, array in plan.xs.items()}
    t = np.flatnonzero((xs[name] >= N) & (xs[name] != NOBODY))[which] // xs[name].shape[1]
    xs["receivers"][t] = NOBODY
    return dataclasses.replace(plan, xs=xs)


def test_messages_invented_or_lost_are_caught():
    for plan, match in (
        (accounted(FLIGHTS, sent=1), "every message has one fate: off by -1"),
        (accounted(FLIGHTS, in_flight=-99, delivered=99), "no count is negative"),
        (accounted(FLIGHTS, sent=1, dropped=1), "leave in the events .*off by -1"),
        (accounted(FLIGHTS, delivered=1, in_flight=-1), "are read from rows .*off by -1"),
        (accounted(FLIGHTS, delivered=1, dropped=-1), "are put into rows .*off by -1"),
        (without(FLIGHTS, "senders", 0), "are read from rows .*off by -1"),
        (without(FLIGHTS, "receivers", -1), "are put into rows .*off by -1"),
        (without(FLIGHTS, "receivers", 0), "a message is read after it is sent"),
    ):
        fails(testing.check_message_conservation, plan, match=match)
    testing.check_message_conservation(FLIGHTS)


# --- compressors ------------------------------------------------------------------------------------------------------


def top_k(k, key, x):
    del key
    return jnp.where(jnp.argsort(jnp.argsort(-jnp.abs(x))) < k, x, 0)


def random_window(k, key, x):
    """Each entry is kept with the probability k/d."""
    first = jax.random.randint(key, (), 0, x.shape[0])
    return jnp.where((jnp.arange(x.shape[0]) + first) % x.shape[0] < k, x, 0)


def scaled_window(k, key, x):
    return random_window(k, key, x) * (x.shape[0] / k).astype(x.dtype)


def scaled_sign(key, x):
    del key
    return jnp.sign(x) * jnp.mean(jnp.abs(x))


def not_finite(key, x):
    return x / 0.0


@FEW
@given(testing.compressor_inputs((9,)))
def test_compressors_contract(inputs):
    k, x = inputs
    testing.check_contracts(Partial(top_k, jnp.asarray(k)), k / x.size, x)
    testing.check_contracts(scaled_sign, 1 / x.size, x)
    testing.check_contracts(Partial(random_window, jnp.asarray(k)), k / x.size, x, random=True, draws=1024)
    testing.check_unbiased(Partial(scaled_window, jnp.asarray(k)), x, draws=1024)


@given(testing.vectors(5))
def test_vectors_have_no_entries_that_vanish(x):
    assert not ((x != 0) & (np.abs(x) < 2**16 * np.finfo(np.float32).tiny)).any()


def test_compressors_that_lose_more_are_caught():
    x = np.ones(9, np.float32)
    top, rand = Partial(top_k, jnp.asarray(3)), Partial(random_window, jnp.asarray(3))
    # Three of nine equal entries are exactly a third.
    testing.check_contracts(top, 3 / 9, x)
    fails(testing.check_contracts, top, 3.001 / 9, x, match=r"deterministic\) .*too much by 0.001")
    ramp = np.arange(1, 10, dtype=np.float32)
    fails(testing.check_contracts, rand, 3.5 / 9, ramp, random=True, match="mean of 4096 draws, margin")
    fails(testing.check_contracts, not_finite, 1.0, x, match="must be finite")
    fails(testing.check_unbiased, rand, x, match=r"x\[.\] is 1; it must be unbiased: off by 0.6")
    spike = np.eye(9, dtype=np.float32)[0]
    fails(testing.check_unbiased, top, ramp, match=r"Q\(x\)\[.\] is 0 ")
    testing.check_unbiased(top, spike)  # what is zero may be left out


def test_settings_of_compressor_checks():
    x = np.ones(3, np.float32)
    for check, arguments, message in (
        (testing.check_contracts, (scaled_sign, 0.0, x), "omega=0.0"),
        (testing.check_unbiased, (scaled_sign, x[None]), "pass a vector|not the 1 expected"),
        (testing.check_contracts, (lambda key, x: x[:2], 0.5, x), r"returns shape \(2,\)"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            check(*arguments)
    with pytest.raises(ValueError, match="draws=1"):
        testing.check_unbiased(scaled_sign, x, draws=1)


# --- the extra --------------------------------------------------------------------------------------------------------


def test_hypothesis_is_needed_for_this_alone(monkeypatch):
    root = pathlib.Path(gossipjax.__file__).parent
    for path in root.rglob("*.py"):
        if "study" in path.parts:  # a project of its own, with tests
            continue
        nodes = ast.walk(ast.parse(path.read_text()))
        names = {alias.name for node in nodes if isinstance(node, ast.Import | ast.ImportFrom) for alias in node.names}
        names |= {getattr(node, "module", None) or "" for node in ast.walk(ast.parse(path.read_text()))}
        needs = any(name.startswith(("hypothesis", "gossipjax.testing")) or name == "testing" for name in names)
        when_it_runs = path == root / "review" / "_correctness.py"  # inside a function, which says what is missing
        assert needs <= (path.parent == root / "testing" or when_it_runs), path
    for name in [name for name in sys.modules if name.startswith("gossipjax.testing")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    with pytest.raises(ImportError, match=r"install the testing extra, gossipjax\[testing\]"):
        importlib.import_module("gossipjax.testing")
