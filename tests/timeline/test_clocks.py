"""Clocks: rates, laws of intervals, equilibrium."""

import inspect

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from gossipjax.timeline import Clock, clocks, push_gossip
from gossipjax.timeline.clocks import deterministic, poisson, renewal, shifted_exponential, slowed, ticks


def gamma(rng, shape):
    """Mean 1, variance 1/4."""
    return rng.gamma(4.0, 0.25, shape)


# Clock, mean and variance of an interval.
KINDS = {
    "poisson": (poisson(2.0), 0.5, 0.25),
    "deterministic": (deterministic(0.4), 0.4, 0.0),
    "shifted_exponential": (shifted_exponential(0.3, 0.5), 0.8, 0.25),
    "renewal": (renewal(gamma, 1.0), 1.0, 0.25),
    "delayed": (clocks.delayed(renewal(gamma, 1.0), 0.5), 1.5, 0.25),
}
kinds = pytest.mark.parametrize(("clock", "mean", "variance"), KINDS.values(), ids=KINDS.keys())


def rng(seed=1):
    return np.random.default_rng(seed)


def by_node(times, nodes, num_nodes):
    order = np.argsort(nodes, kind="stable")
    return np.split(times[order], np.cumsum(np.bincount(nodes, minlength=num_nodes))[:-1])


def intervals(times, nodes, num_nodes):
    return np.concatenate([np.diff(own) for own in by_node(times, nodes, num_nodes)])


@kinds
def test_times_are_in_order_and_inside(clock, mean, variance):
    times, nodes = ticks(clock, 7, 20.0, rng())
    assert (np.diff(times) >= 0).all()
    assert times.min() >= 0
    assert times.max() < 20.0
    assert set(nodes.tolist()) == set(range(7))
    assert clocks.rate(clock) == pytest.approx(1 / mean, rel=1e-15)


@kinds
def test_stationary_rate(clock, mean, variance):
    """In equilibrium E N(t) = t / mean exactly, also for a short t; here t is 0.7 of an interval."""
    n, t = 20_000, 0.7 * mean
    counts = np.bincount(ticks(clock, n, t, rng())[1], minlength=n)
    error = max(counts.std(ddof=1), 1e-12) / np.sqrt(n)
    assert abs(counts.mean() - 0.7) / error < 4


@kinds
def test_stationary_first_tick(clock, mean, variance):
    """The first tick has the equilibrium law: mean E X²/(2 E X), density proportional to P(X > t)."""
    n = 20_000
    times, nodes = ticks(clock, n, 60.0 * mean, rng(2))
    first = np.full(n, np.inf)
    np.minimum.at(first, nodes, times)
    expected = (variance + mean**2) / (2 * mean)
    assert abs(first.mean() - expected) * np.sqrt(n) / first.std(ddof=1) < 4


def test_the_end_is_like_the_beginning():
    """No tick is missing where a node fell short of its first draws: the last two intervals hold 2 per node.

    The intervals have mean 1 and variance 4, so that a node in five falls short.
    """
    n = 20_000
    clock = renewal(lambda rng, shape: rng.gamma(0.25, 4.0, shape), 1.0)
    times, nodes = ticks(clock, n, 12.0, rng(11))
    counts = np.bincount(nodes[times >= 10.0], minlength=n)
    assert abs(counts.mean() - 2.0) < 4 * counts.std(ddof=1) / np.sqrt(n)


def test_law_of_the_first_tick():
    """c + Exp(e): the distribution function of the first tick is ∫₀ᵗ P(X > s) ds / (c + e)."""
    c, e, n = 0.7, 0.4, 20_000

    def cdf(t):
        return (np.minimum(t, c) + e * -np.expm1(-np.maximum(t - c, 0) / e)) / (c + e)

    first = np.full(n, np.inf)
    times, nodes = ticks(shifted_exponential(c, e), n, 30.0, rng(3))
    np.minimum.at(first, nodes, times)
    assert stats.kstest(first, cdf).pvalue > 1e-4
    # A pool of gamma intervals: density P(X > t)/E X.
    times, nodes = ticks(renewal(gamma, 1.0), n, 30.0, rng(3))
    first[:] = np.inf
    np.minimum.at(first, nodes, times)
    survival = stats.gamma(4.0, scale=0.25)
    grid = np.linspace(0, 12, 200_001)
    integral = np.concatenate([[0.0], np.cumsum(survival.sf(0.5 * (grid[1:] + grid[:-1])) * np.diff(grid))])
    assert stats.kstest(first, lambda t: np.interp(t, grid, integral)).pvalue > 1e-4


