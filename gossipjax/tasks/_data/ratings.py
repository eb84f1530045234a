"""Ratings of items by users, and matrix factorisation of them: a user's ratings stay at one node.

The data are :func:`movielens`, or :func:`synthetic_ratings`, which need no file.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import zipfile
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Float32, Int, Int32, Key

from gossipjax._base.arguments import instance, real, reals, whole, wholes
from gossipjax._base.arguments import seed as checked_seed
from gossipjax._base.binding import Frozen
from gossipjax._base.calls import recorded
from gossipjax._base.display import displayed
from gossipjax._base.memory import check_memory
from gossipjax.tasks._data import files
from gossipjax.tasks._data.checksum import sha256_of
from gossipjax.tasks._groups import by_user
from gossipjax.tasks._partition import Partition, check_held
from gossipjax.types import Task

STARS = (0.5, 5.0)
"""The lowest and the highest rating; ratings are multiples of half a star."""
_START = 0.05


@displayed
class Ratings(NamedTuple):
    """Ratings, one a row.

    Attributes:
        users: ``(N,)`` number of the user, from 0.
        items: ``(N,)`` number of the item, from 0.
        stars: ``(N,)`` 0.5, 1, … 5.
    """

    users: Int32[np.ndarray, " N"]
    items: Int32[np.ndarray, " N"]
    stars: Float32[np.ndarray, " N"]

    def _facts(self) -> tuple[str, dict[str, Any]]:
        users, items = (np.unique(numbers).size for numbers in (self.users, self.items))
        return "", {"ratings": len(self.stars), "users": users, "items": items}


@displayed
@dataclasses.dataclass(frozen=True, eq=False)
class RatingsDataset:
    """Ratings with a split within each user.

    Attributes:
        name: what reports call it.
        train: training ratings.
        test: held-out ratings of all users.
        num_users: number of users.
        num_items: number of items, rated in ``train`` or not.
        source: the form of the files that was read or the settings of the generator, to be stated with results.
    """

    name: str
    train: Ratings
    test: Ratings
    num_users: int
    num_items: int
    source: str

    def _facts(self) -> tuple[str, dict[str, Any]]:
        sizes = {"training ratings": len(self.train.stars), "test ratings": len(self.test.stars)}
        return self.name, sizes | {"users": self.num_users, "items": self.num_items, "source": self.source}

    @functools.cached_property
    def checksum(self) -> str:
        """The sha256 of all that training depends on: the ratings of both parts, and the numbers of users and items."""
        arrays = {f"train.{name}": a for name, a in self.train._asdict().items()}
        arrays |= {f"test.{name}": a for name, a in self.test._asdict().items()}
        return sha256_of(arrays | {"num_users": self.num_users, "num_items": self.num_items})


# --- the data sets ----------------------------------------------------------------------------------------------------


@recorded("harper2015movielens")
def movielens(*, train_share: float = 0.7, seed: int = 0) -> RatingsDataset:
    """Load MovieLens ml-latest-small: 100,836 ratings of 9,724 movies by 610 people.

    Of the files in the user's own folder ``ml-latest-small.zip`` is taken, else its extracted ``ratings.csv``; where
    neither is there, the archive is downloaded. Users and movies are numbered from 0 in ascending order of ``userId``
    and ``movieId``; the 18 movies that nobody has rated have no number.

    Args:
        train_share: share of each user's ratings that is for training, drawn at random: of m ratings the nearest whole
            number to ``m train_share``, halves up, but at least one and at most m − 1.
        seed: seed of that draw.

    Returns:
        The data set; every rating is in ``train`` or in ``test``.

    Raises:
        ValueError: the share is not in (0, 1), or a file is corrupt.
        DataUnavailable: no form is in a folder of one's own and the archive is not to be had by download.

    Reference:
        Harper & Konstan, "The MovieLens Datasets: History and Context", ACM TiiS 5(4):19, 2015.
    """
    train_share, seed = _share(train_share), checked_seed(seed)
    table = np.loadtxt(io.BytesIO(_movielens_csv()), delimiter=",", skiprows=1, usecols=(0, 1, 2))
    numbers = [np.unique(column, return_inverse=True) for column in table[:, :2].T]
    (users, user), (items, item) = numbers
    ratings = Ratings(user.astype(np.int32), item.astype(np.int32), table[:, 2].astype(np.float32))
    held = _held_out(np.random.default_rng(seed), ratings.users, train_share)
    source = f"MovieLens ml-latest-small (split within users, training share {train_share:g}, seed {seed})"
    return RatingsDataset("movielens", *_split(ratings, held), len(users), len(items), source)


@recorded()
def synthetic_ratings(
    num_users: int = 200,
    num_items: int = 400,
    *,
    factors: int = 3,
    mean_count: float = 30.0,
    noise_std: float = 0.5,
    train_share: float = 0.7,
    seed: int = 0,
) -> RatingsDataset:
    """Make ratings of low rank with noise, which need no file.

    User u rates item i with ``3.5 + 0.4 a_u + 0.4 b_i + 0.6 p_u·q_i / √factors + noise_std ε`` stars, brought to the
    nearest half star in 0.5 … 5; all of a, b, p, q and ε are standard normal. Counts are long-tailed, as people's are:
    a user rates a log-normal number of items (median ``mean_count / √e``, at least 4, at most all), each user
    distinct ones, drawn in proportion to a popularity ∝ 1 / rank (Zipf).

    Args:
        num_users: number of users, at least 1.
        num_items: number of items, at least 4.
        factors: rank of the part that users and items share, at least 1.
        mean_count: ratings per user on average, before the bounds; at least 4.
        noise_std: standard deviation of what no model can know, in stars.
        train_share: share of each user's ratings that is for training, rounded as in :func:`movielens`.
        seed: seed of all draws.

    Returns:
        The data set. Memory while it is made: three matrices of users by items.

    Raises:
        ValueError: a number out of its range.
    """
    num_users, num_items = whole("num_users", num_users, least=1), whole("num_items", num_items, least=4)
    factors, seed = whole("factors", factors, least=1), checked_seed(seed)
    mean_count = real("mean_count", mean_count, least=4, unit="ratings")
    noise_std = real("noise_std", noise_std, least=0, unit="stars")
    train_share = _share(train_share)
    room = 3 * num_users * num_items + factors * (num_users + num_items)
    check_memory(f"num_users={num_users}, num_items={num_items}, factors={factors}", 8 * room, "take fewer of any")
    rng = np.random.default_rng(seed)
    users, items = _who_rates_what(rng, num_users, num_items, mean_count)
    tastes, traits = rng.standard_normal((num_users, factors)), rng.standard_normal((num_items, factors))
    scale = 3.5 + 0.4 * rng.standard_normal(num_users)[users] + 0.4 * rng.standard_normal(num_items)[items]
    fit = 0.6 * np.sum(tastes[users] * traits[items], axis=1) / np.sqrt(factors)
    stars = np.clip(np.round(2 * (scale + fit + noise_std * rng.standard_normal(len(users)))) / 2, *STARS)
    ratings = Ratings(users.astype(np.int32), items.astype(np.int32), stars.astype(np.float32))
    held = _held_out(rng, ratings.users, train_share)
    source = f"synthetic ratings (rank {factors}, noise {noise_std:g} stars, seed {seed})"
    return RatingsDataset("synthetic_ratings", *_split(ratings, held), num_users, num_items, source)


@recorded()
def ratings_by_user(dataset: RatingsDataset, num_nodes: int) -> Partition:
    """Deal consecutive users to nodes: of U users the first U mod n nodes get one more than the others.

    Args:
        dataset: ratings.
        num_nodes: number of nodes n; as many as users gives one user to each.

    Returns:
        The partition of ``dataset.train``.

    Raises:
        ValueError: fewer than one node, or more nodes than users.
    """
    instance("dataset", dataset, RatingsDataset, "such as synthetic_ratings()")
    return by_user(dataset.train.users, num_nodes, seed=None)


def _movielens_csv() -> bytes:
    """Return ``ratings.csv``, out of the archive where that is at hand."""
    if files.locate(files.MOVIELENS_ARCHIVE) is None and (path := files.locate(files.MOVIELENS_RATINGS)):
        return path.read_bytes()
    with zipfile.ZipFile(files.fetch(files.MOVIELENS_ARCHIVE)) as archive:
        return archive.read("ml-latest-small/ratings.csv")


def _who_rates_what(
    rng: np.random.Generator, num_users: int, num_items: int, mean_count: float
) -> tuple[Int[np.ndarray, " N"], Int[np.ndarray, " N"]]:
    """Draw each user's number of items, and which, without replacement: the largest perturbed log-popularities."""
    counts = np.clip(np.round(mean_count * np.exp(rng.standard_normal(num_users) - 0.5)), 4, num_items).astype(int)
    popularity = -np.log(1.0 + rng.permutation(num_items))
    order = np.argsort(-(popularity + rng.gumbel(size=(num_users, num_items))), axis=1)
    return np.repeat(np.arange(num_users), counts), order[np.arange(num_items) < counts[:, None]]


