"""Decentralized ADMM with a dual variable for each end of each edge: exact subproblems, or local training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int, Key

from gossipjax._base.arguments import real
from gossipjax._base.binding import Frozen, as_factory, as_partial, as_task
from gossipjax._base.calls import recorded
from gossipjax._base.placement import by_rows, map_nodes
from gossipjax._base.rows import acting_nodes, all_finite, bits_per_row, num_rows, put, scale_rows, take, trained_rows
from gossipjax.facts import Requires
from gossipjax.mixing._counting import traffic_fields
from gossipjax.protocol._local import check_steps, init_optimizer, train, write
from gossipjax.sharing._edges import Edges, check_rows_of, edges_of, heard, over_edges, over_reverse, own_edges
from gossipjax.topology._graph import Topology, require_undirected
from gossipjax.types import Event, Info, Params, Protocol, Task

ONE_GRAPH = Requires({"one_graph", "own_rows"}, mixing=True, builder="timeline.rounds")


class ADMMState(NamedTuple):
    """Models of all nodes, and z_ij for the neighbours j of each, leaves ``(n, s, ...)``."""

    x: Params
    z: Params


class LTADMMState(NamedTuple):
    """Models and optimizer states of all nodes, and z_ij for the neighbours j of each, leaves ``(n, s, ...)``."""

    x: Params
    z: Params
    optimizer: Any


def start_at(edges: Edges, name: str, penalty: Any, x0: Params) -> Params:
    """Return ``z_ij = ρ x_i``, with which x0 is a fixed point if it is optimal at every node."""
    check_rows_of(edges.neighbors.shape[0], num_rows(x0), name)

    def spread(leaf: Array) -> Array:
        present = edges.present.astype(leaf.dtype).reshape(edges.present.shape + (1,) * (leaf.ndim - 1))
        return jnp.asarray(penalty).astype(leaf.dtype) * present * leaf[:, None]

    return jax.tree.map(spread, x0)


def degrees_of(edges: Edges) -> Float[Array, " n"]:
    """Count the neighbours of each node."""
    return jnp.sum(edges.present, axis=1).astype(jnp.result_type(float))


def exchange(edges: Edges, penalty: Any, relaxation: Any, z: Params, x: Params, event: Event, name: str) -> Params:
    """Send ``z_ij − 2 ρ x_i``, and move the z of the edges over which a message arrived."""
    arrives = heard(event, edges, name)

    def move(z: Array, x: Array) -> Array:
        rho, alpha = (jnp.asarray(number).astype(z.dtype) for number in (penalty, relaxation))
        said = z - 2 * rho * x[:, None]
        moved = (1 - alpha) * z - alpha * over_reverse(event, edges, said)
        return over_edges(arrives, moved, z)

    return jax.tree.map(move, z, x)


def sums_of(z: Params) -> Params:
    """Add up what a node holds for its neighbours."""
    return jax.tree.map(lambda leaf: jnp.sum(leaf, axis=1), z)


def _init(edges: Edges, penalty: Any, key: Key[Array, ""], x0: Params) -> ADMMState:
    del key
    return ADMMState(x0, start_at(edges, "admm", penalty, x0))


@by_rows
def _step(
    edges: Edges, prox: Partial, penalty: Any, relaxation: Any, key, state: ADMMState, event: Event
) -> tuple[ADMMState, Info]:
    del key
    edges = own_edges(edges, event.local)
    rows, nodes = trained_rows(event), acting_nodes(event, num_rows(state.x))
    kind = jnp.result_type(*jax.tree.leaves(state.x))
    reach = (1 / (jnp.asarray(penalty) * jnp.maximum(degrees_of(edges), 1))).astype(kind)
    solved = map_nodes(prox, nodes, take(scale_rows(reach, sums_of(state.z)), rows), take(reach, rows))
    x = put(state.x, rows, solved)
    z = exchange(edges, penalty, relaxation, state.z, x, event, "admm")
    return ADMMState(x, z), Info(*traffic_fields(event, bits_per_row(x), num_rows(x)), None, all_finite((x, z)))


def _init_local(edges: Edges, optimizer: Partial, penalty: Any, key: Key[Array, ""], x0: Params) -> LTADMMState:
    del key
    return LTADMMState(x0, start_at(edges, "lt_admm", penalty, x0), init_optimizer(optimizer, x0))


@by_rows
def _step_local(
    task: Task,
    optimizer: Partial,
    edges: Edges,
    steps: Frozen[int],
    numbers: tuple[Any, Any, Any],
    key,
    state: LTADMMState,
    event: Event,
) -> tuple[LTADMMState, Info]:
    penalty, beta, relaxation = numbers
    edges = own_edges(edges, event.local)
    held = scale_rows(jnp.asarray(penalty) * degrees_of(edges), state.x)
    shift = scale_rows(beta, jax.tree.map(jnp.subtract, sums_of(state.z), held))
    trained = train(key, task, optimizer, steps, state.x, state.optimizer, event, shift)
    x, optimizer_state = write(state.x, state.optimizer, trained, event)
    z = exchange(edges, penalty, relaxation, state.z, x, event, "lt_admm")
    # A message over an edge that the topology lacks leaves NaN in z, which reaches x in the next round.
    info = Info(*traffic_fields(event, bits_per_row(x), num_rows(x)), trained.loss, trained.finite & all_finite(z))
    return LTADMMState(x, z, optimizer_state), info


def _model(state: ADMMState | LTADMMState) -> Params:
    return state.x


def check_penalty(penalty: Any, relaxation: Any) -> None:
    """Check ρ and α; traced ones pass."""
    real("penalty", penalty, above=0, remedy="1 is a start")
    real("relaxation", relaxation, above=0, most=1, remedy="1/2 is ADMM, 1 the method of Peaceman and Rachford")


@recorded("bastianello2021admm", "shi2014admm")
def admm(
    topology: Topology,
    prox: Callable[[Int[Array, ""], Params, Float[Array, ""]], Params],
    *,
    penalty: float | Float[np.ndarray | Array, ""],
    relaxation: float | Float[np.ndarray | Array, ""] = 0.5,
) -> Protocol:
    """Build decentralized ADMM, relaxed, also with absent nodes and lost messages. With d_i neighbours of node i::

        x_i = argmin_x  f_i(x) + ρ d_i / 2 ‖x − Σ_j z_ij / (ρ d_i)‖²         if node i acts
        z_ij ← (1 − α) z_ij − α (z_ji − 2 ρ x_j)                             if the message z_ji − 2 ρ x_j arrives

    and ``z_ij = ρ x_i`` at the start. A message to each neighbour holds one vector. With α = 1/2 it is ADMM on the
    edges of the graph. If all nodes act and all messages arrive, a round adds ``−2 α Σ_i ∇f_i(x_i)`` to ``Σ_ij z_ij``,
    so that with constant losses it conserves ``Σ_i d_i x_i``. Where it stops, all nodes have one model and
    ``Σ_j z_ij = ρ d_i x_i + ∇f_i``: it is exact for any ρ > 0 and convex f_i, and for α < 1; with strongly convex and
    smooth f_i also for α = 1. It stays exact if nodes are absent or messages get lost at random.

    >>> import jax, jax.numpy as jnp, gossipjax as gj
    >>> from jax.tree_util import Partial
    >>> targets = jnp.arange(6.0)
    >>> def prox(targets, node, z, step_size):  # of f_i(x) = (x − b_i)² / 2
    ...     return (z + step_size * targets[node]) / (1 + step_size)
    >>> ring = gj.topology.ring(6)
    >>> method = gj.admm(ring, Partial(prox, targets), penalty=0.5)
    >>> lossy = gj.timeline.changing_rounds(ring, 400, loss=gj.timeline.losses.independent(0.2, seed=0))
    >>> jnp.round(gj.simulate(jax.random.key(0), method, lossy, targets).x, 4).tolist()
    [2.5, 2.5, 2.5, 2.5, 2.5, 2.5]

    Args:
        topology: the undirected graph of the rounds. Weights of the matrices are not used, except that a message of
            weight 0 does not arrive. A matrix with other edges is an error.
        prox: ``prox(node, z, s) -> argmin_x f_node(x) + ‖x − z‖² / (2 s)`` for the model of one node. ``Partial``
            keeps its arrays as arguments. Without one, use :func:`lt_admm`.
        penalty: ρ > 0. A new value does not recompile the run.
        relaxation: α in (0, 1]. A new value does not recompile the run.

    Raises:
        TypeError: if topology or prox has the wrong type.
        ValueError: if the graph is directed, or a number is out of range; during a run, if the number of nodes
            differs, or the timeline is not rounds on one graph.

    Reference: Bastianello, Carli, Schenato, Todescato 2021, arXiv 1901.09252 (relaxed, asynchronous, lossy); Shi, Ling,
        Yuan, Wu, Yin 2014, arXiv 1307.5561 (rates of ADMM). Recalled, and as in decent-bench.
    """
    check_penalty(penalty, relaxation)
    edges, bound = edges_of(require_undirected(topology)), as_partial("prox", prox, "prox(node, z, step_size) -> x")
    return Protocol(
        init=Partial(_init, edges, penalty),
        step=Partial(_step, edges, bound, penalty, relaxation),
        model=Partial(_model),
        requires=ONE_GRAPH | Requires(num_nodes=topology.num_nodes, local_steps=0),
    )


@recorded("ren2025ltadmm")
def lt_admm(
    task: Task,
    optimizer: optax.GradientTransformation | Partial,
    topology: Topology,
    *,
    local_steps: int,
    penalty: float | Float[np.ndarray | Array, ""],
    beta: float | Float[np.ndarray | Array, ""],
    relaxation: float | Float[np.ndarray | Array, ""] = 0.5,
) -> Protocol:
    """Build LT-ADMM: ADMM whose subproblem is replaced by τ local steps. With d_i neighbours of node i::

        φ = x_i,     then τ times     φ ← φ + u(φ) − β (ρ d_i x_i − Σ_j z_ij),     x_i ← φ         if node i acts
        z_ij ← (1 − α) z_ij − α (z_ji − 2 ρ x_j)                             if the message z_ji − 2 ρ x_j arrives

    with u the optimizer's update (``−γ g`` for SGD), and ``z_ij = ρ x_i`` at the start. A message to each neighbour
    holds one vector. With α = 1/2, if all nodes act and all messages arrive, the pulls sum to zero, so that x̄ moves by
    the mean of the sums of the local updates. Where it stops, all nodes have one model and
    ``β (ρ d_i x_i − Σ_j z_ij) = u_i``: it is exact for SGD with exact gradients, for small γ and β.

    Args:
        task: one shard per node.
        optimizer: any optax transformation, one state per node; or ``Partial(optax.sgd, 0.1)``. A schedule counts the
            node's own local steps, τ a round.
        topology: as for :func:`admm`.
        local_steps: τ ≥ 1.
        penalty: ρ > 0. A new value does not recompile the run.
        beta: β > 0; keep τ β ρ d below 1 for the largest degree d. A new value does not recompile the run.
        relaxation: α in (0, 1]; the paper has 1/2. A new value does not recompile the run.

    Raises:
        TypeError: if task, optimizer or topology has the wrong type.
        ValueError: if the graph is directed, local_steps < 1 or a number is out of range; during a run, as
            :func:`admm`.

    Reference: Ren, Bastianello, Johansson, Parisini 2025, arXiv 2501.13516, algorithm 1 without variance reduction;
        recalled, and as in decent-bench.
    """
    check_penalty(penalty, relaxation)
    real("beta", beta, above=0, remedy="the step of the local pull towards the neighbours")
    task, factory, edges = as_task(task), as_factory(optimizer), edges_of(require_undirected(topology))
    return Protocol(
        init=Partial(_init_local, edges, factory, penalty),
        step=Partial(_step_local, task, factory, edges, check_steps(local_steps), (penalty, beta, relaxation)),
        model=Partial(_model),
        requires=ONE_GRAPH | Requires(num_nodes=task.num_nodes, local_steps=local_steps),
    )
