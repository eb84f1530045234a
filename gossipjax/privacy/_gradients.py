"""Tasks whose gradients are differentially private, by sample or by node, and what that promises."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Key

from gossipjax._base.arguments import real, whole
from gossipjax._base.binding import Frozen, as_task
from gossipjax._base.calls import recorded
from gossipjax._base.clipping import Mechanism, Sampled, mechanism_of, private_loss
from gossipjax._base.display import displayed
from gossipjax._base.lazy import stats
from gossipjax._base.placement import by_rows
from gossipjax.privacy._gaussian import smallest_epsilon
from gossipjax.types import Task


def _mechanism(task: Task, clip: Any, noise: Any) -> Mechanism:
    if mechanism_of(as_task(task)) is not None:
        raise ValueError("task: its gradients are private already; wrap the task that it was made of")
    clip = real("clip", clip, above=0, infinite=True, remedy="the largest norm of a contribution")
    noise = real("noise", noise, least=0, remedy="standard deviation of the noise, over clip; 0: none")
    none = not isinstance(noise, jax.core.Tracer) and noise == 0
    if not none and not isinstance(clip, jax.core.Tracer) and math.isinf(clip):
        raise ValueError(f"clip={clip}, noise={noise}: noise is a multiple of clip; pass a finite clip, or noise=0")
    return Mechanism(clip, None if none else noise)


@recorded("mcmahan2018private")
def node_dp(task: Task, *, clip: float, noise: float) -> Task:
    """Make the gradients of a task differentially private for whole nodes: clip the gradient of a batch, add noise.

    With g the gradient of a node's batch, C the clip and z the noise::

        ĝ = g min(1, C/‖g‖) + N(0, (zC)² I)                             ‖·‖ over all leaves

    **Unit: a node.** One step moves by at most C if the node is there or not (add or remove; twice that if its data
    are replaced), so T steps are √T/z-Gaussian differentially private, whatever the node sends and whoever listens:
    :func:`guarantee`. Every local step is a contribution of its own, with noise of its own. :func:`gossipjax.audit`
    with ``noise=z`` and ``sensitivity=1`` says how much less single observers learn.

    The noise has a stream of its own in the keys of steps: batches stay those of the task, and packing, chunking and
    recording change nothing. With ``clip=inf`` and ``noise=0`` a run is that of the task itself, bit for bit. Losses
    are computed without noise, as the experimenter sees them, and are not protected; neither is the tuning of clip and
    rate. Generator and float32 are those of a simulation, not of a deployment.

    >>> import gossipjax as gj, jax, jax.numpy as jnp
    >>> task = gj.privacy.node_dp(gj.tasks.quadratic(jnp.asarray([[3.0, 4.0]])), clip=1.0, noise=0.0)
    >>> batch = task.batch(jax.random.key(0), task.data, jnp.int32(0))
    >>> gradient = jax.grad(task.loss, argnums=1)(jax.random.key(1), jnp.zeros(2), batch)
    >>> [round(float(entry), 2) for entry in gradient]
    [-0.6, -0.8]

    Args:
        task: any learning problem.
        clip: C > 0, in the unit of the gradient; infinity is legal without noise. A new value does not recompile.
        noise: z ≥ 0: standard deviation in each coordinate, over C.

    Returns:
        The task with private gradients, for protocols that send each of them once; :func:`~gossipjax.tasks.finite_sum`
        refuses it.

    Raises:
        TypeError: if task is not a task.
        ValueError: if clip ≤ 0, noise < 0, clip is infinite with noise, or the task is private already.

    Reference: McMahan, Ramage, Talwar, Zhang 2018, arXiv 1710.06963 (users as units; recalled, not looked up).
    """
    mechanism = _mechanism(task, clip, noise)
    return dataclasses.replace(task, loss=Partial(private_loss, mechanism, task.loss))


@by_rows
def _draw(batch: Partial, widths: Frozen, size: Any, key: Key[Array, ""], data: dict[str, Any], node: Any):
    """Let each sample of the node's shard take part with probability B / shard size; room for those that do."""
    width, room = widths.value
    first, last = data["offsets"][node], data["offsets"][node + 1]
    coins, inner = jax.random.split(key)
    lanes = jnp.arange(width, dtype=first.dtype)
    share = jnp.asarray(size, jnp.float32) / (last - first).astype(jnp.float32)
    takes = jax.random.bernoulli(coins, share, (width,)) & (lanes < last - first)
    if room < width:
        lanes = jnp.flatnonzero(takes, size=room, fill_value=width).astype(first.dtype)
        takes = lanes < width

    before = jnp.arange(len(data["offsets"]), dtype=node.dtype) <= node

    def one(place: Array) -> Any:
        # A shard of one sample has one possible batch: that sample, again and again. The node keeps its number.
        alone = batch(inner, data | {"offsets": jnp.where(before, place, place + 1)}, node)
        return jax.tree.map(lambda leaf: leaf[:1], alone)

    return Sampled(jax.vmap(one)(jnp.minimum(first + lanes, last - 1)), takes)


