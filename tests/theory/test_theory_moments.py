"""theory.moments: the moment system against the algorithms themselves, closed forms and recorded values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from theory import moments as theory
from theory import spectral, staleness

# Two float64 routes through linear systems of condition below 1e5.
SAME = 1e-9
SETTINGS = settings(max_examples=15, deadline=None)

RING: dict[str, Any] = {
    "gradient_rates": np.array([1.0, 2.0, 0.5, 1.0, 1.0, 3.0]),
    "curvatures": np.array([1.0, 0.5, 2.0, 1.0, 1.0, 0.7]),
    "targets": np.array([1.0, -1.0, 0.5, 0.0, 2.0, -0.5]),
    "step": 0.15,
    "noise_std": 0.8,
}
FIVE: dict[str, Any] = {
    "gradient_rates": np.ones(5),
    "curvatures": np.ones(5),
    "targets": np.array([1.0, -1.0, 0.0, 2.0, 0.5]),
    "step": 0.25,
    "noise_std": 0.7,
}


def ring(n: int, rate: float) -> np.ndarray:
    return rate / 2 * (np.roll(np.eye(n), 1, axis=0) + np.roll(np.eye(n), -1, axis=0))


def complete(n: int, rate: float) -> np.ndarray:
    return rate / (n - 1) * (1.0 - np.eye(n))


def random_problem(seed: int, n: int) -> dict:
    rng = np.random.default_rng(seed)
    return {
        "push_rates": rng.uniform(0.1, 2.0, (n, n)),
        "gradient_rates": rng.uniform(0.3, 2.0, n),
        "curvatures": rng.uniform(0.3, 2.0, n),
        "targets": rng.normal(size=n),
        "step": 0.2,
        "noise_std": 0.7,
    }


def simulate(push_rates, problem, *, stale=False, weight=0.5, replicas=4000, events=500, seed=0):
    """Run the algorithm on replicas, one event each at a time (jump chain of constant total rate); the last models."""
    rng = np.random.default_rng(seed)
    n, pairs = len(push_rates), np.argwhere(push_rates > 0)
    law = np.concatenate([push_rates[push_rates > 0], problem["gradient_rates"]])
    a, b, step = problem["curvatures"], problem["targets"], problem["step"]
    x, snapshot = np.zeros((replicas, n)), np.zeros((replicas, n))
    for event in rng.choice(len(law), size=(events, replicas), p=law / law.sum()):
        rows = np.flatnonzero(event < len(pairs))
        i, j = pairs[event[rows]].T
        x[rows, j] += weight * (x[rows, i] - x[rows, j])
        rows = np.flatnonzero(event >= len(pairs))
        i = event[rows] - len(pairs)
        seen = (snapshot if stale else x)[rows, i]
        noise = problem["noise_std"] * rng.standard_normal(len(rows))
        x[rows, i] -= step * (a[i] * (seen - b[i]) + noise)
        snapshot[rows, i] = x[rows, i]
    return x


def z_score(samples: np.ndarray, predicted: float) -> float:
    return float((samples.mean() - predicted) / (samples.std(ddof=1) / np.sqrt(len(samples))))


@pytest.mark.parametrize(
    ("stale", "push_rates", "problem", "consensus", "mean_square"),
    [(False, ring(6, 1.5), RING, 0.0638344, 0.088887), (True, complete(5, 1.5), FIVE, 0.0832687, 0.326472)],
)
def test_gossip_sgd_has_the_recorded_values_and_agrees_with_simulation(
    stale, push_rates, problem, consensus, mean_square
):
    """Six digits from another program; then the algorithm itself on 4000 replicas, |z| < 4."""
    n = len(push_rates)
    build = theory.stale_gradient_events if stale else theory.push_gossip_sgd_events
    exact = theory.consensus_and_mean(theory.stationary_moments(build(push_rates, **problem)), n)
    assert exact.consensus == pytest.approx(consensus, rel=5e-6)
    assert exact.mean_square == pytest.approx(mean_square, rel=5e-6)
    x = simulate(push_rates, problem, stale=stale, seed=stale)
    assert abs(z_score(x.var(axis=1), exact.consensus)) < 4
    assert abs(z_score(x.mean(axis=1) ** 2, exact.mean_square)) < 4
    assert x.var(axis=1).mean() == pytest.approx(exact.consensus, rel=0.08)  # and the test can see 8 %


@pytest.mark.parametrize("weight", [0.3, 0.5, 1.0])
@pytest.mark.parametrize("n", [2, 7, 25])
def test_complete_graph_equals_the_moment_system(n, weight):
    events = theory.push_gossip_sgd_events(
        complete(n, 1.3), np.full(n, 0.9), np.full(n, 1.4), np.zeros(n), step=0.2, noise_std=0.6, weight=weight
    )
    full = theory.consensus_and_mean(theory.stationary_moments(events), n)
    small = theory.complete_graph_moments(
        n, push_rate=1.3, gradient_rate=0.9, curvature=1.4, step=0.2, noise_std=0.6, weight=weight
    )
    assert small.consensus == pytest.approx(full.consensus, rel=SAME)
    assert small.mean_square == pytest.approx(full.mean_square, rel=SAME)


def test_large_complete_graphs_have_the_limit_and_the_linear_speed_up():
    settings_ = {"push_rate": 2.0, "gradient_rate": 0.9, "curvature": 1.4, "step": 0.2, "noise_std": 0.6}
    h, noise = 0.28, (0.2 * 0.6) ** 2
    large = theory.complete_graph_moments(10**5, **settings_)
    limit = 0.9 * noise / (0.9 * (2 * h - h * h) + 1.0)
    assert large.consensus == pytest.approx(limit, rel=1e-4)  # error O(1/n)
    small = theory.complete_graph_moments(10**4, **settings_)
    assert 10**5 * large.mean_square == pytest.approx(10**4 * small.mean_square, rel=1e-3)


def test_heterogeneity_factor_is_the_mean_of_the_moment_system():
    n, targets = 5, FIVE["targets"]
    for weight in (0.3, 0.5):
        events = theory.push_gossip_sgd_events(complete(n, 1.5), **FIVE, weight=weight)
        mean = theory.stationary_moments(events)[:n, n]
        kappa = theory.heterogeneity_factor(
            n, gossip_rate=1.5, gradient_rate=1.0, curvature=1.0, step=0.25, weight=weight
        )
        np.testing.assert_allclose(mean - targets.mean(), kappa * (targets - targets.mean()), rtol=SAME, atol=1e-12)


def test_stationary_moments_satisfy_the_balance_equation():
    events = theory.stale_gradient_events(**random_problem(3, 4))
    Z = theory.stationary_moments(events)
    balance = sum(e.rate * (e.matrix @ Z @ e.matrix.T + e.covariance - Z) for e in events)
    np.testing.assert_allclose(balance, 0.0, atol=1e-11 * np.abs(Z).max())  # rounding of a solve
    assert Z[-1, -1] == 1.0
    np.testing.assert_array_equal(Z, Z.T)
    assert np.linalg.eigvalsh(Z)[0] > -1e-12


@pytest.mark.parametrize("stale", [False, True])
def test_transient_is_the_matrix_exponential_and_tends_to_the_stationary_moments(stale):
    problem = random_problem(4, 3)
    events = (theory.stale_gradient_events if stale else theory.push_gossip_sgd_events)(**problem)
    x0 = np.random.default_rng(0).normal(size=len(events[0].matrix) - 1)
    start = theory.initial_moments(x0)
    Z = theory.transient_moments(events, start, np.array([0.0, 0.7, 300.0]))
    np.testing.assert_array_equal(Z[0], start)
    # One dense exponential of the flow with the noise as a further constant entry.
    d = len(start)
    flow = np.zeros((d * d + 1, d * d + 1))
    for event in events:
        flow[:-1, :-1] += event.rate * (np.kron(event.matrix, event.matrix) - np.eye(d * d))
        flow[:-1, -1] += event.rate * event.covariance.ravel()
    dense = scipy.linalg.expm(0.7 * flow) @ np.append(start.ravel(), 1.0)
    np.testing.assert_allclose(Z[1].ravel(), dense[:-1], rtol=SAME, atol=1e-12)
    # 300 units at relaxation rates above 0.1: the start is forgotten to below 1e-12.
    np.testing.assert_allclose(Z[2], theory.stationary_moments(events), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("weight", [0.3, 0.5, 1.0])
def test_push_averaging_has_its_closed_forms(weight):
    x0 = np.random.default_rng(1).normal(size=6)
    V0 = 6 * np.var(x0)
    events = theory.push_events(complete(6, 1.7), weight=weight)
    Z = theory.transient_moments(events, theory.initial_moments(x0), np.array([0.8, 60.0]))
    after = theory.consensus_and_mean(Z[0], 6)
    assert 6 * after.consensus == pytest.approx(V0 * staleness.push_decay(6, 1.7, 0.8, weight), rel=SAME)
    settled = theory.consensus_and_mean(Z[1], 6)  # exp(-60) of V0 is left at the most
    variance = staleness.consensus_variance(6, weight, V0)
    assert settled.mean_square - x0.mean() ** 2 == pytest.approx(variance, rel=1e-8)
    assert theory.averaging_second_moment_rate(complete(6, 1.7), event="push", weight=weight) == pytest.approx(
        -np.log(staleness.push_decay(6, 1.7, 1.0, weight)), rel=SAME
    )


def test_pairwise_averaging_on_the_complete_graph():
    """E V(t) = V0 exp(-λtn/(n-1)), V0 = 3.676208, t = 1.5, n = 9: 0.68003018, recorded by another program."""
    x0 = np.random.default_rng(2).normal(size=9)
    x0 *= np.sqrt(3.676208 / (9 * np.var(x0)))
    events = theory.pairwise_events(complete(9, 1.0))
    assert len(events) == 36
    Z = theory.transient_moments(events, theory.initial_moments(x0), np.array([1.5]))[0]
    after = theory.consensus_and_mean(Z, 9)
    assert 9 * after.consensus == pytest.approx(0.68003018, abs=1e-7)  # V0 has seven digits
    assert after.mean_square == pytest.approx(x0.mean() ** 2, rel=SAME)
    assert theory.averaging_second_moment_rate(complete(9, 1.0)) == pytest.approx(9 / 8, rel=SAME)


def graphs() -> list[np.ndarray]:
    star = np.zeros((6, 6))
    star[0, 1:] = star[1:, 0] = 1.0
    cube = np.array([[float(bin(a ^ b).count("1") == 1) for b in range(8)] for a in range(8)])
    return [star, cube, 2.0 * ring(7, 1.0), np.eye(5, k=1) + np.eye(5, k=-1)]


@pytest.mark.parametrize("adjacency", graphs())
def test_pairwise_averaging_rate_lies_between_its_bounds(adjacency):
    """Between n(1 − λ₂(W̄)), the rate of the one-event bound, and twice it."""
    n = len(adjacency)
    bound = n * (1.0 - spectral.pairwise_contraction(adjacency))
    rate = theory.averaging_second_moment_rate(adjacency / adjacency.sum(axis=1, keepdims=True))
    assert bound * (1 - 1e-9) <= rate <= 2 * bound * (1 + 1e-9)


@pytest.mark.parametrize("event", ["exchange", "push"])
@pytest.mark.parametrize("adjacency", graphs())
def test_averaging_rate_is_the_late_slope_of_the_transient(event, adjacency):
    n = len(adjacency)
    rates = adjacency / adjacency.sum(axis=1, keepdims=True)
    rate = theory.averaging_second_moment_rate(rates, event=event)
    build = theory.pairwise_events if event == "exchange" else theory.push_events
    x = np.random.default_rng(7).normal(size=n)
    Z = theory.transient_moments(build(rates), theory.initial_moments(x - x.mean()), np.array([14.0, 15.0]) / rate)
    V = [theory.consensus_and_mean(z, n).consensus for z in Z]
    # V is down to 1e-6 of its start, far above rounding; the second mode is at most 1 % of it by then.
    assert np.log(V[0] / V[1]) == pytest.approx(1.0, rel=0.01)


def test_a_disconnected_network_never_agrees():
    rates = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    assert theory.averaging_second_moment_rate(rates) == pytest.approx(0.0, abs=1e-12)
    assert theory.averaging_second_moment_rate(np.zeros((3, 3))) == 0.0


@SETTINGS
@given(seed=st.integers(0, 2**20), n=st.integers(2, 5), stale=st.booleans())
def test_optimum_stays_noise_adds_quadratically_and_targets_shift(seed, n, stale):
    problem = random_problem(seed, n)
    build = theory.stale_gradient_events if stale else theory.push_gossip_sgd_events

    def solve(**changes):
        return theory.stationary_moments(build(**{**problem, **changes}))

    rest = theory.consensus_and_mean(solve(noise_std=0.0, targets=np.full(n, 1.7)), n)
    assert rest.consensus == pytest.approx(0.0, abs=1e-10)
    assert rest.mean_square == pytest.approx(1.7**2, rel=SAME)
    quiet, noisy, loud = (solve(noise_std=s) for s in (0.0, 0.7, 1.4))
    np.testing.assert_allclose(loud - quiet, 4.0 * (noisy - quiet), rtol=1e-7, atol=1e-10)
    shifted = solve(targets=problem["targets"] + 2.5)
    move = np.eye(len(noisy))
    move[:-1, -1] = 2.5
    np.testing.assert_allclose(shifted, move @ noisy @ move.T, rtol=1e-8, atol=1e-9)


@SETTINGS
@given(seed=st.integers(0, 2**20), n=st.integers(2, 5))
def test_relabelling_nodes_permutes_the_moments(seed, n):
    problem = random_problem(seed, n)
    order = np.random.default_rng(seed).permutation(n)
    arrays = ("gradient_rates", "curvatures", "targets")
    permuted = {**problem, **{name: problem[name][order] for name in arrays}}
    permuted["push_rates"] = problem["push_rates"][np.ix_(order, order)]
    Z = theory.stationary_moments(theory.push_gossip_sgd_events(**problem))
    index = np.append(order, n)
    relabelled = theory.stationary_moments(theory.push_gossip_sgd_events(**permuted))
    np.testing.assert_allclose(relabelled, Z[np.ix_(index, index)], rtol=1e-8, atol=1e-10)


def test_step_that_does_not_settle_in_mean_square_is_refused():
    """The mean settles for step · curvature < 2; one node alone, (1 − h)² < 1, has the same threshold."""
    for n in (2, 4):
        problem = {"gradient_rates": np.ones(n), "targets": np.zeros(n), "step": 1.0, "noise_std": 1.0}
        theory.stationary_moments(
            theory.push_gossip_sgd_events(complete(n, 0.0), curvatures=np.full(n, 1.99), **problem)
        )
        with pytest.raises(ValueError, match="does not settle"):
            theory.stationary_moments(
                theory.push_gossip_sgd_events(complete(n, 0.0), curvatures=np.full(n, 2.01), **problem)
            )


def test_events_of_two_builders_are_joined_by_addition():
    """Exchange gossip SGD with equal targets: the mean of every node follows plain SGD."""
    n, h = 4, 0.2
    events = theory.pairwise_events(complete(n, 1.0)) + theory.gradient_events(
        np.ones(n), np.ones(n), np.full(n, 3.0), step=h, noise_std=0.0
    )
    Z = theory.transient_moments(events, theory.initial_moments(np.zeros(n)), np.array([1.5]))[0]
    np.testing.assert_allclose(Z[:n, n], 3.0 * (1.0 - np.exp(-1.5 * h)), rtol=SAME)


def bad_event(**changes) -> theory.LinearEvent:
    good = {"rate": 1.0, "matrix": np.diag([0.5, 1.0]), "covariance": np.zeros((2, 2))}
    return theory.LinearEvent(**{**good, **changes})


COMPLETE = {"gradient_rate": 1.0, "curvature": 1.0, "step": 0.1}


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: theory.stationary_moments([]), "empty"),
        (lambda: theory.stationary_moments([bad_event(matrix=np.eye(1), covariance=np.eye(1))]), "1 state entries"),
        (lambda: theory.stationary_moments([bad_event(matrix=np.eye(52))]), "52 state entries"),
        (lambda: theory.stationary_moments([bad_event(), bad_event(matrix=np.eye(3))]), "event 1"),
        (lambda: theory.stationary_moments([bad_event(matrix=np.diag([1.0, 2.0]))]), "must stay one"),
        (lambda: theory.stationary_moments([bad_event(covariance=np.eye(2))]), "must stay one"),
        (lambda: theory.stationary_moments([bad_event(rate=-1.0)]), "rate of event 0=-1.0"),
        (lambda: theory.stationary_moments(theory.push_events(complete(3, 1.0))), "does not settle"),
        (lambda: theory.transient_moments([bad_event()], np.eye(3), np.zeros(1)), "start of shape"),
        (lambda: theory.transient_moments([bad_event()], np.zeros((2, 2)), np.zeros(1)), "the last entry 0.0"),
        (lambda: theory.transient_moments([bad_event()], np.eye(2), -np.ones(1)), "times"),
        (lambda: theory.consensus_and_mean(np.eye(3), 3), "n=3"),
        (lambda: theory.push_events(-complete(3, 1.0)), "push_rates\\[0, 1\\]=-0.5"),
        (lambda: theory.push_events(complete(3, 1.0), weight=1.5), "weight=1.5"),
        (
            lambda: theory.gradient_events(-np.ones(2), np.ones(2), np.ones(2), step=0.1, noise_std=0.0),
            r"gradient_rates\[0\]=-1",
        ),
        (lambda: theory.push_gossip_sgd_events(complete(5, 1.0), **{**FIVE, "step": 0.0}), "step=0.0"),
        (lambda: theory.push_gossip_sgd_events(complete(5, 1.0), **{**FIVE, "noise_std": -1.0}), "noise_std=-1.0"),
        (lambda: theory.stale_gradient_events(complete(5, 1.0), **{**FIVE, "gradient_rates": np.zeros(5)}), "positive"),
        (lambda: theory.complete_graph_moments(1, push_rate=1.0, noise_std=1.0, **COMPLETE), "n=1"),
        (
            lambda: theory.complete_graph_moments(3, push_rate=1.0, noise_std=1.0, **{**COMPLETE, "step": 50.0}),
            "does not settle",
        ),
        (lambda: theory.heterogeneity_factor(3, gossip_rate=-1.0, **COMPLETE), "gossip_rate=-1.0"),
        (lambda: theory.averaging_second_moment_rate(np.ones((26, 26))), "2 to 25 nodes"),
    ],
)
def test_bad_input_is_named(call, match):
    with pytest.raises(ValueError, match=match):
        call()


def test_one_pairwise_event_is_the_mean_event_matrix():
    """E V after one event, averaged over the events by their rates, is the quadratic form of W̄."""
    x = np.random.default_rng(9).normal(size=6)
    x -= x.mean()
    star = graphs()[0]
    rates = star / star.sum(axis=1, keepdims=True)
    events = theory.pairwise_events(rates)
    assert [e.rate for e in events] == [1.2] * 5
    after = sum(e.rate * np.sum((e.matrix[:6, :6] @ x) ** 2) for e in events) / 6
    assert after == pytest.approx(spectral.pairwise_one_event(star, x), rel=SAME)
