"""Rounds on a graph that changes: overlays, absent nodes, lost messages, and what is said of their matrices."""

import inspect
import tracemalloc

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.tree_util import Partial
from problems import X0, N, exact_quadratic
from scipy import stats

import gossipjax as gj
from gossipjax import topology as tp
from gossipjax.mixing import column_stochastic, metropolis, uniform
from gossipjax.testing import relabel_timeline
from gossipjax.timeline import activity, changing_rounds, losses, overlays
from theory import mixing as theory

KEY = jax.random.key(0)
RULES = {"metropolis": metropolis, "uniform": uniform, "push": column_stochastic}


def event_at(plan, t):
    return plan.event(KEY, plan.shared, jax.tree.map(lambda leaf: jnp.asarray(leaf[t]), plan.xs))


def matrix_at(plan, t):
    return np.asarray(gj.mixing.to_dense(event_at(plan, t).mixing, plan.properties.num_rows))


def induced(graph, active):
    """The same nodes, and the edges between active ones."""
    both = active[graph.senders] & active[graph.receivers]
    return tp.Topology(graph.num_nodes, graph.senders[both], graph.receivers[both], graph.directed, "induced")


# --- overlays ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "degree", "seed"), [(12, 2, 7), (16, 4, 90), (9, 8, 3)])
def test_graphs_of_decentralizepy_are_replayed(n, degree, seed):
    """As its PeerSamplerDynamic makes them: a set of neighbours for each node, and a ring where they fall apart."""
    overlay, apart = overlays.decentralizepy_regular(n, degree, seed=seed), 0
    for t in range(12):
        graph = nx.random_regular_graph(degree, n, seed=seed * 100000 + t)
        lists = [set(graph[node]) for node in range(n)]
        if not nx.is_connected(graph):
            apart += 1
            for node in range(n):
                lists[node] |= {(node + 1) % n, (node - 1) % n}
        replayed = overlay.graph(t)
        assert [set(replayed.neighbors(node).tolist()) for node in range(n)] == lists
    assert (apart > 0) == (degree == 2)


@pytest.mark.parametrize(
    "overlay",
    [
        overlays.regular(10, 3, seed=1),
        overlays.decentralizepy_regular(10, 3, seed=1),
        overlays.epidemic(10, 2, seed=1),
        overlays.epidemic(10, 4, seed=1, variant="oracle"),
        overlays.matchings(10, seed=1),
        overlays.matchings(tp.ring(10), seed=1),
    ],
    ids=lambda overlay: overlay.name,
)
def test_rounds_are_fresh_and_repeat(overlay):
    again = [overlay.graph(t) for t in (3, 0, 3)]
    assert again[0].same_edges(again[2])
    assert not again[0].same_edges(again[1])
    rule = "uniform" if again[0].directed else "metropolis"
    short, long = (changing_rounds(overlay, rounds, weights=rule) for rounds in (3, 9))
    for t in range(3):
        assert np.array_equal(matrix_at(short, t), matrix_at(long, t))
        np.testing.assert_allclose(matrix_at(short, t), RULES[rule](overlay.graph(t)).toarray(), atol=1e-15)


def test_regular_rounds_are_uniform_on_a_small_case():
    # As for topology.random_regular: of the 3-regular graphs on 6 nodes a seventh are bipartite; standard error 0.0143.
    overlay = overlays.regular(6, 3, seed=5)
    share = np.mean([nx.is_bipartite(overlay.graph(t).to_networkx()) for t in range(600)])
    assert abs(share - 1 / 7) < 4 * 0.0143


@pytest.mark.parametrize(("n", "fanout"), [(40, 3), (9, 7)])
def test_recipients_of_el_local_are_uniform(n, fanout):
    overlay = overlays.epidemic(n, fanout, seed=2)
    graphs = [overlay.graph(t) for t in range(200)]
    assert all((graph.out_degrees == fanout).all() for graph in graphs)
    received = np.bincount(np.concatenate([graph.in_degrees for graph in graphs]), minlength=n)
    expected = stats.binom.pmf(np.arange(n), n - 1, fanout / (n - 1)) * received.sum()
    tail = np.searchsorted(-np.cumsum(expected[::-1])[::-1], -5.0, side="right")  # at least five expected in each class
    classes = [np.append(counts[: tail - 1], counts[tail - 1 :].sum()) for counts in (received, expected)]
    first = int(np.argmax(np.cumsum(classes[1]) >= 5.0))
    classes = [np.append(counts[: first + 1].sum(), counts[first + 1 :]) for counts in classes]
    # Degrees of one round are a little dependent (they sum to n s), which makes the statistic smaller, not larger.
    assert stats.chisquare(*classes).pvalue > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["local", "oracle"])
