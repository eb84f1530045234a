"""RelaySum on trees: messages relay what arrived from the other neighbours, so that all nodes count once."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import Partial
from jaxtyping import Array, Float, Key

from gossipjax._base.arguments import choice
from gossipjax._base.binding import Frozen, as_factory, as_task
from gossipjax._base.calls import recorded
from gossipjax._base.placement import by_rows
from gossipjax._base.rows import bits_per_row, num_rows, scale_rows
from gossipjax.facts import Requires
from gossipjax.mixing._counting import traffic_fields
from gossipjax.protocol._local import check_steps, init_optimizer, train
from gossipjax.sharing._edges import Edges, check_rows_of, edges_of, heard, over_edges, over_reverse, own_edges
from gossipjax.topology._graph import Topology, require_undirected
from gossipjax.types import Event, Info, Params, Protocol, Task

Normalize = Literal["sum", "mean"]
_REQUIRES = Requires({"synchronous", "one_graph", "own_rows"}, mixing=True, builder="timeline.rounds")
COUNT_BITS = 32


class Relayed(NamedTuple):
    """The last message of each neighbour: a sum of models, leaves ``(n, s, ...)``, and how many it adds up."""

    sums: Params
    counts: Float[Array, "n s"]


class RelayState(NamedTuple):
    """Start models, models, messages of the last round, and optimizer states of all nodes."""

    start: Params
    x: Params
    relayed: Relayed
    optimizer: Any


class RelayAverageState(NamedTuple):
    """Constant values, their averages so far, and messages of the last round, of all nodes."""

    start: Params
    x: Params
    relayed: Relayed


def _nothing(edges: Edges, name: str, x0: Params) -> Relayed:
    n, s = edges.neighbors.shape
    check_rows_of(n, num_rows(x0), name)
    sums = jax.tree.map(lambda leaf: jnp.zeros((n, s, *leaf.shape[1:]), leaf.dtype), x0)
    return Relayed(sums, jnp.zeros((n, s)))


def _relay(edges: Edges, last: Relayed, x: Params, event: Event, name: str) -> Relayed:
    """Send each neighbour one's own model and what the other neighbours said in the last round."""
    edges = own_edges(edges, event.local)
    arrives = heard(event, edges, name)

    def pass_on(own: Array, arrived: Array) -> Array:
        sent = own[:, None] + jnp.sum(arrived, axis=1, keepdims=True) - arrived
        return over_edges(arrives, over_reverse(event, edges, sent), 0)

    return Relayed(jax.tree.map(pass_on, x, last.sums), pass_on(jnp.ones(num_rows(x)), last.counts))


def _average(normalize: str, start: Params, x: Params, relayed: Relayed, n: int) -> Params:
    known = 1 + jnp.sum(relayed.counts, axis=1)
    total = jax.tree.map(lambda own, sums: own + jnp.sum(sums, axis=1), x, relayed.sums)
    if normalize == "mean":
        return scale_rows(1 / known, total)
    return jax.tree.map(lambda a, b: (a + b) / n, total, scale_rows(n - known, start))


def _init(edges: Edges, optimizer: Partial, key: Key[Array, ""], x0: Params) -> RelayState:
    del key
    return RelayState(x0, x0, _nothing(edges, "relay_sgd", x0), init_optimizer(optimizer, x0))


@by_rows
def _step(
    task: Task,
    optimizer: Partial,
    edges: Edges,
    steps: Frozen[int],
    normalize: Frozen[str],
    key,
    state: RelayState,
    event: Event,
) -> tuple[RelayState, Info]:
    trained = train(key, task, optimizer, steps, state.x, state.optimizer, event)
    relayed = _relay(edges, state.relayed, trained.x, event, "relay_sgd")
    x = _average(normalize.value, state.start, trained.x, relayed, task.num_nodes)
    info = Info(*traffic_fields(event, bits_per_row(x) + COUNT_BITS, num_rows(x)), trained.loss, trained.finite)
    return RelayState(state.start, x, relayed, trained.optimizer), info


def _init_average(edges: Edges, key: Key[Array, ""], x0: Params) -> RelayAverageState:
    del key
    return RelayAverageState(x0, x0, _nothing(edges, "relay_averaging", x0))


@by_rows
def _step_average(edges: Edges, key, state: RelayAverageState, event: Event) -> tuple[RelayAverageState, Info]:
    del key
    relayed = _relay(edges, state.relayed, state.start, event, "relay_averaging")
    x = _average("mean", state.start, state.start, relayed, len(edges.neighbors))
    info = Info(*traffic_fields(event, bits_per_row(x) + COUNT_BITS, num_rows(x)))
    return RelayAverageState(state.start, x, relayed), info


def _model(state: RelayState | RelayAverageState) -> Params:
    return state.x


