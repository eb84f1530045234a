"""Hypothesis strategies for networks, weights, models, vectors and small learning problems."""

from __future__ import annotations

import contextlib
import dataclasses
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, TypeAlias

import jax.numpy as jnp
import numpy as np
import optax
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int, Key
from scipy import sparse

from gossipjax.tasks import quadratic
from gossipjax.topology import Topology
from gossipjax.types import Task

Draw: TypeAlias = Callable[..., Any]
"""Type of the ``draw`` argument that Hypothesis passes to a composite strategy."""
_SIDES = hnp.array_shapes(min_dims=0, max_dims=2, min_side=1, max_side=3)
_FLOATS = st.floats(-100, 100, width=32)


@st.composite
def connected_graphs(draw: Draw, min_nodes: int = 1, max_nodes: int = 12) -> Topology:
    """Draw an undirected connected topology: a random tree with random extra edges, nodes in random order.

    >>> strategy = connected_graphs(2, 8)

    Args:
        draw: passed by Hypothesis.
        min_nodes: smallest number of nodes.
        max_nodes: largest number of nodes; if it equals ``min_nodes``, arrays that depend on n keep their shape.
    """
    n = draw(st.integers(min_nodes, max_nodes))
    edges = {(draw(st.integers(0, node - 1)), node) for node in range(1, n)}
    if n > 1:
        pair = st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)).filter(lambda ends: ends[0] < ends[1])
        edges |= draw(st.sets(pair, max_size=2 * n))
    ends = draw(permutations(n))[np.array(sorted(edges), np.int64).reshape(-1, 2)]
    senders, receivers = np.concatenate([ends, ends[:, ::-1]]).T
    return Topology(n, senders, receivers, directed=False, name="hypothesis graph")


@st.composite
def connected_digraphs(draw: Draw, min_nodes: int = 1, max_nodes: int = 12) -> Topology:
    """Draw a strongly connected directed topology: a cycle through all nodes in random order, with extra edges.

    >>> strategy = connected_digraphs(2, 8)

    Args:
        draw: passed by Hypothesis.
        min_nodes: smallest number of nodes.
        max_nodes: largest number of nodes.
    """
    n = draw(st.integers(min_nodes, max_nodes))
    order = draw(permutations(n)).tolist()
    edges = {(order[k - 1], order[k]) for k in range(n)} if n > 1 else set()
    if n > 1:
        pair = st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)).filter(lambda ends: ends[0] != ends[1])
        edges |= draw(st.sets(pair, max_size=2 * n))
    senders, receivers = np.array(sorted(edges), np.int64).reshape(-1, 2).T
    return Topology(n, senders, receivers, directed=True, name="hypothesis digraph")


@st.composite
def mixing_matrices(
    draw: Draw,
    kind: Literal["row", "column", "doubly", "symmetric"] = "symmetric",
    min_nodes: int = 1,
    max_nodes: int = 12,
) -> sparse.csr_array:
    """Draw a nonnegative mixing matrix on a random connected graph, with a positive diagonal.

    >>> strategy = mixing_matrices("column", 2, 8)

    Args:
        draw: passed by Hypothesis.
        kind: ``"row"`` or ``"column"``: random weights on a directed graph, normalised. ``"doubly"``: a random convex
            combination of the identity, a cycle through all nodes and other permutations. ``"symmetric"``: symmetric
            and doubly stochastic on an undirected graph, with edge weights of at most 1/(1 + max(d_i, d_j)).
        min_nodes: smallest number of nodes.
        max_nodes: largest number of nodes.

    Returns:
        ``(n, n)`` float64; W[i, j] is the weight that i gives to j.
    """
    if kind == "doubly":
        return draw(_permutation_mixtures(min_nodes, max_nodes))
    topology = draw((connected_graphs if kind == "symmetric" else connected_digraphs)(min_nodes, max_nodes))
    n = topology.num_nodes
    W = np.zeros((n, n))
    size = topology.senders.size
    scales = draw(hnp.arrays(np.float64, size, elements=st.floats(0.05, 1.0)))
    W[topology.receivers, topology.senders] = scales
    if kind == "symmetric":
        degrees = topology.degrees
        W = np.triu(W) / (1 + np.maximum(degrees[:, None], degrees[None, :]))
        W = W + W.T
        return sparse.csr_array(W + np.diag(1 - W.sum(axis=1)))
    W = W + np.eye(n)
    return sparse.csr_array(W / W.sum(axis=1 if kind == "row" else 0, keepdims=True))


