"""All-reduce SGD: the centralized baseline, in which every node applies the mean gradient."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import optax
from jax.tree_util import Partial
from jaxtyping import Array, Key

from gossipjax._base.binding import as_factory, as_task
from gossipjax._base.calls import recorded
from gossipjax._base.local import mean_of_rows, network_size
from gossipjax._base.placement import by_rows
from gossipjax._base.rows import all_finite, bits_per_row, num_rows
from gossipjax.facts import Requires
from gossipjax.mixing._counting import charge_allreduce
from gossipjax.protocol._local import init_optimizer, node_gradients
from gossipjax.types import Event, Info, Params, Protocol, Task


class AllReduceState(NamedTuple):
    """Models (equal in all rows) and optimizer states (equal too, where x0 has equal rows)."""

    x: Params
    optimizer: Any


def _init(optimizer: Partial, key: Key[Array, ""], x0: Params) -> AllReduceState:
    del key
    return AllReduceState(x0, init_optimizer(optimizer, x0))


@by_rows
def _step(task: Task, optimizer: Partial, key, state: AllReduceState, event: Event) -> tuple[AllReduceState, Info]:
    n = network_size(event.local, num_rows(state.x))
    loss, grads = node_gradients(key, task, state.x, event)
    mean = jax.tree.map(lambda leaf: mean_of_rows(event.local, leaf), grads)
    updates, optimizer_state = jax.vmap(optimizer().update, in_axes=(None, 0, 0))(mean, state.optimizer, state.x)
    x = optax.apply_updates(state.x, updates)
    info = Info(bits_per_row(x), None, loss, all_finite(x))
    if event.allreduce is None:  # on any other timeline too; events that are one are charged by the loop
        info = charge_allreduce(info, event._replace(allreduce=()), n)
    return AllReduceState(x, optimizer_state), info


def _model(state: AllReduceState) -> Params:
    return state.x


@recorded("goyal2017large")
def allreduce_sgd(task: Task, optimizer: optax.GradientTransformation | Partial) -> Protocol:
    """Build synchronous data-parallel SGD ``x ← x + optimizer((1/n) Σ_j g_j(x))`` on every node.

    The mean is exact; the mixing of the timeline is not used. Each node sends ``2 (n − 1)/n`` models per round (ring
    all-reduce).

    Args:
        task: one shard per node.
        optimizer: any optax transformation, one state per node; or ``Partial(optax.sgd, 0.1)``. A schedule counts the
            node's own steps, here one a round.

    Raises:
        TypeError: if task or optimizer has the wrong type.
        ValueError: during a run, if not all nodes act at every event.

    Reference: Goyal et al. 2017, arXiv 1706.02677.
    """
    task, factory = as_task(task), as_factory(optimizer)
    requires = Requires({"synchronous", "own_rows"}, num_nodes=task.num_nodes, local_steps=1, builder="timeline.rounds")
    return Protocol(Partial(_init, factory), Partial(_step, task, factory), Partial(_model), requires)