def _held_out(rng: np.random.Generator, users: Int32[np.ndarray, " N"], train_share: float) -> Bool[np.ndarray, " N"]:
    """Mark the ratings for testing: for each user a random choice of the stated number."""
    counts = np.bincount(users)
    # The small term keeps a half that floating point has put just below from being rounded down.
    quota = np.clip(np.floor(train_share * counts + 0.5 + 1e-9).astype(np.int64), 1, np.maximum(counts - 1, 1))
    shuffled = rng.permutation(len(users))
    order = shuffled[np.argsort(users[shuffled], kind="stable")]
    rank = np.arange(len(users)) - np.repeat(np.cumsum(counts) - counts, counts)
    held = np.empty(len(users), bool)
    held[order] = rank >= np.repeat(quota, counts)
    return held


def _split(ratings: Ratings, held: Bool[np.ndarray, " N"]) -> tuple[Ratings, Ratings]:
    return Ratings(*(column[~held] for column in ratings)), Ratings(*(column[held] for column in ratings))


def _share(train_share: float) -> float:
    return real("train_share", train_share, above=0, below=1, remedy="so that ratings are left to test with")


# --- the task ---------------------------------------------------------------------------------------------------------


class _Sizes(NamedTuple):
    """What is compiled in."""

    num_users: int
    num_items: int
    factors: int
    batch_size: int