def _edges_of_tree(tree: Topology) -> Edges:
    require_undirected(tree, "tree")
    if tree.num_edges != tree.num_nodes - 1 or tree.num_components() > 1:
        raise ValueError(
            f"tree={tree.name}: has {tree.num_edges} edges in {tree.num_components()} components; a tree of "
            f"{tree.num_nodes} nodes has {tree.num_nodes - 1} in one; on a cycle, sums would count nodes twice: use "
            "topology.balanced_tree, random_tree or path"
        )
    return edges_of(tree)


@recorded("vogels2021relaysum")
def relay_averaging(tree: Topology) -> Protocol:
    """Build averaging by RelaySum: the exact average of constant values after as many rounds as the tree's diameter.

    With v_i the start of node i, m = 0 and c = 0 at the start::

        m_ij ← v_i + Σ_{k≠j} m_ki,     c_ij ← 1 + Σ_{k≠j} c_ki          to each neighbour j, with the m, c of last round
        x_i ← (v_i + Σ_j m_ji) / (1 + Σ_j c_ji)

    After t rounds, x_i is the average over all nodes at distance t or less. A message holds one vector and a count. The
    mean is not conserved on the way. A lost message is missing in the sums that would have relayed it; x_i is then the
    average over fewer nodes.

    >>> import jax, jax.numpy as jnp, gossipjax as gj
    >>> tree = gj.topology.path(4)
    >>> plan = gj.timeline.rounds(gj.mixing.metropolis(tree), 3)
    >>> gj.simulate(jax.random.key(0), gj.relay_averaging(tree), plan, jnp.arange(4.0)).x.tolist()
    [1.5, 1.5, 1.5, 1.5]

    Args:
        tree: the graph of the rounds: undirected, connected, and without cycles. Weights of the matrix are not used,
            except that a message of weight 0 does not arrive. A matrix with other edges is an error.

    Raises:
        TypeError: if tree is not a topology.
        ValueError: if it is no tree; during a run, if its number of nodes differs, or the timeline is not synchronous
            rounds on one graph.

    Reference: Vogels, He, Koloskova, Lin, Karimireddy, Stich, Jaggi 2021, arXiv 2110.04175, and the authors' program.
    """
    edges = _edges_of_tree(tree)
    return Protocol(
        Partial(_init_average, edges),
        Partial(_step_average, edges),
        Partial(_model),
        _REQUIRES | Requires(local_steps=0),
    )


@recorded("vogels2021relaysum")
def relay_sgd(
    task: Task,
    optimizer: optax.GradientTransformation | Partial,
    tree: Topology,
    *,
    normalize: Normalize = "sum",
    local_steps: int = 1,
) -> Protocol:
    """Build RelaySGD (RelaySum/Model, RelayMean): SGD whose models are averaged by relayed sums on a tree.

    With u_i the sum of the optimizer's updates (``−γ g_i`` for one step of SGD), m = 0 and c = 0 at the start::

        z_i = x_i + u_i
        m_ij ← z_i + Σ_{k≠j} m_ki,     c_ij ← 1 + Σ_{k≠j} c_ki          to each neighbour j, with the m, c of last round
        c_i = 1 + Σ_j c_ji
        sum:    x_i ← (z_i + Σ_j m_ji + (n − c_i) x_i^0) / n
        mean:   x_i ← (z_i + Σ_j m_ji) / c_i

    So in ``x_i`` the model of every node counts once, delayed by its distance in rounds, less one. A message holds one
    vector and a count. Without gradients all nodes agree in the limit, on an average with other weights than 1/n. Where
    it stops, all nodes have one model and the gradients sum to zero: it is exact with exact gradients. Lost messages
    are missing in sums and counts; ``"mean"`` stays an average.

    Args:
        task: one shard per node.
        optimizer: any optax transformation, one state per node; or ``Partial(optax.sgd, 0.1)``. A schedule counts the
            node's own local steps.
        tree: as for :func:`relay_averaging`. The start x_i^0 should be the same at all nodes.
        normalize: ``"sum"`` divides by n and fills in the start model; ``"mean"`` divides by what arrived.
        local_steps: H ≥ 1.

    Raises:
        TypeError: if task, optimizer or tree has the wrong type.
        ValueError: if normalize is unknown, local_steps < 1 or the graph is no tree; during a run, as
            :func:`relay_averaging`.

    Reference: Vogels, He, Koloskova, Lin, Karimireddy, Stich, Jaggi 2021, arXiv 2110.04175, algorithm 1, and the
        authors' program, which has both ways to normalize.
    """
    choice("normalize", normalize, get_args(Normalize))
    task, factory, edges = as_task(task), as_factory(optimizer), _edges_of_tree(tree)
    return Protocol(
        init=Partial(_init, edges, factory),
        step=Partial(_step, task, factory, edges, check_steps(local_steps), Frozen(normalize)),
        model=Partial(_model),
        requires=_REQUIRES | Requires(num_nodes=task.num_nodes, local_steps=local_steps),
    )
