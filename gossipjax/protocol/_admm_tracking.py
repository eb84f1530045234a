"""ADMM-Tracking Gradient: averages of models and of gradients that ADMM tracks, also over links that lose messages."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float, Key

from gossipjax._base.arguments import real
from gossipjax._base.binding import as_task
from gossipjax._base.calls import recorded
from gossipjax._base.placement import by_rows
from gossipjax._base.rows import all_finite, bits_per_row, num_rows, put, scale_rows, take, trained_rows
from gossipjax.facts import Requires
from gossipjax.mixing._counting import traffic_fields
from gossipjax.protocol._admm import ONE_GRAPH, check_penalty, degrees_of, exchange, start_at, sums_of
from gossipjax.protocol._local import node_gradients
from gossipjax.sharing._edges import Edges, edges_of, own_edges
from gossipjax.topology._graph import Topology, require_undirected
from gossipjax.types import Event, Info, Params, Protocol, Task

NAME = "admm_tracking"


class ADMMTrackingState(NamedTuple):
    """Models of all nodes, and for the neighbours j of each the z_ij of both averages, leaves ``(n, s, ...)``."""

    x: Params
    z_model: Params
    z_gradient: Params


def _init(edges: Edges, penalty: Any, key: Key[Array, ""], x0: Params) -> ADMMTrackingState:
    del key
    z = start_at(edges, NAME, penalty, x0)
    return ADMMTrackingState(x0, z, jax.tree.map(jnp.zeros_like, z))


@by_rows
def _step(
    task: Task, edges: Edges, numbers: tuple[Any, Any, Any, Any], key, state: ADMMTrackingState, event: Event
) -> tuple[ADMMTrackingState, Info]:
    """One round: both averages as ADMM sees them, the model towards them, and a message to each neighbour."""
    step_size, gamma, penalty, relaxation = numbers
    edges = own_edges(edges, event.local)
    loss, gradient = node_gradients(key, task, state.x, event)
    reach = 1 / (1 + jnp.asarray(penalty) * degrees_of(edges))
    z = state.z_model, state.z_gradient
    y, s = scale_rows(reach, jax.tree.map(jnp.add, (state.x, gradient), sums_of(z)))
    way = jax.tree.map(lambda x, y, step: y - step - x, state.x, y, scale_rows(step_size, s))
    rows = trained_rows(event)
    x = put(state.x, rows, take(jax.tree.map(jnp.add, state.x, scale_rows(gamma, way)), rows))
    z_model, z_gradient = exchange(edges, penalty, relaxation, z, (y, s), event, NAME)
    # A message over an edge that the topology lacks leaves NaN in z, which reaches x in the next round.
    info = Info(*traffic_fields(event, 2 * bits_per_row(x), num_rows(x)), loss, all_finite((x, z_model, z_gradient)))
    return ADMMTrackingState(x, z_model, z_gradient), info


def _model(state: ADMMTrackingState) -> Params:
    return state.x


@recorded("carnevale2025atg")
def admm_tracking(
    task: Task,
    step_size: float | Float[np.ndarray | Array, ""],
    topology: Topology,
    *,
    gamma: float | Float[np.ndarray | Array, ""],
    penalty: float | Float[np.ndarray | Array, ""],
    relaxation: float | Float[np.ndarray | Array, ""] = 0.5,
) -> Protocol:
    """Build ADMM-Tracking Gradient (ATG): tracking by ADMM instead of by mixing. With d_i neighbours of node i::

        y_i = (x_i + Σ_j z_ij) / (1 + ρ d_i),     s_i = (∇f_i(x_i) + Σ_j w_ij) / (1 + ρ d_i)
        x_i ← (1 − γ) x_i + γ (y_i − δ s_i)                                  if node i acts
        z_ij ← (1 − α) z_ij − α (z_ji − 2 ρ y_j)                             if the message of j arrives
        w_ij ← (1 − α) w_ij − α (w_ji − 2 ρ s_j)                             if the message of j arrives

    with ``z_ij = ρ x_i`` and w = 0 at the start. y and s are iterates of :func:`~gossipjax.admm` for the means of the
    x_i and of the gradients, which change slowly if γ is small. Where it stops, all nodes have one model, y is that
    model, and s is the mean gradient, 0: it is exact with a constant step, for small γ and δ, and stays exact if nodes
    are absent or messages get lost at random; gradient tracking runs only where all nodes act, and both messages of a
    pair are lost together. A message to each neighbour holds
    ``z_ij − 2 ρ y_i`` and ``w_ij − 2 ρ s_i``, two vectors.

    If all nodes act and all messages arrive, a round subtracts ``2 α γ δ Σ_i s_i`` from ``2 α Σ_i x_i + γ Σ_ij z_ij``,
    so that without gradients it conserves ``Σ_i (2 α + γ ρ d_i) x_i`` where z_ij = ρ x_i, as at the start and where it
    stops.

    Args:
        task: one shard per node.
        step_size: δ > 0. A new value does not recompile the run.
        topology: the undirected graph of the rounds. Weights of the matrices are not used, except that a message of
            weight 0 does not arrive. A matrix with other edges is an error.
        gamma: γ in (0, 1], how far a round moves. A new value does not recompile the run.
        penalty: ρ > 0. A new value does not recompile the run.
        relaxation: α in (0, 1]; the paper has α < 1. A new value does not recompile the run.

    Raises:
        TypeError: if task or topology has the wrong type.
        ValueError: if the graph is directed, or a number is out of range; during a run, as :func:`~gossipjax.admm`.

    Reference: Carnevale, Bastianello, Notarstefano, Carli 2025, arXiv 2309.14142, in the form of decent-bench 0.3.0,
        whose w starts as z does.
    """
    check_penalty(penalty, relaxation)
    real("step_size", step_size, above=0, remedy="well below 1 / L of every node's loss")
    real("gamma", gamma, above=0, most=1, remedy="0.1 is a start; smaller if the run diverges")
    task, edges = as_task(task), edges_of(require_undirected(topology))
    return Protocol(
        init=Partial(_init, edges, penalty),
        step=Partial(_step, task, edges, (step_size, gamma, penalty, relaxation)),
        model=Partial(_model),
        requires=ONE_GRAPH | Requires(num_nodes=task.num_nodes, local_steps=1),
    )