def _init(sizes: Frozen[_Sizes], key: Key[Array, ""]) -> dict[str, Array]:
    shapes = {"users": sizes.value.num_users, "items": sizes.value.num_items}
    keys = jax.random.split(key)
    return {
        name: jax.random.uniform(keys[k], (count, sizes.value.factors), jnp.float32, -_START, _START)
        for k, (name, count) in enumerate(shapes.items())
    }


def _batch(sizes: Frozen[_Sizes], key: Key[Array, ""], data: dict[str, Array], node: Array) -> dict[str, Array]:
    """Draw ratings of the node's users uniformly with replacement; those of a node lie side by side."""
    picks = jax.random.randint(key, (sizes.value.batch_size,), data["offsets"][node], data["offsets"][node + 1])
    return {"inputs": data["inputs"][picks], "labels": data["labels"][picks]}


def _predict(params: dict[str, Array], inputs: Int[Array, "b 2"]) -> Float[Array, " b"]:
    return jnp.sum(params["users"][inputs[:, 0]] * params["items"][inputs[:, 1]], axis=1)


def _loss(key: Key[Array, ""], params: dict[str, Array], batch: dict[str, Array]) -> Float[Array, ""]:
    del key
    return jnp.mean(jnp.square(_predict(params, batch["inputs"]) - batch["labels"]))


