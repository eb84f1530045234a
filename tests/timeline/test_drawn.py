"""Meetings drawn inside the run: uniform, independent of windows, and with the stated rates."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from gossipjax import gossip_averaging, simulate
from gossipjax.timeline import drawn_gossip, drawn_pairs
from gossipjax.timeline._drawn import BLOCK, scaled
from gossipjax.timeline._events import first_event
from gossipjax.topology import Topology, barabasi_albert, exponential, ring

KEY = jax.random.key(2)


def drawn(timeline, key=KEY):
    return jax.tree.map(np.asarray, jax.jit(timeline.draw)(key, timeline.shared, timeline.xs))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(1, 2**32 - 1)), min_size=5, max_size=5))
def test_scaling_is_the_high_word_of_the_product(pairs):
    words, below = (np.asarray(column, np.uint32) for column in zip(*pairs, strict=True))
    found = scaled(jnp.asarray(words), jnp.asarray(below)).astype(jnp.uint32)
    assert found.tolist() == [(w * b) >> 32 for w, b in pairs]


@pytest.mark.parametrize("start", [0, 1, BLOCK - 1, BLOCK, 3 * BLOCK + 7])
def test_a_window_draws_what_the_whole_draws(start):
    plan = drawn_gossip(50, 5 * BLOCK, update_rate=1.0, gossip_rate=2.0)
    whole, part = drawn(plan), drawn(plan[start : start + 100])
    for name, array in part.items():
        np.testing.assert_array_equal(array, whole[name][start : start + 100], err_msg=name)


def test_pairs_are_uniform_and_never_oneself():
    n, total = 7, 84_000
    x = drawn(drawn_pairs(n, total))
    assert (x["first"] != x["second"]).all()
    counts = np.zeros((n, n))
    np.add.at(counts, (x["first"], x["second"]), 1)
    off = counts[~np.eye(n, dtype=bool)]
    assert stats.chisquare(off).pvalue > 1e-4  # 42 cells of 2,000


def test_neighbours_are_uniform_on_any_graph():
    graph = barabasi_albert(9, 2, seed=1)
    x = drawn(drawn_pairs(graph, 60_000))
    edges = set(zip(graph.senders.tolist(), graph.receivers.tolist(), strict=True))
    assert set(zip(x["first"].tolist(), x["second"].tolist(), strict=True)) == edges
    hub = int(np.argmax(graph.degrees))
    neighbours = x["second"][x["first"] == hub]
    assert stats.chisquare(np.unique(neighbours, return_counts=True)[1]).pvalue > 1e-4


def test_updates_and_pushes_have_their_rates():
    n, m, rate, total = 20, 1.5, 4.5, 40_000
    plan = drawn_gossip(n, total, update_rate=m, gossip_rate=rate)
    run = simulate(KEY, gossip_averaging(), plan, jnp.zeros(n), record_every=total)
    pushes, share = int(run["messages_sent"][-1]), rate / (m + rate)
    assert abs(pushes - total * share) < 4 * np.sqrt(total * share * (1 - share))
    assert float(run["time"][-1]) == pytest.approx(total / (n * (m + rate)), rel=1e-6)  # float32
    kinds = [first_event(KEY, plan[t : t + 1]) for t in range(20)]
    assert all((int(e.nodes[0]) < n) != (int(e.mixing.receivers[0]) < n) for e in kinds)


def test_seeds_meet_different_pairs():
    runs = simulate(jax.random.split(KEY, 2), gossip_averaging(), drawn_pairs(8, 20), jnp.arange(8.0))
    assert np.abs(runs.x[0] - runs.x[1]).max() > 0.1
    np.testing.assert_allclose(runs.x.mean(axis=1), 3.5, rtol=1e-14)  # averaging keeps the mean


def test_bad_input_is_named():
    lonely = Topology(3, np.array([0, 1]), np.array([1, 0]), directed=False, name="lonely")
    with pytest.raises(ValueError, match="node 2 of lonely"):
        drawn_pairs(lonely, 5)
    with pytest.raises(ValueError, match="is directed"):
        drawn_pairs(exponential(8), 5)
    with pytest.raises(ValueError, match="peers=1"):
        drawn_pairs(1, 5)
    with pytest.raises(ValueError, match="num_events=0"):
        drawn_pairs(ring(5), 0)
    with pytest.raises(ValueError, match="rate=-1"):
        drawn_pairs(ring(5), 5, rate=-1.0)
    with pytest.raises(ValueError, match="update_rate=-1"):
        drawn_gossip(5, 5, update_rate=-1.0, gossip_rate=1.0)
    with pytest.raises(ValueError, match="weight=0"):
        drawn_gossip(5, 5, update_rate=1.0, gossip_rate=1.0, weight=0.0)
