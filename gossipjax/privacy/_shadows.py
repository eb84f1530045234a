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

from gossipjax._base.arguments import callable_, flag, real, reals, whole
from gossipjax._base.arguments import seed as check_seed
from gossipjax._base.binding import as_task
from gossipjax._base.calls import recordable, recorded
from gossipjax._base.lazy import stats
from gossipjax._base.leaves import one_key
from gossipjax._base.memory import check_memory
from gossipjax.types import Params, Task

_SMALLEST_LOSS = 1e-7
"""Losses below are roundings of 0 in single precision."""
_LARGEST = 1e100
"""Log-odds beyond have squares that overflow; those of losses in single precision are below 1e39."""
_SMALLEST = 1e-24
"""Variances below, over the square of the largest φ, are roundings of 0."""


@recordable
class Shadows(NamedTuple):
    """What shadow runs say of the same samples."""

    confidences: Float64[np.ndarray, "runs n s"]
    """φ = ln p/(1 − p), p the probability that node i's model gives to the true label of each of its samples."""
    inside: Bool[np.ndarray, "runs n s"]
    """Whether the sample was in the half that the node trained on."""
    samples: Int[np.ndarray, "n s"]
    """Their numbers in the pool of training samples."""


@recordable
class LiRA(NamedTuple):
    """Scores and what they find; samples are as in the arguments."""

    scores: Float64[np.ndarray, "runs ..."]
    """Of each run, with all other runs as shadows: larger for members."""
    auc: Float64[np.ndarray, "..."]
    """Probability that a run with the sample has a larger score than one without it; ½ for guessing."""
    tpr: float
    """Share of members found, each sample with a threshold of its own."""
    fpr: float
    """Share of others that are called members by these thresholds."""


class _Kind(NamedTuple):
    """Number, sum and sum of squares of φ over the shadows of one kind, by sample."""

    parts: Float64[np.ndarray, "3 runs s"]
    """What each run adds."""
    total: Float64[np.ndarray, "3 s"]


class _Law(NamedTuple):
    """The normal law of φ over some shadows of one kind, by sample; the spread is that of all samples."""

    number: Float64[np.ndarray, " s"]
    mean: Float64[np.ndarray, " s"]
    squares: float
    """Sum of squares around the means."""
    free: float
    """Degrees of freedom of that sum."""


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


