"""Learning problems: their optima, their batches, and learning on real images."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.tree_util import Partial

from gossipjax import allreduce_sgd, dpsgd, gt_saga, gt_svrg, replicate, simulate, tasks
from gossipjax.mixing import metropolis
from gossipjax.observe import node_metrics
from gossipjax.privacy import node_dp
from gossipjax.tasks import (
    Partition,
    classification,
    digits,
    dirichlet,
    iid,
    linear_regression,
    logistic_regression,
    mlp,
    quadratic,
    softmax_regression,
)
from gossipjax.timeline import rounds
from gossipjax.topology import random_regular

KEY = jax.random.key(0)


def mean_gradient(task, x):
    """Gradient of (1/n) Σ f_i, through the same batches and losses that protocols use."""

    def loss(x, node):
        return task.loss(KEY, x, task.batch(KEY, task.data, node))

    return jnp.mean(jax.vmap(jax.grad(loss), in_axes=(None, 0))(x, jnp.arange(task.num_nodes)), axis=0)


# --- known optima -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "task",
    [
        linear_regression(5, 12, 3, heterogeneity=0.7, seed=1),
        linear_regression(5, 2, 3, penalty=0.1, seed=2),
        logistic_regression(5, 12, 3, heterogeneity=0.7, seed=3),
        logistic_regression(4, 6, 2, penalty=1e-3, seed=4),
        quadratic(np.arange(12.0).reshape(4, 3), curvature=np.linspace(0.5, 2.0, 12).reshape(4, 3)),
    ],
    ids=["linear", "linear, penalty", "logistic", "logistic, weak penalty", "quadratic"],
)
def test_the_gradient_vanishes_at_the_optimum(task):
    optimum = task.test["optimum"]
    assert np.linalg.norm(mean_gradient(task, optimum)) < 1e-10
    assert np.linalg.norm(mean_gradient(task, optimum + 0.1)) > 1e-3
    metrics = task.metrics(optimum, task.test)
    assert float(metrics["squared_error"]) == 0
    assert float(task.metrics(optimum + 0.1, task.test)["objective"]) > float(metrics["objective"])
    assert task.init(KEY).shape == optimum.shape


def test_quadratic_gradients_and_noise():
    """∇ = a (x − b) + σ ξ: mean and variance over 4,000 draws."""
    b, a = np.asarray([[1.0, -2.0], [0.5, 3.0]]), np.asarray([[1.0], [2.0]])
    task = quadratic(b, curvature=a, noise_std=0.3)
    x = jnp.asarray([0.2, 0.4])

    def gradient(key):
        return jax.grad(lambda x: task.loss(key, x, task.batch(key, task.data, jnp.asarray(1))))(x)

    draws = np.asarray(jax.vmap(gradient)(jax.random.split(KEY, 4000)))
    assert (np.abs(draws.mean(0) - 2.0 * (np.asarray(x) - b[1])) < 4 * 0.3 / np.sqrt(4000)).all()
    assert (np.abs(draws.var(0, ddof=1) / 0.09 - 1) < 4 * np.sqrt(2 / 3999)).all()
    objective = np.mean(0.5 * np.sum(a * (np.asarray(x) - b) ** 2, axis=1))
    np.testing.assert_allclose(task.metrics(x, task.test)["objective"], objective, rtol=1e-14)


def test_mini_batches_of_regressions_are_unbiased():
    task = linear_regression(3, 8, 2, batch_size=2, seed=5)
    whole = linear_regression(3, 8, 2, seed=5)
    x = jnp.asarray([0.3, -0.7])

    def gradient(task, key):
        return jax.grad(lambda x: task.loss(key, x, task.batch(key, task.data, jnp.asarray(2))))(x)

    draws = np.asarray(jax.vmap(lambda key: gradient(task, key))(jax.random.split(KEY, 3000)))
    z = (draws.mean(0) - gradient(whole, KEY)) / (draws.std(0, ddof=1) / np.sqrt(3000))
    assert (np.abs(z) < 4).all()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: quadratic(np.zeros(3)), r"targets of shape \(3,\)"),
        (lambda: quadratic(np.zeros((0, 3))), "targets of shape"),
        (lambda: quadratic(np.full((2, 2), np.nan)), r"targets\[0, 0\]=nan: must be finite"),
        (lambda: quadratic(np.zeros((2, 2)), curvature=np.ones(3)), "does not broadcast"),
        (lambda: quadratic(np.zeros((2, 2)), curvature=0.0), "curvature=0: must be .* above 0"),
        (lambda: quadratic(np.zeros((2, 2)), noise_std=-1.0), "noise_std=-1.0"),
        (lambda: linear_regression(0, 3, 2), "num_nodes=0"),
        (lambda: linear_regression(2, 3, 2, batch_size=4), "batch_size=4"),
        (lambda: linear_regression(2, 3, 2, heterogeneity=-1.0), "heterogeneity=-1.0"),
        (lambda: logistic_regression(2, 3, 2, penalty=0.0), "penalty=0.0"),
    ],
)
def test_bad_problems_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


# --- images -----------------------------------------------------------------------------------------------------------

DIGITS = digits(limit=(200, 50))
LINEAR = softmax_regression(64, 10)


@pytest.fixture(scope="module")
def images():
    partition = dirichlet(DIGITS.train.labels, 7, alpha=0.5, seed=1)
    return classification(DIGITS, partition, LINEAR, batch_size=16), partition


_draw = jax.jit(lambda task, key, node: task.batch(key, task.data, node))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 6), st.integers(0, 2**31 - 1))
def test_batches_come_from_the_nodes_own_shard(images, node, seed):
    task, partition = images
    batch = _draw(task, jax.random.key(seed), jnp.asarray(node, jnp.int32))
    own = partition.shard(node)
    pixels = (DIGITS.train.inputs[own].astype(np.float32) - DIGITS.mean[0]) / DIGITS.std[0]
    found = np.asarray(batch["inputs"]).reshape(16, -1)
    gaps = np.abs(found[:, None] - pixels.reshape(1, len(own), -1)).max(-1)  # (batch, shard)
    nearest = gaps.argmin(1)
    assert gaps.min(1).max() < 1e-5  # float32 rounding of the standardisation
    assert (DIGITS.train.labels[own][nearest] == batch["labels"]).all()


def test_every_sample_of_a_shard_is_drawn(images):
    task, partition = images
    node = int(np.argmin(partition.sizes))
    batches = [_draw(task, jax.random.key(seed), jnp.asarray(node, jnp.int32)) for seed in range(40)]
    drawn = {np.asarray(image).tobytes() for batch in batches for image in batch["inputs"]}
    whole = {image.tobytes() for image in DIGITS.train.inputs[partition.shard(node)]}
    # 640 draws of a few samples: the chance to miss one is below 1e-9.
    assert partition.sizes[node] < 25
    assert len(drawn) == len(whole)


def test_pixels_are_standardised():
    whole = digits()
    task = classification(whole, iid(len(whole.train.labels), 2, seed=0), LINEAR, batch_size=2048)
    pixels = np.asarray(_draw(task, KEY, jnp.asarray(0, jnp.int32))["inputs"])
    assert pixels.dtype == np.float32
    # 2048 images of 64 pixels drawn from half the data.
    assert abs(pixels.mean()) < 0.02
    assert abs(pixels.std() - 1) < 0.02
    assert task.data["inputs"].dtype == jnp.uint8


def test_accuracy_and_loss():
    """A model of zeros gives every class the same chance: loss log 10, and the first class is its guess."""
    task = classification(DIGITS, iid(200, 4, seed=0), LINEAR)
    zeros = jax.tree.map(jnp.zeros_like, task.init(KEY))
    metrics = task.metrics(zeros, task.test)
    np.testing.assert_allclose(metrics["loss"], np.log(10), rtol=1e-6)
    np.testing.assert_allclose(metrics["accuracy"], np.mean(DIGITS.test.labels == 0), rtol=1e-6)


def test_bad_images_are_refused():
    inputs = DIGITS.train.inputs.astype(np.float32)
    inputs[[3, 8], 0, 0, 0] = np.nan
    # The checked annotation wants bytes; a data set of floats is checked by its numbers.
    with_nan = dataclasses.replace(DIGITS, train=DIGITS.train._replace(inputs=inputs))
    empty = Partition(np.arange(200, dtype=np.int32), np.asarray([0, 200, 200], np.int32))
    cases = [
        (lambda: classification(with_nan, iid(200, 4, seed=0), LINEAR), "training inputs: 2 inputs .* sample 3"),
        (lambda: classification(DIGITS, iid(200, 4, seed=0), LINEAR, batch_size=0), "batch_size=0"),
        (lambda: classification(DIGITS, iid(500, 4, seed=0), LINEAR), "beyond the 200 of digits"),
        (lambda: classification(DIGITS, empty, LINEAR), "node 1 holds no sample"),
    ]
    for build, message in cases:
        with pytest.raises(ValueError, match=message):
            build()


@pytest.mark.slow
def test_decentralized_learning_reaches_central_accuracy():
    """64 nodes, Dirichlet(0.5) digits, a random 4-regular graph: within 2 points of all-reduce SGD, over 2 seeds."""
    whole = digits()
    partition = dirichlet(whole.train.labels, 64, alpha=0.5, seed=0, minimum=2)
    task = classification(whole, partition, mlp(64, (32,), 10), batch_size=8)
    plan = rounds(metropolis(random_regular(64, 4, seed=0)), 250)
    # Kept as Python floats: images and models are float32 also where JAX's default is float64.
    optimizer = Partial(optax.sgd, 0.1)
    keys = jax.random.split(jax.random.key(1), 2)

    def accuracy(protocol):
        start = Partial(_common_start, task)
        observers = [node_metrics(task)]
        result = simulate(keys, protocol, plan, start, observers=observers, record_every=250, strategy="vmap")
        return result["test_accuracy"].isel(record=-1).sel(statistic="mean").values

    central, gossip = accuracy(allreduce_sgd(task, optimizer)), accuracy(dpsgd(task, optimizer))
    assert central.mean() > 0.93
    assert gossip.mean() > central.mean() - 0.02


def _common_start(task, key):
    return replicate(task.init(key), task.num_nodes)


def test_private_tasks_have_no_samples_by_number():
    """Differences of two noisy gradients would lose their noise."""
    task = tasks.linear_regression(4, samples_per_node=10, dimension=2)
    private = node_dp(task, clip=1.0, noise=4.0)
    with pytest.raises(ValueError, match="its gradients are private"):
        tasks.finite_sum(private)
    by_hand = dataclasses.replace(tasks.finite_sum(task), task=private)
    for build in (gt_saga, Partial(gt_svrg, period=2)):
        with pytest.raises(ValueError, match="its gradients are private"):
            build(by_hand, 0.1)
