"""Audits against vectors worked out by hand and by another program, and against the engine."""

import dataclasses
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from exact_rows import known_from
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.tree_util import Partial

import gossipjax as gj
from gossipjax import privacy, testing
from gossipjax.privacy._contributions import as_contributions, start_values
from gossipjax.privacy._tape import write_tape
from gossipjax.timeline import clocks

T, tl = gj.topology, gj.timeline
KEY, NAN = jax.random.key(0), np.nan
STEPS = privacy.steps()
# Sums and projections of a few hundred numbers near 1, in float64.
EXACT = {"rtol": 0, "atol": 1e-9}


def rounds(graph, num_rounds):
    return tl.rounds(gj.mixing.metropolis(graph), num_rounds)


def squared(plan, *arguments, **settings):
    return gj.audit(plan, *arguments, **settings).mu ** 2


def meetings(pairs, n):
    pairs = np.asarray(pairs)
    events = {"time": np.arange(len(pairs)) + 1.0, "nodes": np.full((len(pairs), 1), gj.types.NOBODY)}
    events |= {"senders": pairs, "receivers": pairs[:, ::-1]}
    shared = {"weights": np.full(2, 0.5), "keep": np.full(2, 0.5)}
    return tl.from_events(events, gj.Properties(n, n, "meetings", {"symmetric", "doubly_stochastic"}), shared=shared)


AVERAGING = [
    (T.path(4), 0, {1: (NAN, 1, 0, 0), 2: (NAN, 1, 1, 0), 3: (NAN, 1, 1, 1)}),
    (T.star(5), 1, {1: (1, NAN, 0, 0, 0), 2: (1, NAN, 1 / 3, 1 / 3, 1 / 3), 4: (1, NAN, 1 / 3, 1 / 3, 1 / 3)}),
    (T.ring(6), 0, {1: (NAN, 1, 0, 0, 0, 1), 2: (NAN, 1, 1, 0, 1, 1), 3: (NAN, 1, 1, 1, 1, 1)}),
]


@pytest.mark.parametrize(("graph", "observer", "values"), AVERAGING)
def test_averaging_in_rounds(graph, observer, values):
    for num_rounds, expected in values.items():
        found = gj.audit(rounds(graph, num_rounds), observers=[observer])
        np.testing.assert_allclose(found.mu[0] ** 2, expected, **EXACT)
        np.testing.assert_array_equal(found.reconstructed[0], np.equal(expected, 1))


@pytest.mark.parametrize("packed", [False, True])
def test_a_tape_of_four_meetings(packed):
    pairs = [(0, 1), (2, 3), (1, 2), (0, 1)]
    plan, fewer = meetings(pairs, 4), meetings(pairs[:1] + pairs[2:], 4)
    if packed:
        plan, fewer = gj.pack(plan), gj.pack(fewer)
        assert len(plan) < 4
    expected = [(NAN, 1, 0.5, 0.5), (1, NAN, 0.5, 0.5), (0.5, 0.5, NAN, 1), (0, 0, 1, NAN), (NAN, 1, 1, NAN)]
    np.testing.assert_allclose(squared(plan, observers=[0, 1, 2, 3, (0, 3)]), expected, **EXACT)
    # A meeting that is lost elsewhere raises what node 0 learns of node 2.
    np.testing.assert_allclose(squared(fewer, observers=[0]), [(NAN, 1, 1, 0)], **EXACT)


def test_a_message_in_flight_holds_the_model_at_sending():
    NOBODY = gj.types.NOBODY
    events = {
        "time": np.arange(3.0),
        "nodes": np.full((3, 1), NOBODY),
        "senders": np.asarray([[1, NOBODY], [0, 1], [3, NOBODY]]),
        "receivers": np.asarray([[3, NOBODY], [1, 0], [2, NOBODY]]),
        "weights": np.asarray([[1.0, 0], [0.5, 0.5], [0.5, 0]]),
        "keep": np.asarray([[0.0, 1], [0.5, 0.5], [0.5, 1]]),
    }
    plan = tl.from_events(events, gj.Properties(3, 3, "slow", num_slots=1))
    np.testing.assert_allclose(squared(plan, observers=[2])[0], (0, 1, NAN), **EXACT)
    assert gj.audit(plan[:2], observers=[2]).heard[0] == 0
    np.testing.assert_allclose(squared(plan[:1], observers=[privacy.Wire()])[0], (0, 1, 0), **EXACT)


