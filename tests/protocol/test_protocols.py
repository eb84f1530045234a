"""Protocols against independent NumPy loops, against each other where they reduce, and against exact theory."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial
from problems import CURVATURE, TARGETS, X0, D, N, exact_quadratic

from gossipjax import (
    Event,
    Properties,
    Timeline,
    allreduce_sgd,
    d2,
    dpsgd,
    fedavg,
    gossip_averaging,
    gradient_tracking,
    local_sgd,
    replicate,
    restarted,
    simulate,
)
from gossipjax._base.binding import as_factory
from gossipjax._base.streams import node_keys
from gossipjax._engine import loop
from gossipjax.mixing import averaging, exchange, lazy, metropolis, mix, uniform
from gossipjax.observe import consensus_distance
from gossipjax.protocol._local import check_steps
from gossipjax.tasks import quadratic
from gossipjax.timeline import client_sampling, poisson_edges, poisson_pairs, rounds
from gossipjax.topology import barabasi_albert, complete, hypercube, one_peer_exponential
from theory.consensus import dpsgd_bias, stationary_consensus
from theory.spectral import pairwise_one_event

KEY = jax.random.key(1)
RATE = 0.2
GRAPH = barabasi_albert(N, 2, seed=1)
W = lazy(metropolis(GRAPH)).toarray()
ORDERS = ["adapt_then_combine", "combine_then_adapt"]
SGD = Partial(optax.sgd, RATE)


@jax.jit
def run(key, protocol, timeline, x0):
    (state, _), _ = loop.run(key, protocol, timeline, protocol.init(key, x0))
    return state


def final(protocol, timeline, x0=X0):
    return np.asarray(protocol.model(run(KEY, protocol, timeline, jnp.asarray(x0))))


def gradient(x):
    return CURVATURE * (x - TARGETS)


def close(found, expected):
    """Equal up to rounding: compiled code orders and fuses the same operations differently."""
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-12)


# --- NumPy loops ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("local_steps", [1, 3])
@pytest.mark.parametrize("order", ORDERS)
def test_dpsgd_equals_its_loop(order, local_steps):
    x = X0.copy()
    for _ in range(10):
        y = x.copy()
        for _ in range(local_steps):
            y = y - RATE * gradient(y)
        x = W @ y if order == "adapt_then_combine" else W @ x + (y - x)
    protocol = dpsgd(exact_quadratic(), SGD, order=order, local_steps=local_steps)
    close(final(protocol, rounds(W, 10)), x)


def test_dpsgd_carries_the_optimizer_of_each_node():
    x, momentum = X0.copy(), np.zeros_like(X0)
    for _ in range(10):
        momentum = gradient(x) + 0.9 * momentum
        x = W @ (x - RATE * momentum)
    close(final(dpsgd(exact_quadratic(), Partial(optax.sgd, RATE, 0.9)), rounds(W, 10)), x)


@pytest.mark.parametrize("learning", [False, True])
def test_pairwise_events_run_one_after_another(learning):
    timeline, x = poisson_pairs(GRAPH, 60, seed=2), X0.copy()
    for i, j in zip(timeline.xs["first"], timeline.xs["second"], strict=True):
        if learning:
            x[i] = x[i] - RATE * gradient(x)[i]
        x[[i, j]] = x[[i, j]].mean(0)
    close(final(dpsgd(exact_quadratic(), SGD) if learning else gossip_averaging(), timeline), x)


def test_both_ends_of_a_firing_edge_learn():
    timeline, x = poisson_edges(GRAPH, 30, seed=2), X0.copy()
    for i, j in zip(timeline.xs["first"], timeline.xs["second"], strict=True):
        x[[i, j]] = (x - RATE * gradient(x))[[i, j]].mean(0)
    close(final(dpsgd(exact_quadratic(), SGD), timeline), x)


def test_d2_equals_its_two_step_recursion():
    """x_1 = W (x_0 − γ g_0), x_{t+1} = W (2 x_t − x_{t−1} − γ (g_t − g_{t−1})): Tang et al. 2018, algorithm 1."""
    before, x = X0, W @ (X0 - RATE * gradient(X0))
    for _ in range(9):
        before, x = x, W @ (2 * x - before - RATE * (gradient(x) - gradient(before)))
    state = run(KEY, d2(exact_quadratic(), SGD), rounds(W, 10), jnp.asarray(X0))
    close(state.x, x)
    # The corrections sum to zero at all times.
    assert np.abs(state.correction.sum(0)).max() < 1e-14
    assert np.abs(state.correction).max() > 1e-2


TRACKING = {
    "combine_then_adapt": (False, False, False),
    "next": (False, True, False),
    "aug_dgm": (True, True, False),
    "adapt_then_combine": (True, True, True),
}
"""By order: whether W stands around the change of the gradient, the step of the model, and y_0 = g(x_0)."""


def tracked(order, matrices, x, rate, gradient):
    """Models and trackers after one round on each matrix; the t-th mixes the t-th model and tracker."""
    around_change, around_step, around_first = TRACKING[order]
    y, g = np.zeros_like(x), np.zeros_like(x)
    for t, mixing in enumerate(matrices):
        change, g = gradient(x) - g, gradient(x)
        if t == 0:
            y = mixing @ g if around_first else g
        else:
            y = mixing @ (y + change) if around_change else mixing @ y + change
        x = mixing @ (x - rate * y) if around_step else mixing @ x - rate * y
    return x, y


@pytest.mark.parametrize("matrices", [[W], [uniform(graph).toarray() for graph in one_peer_exponential(N)]])
@pytest.mark.parametrize("order", TRACKING)
def test_gradient_tracking_equals_its_loop(order, matrices):
    """On one matrix and on a cycle of them."""
    x, y = tracked(order, [matrices[t % len(matrices)] for t in range(10)], X0, RATE, gradient)
    state = run(KEY, gradient_tracking(exact_quadratic(), SGD, order=order), rounds(matrices, 10), jnp.asarray(X0))
    close(state.x, x)
    close(state.tracker, y)
    # The mean tracker is the mean of the gradients it was last given.
    close(state.tracker.mean(0), state.gradient.mean(0))
    assert np.abs(state.tracker - state.gradient).max() > 1e-2


@pytest.mark.parametrize(
    ("order", "first"),
    [
        ("adapt_then_combine", (1.825, 3.775)),  # x_1 = W (x_0 − γ W g_0)
        ("aug_dgm", (1.85, 3.75)),  # x_1 = W (x_0 − γ g_0)
        ("next", (1.85, 3.75)),
        ("combine_then_adapt", (1.9, 3.7)),  # x_1 = W x_0 − γ g_0
    ],
)
def test_the_first_round_of_gradient_tracking(order, first):
    """Two nodes: b = (0, 2), x_0 = (1, 5), g_0 = (1, 3), γ = 0.1."""
    two = np.array([[0.75, 0.25], [0.25, 0.75]])
    targets, x0 = np.array([[0.0], [2.0]]), np.array([[1.0], [5.0]])
    protocol = gradient_tracking(exact_quadratic(targets, np.ones((2, 1))), Partial(optax.sgd, 0.1), order=order)
    close(final(protocol, rounds(two, 1), x0)[:, 0], first)


# --- reductions -------------------------------------------------------------------------------------------------------


def test_dpsgd_on_averaging_is_allreduce():
    """With equal starts and W = J, adapt-then-combine is SGD on the mean gradient."""
    timeline, x0 = rounds(averaging(N), 10), np.repeat(X0[:1], N, axis=0)
    task = exact_quadratic()
    x = X0[0]
    for _ in range(10):
        x = x - RATE * gradient(np.repeat(x[None], N, axis=0)).mean(0)
    central = final(allreduce_sgd(task, SGD), timeline, x0)
    close(central, np.repeat(x[None], N, axis=0))
    close(final(dpsgd(task, SGD), timeline, x0), central)


def test_fedavg_with_all_clients_is_local_sgd():
    """With all clients sampled in every round; also draws the same batches, whatever the slots."""
    task, x0 = quadratic(TARGETS, curvature=CURVATURE, noise_std=0.5), np.repeat(X0[:1], N, axis=0)
    sampled = client_sampling(N, N, 5, seed=3)
    assert not np.array_equal(sampled.xs["nodes"][0], np.arange(N))
    one = final(fedavg(task, SGD, local_steps=2), sampled, x0)
    close(one, final(local_sgd(task, SGD, local_steps=2), rounds(averaging(N), 5), x0))


def test_an_optimizer_that_restarts_with_every_training():
    """D-PSGD then equals FedAvg, which makes a new one for every training, also with momentum; else it does not."""
    task, x0 = quadratic(TARGETS, curvature=CURVATURE, noise_std=0.5), np.repeat(X0[:1], N, axis=0)
    heavy = optax.sgd(RATE, momentum=0.9)
    expected = final(fedavg(task, heavy, local_steps=3), client_sampling(N, N, 4, seed=3), x0)
    found = final(local_sgd(task, restarted(heavy, 3), local_steps=3), rounds(averaging(N), 4), x0)
    close(found, expected)
    kept = final(local_sgd(task, heavy, local_steps=3), rounds(averaging(N), 4), x0)
    assert np.abs(kept - expected).max() > 0.01
    with pytest.raises(ValueError, match="every=0"):
        restarted(heavy, 0)


@pytest.mark.parametrize("order", ORDERS)
def test_equal_targets_without_noise_stay_at_the_optimum(order):
    """Bit for bit: on the cube all weights are 1/4, so that no rounding occurs."""
    targets = np.repeat(TARGETS[:1], N, axis=0)
    task = exact_quadratic(targets)
    timeline = rounds(metropolis(hypercube(3)), 50)
    np.testing.assert_array_equal(final(dpsgd(task, SGD, order=order), timeline, targets), targets)


# --- exact theory -----------------------------------------------------------------------------------------------------

SLOW = Partial(optax.sgd, 0.05)


@pytest.mark.parametrize("order", ORDERS)
def test_dpsgd_stalls_at_its_bias(order):
    a = np.linspace(0.5, 2.0, N)
    task = exact_quadratic(TARGETS, a[:, None])
    bias = dpsgd_bias(W, a, TARGETS, step_size=0.05, order=order)
    x = final(dpsgd(task, SLOW, order=order), rounds(W, 2000))
    # The rounding of a fixed point, magnified by 1 / (1 − contraction).
    np.testing.assert_allclose(x, bias.fixed_point, rtol=0, atol=1e-12)
    assert np.mean(np.sum((x - bias.optimum) ** 2, 1)) == pytest.approx(bias.squared_error, rel=1e-9)
    assert bias.squared_error > 1e-3


@pytest.mark.parametrize("builder", [d2, gradient_tracking], ids=["d2", "gradient_tracking"])
def test_bias_corrections_reach_the_optimum(builder):
    a = np.linspace(0.5, 2.0, N)
    task = exact_quadratic(TARGETS, a[:, None])
    x = final(builder(task, SLOW), rounds(W, 2000))
    error = np.mean(np.sum((x - np.asarray(task.test["optimum"])) ** 2, 1))
    assert error < 1e-10


@pytest.mark.slow
def test_stationary_consensus_distance():
    """48 seeds, each averaged over 400 rounds after 200: the mean is within 4 standard errors of the modal sum."""
    rate, noise, curvature, order, local_steps = 0.1, 0.7, 1.5, "combine_then_adapt", 3
    task = quadratic(TARGETS, curvature=curvature, noise_std=noise)
    protocol = dpsgd(task, Partial(optax.sgd, rate), order=order, local_steps=local_steps)
    keys = jax.random.split(jax.random.key(5), 48)
    result = simulate(
        keys, protocol, rounds(W, 600), jnp.zeros((N, D)), observers=[consensus_distance()], record_every=5
    )
    settled = result["consensus_distance"].where(result.dataset.event > 200, drop=True).mean("record").values
    expected = stationary_consensus(
        W, TARGETS, step_size=rate, noise_std=noise, curvature=curvature, order=order, local_steps=local_steps
    )
    z = (settled.mean() - expected) / (settled.std(ddof=1) / np.sqrt(len(settled)))
    assert abs(z) < 4
    assert settled.std(ddof=1) / np.sqrt(len(settled)) < 0.02 * expected  # sharp enough to tell a wrong formula


def adjacency(topology):
    A = np.zeros((topology.num_nodes,) * 2)
    A[topology.senders, topology.receivers] = 1
    return A


def disagreement(x):
    return jnp.sum(jnp.square(x - jnp.mean(x, axis=0, keepdims=True)))


@pytest.mark.parametrize(("builder", "clock"), [(poisson_pairs, "node"), (poisson_edges, "edge")])
def test_one_pairwise_event(builder, clock):
    """Mean of V over 20,000 single events from one start: exact expectation within 4 standard errors."""
    timeline = builder(GRAPH, 20_000, seed=7)

    def after(first, second):
        return disagreement(mix(exchange(first, second), jnp.asarray(X0)))

    values = np.asarray(jax.jit(jax.vmap(after))(timeline.xs["first"], timeline.xs["second"]))
    z = (values.mean() - pairwise_one_event(adjacency(GRAPH), X0, clock=clock)) / (values.std(ddof=1) / np.sqrt(20_000))
    assert abs(z) < 4


def test_pairwise_gossip_on_the_complete_graph():
    """E V after k events = ((n − 2)/(n − 1))^k V at the start, exactly: 500 runs of 20 events."""
    runs, k = 500, 20
    timeline = poisson_pairs(complete(N), runs * k, seed=8)
    xs = jax.tree.map(lambda leaf: leaf.reshape(runs, k), timeline.xs)

    def one(xs):
        part = Timeline(xs, timeline.shared, timeline.event, timeline.properties)
        return disagreement(run(KEY, gossip_averaging(), part, jnp.asarray(X0)).x)

    values = np.asarray(jax.vmap(one)(xs))
    expected = ((N - 2) / (N - 1)) ** k * float(disagreement(jnp.asarray(X0)))
    z = (values.mean() - expected) / (values.std(ddof=1) / np.sqrt(runs))
    assert abs(z) < 4


# --- streams ----------------------------------------------------------------------------------------------------------


def _random_meeting(key, shared, x):
    """An event that is drawn only when it happens."""
    i, shift = jax.random.randint(jax.random.fold_in(key, x["index"]), (2,), 0, N - 1, dtype=jnp.int32)
    mixing = exchange(i, (i + shift + 1) % N, shared["weight"])
    return Event(index=x["index"][None], time=x["index"][None].astype(jnp.float32), nodes=i[None], mixing=mixing)


def test_protocols_with_one_key_see_the_same_events():
    xs, shared = {"index": np.arange(20, dtype=np.uint32)}, {"weight": jnp.asarray(0.5)}
    timeline = Timeline(xs, shared, _random_meeting, Properties(num_nodes=N, num_rows=N, name="drawn on the way"))
    idle = dpsgd(quadratic(TARGETS, noise_std=1.0), Partial(optax.sgd, 0.0))
    x = final(idle, timeline)
    np.testing.assert_array_equal(x, final(gossip_averaging(), timeline))
    assert np.abs(x - X0).max() > 0.1
    other = run(jax.random.key(2), gossip_averaging(), timeline, jnp.asarray(X0)).x
    assert np.abs(other - x).max() > 0.01


def test_more_nodes_do_not_change_a_nodes_stream():
    def models(n):
        task = quadratic(np.zeros((n, D)), noise_std=1.0)
        return final(dpsgd(task, SGD), rounds(np.eye(n), 4), np.zeros((n, D)))

    few, many = models(3), models(5)
    close(few, many[:3])
    assert len(np.unique(np.round(many, 9))) == many.size  # and no two nodes share one


def test_a_nodes_key_depends_on_node_and_event_only():
    def data(event, n):
        return jax.random.key_data(node_keys(KEY, event, n))

    time = jnp.zeros(1)
    everyone = data(Event(jnp.asarray([7], jnp.uint32), time), 6)
    some = data(Event(jnp.asarray([7], jnp.uint32), time, nodes=jnp.asarray([4, 1])), 9)
    np.testing.assert_array_equal(some, everyone[jnp.asarray([4, 1])])
    packed = data(Event(jnp.asarray([3, 7], jnp.uint32), jnp.zeros(2), nodes=jnp.asarray([0, 4])), 9)
    np.testing.assert_array_equal(packed[1], everyone[4])
    assert not np.array_equal(packed[0], everyone[0])


def test_a_common_start_is_replicated():
    x = replicate({"w": jnp.arange(3.0), "b": jnp.zeros(())}, 4)
    assert jax.tree.map(jnp.shape, x) == {"w": (4, 3), "b": (4,)}
    with pytest.raises(ValueError, match="rows=0"):
        replicate(jnp.zeros(2), 0)


# The checks themselves, behind the checked annotations, which would refuse some of these first.
dpsgd_, gradient_tracking_, as_factory_, check_steps_ = map(
    inspect.unwrap, (dpsgd, gradient_tracking, as_factory, check_steps)
)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda task: check_steps_(0), "local_steps=0"),
        (lambda task: check_steps_(1.5), "local_steps=1.5"),
        (lambda task: dpsgd_(task, SGD, order="adapt"), "order='adapt'"),
        (lambda task: gradient_tracking_(task, SGD, order="adapt"), "order='adapt'"),
        (lambda task: as_factory_(0.1), "must be an optax transformation"),
        (lambda task: as_factory_(optax.sgd), "must be an optax transformation"),
    ],
)
def test_bad_protocols_are_refused(build, message):
    with pytest.raises((ValueError, TypeError), match=message):
        build(exact_quadratic())
