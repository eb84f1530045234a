"""Epidemic learning and all-reduce on devices: laws of what is drawn, closed forms, replays; transfers in a batch."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plexus_runs import network, uneven
from problems import X0, N
from system_runs import CLOSE, LEARN, MODEL, STEPS, SUMS, check_ledger, learned, trained

from gossipjax.systems import activity, allreduce, epidemic
from gossipjax.systems._activity import COMPLETED
from gossipjax.systems._kernel.bandwidth import Capacities
from gossipjax.systems._kernel.exchange import Requests, _simulated, alone_rates, exchange, uncontended
from gossipjax.systems._rounds.tables import local_tables, oracle_tables
from theory.mixing import epidemic_factor, no_message_probability

# Transfers at known times.


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12))
def test_simulated_transfers(seed, count):
    """Unlimited: as if alone. Where no capacity is exceeded greedy and fair agree with that; bytes never exceed it."""
    rng = np.random.default_rng(seed)
    sender = rng.integers(0, 4, count)
    receiver = (sender + rng.integers(1, 4, count)) % 4
    asked = np.sort(rng.integers(0, 6, count).astype(float))
    requests = Requests(sender, receiver, asked, asked + rng.integers(0, 5, count))
    limits = Capacities(*rng.integers(1, 9, (2, 4)).astype(float))
    free = exchange(requests, 8.0, "unlimited", limits)
    plain = _simulated(requests, 8.0, "unlimited", limits)
    fits = uncontended(requests, free.ended_s, alone_rates(sender, receiver, limits), limits)
    for one, other in zip(free, plain, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)
    for sharing in ("greedy", "fair"):
        found = _simulated(requests, 8.0, sharing, limits)
        if fits:
            for one, other in zip(free, found, strict=True):
                np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)
        assert (found.sent_bytes <= free.sent_bytes + 1e-9).all()
        assert (found.ended_s >= free.ended_s - 1e-9).all()
        assert (found.ended_s <= requests.limit_s).all()


def test_one_after_another_is_no_competition():
    """A transfer that begins when another ends, at its sender or its receiver."""
    limits = Capacities(np.full(3, 4.0), np.full(3, 4.0))
    sender, receiver, asked = np.array([0, 0, 1]), np.array([1, 2, 2]), np.array([0.0, 2.0, 4.0])
    requests = Requests(sender, receiver, asked, np.full(3, 9.0))
    rates = alone_rates(sender, receiver, limits)
    assert uncontended(requests, asked + 2, rates, limits)
    assert not uncontended(requests, asked + 2.1, rates, limits)


# Epidemic learning.


def test_in_degrees_of_el_local():
    """Binomial(n - 1, s/(n - 1)): nobody chooses i with the known probability; all out-degrees are s."""
    n, s, rounds = 20, 2, 1500
    tables = local_tables(n, s, rounds, np.random.default_rng(0))
    live = tables.neighbors != np.arange(n)[None, :, None]
    degrees = live.sum(2)
    for table, mask in zip(tables.neighbors[:50], live[:50], strict=True):
        np.testing.assert_array_equal(np.bincount(table[mask], minlength=n), s)
        assert all(np.unique(row[row_mask]).size == row_mask.sum() for row, row_mask in zip(table, mask, strict=True))
    p = s / (n - 1)
    second_moment = (n - 1) * p * (1 - p) + s**2
    # Rounds are independent, nodes of one round are not.
    alone, square = (degrees == 0).mean(1), (degrees**2).mean(1)
    for found, expected in ((alone, no_message_probability(n, s)), (square, second_moment)):
        assert abs(found.mean() - expected) < 4 * found.std() / np.sqrt(rounds)


@pytest.mark.parametrize("local", [True, False])
def test_contraction_of_epidemic_rounds(local):
    """One round shrinks the deviation by the factor of theory, in mean."""
    n, s, rounds = 10, 3 if local else 4, 300
    draw = local_tables if local else oracle_tables
    tables = draw(n, s, rounds, np.random.default_rng(1))
    x = np.random.default_rng(2).standard_normal(n)
    x -= x.mean()
    live = tables.neighbors != np.arange(n)[None, :, None]
    mixed = (x + np.where(live, x[tables.neighbors], 0.0).sum(2)) / (1 + live.sum(2))
    factor = (mixed**2).sum(1) / (x**2).sum()
    assert abs(factor.mean() - epidemic_factor(n, s, local)) < 4 * factor.std() / np.sqrt(rounds)
    if not local:
        np.testing.assert_array_equal(live.sum(2), s)


def test_epidemic_learning_learns():
    """Against the rule: the mean of the own model and of those that came, on devices too slow for some."""
    plan = epidemic(uneven(N, seconds=0.05), 4, 6, round_seconds=1.0, bandwidth="greedy", seed=3, **LEARN)
    assert 0 < plan.round_dropped.sum() < plan.timeline.properties.traffic.sent
    x = X0.copy()
    for r in range(6):
        x = trained(x)
        found = plan.activities[plan.pattern[r]]
        came = [found.sender[(found.receiver == i) & (found.state == COMPLETED)].tolist() for i in range(N)]
        x = np.array([np.mean(x[[i, *came[i]]], axis=0) for i in range(N)])
    np.testing.assert_allclose(np.asarray(learned(plan.timeline).x), x, **CLOSE)
    check_ledger(plan)


@pytest.mark.parametrize("variant", ["local", "oracle"])
def test_epidemic_learning_with_barriers(variant):
    """Nothing is lost, and everybody sends s models a round."""
    plan = epidemic(uneven(N), 4, 6, variant=variant, round_seconds=None, seed=3, **LEARN)
    assert plan.round_dropped.sum() == 0
    np.testing.assert_array_equal(np.bincount(activity(plan).sender), 6 * 4)
    check_ledger(plan)


# All-reduce.


def test_allreduce():
    """Equal devices: c + 2 (n - 1) (L + M/(n r)); else step by step around the ring; the learning is averaging."""
    plan = allreduce(network(N), 4, **LEARN)
    steps = 2 * (N - 1)
    np.testing.assert_allclose(plan.round_seconds, 3 * STEPS * 0.1 + steps * (0.05 + MODEL / N / 1e5), **SUMS)
    np.testing.assert_allclose(plan.round_bytes, 2 * (N - 1) * MODEL, **SUMS)
    devices = uneven(N)
    rate = np.floor(devices.upload_bytes_per_second)
    left = {(i, 0): 3 * STEPS * devices.seconds_per_sample[i] for i in range(N)}
    for m in range(1, steps + 1):
        for i in range(N):
            before = (i - 1) % N
            came = left[before, m - 1] + devices.latency_seconds(before, i) if m > 1 else 0.0
            left[i, m] = max(left[i, m - 1], came) + MODEL / N / min(rate[i], rate[(i + 1) % N])
    slow = allreduce(devices, 4, **LEARN)
    came = [left[i, steps] + devices.latency_seconds(i, (i + 1) % N) for i in range(N)]
    np.testing.assert_allclose(slow.round_seconds, max(came), **SUMS)
    x = X0
    for _ in range(4):
        x = np.broadcast_to(trained(x).mean(0), x.shape)
    np.testing.assert_allclose(np.asarray(learned(slow.timeline).x), x, **CLOSE)
    assert "averages" in slow.timeline.properties


def test_bad_settings_of_the_others():
    with pytest.raises(ValueError, match="fanout=4"):
        epidemic(network(4), 4, 2, seed=0, **LEARN)
    with pytest.raises(ValueError, match="at least two"):
        allreduce(network(1), 2, **LEARN)
    with pytest.raises(ValueError, match="offline at times"):
        allreduce(network(3, changes=[(0.5, 1, False)]), 2, **LEARN)
