"""Membership by likelihood ratios: the same plan on random halves of all shards, many times in one call."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float64, Int, Key

from gossipjax._base.arguments import callable_, flag, real, reals, shown, whole
from gossipjax._base.arguments import seed as check_seed
from gossipjax._base.binding import as_task
from gossipjax._base.calls import recorded
from gossipjax._base.lazy import stats
from gossipjax._base.leaves import is_key
from gossipjax.types import Params, Task

_SMALLEST_LOSS = 1e-7
"""Losses below are roundings of 0 in single precision."""


class Shadows(NamedTuple):
    """What shadow runs say of the same samples."""

    confidences: Float64[np.ndarray, "runs n s"]
    """φ = ln p/(1 − p), p the probability that node i's model gives to the true label of each of its samples."""
    inside: Bool[np.ndarray, "runs n s"]
    """Whether the sample was in the half that the node trained on."""
    samples: Int[np.ndarray, "n s"]
    """Their numbers in the pool of training samples."""


class Lira(NamedTuple):
    """Scores and what they find; samples are as in the arguments."""

    scores: Float64[np.ndarray, "runs ..."]
    """Of each run, with all other runs as shadows: larger for members."""
    auc: Float64[np.ndarray, "..."]
    """Probability that a run with the sample has a larger score than one without it; ½ for guessing."""
    tpr: float
    """Share of members found, each sample with a threshold of its own."""
    fpr: float
    """Share of others that are called members by these thresholds."""


def _shards(task: Task) -> tuple[Int[np.ndarray, " N"], Int[np.ndarray, " n_plus_1"]]:
    data = as_task(task).data
    if not (isinstance(data, dict) and {"inputs", "labels", "indices", "offsets"} <= set(data)):
        raise ValueError("task: has no shards of labelled samples; use a task of tasks.classification")
    indices, offsets = (np.asarray(data[name]) for name in ("indices", "offsets"))
    if (few := np.flatnonzero(np.diff(offsets) < 2)).size:
        raise ValueError(f"task: node {few[0]} has fewer than two samples, so that there is no half; use larger shards")
    return indices, offsets


