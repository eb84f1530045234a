"""Gradients with respect to every weight of events in which models train, against central differences in float64."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial

import gossipjax as gj
from gossipjax import learn, timeline, topology

KEY = jax.random.key(0)
N = 5
TASK = gj.tasks.quadratic(np.linspace(-1, 1, N)[:, None] * np.array([1.0, 2.0]), curvature=np.array([[0.5, 2.0]]))
STEP = Partial(optax.sgd, 0.1)
TICKS = timeline.clocks.poisson(1.0)
RING, ONE_WAY = topology.ring(N), topology.exponential(N)
SENT = {"num_fragments": 2, "recipients": 2, "uplink_messages_per_second": 9.0}
CASES = {
    "swift": (timeline.swift(RING, 6.0, compute=TICKS, latency=0.2, seed=0), gj.swift(TASK, STEP)),
    "swift, every other tick": (timeline.swift(RING, 6.0, compute=TICKS, period=2, seed=1), gj.swift(TASK, STEP)),
    "directed push": (
        timeline.directed_push(ONE_WAY, 5.0, compute=TICKS, send=1.5, latency=0.2, seed=0),
        gj.sgp(TASK, STEP),
    ),
    "directed push, lost": (
        timeline.directed_push(ONE_WAY, 5.0, compute=TICKS, send=1.5, latency=0.2, drop=0.3, seed=0),
        gj.sgp(TASK, STEP),
    ),
    "push-sum": (timeline.directed_push(ONE_WAY, 5.0, compute=None, send=2.0, seed=0), gj.push_sum()),
    "divshare": (
        timeline.divshare(N, 5.0, compute=TICKS, **SENT, seed=0),
        gj.dpsgd(TASK, STEP, sharing=gj.sharing.fragments(2)),
    ),
    "divshare, in flight": (
        timeline.divshare(N, 5.0, compute=TICKS, latency=0.3, drop=0.2, **SENT, seed=1),
        gj.dpsgd(TASK, STEP, sharing=gj.sharing.fragments(2)),
    ),
    "gossip learning": (
        timeline.gossip_learning(N, 6.0, period=1.0, latency=0.1, seed=0),
        gj.gossip_learning(TASK, STEP),
    ),
    "AD-PSGD": (timeline.pairwise(N, 6.0, compute=TICKS, communicate=1.0, seed=0), gj.ad_psgd(TASK, STEP)),
}


def weights_of(plan):
    """A direction for every weight of a plan, those that all events share among them."""
    rng, names = np.random.default_rng(0), ("weights", "keep", "weight")
    arrays = plan.shared | plan.xs
    return {name: rng.normal(size=np.shape(arrays[name])) for name in names if name in arrays}


def moved(plan, theta):
    """The plan with weights ``w (1 + θ d)``."""

    def changed(tree):
        directions = weights_of(plan)
        return {
            name: jnp.asarray(leaf) * (1 + theta * jnp.asarray(directions[name])) if name in directions else leaf
            for name, leaf in tree.items()
        }

    return dataclasses.replace(plan, xs=changed(plan.xs), shared=changed(plan.shared))


def end_of(plan, protocol):
    """The state in which a run ends."""
    x0 = jnp.linspace(-1.0, 1.0, 2 * N).reshape(N, 2)
    return learn.final_state(KEY, protocol, plan, protocol.init(KEY, gj.with_slots(x0, plan.properties)))


def errors_of(protocol, state):
    """The squared distance of each node from the optimum."""
    return jnp.sum(jnp.square(protocol.model(state)[:N] - TASK.test["optimum"][None]), axis=1)


def check_slope(outcome):
    """Compare a gradient at 0 with central differences, and return the value there."""
    run, h = jax.jit(jax.value_and_grad(outcome)), 1e-5
    (value, slope), (above, _), (below, _) = (run(jnp.asarray(by)) for by in (0.0, h, -h))
    assert float(slope) == pytest.approx(float((above - below) / (2 * h)), rel=1e-6)  # of order h², in float64
    assert abs(slope) > 1e-4  # or rounding of 1e-11 in the difference would show
    return value


@pytest.mark.parametrize("name", CASES)
def test_every_weight_of_an_event_has_a_gradient(name):
    plan, protocol = CASES[name]
    assert weights_of(plan)
    check_slope(lambda theta: jnp.mean(errors_of(protocol, end_of(moved(plan, theta), protocol))))


def test_the_weights_of_a_mailbox_are_worth_learning():
    """Shares of own model and mailbox that L-BFGS finds on SWIFT's plan are better than those that the plan has."""
    plan, protocol = CASES["swift"]

    def outcome(lean):
        weights = jnp.asarray(plan.xs["weights"])
        received = weights[:, 0, 1:] * jnp.exp(lean)
        own = jnp.where(weights[:, 0, 1:].sum(1) > 0, 1 - received.sum(1), weights[:, 0, 0])
        changed = weights.at[:, 0, 1:].set(received).at[:, 0, 0].set(own)
        state = end_of(dataclasses.replace(plan, xs=plan.xs | {"weights": changed}), protocol)
        return jnp.log(jnp.mean(errors_of(protocol, state)))

    found = learn.fit(outcome, np.zeros(()))
    assert found.converged
    assert found.value < float(outcome(jnp.zeros(()))) - 1e-3


