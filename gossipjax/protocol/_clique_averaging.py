"""D-SGD with clique averaging: gradients are averaged inside cliques, models over all edges."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial
from jaxtyping import Array, Int, Key, UInt

from gossipjax._base.arguments import shown
from gossipjax._base.binding import as_factory, as_task
from gossipjax._base.calls import recorded
from gossipjax._base.local import Local, in_node_order
from gossipjax._base.placement import by_rows
from gossipjax._base.rows import all_finite, bits_per_row, where_rows
from gossipjax.facts import FIXED_GRAPH, Requires
from gossipjax.mixing._apply import mix, to_dense
from gossipjax.mixing._forms import TableMixing
from gossipjax.protocol._local import init_optimizer, node_gradients
from gossipjax.sharing._edges import as_on_one_device
from gossipjax.topology import DCliques
from gossipjax.types import Event, Info, Params, Protocol, Task


class CliqueAveragingState(NamedTuple):
    """Models and optimizer states of all nodes."""

    x: Params
    optimizer: Any


def _init(optimizer: Partial, key: Key[Array, ""], x0: Params) -> CliqueAveragingState:
    del key
    return CliqueAveragingState(x0, init_optimizer(optimizer, x0))


def _mean_of_clique(clique: Int[Array, " n"], x: Params, local: Local | None) -> Params:
    own, size = _own(clique, local), jnp.zeros(clique.size, jnp.int32).at[clique].add(1)

    def average(leaf: Array) -> Array:
        everyone = in_node_order(local, leaf)
        total = jnp.zeros_like(everyone).at[clique].add(everyone)[own]
        return total / size[own].reshape((-1,) + (1,) * (leaf.ndim - 1)).astype(leaf.dtype)

    return jax.tree.map(average, x)


def _own(clique: Int[Array, " n"], local: Local | None) -> Int[Array, " m"]:
    """Return the cliques of the nodes whose rows are here."""
    return clique if local is None else clique[local.ids]


def _messages(clique: Int[Array, " n"], mixing: Any, local: Local | None) -> UInt[Array, "m d"]:
    """Count a node's messages to its neighbours in increasing order: a model, and a gradient inside the clique (2)."""
    n = clique.size
    every = jnp.arange(n, dtype=jnp.int32)
    own = (every if local is None else local.ids)[:, None]
    mixing = as_on_one_device(mixing, local)
    if isinstance(mixing, TableMixing):
        live, neighbors = mixing.weights != 0, mixing.neighbors
    else:
        live = (to_dense(mixing, n) if local is None else mixing.W) != 0
        neighbors = jnp.broadcast_to(every, live.shape)
    there = jnp.sort(jnp.where(live & (neighbors != own), neighbors, n), axis=1)
    inside = clique.at[there].get(mode="fill", fill_value=-1) == _own(clique, local)[:, None]
    return jnp.where(there < n, 1 + inside.astype(jnp.uint32), 0).astype(jnp.uint32)


@by_rows
def _step(
    task: Task, optimizer: Partial, clique: Int[Array, " n"], key, state: CliqueAveragingState, event: Event
) -> tuple[CliqueAveragingState, Info]:
    loss, gradient = node_gradients(key, task, state.x, event)
    shared = _mean_of_clique(clique, gradient, event.local)
    updates, optimizer_state = jax.vmap(optimizer().update)(shared, state.optimizer, state.x)
    x = mix(event.mixing, optax.apply_updates(state.x, updates))
    messages = _messages(clique, event.mixing, event.local)
    mates = jnp.zeros_like(clique).at[clique].add(1)[_own(clique, event.local)] - 1
    complete = jnp.sum(messages == 2, axis=1, dtype=jnp.int32) == mates
    x = where_rows(complete, x, jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), x))
    bits = jnp.full(messages.shape, bits_per_row(x), jnp.uint32)
    return CliqueAveragingState(x, optimizer_state), Info(bits, messages, loss, all_finite(x))


