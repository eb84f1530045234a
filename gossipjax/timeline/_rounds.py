"""Synchronous rounds: every node acts, then the whole network mixes."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
from jaxtyping import Array, Float64, Int, Key, PyTree

from gossipjax._base.arguments import choice, instance, reals, whole
from gossipjax._base.arguments import seed as checked_seed
from gossipjax._base.calls import recorded
from gossipjax.facts import Properties, true_facts
from gossipjax.mixing._apply import DenseMixing, GroupMixing, TableMixing, to_dense
from gossipjax.mixing._build import describe, from_matrix, stack_mixings, take_mixing
from gossipjax.mixing._stochastic import (
    Matrix,
    is_column_stochastic,
    is_doubly_stochastic,
    is_row_stochastic,
    is_symmetric,
)
from gossipjax.mixing._weights import is_averaging
from gossipjax.timeline._checks import checked_weights, matrix_of, seconds_of
from gossipjax.timeline._memory import MOST_EVENTS, MOST_NODES, require_room
from gossipjax.types import Event, Timeline


def _numbers(num_rounds: Any, numbers_each: int = 1) -> dict[str, np.ndarray]:
    """Number the rounds, after a check that memory holds ``numbers_each`` numbers for each."""
    num_rounds = whole("num_rounds", num_rounds, least=1, most=MOST_EVENTS)
    require_room(
        num_rounds, 8.0 * numbers_each, "rounds", "num_rounds, num_nodes" if numbers_each > 1 else "num_rounds"
    )
    return {"index": np.arange(num_rounds, dtype=np.uint32)}


def _length(seconds_per_round: Any) -> np.ndarray:
    """Store the length of a round in float64 on the host, where times are exact."""
    return np.asarray(seconds_of(seconds_per_round), np.float64)


def round_ends(shared: PyTree, xs: PyTree) -> Float64[np.ndarray, " T"]:
    """Return the ends of the rounds in float64: (t + 1) · seconds_per_round for round t."""
    return (np.asarray(xs["index"], np.float64) + 1.0) * np.float64(shared["seconds_per_round"])


def _round_time(shared: PyTree, x: PyTree) -> Array:
    """The loop's copy of :func:`round_ends`."""
    return (x["index"].astype(jnp.float32) + 1.0) * shared["seconds_per_round"].astype(jnp.float32)


def _fixed_round(key: Key[Array, ""], shared: PyTree, x: PyTree) -> Event:
    del key
    exact = shared.get("allreduce")
    return Event(index=x["index"][None], time=_round_time(shared, x)[None], mixing=shared["mixing"], allreduce=exact)


def _cyclic_round(key: Key[Array, ""], shared: PyTree, x: PyTree) -> Event:
    del key
    mixing = take_mixing(shared["mixing"], x["index"] % shared["period"])
    exact = shared.get("allreduce")
    return Event(index=x["index"][None], time=_round_time(shared, x)[None], mixing=mixing, allreduce=exact)


def _bare_round(key: Key[Array, ""], shared: PyTree, x: PyTree) -> Event:
    del key
    return Event(index=x["index"][None], time=_round_time(shared, x)[None], allreduce=shared.get("allreduce"))


def planned_mixings(timeline: Timeline) -> DenseMixing | TableMixing | None:
    """Return the matrices of :func:`rounds`, stacked; None if a timeline is of another builder."""
    if timeline.event is _fixed_round:
        return jax.tree.map(lambda leaf: leaf[None], timeline.shared["mixing"])
    return timeline.shared["mixing"] if timeline.event is _cyclic_round else None


def without_mixings(timeline: Timeline) -> Timeline:
    """Take the matrices out of :func:`rounds`, for a loop that holds them in another form."""
    shared = {name: value for name, value in timeline.shared.items() if name not in ("mixing", "period")}
    return dataclasses.replace(timeline, shared=shared, event=_bare_round)