def staleness(plan, n):
    """Count updates that each node has not heard of, event by event: a node wakes, trains, and meets another."""
    held = np.zeros((n, n), int)
    for i, j in zip(plan.xs["first"], plan.xs["second"], strict=True):
        held[i, i] += 1
        held[[i, j]] = np.maximum(held[i], held[j])
    return np.diag(held)[None] - held


def test_a_staleness_weighted_error_is_an_outcome():
    """``Σ_i (1 + S_i) ‖x_i − x*‖²``, S_i the updates that node i misses: counters are constants of the gradient."""
    plan, protocol = timeline.poisson_pairs(RING, 30, seed=0), gj.track_versions(gj.ad_psgd(TASK, STEP))

    def outcome(theta):
        state = end_of(moved(plan, theta), protocol)
        errors = errors_of(protocol, state)
        missed = jnp.sum(gj.wrappers.staleness(state.versions, N), axis=1)
        return jnp.sum((1 + missed).astype(errors.dtype) * errors)

    state = end_of(plan, protocol)
    missed = staleness(plan, N)
    np.testing.assert_array_equal(gj.wrappers.staleness(state.versions, N), missed)
    expected = (1 + missed.sum(1)) @ np.asarray(errors_of(protocol, state))
    assert float(check_slope(outcome)) == pytest.approx(expected, rel=1e-12)
    assert missed.sum() > 0


LATE = timeline.directed_push(ONE_WAY, 6.0, compute=None, send=2.0, latency=0.3, seed=2)


def test_consensus_error_counts_models_in_flight():
    """Against the matrix of the run, whose columns are runs of single values by the engine's own driver."""
    columns = [gj.simulate(KEY, gj.push_sum(), LATE, jnp.eye(N)[:, node]).x for node in range(N)]
    expected = np.sum((np.stack([np.asarray(each) for each in columns], 1) - 1 / N) ** 2) / N
    np.testing.assert_allclose(learn.consensus_error(LATE, protocol=gj.push_sum()), expected, rtol=1e-5)  # float32
    assert expected < 0.9 * (1 - 1 / N)


def test_a_state_without_rows_for_messages_in_flight_is_refused():
    method = gj.push_sum()
    state = method.init(KEY, jnp.eye(N))
    for run in (gj.run, learn.final_state):
        with pytest.raises(ValueError, match="messages in flight"):
            run(KEY, method, LATE, state)
    gj.run(KEY, method, LATE, method.init(KEY, gj.with_slots(jnp.eye(N), LATE.properties)))


def test_a_server_has_no_part_in_the_average():
    plan = timeline.ringmaster(N, 9.0, compute=TICKS, seed=0)
    with pytest.raises(ValueError, match="one model for each node"):
        learn.consensus_error(plan)