def _model(state: CliqueAveragingState) -> Params:
    return state.x


@recorded("bellet2022dcliques")
def clique_averaging(
    task: Task,
    optimizer: optax.GradientTransformation | Partial,
    cliques: DCliques | Sequence[Sequence[int] | Int[np.ndarray, " m"]],
) -> Protocol:
    """Build D-SGD with clique averaging, for :func:`~gossipjax.topology.d_cliques`.

    With C(i) the clique of node i, in which every two nodes are neighbours::

        ḡ_i = (1 / |C(i)|) Σ_{j ∈ C(i)} g_j(x_j)
        x_i ← Σ_j W_ij (x_j + u_j),    u_j the optimizer's update for ḡ_j

    Edges between cliques carry models only: a gradient over such an edge would give its label more weight than it has
    in the network. A momentum inside the optimizer is that of the clique's gradient, so it does not drift with a node's
    own labels. With a doubly stochastic W, ``x̄ ← x̄ + ū``; for SGD, ``ū = −γ ḡ`` is the step of the mean of all
    gradients. With cliques of one node it is :func:`~gossipjax.dpsgd`, adapt then combine.

    A node sends two messages to its neighbours in the clique, its gradient and then its model, and one to the others.
    If the timeline's graph lacks an edge inside a clique, the models of its ends become NaN.

    >>> import jax, optax, numpy as np, gossipjax as gj
    >>> labels = np.eye(2, dtype=int)[[0, 1, 0, 1, 0, 1]] * 10
    >>> cliques = gj.topology.d_cliques(labels, 2, seed=0, between="ring")
    >>> plan = gj.timeline.rounds(gj.mixing.metropolis(cliques.topology), 20)
    >>> task = gj.tasks.quadratic(labels[:, :1].astype(float))
    >>> run = gj.simulate(jax.random.key(0), gj.protocol.clique_averaging(task, optax.sgd(0.1), cliques), plan, task)
    >>> run.x.shape
    (6, 1)

    Args:
        task: one shard per node.
        optimizer: any optax transformation, one state per node; or ``Partial(optax.sgd, 0.1)``.
        cliques: of :func:`~gossipjax.topology.d_cliques`, or the nodes of each clique.

    Raises:
        TypeError: if task or optimizer has the wrong type.
        ValueError: if the cliques do not hold every node once; during a run, if the timeline is not synchronous rounds
            on one symmetric doubly stochastic matrix.

    Reference: Bellet, Kermarrec, Lavoie 2022, arXiv 2104.07365, "D-SGD with Clique Averaging".
    """
    task, factory = as_task(task), as_factory(optimizer)
    return Protocol(
        init=Partial(_init, factory),
        step=Partial(_step, task, factory, jnp.asarray(_clique_of(cliques, task.num_nodes))),
        model=Partial(_model),
        requires=FIXED_GRAPH | Requires({"own_rows"}, num_nodes=task.num_nodes, local_steps=1),
    )


def _clique_of(cliques: Any, num_nodes: int) -> Int[np.ndarray, " n"]:
    """Number the cliques, and return the number of each node's."""
    given = cliques.cliques if isinstance(cliques, DCliques) else cliques
    try:
        members = [np.asarray(clique).reshape(-1) for clique in given]
        nodes = np.concatenate(members)
    except (TypeError, ValueError) as error:
        raise ValueError(f"cliques={shown(cliques)}: must be lists of nodes, such as [[0, 1], [2, 3]]") from error
    if nodes.dtype.kind not in "iu" or sorted(nodes.tolist()) != list(range(num_nodes)):
        raise ValueError(
            f"cliques={shown(cliques)}: must hold each of the nodes 0 … {num_nodes - 1} of the task once; use "
            "topology.d_cliques with the label counts of the same nodes"
        )
    found = np.empty(num_nodes, np.int32)
    found[nodes] = np.repeat(np.arange(len(members), dtype=np.int32), [clique.size for clique in members])
    return found