def test_one_round_of_epidemic_learning_contracts_as_predicted(variant):
    """The expected squared distance to the old mean, over 2,000 rounds from one start."""
    n, s, rounds = 24, 4, 2000
    x = np.random.default_rng(0).standard_normal(n)
    x -= x.mean()
    plan = changing_rounds(overlays.epidemic(n, s, seed=3, variant=variant), rounds, weights="uniform")
    mixed = jax.jit(jax.vmap(lambda each: gj.mixing.mix(plan.event(KEY, plan.shared, each).mixing, jnp.asarray(x))))
    factors = np.sum(np.asarray(mixed(plan.xs)) ** 2, axis=1) / np.sum(x**2)
    error = factors.std(ddof=1) / np.sqrt(rounds)
    assert abs(factors.mean() - theory.epidemic_factor(n, s, variant == "local")) < 4 * error


def test_sequences_are_used_in_turn():
    graphs = [tp.ring(5), tp.star(5), tp.complete(5)]
    plan = changing_rounds(graphs, 7)
    for t in range(7):
        np.testing.assert_allclose(matrix_at(plan, t), metropolis(graphs[t % 3]).toarray(), atol=1e-15)
    reference = gj.timeline.rounds([metropolis(graph) for graph in graphs], 7)
    x0 = jnp.arange(10.0).reshape(5, 2)
    ends = [gj.simulate(KEY, gj.gossip_averaging(), each, x0, progress=False).x for each in (plan, reference)]
    np.testing.assert_allclose(*ends, rtol=1e-13)


# --- who takes part ---------------------------------------------------------------------------------------------------


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 99), st.sampled_from(sorted(RULES)), st.booleans(), st.booleans())
def test_rounds_with_absences_and_losses_have_the_stated_matrices(seed, rule, absent, both_ways):
    """Against a loop over edges, for random tables of absences and losses."""
    rng, n, rounds = np.random.default_rng(seed), 7, 3
    graphs = [tp.erdos_renyi(n, 0.6, seed=seed + k, tries=99) for k in range(rounds)]
    present = rng.random((rounds, n)) < 0.7 if absent else np.ones((rounds, n), bool)
    loss = losses.independent(0.4, seed=seed, both_ways=both_ways)
    plan = changing_rounds(graphs, rounds, weights=rule, loss=loss, activity=activity.listed(present))
    clear = changing_rounds(graphs, rounds, weights=rule, activity=activity.listed(present))
    for t, graph in enumerate(graphs):
        among = induced(graph, present[t])
        np.testing.assert_allclose(matrix_at(clear, t), RULES[rule](among).toarray(), atol=1e-15)
        W, full = matrix_at(plan, t), RULES[rule](among).toarray()
        arrived = (W != 0) & ~np.eye(n, dtype=bool)
        expected = np.zeros((n, n))
        for j, i in zip(among.senders, among.receivers, strict=True):
            if arrived[i, j]:
                expected[i, j] = 1 / (1 + arrived[i].sum()) if rule == "uniform" else full[i, j]
        expected += np.diag(full.diagonal() if rule == "push" else 1 - expected.sum(1))
        np.testing.assert_allclose(W, expected, atol=1e-15)
        assert (arrived == arrived.T).all() or not both_ways
        assert event_at(plan, t).messages.tolist() == among.out_degrees.tolist()  # what is lost was sent
        acting = event_at(plan, t).nodes
        assert set(np.asarray(acting)[np.asarray(acting) < n].tolist()) == set(np.flatnonzero(present[t]).tolist())


def facts_of(**options):
    overlay = options.pop("overlay", overlays.regular(8, 4, seed=0))
    plan = changing_rounds(overlay, 6, **options)
    assert ("one_graph" in plan.properties) == isinstance(overlay, tp.Topology)
    for t in range(6):
        W, facts = matrix_at(plan, t), plan.properties
        assert "row_stochastic" not in facts or np.allclose(W.sum(1), 1, atol=1e-14)
        assert "column_stochastic" not in facts or np.allclose(W.sum(0), 1, atol=1e-14)
        assert "symmetric" not in facts or np.allclose(W, W.T, atol=1e-14)
    return plan.properties.tags - {"own_rows", "one_graph"}


