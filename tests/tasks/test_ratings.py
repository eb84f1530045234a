"""Ratings: files and generator, the split within users, and matrix factorisation against NumPy."""

import dataclasses
import hashlib
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from data_files import needs
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.tree_util import Partial

from gossipjax import dpsgd, replicate, simulate
from gossipjax.mixing import metropolis
from gossipjax.observe import node_metrics
from gossipjax.tasks import Partition, iid, matrix_factorization, movielens, ratings_by_user, synthetic_ratings
from gossipjax.tasks._data import files, ratings
from gossipjax.tasks._models.model import num_parameters
from gossipjax.tasks._partition import check_partition
from gossipjax.timeline import rounds
from gossipjax.topology import ring

KEY = jax.random.key(0)
properties = settings(deadline=None, max_examples=25)


def everything(data):
    """All ratings as rows (user, item, stars), sorted."""
    rows = np.concatenate([np.stack(part, axis=1).astype(np.float64) for part in (data.train, data.test)])
    return rows[np.lexsort(rows.T[::-1])]


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Twelve ratings as the published files have them; a function puts one form into the folder."""
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("GOSSIPJAX_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("GOSSIPJAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("GOSSIPJAX_OFFLINE", "1")
    table = [(u, m, s) for u, movies in ((3, (7, 2, 900)), (8, (900, 7)), (5, range(20, 27))) for m, s in zip(
        movies, np.arange(1, 8) / 2, strict=False
    )]  # fmt: skip
    lines = ["userId,movieId,rating,timestamp", *(f"{u},{m},{s},964982703" for u, m, s in table)]
    content = "".join(line + "\r\n" for line in lines).encode()
    with zipfile.ZipFile(tmp_path / "archive", "w") as archive:
        archive.writestr("ml-latest-small/ratings.csv", content)
    forms = {"MOVIELENS_ARCHIVE": (tmp_path / "archive").read_bytes(), "MOVIELENS_RATINGS": content}
    for name, raw in forms.items():
        known = dataclasses.replace(getattr(files, name), sha256=hashlib.sha256(raw).hexdigest())
        monkeypatch.setattr(files, name, known)

    def put(name):
        file = getattr(files, name)
        path = tmp_path / "data" / file.folder / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(forms[name])

    return put, table


@pytest.mark.parametrize("form", ["MOVIELENS_ARCHIVE", "MOVIELENS_RATINGS"])
def test_either_form_is_read_and_numbered_in_ascending_order(small, form):
    put, table = small
    put(form)
    data = movielens(seed=4)
    users, items = [3, 5, 8], [2, 7, *range(20, 27), 900]
    assert (data.num_users, data.num_items) == (3, 10)
    expected = sorted((users.index(u), items.index(m), s) for u, m, s in table)
    np.testing.assert_array_equal(everything(data), expected)
    np.testing.assert_array_equal(np.bincount(data.train.users), [2, 5, 1])  # 2.1, 4.9 and 1.4, rounded
    assert [column.dtype for column in data.train] == [np.int32, np.int32, np.float32]
    assert "seed 4" in data.source


def test_without_files_the_error_names_archive_and_address(small):
    with pytest.raises(files.DataUnavailable, match=r"ml-latest-small\.zip.*files\.grouplens\.org"):
        movielens()


@needs("movielens")
def test_published_movielens():
    data = movielens()
    rows = everything(data)
    assert (data.num_users, data.num_items, len(rows)) == (610, 9724, 100_836)
    counts = [1370, 2811, 1791, 7551, 5550, 20047, 13136, 26818, 8551, 13211]
    np.testing.assert_array_equal(np.bincount((2 * rows[:, 2]).astype(int))[1:], counts)
    assert len(np.unique(rows[:, :2], axis=0)) == len(rows)
    of_user = np.bincount(rows[:, 0].astype(int))
    np.testing.assert_array_equal(np.bincount(data.train.users), (7 * of_user + 5) // 10)
    partition = ratings_by_user(data, 96)
    people = [len(np.unique(data.train.users[partition.shard(node)])) for node in range(96)]
    assert people == [7] * 34 + [6] * 62


# --- the split and the generator --------------------------------------------------------------------------------------


@properties
@given(st.integers(1, 30), st.integers(4, 40), st.integers(1, 9), st.integers(0, 2**32))
def test_every_rating_is_used_once_and_shares_are_rounded_as_stated(num_users, num_items, tenths, seed):
    options = {"num_users": num_users, "num_items": num_items, "mean_count": 12.0, "seed": seed}
    data, half = synthetic_ratings(train_share=tenths / 10, **options), synthetic_ratings(train_share=0.5, **options)
    np.testing.assert_array_equal(everything(data), everything(half))
    rows = everything(data)
    assert len(np.unique(rows[:, :2], axis=0)) == len(rows)
    assert set(rows[:, 2]) <= set(np.arange(1, 11) / 2)
    counts = np.bincount(rows[:, 0].astype(int))
    assert counts.min() >= 4
    # Exact: whole numbers throughout.
    expected = np.clip((2 * tenths * counts + 10) // 20, 1, counts - 1)
    np.testing.assert_array_equal(np.bincount(data.train.users), expected)
    assert rows[:, 1].max() < data.num_items


def test_the_split_is_random_and_fixed_by_its_seed():
    users = np.repeat(np.arange(400, dtype=np.int32), 10)
    held = [ratings._test_mask(np.random.default_rng(seed), users, 0.7) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(held[0], held[1])
    assert np.any(held[0] != held[2])
    # Each of the ten places is held out by 30 % of 400 users: a binomial of standard error sqrt(.3 .7 / 400).
    z = (held[0].reshape(400, 10).mean(0) - 0.3) / np.sqrt(0.21 / 400)
    assert np.abs(z).max() < 4


def test_counts_are_long_tailed():
    """Log-counts are normal of mean log 60 − 1/2 and deviation 1, and popularity is 1 / rank."""
    data = synthetic_ratings(1000, 2000, mean_count=60.0, seed=3)
    rows = everything(data)
    counts = np.bincount(rows[:, 0].astype(int))
    # The median of 1,000 log-normal counts: standard error sqrt(π / 2 / 1000) of the logarithm, before rounding
    # to whole numbers (1.4 % at 36).
    assert abs(np.log(np.median(counts) / 60) + 0.5) < 4 * np.sqrt(np.pi / 2000) + 0.014
    # Users of few ratings draw nearly with replacement, and the law there is p_i = 1 / (i H_2000) with H = 8.18: the
    # ten most popular items get 36 %, less what a user cannot rate twice.
    few = counts[rows[:, 0].astype(int)] <= 8
    popular = np.bincount(rows[:, 1].astype(int), minlength=2000)
    top = np.argsort(-popular)[:10]
    assert 0.25 < np.isin(rows[few, 1], top).mean() < 0.36


def test_noise_has_the_stated_size():
    """Two data sets differ in their noise alone: the squared gap is σ² and Δ²/12 for each rounding to Δ = 1/2.

    For σ = Δ the two rounding errors are uncorrelated up to exp(−2π²); the bounds are 4 σ away.
    """
    base = {"num_users": 600, "num_items": 200, "seed": 5}
    quiet, loud = everything(synthetic_ratings(noise_std=0.0, **base)), everything(synthetic_ratings(**base))
    np.testing.assert_array_equal(quiet[:, :2], loud[:, :2])
    gaps = (loud - quiet)[(quiet[:, 2] >= 2.5) & (quiet[:, 2] <= 3.0), 2] ** 2
    z = (gaps.mean() - (0.25 + 2 * 0.25 / 12)) / (gaps.std(ddof=1) / np.sqrt(len(gaps)))
    assert abs(z) < 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_share": 1.0}, r"train_share=1\.0: must .* below 1"),
        ({"num_users": 0}, "num_users=0: must .* at least 1"),
        ({"num_items": 3}, "num_items=3: .* at least 4"),
        ({"factors": 0}, "factors=0"),
        ({"mean_count": float("nan")}, "mean_count=nan"),
        ({"noise_std": -0.1}, r"noise_std=-0\.1"),
    ],
)
def test_bad_settings_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        synthetic_ratings(**options)


@properties
@given(st.integers(1, 40), st.integers(1, 40))
def test_users_are_dealt_contiguously(num_users, num_nodes):
    data = synthetic_ratings(num_users, 20, seed=num_users)
    if num_nodes > num_users:
        with pytest.raises(ValueError, match=f"num_nodes={num_nodes}: must .* in 1 … {num_users}"):
            ratings_by_user(data, num_nodes)
        return
    partition = ratings_by_user(data, num_nodes)
    check_partition(partition, len(data.train.users))
    held = [np.unique(data.train.users[partition.shard(node)]) for node in range(num_nodes)]
    np.testing.assert_array_equal(np.concatenate(held), np.arange(num_users))
    more, base = num_users % num_nodes, num_users // num_nodes
    assert [len(users) for users in held] == [base + 1] * more + [base] * (num_nodes - more)


# --- matrix factorisation ---------------------------------------------------------------------------------------------

DATA = synthetic_ratings(12, 30, seed=1)


@pytest.fixture(scope="module")
def task():
    return matrix_factorization(DATA, ratings_by_user(DATA, 5), factors=4, batch_size=6)


def test_parameters_of_movielens_are_the_published_number():
    one = ratings.Ratings(np.zeros(1, np.int32), np.zeros(1, np.int32), np.ones(1, np.float32))
    data = ratings.RatingsDataset("movielens", one, one, 610, 9724, "none")
    task = matrix_factorization(data, Partition(np.zeros(1, np.int32), np.array([0, 1], np.int32)))
    params = jax.eval_shape(task.init, KEY)
    assert {name: leaf.shape for name, leaf in params.items()} == {"users": (610, 20), "items": (9724, 20)}
    assert num_parameters(params) == 206_680


def test_start_is_uniform_on_a_twentieth():
    task = matrix_factorization(DATA, ratings_by_user(DATA, 5), factors=500)
    for leaf in task.init(KEY).values():
        values = np.asarray(leaf, np.float64)
        assert values.max() <= 0.05 * (1 + 1e-6)  # float32 rounding of the bound
        assert values.min() >= -0.05 * (1 + 1e-6)
        # Variance of U(±a) is a²/3; its estimate has standard error a² sqrt(4 / 45 / N).
        assert abs(np.mean(values**2) - 0.05**2 / 3) < 4 * 0.05**2 * np.sqrt(4 / 45 / values.size)
    assert not np.array_equal(task.init(KEY)["users"], task.init(KEY)["items"][:12])


def test_batches_are_ratings_of_the_nodes_own_users(task):
    partition = ratings_by_user(DATA, 5)
    known = {(u, i): s for u, i, s in zip(*DATA.train, strict=True)}
    draw = jax.jit(lambda key, node: task.batch(key, task.data, node))
    for node in range(5):
        own, seen = set(zip(*(column[partition.shard(node)] for column in DATA.train[:2]), strict=True)), set()
        for seed in range(400):
            batch = draw(jax.random.key(seed), jnp.asarray(node, jnp.int32))
            pairs = list(map(tuple, np.asarray(batch["inputs"])))
            np.testing.assert_array_equal(batch["labels"], [known[pair] for pair in pairs])
            seen |= set(pairs)
        assert seen == own  # 2,400 draws of at most 100 ratings miss one with probability below 1e-8


def test_gradient_is_the_written_one_and_touches_only_the_rows_of_the_batch(task):
    batch = task.batch(jax.random.key(7), task.data, jnp.asarray(2, jnp.int32))
    params = jax.tree.map(lambda a: 10 * a.astype(jnp.float64), task.init(KEY))
    labels = batch["labels"].astype(jnp.float64)
    loss, grads = jax.value_and_grad(task.loss, argnums=1)(KEY, params, batch | {"labels": labels})
    expected = {name: np.zeros(leaf.shape) for name, leaf in params.items()}
    p, q, total = np.asarray(params["users"]), np.asarray(params["items"]), 0.0
    for (u, i), r in zip(np.asarray(batch["inputs"]), np.asarray(labels), strict=True):
        error = p[u] @ q[i] - r
        total += error**2 / 6
        expected["users"][u] += 2 * error * q[i] / 6
        expected["items"][i] += 2 * error * p[u] / 6
    # Float64 sums of a few terms in two orders.
    np.testing.assert_allclose(loss, total, rtol=1e-12)
    for name, grad in grads.items():
        np.testing.assert_allclose(grad, expected[name], rtol=1e-12, atol=1e-14)
    assert sum(np.any(np.asarray(grad) != 0, axis=1).sum() for grad in grads.values()) <= 2 * 6


def test_metrics_equal_a_loop(task):
    rng = np.random.default_rng(2)
    p, q = 1.5 * rng.standard_normal((12, 4)), 1.5 * rng.standard_normal((30, 4))  # many predictions out of range
    params = {"users": jnp.asarray(p, jnp.float32), "items": jnp.asarray(q, jnp.float32)}
    metrics = task.metrics(params, task.test)
    hits, clipped, raw = [], [], []
    for u, i, r in zip(*DATA.test, strict=True):
        guess = float(p[u] @ q[i])
        shown = min(max(guess, 0.5), 5.0)
        hits.append(abs(shown - r) <= 0.25)
        clipped.append((shown - r) ** 2)
        raw.append((guess - r) ** 2)
    # Float32 dot products and means of about a hundred terms.
    np.testing.assert_allclose(metrics["rmse"], np.sqrt(np.mean(clipped)), rtol=1e-5)
    np.testing.assert_allclose(metrics["loss"], np.mean(raw), rtol=1e-5)
    np.testing.assert_allclose(metrics["accuracy"], np.mean(hits), rtol=1e-6)
    assert 0 < np.mean(hits) < 1


def test_perfect_factors_are_perfect(task):
    """A rank-one table of stars is predicted without error."""
    stars = np.full((12, 30), 4.0, np.float32)
    same = ratings.Ratings(DATA.test.users, DATA.test.items, stars[DATA.test.users, DATA.test.items])
    perfect = matrix_factorization(dataclasses.replace(DATA, test=same), ratings_by_user(DATA, 5), factors=1)
    params = {"users": jnp.full((12, 1), 2.0, jnp.float32), "items": jnp.full((30, 1), 2.0, jnp.float32)}
    metrics = {name: float(value) for name, value in perfect.metrics(params, perfect.test).items()}
    assert metrics == {"rmse": 0.0, "accuracy": 1.0, "loss": 0.0}


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: matrix_factorization(DATA, iid(10, 2, seed=0), factors=0), "factors=0"),
        (lambda: matrix_factorization(DATA, iid(10, 2, seed=0), batch_size=0), "batch_size=0"),
        (lambda: matrix_factorization(DATA, iid(10**4, 2, seed=0)), "beyond the .* of synthetic_ratings"),
        (
            lambda: matrix_factorization(DATA, Partition(np.zeros(1, np.int32), np.array([0, 1, 1], np.int32))),
            "node 1 holds no sample",
        ),
    ],
)
def test_bad_tasks_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.slow
def test_nodes_learn_more_than_the_mean_rating():
    """Gossip on a ring beats the best constant, evaluated on a subset of the held-out ratings as well."""
    data = synthetic_ratings(24, 40, noise_std=0.3, mean_count=30.0, seed=2)
    task = matrix_factorization(data, ratings_by_user(data, 8), factors=4, batch_size=16)
    protocol = dpsgd(task, Partial(optax.sgd, 0.1), local_steps=5)
    watch = [node_metrics(task, samples=60)]
    start = replicate(task.init(jax.random.key(3)), 8)
    run = simulate(KEY, protocol, rounds(metropolis(ring(8)), 300), start, observers=watch, record_every=300)
    whole = jax.vmap(lambda x: task.metrics(x, task.test)["rmse"])(run.x)
    constant = np.std(data.test.stars)
    assert float(jnp.mean(whole)) < constant
    assert float(run["test_rmse"].isel(record=0).sel(statistic="mean")) > 2  # predictions of 0, clipped to 0.5
    assert float(run["test_rmse"].isel(record=-1).sel(statistic="mean")) < constant
