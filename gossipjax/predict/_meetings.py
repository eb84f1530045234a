"""What random meetings of pairs do: agreement in mean square, exactly, on any small graph."""

from __future__ import annotations

import math

import jax
import numpy as np
from jaxtyping import Float
from scipy import sparse

from gossipjax._base.arguments import flag, optional_whole, real, whole
from gossipjax._base.arguments import seed as checked_seed
from gossipjax._base.calls import recorded
from gossipjax._engine.simulate import simulate
from gossipjax.observe import consensus_distance
from gossipjax.predict._forecast import Check, Forecast, Prediction, exact, mean_of
from gossipjax.protocol import gossip_averaging
from gossipjax.timeline import drawn_pairs
from gossipjax.timeline._checks import undirected
from gossipjax.topology import Topology

MOST_NODES = 48
"""Second moments are a matrix of n (n + 1) / 2 rows, all of whose eigenvalues are computed."""
RUNS, COORDINATES = 64, 64
"""Simulated plans, and independent coordinates of their models."""


@recorded("boyd2006gossip")
def meetings(
    graph: Topology,
    num_events: int,
    *,
    rate: float = 1.0,
    error: float | None = None,
    model_bytes: int | None = None,
    check: bool = False,
    seed: int = 0,
) -> Forecast:
    """Predict K meetings of pairs: a random node averages with a random neighbour, ``x_i, x_j ← (x_i + x_j)/2``.

    Nodes wake at Poisson times, as in :func:`gossipjax.timeline.poisson_pairs` and ``drawn_pairs``; edge e is drawn
    with probability ``p_e = (1/d_i + 1/d_j)/n``. One meeting is the projection ``M_e = I − b_e b_eᵀ/2``, so the second
    moments ``Z = E x xᵀ`` obey ``Z ← Σ_e p_e M_e Z M_e``, a symmetric linear map, from Z = I:

    * ``consensus_distance``: ``E ‖x − x̄‖²/n = (tr Z_K − 1ᵀ Z_K 1/n)/n`` a coordinate, over plans and start values;
    * ``seconds``: ``K/(n · rate)`` in the mean;
    * with ``error``: ``meetings_to_error``, the least K' with ``E_K' ≤ error · E_0``, and ``meetings_from_any_start``,
      ``⌈ln error / ln λ₂⌉`` with the eigenvalue λ₂ of ``Σ_e p_e M_e`` alone;
    * with ``model_bytes``: ``bytes`` of all meetings.

    >>> import gossipjax as gj
    >>> complete = gj.topology.complete(5)
    >>> round(gj.predict.meetings(complete, 4)["consensus_distance"].value, 6)  # (1 − 1/(n − 1))^4 (n − 1)/n
    0.253125

    Args:
        graph: undirected, connected, of 2 to 48 nodes.
        num_events: K.
        rate: wake-ups per node and second.
        error: share of the disagreement at the start, in (0, 1); None: nothing is said of accuracy.
        model_bytes: of one message.
        check: whether to simulate 64 plans beside the formulas. After many meetings, far more than n, the mean over
            plans is that of a few rare ones, and 64 no longer tell it.
        seed: of the simulated plans and start values.

    Raises:
        ValueError: if a number is out of range, or the graph is directed, disconnected or too large.

    Reference: Boyd, Ghosh, Prabhakar, Shah 2006 (the bound); the map of second moments is derived from the line above.
    """
    graph = undirected(graph, "graph")
    n = whole("number of nodes of graph", graph.num_nodes, least=2, most=MOST_NODES)
    count, rate = whole("num_events", num_events, least=1, most=10**7), real("rate", rate, above=0, unit="events")
    share = None if error is None else real("error", error, above=0, below=1)
    size, check, seed = optional_whole("model_bytes", model_bytes, least=1), flag("check", check), checked_seed(seed)
    values, shares, mean = _moments(graph)
    measured = _simulated(graph, count, rate, seed) if check else None
    law = (
        "a uniform node wakes and averages with a uniform neighbour; means over plans and start values of variance one"
    )
    found = [
        exact(
            "consensus_distance",
            _left(values, shares, count) / n,
            "start variances",
            "⟨I − J, (Σ p_e M_e ⊗ M_e)^K I⟩ / n; theory.moments.transient_moments",
            law,
            measured,
        ),
        exact(
            "seconds", count / (n * rate), "s", "K / (n · rate)", "Poisson clocks; the mean of a Gamma(K) time", None
        ),
    ]
    if share is not None:
        found += _accuracy(values, shares, mean, share, law)
    if size is not None:
        words = f"two messages of {size:,} bytes a meeting"
        found.append(exact("bytes", 2.0 * size * count, "bytes", "2 K · model_bytes", words, None))
    return Forecast(f"{count} meetings on {graph.name}", tuple(found))