DPSGD = [
    (T.path(3), 0, 2, (NAN, 19 / 10, 1 / 10)),
    (T.path(3), 0, 3, (NAN, 75 / 26, 9 / 26)),
    (T.ring(4), 0, 2, (NAN, 21 / 11, 2 / 11, 21 / 11)),
    (T.star(5), 1, 2, (53 / 28, NAN, 1 / 28, 1 / 28, 1 / 28)),
    (T.star(5), 0, 3, (NAN, 3, 3, 3, 3)),
]


@pytest.mark.parametrize(("graph", "observer", "num_rounds", "expected"), DPSGD)
def test_steps_with_fresh_noise(graph, observer, num_rounds, expected):
    found = gj.audit(rounds(graph, num_rounds), STEPS, observers=[observer])
    np.testing.assert_allclose(found.mu[0] ** 2, expected, **EXACT)
    assert np.nanmax(found.mu**2 - found.mu_lower**2) < 1e-8


def test_more_steps_to_printed_digits():
    digits = {"rtol": 0, "atol": 5e-7}
    for graph, rounds_, expected in (
        (T.path(3), 5, (NAN, 4.798621, 1.111724)),
        (T.ring(4), 3, (NAN, 2.861789, 0.471545, 2.861789)),
        (T.ring(4), 8, (NAN, 7.582179, 2.122031, 7.582179)),
        (T.path(3), 8, (NAN, 7.679094, 2.520249)),
    ):
        np.testing.assert_allclose(squared(rounds(graph, rounds_), STEPS, observers=[0])[0], expected, **digits)
    np.testing.assert_allclose(squared(rounds(T.star(5), 3), STEPS, observers=[1])[0, 2], 7 / 52, **EXACT)
    found = gj.audit(rounds(T.path(3), 2), STEPS, observers=[0]).epsilon(1e-5)
    np.testing.assert_allclose(found[0], (NAN, 6.375633, 1.199370), **digits)


def test_secure_sums():
    plan = rounds(T.ring(4), 2)
    np.testing.assert_allclose(squared(plan, observers=[0], hears="sums")[0], (NAN, 0.5, 1, 0.5), **EXACT)
    np.testing.assert_allclose(squared(plan[:1], observers=[0], hears="sums")[0], (NAN, 0.5, 0, 0.5), **EXACT)
    found = squared(plan, STEPS, observers=[0], hears="sums")[0]
    np.testing.assert_allclose(found, (NAN, 10 / 11, 2 / 11, 10 / 11), **EXACT)
    for expected in ((2 / 3, NAN, 2 / 3, 2 / 3), (1, NAN, 1, 1)):
        plan = rounds(T.path(4), 2 if expected[0] < 1 else 3)
        np.testing.assert_allclose(squared(plan, observers=[1], hears="sums")[0], expected, **EXACT)
    np.testing.assert_allclose(squared(rounds(T.star(5), 4), STEPS, observers=[0], hears="sums")[0, 1:], 1, **EXACT)
    long = squared(rounds(T.ring(4), 16), STEPS, observers=[0], hears="sums")[0]
    np.testing.assert_allclose(long, (NAN, 7.137737, 4.788675, 7.137737), rtol=0, atol=5e-7)


def test_the_formula_for_noise_at_the_start_is_no_bound():
    W = gj.mixing.metropolis(T.path(4))
    np.testing.assert_allclose(privacy.muffliato(W, 3)[0, 3], 1 / 23, **EXACT)
    np.testing.assert_allclose(squared(tl.rounds(W, 3), observers=[0])[0, 3], 1, **EXACT)


def test_the_formula_for_fresh_noise_is_above_the_exact_value_here():
    for graph in (T.path(4), T.ring(6), T.star(5)):
        W = gj.mixing.metropolis(graph)
        exact = squared(tl.rounds(W, 4), STEPS)
        others = ~np.isnan(exact)
        assert np.all(privacy.fresh_noise(W, 4)[others] >= exact[others] - 1e-9)


def test_noise_of_pairs():
    plan, graph = rounds(T.ring(4), 4), T.ring(4)
    seen = [
        squared(plan, STEPS, observers=[privacy.Wire()], noise=privacy.pairwise_noise(graph, 1.0, 1.0, fresh=fresh))
        for fresh in (True, False)
    ]
    np.testing.assert_allclose(seen[0], 28 / 15, **EXACT)
    np.testing.assert_allclose(seen[1], 4.0, **EXACT)
    curious = squared(plan[:1], STEPS, observers=[0, privacy.Wire()], noise=privacy.pairwise_noise(graph, 1.0, 1.0))
    np.testing.assert_allclose(curious[1], 7 / 15, **EXACT)
    none = squared(plan, STEPS, noise=privacy.pairwise_noise(graph, 2.0, 0.0))
    np.testing.assert_allclose(none, squared(plan, STEPS, noise=2.0), **EXACT)


