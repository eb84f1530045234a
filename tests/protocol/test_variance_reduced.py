"""Tracking of variance-reduced gradients: NumPy loops of the papers, the exact optimum, and what finite sums are."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial
from problems import X0, exact_quadratic, identical_samples
from problems import N as MANY

from gossipjax import gradient_tracking, gt_saga, gt_sarah, gt_svrg, gt_vr, node_gradients, simulate
from gossipjax._engine import loop
from gossipjax.mixing import metropolis
from gossipjax.observe import models
from gossipjax.protocol._gt_vr import SNAPSHOTS
from gossipjax.tasks import (
    Partition,
    classification,
    digits,
    finite_sum,
    iid,
    linear_regression,
    logistic_regression,
    quadratic,
    softmax_regression,
)
from gossipjax.timeline import rounds
from gossipjax.topology import ring

KEY, N, M, D = jax.random.key(1), 4, 5, 2
RATE, T, PERIOD, BATCH, PROBABILITY = 0.05, 13, 4, 2, 0.3
REGRESSION = linear_regression(N, M, D, heterogeneity=1.0, seed=0)
TASK = finite_sum(REGRESSION)
FEATURES, RESPONSES = (np.asarray(REGRESSION.data[name]) for name in ("features", "responses"))
OPTIMUM = np.asarray(REGRESSION.test["optimum"])
START = np.random.default_rng(2).standard_normal((N, D))
W = metropolis(ring(N)).toarray()


def run(protocol, num_rounds=T):
    return simulate(KEY, protocol, rounds(W, num_rounds), jnp.asarray(START), observers=[models()], record_every=1)


def one(i, s, x):
    return FEATURES[i, s] * (FEATURES[i, s] @ x - RESPONSES[i, s])


def full(i, x):
    return FEATURES[i].T @ (FEATURES[i] @ x - RESPONSES[i]) / M


@jax.jit
def draws(size_like):
    """The samples of all nodes in all rounds: each round folds its number into a stream of the node."""

    def of(node, number):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(KEY, loop.STEPS), node), number)
        return jax.random.randint(jax.random.split(key)[0], size_like.shape, 0, M, jnp.int32)

    nodes, numbers = jnp.arange(N, dtype=jnp.uint32), jnp.arange(T, dtype=jnp.uint32)
    return jax.vmap(lambda number: jax.vmap(lambda node: of(node, number))(nodes))(numbers)


def drawn(size):
    return np.asarray(draws(np.zeros(size)))


def in_turn(matrices):
    """The matrices of all rounds."""
    return [matrices[t % len(matrices)] for t in range(T)]


def saga_in_numpy(matrices=(W,)):
    x, y, old = START, np.zeros((N, D)), np.zeros((N, D))
    table = np.array([[one(i, s, x[i]) for s in range(M)] for i in range(N)])
    for mixing, numbers in zip(in_turn(matrices), drawn(1)[:, :, 0], strict=True):
        new = np.array([one(i, s, x[i]) for i, s in enumerate(numbers)])
        g = new - table[np.arange(N), numbers] + table.mean(axis=1)
        table[np.arange(N), numbers] = new
        y, old = mixing @ (y + g - old), g
        x = mixing @ (x - RATE * y)
        yield x


def svrg_in_numpy(matrices=(W,)):
    x, y, old = START, np.zeros((N, D)), np.zeros((N, D))
    for t, (mixing, numbers) in enumerate(zip(in_turn(matrices), drawn(1)[:, :, 0], strict=True)):
        snapshot = x if t % PERIOD == 0 else snapshot  # noqa: F821 - set in the first round
        v = np.array([one(i, s, x[i]) - one(i, s, snapshot[i]) + full(i, snapshot[i]) for i, s in enumerate(numbers)])
        y, old = mixing @ y + v - old, v
        x = mixing @ x - RATE * y
        yield x


def sarah_in_numpy(matrices=(W,)):
    x, last, y, old = START, None, np.zeros((N, D)), np.zeros((N, D))
    for t, (mixing, numbers) in enumerate(zip(in_turn(matrices), drawn(BATCH), strict=True)):
        if t % PERIOD == 0:
            v = np.array([full(i, x[i]) for i in range(N)])
        else:
            v = old + [np.mean([one(i, s, x[i]) - one(i, s, last[i]) for s in of], 0) for i, of in enumerate(numbers)]
        y, old, last = mixing @ y + v - old, v, x
        x = mixing @ x - RATE * y
        yield x


@functools.partial(jax.jit, static_argnums=0)
def coins(num_rounds):
    """Whether each node takes a snapshot in each round, but the first, by a stream of its own."""

    def of(node, number):
        fold = jax.random.fold_in
        return jax.random.uniform(fold(fold(fold(fold(KEY, loop.STEPS), SNAPSHOTS), node), number)) < PROBABILITY

    nodes, numbers = jnp.arange(N, dtype=jnp.uint32), jnp.arange(num_rounds, dtype=jnp.uint32)
    return jax.vmap(lambda number: jax.vmap(lambda node: of(node, number))(nodes))(numbers)


def vr_in_numpy(matrices=(W,)):
    """The published order: y and v of the start before the loop, which begins with the model."""
    x = snapshot = START
    y = v = np.array([full(i, x[i]) for i in range(N)])
    mixings = in_turn(matrices)
    for t, (tossed, numbers) in enumerate(zip(np.asarray(coins(T))[1:], drawn(1)[1:, :, 0], strict=True)):
        x = mixings[t] @ (x - RATE * y)
        yield x
        snapshot = np.where(tossed[:, None], x, snapshot)
        old = v
        v = np.array([one(i, s, x[i]) - one(i, s, snapshot[i]) + full(i, snapshot[i]) for i, s in enumerate(numbers)])
        y = mixings[t + 1] @ (y + v - old)
    yield mixings[-1] @ (x - RATE * y)


CASES = {
    "gt_saga": (lambda task: gt_saga(task, RATE), saga_in_numpy),
    "gt_svrg": (lambda task: gt_svrg(task, RATE, period=PERIOD), svrg_in_numpy),
    "gt_sarah": (lambda task: gt_sarah(task, RATE, period=PERIOD, batch_size=BATCH), sarah_in_numpy),
    "gt_vr": (lambda task: gt_vr(task, RATE, snapshot_probability=PROBABILITY), vr_in_numpy),
}


@pytest.mark.parametrize(
    "name",
    [
        "gt_saga",
        pytest.param("gt_svrg", marks=pytest.mark.slow),
        "gt_sarah",
        pytest.param("gt_vr", marks=pytest.mark.slow),
    ],
)
def test_they_equal_the_loops_and_reach_the_optimum(name):
    build, replayed = CASES[name]
    found = run(build(TASK))
    # Thirteen rounds of sums in another order.
    np.testing.assert_allclose(found["model"][1:], list(replayed()), rtol=0, atol=1e-12)
    means = (np.mean(leaf, axis=0) for leaf in (found.state.tracker, found.state.estimate))
    np.testing.assert_allclose(*means, rtol=0, atol=1e-12)
    # One sample a round, heterogeneous nodes, one constant step: linear, to the exact optimum.
    x = np.asarray(run(build(TASK), 2000)["model"])
    errors = np.abs(x - OPTIMUM).max(axis=(1, 2))
    assert errors[-1] < 1e-10
    # A straight line in the logarithm: as many rounds, about as many digits.
    assert np.log(errors[200] / errors[400]) == pytest.approx(np.log(errors[400] / errors[600]), rel=0.5)


def test_snapshots_are_taken_with_the_stated_probability():
    """2,000 rounds of four nodes: within four standard errors of p = 0.3, and no two nodes agree about when."""
    tossed = np.asarray(coins(2000))
    found = run(gt_vr(TASK, RATE, snapshot_probability=PROBABILITY), 60)
    last = 59 - np.argmax(tossed[59::-1], axis=0)
    np.testing.assert_array_equal(found.state.snapshot, found["model"].values[last, np.arange(N)])
    assert abs(tossed.mean() - PROBABILITY) < 4 * np.sqrt(PROBABILITY * (1 - PROBABILITY) / tossed.size)
    agreement = np.corrcoef(tossed.T.astype(float))[np.triu_indices(N, 1)]
    assert np.abs(agreement).max() < 4 / np.sqrt(2000)


def test_the_mean_of_the_table_does_not_drift():
    """A running mean of two thousand changes is that of the table, up to rounding of numbers of order ten."""
    state = run(gt_saga(TASK, RATE), 2000).state
    np.testing.assert_allclose(state.mean, np.mean(state.table, axis=1), rtol=0, atol=1e-13)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("build", "order"),
    [
        (lambda task: gt_saga(identical_samples(task, 1), RATE), "adapt_then_combine"),
        (lambda task: gt_svrg(identical_samples(task, 2), RATE, period=3), "combine_then_adapt"),
        (lambda task: gt_sarah(identical_samples(task, 2), RATE, period=3), "combine_then_adapt"),
        (lambda task: gt_vr(identical_samples(task, 2), RATE, snapshot_probability=0.3), "aug_dgm"),
    ],
    ids=["gt_saga", "gt_svrg", "gt_sarah", "gt_vr"],
)
def test_nodes_of_equal_samples_track_exact_gradients(build, order):
    task, plan = exact_quadratic(), rounds(metropolis(ring(MANY)), T)
    tracked = simulate(KEY, gradient_tracking(task, Partial(optax.sgd, RATE), order=order), plan, jnp.asarray(X0))
    found = simulate(KEY, build(task), plan, jnp.asarray(X0))
    # Thirteen rounds of sums in another order.
    np.testing.assert_allclose(found.x, tracked.x, rtol=0, atol=1e-12)


# Finite sums


def batch_of(task, node, numbers):
    return task.sample(task.task.data, jnp.asarray(node), jnp.asarray(numbers, jnp.int32))


@pytest.mark.parametrize("task", [REGRESSION, logistic_regression(N, M, D, batch_size=2)], ids=["linear", "logistic"])
def test_samples_of_regressions_are_rows(task):
    batch = batch_of(finite_sum(task), 2, [3, 3, 0])
    for name in ("features", "responses"):
        np.testing.assert_array_equal(batch[name], np.asarray(task.data[name])[2, [3, 3, 0]])
    assert batch["penalty"] == task.data["penalty"]
    assert finite_sum(task).num_samples == M


def test_samples_of_classifications_are_those_of_the_shard():
    data = digits(limit=(24, 8))
    shards = iid(24, 3, seed=0)
    task = classification(data, shards, softmax_regression(64, 10), batch_size=2)
    found = finite_sum(task)
    assert found.num_samples == 8
    batch = batch_of(found, 1, [5, 0])
    picks = shards.shard(1)[[5, 0]]
    np.testing.assert_array_equal(batch["labels"], np.asarray(data.train.labels)[picks])
    pixels = (np.asarray(data.train.inputs, np.float32)[picks] - data.mean) / data.std
    # float32 of a quotient, computed as a product.
    np.testing.assert_allclose(np.reshape(batch["inputs"], (2, -1)), pixels.reshape(2, -1), rtol=1e-5, atol=1e-6)
    uneven = classification(data, Partition(shards.indices, np.array([0, 4, 24])), softmax_regression(64, 10))
    with pytest.raises(ValueError, match="shards of 4 … 20 samples"):
        finite_sum(uneven)


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: finite_sum(quadratic(np.ones((2, 1)))), ValueError, "not known by number"),
        (lambda: finite_sum(REGRESSION, num_samples=3), ValueError, "give both, or neither"),
        (lambda: finite_sum(REGRESSION, sample=node_gradients, num_samples=0), ValueError, "num_samples=0"),
        (lambda: gt_saga(REGRESSION, RATE), TypeError, "finite_sum"),
        (lambda: gt_saga(TASK, 0.0), ValueError, "step_size=0.0"),
        (lambda: gt_svrg(TASK, RATE, period=0), ValueError, "period=0"),
        (lambda: gt_sarah(TASK, RATE, period=2, batch_size=0), ValueError, "batch_size=0"),
        (lambda: gt_vr(TASK, RATE, snapshot_probability=0.0), ValueError, "snapshot_probability=0.0"),
        (lambda: gt_vr(REGRESSION, RATE, snapshot_probability=0.5), TypeError, "finite_sum"),
    ],
)
def test_bad_arguments_are_refused(build, error, message):
    with pytest.raises(error, match=message):
        build()


@pytest.mark.parametrize("build", [gt_svrg, gt_sarah])
def test_seeds_that_run_together_skip_full_gradients_together(build):
    """A condition on batched values would become a selection, which takes the full gradient in every round."""
    protocol, plan = build(TASK, RATE, period=PERIOD), rounds(metropolis(ring(N)), T)
    event = plan.event(KEY, plan.shared, jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), plan.xs))
    keys = jax.random.split(KEY, 3)
    states = jax.vmap(lambda key: protocol.init(key, jnp.asarray(START)))(keys)
    step = jax.vmap(lambda key, state: protocol.step(key, state, event))
    assert " cond[" in str(jax.make_jaxpr(step)(keys, states))
