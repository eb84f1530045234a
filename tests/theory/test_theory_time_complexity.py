"""Times of parallel SGD by loops over the formulas of the papers, by closed forms, and by collecting gradients.

The papers state times as minima over the number of workers that are used: Tyurin and Richtárik 2024, arXiv 2405.16218
(definition of the equilibrium time; theorems on Fragile and Amelie SGD), Tyurin and Richtárik 2023, arXiv 2305.12387
(theorem on Rennala SGD), Maranjyan, Tyurin and Richtárik 2025, arXiv 2501.16168 (lemma on R consecutive updates), and
Begunov and Tyurin 2026, arXiv 2602.03802 (m-synchronous SGD). No number is copied: each test works out its own.
"""

import heapq
import inspect

import numpy as np
import pytest

from theory import time_complexity as times

THREE = np.array([1.0, 2.0, 4.0])


@pytest.mark.parametrize(("s", "seconds"), [(1, 1.0), (3, 2.0), (7, 4.0)])
def test_three_workers(s, seconds):
    """In 1, 2 and 4 s they have 1, 2 + 1 and 4 + 2 + 1 gradients. The lemma: 2 min (5/1, 3/(3/4), (7/3)/(7/12)) = 8."""
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


@pytest.mark.parametrize("hop", [0.1, 100.0, 1e-4])
def test_a_line(hop):
    """n = 101 equal workers, the pivot in the middle: of ways there and back of up to d hops, 2d + 1 workers.

    With long hops one worker does all alone, and with short ones all 101 have 100 gradients in the time of one.
    """
    at = np.arange(101)
    found, pivot = times.fragile_time(100, np.ones(101), hop / 2 * np.abs(at[:, None] - at))
    expected = min(max(hop * d, 1.0, 100 / (2 * d + 1)) for d in range(51))
    assert found == pytest.approx(expected, rel=1e-12)
    assert expected == {0.1: pytest.approx(100 / 45), 100.0: 100.0, 1e-4: 1.0}[hop]
    assert hop != 0.1 or 22 <= pivot <= 78  # 22 hops to both sides


def test_heterogeneous_workers():
    """Mean h is 25 and the largest 97, so that max(5, 97, 400/4 · 25) = 2500, against 97 (1 + 400/4) = 9797."""
    compute = np.array([1.0, 1, 1, 97])
    assert times.amelie_time(400, compute, np.full(4, 5.0)) == pytest.approx(2500, rel=1e-12)
    assert times.minibatch_time(400, compute, np.full(4, 5.0)) == pytest.approx(9797, rel=1e-12)
    assert times.harmonic_size(np.array([3, 3, 3])) == pytest.approx(9, rel=1e-12)
    assert times.harmonic_size(np.array([1, 100, 100, 100])) == pytest.approx(16 / 1.03, rel=1e-12)


@pytest.mark.parametrize("s", [0, 1, 10, 1000])
@pytest.mark.parametrize("power", [0, 0.5, 1, 2, 3])
def test_servers_without_latency(power, s):
    """The formulas of three servers, by a loop over m, for workers in any order; equal workers gain nothing."""
    compute = [float(i) ** power for i in range(1, 201)]
    first, rennala, total = [], [], 0.0
    for m, h in enumerate(compute, start=1):
        total += 1 / h
        first.append(h * (1 + s / m))
        rennala.append((1 + s / m) / (total / m))
    mixed = np.random.default_rng(0).permutation(compute)
    found, m = times.m_synchronous_time(s, mixed)
    assert found == pytest.approx(min(first), rel=1e-12)
    assert first[m - 1] == pytest.approx(min(first), rel=1e-12)
    assert times.rennala_time(s, mixed) == pytest.approx(min(rennala), rel=1e-12)
    assert times.minibatch_time(s, mixed) == pytest.approx(first[-1], rel=1e-12)
    if power == 0:
        assert found == pytest.approx(times.rennala_time(s, mixed), rel=1e-12)


def test_the_first_m_lose_at_most_a_harmonic_number():
    """If no m takes less than T, ``1/h_m ≤ (1 + s/m)/T``, so Rennala takes ``(k + s)/Σ_{m≤k} 1/h_m ≥ T/H_n``.

    Workers that attain all of these bounds, and s that is large, leave nothing but the harmonic number.
    """
    n, rng = 50, np.random.default_rng(0)
    harmonic = sum(1 / m for m in range(1, n + 1))
    for _ in range(100):
        s, compute = rng.lognormal(2, 3), rng.lognormal(0, 2, n)
        assert 1 - 1e-12 <= times.m_synchronous_time(s, compute)[0] / times.rennala_time(s, compute) <= harmonic
    hardest = 1 / (1 + 1e9 / np.arange(1, n + 1))
    assert times.m_synchronous_time(1e9, hardest)[0] == pytest.approx(1, rel=1e-12)
    assert times.rennala_time(1e9, hardest) == pytest.approx(1 / harmonic, rel=1e-6)
    assert harmonic < 1 + np.log(n)


def test_exponential_times():
    assert times.exponential_step(100, 100) == pytest.approx(sum(1 / k for k in range(1, 101)), rel=1e-12)
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