@kinds
@pytest.mark.parametrize("start", ["stationary", "fresh"])
def test_intervals_have_their_law(clock, mean, variance, start):
    """Long runs of few nodes: neither the first draws nor the ones drawn again may be biased."""
    n, duration = 50, 400 * mean
    own = intervals(*ticks(clock, n, duration, rng(4), start), n)
    # Intervals that the end cuts off are longer than others: their share is 1/400.
    assert abs(own.mean() / mean - 1) < 4 * np.sqrt(variance / own.size) / mean + 3e-3
    assert own.var(ddof=1) == pytest.approx(variance, rel=0.06, abs=1e-12)  # s.d. of the estimate: below 1.5 %
    # The count of a node has variance 400 · (variance/mean²) and, from a fresh start, lacks up to one tick.
    assert abs(own.size + n - 400 * n) <= 4 * np.sqrt(n * 400 * variance) / mean + n


def test_fresh_starts_begin_an_interval():
    times, nodes = ticks(deterministic(0.5), 3, 1.6, rng(), "fresh")
    np.testing.assert_array_equal(times, np.repeat([0.5, 1.0, 1.5], 3))
    np.testing.assert_array_equal(nodes, [0, 1, 2] * 3)
    first = ticks(shifted_exponential(2.0, 1e-3), 100, 3.0, rng(), "fresh")[0]
    assert first.min() > 2.0


def test_metronomes_do_not_drift():
    times, nodes = ticks(deterministic(0.1), 5, 1000.0, rng(5))
    for own in by_node(times, nodes, 5):
        assert own.size == 10_000
        # One rounding of a product and one of a sum, at 1000 s.
        np.testing.assert_allclose(own, own[0] + 0.1 * np.arange(own.size), rtol=0, atol=3e-13)


@given(st.floats(0.05, 2.0), st.floats(1e-3, 2.0), st.integers(1, 5), st.integers(0, 2**31), st.floats(0.1, 30.0))
def test_no_interval_is_shorter_than_the_shift(shift, extra, n, seed, window):
    """So a window of w seconds holds at most ⌊w/c⌋ + 1 ticks of a node."""
    times, nodes = ticks(shifted_exponential(shift, extra), n, 30.0, rng(seed))
    for own in by_node(times, nodes, n):
        # Ticks are sums of up to 30/c numbers below 30: roundings of 1e-14 each.
        assert (np.diff(own) >= shift - 1e-12).all()
        held = np.searchsorted(own, own + window - 1e-9) - np.arange(own.size)
        assert held.max(initial=0) <= np.floor(window / shift) + 1


def test_each_node_has_its_own_rate():
    rates = np.array([0.5, 1.0, 4.0])
    for clock in (poisson(rates), shifted_exponential(0.25 / rates, 0.75 / rates)):
        counts = np.bincount(ticks(clock, 3, 2000.0, rng(6))[1], minlength=3)
        # The variance of a renewal count is at most that of a Poisson count here.
        assert (np.abs(counts - 2000 * rates) < 4 * np.sqrt(2000 * rates)).all()
        np.testing.assert_allclose(clocks.rate(clock), rates, rtol=1e-15)


def test_slowed_nodes_and_stragglers():
    factors = clocks.stragglers(40, share=0.25, factor=3.0, seed=7)
    assert sorted(factors) == [1.0] * 30 + [3.0] * 10
    assert not np.array_equal(factors, clocks.stragglers(40, share=0.25, factor=3.0, seed=8))
    for clock in (deterministic(0.5), renewal(gamma, 1.0), shifted_exponential(0.3, 0.2)):
        slow = slowed(clock, factors)
        np.testing.assert_allclose(clocks.rate(slow), clocks.rate(clock) / factors, rtol=1e-15)
        counts = np.bincount(ticks(slow, 40, 600.0, rng(8))[1], minlength=40)
        expected = 600 * clocks.rate(slow)
        assert (np.abs(counts - expected) < 5 * np.sqrt(expected) + 1).all()  # 40 nodes, all less spread than Poisson


def test_busy_until_is_the_rest_of_the_shift():
    """With probability c/(c + e) a node computes at time 0, and a uniform part of c remains."""
    n, c, e = 20_000, 0.6, 0.9
    busy = clocks.schedule(shifted_exponential(c, e), n, 5.0, rng(9)).busy_until
    share = np.mean(busy > 0)
    assert abs(share - 0.4) < 4 * np.sqrt(0.4 * 0.6 / n)
    assert stats.kstest(busy[busy > 0] / c, "uniform").pvalue > 1e-4
    fresh = clocks.schedule(shifted_exponential(c, e), 3, 5.0, rng(9), "fresh").busy_until
    np.testing.assert_array_equal(fresh, [c, c, c])