def _metrics(params: dict[str, Array], test: dict[str, Array]) -> dict[str, Array]:
    raw = _predict(params, test["inputs"])
    clipped, stars = jnp.clip(raw, *STARS), test["labels"]
    return {
        "rmse": jnp.sqrt(jnp.mean(jnp.square(clipped - stars))),
        "accuracy": jnp.mean((jnp.round(2 * clipped) == 2 * stars).astype(jnp.float32)),
        "loss": jnp.mean(jnp.square(raw - stars)),
    }


def _checked(dataset: RatingsDataset, part: str) -> Ratings:
    """Hold the ratings of one part against each other and against the numbers of users and items."""
    ratings = instance(f"{part} of {dataset.name}", getattr(dataset, part), Ratings, "make it with Ratings(users, …)")
    count = len(ratings.stars) if np.ndim(ratings.stars) else 0
    if not count:
        raise ValueError(f"{part}.stars of {dataset.name} holds no rating; a task trains and tests with some")
    for name in ("users", "items"):
        most = whole(f"num_{name} of {dataset.name}", getattr(dataset, f"num_{name}"), least=1, most=2**31 - 1)
        remedy = f"{dataset.name} has {most} {name}, and {count} ratings in this part"
        wholes(f"{part}.{name}", getattr(ratings, name), shape=(count,), least=0, most=most - 1, remedy=remedy)
    reals(f"{part}.stars", ratings.stars, shape=(count,), unit="stars")
    return Ratings(*map(np.asarray, ratings))


def _arrays(ratings: Ratings) -> dict[str, Array]:
    inputs = np.stack([ratings.users, ratings.items], axis=1)
    return {"inputs": jnp.asarray(inputs, jnp.int32), "labels": jnp.asarray(ratings.stars, jnp.float32)}


@recorded("koren2009factorization")
def matrix_factorization(
    dataset: RatingsDataset, partition: Partition, *, factors: int = 20, batch_size: int = 16
) -> Task:
    """Build the factorisation r_ui ≈ p_u · q_i of ratings, without biases: mean of (p_u · q_i − r_ui)² over a batch.

    A model is ``{"users": (num_users, factors), "items": (num_items, factors)}``, float32, uniform on ±0.05 at the
    start: 206,680 parameters for MovieLens and 20 factors. Every node holds the rows of all users and items, and one
    step moves at most ``2 batch_size`` of them.

    Args:
        dataset: train and test ratings.
        partition: which training ratings each node holds, such as :func:`ratings_by_user`.
        factors: numbers per user and per item.
        batch_size: ratings drawn per step, uniformly with replacement from the node's share.

    Returns:
        A task whose metrics are over the held-out ratings of all users: ``rmse``, in stars, of predictions clipped to
        0.5 … 5; ``accuracy``, the share of clipped predictions whose nearest half star is the rating; ``loss``, the
        mean squared error, in stars², of predictions as they are.

    Raises:
        ValueError: a number below 1, a user or item beyond their number, a rating that is not finite, a partition of
            other data, a node without ratings.

    Reference:
        Koren, Bell and Volinsky, "Matrix Factorization Techniques for Recommender Systems", IEEE Computer 42(8), 2009;
        as trained in Dhasade et al., "Get More for Less in Decentralized Learning Systems" (JWINS), ICDCS 2023.
    """
    instance("dataset", dataset, RatingsDataset, "such as synthetic_ratings()")
    factors = whole("factors", factors, least=1, most=2**31 - 1)
    batch_size = whole("batch_size", batch_size, least=1, most=2**31 - 1)
    train, test = _checked(dataset, "train"), _checked(dataset, "test")
    check_held(partition, len(train.stars), dataset.name)
    own = Ratings(*(column[partition.indices] for column in train))
    sizes = Frozen(_Sizes(dataset.num_users, dataset.num_items, factors, batch_size))
    return Task(
        Partial(_init, sizes),
        Partial(_batch, sizes),
        Partial(_loss),
        Partial(_metrics),
        _arrays(own) | {"offsets": jnp.asarray(partition.offsets, jnp.int32)},
        _arrays(test),
        num_nodes=partition.num_nodes,
    )