def test_rounding_of_messages():
    plan = rounds(T.ring(16), 16)
    for eta, expected in ((0.0, 1.0), (1e-6, 0.999998), (1e-4, 0.9789), (1e-2, 0.2097)):
        found = squared(plan, observers=[0], rounding=eta)[0, 8]
        np.testing.assert_allclose(found, expected, rtol=0, atol=5e-5)


PUSH = tl.push_gossip(T.ring(6), 12.0, compute=clocks.poisson(0.5), gossip=1.5, latency=0.7, drop=0.2, seed=0)
PLANS = {
    "rounds": (rounds(T.barabasi_albert(7, 2, seed=0), 6), None),
    "table": (tl.rounds(gj.mixing.metropolis(T.ring(7)), 6, form="table"), None),
    "cycle": (tl.rounds([gj.mixing.metropolis(T.ring(6)), gj.mixing.metropolis(T.path(6))], 5), None),
    "all-reduce": (tl.rounds(gj.mixing.averaging(5), 2), None),
    "pairs": (tl.poisson_pairs(T.ring(6), 40, seed=0), None),
    "pushes": (tl.poisson_push(T.ring(6), 40, seed=0), None),
    "drawn": (tl.drawn_pairs(T.ring(6), 40), None),
    "flights": (PUSH, None),
    "mailboxes": (tl.swift(T.ring(5), 8.0, compute=clocks.poisson(1.0), seed=0), gj.Requires()),
    "losses": (
        tl.changing_rounds(
            tl.overlays.regular(8, 3, seed=0), 6, loss=tl.losses.independent(0.3, seed=1),
            activity=tl.activity.bernoulli(0.7, seed=2),
        ),
        None,
    ),
    "directed": (
        tl.directed_push(T.exponential(6), 12.0, compute=None, send=1.0, latency=0.5, drop=0.1, seed=0),
        "push",
    ),
    "edges": (tl.poisson_edges(T.ring(6), 40, seed=0), None),
    "pairwise": (
        tl.pairwise(T.ring(6), 9.0, compute=clocks.poisson(0.5), communicate=1.0, atomic=False, latency=0.4, seed=0),
        None,
    ),
    "matchings": (tl.matching_rounds(6, 8, seed=0), None),
    "drawn matchings": (tl.drawn_matchings(6, 8), None),
    "drawn gossip": (tl.drawn_gossip(T.ring(6), 40, update_rate=1.0, gossip_rate=1.0), None),
    "push rounds": (tl.push_rounds(T.ring(6), 12, compute=1.0, gossip_rate=1.0, seed=0), None),
    "version age": (tl.version_age(T.ring(6), 12.0, version_rate=1.0, source_rate=1.0, gossip_rate=1.0, seed=0), None),
    "push": (tl.changing_rounds(tl.overlays.regular(8, 3, seed=0), 6, weights="push"), "push"),
}  # fmt: skip


QUICK = ("table", "flights", "directed", "losses")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in PLANS]
)
def test_the_loop_on_the_host_is_the_engine(name):
    plan, special = PLANS[name]
    n, key = plan.properties.num_nodes, jax.random.key(7)
    protocol = gj.push_sum() if special == "push" else gj.gossip_averaging()
    if isinstance(special, gj.Requires):
        protocol = protocol._replace(requires=special)
    run = gj.simulate(key, protocol, plan, jnp.eye(n), observers=[])
    state = run.state
    tape = write_tape(plan, start_values(), "messages", key)
    # One rounding for each addition, of numbers up to 1.
    np.testing.assert_allclose(tape.final, np.asarray(state.x)[:n], rtol=0, atol=1e-12)
    if "flights" in name:
        facts = plan.properties.traffic
        assert np.sum(tape.receiver < n) == facts.delivered
        assert len(tape.sender) == facts.sent


def test_fragments_are_mixed_class_by_class():
    plan = tl.divshare(
        6, 6.0, compute=clocks.poisson(1.0), num_fragments=2, recipients=2, uplink_messages_per_second=4.0, seed=0
    )
    n, parts = plan.properties.num_nodes, plan.properties.num_fragments
    x0 = jnp.broadcast_to(jnp.eye(n)[:, None], (n, parts, n)).reshape(n, parts * n)
    protocol = gj.gossip_averaging(gj.sharing.fragments(parts, layout="contiguous"))
    state = gj.simulate(KEY, protocol, plan, x0, observers=[]).state
    models = np.asarray(state.x)[:n].reshape(n, parts, n)
    tapes = [write_tape(plan, start_values(), "messages", KEY, part) for part in range(parts)]
    for part, tape in enumerate(tapes):
        np.testing.assert_allclose(tape.final, models[:, part], rtol=0, atol=1e-12)
    joint = gj.audit(plan, protocol).mu
    others = ~np.isnan(joint)
    assert 0 < joint[others].max() <= 1
    assert np.all(gj.audit(plan, protocol).mu_lower[others] <= joint[others])