@recorded()
def rounds(
    weights: Matrix | Sequence[Matrix],
    num_rounds: int,
    *,
    stochastic: Literal["row", "column"] = "row",
    seconds_per_round: float = 1.0,
    form: str = "auto",
) -> Timeline:
    """Plan synchronous rounds ``x_i ← Σ_j W_ij x_j``, on a fixed matrix or on a cycle of matrices.

    Round t uses ``weights``, or ``weights[t mod len(weights)]`` of a sequence; T rounds take T numbers of memory. Every
    node sends its model to all neighbours, except on :func:`~gossipjax.mixing.averaging`, which counts as a ring
    all-reduce.

    >>> from gossipjax import timeline, topology, mixing
    >>> plan = timeline.rounds(mixing.metropolis(topology.ring(8)), 100)
    >>> len(plan), "doubly_stochastic" in plan.properties
    (100, True)

    Args:
        weights: mixing matrix ``(n, n)`` (:mod:`gossipjax.mixing`), or a sequence of them.
        num_rounds: T ≥ 1.
        stochastic: whether rows or columns must sum to one; columns for push-sum, which divides by weights that are
            mixed with the same matrix.
        seconds_per_round: simulated seconds; round t ends at (t + 1) times this.
        form: "dense", "table" (padded neighbour lists) or "auto", which picks by a measured threshold.

    Raises:
        ValueError: if rows (columns) do not sum to one, matrices differ in size, or num_rounds < 1.
    """
    xs = _numbers(num_rounds)
    matrices = [matrix_of("weights", each) for each in (weights if isinstance(weights, list | tuple) else [weights])]
    if not matrices:
        raise ValueError("weights is an empty sequence; pass at least one mixing matrix")
    choice("stochastic", stochastic, ("row", "column"))
    choice("form", form, ("auto", "dense", "table"))
    completed = [checked_weights("weights", matrix, stochastic) for matrix in matrices]
    sizes = sorted({matrix.shape[0] for matrix in matrices})
    if len(sizes) > 1:
        raise ValueError(f"matrices of different sizes {sizes}; all rounds must have the same number of nodes")
    mixings = [from_matrix(matrix, form=form) for matrix in completed]
    if len({type(mixing) for mixing in mixings}) > 1:  # a cycle is one array: sparse and dense rounds share a form
        mixings = [from_matrix(matrix, form="dense") for matrix in completed]
    symmetric = all(is_symmetric(matrix) for matrix in completed)
    fixed = len(matrices) == 1
    said = {
        "fixed": fixed,
        "symmetric": symmetric,
        "doubly_stochastic": all(is_doubly_stochastic(matrix) for matrix in completed),
        "row_stochastic": stochastic == "row" or all(is_row_stochastic(matrix) for matrix in completed),
        "column_stochastic": all(is_column_stochastic(matrix) for matrix in completed),
    }
    properties = Properties(
        num_nodes=sizes[0],
        num_rows=sizes[0],
        name=f"rounds(n={sizes[0]}, {'fixed W' if fixed else f'cycle of {len(matrices)} W'})",
        tags={"synchronous", "own_rows"} | true_facts(said),
        min_eigenvalue=_min_eigenvalue(completed[0]) if fixed and symmetric else None,
        messages=describe(mixings[0]),
    )
    shared: dict[str, Any] = {"seconds_per_round": _length(seconds_per_round)}
    if all(is_averaging(matrix) for matrix in matrices):
        shared["allreduce"] = ()
    if fixed:
        return Timeline(xs, shared | {"mixing": mixings[0]}, _fixed_round, properties, seconds=round_ends)
    shared |= {"mixing": stack_mixings(mixings), "period": jnp.uint32(len(mixings))}
    return Timeline(xs, shared, _cyclic_round, properties, seconds=round_ends)


