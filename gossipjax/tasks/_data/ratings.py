"""Ratings of items by users; all ratings of a user stay at one node.

:func:`movielens` loads real ratings; :func:`synthetic_ratings` needs no file.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import zipfile
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int, Int32

from gossipjax._base.arguments import instance, real, whole
from gossipjax._base.arguments import seed as checked_seed
from gossipjax._base.calls import recorded
from gossipjax._base.display import displayed
from gossipjax._base.hashing import named_arrays_hash
from gossipjax._base.memory import check_memory
from gossipjax.tasks._data import files
from gossipjax.tasks._groups import by_user
from gossipjax.tasks._partition import Partition

STARS = (0.5, 5.0)
"""The lowest and the highest rating; ratings are multiples of half a star."""


@displayed
class Ratings(NamedTuple):
    """Ratings, one per row.

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
        name: its name in reports.
        train: training ratings.
        test: held-out ratings of all users.
        num_users: number of users.
        num_items: number of items, including items without training ratings.
        source: which files were read, or the settings of the generator, for reports.
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
        """The sha256 of everything that affects training: the ratings and the numbers of users and items."""
        arrays = {f"train.{name}": a for name, a in self.train._asdict().items()}
        arrays |= {f"test.{name}": a for name, a in self.test._asdict().items()}
        return named_arrays_hash(arrays | {"num_users": self.num_users, "num_items": self.num_items})


# --- the data sets ----------------------------------------------------------------------------------------------------


@recorded("harper2015movielens")
def movielens(*, train_share: float = 0.7, seed: int = 0) -> RatingsDataset:
    """Load MovieLens ml-latest-small: 100,836 ratings of 9,724 movies by 610 people.

    The loader reads ``ml-latest-small.zip`` or its extracted ``ratings.csv`` from the user's folder; if neither exists,
    it downloads the archive. Users and movies are numbered from 0 in ascending order of ``userId`` and ``movieId``; the
    18 movies without a rating have no number.

    Args:
        train_share: share of each user's ratings for training, drawn at random: of m ratings, ``m train_share`` rounded
            to the nearest whole number (halves up), at least 1 and at most m − 1.
        seed: seed of that draw.

    Returns:
        The data set; every rating is in ``train`` or in ``test``.

    Raises:
        ValueError: if the share is not in (0, 1), or a file is corrupt.
        DataUnavailable: if the data are not in the user's folder and the archive cannot be downloaded.

    Reference:
        Harper & Konstan, "The MovieLens Datasets: History and Context", ACM TiiS 5(4):19, 2015.
    """
    train_share, seed = _share(train_share), checked_seed(seed)
    table = np.loadtxt(io.BytesIO(_movielens_csv()), delimiter=",", skiprows=1, usecols=(0, 1, 2))
    numbers = [np.unique(column, return_inverse=True) for column in table[:, :2].T]
    (users, user), (items, item) = numbers
    ratings = Ratings(user.astype(np.int32), item.astype(np.int32), table[:, 2].astype(np.float32))
    held = _test_mask(np.random.default_rng(seed), ratings.users, train_share)
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
    """Generate noisy ratings of low rank; no file is needed.

    User u rates item i with ``3.5 + 0.4 a_u + 0.4 b_i + 0.6 p_u·q_i / √factors + noise_std ε`` stars, rounded to the
    nearest half star in 0.5 … 5, where a, b, p, q and ε are standard normal. Counts are long-tailed as in real data:
    the number of items per user is log-normal (median ``mean_count / √e``, at least 4, at most all); the items of a
    user are distinct, drawn in proportion to a popularity ∝ 1 / rank (Zipf).

    Args:
        num_users: number of users, at least 1.
        num_items: number of items, at least 4.
        factors: rank of the interaction between users and items, at least 1.
        mean_count: mean number of ratings per user, before the bounds; at least 4.
        noise_std: standard deviation of the noise, in stars.
        train_share: share of each user's ratings for training, rounded as in :func:`movielens`.
        seed: seed of all draws.

    Returns:
        The data set. Building it takes the memory of three matrices (users, items).

    Raises:
        ValueError: if a number is out of range.
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
    held = _test_mask(rng, ratings.users, train_share)
    source = f"synthetic ratings (rank {factors}, noise {noise_std:g} stars, seed {seed})"
    return RatingsDataset("synthetic_ratings", *_split(ratings, held), num_users, num_items, source)


@recorded()
def ratings_by_user(dataset: RatingsDataset, num_nodes: int) -> Partition:
    """Assign consecutive users to nodes; the first U mod n nodes get one of the U users more than the others.

    Args:
        dataset: ratings.
        num_nodes: number of nodes n, at most the number of users.

    Returns:
        The partition of ``dataset.train``.

    Raises:
        ValueError: if ``num_nodes`` is below 1 or above the number of users.
    """
    instance("dataset", dataset, RatingsDataset, "such as synthetic_ratings()")
    return by_user(dataset.train.users, num_nodes, seed=None)


def _movielens_csv() -> bytes:
    """Return the content of ``ratings.csv``, preferably from the archive."""
    if files.locate(files.MOVIELENS_ARCHIVE) is None and (path := files.locate(files.MOVIELENS_RATINGS)):
        return path.read_bytes()
    with zipfile.ZipFile(files.fetch(files.MOVIELENS_ARCHIVE)) as archive:
        return archive.read("ml-latest-small/ratings.csv")


def _who_rates_what(
    rng: np.random.Generator, num_users: int, num_items: int, mean_count: float
) -> tuple[Int[np.ndarray, " N"], Int[np.ndarray, " N"]]:
    """Draw the items of each user without replacement: those with the largest Gumbel-perturbed log-popularities."""
    counts = np.clip(np.round(mean_count * np.exp(rng.standard_normal(num_users) - 0.5)), 4, num_items).astype(int)
    popularity = -np.log(1.0 + rng.permutation(num_items))
    order = np.argsort(-(popularity + rng.gumbel(size=(num_users, num_items))), axis=1)
    return np.repeat(np.arange(num_users), counts), order[np.arange(num_items) < counts[:, None]]


def _test_mask(rng: np.random.Generator, users: Int32[np.ndarray, " N"], train_share: float) -> Bool[np.ndarray, " N"]:
    """Mark the test ratings: a random choice for each user."""
    counts = np.bincount(users)
    # The small term rounds halves up even if floating point puts them just below.
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
    return real("train_share", train_share, above=0, below=1, remedy="so that ratings are left for testing")
