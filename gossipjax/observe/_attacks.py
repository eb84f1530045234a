"""Attacks on what models tell about shards: who was trained on a sample, and whose model it is."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Int

from gossipjax._base.arguments import real, whole
from gossipjax._base.arguments import seed as check_seed
from gossipjax._base.binding import as_task
from gossipjax._base.calls import recorded
from gossipjax._base.placement import map_nodes
from gossipjax.observe._models import Observer, Snapshot, Variable, metric_names, own_models
from gossipjax.types import Params, Task


class _Pairs(NamedTuple):
    """Members of each shard, and as many held-out samples with the same labels."""

    members: Int[Array, "n s"]
    """Training samples; the last ones repeat where a node has fewer."""
    others: Int[Array, "n s"]
    """Test samples."""
    there: Bool[Array, "n s"]
    """Which entries count."""
    allowed: Int[Array, " n"] | None
    """Test samples that may be called members; None: no rate is asked for."""


def _arrays(task: Task, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the shards of a task of classification as indices and offsets, and the labels of all training samples."""
    data, test = as_task(task).data, task.test
    shards = isinstance(data, dict) and {"inputs", "labels", "indices", "offsets"} <= set(data)
    held_out = isinstance(test, dict) and {"inputs", "labels"} <= set(test)
    if not (shards and held_out and "loss" in metric_names(task, test)):
        raise ValueError(
            f"{name}: the task has no shards of labelled samples, or no losses of held-out ones; use a task of "
            "tasks.classification"
        )
    return tuple(np.asarray(data[key]) for key in ("indices", "offsets", "labels"))  # type: ignore[return-value]


def _losses(task: Task, source: Any, x: Params, chosen: Int[Array, " s"]) -> Float[Array, " s"]:
    """Return the loss of each of some samples."""
    rest = {name: leaf for name, leaf in task.test.items() if name not in ("inputs", "labels")}

    def one(inputs: Array, label: Array) -> Array:
        return task.metrics(x, rest | {"inputs": inputs[None], "labels": label[None]})["loss"]

    return jax.vmap(one)(source["inputs"][chosen], source["labels"][chosen])


def _attack(task: Task, x: Params, members: Array, held_out: Array, there: Array, allowed: Any) -> dict[str, Array]:
    inside, outside = _losses(task, task.data, x, members), _losses(task, task.test, x, held_out)
    kind = jnp.result_type(float)
    count = jnp.sum(there).astype(kind)
    others = jnp.sort(jnp.where(there, outside, jnp.inf))
    below, up_to = (
        jnp.minimum(jnp.searchsorted(others, inside, side=side).astype(kind), count) for side in ("left", "right")
    )
    wins = count - (below + up_to) / 2  # held-out samples of larger loss, and half of those of equal loss
    found = {"membership_auc_by_node": jnp.sum(jnp.where(there, wins, 0)) / count**2}
    if allowed is None:
        return found
    return found | {"membership_tpr_by_node": jnp.sum(((inside < others[allowed]) & there).astype(kind)) / count}


def _membership(task: Task, pairs: _Pairs, snapshot: Snapshot) -> dict[str, Array]:
    return map_nodes(Partial(_attack, task), own_models(task, "membership", snapshot), *pairs)