def _linear_batch(key, data, node):
    del key
    return data[node]


def _linear_loss(key, params, batch):
    del key
    return jnp.sum(params * batch)


def constant_gradients(n):
    """A task in which the gradient of node j is the unit vector j, whatever the model."""
    task = gj.tasks.quadratic(np.eye(n))
    return gj.Task(task.init, Partial(_linear_batch), Partial(_linear_loss), task.metrics, jnp.eye(n), task.test, n)


LEARNERS = [
    ({}, Partial(optax.sgd, 1.0), STEPS),
    ({"order": "combine_then_adapt"}, Partial(optax.sgd, 1.0), privacy.steps(order="combine_then_adapt")),
    ({"local_steps": 2}, Partial(optax.sgd, 1.0), privacy.steps(local_steps=2)),
    ({"local_steps": 2}, optax.sgd(1.0, momentum=0.5), privacy.steps(local_steps=2, momentum=0.5)),
    ({}, optax.sgd(lambda count: 1.0 / (count + 1).astype(float)), privacy.steps(step_sizes=1.0 / np.arange(1, 30))),
]


@pytest.mark.parametrize("plan", [pytest.param("rounds", marks=pytest.mark.slow), "flights"])
@pytest.mark.parametrize(
    ("words", "optimizer", "steps"),
    [pytest.param(*case, marks=() if place == 3 else pytest.mark.slow) for place, case in enumerate(LEARNERS)],
)
def test_steps_are_those_of_dpsgd(plan, words, optimizer, steps):
    plan, _ = PLANS[plan]
    n = plan.properties.num_nodes
    run = gj.simulate(KEY, gj.dpsgd(constant_gradients(n), optimizer, **words), plan, jnp.zeros((n, n)), observers=[])
    tape = write_tape(plan, steps, "messages", KEY)
    by_node = tape.final @ (tape.node[:, None] == np.arange(n))
    np.testing.assert_allclose(-by_node, np.asarray(run.x)[:n], rtol=0, atol=1e-12)


def test_protocols_say_what_they_contribute():
    task = constant_gradients(6)
    sgd = Partial(optax.sgd, 0.1, momentum=0.5)
    what, hears, problem = as_contributions(gj.dpsgd(task, sgd, order="combine_then_adapt", local_steps=2))
    assert (what.order, what.local_steps, what.momentum, hears, problem) == (
        "combine_then_adapt",
        2,
        0.5,
        "messages",
        None,
    )
    secure = gj.gossip_averaging(gj.sharing.secure_aggregation(T.ring(6)))
    assert as_contributions(secure) == (start_values(), "sums", None)
    for protocol in (
        gj.dpsgd(task, optax.adam(0.1)),
        gj.dpsgd(task, Partial(optax.adam, 0.1)),
        gj.gossip_averaging(gj.sharing.top_k(0.5)),
        gj.gossip_averaging(gj.sharing.secure_aggregation(T.ring(6), dropout=0.1)),
        gj.d2(task, Partial(optax.sgd, 0.1)),
        gj.metered(gj.gossip_averaging()),
    ):
        assert as_contributions(protocol)[2] is not None
        with pytest.raises(ValueError, match="local_only=True"):
            gj.audit(rounds(T.ring(6), 3), protocol)
    for sharing in (gj.sharing.noisy(0.1), gj.sharing.decor(T.ring(6), 0.1, 0.1), gj.sharing.multi_step(2)):
        assert "does not read" in as_contributions(gj.gossip_averaging(sharing))[2]  # linear, but not the plan's models
    local = gj.audit(rounds(T.ring(6), 3), gj.dpsgd(task, optax.adam(0.1)), local_only=True, noise=2.0)
    np.testing.assert_allclose(local.mu[0], (NAN, *[np.sqrt(3) / 2] * 5), **EXACT)
    assert "local bound" in local.statement(0, 1, 1e-5)


# Plans of six nodes against arithmetic in fractions