STOCHASTIC = {"row_stochastic", "column_stochastic", "doubly_stochastic"}
WHOLE = STOCHASTIC | {"symmetric"}


@pytest.mark.parametrize(
    ("options", "tags"),
    [
        ({}, WHOLE | {"synchronous"}),
        ({"overlay": tp.star(8)}, WHOLE | {"synchronous"}),
        ({"weights": "uniform"}, WHOLE | {"synchronous"}),
        ({"weights": "push"}, WHOLE | {"synchronous"}),
        ({"weights": "uniform", "overlay": tp.star(8)}, {"row_stochastic", "synchronous"}),
        ({"weights": "push", "overlay": tp.star(8)}, {"column_stochastic", "synchronous"}),
        ({"weights": "uniform", "overlay": tp.exponential(8)}, STOCHASTIC | {"synchronous"}),
        ({"weights": "uniform", "overlay": overlays.epidemic(8, 2, seed=0)}, {"row_stochastic", "synchronous"}),
        ({"loss": losses.independent(0.3, seed=0)}, {"row_stochastic", "synchronous"}),
        ({"loss": losses.independent(0.0, seed=0)}, {"row_stochastic", "synchronous"}),
        ({"loss": losses.independent(0.3, seed=0, both_ways=True)}, WHOLE | {"synchronous"}),
        ({"loss": losses.gilbert(3, 2, seed=0, both_ways=True)}, WHOLE | {"synchronous"}),
        (
            {"loss": losses.independent(0.3, seed=0, both_ways=True), "weights": "uniform"},
            {"row_stochastic", "synchronous"},
        ),
        ({"loss": losses.independent(0.3, seed=0), "weights": "push"}, {"synchronous"}),
        ({"activity": activity.bernoulli(0.6, seed=0)}, WHOLE),
        ({"activity": activity.bernoulli(0.6, seed=0), "weights": "uniform"}, {"row_stochastic"}),
        ({"activity": activity.bernoulli(0.6, seed=0), "newcomers_adopt": True}, {"row_stochastic"}),
    ],
)  # fmt: skip
def test_facts_are_those_of_the_matrices(options, tags):
    assert facts_of(**options) == tags