def _matched(task: Task, samples: int | None, seed: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Pair members of each shard with test samples of the same label, each used once, in random order."""
    indices, offsets, labels = _arrays(task, "membership")
    test_labels = np.asarray(task.test["labels"])
    members, others = [], []
    for node in range(task.num_nodes):
        rng = np.random.default_rng([seed, node])
        shard = rng.permutation(indices[offsets[node] : offsets[node + 1]])
        free = {c: list(rng.permutation(np.flatnonzero(test_labels == c))) for c in np.unique(labels[shard]).tolist()}
        pairs = [(k, free[labels[k]].pop()) for k in shard.tolist() if free[labels[k]]][:samples]
        if not pairs:
            raise ValueError(
                f"membership: no held-out sample has a label of node {node}, so that nothing can be compared; use a "
                "larger test set"
            )
        members.append(np.asarray([k for k, _ in pairs]))
        others.append(np.asarray([k for _, k in pairs]))
    return members, others


def _padded(rows: list[np.ndarray]) -> Int[Array, "n s"]:
    width = max(map(len, rows))
    return jnp.asarray(np.stack([np.pad(row, (0, width - len(row)), mode="edge") for row in rows]), jnp.int32)


def _allowed(sizes: np.ndarray, fpr: Any) -> Int[Array, " n"] | None:
    if fpr is None:
        return None
    rate = real("fpr", fpr, above=0, below=1, remedy="such as 0.01; None: no rate")
    allowed = np.floor(rate * sizes + 1e-9)  # a hundredth of 100, which is above 1 in binary or not
    if (few := np.flatnonzero(allowed < 1)).size:
        raise ValueError(
            f"fpr={rate:g}: node {few[0]} has {sizes[few[0]]} held-out samples, too few for a rate of one in "
            f"{1 / rate:g}; use a larger rate, or a larger test set and shards"
        )
    return jnp.asarray(allowed, jnp.int32)


@recorded("yeom2018privacy")
def membership(task: Task, *, samples: int | None = None, fpr: float | None = None, seed: int = 0) -> Observer:
    """Attack each node's model by the losses of samples: was a sample in the node's shard?

    The attack calls samples of low loss members. Its score is the probability that a member has a lower loss than a
    held-out sample, with ties counted as ½: the area under the ROC curve, ½ for guessing. Members are samples of the
    node's shard, and as many test samples have the same labels, so that labels alone tell nothing.

    Means hide the worst nodes: variables have one value for each node. An attack that fails is this attack failing, and
    no proof of privacy. Where a run is μ-Gaussian differentially private for single samples, and held-out samples have
    the law of the node's own, the area is at most :func:`gossipjax.privacy.auc` of μ, up to sampling.

    Args:
        task: of :func:`gossipjax.tasks.classification`, or a private one made of it.
        samples: the most members of a node; None: as many as have a test sample.
        fpr: rate of held-out samples that may be called members, in (0, 1), for ``membership_tpr_by_node``: the share
            of members that are found then; None: no such variable.
        seed: of the NumPy generator that draws the samples.

    Returns:
        Observer of ``membership_auc_by_node``, and ``membership_tpr_by_node``, with the dimension ``node``.

    Raises:
        TypeError: if task is not a task.
        ValueError: if it has no labelled samples, or too few; when run, if there are fewer model rows than nodes.

    Reference: Yeom, Giacomelli, Fredrikson, Jha 2018, arXiv 1709.01604 (attack by the loss; recalled, not looked up).
    """
    most = None if samples is None else whole("samples", samples, least=1)
    members, others = _matched(task, most, check_seed(seed))
    sizes = np.asarray([len(row) for row in members])
    there = jnp.asarray(np.arange(sizes.max())[None] < sizes[:, None])
    pairs = _Pairs(_padded(members), _padded(others), there, _allowed(sizes, fpr))
    variables: tuple[Variable, ...]
    variables = (Variable("membership_auc_by_node", "area under the ROC curve of the loss attack", dims=("node",)),)
    if fpr is not None:
        words = f"share of members found at a false positive rate of {fpr:g}"
        variables += (Variable("membership_tpr_by_node", words, dims=("node",)),)
    return Observer(Partial(_membership, task, pairs), variables)


def _attribute(task: Task, chosen: Array, there: Array, x: Params, own: Array) -> Array:
    def of_shard(samples: Array, counts: Array) -> Array:
        losses = _losses(task, task.data, x, samples)
        return jnp.sum(losses * counts.astype(losses.dtype)) / jnp.sum(counts).astype(losses.dtype)

    found = jnp.argmin(jax.vmap(of_shard)(chosen, there)).astype(own.dtype)
    return (found == own).astype(jnp.result_type(float))


def _linkability(task: Task, chosen: Array, there: Array, snapshot: Snapshot) -> dict[str, Array]:
    models = own_models(task, "linkability", snapshot)
    nodes = jnp.arange(task.num_nodes, dtype=jnp.int32)
    return {"linked_by_node": map_nodes(Partial(_attribute, task, chosen, there), models, nodes)}


@recorded("biswas2025zipdl")
def linkability(task: Task, *, samples: int | None = None, seed: int = 0) -> Observer:
    """Attack models without names: a model is attributed to the shard on which its mean loss is lowest.

    The mean over nodes is the accuracy of the attack, 1/n for guessing. Its work grows with the square of n.

    Args:
        task: of :func:`gossipjax.tasks.classification`, or a private one made of it.
        samples: the most samples of each shard; None: all.
        seed: of the NumPy generator that draws them.

    Returns:
        Observer of ``linked_by_node``: 1 where the model is attributed to its own node, 0 elsewhere.

    Raises:
        TypeError: if task is not a task.
        ValueError: if it has no labelled samples; when run, if there are fewer model rows than nodes.

    Reference: Biswas et al. 2025, arXiv 2403.11795 (who names the attack; this form is ours).
    """
    most = None if samples is None else whole("samples", samples, least=1)
    indices, offsets, _ = _arrays(task, "linkability")
    rng = np.random.default_rng(check_seed(seed))
    shards = [rng.permutation(indices[a:b])[:most] for a, b in itertools.pairwise(offsets)]
    sizes = np.asarray([len(shard) for shard in shards])
    there = jnp.asarray(np.arange(sizes.max())[None] < sizes[:, None])
    variable = Variable("linked_by_node", "whether the model is attributed to its own node", dims=("node",))
    return Observer(Partial(_linkability, task, _padded(shards), there), (variable,))
