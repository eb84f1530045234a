"""Matrix factorization of ratings; the ratings of a user stay at one node."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int, Key

from gossipjax._base.arguments import instance, real, reals, whole, wholes
from gossipjax._base.binding import Frozen
from gossipjax._base.calls import recorded
from gossipjax._base.placement import by_shards
from gossipjax._base.shards import keep_shards
from gossipjax.tasks._data.ratings import STARS, Ratings, RatingsDataset
from gossipjax.tasks._partition import Partition, check_held
from gossipjax.types import Task

_START = 0.05
"""Initial factors are uniform on ± this."""


class _Sizes(NamedTuple):
    """Compile-time constants."""

    num_users: int
    num_items: int
    factors: int
    batch_size: int
    centre: float
    """Mean of the initial factors."""


def _init(sizes: Frozen[_Sizes], key: Key[Array, ""]) -> dict[str, Array]:
    shapes = {"users": sizes.value.num_users, "items": sizes.value.num_items}
    keys = jax.random.split(key)
    noise = {
        name: jax.random.uniform(keys[k], (count, sizes.value.factors), jnp.float32, -_START, _START)
        for k, (name, count) in enumerate(shapes.items())
    }
    return {name: np.float32(sizes.value.centre) + factors for name, factors in noise.items()}


def _shards(sizes: Frozen[_Sizes], data: dict[str, Array], nodes: Int[np.ndarray, " m"]) -> dict[str, Any]:
    """Keep the ratings of some nodes."""
    del sizes
    places, offsets = keep_shards(data["offsets"], nodes)
    return {name: np.asarray(data[name])[places] for name in ("inputs", "labels")} | {"offsets": offsets}


@by_shards(_shards)
def _batch(sizes: Frozen[_Sizes], key: Key[Array, ""], data: dict[str, Array], node: Array) -> dict[str, Array]:
    """Draw ratings of the node's users uniformly with replacement; the ratings of a node are contiguous."""
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


def _check_ratings(dataset: RatingsDataset, part: str) -> Ratings:
    """Check the shapes and numbers of the ratings of one part."""
    ratings = instance(f"{part} of {dataset.name}", getattr(dataset, part), Ratings, "build it with Ratings(users, …)")
    count = len(ratings.stars) if np.ndim(ratings.stars) else 0
    if not count:
        raise ValueError(f"{part}.stars of {dataset.name} holds no rating; training and testing need at least one")
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
    dataset: RatingsDataset,
    partition: Partition,
    *,
    factors: int = 20,
    batch_size: int = 16,
    initial_rating: int | float = 0.0,
) -> Task:
    """Build the factorisation r_ui ≈ p_u · q_i of ratings, without biases; the loss is the mean of (p_u · q_i − r_ui)².

    A model is ``{"users": (num_users, factors), "items": (num_items, factors)}``, float32: 206,680 parameters for
    MovieLens and 20 factors. Every node holds the rows of all users and items; one step changes at most
    ``2 batch_size`` of them.

    Initial factors are ``√(initial_rating / factors)`` plus uniform noise on ±0.05, so that the first model predicts
    about ``initial_rating`` stars. With 0, the published start, they lie near a saddle point of the loss, which 96
    nodes do not leave for hundreds of rounds at the published learning rate of 0.1.

    Args:
        dataset: train and test ratings.
        partition: which training ratings each node holds, such as :func:`ratings_by_user`.
        factors: numbers per user and per item.
        batch_size: ratings drawn per step, uniformly with replacement from the node's shard.
        initial_rating: stars, such as the mean of the training ratings; 0: the published start.

    Returns:
        A task with metrics over the held-out ratings of all users: ``rmse``, in stars, of predictions clipped to
        0.5 … 5; ``accuracy``, the share of clipped predictions whose nearest half star is the rating; ``loss``, the
        mean squared error, in stars², of unclipped predictions.

    Raises:
        ValueError: if a number is out of range, a user or item number is too large, a rating is not finite, the
            partition does not match the data, or a node has no rating.

    Reference:
        Koren, Bell and Volinsky, "Matrix Factorization Techniques for Recommender Systems", IEEE Computer 42(8), 2009;
        as trained in Dhasade et al., "Get More for Less in Decentralized Learning Systems" (JWINS), ICDCS 2023.
    """
    instance("dataset", dataset, RatingsDataset, "such as synthetic_ratings()")
    factors = whole("factors", factors, least=1, most=2**31 - 1)
    batch_size = whole("batch_size", batch_size, least=1, most=2**31 - 1)
    initial_rating = real("initial_rating", initial_rating, least=0, most=STARS[1], unit="stars")
    train, test = _check_ratings(dataset, "train"), _check_ratings(dataset, "test")
    check_held(partition, len(train.stars), dataset.name)
    own = Ratings(*(column[partition.indices] for column in train))
    sizes = Frozen(_Sizes(dataset.num_users, dataset.num_items, factors, batch_size, (initial_rating / factors) ** 0.5))
    return Task(
        Partial(_init, sizes),
        Partial(_batch, sizes),
        Partial(_loss),
        Partial(_metrics),
        _arrays(own) | {"offsets": jnp.asarray(partition.offsets, jnp.int32)},
        _arrays(test),
        num_nodes=partition.num_nodes,
    )