@recorded("abadi2016dpsgd")
def sample_dp(task: Task, *, clip: float, noise: float, batch_size: int) -> Task:
    """Make the gradients of a task differentially private for single samples: DP-SGD.

    Each sample of a node's shard of m samples is in the batch with probability B/m, at most once. With per-sample
    gradients g_k, C the clip and z the noise::

        ĝ = (1/B) (Σ_{k in batch} g_k min(1, C/‖g_k‖) + N(0, (zC)² I))            ‖·‖ over all leaves

    B is the expected size of the batch, never the realised one, which would tell about samples.

    **Unit: a sample; relation: zeroed out.** In the neighbouring data set the sample keeps its place in the shard, and
    its gradient counts as 0; m, B and B/m are public and the same. One step moves by at most C/B (twice that if the
    sample is replaced by another), so T steps are √T/z-Gaussian differentially private, whatever the node sends and
    whoever listens: :func:`guarantee`. A data set without the sample has another m, and so other chances of all other
    samples: that relation is not covered. Mean and standard deviation by which inputs are standardized count as public:
    give them to :func:`gossipjax.tasks.from_arrays`, which else takes them from all training samples.

    That the sample is not in every batch lowers the loss further; this is not counted here, nor may it be combined with
    :func:`gossipjax.audit` (``noise=z``, ``sensitivity=1``), which says how much less single observers learn.

    Streams, losses and precision: as :func:`node_dp` says. A step has room for the samples that a batch can have:
    for B = 16 of m = 500 these are 38. A larger batch, one in a million, loses its last samples; the guarantee does not
    depend on which samples are drawn.

    Args:
        task: whose shards are lists of samples, :func:`gossipjax.tasks.classification` or
            :func:`~gossipjax.tasks.next_character`. The loss of a batch must be the mean of its samples' losses.
        clip: C > 0, in the unit of the gradient; infinity is legal without noise. A new value does not recompile.
        noise: z ≥ 0: standard deviation of the sum in each coordinate, over C.
        batch_size: B: at least 1, at most the size of the smallest shard, where every step takes all its samples.

    Returns:
        The task with private gradients, for protocols that send each of them once; :func:`~gossipjax.tasks.finite_sum`
        refuses it.

    Raises:
        TypeError: if task is not a task.
        ValueError: if clip ≤ 0, noise < 0, clip is infinite with noise, B is out of range, shards are not lists of
            samples, or the task is private already.

    Reference: Abadi et al. 2016, arXiv 1607.00133, algorithm 1 (recalled, not looked up).
    """
    mechanism = _mechanism(task, clip, noise)
    sizes = _shard_sizes(task)
    least = f"the smallest shard has {sizes.min()} samples"
    size = whole("batch_size", batch_size, least=1, most=int(sizes.min()), remedy=least)
    draw = Partial(_draw, task.batch, Frozen((int(sizes.max()), _room(sizes, size))), float(size))
    loss = Partial(private_loss, mechanism._replace(batch_size=float(size)), task.loss)
    return dataclasses.replace(task, batch=draw, loss=loss)


_OVERFULL = 1e-6
"""Probability with which a batch has more samples than there is room for; the last ones are left out then."""