def _models_of_all(models: Any, model: Any, num_nodes: int) -> Any:
    """Check what train returns, and keep the rows of nodes."""
    told: Any = jax.tree.structure(models)
    expected = jax.tree.structure(model)
    if told != expected:
        raise ValueError(
            f"train: must return the models of all nodes, {expected}, not {told}; such as protocol.model(state)"
        )
    for leaf, one in zip(jax.tree.leaves(models), jax.tree.leaves(model), strict=True):
        shape = np.shape(leaf)
        if shape[1:] != one.shape or len(shape) == len(one.shape) or shape[0] < num_nodes:
            raise ValueError(
                f"train: must return the models of all {num_nodes} nodes, with leaves ({num_nodes}, ...) such as "
                f"{(num_nodes, *one.shape)}, not {shape}; such as protocol.model(state)"
            )
    return jax.tree.map(lambda leaf: leaf[:num_nodes], models)


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
        ValueError: if the task has no labelled shards, a shard has less than two samples or less than are asked for,
            num_runs < 4 or too large for the memory, or train does not return models of all nodes with finite losses.

    Reference: Carlini, Chien, Nasr, Song, Terzis, Tramèr 2022, arXiv 2112.03570 (recalled).
    """
    key = one_key(key)
    indices, offsets = _shards(task)
    callable_("train", train, "train(key, task) -> models")
    runs = whole("num_runs", num_runs, least=4, remedy="one is attacked, and its shadows need two of each kind")
    smallest = int(np.diff(offsets).min())
    count = smallest if samples is None else whole("samples", samples, least=1, most=smallest, remedy="of each shard")
    rng = np.random.default_rng(check_seed(seed))
    model = jax.eval_shape(task.init, key)
    of_run = 16 * len(indices) + task.num_nodes * sum(4 * leaf.size for leaf in jax.tree.leaves(model))
    check_memory(f"num_runs={runs}: halves and models of all runs", runs * of_run, "take fewer runs")
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
        models = _models_of_all(train(key, half), model, task.num_nodes)
        return jax.lax.map(lambda node: _confidence(task, *node), (models, attacked))

    own = jnp.asarray(np.array([np.concatenate(each) for each in halves]), jnp.int32)
    confidences = np.asarray(one(jax.random.split(key, runs), own), np.float64)
    if len(broken := np.argwhere(~np.isfinite(confidences))):
        raise ValueError(
            f"train: the model of node {broken[0][1]} in run {broken[0][0]} has losses that are not finite; lower the "
            "learning rate"
        )
    return Shadows(confidences, inside, chosen)


@recorded("carlini2022lira")
def lira(confidences: Any, inside: Any, *, offline: bool = False, fpr: float = 0.1) -> LiRA:
    """Attack each of R runs by likelihood ratios, with the R − 1 others as shadows.

    With the means of a sample's φ over the shadows with it and without it, and one variance for each of both kinds over
    all samples, since a sample has few shadows::

        score = ln N(φ; mean_in, var_in) − ln N(φ; mean_out, var_out)            offline:  (φ − mean_out)/sd_out

    The area compares a run with the sample and a run without it by the same shadows, all runs but these two: without a
    signal both scores have one law, and the area is ½. One variance means that a few samples whose φ are many orders of
    magnitude larger than the others' hide what is to be found in these: look at φ, and leave such samples out. If two
    shadows of a kind are left of no sample, both kinds have one variance.

    A sample is called a member if a run without it would have as large a score with probability below ``fpr``, by the
    law ``N(mean_out, var_out (1 + 1/number))`` of another run than the ``number`` shadows without the sample. So every
    sample has a threshold of its own: hard samples are not taken for others. With few shadows the rate is above
    ``fpr`` online, since errors of mean_out also decide on which side members are looked for. An attack that fails is
    this attack failing.

    Args:
        confidences: φ, ``(R, *samples)``, such as that of :func:`shadow_runs`.
        inside: ``(R, *samples)``: whether the run trained on the sample.
        offline: use shadows without the sample only.
        fpr: rate of false positives that the thresholds aim at, in (0, 1); the result has the one that was reached.

    Raises:
        ValueError: if shapes differ, a number is not finite or beyond 1e100, a sample is out of fewer than two runs, or
            in fewer than two (offline: in none), or no variance can be estimated.

    Reference: Carlini et al. 2022, arXiv 2112.03570 (recalled).
    """
    phi = reals("confidences", confidences, least=-_LARGEST, most=_LARGEST)
    told = np.asarray(inside)
    rate, alone = real("fpr", fpr, above=0, below=1, remedy="such as 0.1"), flag("offline", offline)
    if told.dtype != bool or told.shape != phi.shape or not phi.size:
        raise ValueError(f"inside: must be bools of the shape of confidences, {phi.shape}, and not empty")
    least = 1 if alone else 2
    if told.sum(axis=0).min() < least or (~told).sum(axis=0).min() < 2:
        words = "one run" if alone else "two runs"
        raise ValueError(f"inside: every sample must be in {words} or more, and out of two or more; pass more runs")
    flat, known = phi.reshape(len(phi), -1), told.reshape(len(phi), -1)
    flat = np.ldexp(flat, -np.frexp(np.abs(flat).max())[1])  # a ratio of likelihoods has no unit
    flat = flat - flat.mean(axis=0)  # sums of squares then keep their digits
    kinds = [_kind(flat, kind) for kind in ((~known,) if alone else (~known, known))]
    attacked = [_attacked(kinds, flat, run) for run in range(len(flat))]
    scores, chances = (np.stack(rows) for rows in zip(*attacked, strict=True))
    called = chances < rate
    auc = _areas(kinds, flat, known).reshape(phi.shape[1:])
    return LiRA(scores.reshape(phi.shape), auc, float(called[known].mean()), float(called[~known].mean()))


def _kind(phi: np.ndarray, kind: np.ndarray) -> _Kind:
    parts = np.stack([kind, np.where(kind, phi, 0), np.where(kind, phi**2, 0)])
    return _Kind(parts, parts.sum(axis=1))


def _laws(kinds: list[_Kind], left_out: list[int]) -> list[_Law]:
    """Return the law over each kind of shadows, without some runs."""
    laws = []
    for kind in kinds:
        number, total, squares = kind.total - kind.parts[:, left_out].sum(axis=1)
        mean = total / np.maximum(number, 1)
        spread = np.maximum(squares - total * mean, 0).sum()
        laws.append(_Law(number, mean, float(spread), float(np.maximum(number - 1, 0).sum())))
    return laws


def _variances(laws: list[_Law]) -> list[float]:
    """Return the variance of each kind, or one of both; with one, the order of scores does not depend on it."""
    if not all(law.free for law in laws):
        free = sum(law.free for law in laws)
        return [max(sum(law.squares for law in laws) / free, _SMALLEST) if free else 1.0] * len(laws)
    return [max(law.squares / law.free, _SMALLEST) for law in laws]


def _scores(laws: list[_Law], phi: np.ndarray) -> np.ndarray:
    (out, *inner), (out_var, *inner_var) = laws, _variances(laws)
    if not inner:
        return (phi - out.mean) / np.sqrt(out_var)
    ratio = stats.norm.logpdf(phi, inner[0].mean, np.sqrt(inner_var[0]))
    return ratio - stats.norm.logpdf(phi, out.mean, np.sqrt(out_var))


def _attacked(kinds: list[_Kind], phi: np.ndarray, run: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores of a run, and the probabilities that a run without the sample has as large ones.

    Scores are parabolas in φ. Those that are as large as that of φ lie between φ and its mirror image at the vertex if
    they are concave, and outside if they are convex; of a line the vertex is infinitely far.
    """
    laws = _laws(kinds, [run])
    if not sum(law.free for law in laws):
        raise ValueError("inside: no sample has two shadows of one kind, and so no variance; pass more runs")
    (out, *inner), (out_var, *inner_var) = laws, _variances(laws)
    own, law = phi[run], stats.norm(out.mean, np.sqrt(out_var * (1 + 1 / out.number)))
    if not inner:
        return _scores(laws, own), law.sf(own)
    curvature = 1 / out_var - 1 / inner_var[0]
    with np.errstate(divide="ignore", invalid="ignore"):  # 0/0: all scores are equal, and nothing is called
        mirror = 2 * (out.mean / out_var - inner[0].mean / inner_var[0]) / curvature - own
    between = law.cdf(np.maximum(own, mirror)) - law.cdf(np.minimum(own, mirror))
    outside = law.sf(np.maximum(own, mirror)) + law.cdf(np.minimum(own, mirror))
    return _scores(laws, own), between if curvature < 0 else outside


def _areas(kinds: list[_Kind], phi: np.ndarray, told: np.ndarray) -> np.ndarray:
    """Return for each sample the share of pairs of a run with it and one without it whose scores are in order."""
    above, pairs = np.zeros(phi.shape[1]), np.zeros(phi.shape[1])
    for first, second in itertools.combinations(range(len(phi)), 2):
        laws = _laws(kinds, [first, second])
        sign = told[first].astype(int) - told[second]
        order = np.sign(_scores(laws, phi[first]) - _scores(laws, phi[second]))
        above += np.where(sign, (1 + sign * order) / 2, 0)
        pairs += sign != 0
    return above / pairs