@st.composite
def stacked_params(draw: Draw, num_rows: int, dtype: Any = np.float32, *, varied: bool = True) -> dict[str, Any]:
    """Draw a nested pytree of floats in [−100, 100]: a row axis in front, then zero to two axes of parameters.

    >>> strategy = stacked_params(8, varied=False)  # kernel (8, 2, 3), bias (8, 3), scale (8,)

    Args:
        draw: passed by Hypothesis.
        num_rows: length of the row axis.
        dtype: of all leaves.
        varied: draw the shapes too; False: fixed shapes, so that one program serves all examples.
    """

    def leaf(*shape: int) -> np.ndarray:
        return draw(hnp.arrays(dtype, (num_rows, *(draw(_SIDES) if varied else shape)), elements=_FLOATS))

    return {"dense": {"kernel": leaf(2, 3), "bias": leaf(3)}, "scale": [leaf()]}


@st.composite
def starts(draw: Draw, num_rows: int, dimension: int = 3, dtype: Any = None) -> Float[np.ndarray, "rows d"]:
    """Draw stacked vectors ``(num_rows, dimension)`` in [−100, 100]; ties and zeros are likely.

    >>> strategy = starts(8)  # (8, 3)

    Args:
        draw: passed by Hypothesis.
        num_rows: model rows.
        dimension: parameters d of a row.
        dtype: None: JAX's default float.
    """
    kind = np.dtype(dtype or jnp.result_type(float))
    return draw(hnp.arrays(kind, (num_rows, dimension), elements=_FLOATS))


_LEAST = 2.0**16
"""Smallest magnitude of an entry that is not 0, over the smallest normal number."""


def vectors(dimension: int, dtype: Any = np.float32) -> st.SearchStrategy[Float[np.ndarray, " d"]]:
    """Draw vectors that are hard for compressors: ties, zeros, equal entries, one dominant entry, tiny and huge values.

    No entry is so small that a mean of entries is subnormal: compiled code on a CPU takes such numbers for 0.

    >>> strategy = vectors(16)  # (16,)

    Args:
        dimension: d ≥ 1; every new d compiles a new program, so draw few different ones.
        dtype: of the vector.

    Raises:
        ValueError: if dimension < 1.
    """
    if dimension < 1:
        raise ValueError(f"dimension={dimension}: a vector needs at least one entry")
    return _vectors(dimension, dtype)


@st.composite
def _vectors(draw: Draw, dimension: int, dtype: Any) -> Float[np.ndarray, " d"]:
    ties, alike = st.integers(-2, 2).map(float), st.floats(-100, 100, width=32)
    form = draw(st.sampled_from(["ties", "floats", "equal", "spike"]))
    if form == "equal":
        x = np.full(dimension, draw(alike))
    elif form == "spike":
        x = draw(hnp.arrays(np.float64, dimension, elements=ties)) * 1e-3
        x[draw(st.integers(0, dimension - 1))] = draw(alike)
    else:
        x = draw(hnp.arrays(np.float64, dimension, elements=ties if form == "ties" else _FLOATS))
    x = x * draw(st.sampled_from([1.0, 1e-6, 1e6]))
    least = _LEAST * float(jnp.finfo(dtype).tiny)
    return np.where(np.abs(x) < least, 0.0, x).astype(dtype)