def projector_by_fractions(pairs, observer, n):
    """The squared μ of averaging over pairs, in exact arithmetic."""
    models = [[Fraction(int(i == j)) for j in range(n)] for i in range(n)]
    rows = []
    for i, j in pairs:
        rows += [models[b] for a, b in ((i, j), (j, i)) if a in observer]
        mean = [(a + b) / 2 for a, b in zip(models[i], models[j], strict=True)]
        models[i], models[j] = mean, list(mean)
    rows = [[Fraction(0) if c in observer else value for c, value in enumerate(row)] for row in rows]
    return known_from(rows or [[Fraction(0)] * n]).squared_parts


PAIRS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)).filter(lambda p: p[0] != p[1]), min_size=1, max_size=9)


@settings(max_examples=40, deadline=None)
@given(PAIRS, st.sets(st.integers(0, 5), min_size=1, max_size=3))
def test_small_plans_against_fractions(pairs, observer):
    plan = testing.pad_timeline(meetings(pairs, 6))
    found = gj.audit(plan, observers=[tuple(observer)])
    expected = np.asarray(projector_by_fractions(pairs, observer, 6))
    expected[list(observer)] = NAN
    np.testing.assert_allclose(found.mu[0] ** 2, expected, **EXACT)
    assert found.certain[0]


