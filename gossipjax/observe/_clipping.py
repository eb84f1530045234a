"""What private gradients cost: how many contributions are clipped, and how loud the noise is."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array

from gossipjax._base.binding import as_task
from gossipjax._base.calls import recorded
from gossipjax._base.clipping import Mechanism, contributed, norm, parts_of
from gossipjax._base.placement import map_nodes
from gossipjax.observe._models import Observer, Snapshot, Variable, own_models
from gossipjax.types import Params, Task


def _one(task: Task, parts: tuple[Mechanism, Partial], event: Array, x: Params, node: Array) -> tuple[Array, Array]:
    mechanism, loss = parts
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), event), node)
    coins, draws = jax.random.split(key)
    found = contributed(mechanism, loss, draws, x, task.batch(coins, task.data, node))
    signal = norm(found.total)
    if mechanism.noise is None:
        return found.clipped, jnp.zeros_like(signal)
    size = sum(leaf.size for leaf in jax.tree.leaves(x))
    loud = jnp.asarray(mechanism.noise * mechanism.clip, signal.dtype) * size**0.5
    return found.clipped, loud / signal


def _measure(task: Task, parts: tuple[Mechanism, Partial], snapshot: Snapshot) -> dict[str, Array]:
    models = own_models(task, "clipping", snapshot)
    nodes = jnp.arange(task.num_nodes, dtype=jnp.int32)
    share, ratio = map_nodes(Partial(_one, task, parts, snapshot.event), models, nodes)
    return {"clip_share_by_node": share, "noise_to_signal_by_node": ratio}


@recorded()
def clipping(task: Task) -> Observer:
    """Record how many contributions to a private gradient are clipped, and how loud its noise is, for each node.

    At each node's model, with a batch like those of its steps: the share of samples, or 0 or 1 for the gradient of the
    batch, with ``‖g‖ > C``; and ``z C √P / ‖Σ clipped g‖``, the expected length of the noise of P parameters over that
    of what it hides, infinite where nothing is hidden.

    Args:
        task: made by :func:`gossipjax.privacy.sample_dp` or :func:`gossipjax.privacy.node_dp`.

    Returns:
        Observer of ``clip_share_by_node`` and ``noise_to_signal_by_node``, with the dimension ``node``.

    Raises:
        TypeError: if task is not a task.
        ValueError: if its gradients are not private; when run, if there are fewer model rows than nodes.
    """
    parts = parts_of(as_task(task))
    if parts is None:
        raise ValueError("clipping: the task's gradients are not private; use privacy.sample_dp or privacy.node_dp")
    variables = (
        Variable("clip_share_by_node", "share of contributions to a gradient that are clipped", dims=("node",)),
        Variable("noise_to_signal_by_node", "length of the noise over that of the gradient", dims=("node",)),
    )
    return Observer(Partial(_measure, task, parts), variables)