def _room(sizes: np.ndarray, batch_size: int) -> int:
    """Return the number of samples that batches of expected size B have, hardly ever more, from shards of sizes m."""
    distinct = np.unique(sizes)
    return int(np.max(np.minimum(stats.binom.isf(_OVERFULL, distinct, batch_size / distinct), distinct)))


def _shard_sizes(task: Task) -> np.ndarray:
    if not isinstance(task.data, dict) or "offsets" not in task.data:
        raise ValueError(
            "task: its shards are not lists of samples, so that none can be taken alone; use a task of "
            "tasks.classification or tasks.next_character, or node_dp"
        )
    return np.diff(np.asarray(task.data["offsets"]))


@displayed
@dataclasses.dataclass(frozen=True)
class Guarantee:
    """What a private task promises to each unit, whoever listens; all parts belong together."""

    epsilon: float
    delta: float
    mu: float
    """μ of Gaussian differential privacy, from which ε follows exactly."""
    unit: str
    relation: str
    """Which data sets count as neighbours, and how far a contribution moves between them."""
    adversary: str
    remarks: tuple[str, ...]
    """What the promise does not count."""

    def __str__(self) -> str:
        """Say all of it in one sentence."""
        promise = f"({self.epsilon:.4g}, {self.delta:g})-differential privacy (local bound; μ = {self.mu:.4g})"
        parts = f"unit: {self.unit}; relation: {self.relation}; adversary: {self.adversary}"
        return "; ".join([promise, parts, *self.remarks])

    def _facts(self) -> tuple[str, dict[str, Any]]:
        names = ("epsilon", "delta", "mu", "unit", "relation", "adversary")
        return "guarantee", {name: getattr(self, name) for name in names} | {"remarks": "; ".join(self.remarks)}


def guarantee(task: Task, num_steps: int, delta: float) -> Guarantee:
    """Say what T steps of a private task promise: the local bound, against an observer of all that a node sends.

    ``μ = √T/z``, since each of T gradients moves by at most the clip, with noise of z times the clip; ε follows
    exactly. Without noise, μ and ε are infinite.

    >>> import gossipjax as gj, jax.numpy as jnp
    >>> task = gj.privacy.node_dp(gj.tasks.quadratic(jnp.zeros((4, 2))), clip=1.0, noise=4.0)
    >>> round(gj.privacy.guarantee(task, 16, 1e-5).epsilon, 6)
    4.377178

    Args:
        task: made by :func:`sample_dp` or :func:`node_dp`.
        num_steps: T: private gradients that a node takes, of the node that takes most. Most protocols take one in a
            local step; some take more, such as ``scaffold(variate="gradient")``, one more in a round.
        delta: δ in (0, 1).

    Raises:
        TypeError: if task is not a task.
        ValueError: if its gradients are not private, or a number is out of range.

    Reference: Dong, Roth and Su 2022, theorem 1 and corollary 1.
    """
    mechanism = mechanism_of(as_task(task))
    if mechanism is None:
        raise ValueError("task: its gradients are not private; make it with privacy.sample_dp or privacy.node_dp")
    steps = whole("num_steps", num_steps, least=1)
    target = real("delta", delta, above=0, below=1, remedy="such as 1e-5, below one over the number of samples")
    mu = math.inf if mechanism.noise is None else math.sqrt(steps) / float(mechanism.noise)
    remarks = ["losses, metrics and tuning are not protected"]
    if mechanism.batch_size is None:
        unit, moves = "one node", "a step moves by at most clip"
    else:
        unit, moves = "one sample of a node", "a step moves by at most clip / batch_size"
        remarks.append("sampling of the batch is not counted")
        largest = int(_shard_sizes(task).max())
        if target * largest > 1:
            remarks.append(f"δ is above one over the {largest} samples of a shard")
    return Guarantee(
        epsilon=float(smallest_epsilon(np.asarray(mu), target)),
        delta=target,
        mu=mu,
        unit=unit,
        relation=f"zeroed out, with public sizes: {moves} (clip = {float(mechanism.clip):g}) in each of {steps} steps",
        adversary="an honest but curious observer of all that the node sends",
        remarks=tuple(remarks),
    )