def _moments(graph: Topology) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"], float]:
    """Return the eigenvalues of the map of second moments, what each contributes to ``E V``, and λ₂ of the mean map."""
    n = graph.num_nodes
    once = graph.senders < graph.receivers
    i, j = graph.senders[once].astype(np.int64), graph.receivers[once].astype(np.int64)
    p = (1 / graph.degrees[i] + 1 / graph.degrees[j]) / n
    edges = np.arange(i.size)
    ones, kind = np.ones(i.size), sparse.csr_array
    b = kind((np.append(ones, -ones), (np.append(i, j), np.append(edges, edges))), shape=(n, i.size))
    laplacian = (b * p) @ b.T
    ends = np.stack([i * n + i, i * n + j, j * n + i, j * n + j])
    signs = np.repeat([1.0, -1.0, -1.0, 1.0], i.size)
    both = kind((signs, (ends.ravel(), np.tile(edges, 4))), shape=(n * n, i.size))
    identity = sparse.eye_array(n)
    step = sparse.eye_array(n * n) - (sparse.kron(laplacian, identity) + sparse.kron(identity, laplacian)) / 2
    step = step + ((both * p) @ both.T) / 4
    basis = _symmetric(n)
    values, vectors = np.linalg.eigh((basis.T @ step @ basis).toarray())
    start = vectors.T @ (basis.T @ np.eye(n).ravel())
    weights = vectors.T @ (basis.T @ (np.eye(n) - 1 / n).ravel())
    second = float(np.linalg.eigvalsh(np.eye(n) - laplacian.toarray() / 2)[-2])
    return np.clip(values, 0.0, 1.0), start * weights, second


def _symmetric(n: int) -> sparse.csr_array:
    """Return an orthonormal basis of the symmetric matrices, written out row by row, as columns."""
    i, j = np.triu_indices(n)
    number = np.arange(i.size)
    length = np.where(i == j, 0.5, math.sqrt(0.5))
    rows, columns = np.append(i * n + j, j * n + i), np.append(number, number)
    return sparse.csr_array((np.append(length, length), (rows, columns)), shape=(n * n, i.size))


def _left(values: np.ndarray, shares: np.ndarray, count: int) -> float:
    """Compute E V; rounding leaves some 1e-16 of the eigenvalue 1, whose share is 0."""
    return max(0.0, float(np.sum(np.where(values > 1 - 1e-12, 0.0, values**count * shares))))


def _accuracy(values: np.ndarray, shares: np.ndarray, mean: float, error: float, law: str) -> list[Prediction]:
    begin = _left(values, shares, 0)
    most = 1 if mean <= 0 else max(1, math.ceil(math.log(error) / math.log(mean) - 1e-12))
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _left(values, shares, middle) <= error * begin else (middle, high)
    place = "least K with E V_K ≤ error · E V_0"
    return [
        exact("meetings_to_error", float(high), "meetings", place, law, None),
        Prediction(
            "meetings_from_any_start",
            float(most),
            0.0,
            float(most),
            "meetings",
            "bound",
            "⌈ln error / ln λ₂(Σ p_e M_e)⌉; theory.spectral.pairwise_contraction",
            "whatever the start values; in the mean over plans",
        ),
    ]


def _simulated(graph: Topology, count: int, rate: float, seed: int) -> Check:
    """Run plans with pairs of their own from start values of their own."""
    keys = jax.random.split(jax.random.key(seed), RUNS)

    def start(key):
        return jax.random.normal(key, (graph.num_nodes, COORDINATES))

    plan = drawn_pairs(graph, count, rate=rate)
    watch = [consensus_distance()]
    run = simulate(keys, gossip_averaging(), plan, start, observers=watch, record_every=count, progress=False)
    last = np.asarray(run["consensus_distance"].isel(record=-1), np.float64) / COORDINATES
    rounding = count * float(np.finfo(np.float32).eps) ** 2
    return mean_of(last, f"{RUNS} plans of {count} meetings, {COORDINATES} coordinates", rounding)