def test_absent_nodes_neither_train_nor_mix():
    task, graph = exact_quadratic(), tp.complete(N)
    plan = changing_rounds(graph, 6, activity=activity.presence(np.arange(N) // 2, np.full(N, 4)))
    protocol = gj.dpsgd(task, Partial(optax.sgd, 0.1))
    run = gj.simulate(
        KEY, protocol, plan, jnp.asarray(X0), observers=[gj.observe.models()], record_every=1, progress=False
    )
    models = np.asarray(run["model"])
    for t in range(6):
        here = (np.arange(N) // 2 <= t) & (t < 4)
        assert ((models[t + 1] == models[t]).all(axis=1) == ~here).all()
    sent = np.diff(np.asarray(run["messages_sent"]))
    assert sent.tolist() == [m * (m - 1) for m in (2, 4, 6, 8, 0, 0)]


def test_newcomers_take_the_mean_of_what_they_receive():
    joins = np.array([0, 0, 0, 2, 2])
    plan = changing_rounds(tp.star(5), 4, activity=activity.presence(joins), newcomers_adopt=True)
    np.testing.assert_array_equal(matrix_at(plan, 0), matrix_at(plan, 1))  # who is there from the start is no newcomer
    np.testing.assert_array_equal(matrix_at(plan, 2)[3:], np.eye(5)[[0, 0]])
    np.testing.assert_allclose(matrix_at(plan, 3), metropolis(tp.star(5)).toarray(), atol=1e-15)
    deaf = changing_rounds(
        tp.star(5), 4, activity=activity.presence(joins), newcomers_adopt=True, loss=losses.independent(1.0, seed=0)
    )
    np.testing.assert_array_equal(matrix_at(deaf, 2), np.eye(5))


def test_activities_have_their_laws():
    active = activity.active_rounds(activity.bernoulli(np.array([0.2, 0.5, 1.0]), seed=0), 4000, 3)
    assert (np.abs(active.mean(0) - [0.2, 0.5, 1.0]) <= 4 * np.sqrt([0.16 / 4000, 0.25 / 4000, 0.0])).all()
    active = activity.active_rounds(activity.markov(6.0, 3.0, seed=0), 2000, 40)
    # Stationary share 2/3; the correlation of two rounds is 1 − 1/6 − 1/3 = 1/2, so that the variance of a mean over T
    # rounds is (2/9)/T · (1 + ½)/(1 − ½).
    assert abs(active.mean() - 2 / 3) < 4 * np.sqrt(2 / 9 * 3 / 80_000)
    assert abs(active[0].mean() - 2 / 3) < 4 * np.sqrt(2 / 9 / 40)
    for state, mean in ((True, 6.0), (False, 3.0)):
        lengths = np.concatenate([stretches(column == state) for column in active.T])
        assert abs(lengths.mean() - mean) < 4 * np.sqrt(mean * (mean - 1) / lengths.size)
    turns = activity.active_rounds(activity.cyclic(3), 7, 5)
    assert all(
        (np.flatnonzero(row) % 3 == t % 3).all() and row.sum() == (2 - (t % 3 == 2)) for t, row in enumerate(turns)
    )
    joins, leaves = np.array([0, 2, 3]), np.array([4, 2, 9])
    there = activity.active_rounds(activity.presence(joins, leaves), 5, 3)
    assert there.T.astype(int).tolist() == [[1, 1, 1, 1, 0], [0] * 5, [0, 0, 0, 1, 1]]


def test_gaps_of_poisson_activity_are_poisson_from_the_start_on():
    gap, rounds, n = 2.5, 400, 3000
    active = activity.active_rounds(activity.poisson_gaps(gap, seed=0), rounds, n)
    share = 1 / (1 + gap)
    assert (np.abs(active[:8].mean(1) - share) < 4 * np.sqrt(share * (1 - share) / n)).all()
    gaps = np.concatenate([np.diff(np.flatnonzero(column)) - 1 for column in active[:, :300].T])
    counts = np.bincount(gaps, minlength=9)
    counts = np.append(counts[:8], counts[8:].sum())
    law = np.append(stats.poisson.pmf(np.arange(8), gap), stats.poisson.sf(7, gap))
    assert stats.chisquare(counts, law * counts.sum()).pvalue > 1e-4
    # The first active round is round r as often as an active round is followed by a gap of r or more.
    first = np.bincount(active[:12].argmax(0)[active[:12].any(0)], minlength=6)[:6]
    expected = n * share * stats.poisson.sf(np.arange(6) - 1, gap)
    assert (np.abs(first - expected) < 4 * np.sqrt(expected)).all()


def stretches(on):
    """Lengths of the whole stretches in which a sequence of bools is true."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], on.astype(int), [0]])))
    begins, ends = edges[::2], edges[1::2]
    inside = (begins > 0) & (ends < on.size)
    return (ends - begins)[inside]


# --- lost messages ----------------------------------------------------------------------------------------------------


def lost_in(loss, graph, rounds):
    ends = [(graph.senders, graph.receivers)] * rounds
    return np.stack(list(losses.lost_messages(loss, ends, graph.num_nodes)))


def test_losses_are_independent_or_come_in_bursts():
    graph = tp.complete(8)
    lost = lost_in(losses.independent(0.2, seed=0), graph, 500)
    assert abs(lost.mean() - 0.2) < 4 * np.sqrt(0.16 / lost.size)
    lost = lost_in(losses.gilbert(8.0, 4.0, seed=1), graph, 1500)
    # Bad with probability 1/3; rounds correlate by 1 − 1/8 − 1/4 = 5/8, which widens the variance by (13/8)/(3/8).
    assert abs(lost.mean() - 1 / 3) < 4 * np.sqrt(2 / 9 * (13 / 3) / lost.size)
    for state, mean in ((True, 4.0), (False, 8.0)):
        lengths = np.concatenate([stretches(column == state) for column in lost.T])
        assert abs(lengths.mean() - mean) < 4 * np.sqrt(mean * (mean - 1) / lengths.size)
    elliott = lost_in(losses.gilbert(8.0, 4.0, loss_good=0.1, loss_bad=0.7, seed=2), graph, 1500)
    assert abs(elliott.mean() - 0.3) < 4 * np.sqrt(0.25 * (13 / 3) / elliott.size)  # the variance is at most ¼


def test_bursts_go_on_while_a_link_is_not_used():
    """Used every third round, a link's fates correlate by decay³ = (1 − 1/8 − 1/8)³, as if used in all."""
    graph, empty = tp.complete(12), np.zeros(0, np.int64)
    ends = [(graph.senders, graph.receivers) if t % 3 == 0 else (empty, empty) for t in range(1800)]
    fates = losses.lost_messages(losses.gilbert(8.0, 8.0, seed=3), ends, 12)
    lost = np.stack([each for each in fates if each.size]) - 0.5
    decay = 0.75**3
    products = 4 * lost[1:] * lost[:-1]
    # A product of ±1 of variance 1 − decay²; products of one chain are uncorrelated for a symmetric chain.
    assert abs(products.mean() - decay) < 4 * np.sqrt((1 - decay**2) / products.size)


def test_both_messages_of_a_pair_are_lost_together():
    graph = tp.random_regular(10, 4, seed=0)
    for loss in (losses.independent(0.3, seed=0, both_ways=True), losses.gilbert(3, 2, seed=0, both_ways=True)):
        lost = lost_in(loss, graph, 60)
        for row in lost:
            pairs = {(j, i): gone for j, i, gone in zip(graph.senders, graph.receivers, row, strict=True)}
            assert all(pairs[j, i] == pairs[i, j] for j, i in pairs)
        assert 0.2 < lost.mean() < 0.5  # 0.3 and 0.4, by far more than the noise of 1,200 pairs


# --- size, files, order -----------------------------------------------------------------------------------------------


def test_a_plan_holds_two_bytes_a_neighbour_and_no_matrix():
    n, degree, rounds = 1024, 4, 30
    tracemalloc.start()
    plan = changing_rounds(overlays.regular(n, degree, seed=0), rounds)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sum(leaf.nbytes for leaf in jax.tree.leaves(plan.xs)) == rounds * (2 * n * degree + 4)
    assert peak < 4 * n * n  # less than one dense matrix of float32
    assert changing_rounds(overlays.matchings(20_000, seed=0), 1).xs["links"].dtype == np.int32


@pytest.mark.exact
@pytest.mark.parametrize(
    "options",
    [
        {"activity": activity.markov(3, 2, seed=0), "newcomers_adopt": True, "loss": losses.gilbert(4, 2, seed=1)},
        {"weights": "push", "loss": losses.independent(0.2, seed=0)},
    ],
)
def test_plans_are_saved_and_renumbered(tmp_path, options):
    plan = changing_rounds(overlays.regular(8, 4, seed=4), 9, **options)
    loaded = gj.timeline.load(gj.timeline.save(plan, tmp_path / "plan.npz"))
    new = np.random.default_rng(0).permutation(8)
    renamed = relabel_timeline(plan, new)
    for t in range(9):
        assert np.array_equal(matrix_at(loaded, t), matrix_at(plan, t))
        np.testing.assert_allclose(matrix_at(renamed, t)[np.ix_(new, new)], matrix_at(plan, t), atol=1e-15)
    wrong = gj.Timeline(plan.xs | {"links": plan.xs["links"] + 8}, plan.shared, plan.event, plan.properties)
    path = gj.timeline.save(wrong, tmp_path / "wrong.npz")
    with pytest.raises(ValueError, match="links names"):
        gj.timeline.load(path)


@pytest.mark.exact
def test_a_run_with_absences_goes_on_in_a_longer_plan():
    """The programs of both plans are equal, however many nodes are active at most."""

    def plan(length):
        off = activity.bernoulli(0.3, seed=1)
        return changing_rounds(overlays.regular(N, 2, seed=0), length, activity=off)

    key, protocol = jax.random.key(0), gj.gossip_averaging()
    x0 = jnp.asarray(X0)
    first = gj.simulate(key, protocol, plan(3), x0)
    after, whole = gj.simulate(key, protocol, plan(20), first), gj.simulate(key, protocol, plan(20), x0)
    np.testing.assert_array_equal(after.x, whole.x)


def test_runs_are_repeated_from_their_files(tmp_path):
    cliques = tp.d_cliques(np.eye(3)[[0, 0, 1, 1, 2, 2]], 3, seed=0)
    for overlay, name in ((cliques.topology, "cliques"), (overlays.epidemic(6, 2, seed=0, variant="oracle"), "fresh")):
        plan = changing_rounds(
            overlay,
            5,
            activity=activity.bernoulli(0.8, seed=1),
            loss=losses.gilbert(3, 2, seed=2),
            newcomers_adopt=True,
        )
        x0 = jnp.arange(12.0).reshape(6, 2)
        run = gj.simulate(KEY, gj.gossip_averaging(), plan, x0, progress=False)
        again = gj.repeat(run.save(tmp_path / f"{name}.nc"))
        np.testing.assert_array_equal(again.x, run.x)


# --- errors -----------------------------------------------------------------------------------------------------------


def _other_sizes(t):
    return tp.ring(4 + t)


def _no_graph(t):
    return nx.path_graph(4)


def _two_rounds(num_rounds, num_nodes):
    return np.ones((2, num_nodes), bool)


def _too_few(links):
    return (np.zeros(1, bool) for _ in links)


def _nothing(links):
    return iter([])


def _ends_early(links):
    return (np.zeros(next(links).size, bool) for _ in range(2))


def _too_many(links):
    for codes in links:
        yield np.zeros(codes.size, bool)
    yield np.zeros(8, bool)


def _blind(links):
    return iter([np.zeros(8, bool)] * 3)


def _numbers(links):
    return (np.zeros(codes.size) for codes in links)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: changing_rounds(tp.exponential(4), 3), r"overlay: exponential\(4\), round 0, is directed.*'uniform'"),
        (lambda: changing_rounds(tp.ring(4), 0), "num_rounds=0"),
        (lambda: changing_rounds([], 3), "overlay: 0 graphs"),
        (lambda: changing_rounds([tp.ring(3), tp.ring(4)], 3), r"2 graphs of \[3, 4\] nodes"),
        (lambda: changing_rounds(overlays.Overlay(4, _other_sizes, "x"), 3), "round 1 of x has 5 nodes, not 4"),
        (lambda: changing_rounds(tp.ring(4), 3, newcomers_adopt=True), "newcomers_adopt=True.*pass activity"),
        (lambda: changing_rounds(tp.ring(4), 3, activity=activity.presence(np.array([0]))), "joins of shape.*4 nodes"),
        (lambda: changing_rounds(tp.ring(4), 3, activity=activity.Activity(_two_rounds, "x")), "activity=x.*3, 4"),
        (lambda: changing_rounds(tp.ring(4), 3, loss=losses.Loss(_too_few, False, "x")), "loss=x.*a bool for each"),
        (lambda: activity.bernoulli(0.0, seed=0), "probability=0"),
        (lambda: activity.markov(0.5, 2, seed=0), "mean_on=0.5"),
        (lambda: activity.poisson_gaps(0.0, seed=0), "mean_gap=0.0"),
        (lambda: activity.cyclic(0), "num_groups=0"),
        (lambda: activity.presence(np.array([3]), np.array([2])), r"leaves\[0\]=2: node 0 leaves before it joins"),
        (lambda: activity.listed(np.ones((2, 0), bool)), "active="),
        (lambda: losses.independent(1.5, seed=0), "probability=1.5"),
        (lambda: losses.gilbert(3, 0.5, seed=0), "mean_bad=0.5"),
        (lambda: losses.gilbert(3, 5, loss_bad=2, seed=0), "loss_bad=2"),
        (lambda: overlays.regular(5, 3, seed=0), "num_nodes=5, degree=3: their product must be even"),
        (lambda: overlays.epidemic(5, 5, seed=0), "fanout=5"),
        (lambda: overlays.epidemic(5, 3, seed=0, variant="oracle"), "fanout=3: their product"),
        (lambda: overlays.matchings(tp.exponential(5), seed=0), "is directed"),
        (lambda: overlays.decentralizepy_regular(4, 4, seed=0), "degree=4"),
    ],
)  # fmt: skip
def test_what_cannot_be_planned_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize(
    ("fates", "message"),
    [
        (_nothing, "loss=x: fates yielded 0 rounds of 3; read"),
        (_ends_early, "yielded 2 rounds of 3; .*yield one array per round"),
        (_too_many, "yielded 4 rounds of 3"),
        (_blind, "yielded 1 rounds of 3"),
        (_numbers, "loss=x: fates yielded array.*a bool for each"),
    ],
)
def test_fates_that_do_not_fit_the_rounds_are_refused(fates, message):
    with pytest.raises(ValueError, match=message):
        changing_rounds(tp.ring(4), 3, loss=losses.Loss(fates, False, "x"))


def test_things_of_the_wrong_sort():
    plan = inspect.unwrap(changing_rounds)
    for build, message in (
        (lambda: plan(5, 3), "overlay=5: must be an Overlay"),
        (lambda: plan([tp.ring(3), 4], 3), r"overlay\[1\]=4: must be a Topology"),
        (lambda: plan(tp.ring(4), 3, activity=0.5), "activity=0.5: must be an Activity"),
        (lambda: plan(tp.ring(4), 3, loss=0.5), "loss=0.5: must be a Loss"),
        (lambda: plan(overlays.Overlay(4, _no_graph, "x"), 3), r"overlay.graph\(0\)=.*must be a Topology"),
    ):
        with pytest.raises(TypeError, match=message):
            build()
