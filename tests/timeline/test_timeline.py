"""Plans: who meets whom and when."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp
from scipy import stats

from gossipjax import Timeline
from gossipjax.mixing import averaging, metropolis, to_dense, uniform
from gossipjax.timeline import (
    _rounds,
    client_sampling,
    matching_rounds,
    poisson_edges,
    poisson_pairs,
    poisson_push,
    rounds,
)
from gossipjax.topology import barabasi_albert, from_networkx, one_peer_exponential, path, random_regular, ring, star

KEY = jax.random.key(0)
GRAPH = barabasi_albert(10, 2, seed=3)


def event_at(timeline, t):
    return timeline.event(KEY, timeline.shared, jax.tree.map(lambda leaf: jnp.asarray(leaf[t]), timeline.xs))


def matrix_at(timeline, t):
    return np.asarray(to_dense(event_at(timeline, t).mixing, timeline.properties.num_rows))


def neighbours(topology):
    A = np.zeros((topology.num_nodes,) * 2, bool)
    A[topology.senders, topology.receivers] = True
    return A


# --- rounds -----------------------------------------------------------------------------------------------------------


def test_rounds_use_the_right_matrix_of_a_cycle():
    matrices = [uniform(topology).toarray() for topology in one_peer_exponential(8)]
    timeline = rounds(matrices, 7, seconds_per_round=2.0)
    for t in range(7):
        np.testing.assert_allclose(matrix_at(timeline, t), matrices[t % 3], rtol=1e-15)
        event = event_at(timeline, t)
        assert (int(event.index[0]), float(event.time[0])) == (t, 2.0 * (t + 1))
    facts = timeline.properties
    assert facts.tags >= {"doubly_stochastic", "synchronous"}
    assert facts.tags.isdisjoint({"fixed", "symmetric"})


def test_rounds_state_the_facts_of_their_matrix():
    W = metropolis(GRAPH)
    facts = rounds(W, 3).properties
    assert "fixed" in facts
    assert "symmetric" in facts
    assert "doubly_stochastic" in facts
    assert facts.min_eigenvalue == pytest.approx(np.linalg.eigvalsh(W.toarray())[0], abs=1e-12)
    push = rounds(uniform(star(5)), 3).properties
    assert push.tags.isdisjoint({"symmetric", "doubly_stochastic"})
    assert push.min_eigenvalue is None


@pytest.mark.parametrize("n", [999, 20_000, 20_001])
def test_the_smallest_eigenvalue_of_a_long_ring_is_found_in_time(n):
    """Eigenvalues of a ring are 1/3 + 2/3 cos(2πk/n); those next to the smallest differ by 1e-7 and less."""
    facts = rounds(metropolis(ring(n)), 1).properties
    smallest = (1 + 2 * np.cos(2 * np.pi * (n // 2) / n)) / 3
    assert facts.min_eigenvalue == pytest.approx(smallest, abs=1e-9)  # tol = 1e-6 of the distance to the shift


def test_the_smallest_eigenvalue_of_a_large_random_graph_is_found_without_factors():
    """Factors of a random graph fill up: 10⁴ nodes would take 700 MB. It is not held against another value here."""
    W = metropolis(random_regular(20_000, 4, seed=0))
    assert _rounds._bandwidth(sp.csc_array(W)) * 20_000 > _rounds._FACTOR_ENTRIES
    assert -0.5 < rounds(W, 1).properties.min_eigenvalue < -0.49  # limit of large graphs: (1 − 2√3)/5


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("number", [1, 150])
def test_the_smallest_eigenvalue_of_few_different_ones_is_found(size, number):
    """Averages in disjoint groups, and nodes on their own: all eigenvalues are 0 or 1."""
    alone = np.eye(620 - size * number)
    groups = [np.full((size, size), 1 / size)] * number
    facts = rounds(sp.block_diag([*groups, alone], format="csr"), 1).properties
    assert facts.min_eigenvalue == pytest.approx(0, abs=1e-10)


def test_static_parts_do_not_travel_per_event():
    """T rounds on a fixed matrix cost T numbers of 4 bytes; a matching costs its partners."""
    timeline = rounds(metropolis(ring(100)), 50)
    assert sum(leaf.nbytes for leaf in jax.tree.leaves(timeline.xs)) == 50 * 4
    assert sum(leaf.nbytes for leaf in jax.tree.leaves(matching_rounds(100, 50, seed=0).xs)) == 50 * 4 * (1 + 100)


def test_a_part_of_a_timeline_keeps_its_numbers():
    timeline = rounds(metropolis(ring(4)), 10)[3:6]
    assert len(timeline) == 3
    assert int(event_at(timeline, 0).index[0]) == 3
    with pytest.raises(TypeError, match="cut by slices"):
        inspect.unwrap(Timeline.__getitem__)(timeline, 3)  # the checked annotation would refuse it first


@pytest.mark.parametrize("n", [6, 7])
def test_matchings_are_perfect(n):
    timeline = matching_rounds(n, 40, seed=1)
    for t in range(40):
        partner = timeline.xs["partner"][t]
        np.testing.assert_array_equal(partner[partner], np.arange(n))
        assert np.sum(partner == np.arange(n)) == n % 2
    W = matrix_at(timeline, 0)
    np.testing.assert_array_equal(W, W.T)
    np.testing.assert_array_equal(W.sum(0), np.ones(n))
    assert set(np.unique(W)) <= {0.0, 0.5, 1.0}


def test_matchings_are_uniform():
    """K_4 has three perfect matchings: the partner of node 0 is each of the others in a third of the rounds."""
    partner = matching_rounds(4, 3000, seed=2).xs["partner"][:, 0]
    assert stats.chisquare(np.bincount(partner, minlength=4)[1:]).pvalue > 1e-4


# --- Poisson clocks ---------------------------------------------------------------------------------------------------


def test_poisson_counts_have_the_right_mean():
    """The number of events in 5 s of 10 nodes at rate 2 is Poisson(100)."""
    counts = np.asarray([len(poisson_pairs(GRAPH, duration=5.0, rate=2.0, seed=seed)) for seed in range(200)])
    assert abs(counts.mean() - 100) / np.sqrt(100 / 200) < 4
    # The variance of a Poisson count equals its mean; its estimate has standard error λ sqrt(2 / samples) nearly.
    assert abs(counts.var(ddof=1) - 100) / (100 * np.sqrt(2 / 199)) < 4


@pytest.mark.parametrize(("builder", "clocks"), [(poisson_pairs, 10), (poisson_push, 10), (poisson_edges, 16)])
def test_poisson_times(builder, clocks):
    """Gaps are exponential with the rate of all clocks together; times never decrease, and end before the duration."""
    assert GRAPH.senders.size == 2 * 16
    gaps = np.diff(builder(GRAPH, 4000, rate=0.5, seed=3).xs["time"].astype(float), prepend=0.0)
    assert (gaps >= 0).all()
    assert abs(gaps.mean() * clocks * 0.5 - 1) * np.sqrt(4000) < 4
    assert stats.kstest(gaps * clocks * 0.5, "expon").pvalue > 1e-4
    by_duration = builder(GRAPH, duration=3.0, seed=3).xs["time"]
    assert (np.diff(by_duration) >= 0).all()
    assert 0 < by_duration[0]
    assert by_duration[-1] < 3.0


def test_partners_are_uniform_over_neighbours():
    timeline = poisson_pairs(GRAPH, 20_000, seed=4)
    counts = np.zeros((10, 10))
    np.add.at(counts, (timeline.xs["first"], timeline.xs["second"]), 1)
    A = neighbours(GRAPH)
    assert (counts[~A] == 0).all()
    expected = A / A.sum(1, keepdims=True) / 10 * 20_000
    assert stats.chisquare(counts[A], expected[A]).pvalue > 1e-4


def test_edges_are_uniform():
    timeline = poisson_edges(GRAPH, 8000, seed=4)
    counts = np.zeros((10, 10))
    np.add.at(counts, (timeline.xs["first"], timeline.xs["second"]), 1)
    near, far = np.nonzero(np.triu(neighbours(GRAPH)))
    assert counts.sum() == counts[near, far].sum()
    assert stats.chisquare(counts[near, far]).pvalue > 1e-4


def test_pushes_follow_the_arrows():
    import networkx as nx

    cycle = from_networkx(nx.cycle_graph(4, create_using=nx.DiGraph))
    timeline = poisson_push(cycle, 50, weight=0.3, seed=5)
    np.testing.assert_array_equal(timeline.xs["second"], (timeline.xs["first"] + 1) % 4)
    i, j = int(timeline.xs["first"][0]), int(timeline.xs["second"][0])
    expected = np.eye(4)
    expected[j, [i, j]] = 0.3, 0.7
    np.testing.assert_allclose(matrix_at(timeline, 0), expected, rtol=1e-15)


def test_who_acts():
    wake, fire = event_at(poisson_pairs(GRAPH, 5, seed=6), 2), event_at(poisson_edges(GRAPH, 5, seed=6), 2)
    assert wake.nodes.shape == (1,)
    assert int(wake.nodes[0]) in wake.mixing.receivers
    assert set(map(int, fire.nodes)) == set(map(int, fire.mixing.receivers))
    assert fire.index.tolist() == [2, 2]


def test_plans_repeat_with_their_seed():
    one, two, other = (poisson_pairs(GRAPH, 50, seed=seed).xs for seed in (1, 1, 2))
    assert all(np.array_equal(one[name], two[name]) for name in one)
    assert not np.array_equal(one["first"], other["first"])


# --- sampled clients --------------------------------------------------------------------------------------------------


def test_sampled_clients_and_their_weights():
    sizes = np.arange(1.0, 21)
    timeline = client_sampling(20, 6, 500, seed=7, shard_sizes=sizes)
    nodes, weights = timeline.xs["nodes"], timeline.xs["weights"]
    assert all(len(set(row)) == 6 for row in nodes)
    np.testing.assert_allclose(weights.sum(1), 1.0, rtol=0, atol=1e-15)  # a few roundings
    np.testing.assert_allclose(weights[:, 0] / weights[:, 1], sizes[nodes[:, 0]] / sizes[nodes[:, 1]], rtol=1e-12)
    counts = np.bincount(nodes.ravel(), minlength=20)
    # Draws without replacement vary less than the multinomial of the test.
    assert stats.chisquare(counts).pvalue > 1e-4
    assert (timeline.properties.num_nodes, timeline.properties.num_rows) == (20, 6)
    event = event_at(timeline, 3)
    np.testing.assert_array_equal(event.nodes, nodes[3])
    np.testing.assert_array_equal(event.rows, np.arange(6))


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: rounds(metropolis(ring(4)), 0), "num_rounds=0"),
        (lambda: rounds([], 3), "empty sequence"),
        (lambda: rounds([averaging(3), averaging(4)], 3), r"different sizes \[3, 4\]"),
        (lambda: rounds(np.full((3, 3), 0.5), 3), "row"),
        (lambda: rounds(averaging(3), 3, seconds_per_round=0.0), "seconds_per_round=0.0: .* above 0"),
        (lambda: matching_rounds(0, 3, seed=0), "num_nodes=0"),
        (lambda: client_sampling(4, 5, 3, seed=0), "num_sampled=5"),
        (lambda: client_sampling(4, 2, 3, seed=0, shard_sizes=np.ones(3)), r"shard_sizes of shape \(3,\): .* 4, one"),
        (lambda: client_sampling(4, 2, 3, seed=0, shard_sizes=np.zeros(4)), r"shard_sizes\[0\]=0: .* above 0"),
        (lambda: poisson_pairs(GRAPH, seed=0), "exactly one of"),
        (lambda: poisson_pairs(GRAPH, 5, duration=1.0, seed=0), "exactly one of"),
        (lambda: poisson_pairs(GRAPH, 0, seed=0), "num_events=0"),
        (lambda: poisson_pairs(GRAPH, duration=-1.0, seed=0), "duration=-1.0"),
        (lambda: poisson_pairs(GRAPH, 5, rate=0.0, seed=0), "rate=0.0"),
        (lambda: poisson_push(GRAPH, 5, weight=1.5, seed=0), "weight=1.5"),
        (lambda: poisson_pairs(path(1), 5, seed=0), "no edge"),
    ],
)
def test_bad_plans_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_mutual_averaging_needs_an_undirected_graph():
    import networkx as nx

    directed = from_networkx(nx.cycle_graph(4, create_using=nx.DiGraph))
    for builder in (poisson_pairs, poisson_edges):
        with pytest.raises(ValueError, match="is directed"):
            builder(directed, 5, seed=0)