@recorded()
def with_mixing(timeline: Timeline, mixing: DenseMixing | TableMixing) -> Timeline:
    """Replace the weights of rounds, for example by learned ones, and recompute the facts.

    Facts are computed from the new numbers. Inside a trace (``jax.grad``, ``jax.jit``) numbers are not known, and the
    only fact about a matrix is that it is fixed, if it is.

    >>> import gossipjax as gj
    >>> plan = gj.timeline.rounds(gj.mixing.metropolis(gj.topology.ring(4)), 10)
    >>> learned = gj.mixing.from_matrix(gj.mixing.uniform(gj.topology.star(4)))
    >>> gj.timeline.with_mixing(plan, learned).properties.tags >= {"doubly_stochastic"}
    False

    Args:
        timeline: of :func:`rounds`, with one matrix or a cycle of R.
        mixing: of the same number of nodes, such as ``DenseMixing(W)``; of a cycle with a leading axis of R matrices,
            as :func:`gossipjax.mixing.stack_mixings` makes.

    Raises:
        ValueError: if the timeline is not one of :func:`rounds`, the number of nodes or of matrices differs, or a
            weight is not finite.
    """
    instance("timeline", timeline, Timeline, "build one with gossipjax.timeline.rounds")
    instance("mixing", mixing, (DenseMixing, TableMixing), "make one with gossipjax.mixing.from_matrix")
    facts = timeline.properties
    if timeline.event not in (_fixed_round, _cyclic_round):
        raise ValueError(f"{facts.name} is no plan of rounds on given matrices, whose weights could be replaced")
    cycle = () if timeline.event is _fixed_round else (len(timeline.shared["mixing"][0]),)
    n = facts.num_nodes
    for name, array in mixing._asdict().items():
        rows = (*cycle, n, n) if isinstance(mixing, DenseMixing) else (*cycle, n)
        if jnp.shape(array)[: len(rows)] != rows:
            whole = f"{n} nodes" + (f" and a cycle of {cycle[0]} matrices" if cycle else "")
            raise ValueError(f"{name} of shape {jnp.shape(array)}: {facts.name} has {whole}")
    traced = any(isinstance(leaf, jax.core.Tracer) for leaf in mixing)
    about = _unknown(facts) if traced else _facts_of(facts, mixing, *cycle)
    shared = {name: value for name, value in timeline.shared.items() if name != "allreduce"} | {"mixing": mixing}
    return dataclasses.replace(timeline, shared=shared, properties=about)


_OF_WEIGHTS = {"symmetric", "doubly_stochastic", "row_stochastic", "column_stochastic"}


def _unknown(facts: Properties) -> Properties:
    """Return no fact about the weights."""
    return dataclasses.replace(facts, tags=facts.tags - _OF_WEIGHTS, min_eigenvalue=None)


def _facts_of(facts: Properties, mixing: DenseMixing | TableMixing, cycle: int | None = None) -> Properties:
    """Compute the facts of the weights; sums are as exact as their dtype."""
    parts = [mixing] if cycle is None else [take_mixing(mixing, k) for k in range(cycle)]
    n, said = facts.num_nodes, dict.fromkeys(sorted(_OF_WEIGHTS), True)
    for part in parts:
        W = np.asarray(to_dense(part, n))
        reals("mixing", W, shape=(n, n), remedy="the weights of all nodes")
        exact = float(jnp.finfo(W.dtype).eps) * 4 * n
        rows, columns = (bool(np.abs(W.sum(axis, dtype=np.float64) - 1).max() <= exact) for axis in (1, 0))
        held = {"symmetric": bool(np.abs(W - W.T).max() <= exact), "doubly_stochastic": rows and columns}
        held |= {"row_stochastic": rows, "column_stochastic": columns}
        said = {name: said[name] and held[name] for name in said}
    least = float(np.linalg.eigvalsh(W.astype(np.float64))[0]) if said["symmetric"] and cycle is None else None
    return dataclasses.replace(facts.with_facts(said), min_eigenvalue=least, messages=describe(parts[0]))


