"""Synchronous rounds: every node acts, then the whole network mixes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
from jaxtyping import Array, Key, PyTree

from gossipjax.mixing import GroupMixing, TableMixing, describe, from_matrix, stack_mixings, take_mixing
from gossipjax.types import Event, Properties, Timeline
from gossipjax.weights import (
    Matrix,
    check_weights,
    is_column_stochastic,
    is_doubly_stochastic,
    is_row_stochastic,
    is_symmetric,
)


def _numbers(count: int, what: str) -> dict[str, np.ndarray]:
    if count < 1:
        raise ValueError(f"{what}={count}: a timeline needs at least one event; pass a positive number")
    return {"index": np.arange(count, dtype=np.uint32)}


def _seconds(seconds_per_round: float) -> np.float32:
    if not (np.isfinite(seconds_per_round) and seconds_per_round > 0):
        raise ValueError(f"seconds_per_round={seconds_per_round}: a duration must be positive and finite")
    return np.float32(seconds_per_round)


def _round_time(static: PyTree, x: PyTree) -> Array:
    """Round t ends at (t + 1) · seconds_per_round."""
    return (x["index"].astype(jnp.float32) + 1.0) * static["seconds_per_round"]


def _fixed_round(key: Key[Array, ""], static: PyTree, x: PyTree) -> Event:
    del key
    return Event(index=x["index"][None], time=_round_time(static, x)[None], mixing=static["mixing"])


def _cyclic_round(key: Key[Array, ""], static: PyTree, x: PyTree) -> Event:
    del key
    mixing = take_mixing(static["mixing"], x["index"] % static["period"])
    return Event(index=x["index"][None], time=_round_time(static, x)[None], mixing=mixing)


def rounds(
    weights: Matrix | Sequence[Matrix],
    num_rounds: int,
    *,
    stochastic: Literal["row", "column"] = "row",
    seconds_per_round: float = 1.0,
    form: str = "auto",
) -> Timeline:
    """Plan synchronous rounds ``x_i ← Σ_j W_ij x_j``, on a fixed matrix or on a cycle of matrices.

    Round t uses ``weights``, or ``weights[t mod len(weights)]`` where a sequence is given: T rounds cost T numbers.

    >>> from gossipjax import timeline, topology, weights
    >>> plan = timeline.rounds(weights.metropolis(topology.ring(8)), 100)
    >>> len(plan), plan.properties.doubly_stochastic
    (100, True)

    Args:
        weights: mixing matrix ``(n, n)`` (:mod:`gossipjax.weights`), or a sequence of them.
        num_rounds: T ≥ 1.
        stochastic: whether rows or columns must sum to one: columns for push-sum, which divides by weights that are
            mixed alike.
        seconds_per_round: simulated seconds; round t ends at (t + 1) times this.
        form: "dense", "table" (padded neighbour lists) or "auto", which picks by a measured threshold.

    Raises:
        ValueError: rows (columns) that do not sum to one, matrices of different sizes, num_rounds < 1.
    """
    xs = _numbers(num_rounds, "num_rounds")
    matrices: list[Matrix] = list(weights) if isinstance(weights, (list, tuple)) else [weights]
    if not matrices:
        raise ValueError("weights is an empty sequence; pass at least one mixing matrix")
    sizes = sorted({matrix.shape[0] for matrix in matrices})
    if len(sizes) > 1:
        raise ValueError(f"matrices of different sizes {sizes}; all rounds must have the same number of nodes")
    if stochastic not in ("row", "column"):
        raise ValueError(f"stochastic={stochastic!r}: say whether 'row' or 'column' sums must be one")
    for matrix in matrices:
        check_weights(matrix, stochastic, allow_negative=True)
    mixings = [from_matrix(matrix, form=form) for matrix in matrices]
    if len({type(mixing) for mixing in mixings}) > 1:  # a cycle is one array: sparse and dense rounds share a form
        mixings = [from_matrix(matrix, form="dense") for matrix in matrices]
    symmetric = all(is_symmetric(matrix) for matrix in matrices)
    fixed = len(matrices) == 1
    properties = Properties(
        num_nodes=sizes[0],
        num_rows=sizes[0],
        name=f"rounds(n={sizes[0]}, {'fixed W' if fixed else f'cycle of {len(matrices)} W'})",
        fixed=fixed,
        synchronous=True,
        own_rows=True,
        symmetric=symmetric,
        doubly_stochastic=all(is_doubly_stochastic(matrix) for matrix in matrices),
        row_stochastic=stochastic == "row" or all(is_row_stochastic(matrix) for matrix in matrices),
        column_stochastic=all(is_column_stochastic(matrix) for matrix in matrices),
        min_eigenvalue=_min_eigenvalue(matrices[0]) if fixed and symmetric else None,
        messages=describe(mixings[0]),
    )
    static: dict[str, Any] = {"seconds_per_round": _seconds(seconds_per_round)}
    if fixed:
        return Timeline(xs, jax.tree.map(jnp.asarray, static | {"mixing": mixings[0]}), _fixed_round, properties)
    static |= {"mixing": stack_mixings(mixings), "period": np.uint32(len(mixings))}
    return Timeline(xs, jax.tree.map(jnp.asarray, static), _cyclic_round, properties)


def _min_eigenvalue(matrix: Matrix) -> float:
    """Smallest eigenvalue of a symmetric matrix: dense up to 500 nodes, Lanczos beyond."""
    n = matrix.shape[0]
    if n <= 500:
        dense = sp.csr_array(matrix).toarray()
        return float(np.linalg.eigvalsh(dense)[0])
    start = np.random.default_rng(0).standard_normal(n)
    return float(sp.linalg.eigsh(sp.csr_array(matrix), k=1, which="SA", v0=start, tol=1e-6)[0][0])


def _matching_round(key: Key[Array, ""], static: PyTree, x: PyTree) -> Event:
    del key
    partner = x["partner"]
    table = TableMixing(
        neighbors=partner[:, None],
        weights=jnp.where(partner == static["self"], 0.0, 0.5).astype(jnp.float32)[:, None],
        self_weight=jnp.where(partner == static["self"], 1.0, 0.5).astype(jnp.float32),
    )
    return Event(index=x["index"][None], time=_round_time(static, x)[None], mixing=table)


def matching_rounds(num_nodes: int, num_rounds: int, *, seed: int, seconds_per_round: float = 1.0) -> Timeline:
    """Plan rounds in which a fresh uniform perfect matching averages pairs: ``x_i ← (x_i + x_partner(i)) / 2``.

    With an odd number of nodes a random one stays alone each round.

    Args:
        num_nodes: n ≥ 1.
        num_rounds: T ≥ 1; the plan holds T · n int32.
        seed: of the NumPy generator that draws the matchings.
        seconds_per_round: simulated seconds.
    """
    if num_nodes < 1:
        raise ValueError(f"num_nodes={num_nodes}: a network needs at least one node")
    xs = _numbers(num_rounds, "num_rounds")
    rng = np.random.default_rng(seed)
    order = np.argsort(rng.random((num_rounds, num_nodes)), axis=1).astype(np.int32)
    even = num_nodes - num_nodes % 2
    partner = np.broadcast_to(np.arange(num_nodes, dtype=np.int32), order.shape).copy()
    np.put_along_axis(partner, order[:, 0:even:2], order[:, 1:even:2], axis=1)
    np.put_along_axis(partner, order[:, 1:even:2], order[:, 0:even:2], axis=1)
    properties = Properties(
        num_nodes=num_nodes,
        num_rows=num_nodes,
        name=f"matching_rounds(n={num_nodes}, seed={seed}, seconds_per_round={seconds_per_round:g})",
        synchronous=True,
        own_rows=True,
        symmetric=True,
        doubly_stochastic=True,
        row_stochastic=True,
        column_stochastic=True,
        messages="table: one partner a round",
    )
    static = {"seconds_per_round": _seconds(seconds_per_round), "self": np.arange(num_nodes, dtype=np.int32)}
    return Timeline(xs | {"partner": partner}, jax.tree.map(jnp.asarray, static), _matching_round, properties)


def _sampled_round(key: Key[Array, ""], static: PyTree, x: PyTree) -> Event:
    del key
    slots = static["slots"]
    mixing = GroupMixing(members=slots[None], weights=x["weights"][None], targets=slots[None])
    nodes = x["nodes"]
    index = jnp.broadcast_to(x["index"], nodes.shape)
    time = jnp.broadcast_to(_round_time(static, x), nodes.shape)
    return Event(index=index, time=time, nodes=nodes, rows=slots, mixing=mixing)


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

    ``x ← Σ_{i sampled} (n_i / Σ n_j) x_i``. Only m model rows exist, whatever n is; between rounds they are equal.

    Args:
        num_nodes: n clients.
        num_sampled: m ≤ n clients a round.
        num_rounds: T ≥ 1.
        seed: of the NumPy generator that draws the clients.
        shard_sizes: samples n_i of each client, shape (n,), as weights. None: equal weights.
        seconds_per_round: simulated seconds.

    Reference: McMahan et al. 2017, algorithm 1.
    """
    if not 1 <= num_sampled <= num_nodes:
        raise ValueError(f"num_sampled={num_sampled}: must lie between 1 and num_nodes={num_nodes}")
    sizes = np.ones(num_nodes) if shard_sizes is None else np.asarray(shard_sizes, dtype=float)
    if sizes.shape != (num_nodes,) or not (sizes > 0).all():
        raise ValueError(f"shard_sizes of shape {sizes.shape}: pass {num_nodes} positive numbers, one per client")
    xs = _numbers(num_rounds, "num_rounds")
    rng = np.random.default_rng(seed)
    nodes = np.stack([rng.choice(num_nodes, num_sampled, replace=False) for _ in range(num_rounds)]).astype(np.int32)
    weights = sizes[nodes] / sizes[nodes].sum(1, keepdims=True)
    properties = Properties(
        num_nodes=num_nodes,
        num_rows=num_sampled,
        name=f"client_sampling({num_sampled} of {num_nodes}, seed={seed}, seconds_per_round={seconds_per_round:g})",
        averages=True,
        row_stochastic=True,
        messages=f"group: {num_sampled} clients and a server",
    )
    static = {
        "slots": np.arange(num_sampled, dtype=np.int32),
        "seconds_per_round": _seconds(seconds_per_round),
    }
    return Timeline(
        xs | {"nodes": nodes, "weights": weights}, jax.tree.map(jnp.asarray, static), _sampled_round, properties
    )