def test_nodes_are_independent():
    """Counts of the superposition are Poisson: variance over nodes equals the mean."""
    counts = np.bincount(ticks(poisson(1.0), 20_000, 5.0, rng(10))[1], minlength=20_000)
    assert abs(counts.var(ddof=1) - 5.0) / (5.0 * np.sqrt(2 / 20_000) * 1.05) < 4


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: poisson(0.0), "rate=0:"),
        (lambda: poisson(np.array([1.0, np.nan])), r"rate\[1\]=nan"),
        (lambda: deterministic(-1.0), "period=-1"),
        (lambda: shifted_exponential(-0.1, 1.0), "shift=-0.1"),
        (lambda: shifted_exponential(0.1, 0.0), r"take deterministic\(period\)"),
        (lambda: renewal(gamma, 0.0), "mean=0.0"),
        (lambda: slowed(poisson(1.0), 0.0), "factors=0"),
        (lambda: clocks.delayed(poisson(1.0), -1.0), "dead_time=-1"),
        (lambda: clocks.stragglers(4, share=1.5, factor=2.0, seed=0), "share=1.5"),
        (lambda: clocks.stragglers(4, share=0.5, factor=0.0, seed=0), "factor=0.0"),
        (lambda: ticks(poisson(1.0), 3, 0.0, rng()), "duration=0.0"),
        (lambda: ticks(poisson(np.ones(2)), 3, 1.0, rng()), "pass one number, or 3"),
        (lambda: ticks(renewal(lambda rng, shape: -np.ones(shape), 1.0), 3, 1.0, rng()), "sampler returns.*at least 0"),
    ],
)
def test_bad_clocks_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


UNITS = {
    "Seconds": "second",
    "Rate": "per node and second",
    "Multiples": "multiples",
}


@pytest.mark.parametrize(
    ("build", "given"),
    [
        (poisson, {}),
        (deterministic, {}),
        (shifted_exponential, {"shift": 1.0, "mean_extra": 1.0}),
        (slowed, {"clock": poisson(1.0)}),
        (clocks.delayed, {"clock": poisson(1.0)}),
        (Clock, {"shift": 1.0, "mean_extra": 1.0}),
    ],
)
def test_the_type_of_a_parameter_names_the_unit_that_its_error_names(build, given):
    annotations = inspect.unwrap(build).__annotations__
    numbers = {name: unit for name, unit in annotations.items() if unit in UNITS}
    assert numbers
    for name, unit in numbers.items():
        with pytest.raises(ValueError, match=f"{name}=-1.*{UNITS[unit]}"):
            build(**given | {name: -1.0})


def test_numbers_are_rates():
    assert clocks.as_clock("gossip", 2.0).mean_extra == 0.5
    clock = Clock(0.1, 0.2)
    assert clocks.as_clock("gossip", clock) is clock
    with pytest.raises(TypeError, match="gossip='fast': must be a clock, or its Poisson rate per second"):
        inspect.unwrap(clocks.as_clock)("gossip", "fast")


def often_zero(rng, shape):
    """Mean 1; zero with probability 3/4."""
    return 4.0 * (rng.random(shape) < 0.25)


def test_intervals_of_zero_are_legal_and_none_is_drawn_again():
    """The first intervals of two nodes are both 0 with probability 9/16."""
    clock, runs = renewal(often_zero, 1.0), 1000
    firsts = [clocks.schedule(clock, 2, 1.0, rng(seed), "fresh") for seed in range(runs)]
    both = np.mean([set(nodes[times == 0].tolist()) == {0, 1} for times, nodes, _ in firsts])
    # Five standard errors.
    assert abs(both - 9 / 16) < 5 * np.sqrt(9 / 16 * 7 / 16 / runs)


def test_a_clock_that_draws_zeros_only_is_refused():
    never = renewal(lambda rng, shape: np.zeros(shape), 1.0)
    for start in ("fresh", "stationary"):
        with pytest.raises(ValueError, match="intervals of 0 s in a row: time would not advance"):
            clocks.schedule(never, 2, 1.0, rng(), start)


@pytest.mark.parametrize(
    ("name", "plan"),
    [
        ("gossip", lambda: push_gossip(5, 1.0, compute=None, gossip=np.array([1, 2]), seed=0)),
        ("compute", lambda: push_gossip(5, 1.0, compute=poisson(np.array([1.0, 2.0])), gossip=1.0, seed=0)),
        ("clock", lambda: clocks.schedule(poisson(np.array([1.0, 2.0])), 5, 1.0, rng())),
    ],
)
def test_a_clock_of_other_nodes_is_refused_by_its_name(name, plan):
    with pytest.raises(ValueError, match=rf"^{name} of shape \(2,\): pass one number, or 5"):
        plan()