def _min_eigenvalue(matrix: Matrix) -> float:
    """Return the smallest eigenvalue of a symmetric matrix: dense up to 500 nodes, Lanczos beyond.

    Lanczos is slow where eigenvalues crowd at the end of the spectrum, as on long rings and paths. Where it is, and the
    matrix has a narrow band, the eigenvalue is found by shift and invert at the bound of Gershgorin's discs.

    Where the matrix has two different eigenvalues only, as of disjoint pairs, Lanczos ends after two steps, and ARPACK
    may return the larger one. Different numbers of at most 1e-12 on the diagonal prevent this.
    """
    n = matrix.shape[0]
    sparse = sp.csc_array(matrix)
    if n <= 500:
        return float(np.linalg.eigvalsh(sparse.toarray())[0])
    rng = np.random.default_rng(0)
    start = rng.standard_normal(n)
    sparse = sparse + sp.diags_array(1e-12 * rng.random(n), format="csc")
    find = functools.partial(sp.linalg.eigsh, sparse, k=1, v0=start, tol=1e-6, return_eigenvectors=False)
    try:
        return float(find(which="SA", maxiter=max(_LANCZOS_ENTRIES // n, 10))[0])
    except sp.linalg.ArpackNoConvergence:
        if n * _bandwidth(sparse) > _FACTOR_ENTRIES:
            return float(find(which="SA")[0])
        diagonal = sparse.diagonal()
        radius = abs(sparse).sum(axis=1) - abs(diagonal)
        return float(find(which="LM", sigma=float((diagonal - radius).min()) - 1e-8)[0])


def _bandwidth(matrix: sp.csc_array) -> int:
    """Return the bandwidth in the order of reverse Cuthill and McKee: small on rings, paths and narrow grids."""
    place = np.argsort(sp.csgraph.reverse_cuthill_mckee(matrix.tocsr(), symmetric_mode=True))
    entries = matrix.tocoo()
    return int(abs(place[entries.row] - place[entries.col]).max())


_LANCZOS_ENTRIES = 2_000_000
"""Restarts of Lanczos times nodes, about a second."""
_FACTOR_ENTRIES = 10_000_000
"""Nodes times bandwidth: more than the entries of the factors."""


def _matching_round(key: Key[Array, ""], shared: PyTree, x: PyTree) -> Event:
    del key
    return _match(x["partner"], shared["self"], shared, x)


def _match(partner: Int[Array, " n"], own: Int[Array, " n"], shared: PyTree, x: PyTree) -> Event:
    """Return the round in which each node averages with its partner; who is its own partner keeps its model."""
    alone = partner == own
    table = TableMixing(
        neighbors=partner[:, None],
        weights=jnp.where(alone, 0.0, 0.5).astype(jnp.float32)[:, None],
        self_weight=jnp.where(alone, 1.0, 0.5).astype(jnp.float32),
    )
    return Event(index=x["index"][None], time=_round_time(shared, x)[None], mixing=table)


def _matching_facts(num_nodes: int, name: str) -> Properties:
    return Properties(
        num_nodes=num_nodes,
        num_rows=num_nodes,
        name=name,
        tags={"synchronous", "own_rows", "symmetric", "doubly_stochastic", "row_stochastic", "column_stochastic"},
        messages="table: one partner a round",
    )


@recorded()
def matching_rounds(num_nodes: int, num_rounds: int, *, seed: int, seconds_per_round: float = 1.0) -> Timeline:
    """Plan rounds that average the pairs of a new uniform perfect matching: ``x_i ← (x_i + x_partner(i)) / 2``.

    With an odd number of nodes, one random node has no partner in each round.

    Args:
        num_nodes: n ≥ 1.
        num_rounds: T ≥ 1; the plan holds T · n int32.
        seed: of the NumPy generator that draws the matchings.
        seconds_per_round: simulated seconds.
    """
    num_nodes, rng = whole("num_nodes", num_nodes, least=1, most=MOST_NODES), np.random.default_rng(checked_seed(seed))
    xs, length = _numbers(num_rounds, 4 * num_nodes), _length(seconds_per_round)
    order = np.argsort(rng.random((num_rounds, num_nodes)), axis=1).astype(np.int32)
    even = num_nodes - num_nodes % 2
    partner = np.broadcast_to(np.arange(num_nodes, dtype=np.int32), order.shape).copy()
    np.put_along_axis(partner, order[:, 0:even:2], order[:, 1:even:2], axis=1)
    np.put_along_axis(partner, order[:, 1:even:2], order[:, 0:even:2], axis=1)
    properties = _matching_facts(
        num_nodes, f"matching_rounds(n={num_nodes}, seed={seed}, seconds_per_round={seconds_per_round:g})"
    )
    shared = {"seconds_per_round": length, "self": jnp.arange(num_nodes, dtype=jnp.int32)}
    return Timeline(xs | {"partner": partner}, shared, _matching_round, properties, seconds=round_ends)


def _sampled_round(key: Key[Array, ""], shared: PyTree, x: PyTree) -> Event:
    del key
    slots = shared["slots"]
    mixing = GroupMixing(members=slots[None], weights=x["weights"][None], targets=slots[None])
    nodes = x["nodes"]
    index = jnp.broadcast_to(x["index"], nodes.shape)
    time = jnp.broadcast_to(_round_time(shared, x), nodes.shape)
    return Event(index=index, time=time, nodes=nodes, rows=slots, mixing=mixing)


@recorded("mcmahan2017fedavg")
def client_sampling(
    num_nodes: int,
    num_sampled: int,
    num_rounds: int,
    *,
    seed: int,
    shard_sizes: np.ndarray | None = None,
    seconds_per_round: float = 1.0,
) -> Timeline:
    """Plan FedAvg's rounds: m of n clients, drawn uniformly without replacement, train; the server averages them.

    ``x ← Σ_{i sampled} (n_i / Σ n_j) x_i``. There are m model rows, whatever n is; they are equal after every round.

    Args:
        num_nodes: n clients.
        num_sampled: m ≤ n clients a round.
        num_rounds: T ≥ 1.
        seed: of the NumPy generator that draws the clients.
        shard_sizes: samples n_i of each client, shape (n,), as weights. None: equal weights.
        seconds_per_round: simulated seconds.

    Reference: McMahan et al. 2017, algorithm 1.
    """
    num_nodes = whole("num_nodes", num_nodes, least=1, most=MOST_NODES)
    num_sampled = whole("num_sampled", num_sampled, least=1, most=num_nodes, remedy="no more than num_nodes")
    xs, length = _numbers(num_rounds, 4 * num_sampled), _length(seconds_per_round)
    require_room(num_nodes, 100, "clients", "num_nodes")
    sizes = np.ones(num_nodes)
    if shard_sizes is not None:
        sizes = reals("shard_sizes", shard_sizes, shape=(num_nodes,), above=0, remedy=f"{num_nodes}, one per client")
    rng = np.random.default_rng(checked_seed(seed))
    drawn = [rng.choice(num_nodes, num_sampled, replace=False) for _ in range(len(xs["index"]))]
    nodes = np.stack(drawn).astype(np.int32)
    weights = sizes[nodes] / sizes[nodes].sum(1, keepdims=True)
    properties = Properties(
        num_nodes=num_nodes,
        num_rows=num_sampled,
        name=f"client_sampling({num_sampled} of {num_nodes}, seed={seed}, seconds_per_round={seconds_per_round:g})",
        tags={"server", "row_stochastic"},
        messages=f"group: {num_sampled} clients and a server",
    )
    shared = {
        "slots": jnp.arange(num_sampled, dtype=jnp.int32),
        "seconds_per_round": length,
    }
    xs |= {"nodes": nodes, "weights": weights}
    return Timeline(xs, shared, _sampled_round, properties, seconds=round_ends)
