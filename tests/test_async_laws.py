"""The whole asynchronous engine against exact moments: averaging, gradients, and gradients taken at old models."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial

from gossipjax import ad_psgd, dpsgd, engine, gossip_averaging, simulate
from gossipjax.observe import Observer, Variable
from gossipjax.tasks import quadratic
from gossipjax.timeline import clocks, drawn_gossip, drawn_pairs, push_gossip
from gossipjax.topology import ring
from theory import moments, staleness

KEY = jax.random.key(11)


def _both(snapshot):
    """Σ (x_i − x̄)² / n and x̄² of each coordinate, averaged over the coordinates."""
    mean = jnp.mean(snapshot.x, axis=0, keepdims=True)
    return {"V": jnp.mean(jnp.square(snapshot.x - mean)), "U": jnp.mean(jnp.square(mean))}


BOTH = Observer(Partial(_both), (Variable("V", "consensus distance"), Variable("U", "squared mean")))


def replicas(plan, x0, seeds):
    """Final values of independent runs, each with meetings of its own."""
    protocol = gossip_averaging()

    @jax.jit
    @jax.vmap
    def run(key):
        (state, _), _ = engine.run(key, protocol, plan, protocol.init(key, jnp.asarray(x0)))
        return state.x

    return np.asarray(run(jax.random.split(KEY, seeds)))


def z_score(values, predicted):
    return (values.mean() - predicted) / (values.std(ddof=1) / np.sqrt(len(values)))


@pytest.mark.parametrize("weight", [0.5, 0.3])
def test_push_averaging_shrinks_the_spread_and_spreads_the_mean(weight):
    n, events, seeds = 9, 30, 8000
    x0 = np.random.default_rng(0).standard_normal(n)
    spread = np.sum((x0 - x0.mean()) ** 2)
    plan = drawn_gossip(n, events, update_rate=0.0, gossip_rate=1.0, weight=weight)
    x = replicas(plan, x0, seeds)
    V = np.sum((x - x.mean(axis=1, keepdims=True)) ** 2, axis=1)
    assert abs(z_score(V, spread * staleness.push_event_factor(n, weight) ** events)) < 4
    late = replicas(drawn_gossip(n, 1000, update_rate=0.0, gossip_rate=1.0, weight=weight), x0, seeds)
    assert np.ptp(late, axis=1).max() < 1e-6  # consensus, wherever it lies
    assert abs(z_score(late[:, 0], x0.mean())) < 4  # the mean is a martingale
    squares = (late[:, 0] - x0.mean()) ** 2
    assert abs(z_score(squares, staleness.consensus_variance(n, weight, spread))) < 4


def test_pairwise_averaging_on_the_complete_graph():
    """One exchange multiplies E V by (n − 2)/(n − 1) for every x."""
    n, events, seeds = 9, 8, 4000
    x0 = np.random.default_rng(1).standard_normal(n)
    x = replicas(drawn_pairs(n, events), x0, seeds)
    V = np.sum((x - x.mean(axis=1, keepdims=True)) ** 2, axis=1)
    assert abs(z_score(V, np.sum((x0 - x0.mean()) ** 2) * ((n - 2) / (n - 1)) ** events)) < 4


COPIES = 48
"""Coordinates with the same law and independent noise, which share the meetings."""


def problem(targets, curvatures, noise):
    n = len(targets)
    spread = [np.broadcast_to(np.asarray(values)[:, None], (n, COPIES)) for values in (targets, curvatures)]
    return quadratic(spread[0].copy(), curvature=spread[1].copy(), noise_std=noise)


def time_averages(protocol, plan, n):
    """Means over time of V and U, and their standard errors by 40 batches."""
    start = jnp.zeros((n, COPIES))
    run = simulate(KEY, protocol, plan, start, observers=[BOTH], record_every=20)
    found = {}
    for name in ("V", "U"):
        values = run[name].values[100:]
        batches = values[: len(values) // 40 * 40].reshape(40, -1).mean(axis=1)
        found[name] = batches.mean(), batches.std(ddof=1) / np.sqrt(40)
    return found


def check(found, predicted, accuracy):
    for name, value in zip(("V", "U"), predicted, strict=True):
        mean, error = found[name]
        assert error < accuracy * value
        assert abs(mean - value) < 4 * error, (name, mean, value, error)


@pytest.mark.slow
def test_asynchronous_sgd_with_everything_heterogeneous():
    """Ring of 6: rates, curvatures and targets differ; the stationary second moments are a linear system's."""
    n, push, rates, step, noise = 6, 1.5, np.array([1.0, 2.0, 0.5, 1.0, 1.0, 3.0]), 0.15, 0.8
    curvatures, targets = np.array([1.0, 0.5, 2.0, 1.0, 1.0, 0.7]), np.array([1.0, -1.0, 0.5, 0.0, 2.0, -0.5])
    graph = ring(n)
    plan = push_gossip(graph, 30_000.0, compute=clocks.poisson(rates), gossip=push, seed=1)
    pushes = np.zeros((n, n))
    pushes[graph.senders, graph.receivers] = push / 2
    events = moments.push_gossip_sgd_events(pushes, rates, curvatures, targets, step=step, noise_std=noise)
    predicted = moments.consensus_and_mean(moments.stationary_moments(events), n)
    found = time_averages(dpsgd(problem(targets, curvatures, noise), Partial(optax.sgd, step)), plan, n)
    check(found, predicted, 0.02)


@pytest.mark.slow
def test_asynchronous_sgd_with_gradients_of_old_models():
    """K_5, AD-PSGD's rule: the gradient is taken where its interval began, applied where it ends."""
    n, push, step, noise = 5, 1.5, 0.25, 0.7
    targets, rates = np.array([1.0, -1.0, 0.0, 2.0, 0.5]), np.ones(5)
    plan = push_gossip(n, 12_000.0, compute=clocks.poisson(1.0), gossip=push, seed=2)
    pushes = (np.ones((n, n)) - np.eye(n)) * push / (n - 1)
    events = moments.stale_gradient_events(pushes, rates, np.ones(n), targets, step=step, noise_std=noise)
    predicted = moments.consensus_and_mean(moments.stationary_moments(events), n)
    protocol = ad_psgd(problem(targets, np.ones(n), noise), Partial(optax.sgd, step))
    check(time_averages(protocol, plan, n), predicted, 0.03)
    fresh = moments.push_gossip_sgd_events(pushes, rates, np.ones(n), targets, step=step, noise_std=noise)
    other = moments.consensus_and_mean(moments.stationary_moments(fresh), n)
    assert other[0] / predicted[0] > 1.2  # the test can tell the two rules apart


def test_the_common_optimum_is_kept_bit_for_bit():
    """No noise and equal targets: nothing ever moves."""
    n = 6
    plan = push_gossip(ring(n), 20.0, compute=clocks.poisson(1.0), gossip=1.0, latency=0.3, seed=3)
    targets = np.full(n, 0.7)
    for builder in (dpsgd, ad_psgd):
        protocol = builder(problem(targets, np.ones(n), 0.0), Partial(optax.sgd, 0.2))
        run = simulate(KEY, protocol, plan, jnp.full((n, COPIES), 0.7))
        np.testing.assert_array_equal(run.x, np.full((n, COPIES), 0.7))
