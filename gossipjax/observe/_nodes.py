"""Observers with one value for each node: metrics and the age of what a node knows; traffic is in ``_traffic``.

Means hide the nodes that are left behind. These variables have the dimension ``node``, and ``trajectory.to_frame()``
turns them into a table with one row for each node and record.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array

from gossipjax._base.arguments import seed as check_seed
from gossipjax._base.binding import as_task
from gossipjax._base.calls import recorded
from gossipjax._base.local import in_node_order
from gossipjax._base.placement import by_rows, map_nodes
from gossipjax._base.rows import num_rows
from gossipjax.observe._models import Observer, Snapshot, Variable, metric_names, metrics_of, subset
from gossipjax.observe._staleness import pairs, versions_of
from gossipjax.types import Task


@by_rows
def _metrics(task: Task, test: Any, snapshot: Snapshot) -> dict[str, Array]:
    if snapshot.local is not None:
        values = map_nodes(Partial(metrics_of, task, test), snapshot.x)
        return {f"{name}_by_node": in_node_order(snapshot.local, array) for name, array in values.items()}
    if num_rows(snapshot.x) < task.num_nodes:
        raise ValueError(
            f"metrics_by_node: there are {num_rows(snapshot.x)} model rows for {task.num_nodes} nodes, so that nodes "
            "have no models of their own; use node_metrics, which measures rows"
        )
    own = jax.tree.map(lambda leaf: leaf[: task.num_nodes], snapshot.x)
    return {f"{name}_by_node": values for name, values in map_nodes(Partial(metrics_of, task, test), own).items()}


@recorded()
def metrics_by_node(task: Task, *, samples: int | None = None, seed: int = 0) -> Observer:
    """Record the task's metrics of every node's model, as ``<metric>_by_node``.

    >>> import gossipjax as gj, jax, jax.numpy as jnp
    >>> task = gj.tasks.quadratic(jnp.asarray([[0.0], [2.0]]))
    >>> plan = gj.timeline.rounds(gj.mixing.averaging(2), 1)
    >>> watch = [gj.observe.metrics_by_node(task)]
    >>> run = gj.simulate(jax.random.key(0), gj.gossip_averaging(), plan, jnp.asarray([[0.0], [4.0]]), observers=watch)
    >>> run["squared_error_by_node"].dims
    ('record', 'node')

    Args:
        task: the task; its ``metrics`` are evaluated on its test set.
        samples: number of test samples (a fixed random subset); None: all.
        seed: of the NumPy generator that draws the subset.

    Returns:
        Observer of one variable for each metric, with the dimension ``node``.

    Raises:
        ValueError: if there are fewer samples than asked for; when run, if there are fewer model rows than nodes.
    """
    task = as_task(task)
    test = subset(task, samples, seed=check_seed(seed))
    on = "the whole test set" if samples is None else f"{samples} test samples"
    variables = tuple(
        Variable(f"{name}_by_node", f"{name} of each node's model on {on}", dims=("node",))
        for name in metric_names(task, test)
    )
    return Observer(Partial(_metrics, task, test), variables)


def _staleness(snapshot: Snapshot) -> dict[str, Array]:
    if not versions_of(snapshot).rows_are_nodes.value:
        raise ValueError("staleness_by_node: model rows are no nodes here; use staleness_summary, which counts rows")
    stale, counts = pairs(snapshot)
    kind = jnp.result_type(float)
    total = jnp.sum(jnp.where(counts, stale, 0).astype(kind), axis=1)  # the sum of integers might overflow
    return {
        "staleness_by_node": total / jnp.maximum(jnp.sum(counts, axis=1), 1).astype(kind),
        "max_staleness_by_node": jnp.max(jnp.where(counts, stale, 0), axis=1).astype(kind),
    }


@recorded("mitra2024timely")
def staleness_by_node() -> Observer:
    """Record how old what each node knows is: mean and maximum of ``S_i^j`` over the tracked sources i ≠ j."""
    variables = (
        Variable("staleness_by_node", "mean staleness of each node about the tracked sources", "updates", ("node",)),
        Variable("max_staleness_by_node", "maximum staleness of each node about a source", "updates", ("node",)),
    )
    return Observer(Partial(_staleness), variables)
