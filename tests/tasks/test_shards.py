"""What a device of a mesh holds of a task: the samples of its nodes, and batches equal bit for bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.tree_util import Partial

from gossipjax import placement, privacy, robust
from gossipjax._base.placement import is_by_rows, shards_of
from gossipjax.tasks import (
    WindowRule,
    classification,
    dirichlet,
    finite_sum,
    from_arrays,
    iid,
    linear_regression,
    lstm,
    matrix_factorization,
    natural,
    next_character,
    quadratic,
    ratings_by_user,
    softmax_regression,
    synthetic_ratings,
    synthetic_text,
)

N = 5
DRAWS = np.random.default_rng(0)
LABELS = np.arange(40) % 4


def classification_of(partition):
    data = from_arrays(DRAWS.normal(size=(40, 3)), LABELS, DRAWS.normal(size=(8, 3)), LABELS[:8])
    return classification(data, partition, softmax_regression(3, 4), batch_size=6)


def images():
    return classification_of(dirichlet(LABELS, N, alpha=0.5, seed=0))


def letters():
    text = synthetic_text(8, mean_length=60.0, rule=WindowRule(context=5), seed=0)
    return next_character(text, natural(text.train.roles, N, seed=0), lstm(context=5), batch_size=4)


def stars():
    data = synthetic_ratings(20, 30, mean_count=8.0, seed=0)
    return matrix_factorization(data, ratings_by_user(data, N), factors=2, batch_size=4)


TASKS = {
    "images": images,
    "letters": letters,
    "stars": stars,
    "regression": lambda: linear_regression(N, 7, 3, batch_size=2),
    "quadratic": lambda: quadratic(np.eye(N), noise_std=0.1),
    "flipped labels": lambda: robust.flip_labels(images(), [1, 3], 4),
    "private samples": lambda: privacy.sample_dp(images(), clip=1.0, noise=1.0, batch_size=1),
    "private nodes": lambda: privacy.node_dp(images(), clip=1.0, noise=1.0),
}


BUILT = {}


def build(name):
    if name not in BUILT:
        BUILT[name] = TASKS[name]()
    return BUILT[name]


def held(task, nodes):
    return jax.tree.map(jnp.asarray, shards_of(task.batch)(task.data, np.asarray(nodes)))


@pytest.mark.parametrize("name", TASKS)
@settings(max_examples=8, deadline=None)
@given(st.sets(st.integers(0, N - 1), min_size=1), st.integers(0, 2**31 - 1))
def test_batches_of_a_part_are_those_of_all(name, nodes, seed):
    task = build(name)
    for node in nodes:
        drawn = [
            task.batch(jax.random.key(seed), data, jnp.int32(node)) for data in (task.data, held(task, sorted(nodes)))
        ]
        jax.tree.map(np.testing.assert_array_equal, *drawn)
        types = [jax.tree.map(lambda leaf: leaf.dtype, each) for each in drawn]
        assert types[0] == types[1]


def of_shard(task, node):
    first, last = np.asarray(task.data["offsets"])[[node, node + 1]]
    return slice(first, last)


def test_a_part_holds_the_samples_of_its_nodes_and_no_others():
    pictures, words, ratings = build("images"), build("letters"), build("stars")
    for node in range(N):
        own = np.asarray(pictures.data["indices"])[of_shard(pictures, node)]
        for name in ("inputs", "labels"):  # of the pool, which is sorted within a node
            np.testing.assert_array_equal(held(pictures, [node])[name], np.asarray(pictures.data[name])[own])
        for name in ("inputs", "labels"):
            np.testing.assert_array_equal(
                held(ratings, [node])[name], np.asarray(ratings.data[name])[of_shard(ratings, node)]
            )
        starts = np.asarray(words.data["starts"])[of_shard(words, node)]
        read = np.unique(starts[:, None] + np.arange(6))  # a window of 5 characters, and the next
        np.testing.assert_array_equal(held(words, [node])["codes"], np.asarray(words.data["codes"])[read])
    part = held(build("regression"), [1, 4])
    assert (part["features"].values.shape, part["features"].shape) == ((2, 7, 3), (N, 7, 3))
    assert (
        build("regression").data["penalty"]
        is shards_of(build("regression").batch)(build("regression").data, np.array([1]))["penalty"]
    )


def test_samples_by_number_are_those_of_all():
    data = build("images").data
    even = iid(40, N, seed=0)
    task = finite_sum(classification_of(even))
    part = held(task.task, [1, 4])
    assert is_by_rows(task.sample)
    for node in (1, 4):
        numbers = jnp.array([3, 0, 7], jnp.int32)
        drawn = [task.sample(data, jnp.int32(node), numbers) for data in (task.task.data, part)]
        jax.tree.map(np.testing.assert_array_equal, *drawn)
    assert len(part["labels"]) == 16 < len(data["labels"])


def _own(key, data, node):
    return data["place"][node]


@placement.by_rows
def _changed(batch, key, data, node):
    return -batch(key, data, node)


def test_marks_of_users():
    """A batch without a mark has the data of all; one that changes another's draws has that one's part."""
    assert shards_of(Partial(_own)) is None
    assert shards_of(lambda key, data, node: 0) is None
    assert shards_of(Partial(_changed, Partial(_own))) is None
    marked = placement.by_shards(lambda data, nodes: {"place": (data["place"], tuple(nodes))})(_own)
    assert marked is _own
    for batch in (_own, Partial(_own), Partial(_changed, Partial(_own))):
        assert shards_of(batch)({"place": 7}, np.array([2]))["place"] == (7, (2,))
    with pytest.raises(TypeError, match="shards"):
        placement.by_shards(3)
    with pytest.raises(TypeError, match="function"):
        placement.by_shards(lambda data, nodes: data)(3)
