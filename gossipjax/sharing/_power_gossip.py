"""PowerGossip: neighbours gossip on low-rank approximations of the differences of their weight matrices."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int, Key, UInt

from gossipjax._base.arguments import seed as check_seed
from gossipjax._base.arguments import whole
from gossipjax._base.binding import Frozen
from gossipjax._base.calls import recorded
from gossipjax._base.placement import by_rows
from gossipjax._base.rows import num_rows
from gossipjax.compress._compressor import common_type
from gossipjax.facts import FIXED_GRAPH
from gossipjax.mixing._apply import mix
from gossipjax.sharing._edges import Edges, check_rows_of, edge_weights, edges_of, over_reverse, own_edges
from gossipjax.topology._graph import Topology, require_undirected
from gossipjax.types import Event, Params, Sharing

_LEFT, _RIGHT = 0, 1
"""Factors, in the order of the axes m and q of a matrix."""


class PowerGossipState(NamedTuple):
    """Memory of both ends of each edge about the difference of each of their matrices ``(m, q)``."""

    left: tuple[Float[Array, "n s _ _"], ...]
    """p ``(n, s, m, r)`` for each leaf that holds matrices, with s edges per node."""
    right: tuple[Float[Array, "n s _ _"], ...]
    """q ``(n, s, q, r)``."""


_Factors: TypeAlias = tuple[Array, Array]
"""Left ``(n, s, m, r)`` and right ``(n, s, q, r)`` of one leaf."""


def _matrices(x: Params) -> list[Array]:
    """Read leaves with two or more axes per node as matrices ``(n, m, q)``; q is the last axis."""
    leaves = jax.tree.leaves(x)
    return [leaf.reshape(leaf.shape[0], -1, leaf.shape[-1]) for leaf in leaves if leaf.ndim > 2]


def _rank(matrix: Array, rank: int) -> int:
    return min(rank, *matrix.shape[1:])


def _init(edges: Edges, rank: Frozen[int], seed: Frozen[int], x0: Params) -> PowerGossipState:
    """Draw the same start at both ends of an edge, from the seed and the numbers of both ends."""
    n = edges.neighbors.shape[0]
    check_rows_of(n, num_rows(x0), "power_gossip")
    matrices = _matrices(x0)
    if not matrices:
        return PowerGossipState((), ())
    own = jnp.arange(n, dtype=jnp.int32)[:, None]
    low, high = jnp.minimum(own, edges.neighbors), jnp.maximum(own, edges.neighbors)
    sizes = [size * _rank(matrix, rank.value) for matrix in matrices for size in matrix.shape[1:]]
    base, kind = jax.random.key(seed.value), common_type(x0)

    def draw(low: Int[Array, ""], high: Int[Array, ""]) -> Array:
        key = jax.random.fold_in(jax.random.fold_in(base, low), high)
        return jax.random.normal(key, (sum(sizes),), kind)

    parts = jnp.split(jax.vmap(jax.vmap(draw))(low, high), np.cumsum(sizes)[:-1], axis=-1)
    like = [matrix for matrix in matrices for _ in range(2)]
    factors = [
        part.reshape(*part.shape[:2], -1, _rank(matrix, rank.value)).astype(matrix.dtype)
        for part, matrix in zip(parts, like, strict=True)
    ]
    return PowerGossipState(tuple(factors[::2]), tuple(factors[1::2]))


def _unit(column: Float[Array, "n s m"]) -> Float[Array, "n s m"]:
    """Scale vectors to length 1; zero vectors stay 0."""
    scale = jnp.max(jnp.abs(column), axis=-1, keepdims=True)
    scaled = column / jnp.where(scale == 0, 1, scale)  # squares of small numbers would vanish
    square = jnp.sum(jnp.square(scaled), axis=-1, keepdims=True)
    return scaled / jnp.sqrt(jnp.where(square == 0, 1, square))


def _orthonormal(factor: Float[Array, "n s m r"]) -> Float[Array, "n s m r"]:
    """Make the columns orthonormal with the Gram–Schmidt process.

    There are three passes. A dependent column leaves rounding errors, which the first pass scales up, so the second
    still finds large components along the others; after the third it is an independent direction.
    """
    if factor.shape[-1] == 1:
        return _unit(factor[..., 0])[..., None]

    def add(basis: Array, one: tuple[Array, Array]) -> tuple[Array, None]:
        k, column = one
        column = _unit(column)
        for _ in range(3):
            column = _unit(column - _product("nsmr,nsr->nsm", basis, _product("nsmr,nsm->nsr", basis, column)))
        return basis.at[..., k].set(column), None

    columns = jnp.arange(factor.shape[-1]), jnp.moveaxis(factor, -1, 0)
    return jax.lax.scan(add, jnp.zeros_like(factor), columns)[0]


def _product(subscripts: str, *operands: Array) -> Array:
    # The default precision of accelerators (TF32) would spoil differences of models that nearly agree.
    return jnp.einsum(subscripts, *operands, precision=jax.lax.Precision.HIGHEST)


def _power_step(
    side: int, event: Event, edges: Edges, matrix: Float[Array, "n m q"], memory: _Factors
) -> tuple[_Factors, _Factors]:
    """Multiply with the difference D of the ends, lower minus higher: ``p = D q`` or ``q = Dᵀ p``.

    Returns:
        The factors of ``D ≈ p qᵀ``, and the new memory.
    """
    known = 1 - side
    directions = _orthonormal(memory[known])
    subscripts = "nmq,nsqr->nsmr" if known == _RIGHT else "nmq,nsmr->nsqr"
    message = _product(subscripts, matrix, directions)
    arrived = over_reverse(event, edges, message)
    product = edges.signs[..., None, None].astype(matrix.dtype) * (message - arrived)
    # A column that meets no difference keeps its last direction: zeros would never find one again.
    silent = jnp.all(product == 0, axis=-2, keepdims=True)
    kept = jnp.where(silent, memory[side], product)
    if side == _LEFT:
        return (product, directions), (kept, memory[_RIGHT])
    return (directions, product), (memory[_LEFT], kept)


def _iterate(
    event: Event, iterations: int, edges: Edges, matrices: list[Array], memories: list[_Factors]
) -> tuple[list[_Factors], list[_Factors]]:
    """Take the steps of one round on fixed models; return estimates and memories."""

    first = _first_side(event, iterations)

    def computing(side: int, memories: list[_Factors]) -> tuple[list[_Factors], list[_Factors]]:
        steps = [_power_step(side, event, edges, *both) for both in zip(matrices, memories, strict=True)]
        return [step[0] for step in steps], [step[1] for step in steps]

    def step(k: Array, carry: tuple[list[_Factors], list[_Factors]]) -> tuple[list[_Factors], list[_Factors]]:
        # All devices of a mesh take the same branch: the number of the round decides.
        return jax.lax.cond((first + k) % 2 == _LEFT, partial(computing, _LEFT), partial(computing, _RIGHT), carry[1])

    return jax.lax.fori_loop(0, iterations, step, (memories, memories))


def _first_side(event: Event, iterations: int) -> Int[Array, ""]:
    """Return which factor comes first in this round, after the steps of all earlier rounds."""
    return (event.index[0] % 2).astype(jnp.int32) * (iterations % 2)


def _round_bits(first: int, iterations: int, rank: int, x: Params) -> int:
    """Return the bits sent to one neighbour in one round."""
    whole = sum(leaf.size // leaf.shape[0] * leaf.dtype.itemsize for leaf in jax.tree.leaves(x) if leaf.ndim <= 2)
    low_rank = sum(
        matrix.shape[1 + side] * _rank(matrix, rank) * matrix.dtype.itemsize
        for matrix in _matrices(x)
        for side in [(first + k) % 2 for k in range(iterations)]
    )
    return 8 * (whole + low_rank)


@by_rows
def _encode(
    rank: Frozen[int],
    iterations: Frozen[int],
    key: Key[Array, ""],
    state: PowerGossipState,
    x_start: Params,
    x: Params,
    event: Event,
) -> tuple[PowerGossipState, tuple[tuple[()], int | UInt[Array, ""]]]:
    """Return the bits only; the products are computed and exchanged when models are merged."""
    del key, x_start
    left, right = (_round_bits(first, iterations.value, rank.value, x) for first in (_LEFT, _RIGHT))
    if left == right:
        return state, ((), left)
    begins_left = _first_side(event, iterations.value) == _LEFT
    return state, ((), jnp.where(begins_left, left, right).astype(jnp.uint32))


@by_rows
def _merge(
    edges: Edges,
    iterations: Frozen[int],
    key: Key[Array, ""],
    state: PowerGossipState,
    arrived: tuple[Params, tuple[()], Event],
) -> tuple[PowerGossipState, Params]:
    del key
    x, _, event = arrived
    matrices, memories = _matrices(x), list(zip(state.left, state.right, strict=True))
    edges = own_edges(edges, event.local)
    estimates, memories = _iterate(event, iterations.value, edges, matrices, memories)
    shares = edge_weights(event.mixing, edges, "power_gossip", event.local)
    shares = shares * edges.signs.astype(shares.dtype)
    found = iter(estimates)

    def move(leaf: Array) -> Array:
        if leaf.ndim <= 2:
            return mix(event.mixing, leaf)
        left, right = next(found)
        weighted = shares.astype(leaf.dtype)[..., None, None] * left
        return leaf - _product("nsmr,nsqr->nmq", weighted, right).reshape(leaf.shape)

    merged = [move(leaf) for leaf in jax.tree.leaves(x)]
    kept = PowerGossipState(tuple(left for left, _ in memories), tuple(right for _, right in memories))
    return kept, jax.tree.unflatten(jax.tree.structure(x), merged)


@recorded("vogels2020powergossip")
def power_gossip(topology: Topology, *, rank: int = 1, iterations: int = 1, seed: int = 0) -> Sharing:
    """Build PowerGossip: each edge estimates the leading directions of the difference of its ends, and gossips on them.

    For an edge i < j, a matrix X and D = X_i − X_j, power iteration alternates between the left and right directions p
    ``(m, r)`` and q ``(q, r)``, starting from those of the last round::

        q ← orthonormal(q);   i and j exchange X_i q and X_j q;      p = X_i q − X_j q
        p ← orthonormal(p);   i and j exchange X_iᵀ p and X_jᵀ p;    q = X_iᵀ p − X_jᵀ p

    Each step is one of these lines, in turn; D̂ = p qᵀ after the last step of the round. Then, over all edges::

        X_i ← X_i − Σ_j W_ij D̂_ij,      D̂_ji = −D̂_ij

    D̂ is the projection of D on r directions, so ``‖D − D̂‖ ≤ ‖D‖``. For ``r ≥ min(m, q)``, two steps give D itself,
    and the round is ``X ← W X``. Up to rounding, the mean is conserved and equal models are a fixed point. There is no
    consensus step size.

    All steps of a round use the models at its start; the authors' program moves the models after every step, which is
    the same for one step per round. A leaf with two axes per node is a matrix; with more axes, the last is q and the
    others together are m, so q are the output channels of a convolution. Vectors and scalars are sent and mixed in
    full. A message is everything that is sent to one neighbour in a round.

    Args:
        topology: the undirected graph of the mixing matrix. A matrix with other edges is an error.
        rank: r ≥ 1 directions per matrix, at most min(m, q).
        iterations: steps per round, ≥ 1. With an odd number, rounds alternate between starting with p and with q, and
            so do their bits.
        seed: seed of the first directions, which also depend on the numbers of the ends of an edge.

    Raises:
        ValueError: if rank or iterations < 1, or the topology is directed; during a run, if the number of nodes
            differs, or the timeline is not synchronous rounds on one symmetric doubly stochastic matrix.

    Reference: Vogels, Karimireddy, Jaggi 2020, arXiv 2008.01425.
    """
    edges = edges_of(require_undirected(topology))
    rank, iterations = whole("rank", rank, least=1), whole("iterations", iterations, least=1)
    return Sharing(
        Partial(_init, edges, Frozen(rank), Frozen(check_seed(seed))),
        Partial(_encode, Frozen(rank), Frozen(iterations)),
        Partial(_merge, edges, Frozen(iterations)),
        FIXED_GRAPH,
    )