def _two_halves(rng: np.random.Generator, shard: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Split a shard at random; of an odd number, one sample is in neither half."""
    order, half = rng.permutation(shard), len(shard) // 2
    return order[:half], order[half : 2 * half]


def _confidence(task: Task, model: Params, samples: Int[Array, " s"]) -> Array:
    rest = {name: leaf for name, leaf in task.test.items() if name not in ("inputs", "labels")}

    def one(inputs: Array, label: Array) -> Array:
        return task.metrics(model, rest | {"inputs": inputs[None], "labels": label[None]})["loss"]

    loss = jax.vmap(one)(task.data["inputs"][samples], task.data["labels"][samples])
    loss = jnp.maximum(loss, jnp.asarray(_SMALLEST_LOSS, loss.dtype))
    return -loss - jnp.log(-jnp.expm1(-loss))


@recorded("carlini2022lira")
def shadow_runs(
    key: Key[Array, ""],
    task: Task,
    train: Callable[[Key[Array, ""], Task], Params],
    num_runs: int,
    *,
    samples: int | None = None,
    seed: int = 0,
) -> Shadows:
    """Train on a random half of every shard, num_runs times at once by vmap, and say how sure models are of samples.

    All runs have the same plan, graph and settings, and each its own halves, start models and batches. Runs come in
    pairs that split every shard, so that each sample is in half of them; where a shard is odd, each pair leaves one
    sample out. Every run can be the attacked one, with the others as its shadows: :func:`lira`.

    Args:
        key: from which each run's key is split.
        task: of :func:`gossipjax.tasks.classification`.
        train: ``train(key, task) -> models``, a pure function that learns with the shards of its task and returns the
            models of all nodes, leaves ``(n, ...)``; for instance by :func:`gossipjax.run` on a timeline.
        num_runs: R ≥ 4; 16 to 64 are usual.
        samples: s, of each shard, that are attacked; None: as many as the smallest shard has.
        seed: of the NumPy generator that draws samples and halves.

    Raises:
        TypeError: if key is not one typed key, task not a task, or train no function.
        ValueError: if the task has no labelled shards, a shard has less than two samples or less than are asked for, or
            num_runs < 4.

    Reference: Carlini, Chien, Nasr, Song, Terzis, Tramèr 2022, arXiv 2112.03570 (recalled).
    """
    if not isinstance(key, jax.Array) or not is_key(key) or key.shape:
        raise TypeError(f"key={shown(key)}: must be one typed key; pass jax.random.key(0)")
    indices, offsets = _shards(task)
    callable_("train", train, "train(key, task) -> models")
    runs = whole("num_runs", num_runs, least=4, remedy="one is attacked, and its shadows need two of each kind")
    smallest = int(np.diff(offsets).min())
    count = smallest if samples is None else whole("samples", samples, least=1, most=smallest, remedy="of each shard")
    rng = np.random.default_rng(check_seed(seed))
    shards = [indices[low:high] for low, high in itertools.pairwise(offsets)]
    chosen = np.stack([rng.permutation(shard)[:count] for shard in shards])
    pairs = [[_two_halves(rng, shard) for shard in shards] for _ in range((runs + 1) // 2)]
    halves = [half for pair in pairs for half in zip(*pair, strict=True)][:runs]
    inside = np.array([[np.isin(row, half) for row, half in zip(chosen, each, strict=True)] for each in halves])
    edges = jnp.asarray(np.cumsum([0, *(len(shard) // 2 for shard in shards)]), jnp.int32)
    attacked = jnp.asarray(chosen, jnp.int32)

    @jax.jit
    @jax.vmap
    def one(key: Key[Array, ""], own: Int[Array, " m"]) -> Array:
        half = dataclasses.replace(task, data=task.data | {"indices": own, "offsets": edges})
        models = jax.tree.map(lambda leaf: leaf[: task.num_nodes], train(key, half))
        return jax.lax.map(lambda node: _confidence(task, *node), (models, attacked))

    own = jnp.asarray(np.array([np.concatenate(each) for each in halves]), jnp.int32)
    return Shadows(np.asarray(one(jax.random.split(key, runs), own), np.float64), inside, chosen)


@recorded("carlini2022lira")
def lira(confidences: Any, inside: Any, *, offline: bool = False, fpr: float = 0.1) -> Lira:
    """Attack each of R runs by likelihood ratios, with the R − 1 others as shadows.

    With the means of a sample's φ over the shadows with it and without it, and one variance for each of both kinds over
    all samples, since a sample has few shadows::

        score = ln N(φ; mean_in, var_in) − ln N(φ; mean_out, var_out)            offline:  (φ − mean_out)/sd_out

    A sample is called a member if φ is above ``mean_out + sd_out Φ⁻¹(1 − fpr)``, a threshold of its own, calibrated by
    its shadows: hard samples are not taken for others. An attack that fails is this attack failing.

    Args:
        confidences: φ, ``(R, *samples)``, such as that of :func:`shadow_runs`.
        inside: ``(R, *samples)``: whether the run trained on the sample.
        offline: use shadows without the sample only.
        fpr: rate of false positives that the thresholds aim at, in (0, 1); the result has the one that was reached.

    Raises:
        ValueError: if shapes differ, a number is not finite, or a sample is in fewer than two runs, or out of fewer.

    Reference: Carlini et al. 2022, arXiv 2112.03570 (recalled).
    """
    phi = reals("confidences", confidences)
    told = np.asarray(inside)
    rate, alone = real("fpr", fpr, above=0, below=1, remedy="such as 0.1"), flag("offline", offline)
    if told.dtype != bool or told.shape != phi.shape or not phi.size:
        raise ValueError(f"inside: must be bools of the shape of confidences, {phi.shape}, and not empty")
    if min(told.sum(axis=0).min(), (~told).sum(axis=0).min()) < 2:
        raise ValueError("inside: every sample must be in two runs or more, and out of two or more; pass more runs")
    in_mean, in_sd = _others(phi, told)
    out_mean, out_sd = _others(phi, ~told)
    scores = (phi - out_mean) / out_sd
    if not alone:
        scores = stats.norm.logpdf(phi, in_mean, in_sd) - stats.norm.logpdf(phi, out_mean, out_sd)
    called = phi > out_mean + out_sd * stats.norm.isf(rate)
    return Lira(scores, _areas(scores, told), float(called[told].mean()), float(called[~told].mean()))


def _others(phi: np.ndarray, kind: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return for each run the means over the other runs of a kind, and the standard deviation around them."""
    number = kind.sum(axis=0)[None] - kind
    mean = (np.where(kind, phi, 0).sum(axis=0)[None] - np.where(kind, phi, 0)) / number
    own = np.where(kind, phi, 0).sum(axis=0) / kind.sum(axis=0)
    squares = np.where(kind, (phi - own[None]) ** 2, 0).sum()
    free = kind.sum() - kind[0].size
    return mean, np.full(phi.shape, max(np.sqrt(squares / free), 1e-12))


def _areas(scores: np.ndarray, told: np.ndarray) -> np.ndarray:
    """Return for each sample the share of pairs of a run with it and one without it whose scores are in order."""
    above = (scores[:, None] > scores[None]) + (scores[:, None] == scores[None]) / 2
    pairs = told[:, None] & ~told[None]
    return np.where(pairs, above, 0).sum(axis=(0, 1)) / pairs.sum(axis=(0, 1))