def compressor_inputs(
    dimensions: Sequence[int] = (1, 8, 33), dtype: Any = np.float32
) -> st.SearchStrategy[tuple[int, Float[np.ndarray, " d"]]]:
    """Draw a number of entries to send, ``k ∈ {1, ⌈d/4⌉, d}``, and a vector ``(d,)``.

    There are few pairs (k, d), so that few programs are compiled. Bind k with ``Partial(top_k, k)``, which makes it an
    argument of the compiled function, or as a static field of a callable, which compiles a new program for every k.

    >>> strategy = compressor_inputs()  # (k, x)

    Args:
        dimensions: possible values of d.
        dtype: of the vector.
    """

    def of(d: int) -> st.SearchStrategy:
        return st.tuples(st.sampled_from(sorted({1, -(-d // 4), d})), vectors(d, dtype))

    return st.one_of([of(d) for d in dimensions])


def small_tasks(
    num_nodes: int,
    *,
    kind: Literal["quadratic", "softmax"] = "quadratic",
    shared_optimum: bool = False,
) -> st.SearchStrategy[Task]:
    """Draw a learning problem with exact gradients, whose shapes depend only on the number of nodes. Keys are unused.

    * ``"quadratic"``: ``f_i(x) = ½ Σ_c a_ic (x_c − b_ic)²``, models ``(3,)``, a in [0.5, 2], b in [−10, 10]; the
      optimum of the mean is ``task.test["optimum"]``. Gradient steps with a step size below 1/2 are contractions.
    * ``"softmax"``: cross-entropy of ``softmax(f w)`` on all 4 samples of the node, features f ``(2,)``, models w
      ``(2, 3)``; labels are arbitrary.

    >>> strategy = small_tasks(8, shared_optimum=True)

    Args:
        num_nodes: n.
        kind: ``"quadratic"`` or ``"softmax"``.
        shared_optimum: give all nodes the same optimum, a fixed point of all local steps. Quadratic only.

    Raises:
        ValueError: if the kind is unknown, or softmax is asked for a shared optimum, which has no closed form.
    """
    if kind == "softmax" and not shared_optimum:
        features = hnp.arrays(np.float64, (num_nodes, 4, 2), elements=st.integers(-2, 2).map(float))
        return st.builds(_softmax_task, features, hnp.arrays(np.int32, (num_nodes, 4), elements=st.integers(0, 2)))
    if kind != "quadratic":
        raise ValueError(f"kind={kind!r}, shared_optimum={shared_optimum}: choose 'quadratic', or 'softmax' without it")
    targets = hnp.arrays(np.float64, (1 if shared_optimum else num_nodes, 3), elements=st.floats(-10, 10))
    curvature = hnp.arrays(np.float64, (num_nodes, 3), elements=st.floats(0.5, 2.0))
    return st.builds(_exact_quadratic, targets, curvature)


def _exact_quadratic(targets: np.ndarray, curvature: np.ndarray) -> Task:
    with same_random_state():
        task = quadratic(np.broadcast_to(targets, curvature.shape), curvature=curvature)
    return dataclasses.replace(task, batch=Partial(_exact_batch))


def _exact_batch(key: Key[Array, ""], data: dict[str, Array], node: Array) -> dict[str, Array]:
    # The default batch of a quadratic draws noise of scale 0, whose generator takes longest to compile.
    del key
    zero = jnp.zeros_like(data["targets"][0])
    return {"curvature": data["curvature"][node], "target": data["targets"][node], "noise": zero}


def _softmax_task(features: np.ndarray, labels: np.ndarray) -> Task:
    data = {"features": jnp.asarray(features, jnp.result_type(float)), "labels": jnp.asarray(labels, jnp.int32)}
    loss = Partial(_cross_entropy)
    return Task(Partial(_zeros), Partial(_shard), loss, Partial(_test_loss), data, data, num_nodes=len(labels))


def _zeros(key: Key[Array, ""]) -> Float[Array, "2 3"]:
    del key
    return jnp.zeros((2, 3))


def _shard(key: Key[Array, ""], data: dict[str, Array], node: Array) -> dict[str, Array]:
    del key
    return {name: values[node] for name, values in data.items()}


def _cross_entropy(key: Key[Array, ""] | None, w: Float[Array, "2 3"], batch: dict[str, Array]) -> Float[Array, ""]:
    del key
    logits = batch["features"] @ w
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, batch["labels"]))


def _test_loss(w: Float[Array, "2 3"], test: dict[str, Array]) -> dict[str, Array]:
    return {
        "loss": _cross_entropy(None, w, {"features": test["features"].reshape(-1, 2), "labels": test["labels"].ravel()})
    }


@contextlib.contextmanager
def same_random_state() -> Iterator[None]:
    """Restore the state of Python's random generator at exit.

    Checkers of annotations draw from it to sample items of sequences, which Hypothesis would report as a flaky
    strategy.
    """
    state = random.getstate()
    try:
        yield
    finally:
        random.setstate(state)


def permutations(num_nodes: int) -> st.SearchStrategy[Int[np.ndarray, " n"]]:
    """Draw a permutation of the node numbers, as an integer array."""
    return st.permutations(range(num_nodes)).map(lambda order: np.array(order, np.int64))


@st.composite
def _permutation_mixtures(draw: Draw, min_nodes: int, max_nodes: int) -> sparse.csr_array:
    n = draw(st.integers(min_nodes, max_nodes))
    order = draw(permutations(n))
    cycle = np.empty(n, np.int64)
    cycle[order] = np.roll(order, 1)
    images = [np.arange(n), cycle, *draw(st.lists(permutations(n), max_size=3))]
    shares = np.array(draw(st.lists(st.floats(0.05, 1.0), min_size=len(images), max_size=len(images))))
    shares /= shares.sum()
    return sparse.csr_array(sum(s * np.eye(n)[image] for s, image in zip(shares, images, strict=True)))
