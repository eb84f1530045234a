"""Partitions by writer, user or role: groups stay whole, and are dealt as stated."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossipjax.tasks import by_user, natural
from gossipjax.tasks._partition import check_partition

properties = settings(deadline=None)  # a loaded machine is no failure


@st.composite
def pools(draw):
    """The writer of every sample, a number of nodes, and a seed."""
    num_writers, total, seed = draw(st.integers(1, 12)), draw(st.integers(1, 300)), draw(st.integers(0, 2**32))
    return np.random.default_rng(seed).integers(0, num_writers, total), draw(st.integers(1, 40)), seed


@properties
@given(pools(), st.integers(1, 20))
def test_natural_keeps_writers_whole_and_drops_small_ones(pool, minimum):
    writers, num_nodes, seed = pool
    sizes = np.bincount(writers)
    kept = np.flatnonzero(sizes >= minimum)
    if not len(kept):
        return
    num_nodes = min(num_nodes, len(kept))
    partition = natural(writers, num_nodes, minimum=minimum, seed=seed)
    check_partition(partition, len(writers), complete=False)
    held = [set(writers[partition.shard(i)]) for i in range(num_nodes)]
    assert sorted(itertools.chain(*held)) == list(kept)  # each writer at one node, and all their samples there
    assert partition.sizes.sum() == sizes[kept].sum()
    # Largest first, to the poorest: whoever ends the richest was the poorest before its last (smallest) writer came.
    richest = int(partition.sizes.argmax())
    if len(held[richest]) > 1:
        assert partition.sizes[richest] - min(sizes[list(held[richest])]) <= partition.sizes.min()


@properties
@given(pools(), st.integers(1, 20), st.none() | st.integers(0, 99))
def test_users_are_whole_and_equally_many(pool, minimum, shuffle):
    users, num_nodes, _ = pool
    sizes = np.bincount(users)
    kept = np.flatnonzero(sizes >= minimum)
    if not len(kept):
        return
    num_nodes = min(num_nodes, len(kept))
    partition = by_user(users, num_nodes, minimum=minimum, seed=shuffle)
    check_partition(partition, len(users), complete=False)
    held = [np.unique(users[partition.shard(node)]) for node in range(num_nodes)]
    more, base = len(kept) % num_nodes, len(kept) // num_nodes
    assert [len(people) for people in held] == [base + 1] * more + [base] * (num_nodes - more)
    assert sorted(np.concatenate(held)) == list(kept)
    assert partition.sizes.sum() == sizes[kept].sum()
    if shuffle is None:
        np.testing.assert_array_equal(np.concatenate(held), kept)


def test_one_node_per_writer_in_ascending_order():
    writers = np.array([9, 4, 9, -3, 4, 9])
    partition = natural(writers, minimum=2)
    assert [list(partition.shard(i)) for i in range(partition.num_nodes)] == [[1, 4], [0, 2, 5]]
    assert natural(writers).num_nodes == 3


def test_writers_are_dealt_as_equally_as_they_can_be():
    writers = np.repeat([0, 1, 2, 3], [5, 4, 3, 2])
    partition = natural(writers, 2)
    np.testing.assert_array_equal(partition.sizes, [7, 7])  # 5 + 2 and 4 + 3


def test_ties_of_whole_writers_are_broken_at_random():
    """Three writers of equal size on two nodes: either node has two of them in half of 400 seeds."""
    groups = np.array([0, 1, 2])
    sizes = [natural(groups, 2, seed=seed).sizes[0] for seed in range(400)]
    assert set(sizes) == {1, 2}
    assert abs(np.mean(sizes) - 1.5) < 4 * 0.5 / np.sqrt(400)


@pytest.mark.parametrize("seed", [0, 1])
def test_shuffled_users_are_dealt_at_random(seed):
    """A user's node is uniform: the mean number of 2,000 users on 4 nodes of equal numbers, in standard errors."""
    partition = by_user(np.arange(2000), 4, seed=seed)
    z = [(partition.shard(node).mean() - 999.5) / (2000 / np.sqrt(12 * 500) * np.sqrt(0.75)) for node in range(4)]
    assert np.abs(z).max() < 4
    ordered = by_user(np.arange(2000), 4, seed=None)
    np.testing.assert_array_equal(ordered.indices, np.arange(2000))
