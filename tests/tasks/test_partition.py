"""Partitions: every sample once, the stated shapes, and the stated statistics."""

import inspect
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

from gossipjax import tasks
from gossipjax.tasks import _groups, _splits, digits
from gossipjax.tasks import _partition as parts

LABELS = np.repeat(np.arange(10), 600)[np.random.default_rng(0).permutation(6000)].astype(np.int32)

properties = settings(deadline=None)  # a loaded machine is no failure


@st.composite
def pools(draw):
    """Labels of a pool, a number of nodes that it suffices for, and a seed."""
    num_nodes = draw(st.integers(1, 40))
    total = draw(st.integers(num_nodes, 300))
    num_classes = draw(st.integers(1, 12))
    seed = draw(st.integers(0, 2**32))
    return np.random.default_rng(seed).integers(0, num_classes, total), num_nodes, seed


# --- every sample once, and the stated sizes --------------------------------------------------------------------------


@properties
@given(pools())
def test_iid_uses_every_sample_once_in_equal_shares(pool):
    labels, num_nodes, seed = pool
    partition = tasks.iid(len(labels), num_nodes, seed=seed)
    parts.check_partition(partition, len(labels))
    assert np.ptp(partition.sizes) <= 1


@properties
@given(pools(), st.integers(1, 8))
def test_shards_use_every_sample_once_and_few_classes(pool, k):
    labels, num_nodes, seed = pool
    k = min(k, len(labels) // num_nodes)
    partition = tasks.by_shards(labels, num_nodes, shards_per_node=k, seed=seed)
    parts.check_partition(partition, len(labels))
    assert np.ptp(partition.sizes) <= k  # k shards, each of one size or of one more
    counts = partition.class_counts(labels, 12)
    assert np.count_nonzero(counts) <= num_nodes * k + len(np.unique(labels)) - 1


@properties
@given(pools(), st.integers(1, 8))
def test_stretches_use_every_sample_once_in_equal_shares(pool, k):
    labels, num_nodes, seed = pool
    k = min(k, len(labels) // num_nodes)
    partition = tasks.by_stretches(labels, num_nodes, shards_per_node=k, seed=seed)
    parts.check_partition(partition, len(labels))
    assert np.ptp(partition.sizes) <= 1
    # A stretch with b ≥ 1 boundaries of classes inside takes them away and leaves one where the list is joined: all n k
    # stretches together have at most n k and the C of the whole list, whose ends meet.
    counts = partition.class_counts(labels, 12)
    assert np.count_nonzero(counts) <= 2 * num_nodes * k + len(np.unique(labels))


@properties
@given(pools(), st.floats(-4, 4), st.floats(0, 1))
def test_dirichlet_uses_every_sample_once_and_keeps_the_minimum(pool, log_alpha, fullness):
    labels, num_nodes, seed = pool
    minimum = max(1, int(fullness * (len(labels) // num_nodes)))
    partition = tasks.dirichlet(labels, num_nodes, alpha=10.0**log_alpha, minimum=minimum, seed=seed)
    parts.check_partition(partition, len(labels))
    assert partition.sizes.min() >= minimum


@properties
@given(pools(), st.floats(0, 1))
def test_label_skew_uses_every_sample_once_in_equal_shares(pool, degree):
    labels, num_nodes, seed = pool
    partition = tasks.label_skew(labels, num_nodes, degree=degree, seed=seed)
    parts.check_partition(partition, len(labels))
    assert np.ptp(partition.sizes) <= 1


def test_remainders_are_not_dropped():
    """1,000 samples on 7 nodes: equal cuts alone would use 994, and k = 4 equal shards 980."""
    labels = np.arange(1000) % 10
    sizes = tasks.iid(1000, 7, seed=0).sizes
    np.testing.assert_array_equal(sizes, [143] * 6 + [142])
    assert tasks.by_shards(labels, 7, shards_per_node=4, seed=0).sizes.sum() == 1000
    np.testing.assert_array_equal(tasks.by_stretches(labels, 7, shards_per_node=4, seed=0).sizes, [143] * 6 + [142])


def test_digits_at_strong_skew_on_many_nodes():
    """1,437 samples on 64 nodes at α = 0.1: redrawing until all have ten would practically never end."""
    labels = digits().train.labels
    partition = tasks.dirichlet(labels, 64, alpha=0.1, seed=0)
    parts.check_partition(partition, 1437)
    assert partition.sizes.min() == 10


@pytest.mark.parametrize("alpha", [1e-300, 1e-8, 1e-3, 1e8, 1e300])
def test_extreme_concentrations(alpha):
    partition = tasks.dirichlet(LABELS, 1000, alpha=alpha, seed=0)
    parts.check_partition(partition, 6000)
    assert partition.sizes.min() >= 3  # the default: N / (2 n)


def test_largest_minimum_means_equal_shares():
    partition = tasks.dirichlet(LABELS, 40, alpha=0.1, minimum=150, seed=0)
    np.testing.assert_array_equal(partition.sizes, np.full(40, 150))


@properties
@given(st.lists(st.integers(0, 30), min_size=1, max_size=20), st.floats(0, 1))
def test_taking_from_the_richest_equals_doing_it_one_by_one(sizes, share):
    amount = int(share * sum(sizes))
    left = np.array(sizes)
    for _ in range(amount):
        left[left.argmax()] -= 1
    gives = _splits._take_from_richest(np.array(sizes), amount)
    assert gives.sum() == amount
    np.testing.assert_array_equal(np.sort(np.array(sizes) - gives), np.sort(left))


# --- statistics -------------------------------------------------------------------------------------------------------


def contingency_z(counts):
    """Pearson's χ² of a table of samples dealt at random, in standard errors from its exact mean.

    With both margins fixed, E χ² = N / (N − 1) · (r − 1)(c − 1); its variance is 2 (r − 1)(c − 1) up to O(1 / cell),
    and the cells here hold 30 samples.
    """
    expected = counts.sum(1, keepdims=True) * counts.sum(0, keepdims=True) / counts.sum()
    freedom = (counts.shape[0] - 1) * (counts.shape[1] - 1)
    mean = counts.sum() / (counts.sum() - 1) * freedom
    return (np.sum((counts - expected) ** 2 / expected) - mean) / np.sqrt(2 * freedom)


@pytest.mark.parametrize("deal", ["iid", "label_skew"])
def test_iid_and_no_label_skew_deal_at_random(deal):
    for seed in range(3):
        partition = (
            tasks.iid(6000, 20, seed=seed) if deal == "iid" else tasks.label_skew(LABELS, 20, degree=0.0, seed=seed)
        )
        assert abs(contingency_z(partition.class_counts(LABELS, 10))) < 4


@pytest.mark.parametrize("alpha", [0.1, 1.0, 10.0])
def test_dirichlet_concentration_is_the_stated_one(alpha):
    """E Σ_i p_i² = (α + 1) / (n α + 1), class by class; the standard error is taken over 200 independent classes.

    Rounding to whole samples changes p_i by less than 1 / 2000 and Σ p_i² by less than n / 2000² = 2.5e-6, far below
    the standard errors (1e-3 at the least skewed); minimum = 1 moves at most a few of the 400,000 samples.
    """
    labels = np.repeat(np.arange(200), 2000)
    counts = tasks.dirichlet(labels, 10, alpha=alpha, minimum=1, seed=0).class_counts(labels, 200)
    squares = np.sum((counts / 2000) ** 2, axis=0)
    error = squares.std(ddof=1) / np.sqrt(200)
    assert abs(squares.mean() - (alpha + 1) / (10 * alpha + 1)) < 4 * error


def test_dirichlet_shares_are_alike_across_nodes():
    """Every node expects 1 / n of every class: mean over 400 classes within 4 standard errors, for each node."""
    labels = np.repeat(np.arange(400), 500)
    shares = tasks.dirichlet(labels, 8, alpha=0.5, minimum=1, seed=1).class_counts(labels, 400) / 500
    z = (shares.mean(1) - 1 / 8) / (shares.std(1, ddof=1) / np.sqrt(400))
    assert np.abs(z).max() < 4


def test_dirichlet_large_alpha_is_even_and_small_alpha_is_one_node_per_class():
    even = tasks.dirichlet(LABELS, 20, alpha=1e9, seed=0).class_counts(LABELS, 10)
    assert np.abs(even - 30).max() <= 1  # 600 / 20, up or down by rounding
    skewed = tasks.dirichlet(LABELS, 20, alpha=1e-6, minimum=1, seed=0).class_counts(LABELS, 10)
    assert np.all(skewed.max(0) >= 600 - 20)  # all of a class, but for what fills up the empty nodes


def test_two_shards_per_node_hold_at_most_four_classes():
    """300 samples a shard never span more than two of the classes of 600."""
    counts = tasks.by_shards(LABELS, 10, shards_per_node=2, seed=0).class_counts(LABELS, 10)
    assert np.all(np.count_nonzero(counts, axis=1) <= 2)  # here cuts fall on class boundaries
    counts = tasks.by_shards(LABELS, 9, shards_per_node=2, seed=0).class_counts(LABELS, 10)
    assert np.all(np.count_nonzero(counts, axis=1) <= 4)


def dirichlet_by_hand(labels, num_nodes, alpha, seed, balanced=False):
    """The procedure on Python lists: sample k of a class of m stands at (k + u) / m of the nodes' stretches of [0, 1).

    It fills no node up. If balanced, a node with an equal share of all samples gets no more.
    """
    rng = np.random.default_rng(seed)
    shards = [[] for _ in range(num_nodes)]
    for label in sorted(set(labels)):
        members = rng.permutation([sample for sample, own in enumerate(labels) if own == label])
        shares, offset = rng.dirichlet([alpha] * num_nodes), rng.random()
        if balanced:
            shares = [p * (len(shard) < len(labels) / num_nodes) for p, shard in zip(shares, shards, strict=True)]
            shares = [p / sum(shares) for p in shares]
        node, end = 0, shares[0]
        for k, sample in enumerate(members):
            while (k + offset) / len(members) >= end and node < num_nodes - 1:
                node += 1
                end += shares[node]
            shards[node].append(sample)
    return [sorted(shard) for shard in shards]


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("alpha", [0.5, 3.0])
def test_dirichlet_cuts_every_class_in_proportion(alpha, seed, balanced):
    labels = list(np.random.default_rng(seed).integers(0, 8, 90))
    expected = dirichlet_by_hand(labels, 3, alpha, seed, balanced)
    assert min(map(len, expected)) >= 1
    partition = tasks.dirichlet(labels, 3, alpha=alpha, balanced=balanced, minimum=1, seed=seed)
    assert [list(partition.shard(node)) for node in range(3)] == expected


def test_balanced_dirichlet_gives_full_nodes_no_more():
    """A node that held N / n samples before the last class has none of it; sizes exceed N / n by a class at most."""
    counts = tasks.dirichlet(LABELS, 10, alpha=0.1, balanced=True, minimum=1, seed=0).class_counts(LABELS, 10)
    before = np.cumsum(counts, axis=1) - counts
    assert np.all(counts[before >= 600] == 0)
    assert np.all(counts.sum(1) < 600 + 600)
    free = tasks.dirichlet(LABELS, 10, alpha=0.1, minimum=1, seed=0).sizes
    assert counts.sum(1).std() < free.std()


@pytest.mark.parametrize("alpha", [1e-300, 1e-8, 1e300])
def test_extreme_concentrations_when_balanced(alpha):
    """All the drawn share may belong to full nodes: then the others share the class equally."""
    partition = tasks.dirichlet(LABELS, 50, alpha=alpha, balanced=True, seed=0)
    parts.check_partition(partition, 6000)
    assert partition.sizes.max() < 120 + 600


@pytest.mark.parametrize("members", [1, 2, 3])
def test_dirichlet_rounds_small_classes_without_favour(members):
    """Classes of few samples are all rounding, and every node still expects 1 / n of them, the first and last too.

    A class gives node i a count of mean m / n; its variance is taken over 3,000 independent classes. Without the random
    offset, or with its sign turned, node 0 gets up to one sample of every class too many.
    """
    labels = np.repeat(np.arange(3000), members)
    counts = tasks.dirichlet(labels, 6, alpha=0.5, minimum=1, seed=members).class_counts(labels, 3000)
    z = (counts.mean(1) - members / 6) / (counts.std(1, ddof=1) / np.sqrt(3000))
    assert np.abs(z).max() < 4


def moved_to(owner, num_nodes, minimum, seeds):
    """New owners of all samples after the poor nodes were filled up, one row a seed."""
    return np.stack([_splits._fill_up(np.random.default_rng(s), owner, num_nodes, minimum) for s in range(seeds)])


def test_nodes_are_filled_up_with_random_samples_of_the_richest():
    """Of 12 samples of node 0, two go to each of the poor: any one with probability 1/6, in 600 seeds."""
    owner = moved_to(np.array([0] * 12 + [3] * 2), 4, 2, seeds=600)
    assert np.all(owner[:, 12:] == 3)  # who is not the richest gives nothing
    for node in (1, 2):
        assert np.all(np.sum(owner == node, axis=1) == 2)
        z = (np.mean(owner[:, :12] == node, axis=0) - 1 / 6) / np.sqrt(5 / 36 / 600)
        assert np.abs(z).max() < 4


def test_the_poor_get_samples_of_all_that_give():
    """Two rich nodes give two samples each to two poor ones: node 2 gets one of node 0 on average, of variance 1/3."""
    owner = moved_to(np.repeat([0, 1], 10), 4, 2, seeds=400)
    of_node_0 = np.sum(owner[:, :10] == 2, axis=1)
    assert abs(of_node_0.mean() - 1) < 4 * np.sqrt(1 / 3 / 400)


@pytest.mark.parametrize(("total", "num_nodes", "expected"), [(2000, 10, 10), (100, 10, 5), (11, 10, 1), (50, 4, 6)])
def test_default_minimum_is_ten_or_half_an_equal_share(total, num_nodes, expected):
    partition = tasks.dirichlet([0] * total, num_nodes, alpha=1e-6, seed=0)  # one node would have all
    assert sorted(partition.sizes)[:-1] == [expected] * (num_nodes - 1)


def shards_by_hand(labels, num_nodes, k, seed):
    """The procedure on Python lists: sort, cut into equal shards, shuffle these and deal k to each."""
    rng = np.random.default_rng(seed)
    count = num_nodes * k
    places = list(rng.permutation(count))
    line = sorted(rng.permutation(len(labels)), key=lambda sample: labels[sample])
    # Cut at whole numbers: sample i is in shard ⌊i count / N⌋.
    shards = [[s for i, s in enumerate(line) if i * count // len(line) == number] for number in range(count)]
    owned = [[shards[number] for number in range(count) if places[number] // k == node] for node in range(num_nodes)]
    return [sorted(itertools.chain(*own)) for own in owned]


@pytest.mark.parametrize(("total", "num_nodes", "k"), [(60, 5, 3), (67, 4, 2), (31, 7, 4)])
def test_shards_are_cut_from_the_sorted_list_and_dealt_at_random(total, num_nodes, k):
    labels = np.random.default_rng(4).integers(0, 5, total)
    partition = tasks.by_shards(labels, num_nodes, shards_per_node=k, seed=9)
    found = [list(partition.shard(node)) for node in range(num_nodes)]
    assert found == shards_by_hand(labels, num_nodes, k, 9)


def skew_by_hand(labels, num_nodes, degree, seed):
    """The procedure on Python lists: a random part is sorted and dealt in stretches, the rest as it comes."""
    total = len(labels)
    order = list(np.random.default_rng(seed).permutation(total))
    sizes = [total // num_nodes + (node < total % num_nodes) for node in range(num_nodes)]
    quotas = [math.floor(degree * size + 0.5) for size in sizes]
    line = sorted(order[: sum(quotas)], key=lambda sample: labels[sample])
    rest, shards = order[sum(quotas) :], []
    for size, quota in zip(sizes, quotas, strict=True):
        shards.append(sorted(line[:quota] + rest[: size - quota]))
        line, rest = line[quota:], rest[size - quota :]
    return shards


@pytest.mark.parametrize(("total", "num_nodes", "degree"), [(60, 5, 0.3), (47, 6, 0.5), (20, 4, 0.9)])
def test_label_skew_deals_the_sorted_part_in_stretches(total, num_nodes, degree):
    labels = np.random.default_rng(5).integers(0, 4, total)
    partition = tasks.label_skew(labels, num_nodes, degree=degree, seed=2)
    found = [list(partition.shard(node)) for node in range(num_nodes)]
    assert found == skew_by_hand(labels, num_nodes, degree, 2)


def stretches_by_hand(labels, num_nodes, k, seed):
    """The procedure on Python lists: sort, cut stretches out of what is left, round its end."""
    rng = np.random.default_rng(seed)
    shuffled = list(rng.permutation(len(labels)))
    left = sorted(shuffled, key=lambda sample: labels[sample])
    size = len(labels) // (num_nodes * k)
    shards = []
    for _ in range(num_nodes):
        own = []
        for _ in range(k):
            start = rng.integers(0, len(left))
            rolled = left[start:] + left[:start]
            own += rolled[:size]
            left = [sample for sample in left if sample not in own]
        shards.append(sorted(own))
    assert not left
    return shards


def test_stretches_are_cut_out_of_what_is_left():
    labels = np.random.default_rng(3).integers(0, 4, 60)
    partition = tasks.by_stretches(labels, 5, shards_per_node=3, seed=8)
    assert [list(partition.shard(node)) for node in range(5)] == stretches_by_hand(labels, 5, 3, 8)


def test_the_first_stretch_lies_anywhere_in_the_sorted_list():
    """One node of two takes half of 2 m sorted samples: of class 0 it has |m − s|, with s uniform on 0 … 2 m − 1.

    Classes of m samples; so the mean is m / 2 and the variance m / 2 + (m − 1)(2 m − 1) / 6 − m² / 4, over 900 seeds.
    """
    m, seeds = 20, 900
    labels = np.repeat([0, 1], m)
    counts = [
        tasks.by_stretches(labels, 2, shards_per_node=1, seed=seed).class_counts(labels, 2)[0, 0]
        for seed in range(seeds)
    ]
    deviation = np.sqrt(m / 2 + (m - 1) * (2 * m - 1) / 6 - m**2 / 4)
    assert abs(np.mean(counts) - m / 2) < 4 * deviation / np.sqrt(seeds)
    assert (min(counts), max(counts)) == (0, m)  # either is missed with probability (39/40)^900 = 1e-10


@pytest.mark.parametrize("degree", [0.25, 0.7])
def test_label_skew_holds_the_stated_share_class_by_class(degree):
    """Of its 300 samples node i should hold 300 d of class i // 2, and a tenth of its random rest.

    The sorted part is a random draw of S = 6000 d samples, so that the boundary below class k lies off by D_k, of
    hypergeometric variance S (1 − d) q (1 − q) with q = k / 10, and |D_k| samples lie at the wrong side: on average
    sqrt(2 / π) standard deviations. The standard error is taken over 40 seeds.
    """
    seeds, q = 40, np.arange(1, 10) / 10
    misplaced = np.sum(np.sqrt(2 / np.pi * 6000 * degree * (1 - degree) * q * (1 - q))) / 20
    own = []
    for seed in range(seeds):
        counts = tasks.label_skew(LABELS, 20, degree=degree, seed=seed).class_counts(LABELS, 10)
        own.append(counts[np.arange(20), np.arange(20) // 2].mean())
    z = (np.mean(own) - (300 * degree + 30 * (1 - degree) - misplaced)) / (np.std(own, ddof=1) / np.sqrt(seeds))
    assert abs(z) < 4


def test_full_label_skew_is_sorted_data():
    counts = tasks.label_skew(LABELS, 20, degree=1.0, seed=0).class_counts(LABELS, 10)
    np.testing.assert_array_equal(counts, 300 * np.repeat(np.eye(10, dtype=int), 2, axis=0))
    counts = tasks.label_skew(LABELS, 7, degree=1.0, seed=0).class_counts(LABELS, 10)
    assert np.count_nonzero(counts) <= 7 + 10 - 1


# --- a number of classes, and sizes that differ -----------------------------------------------------------------------


@properties
@given(pools(), st.integers(1, 12))
def test_label_quantity_gives_every_node_k_classes_in_equal_shares(pool, k):
    labels, num_nodes, seed = pool
    labels = np.concatenate([labels, np.repeat(np.unique(labels), num_nodes)])  # enough for all nodes
    num_classes = len(np.unique(labels))
    k = min(max(k, -(-num_classes // num_nodes)), num_classes)
    partition = tasks.label_quantity(labels, num_nodes, classes_per_node=k, seed=seed)
    parts.check_partition(partition, len(labels))
    counts = partition.class_counts(labels, 12)[:, np.unique(labels)]
    np.testing.assert_array_equal(np.count_nonzero(counts, axis=1), k)
    if num_nodes >= num_classes:
        assert np.all(counts[np.arange(num_nodes), np.arange(num_nodes) % num_classes] > 0)
    for shares in counts.T:
        assert np.ptp(shares[shares > 0]) <= 1


def test_label_quantity_draws_every_pair_of_classes_equally_often():
    """Two classes of 10 at node 0: class 0, and one of the others with probability 1/9 each."""
    counts, draws = np.zeros(10), 200
    for seed in range(draws):
        counts += tasks.label_quantity(LABELS[:200], 20, classes_per_node=2, seed=seed).class_counts(LABELS, 10)[0] > 0
    assert counts[0] == draws
    deviation = (counts[1:] - draws / 9) / np.sqrt(draws * 8 / 81)
    assert np.abs(deviation).max() < 4


@properties
@given(st.integers(0, 300), st.integers(1, 30), st.integers(0, 2**32))
def test_shares_give_sizes_that_are_rounded_up_or_down(extra, num_nodes, seed):
    shares = np.random.default_rng(seed).uniform(1.0, 3.0, num_nodes)
    total = 3 * num_nodes + extra  # a share is at least a third of the mean
    partition = tasks.by_shares(total, 7.0 * shares, seed=seed)
    parts.check_partition(partition, total)
    exact = total * shares / shares.sum()
    assert np.all((np.floor(exact) <= partition.sizes) & (partition.sizes <= np.ceil(exact)))
    remainder, up = exact - np.floor(exact), partition.sizes > exact
    assert remainder[up].min(initial=1) >= remainder[~up].max(initial=0) - 1e-9  # rounding of products


def test_shares_by_hand():
    assert tasks.by_shares(10, [0.6, 0.3, 0.1], seed=0).sizes.tolist() == [6, 3, 1]
    assert tasks.by_shares(10, [1, 1, 1], seed=0).sizes.tolist() == [4, 3, 3]
    assert tasks.by_shares(11, [4, 2, 2], seed=0).sizes.tolist() == [5, 3, 3]  # 5.5, 2.75 and 2.75


@properties
@given(st.integers(1, 40), st.integers(0, 260), st.floats(1e-3, 1e3), st.integers(0, 2**32))
def test_quantity_skew_uses_every_sample_once_and_keeps_the_minimum(num_nodes, extra, alpha, seed):
    total = num_nodes + extra
    partition = tasks.quantity_skew(total, num_nodes, alpha=alpha, seed=seed)
    parts.check_partition(partition, total)
    assert partition.sizes.min() >= max(1, min(10, total // (2 * num_nodes)))


@pytest.mark.parametrize("alpha", [0.2, 2.0])
def test_quantity_skew_has_the_moments_of_a_dirichlet_distribution(alpha):
    """Σ p² = (α + 1) / (n α + 1) in the mean; rounding and the minimum of 1 in 10,000 are below the standard error."""
    n, draws, total = 10, 200, 10_000
    sizes = [tasks.quantity_skew(total, n, alpha=alpha, minimum=1, seed=seed).sizes for seed in range(draws)]
    squares = np.sum((np.array(sizes) / total) ** 2, axis=1)
    z = (squares.mean() - (alpha + 1) / (n * alpha + 1)) / (squares.std(ddof=1) / np.sqrt(draws))
    assert abs(z) < 4


# --- seeds, labels, groups --------------------------------------------------------------------------------------------


DEALS = {
    "iid": lambda labels, seed: tasks.iid(len(labels), 12, seed=seed),
    "by_shards": lambda labels, seed: tasks.by_shards(labels, 12, shards_per_node=2, seed=seed),
    "dirichlet": lambda labels, seed: tasks.dirichlet(labels, 12, alpha=0.3, seed=seed),
    "label_skew": lambda labels, seed: tasks.label_skew(labels, 12, degree=0.7, seed=seed),
    "by_stretches": lambda labels, seed: tasks.by_stretches(labels, 12, shards_per_node=2, seed=seed),
    "label_quantity": lambda labels, seed: tasks.label_quantity(labels, 12, classes_per_node=2, seed=seed),
    "by_shares": lambda labels, seed: tasks.by_shares(len(labels), np.arange(1, 13), seed=seed),
    "quantity_skew": lambda labels, seed: tasks.quantity_skew(len(labels), 12, alpha=0.5, seed=seed),
    "by_user": lambda labels, seed: _groups.by_user(labels, 4, seed=seed),
    "natural": lambda labels, seed: _groups.natural(labels, 4, seed=seed),
}


@pytest.mark.parametrize("deal", DEALS.values(), ids=DEALS)
def test_seed_decides(deal):
    first, again, other = deal(LABELS, 5), deal(LABELS, 5), deal(LABELS, 6)
    np.testing.assert_array_equal(first.indices, again.indices)
    np.testing.assert_array_equal(first.offsets, again.offsets)
    assert first.indices.dtype == first.offsets.dtype == np.int32
    assert np.any(first.indices != other.indices)


@pytest.mark.parametrize("deal", DEALS.values(), ids=DEALS)
def test_names_of_classes_do_not_matter_but_for_their_order(deal):
    for renamed in (7 * LABELS.astype(np.int64) + 20, LABELS.astype(np.uint8), LABELS.tolist()):
        np.testing.assert_array_equal(deal(LABELS, 1).indices, deal(renamed, 1).indices)


def test_class_counts_are_exact():
    labels = np.array([0, 2, 2, 1, 0], np.uint8)
    partition = parts.Partition(np.array([0, 1, 2, 3, 4], np.int32), np.array([0, 3, 5], np.int32))
    np.testing.assert_array_equal(partition.class_counts(labels, 3), [[1, 0, 2], [1, 1, 0]])
    with pytest.raises(ValueError, match=r"labels: sample 1 has the label 2; labels must be whole numbers in 0 … 1"):
        partition.class_counts(labels, 2)


def test_shard_of_a_missing_node():
    partition = tasks.iid(10, 3, seed=0)
    np.testing.assert_array_equal(np.concatenate([partition.shard(i) for i in range(3)]), partition.indices)
    for node in (-1, 3, 1.0, "a", None, True):
        with pytest.raises(ValueError, match=r"node=.*: must be a whole number in 0 … 2"):
            inspect.unwrap(parts.Partition.shard)(partition, node)


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "deal",
    [
        lambda n: tasks.iid(20, n, seed=0),
        lambda n: tasks.by_shards(LABELS[:20], n, shards_per_node=1, seed=0),
        lambda n: tasks.dirichlet(LABELS[:20], n, alpha=1.0, seed=0),
        lambda n: tasks.label_skew(LABELS[:20], n, degree=0.5, seed=0),
        lambda n: tasks.by_stretches(LABELS[:20], n, shards_per_node=1, seed=0),
        lambda n: tasks.label_quantity(np.zeros(20, int), n, classes_per_node=1, seed=0),
        lambda n: tasks.quantity_skew(20, n, alpha=1.0, seed=0),
        lambda n: _groups.natural(np.arange(20), n),
        lambda n: _groups.by_user(np.arange(20), n, seed=0),
    ],
)
def test_number_of_nodes_is_checked(deal):
    for bad in (0, -1, 21):
        with pytest.raises(ValueError, match=f"num_nodes={bad}: must be a whole number in 1 … 20"):
            deal(bad)
    deal(20)


@pytest.mark.parametrize(
    ("deal", "message"),
    [
        (lambda: tasks.by_shards(LABELS, 10, shards_per_node=0, seed=0), r"shards_per_node=0: must .* 1 … 600"),
        (lambda: tasks.by_shards(LABELS, 10, shards_per_node=601, seed=0), r"shards_per_node=601.* fewer nodes"),
        (lambda: tasks.dirichlet(LABELS, 10, alpha=0.0, seed=0), r"alpha=0\.0: must be .* above 0"),
        (lambda: tasks.dirichlet(LABELS, 10, alpha=float("nan"), seed=0), r"alpha=nan"),
        (lambda: tasks.dirichlet(LABELS, 10, alpha=float("inf"), seed=0), r"alpha=inf.* use iid"),
        (lambda: tasks.dirichlet(LABELS, 10, alpha=1.0, minimum=601, seed=0), r"minimum=601: must .* 1 … 600"),
        (lambda: tasks.dirichlet(LABELS, 10, alpha=1.0, minimum=0, seed=0), r"minimum=0: must .* 1 … 600"),
        (lambda: tasks.label_skew(LABELS, 10, degree=1.1, seed=0), r"degree=1\.1: must .* at least 0 and at most 1"),
        (lambda: tasks.label_skew(LABELS, 10, degree=float("nan"), seed=0), r"degree=nan"),
        (lambda: tasks.by_stretches(LABELS, 10, shards_per_node=0, seed=0), r"shards_per_node=0: must .* 1 … 600"),
        (lambda: tasks.by_stretches(LABELS, 10, shards_per_node=601, seed=0), r"shards_per_node=601"),
        (
            lambda: tasks.label_quantity(LABELS, 4, classes_per_node=2, seed=0),
            r"classes_per_node=2: must .* 3 … 10.*4 ",
        ),
        (lambda: tasks.label_quantity(LABELS, 4, classes_per_node=11, seed=0), r"classes_per_node=11"),
        (
            lambda: tasks.label_quantity([0, 0, 0, 1], 4, classes_per_node=1, seed=0),
            r"class 1 has 1 samples, and 2 nodes would have it: .* more data",
        ),
        (lambda: tasks.by_shares(10, [1.0, 0.0], seed=0), r"shares\[1\]=0"),
        (lambda: tasks.by_shares(10, [100.0, 1.0], seed=0), r"shares\[1\]=1: node 1 would get none of the 10 samples"),
        (lambda: tasks.by_shares(2, [1.0, 1.0, 1.0], seed=0), r"shares=.*: 3 shares, must be 1 … 2, .* per node"),
        (lambda: tasks.quantity_skew(6000, 10, alpha=0.0, seed=0), r"alpha=0\.0: .* above 0"),
        (lambda: tasks.quantity_skew(6000, 10, alpha=1.0, minimum=601, seed=0), r"minimum=601: must .* 1 … 600"),
        (lambda: _groups.by_user(LABELS, 1, minimum=601, seed=0), r"minimum=601: none of the 10 groups .* has 600"),
        (lambda: _groups.natural(LABELS, minimum=601), r"minimum=601: none of the 10 groups"),
        (lambda: _groups.natural(LABELS, 11), r"num_nodes=11: must .* in 1 … 10"),
    ],
)
def test_bad_arguments_are_named(deal, message):
    with pytest.raises(ValueError, match=message):
        deal()


CALLS = {
    "iid": (tasks.iid, (60, 6), {"seed": 0}),
    "by_shards": (tasks.by_shards, (LABELS[:60], 6), {"shards_per_node": 2, "seed": 0}),
    "by_stretches": (tasks.by_stretches, (LABELS[:60], 6), {"shards_per_node": 2, "seed": 0}),
    "dirichlet": (tasks.dirichlet, (LABELS[:60], 6), {"alpha": 1.0, "minimum": 2, "seed": 0}),
    "label_skew": (tasks.label_skew, (LABELS[:60], 6), {"degree": 0.5, "seed": 0}),
    "label_quantity": (tasks.label_quantity, (LABELS[:60], 6), {"classes_per_node": 2, "seed": 0}),
    "quantity_skew": (tasks.quantity_skew, (60, 6), {"alpha": 1.0, "minimum": 2, "seed": 0}),
    "natural": (_groups.natural, (LABELS[:60], 6), {"minimum": 1, "seed": 0}),
    "by_user": (_groups.by_user, (LABELS[:60], 6), {"minimum": 1, "seed": 0}),
}
"""Legal calls, as (function, positional arguments, named arguments)."""
NO_WHOLE_NUMBER = [2.5, 2.0, float("nan"), float("inf"), -1, "2", [2], {}, True, 1j, np.array([2, 3]), np.array([])]


@pytest.mark.parametrize("wrong", NO_WHOLE_NUMBER, ids=repr)
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_counts_and_seeds_of_partitions_are_whole_numbers(call, wrong):
    function, (pool, num_nodes), named = call
    function = inspect.unwrap(function)  # behind the checked annotations
    function(pool, num_nodes, **named)
    with pytest.raises(ValueError, match=r"^num_nodes=.*: must be a whole number"):
        function(pool, wrong, **named)
    for name in named.keys() - {"alpha", "degree"}:
        with pytest.raises(ValueError, match=rf"^{name}=.*: must be a whole number"):
            function(pool, num_nodes, **named | {name: wrong})
    for name in named.keys() & {"alpha", "degree"}:
        if not isinstance(wrong, float) or not 0 < wrong < np.inf:
            with pytest.raises(ValueError, match=rf"^{name}=.*: must be a finite number"):
                function(pool, num_nodes, **named | {name: wrong})


WRONG_LABELS = {
    "a column": (np.zeros((60, 1), int), r"of shape \(60, 1\): .*labels\.ravel\(\)"),
    "one-hot": (np.eye(10, dtype=int)[LABELS[:60]], r"of shape \(60, 10\): .*labels\.argmax\(1\)"),
    "NaN": (np.where(np.arange(60) == 7, np.nan, 0.0), "sample 7 has the label nan"),
    "a fraction": (np.where(np.arange(60) == 9, 1.5, 1.0), r"sample 9 has the label 1\.5"),
    "infinity": ([0.0] * 4 + [np.inf], "sample 4 has the label inf"),
    "floats": (LABELS[:60].astype(float), r"type float64.*labels\.astype\(int\)"),
    "negative": (np.where(np.arange(60) == 3, -1, 0), r"sample 3 has the label -1"),
    "words": (["cat", "dog"] * 30, r"sample 0 has the label 'cat'.*np\.unique"),
    "objects": ([None] * 60, "sample 0 has the label None"),
    "truth": (np.ones(60, bool), r"type bool.*labels\.astype\(int\)"),
    "none": ([], r"of shape \(0,\)"),
    "ragged": ([[0], [1, 2]], "must be one class number per sample"),
    "a number": (np.array(5), r"=array\(5\): must be one class number per sample"),
}


TAKE_LABELS = {
    **{name: lambda labels, call=CALLS[name]: call[0](labels, 6, **call[2]) for name in list(CALLS)[1:6]},
    "class_counts": lambda labels: tasks.iid(60, 6, seed=0).class_counts(labels, 10),
    "plot": lambda labels: tasks.iid(60, 6, seed=0).plot(labels),
}


@pytest.mark.parametrize(("labels", "message"), WRONG_LABELS.values(), ids=WRONG_LABELS)
@pytest.mark.parametrize("take", TAKE_LABELS.values(), ids=TAKE_LABELS)
def test_labels_of_every_partition_are_class_numbers(take, labels, message):
    with pytest.raises(ValueError, match=f"labels.*{message}"):
        take(labels)


@pytest.mark.parametrize("deal", [_groups.natural, _groups.by_user])
@pytest.mark.parametrize("wrong", [[0.5] * 6, np.zeros((6, 1), int), "abcdef", None, [[0], [1, 2]], []], ids=repr)
def test_groups_are_whole_numbers(deal, wrong):
    with pytest.raises(ValueError, match=r"groups|none of the 0 groups"):
        inspect.unwrap(deal)(wrong, 2, seed=0)


def test_class_counts_need_the_labels_of_the_whole_pool():
    with pytest.raises(ValueError, match=r"59 labels, but the partition names sample 59"):
        tasks.iid(60, 6, seed=0).class_counts(LABELS[:59], 10)


def test_what_no_memory_holds_is_refused():
    with pytest.raises(ValueError, match=r"num_samples=3000000000: must be a whole number in 1 … 2147483647"):
        tasks.iid(3_000_000_000, 4, seed=0)
    with pytest.raises(ValueError, match=r"table of 6 nodes by 2000000000 classes would take about .* GiB"):
        tasks.iid(60, 6, seed=0).class_counts(LABELS[:60], 2_000_000_000)


SHARES = np.arange(60)


@pytest.mark.parametrize(
    ("indices", "offsets", "message"),
    [
        (SHARES, [0, 30, 20, 40, 60], r"offsets\[2\]=20 after offsets\[1\]=30: .* node 1 holds"),
        (SHARES, [0, 20, 40, 50, 600], r"offsets=.*: must run from 0 to the number of indices 60"),
        (SHARES, [0, 20, 40], r"offsets=.*: must run from 0 to .* 60"),
        (SHARES, [1, 20, 60], r"offsets=.*: must run from 0"),
        (SHARES, [-1, 20, 60], r"offsets\[0\]=-1"),
        (SHARES, [0], r"offsets=\[0\]: must run from 0"),
        (SHARES, [], r"offsets=\[\]: must run from 0"),
        (SHARES, [0.0, 60.0], "offsets=.*: must be whole numbers"),
        (SHARES, [0, float("nan"), 60], "offsets=.*: must be whole numbers"),
        (SHARES, [[0, 60]], r"offsets of shape \(1, 2\)"),
        (SHARES, np.array(60), r"offsets of shape \(\)"),
        (np.array([0, -1, 2]), [0, 3], r"indices\[1\]=-1: must be whole numbers in 0"),
        (np.array([0, 2**31, 2]), [0, 3], r"indices\[1\]=.*: must be whole numbers in 0"),
        (np.array([0, 2**32 + 1], np.uint64), [0, 2], r"indices\[1\]="),
        (np.array([0.0, 1.0]), [0, 2], "indices=.*: must be whole numbers"),
        (np.zeros((2, 1), int), [0, 2], r"indices of shape \(2, 1\)"),
        (np.ones(2, bool), [0, 2], "indices=.*: must be whole numbers"),
        ("ab", [0, 2], "indices='ab'"),
    ],
)
def test_a_partition_checks_itself(indices, offsets, message):
    with pytest.raises(ValueError, match=message):
        parts.Partition(indices, offsets)


def test_a_partition_of_lists_is_one_of_arrays():
    """Nodes may share samples, list one twice, or hold none: what a task needs more is checked by the task."""
    partition = parts.Partition([4, 1, 1, 4], [0, 2, 2, 4])
    assert partition.indices.dtype == partition.offsets.dtype == np.int32
    assert [list(partition.shard(node)) for node in range(3)] == [[4, 1], [], [1, 4]]
    again = parts.Partition(np.array([4, 1], np.uint8), np.array([0, 2], np.int64))
    assert again.indices.dtype == np.int32


def test_what_a_task_needs_is_checked():
    for indices, offsets, message in (([0, 5], [0, 1, 2], "beyond the 5 of apples"), ([0], [0, 1, 1], "node 1 holds")):
        partition = parts.Partition(np.array(indices, np.int32), np.array(offsets, np.int32))
        with pytest.raises(ValueError, match=message):
            parts.check_held(partition, 5, "apples")
    parts.check_held(parts.Partition(np.array([1, 1], np.int32), np.array([0, 1, 2], np.int32)), 5, "apples")


@pytest.mark.parametrize(
    ("indices", "offsets", "message"),
    [
        ([0, 1, 2], [0, 3, 3], "node 1 holds no sample"),
        ([0, 1, 3], [0, 2, 3], r"names sample 3, beyond the 3"),
        ([0, 1, 1], [0, 2, 3], "sample 1 is held 2 times"),
        ([0, 2], [0, 1, 2], r"1 samples belong to no node, the first is sample 1: .* complete=False"),
    ],
)
def test_check_partition_names_the_broken_rule(indices, offsets, message):
    partition = parts.Partition(np.array(indices, np.int32), np.array(offsets, np.int32))
    with pytest.raises(ValueError, match=message):
        parts.check_partition(partition, 3)


# --- picture ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_nodes", [1, 10, 100, 300])
def test_plot_writes_a_picture(tmp_path, num_nodes):
    partition = tasks.dirichlet(LABELS, num_nodes, alpha=0.3, seed=0)
    figure = partition.plot(LABELS, tmp_path / "partition.png")
    assert (tmp_path / "partition.png").read_bytes().startswith(b"\x89PNG")
    sizes, cells, bar = figure.axes
    assert (cells.get_xlabel(), cells.get_ylabel(), bar.get_ylabel()) == ("node", "class", "samples")
    assert all(float(tick).is_integer() for tick in cells.get_xticks())
    drawn = np.ma.filled(cells.collections[0].get_array(), 0)
    np.testing.assert_array_equal(drawn, partition.class_counts(LABELS, 10).T)
    np.testing.assert_array_equal([patch.get_height() for patch in sizes.patches], partition.sizes)


def test_plot_into_given_axes_and_with_names():
    figure = Figure()
    left, right = figure.subplots(1, 2)
    names = tuple("abcdefghij")
    assert tasks.iid(6000, 5, seed=0).plot(LABELS, ax=left, class_names=names) is figure
    assert [tick.get_text() for tick in left.get_yticklabels()] == list(names)
    assert not right.has_data()


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ({"labels": LABELS[:9]}, ValueError, "labels"),
        ({"labels": LABELS[:, None]}, ValueError, "labels of shape"),
        ({"labels": LABELS.astype(float)}, ValueError, "labels"),
        ({"labels": None}, ValueError, "labels"),
        ({"labels": np.where(LABELS == 3, -1, LABELS)}, ValueError, "labels.*-1"),
        ({"labels": []}, ValueError, "labels"),
        ({"path": 3}, TypeError, "path=3"),
        ({"path": "run.xyz"}, ValueError, "its ending"),
        ({"ax": Figure()}, TypeError, "ax="),
        ({"class_names": "abcdefghij"}, TypeError, "class_names="),
        ({"class_names": ("a", 2)}, TypeError, r"class_names\[1\]=2"),
        ({"class_names": ("a", "b")}, ValueError, "2 words for 10 classes"),
    ],
)
def test_a_bad_argument_of_plot_is_named(change, kind, words):
    partition = tasks.iid(len(LABELS), 5, seed=0)
    with pytest.raises(kind, match=words):
        inspect.unwrap(parts.Partition.plot)(partition, **({"labels": LABELS} | change))


def test_sixty_thousand_samples_on_a_thousand_nodes():
    labels = np.arange(60_000) % 10
    for deal in (
        tasks.iid(60_000, 1000, seed=0),
        tasks.by_shards(labels, 1000, shards_per_node=2, seed=0),
        tasks.dirichlet(labels, 1000, alpha=0.1, seed=0),
        tasks.label_skew(labels, 1000, degree=0.9, seed=0),
        tasks.by_stretches(labels, 1000, shards_per_node=2, seed=0),
        tasks.label_quantity(labels, 1000, classes_per_node=2, seed=0),
        tasks.by_shares(60_000, np.arange(1, 1001) ** -0.5, seed=0),
        tasks.quantity_skew(60_000, 1000, alpha=0.1, seed=0),
        _groups.natural(np.arange(60_000) // 20, 1000),
        _groups.by_user(np.arange(60_000) // 20, 1000, seed=0),
    ):
        parts.check_partition(deal, 60_000)