@settings(max_examples=25, deadline=None)
@given(testing.timelines(("rounds", "exchanges", "pushes", "flights"), sizes=(4,), num_rounds=4), st.booleans())
def test_properties_of_audits(plan, of_steps):
    what = STEPS if of_steps else start_values()
    total = len(plan)
    nodes = gj.audit(plan, what, prefixes=sorted({total // 2, total}))
    others = ~np.isnan(nodes.mu)
    slack = 1e-6  # the certificates of an optimum differ by less
    assert np.all(nodes.mu <= nodes.local + 1e-9, where=others)
    assert np.all(nodes.mu_lower <= nodes.mu + 1e-9, where=others)
    assert np.all(nodes.mu_after[0] <= nodes.mu + slack, where=others)
    both = gj.audit(plan, what, observers=[(0, 1), privacy.Wire()])
    assert np.all(nodes.mu[:2, 2:] <= both.mu[0, 2:] + slack)
    assert np.all(nodes.mu <= both.mu[1] + slack, where=others)
    louder = gj.audit(plan, what, noise=2.0, sensitivity=3.0)
    np.testing.assert_allclose(louder.mu, 1.5 * nodes.mu, rtol=1e-6, atol=1e-9)
    if "synchronous" in plan.properties:
        sums = gj.audit(plan, what, hears="sums")
        assert np.all(sums.mu <= nodes.mu + slack, where=others)


def test_an_eavesdropper_reaches_the_local_bound_of_what_is_sent():
    found = gj.audit(rounds(T.ring(5), 3), STEPS, observers=[privacy.Wire()])
    np.testing.assert_allclose(found.mu[0], found.local, **EXACT)
    NOBODY = gj.types.NOBODY
    events = {"time": np.arange(3.0), "nodes": np.asarray([[0], [NOBODY], [0]])}
    events |= {"senders": np.asarray([[NOBODY], [0], [NOBODY]]), "receivers": np.asarray([[NOBODY], [1], [NOBODY]])}
    events |= {"weights": np.full((3, 1), 0.5), "keep": np.full((3, 1), 0.5)}
    twice = tl.from_events(events, gj.Properties(2, 2, "trains twice, sends once"))
    np.testing.assert_allclose(squared(twice, STEPS, observers=[privacy.Wire()])[0, 0], 1, **EXACT)
    np.testing.assert_allclose(squared(rounds(T.star(5), 1), privacy.steps(local_steps=2), observers=[0])[0, 1:], 2)


def test_a_tap_on_links():
    plan = rounds(T.path(4), 1)
    found = gj.audit(plan, observers=[privacy.Wire(((1, 2),)), privacy.Wire()]).mu
    np.testing.assert_allclose(found, [(0, 1, 0, 0), (1, 1, 1, 1)], **EXACT)
    lost = gj.audit(PUSH, observers=[privacy.Wire(), *range(6)])
    assert lost.heard[0] == PUSH.properties.traffic.sent > lost.heard[1:].sum()


def test_numbering_nodes_otherwise_permutes():
    order = np.asarray([3, 0, 4, 1, 2, 5])
    plan = tl.poisson_pairs(T.ring(6), 25, seed=3)
    renamed = testing.relabel_timeline(plan, order)
    found, again = gj.audit(plan, STEPS).mu, gj.audit(renamed, STEPS).mu
    place = order if np.allclose(again[np.ix_(order, order)], found, equal_nan=True) else np.argsort(order)
    np.testing.assert_allclose(again[np.ix_(place, place)], found, rtol=1e-7, atol=1e-9)


def test_what_is_called_reconstructed_is_recovered_from_a_run():
    plan, n = tl.poisson_pairs(T.ring(6), 30, seed=1), 6
    x0 = jnp.asarray(np.random.default_rng(0).standard_normal((n, 1)))
    states = testing.history(gj.gossip_averaging(), plan, x0)
    found, tape = gj.audit(plan), write_tape(plan, start_values(), "messages", KEY)
    assert 0 < found.reconstructed.sum() < n * n - n
    before = np.concatenate([x0[None], states.models[:-1]])[:, :, 0]
    for i in range(n):
        entries = np.flatnonzero(tape.receiver == i)
        said = before[tape.event[entries], tape.sender[entries]]
        known = np.delete(np.arange(n), i)
        K = tape.rows(entries, np.arange(n))
        guess = np.zeros(n)
        guess[known] = np.linalg.lstsq(K[:, known], said - K[:, i] * float(x0[i, 0]), rcond=1e-12)[0]
        wrong = np.abs(guess - np.asarray(x0)[:, 0])
        assert np.all(wrong[found.reconstructed[i]] < 1e-9)
        assert np.all(wrong[known][~found.reconstructed[i][known]] > 1e-3)


def test_what_is_published_is_heard_by_all():
    plan = meetings([(0, 1)], 4)
    mean = np.full((1, 4), 0.25)
    found = squared(plan, observers=[0], published=mean)[0]
    np.testing.assert_allclose(found, (NAN, 1, 0.5, 0.5), **EXACT)


def test_weights_in_single_precision_are_fractions():
    W = gj.mixing.metropolis(T.barabasi_albert(9, 2, seed=0))
    plan = tl.rounds(W, 9)
    rough = gj.mixing.from_matrix(W, dtype=np.float32)
    single = dataclasses.replace(plan, shared=plan.shared | {"mixing": rough})
    np.testing.assert_allclose(gj.audit(single).mu, gj.audit(plan).mu, rtol=0, atol=1e-6)
    assert np.array_equal(gj.audit(single).reconstructed, gj.audit(plan).reconstructed)


def test_units_of_noise_and_of_sums_change_no_rank():
    """σ and Δ whose squares are no floats, published sums of any length, and learning rates far apart."""
    plan = rounds(T.path(4), 3)
    exact = gj.audit(plan, STEPS).mu
    for sigma in (1e-300, 1e300):
        np.testing.assert_allclose(sigma * gj.audit(plan, STEPS, noise=sigma).mu, exact, **EXACT)
    for length in (1e-200, 1e300):
        found = gj.audit(meetings([(0, 1)], 4), observers=[0], published=np.full((1, 4), 0.25 * length))
        np.testing.assert_allclose(found.mu[0] ** 2, (NAN, 1, 0.5, 0.5), **EXACT)
    for rates in ([1.0, 1e-5, 1e-10], [1e-10, 1e-5, 1.0]):
        found = gj.audit(rounds(T.path(2), 3), privacy.steps(step_sizes=rates), observers=[0])
        np.testing.assert_allclose(found.mu[0], (NAN, np.sqrt(3)), **EXACT)


def test_far_values_on_a_long_path_are_reconstructed():
    """They enter a message at 1e-19 of the others: below rounding, but exactly known, one after another."""
    found = gj.audit(rounds(T.path(40), 39), observers=[0])
    assert found.certain[0]
    assert found.reconstructed[0, 1:].all()
    np.testing.assert_allclose(found.mu[0, 1:], 1, **EXACT)


def projector_of_published(num_rounds, published, n=6):
    """The squared μ of sums of the models of a ring after averaging, in exact arithmetic, and their rank."""
    third, models = Fraction(1, 3), [[Fraction(int(i == j)) for j in range(n)] for i in range(n)]
    for _ in range(num_rounds):
        models = [
            [third * (models[i - 1][c] + models[i][c] + models[(i + 1) % n][c]) for c in range(n)] for i in range(n)
        ]
    said = [[sum(w * model[c] for w, model in zip(row, models, strict=True)) for c in range(n)] for row in published]
    return known_from(said).squared_parts


ONE = Fraction(1)
IDENTITY = [[ONE * int(k == i) for k in range(6)] for i in range(6)]
DIFFERENCES = [[ONE * (int(k == i) - int(k == i + 1)) for k in range(6)] for i in range(5)]
PUBLISHED = {
    "models": (IDENTITY, 2, 3),
    "mean and differences": ([[ONE / 6] * 6, *DIFFERENCES], 2, 3),
    # One row fades as a whole, and its direction with it.
    "differences": (DIFFERENCES, 2, 3),
    "one difference": ([[ONE, 0, -ONE, 0, 0, 0]], 3, 5),
    "deviations": ([[each - ONE / 6 for each in row] for row in IDENTITY], 2, 3),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sums_that_are_rounding_are_not_certain(name):
    """Differences of models fade as (2/3)^T and (1/3)^T: what is certain is right, and nothing is understated."""
    published, first, last = PUBLISHED[name]
    n, nobody, certain = 6, [privacy.Wire(((0, 3),))], []
    for num_rounds in (1, 5, 20, 30, 45, 55, 60, 80, 100, 200):
        found = gj.audit(rounds(T.ring(n), num_rounds), observers=nobody, published=np.asarray(published, float))
        exact = projector_of_published(num_rounds, published)
        assert found.heard[0] == 0
        certain.append(bool(found.certain[0]))
        turned = 1e-9 + 1 / found.gap[0] if certain[-1] else 0.0  # angle by which rounding turns a row space
        assert np.all(found.mu[0] ** 2 >= np.asarray(exact) - turned)
        assert np.all(found.mu_lower[0] ** 2 <= np.asarray(exact) + 1e-9)
        if certain[-1]:
            np.testing.assert_allclose(found.mu[0] ** 2, exact, rtol=0, atol=turned)
            assert not found.reconstructed.any()
    assert all(certain[:first])
    assert not any(certain[last:])


@pytest.mark.parametrize("num_rounds", [80, 100, 120, 200])
def test_what_cancels_in_float64_is_not_unheard(num_rounds):
    """Models of a ring of five agree to the last digit, in fractions they do not."""
    n, nobody, plan = 5, [privacy.Wire(((0, 3),))], rounds(T.ring(5), num_rounds)
    for published in ([[ONE, 0, -ONE, 0, 0]], [[ONE * int(k == i) - ONE / n for k in range(n)] for i in range(n)]):
        found = gj.audit(plan, observers=nobody, published=np.asarray(published, float))
        exact = np.asarray(projector_of_published(num_rounds, published, n))
        assert not found.certain[0]
        assert not found.reconstructed.any()
        np.testing.assert_array_equal(found.mu[0], exact > 0)
        assert np.all(found.mu_lower[0] ** 2 <= exact)


def test_what_cancels_for_one_node_only_has_a_local_bound():
    """Of eight nodes, some enter a difference by its rounding, and node 6 not even so."""
    published = [[ONE, 0, -ONE, 0, 0, 0, 0, 0]]
    for num_rounds in (200, 300):
        found = gj.audit(
            rounds(T.ring(8), num_rounds),
            observers=[privacy.Wire(((0, 3),))],
            published=np.asarray(published, float),
        )
        exact = np.asarray(projector_of_published(num_rounds, published, 8))
        np.testing.assert_array_equal(found.mu[0], exact > 0)


def test_published_sums_of_large_numbers_keep_their_rank():
    """Weights above 10⁶ count as they are stored: the third sum is that of the first two."""
    m = [1_200_003, 3_400_001, 2_700_007, 5_100_019]
    first, second = [0, m[1], m[2], 0], [0, m[1], 0, m[3]]
    published = [[Fraction(value) for value in row] for row in (first, second, np.add(first, second).tolist())]
    found = gj.audit(tl.rounds(np.eye(4), 1), observers=[0], published=np.asarray(published, float))
    assert found.certain[0]
    assert not found.reconstructed.any()
    np.testing.assert_allclose(found.mu[0, 1:] ** 2, known_from(published).squared_parts[1:], **EXACT)


def test_a_weight_that_is_nearly_nothing_is_heard():
    """Of two sums, one tells of node 1 at 1e-300 of node 0, and the other not at all."""
    found = gj.audit(tl.rounds(np.eye(3), 1), observers=[2], published=[[1e300, 1e-300, 0], [1e300, 0, 0]])
    assert found.num_reconstructed[0, :2].tolist() == [1, 1]
    np.testing.assert_array_equal(found.mu[0, :2], 1)


def test_links_that_a_plan_never_uses_are_named():
    taps = [privacy.Wire(((0, 3), (0, 1))), privacy.Wire(((1, 0),))]
    found = gj.audit(rounds(T.ring(6), 2), observers=taps)
    assert found.observers == ("2 links, of which the plan never uses 0→3", "1 links")
    assert "never uses 0→3" in found.statement(0, 1, 1e-5)


def test_noise_of_pairs_in_any_unit():
    plan, graph = rounds(T.ring(6), 3), T.ring(6)
    for std, pair, same in ((1e200, 1.0, 0.0), (1e-200, 1e-200, 1.0), (1e200, 1e200, 1.0)):
        found = gj.audit(plan, STEPS, noise=privacy.pairwise_noise(graph, std, pair)).mu * std
        exact = gj.audit(plan, STEPS, noise=privacy.pairwise_noise(graph, 1.0, same)).mu
        np.testing.assert_allclose(found, exact, rtol=1e-9)
    with pytest.raises(ValueError, match="at most 1e8 times std"):
        gj.audit(plan, noise=privacy.pairwise_noise(graph, 1e-200, 1.0))


def test_tables_and_pictures():
    plan = rounds(T.path(4), 3)
    found = gj.audit(plan, STEPS, prefixes=[1, 2, 3], observers=[0, (1, 2)])
    table = found.table(delta=1e-5)
    assert len(table) == 3 + 2
    assert table.query("observer == '0'").hops.tolist() == [1, 2, 3]
    np.testing.assert_allclose(table.mu, found.mu[~np.isnan(found.mu)])
    np.testing.assert_array_equal(np.isnan(found.epsilon(1e-5)), np.isnan(found.mu))
    said = found.statement(0, 3, 1e-5)
    for word in ("1e-05", "unit", "relation", "adversary", "all steps of one node"):
        assert word in said
    assert "nothing is hidden" in found.statement(1, 2, 1e-5)
    axes = found.picture().axes
    np.testing.assert_array_equal(np.ma.filled(axes[0].images[0].get_array(), NAN), found.mu)
    assert len(axes[2].lines) == 3
    wire = gj.audit(plan, observers=[privacy.Wire()])
    assert "local bound 1" in repr(wire)
    assert wire.picture().axes[1].texts


REFUSED = [
    ({"observers": [4]}, "nodes 0 … 3"),
    ({"observers": [()]}, "at least one"),
    ({"observers": []}, "at least one"),
    ({"noise": 0.0}, "noise"),
    ({"noise": privacy.pairwise_noise(T.ring(5), 1.0, 1.0)}, "same graph"),
    ({"sensitivity": -1.0}, "sensitivity"),
    ({"rounding": -1.0}, "rounding"),
    ({"prefixes": [2, 1]}, "increasing"),
    ({"prefixes": [9]}, "prefixes"),
    ({"published": np.ones((1, 3))}, "published"),
    ({"hears": "sums", "observers": [privacy.Wire()]}, "Wire"),
    ({"observers": [privacy.Wire(())]}, "links"),
    ({"observers": [privacy.Wire(5)]}, "receiver"),
    ({"observers": [privacy.Wire((0, 1))]}, "receiver"),
    ({"observers": [privacy.Wire(((0, 1, 2),))]}, "receiver"),
    ({"observers": [privacy.Wire(((0, 4),))]}, "nodes 0 … 3"),
    ({"observers": [privacy.Wire(((0, 1), (2, 2)))]}, r"links\[1\]=\(2, 2\): a node sends nothing to itself"),
]


@pytest.mark.parametrize(("words", "message"), REFUSED)
def test_what_is_refused(words, message):
    with pytest.raises(ValueError, match=message):
        gj.audit(rounds(T.path(4), 3), **words)


def test_plans_that_are_refused():
    with pytest.raises(ValueError, match="model rows"):
        gj.audit(tl.client_sampling(6, 3, 2, seed=0))
    pairs = meetings([(0, 1)], 3)
    with pytest.raises(ValueError, match="sum over a neighbourhood"):
        gj.audit(pairs, hears="sums")
    group = {"time": np.zeros(1), "nodes": np.full((1, 1), gj.types.NOBODY), "members": np.asarray([[[0, 1]]])}
    group |= {"weights": np.full((1, 1, 2), 0.5), "targets": np.asarray([[[0, 1]]])}
    with pytest.raises(ValueError, match="who computes it"):
        gj.audit(tl.from_events(group, gj.Properties(2, 2, "a group")))
    with pytest.raises(TypeError, match="contributions"):
        gj.audit(pairs, 3)
    for key in (0, jax.random.split(KEY, 2)):
        with pytest.raises(TypeError, match="key"):
            gj.audit(pairs, key=key)
    for words in ({"momentum": 1.0}, {"local_steps": 0}, {"step_sizes": [0.0]}, {"step_sizes": [1.0, 1e-11]}):
        with pytest.raises(ValueError, match=next(iter(words))):
            privacy.steps(**words)
    with pytest.raises(ValueError, match="directed"):
        privacy.pairwise_noise(T.exponential(8), 1.0, 1.0)
