"""theory.users against the full moment system of theory.moments, closed forms, and the maximum of exponentials."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theory import moments
from theory import users as theory

# Two float64 routes to one number: solves and exponentials of matrices of up to 49 rows.
SAME = 1e-9
RATES = {"push_rate": 1.3, "gradient_rate": 0.8, "curvature": 1.2, "step": 0.3, "noise_std": 0.7}


def full_system(sizes, targets, weight):
    """Return the events of all users, and the target of each."""
    each = np.repeat(targets, sizes)
    n = len(each)
    pushes = np.full((n, n), RATES["push_rate"] / (n - 1))
    np.fill_diagonal(pushes, 0.0)
    gradient_rates, curvatures = np.full(n, RATES["gradient_rate"]), np.full(n, RATES["curvature"])
    own = {"step": RATES["step"], "noise_std": RATES["noise_std"], "weight": weight}
    return moments.push_gossip_sgd_events(pushes, gradient_rates, curvatures, each, **own), each


def about_the_optimum(Z, each, sizes):
    """Return bias, squared distance and consensus distance as :class:`theory.users.Users` has them."""
    n, optimum = len(each), each.mean()
    mean, square = Z[:n, n] - optimum, np.diag(Z)[:n] - 2 * optimum * Z[:n, n] + optimum**2
    first = np.cumsum(sizes) - sizes
    return mean[first], square[first], moments.consensus_and_mean(Z, n).consensus


@pytest.mark.parametrize(("sizes", "targets"), [((2, 3, 1), (1.0, -0.5, 2.0)), ((1, 1), (1.0, -1.0)), ((4,), (3.0,))])
@pytest.mark.parametrize("weight", [0.5, 0.3, 1.0])
def test_groups_have_the_moments_of_the_full_system(sizes, targets, weight):
    sizes, targets, times = np.array(sizes), np.array(targets), np.array([0.0, 0.7, 5.0])
    events, each = full_system(sizes, targets, weight)
    found = theory.stationary_users(sizes, targets, **RATES, weight=weight)
    for got, wanted in zip(found, about_the_optimum(moments.stationary_moments(events), each, sizes), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=SAME, atol=SAME)
    later = theory.users_at(times, sizes, targets, start=3.0, **RATES, weight=weight)
    start = moments.initial_moments(np.full(len(each), 3.0))
    for k, Z in enumerate(moments.transient_moments(events, start, times)):
        for got, wanted in zip(later, about_the_optimum(Z, each, sizes), strict=True):
            np.testing.assert_allclose(got[k], wanted, rtol=SAME, atol=SAME)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 10**6), st.integers(1, 10**6), st.floats(0.01, 100), st.floats(0.05, 1.9), st.floats(0, 2))
def test_bias_is_kappa_for_any_number_of_users(left, right, push_rate, step, noise):
    sizes, targets = np.array([left, right]), np.array([2.0, -1.0])
    rates = {"push_rate": push_rate, "gradient_rate": 1.0, "curvature": 1.0, "step": step}
    found = theory.stationary_users(sizes, targets, **rates, noise_std=noise)
    kappa = moments.heterogeneity_factor(
        left + right, gossip_rate=push_rate, gradient_rate=1.0, curvature=1.0, step=step
    )
    about = targets - np.average(targets, weights=sizes)
    np.testing.assert_allclose(found.bias, kappa * about, rtol=1e-6, atol=1e-9)  # sums of up to a million users
    assert (found.squared_distance >= found.bias**2 - 1e-9).all()


def test_consensus_of_billions_of_users_is_that_of_a_million():
    """The mean of all users varies by 1/n."""
    targets, few, many = np.array([2.0, -1.0]), np.array([10**6, 10**6]), np.array([10**10, 10**10])
    wanted, found = (theory.stationary_users(sizes, targets, **RATES).consensus for sizes in (few, many))
    assert found == pytest.approx(wanted, rel=1e-5)
    later = [theory.users_at(np.ones(1), sizes, targets, start=3.0, **RATES).consensus for sizes in (few, many)]
    np.testing.assert_allclose(later[1], later[0], rtol=1e-5)


def test_longest_silence_is_the_mean_of_the_maximum_of_exponentials():
    draws = np.random.default_rng(0).exponential(1 / 3.0, (20_000, 12)).max(axis=1)
    gap = draws.mean() - theory.longest_silence(12, gossip_rate=3.0)
    assert abs(gap) < 4 * draws.std() / np.sqrt(len(draws))


def test_steps_that_do_not_settle_and_lone_users_are_refused():
    with pytest.raises(ValueError, match="does not settle"):
        theory.stationary_users(np.array([2, 2]), np.array([1.0, -1.0]), **RATES | {"step": 6.0})
    with pytest.raises(ValueError, match="at least two users"):
        theory.stationary_users(np.array([1]), np.array([1.0]), **RATES)
