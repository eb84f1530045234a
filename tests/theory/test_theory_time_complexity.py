"""Times of parallel SGD: the numbers of the sheet, and collecting by a loop over the workers' gradients."""

import heapq
import inspect

import numpy as np
import pytest

from theory import time_complexity as times

THREE = np.array([1.0, 2.0, 4.0])
RATIOS = {
    0.5: (1.142, 1.623, 1.864, 1.954),
    1: (1, 1.684, 3.105, 4.903),
    2: (1, 1.152, 1.428, 1.568),
    3: (1, 1.031, 1.144, 1.187),
    0: (1, 1, 1, 1),
}


@pytest.mark.parametrize(("s", "seconds"), [(1, 1.0), (3, 2.0), (7, 4.0)])
def test_three_workers(s, seconds):
    assert times.equilibrium_time(s, THREE) == pytest.approx(seconds, rel=1e-12)
    if s > 1:
        assert times.collection_time(s, THREE) == pytest.approx(seconds, rel=1e-12)
    assert times.updates_time(4, THREE) == pytest.approx(8.0, rel=1e-12)


def collected(count, compute, reach):
    """One gradient after another, the next to arrive first."""
    heap = [(tau + h, tau, h, 1) for h, tau in zip(compute, reach, strict=True)]
    heapq.heapify(heap)
    for _ in range(count):
        now, tau, h, number = heapq.heappop(heap)
        heapq.heappush(heap, (tau + (number + 1) * h, tau, h, number + 1))
    return now


@pytest.mark.parametrize(("ways", "factor"), [(False, 2), (True, 3)])
def test_collecting_takes_the_equilibrium_time_to_twice_it_or_with_ways_to_thrice_it(ways, factor):
    rng = np.random.default_rng(0)
    for _ in range(150):
        n, count = int(rng.integers(1, 30)), int(rng.integers(1, 60))
        compute, reach = rng.lognormal(0, 1.5, n), rng.exponential(size=n) * rng.lognormal(0, 1.5) * ways
        seconds = times.collection_time(count, compute, reach)
        equilibrium = times.equilibrium_time(count, compute, reach)
        assert seconds == pytest.approx(collected(count, compute, reach), rel=1e-12)
        assert equilibrium * (1 - 1e-12) <= seconds <= factor * equilibrium * (1 + 1e-12)


@pytest.mark.parametrize(("ways", "seconds", "factor"), [(0, 2.0, 2), (1, 3.01, 3)])
def test_the_worst_case_nearly_attains_the_factors(ways, seconds, factor):
    """100 equal workers are to give 101 gradients: each must begin a second one, and a way may be as long as t*."""
    compute, reach = np.ones(100), np.full(100, 1.01 * ways)
    assert times.equilibrium_time(101, compute, reach) == pytest.approx(1.01, rel=1e-12)
    assert times.collection_time(101, compute, reach) == pytest.approx(seconds, rel=1e-12)
    assert collected(101, compute, reach) == pytest.approx(seconds, rel=1e-12)
    assert seconds > 0.98 * factor * 1.01


@pytest.mark.parametrize(("hop", "seconds"), [(0.1, 20 / 9), (100.0, 100.0), (1e-4, 1.0)])
def test_a_line(hop, seconds):
    """n = 101 equal workers; the pivot is in the middle, and a way there and back counts as the hop time."""
    at = np.arange(101)
    ways = hop / 2 * np.abs(at[:, None] - at)
    found, pivot = times.fragile_time(100, np.ones(101), ways)
    assert found == pytest.approx(seconds, rel=1e-4)
    assert hop != 0.1 or 22 <= pivot <= 78


def test_heterogeneous_workers():
    compute = np.array([1.0, 1, 1, 97])
    assert times.amelie_time(400, compute, np.full(4, 5.0)) == pytest.approx(2500, rel=1e-12)
    assert times.minibatch_time(400, compute, np.full(4, 5.0)) == pytest.approx(9797, rel=1e-12)
    assert times.harmonic_size(np.array([3, 3, 3])) == pytest.approx(9, rel=1e-12)
    assert times.harmonic_size(np.array([1, 100, 100, 100])) == pytest.approx(16 / 1.03, rel=1e-12)


@pytest.mark.parametrize("power", RATIOS)
def test_first_m_over_rennala(power):
    compute = np.arange(1, 1001.0) ** power
    ratios = [times.m_synchronous_time(s, compute)[0] / times.rennala_time(s, compute) for s in (1, 10, 100, 1000)]
    np.testing.assert_allclose(ratios, RATIOS[power], atol=6e-4)


@pytest.mark.parametrize(("power", "few", "many"), [(0.5, 8.2, 2.0), (1, 154.7, 9.8), (2, 105748, 3133)])
def test_everybody_over_rennala(power, few, many):
    compute = np.arange(1, 1001.0) ** power
    found = [times.minibatch_time(s, compute) / times.rennala_time(s, compute) for s in (10, 1000)]
    np.testing.assert_allclose(found, [few, many], rtol=0.03)


def test_exponential_times():
    assert times.exponential_step(100, 100) == pytest.approx(5.187, abs=5e-4)
    assert times.exponential_step(100, 1) == pytest.approx(0.01, rel=1e-12)
    drawn = np.sort(np.random.default_rng(0).exponential(size=(20_000, 8)), axis=1)[:, 4]
    assert abs(drawn.mean() - times.exponential_step(8, 5)) < 4 * drawn.std() / np.sqrt(drawn.size)


def test_bad_arguments_are_named():
    for formula, arguments, name in (
        (times.equilibrium_time, (-1, THREE), "noise_ratio"),
        (times.equilibrium_time, (1, THREE, np.zeros(2)), "reach"),
        (times.fragile_time, (1, THREE, np.zeros((2, 2))), "ways"),
        (times.collection_time, (0, THREE), "count"),
        (times.exponential_step, (3, 4), "m=4"),
        (times.harmonic_size, (np.zeros(2),), "counts"),
    ):
        with pytest.raises(ValueError, match=name):
            inspect.unwrap(formula)(*arguments)  # annotations would refuse some of these first
