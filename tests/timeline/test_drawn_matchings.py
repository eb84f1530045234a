"""Matchings drawn inside the run: perfect, uniform, and independent of windows, also where permutations are keyed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import gossipjax as gj
from gossipjax.timeline import _drawn_matchings as room
from gossipjax.timeline import drawn_matchings

KEY = jax.random.key(7)
_partners = jax.jit(room.partners, static_argnums=1)


def partners(key, n):
    return np.asarray(_partners(key, n))


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7, 100, room.EXACT, room.EXACT + 1, 2**15, 20_011, 2 * 20_011])
def test_matchings_are_perfect(n):
    found = partners(KEY, n)
    np.testing.assert_array_equal(found[found], np.arange(n))
    assert (found == np.arange(n)).sum() == n % 2


@settings(max_examples=12, deadline=None)
@given(st.integers(2, 5000), st.integers(0, 2**32 - 1))
def test_the_keyed_permutation_is_one_and_its_inverse_undoes_it(n, seed):
    keys = jnp.asarray(np.random.default_rng(seed).integers(0, 2**32, (room.STEPS, 2), dtype=np.uint32))
    a, b = room.factors(n)
    v = jnp.arange(n, dtype=jnp.uint32)
    there = room._within(v, n, keys, a, b)
    assert sorted(there.tolist()) == list(range(n))
    np.testing.assert_array_equal(room._within(there, n, keys, a, b, inverse=True), v)


@given(st.integers(2, 10**8))
def test_factors_are_close_to_each_other_and_to_n(n):
    a, b = room.factors(n)
    assert n <= a * b <= n + 2 * np.sqrt(n) + 2
    assert 2 <= max(a, b) <= 5 * min(a, b)


def _counts(draw, n, rounds):
    """Count how often each pair meets, in rounds of independent keys."""
    found = np.asarray(jax.jit(jax.vmap(draw))(jax.random.split(KEY, rounds)))
    counts = np.zeros((n, n))
    np.add.at(counts, (np.broadcast_to(np.arange(n), found.shape), found), 1)
    return counts[np.triu_indices(n, 1)]


@pytest.mark.parametrize("n", [4, 7])
def test_matchings_of_few_nodes_are_uniform(n):
    counts = _counts(lambda key: room.partners(key, n), n, 20_000)
    # A round has n // 2 pairs, which exclude each other: the statistic is less variable than of independent draws.
    assert stats.chisquare(counts).pvalue > 1e-4


def test_keyed_matchings_favour_no_pair(monkeypatch):
    """Of 400 nodes, which the bijection is made for far beyond, each of the 79,800 pairs meets equally often."""
    monkeypatch.setattr(room, "EXACT", 0)
    n, rounds = 400, 12_000
    counts = _counts(lambda key: room.partners(key, n), n, rounds)
    expected = rounds / (n - 1)  # about 30
    # Pairs of a round are nearly independent: the statistic has mean n(n-1)/2 and variance n(n-1), to 1/n.
    score = (((counts - expected) ** 2 / expected).sum() - counts.size) / np.sqrt(2 * counts.size)
    assert abs(score) < 5


def test_partners_of_consecutive_rounds_and_nodes_are_unrelated():
    n = 40_000
    first, second = (partners(jax.random.fold_in(KEY, k), n) for k in (1, 2))
    assert (first == second).sum() < 12  # Poisson of mean 1: P < 1e-9
    steps = np.diff(first)
    # Neighbours whose partners are neighbours: 2 expected; P(more than 15) < 1e-9.
    assert (np.abs(steps) == 1).sum() < 16
    bins = np.histogram2d(np.arange(n), first, bins=20)[0]
    # Each meeting counts twice, in mirrored cells: the 190 cells above the diagonal have mean 100.
    assert stats.chisquare(bins[np.triu_indices(20, 1)]).pvalue > 1e-4


def test_news_doubles_while_few_know():
    """If k of n nodes know, a round tells k (n − k)/(n − 1) others on average."""
    n, rounds = 1 << 17, 12
    protocol = gj.track_versions(gj.gossip_averaging(), [5], num_nodes=n)
    run = gj.simulate(KEY, protocol, drawn_matchings(n, rounds), jnp.zeros(n))
    expected, variance = 1.0, 0.0
    for _ in range(rounds):
        # A pair in which both know tells nobody; there are about k²/(2n), and each halves the later growth of two.
        variance = 4 * variance + 4 * expected**2 / (2 * n)
        expected += expected * (n - expected) / (n - 1)
    assert abs(int((run.state.versions.held > 0).sum()) - expected) < 6 * np.sqrt(variance)


def test_a_run_is_the_same_in_windows_and_differs_by_key():
    plan, x0 = drawn_matchings(10, 6), jnp.arange(10.0)
    whole = gj.simulate(KEY, gj.gossip_averaging(), plan, x0)
    half = gj.simulate(KEY, gj.gossip_averaging(), plan[:3], x0)
    later = gj.simulate(KEY, gj.gossip_averaging(), plan, half)
    np.testing.assert_array_equal(whole.x, later.x)
    other = gj.simulate(jax.random.key(8), gj.gossip_averaging(), plan, x0)
    assert not np.array_equal(whole.x, other.x)


def test_every_node_sends_one_message_a_round():
    for n, each in ((10, 10), (11, 10)):
        run = gj.simulate(KEY, gj.gossip_averaging(), drawn_matchings(n, 5), jnp.arange(float(n)), record_every=1)
        np.testing.assert_array_equal(np.asarray(run.dataset["messages_sent"]), each * np.arange(6))


def test_a_plan_costs_a_number_a_round():
    plan = drawn_matchings(10**9, 100)
    assert sum(leaf.nbytes for leaf in jax.tree.leaves((plan.xs, plan.shared))) < 500


@pytest.mark.parametrize(("given_", "words"), [((0, 3), "num_nodes=0"), ((4, 0), "num_rounds=0"), ((2.5, 3), "2.5")])
def test_numbers_out_of_range_are_refused(given_, words):
    with pytest.raises((ValueError, TypeError), match=words):
        drawn_matchings(*given_)
