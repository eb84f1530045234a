"""What happens in synchronous rounds of averaging: agreement, staleness, bytes and seconds."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy import sparse

from gossipjax._base.arguments import callable_of_one, choice, flag, instance, optional_whole, real, shown, whole
from gossipjax._base.arguments import seed as checked_seed
from gossipjax._engine.simulate import simulate
from gossipjax.design import Target, consensus, equal_split, score
from gossipjax.design._score import Weighing
from gossipjax.design._targets import checked_matrix
from gossipjax.devices import Devices
from gossipjax.mixing import metropolis
from gossipjax.observe import consensus_distance, staleness_summary
from gossipjax.predict._forecast import Check, Forecast, Prediction, exact
from gossipjax.protocol import gossip_averaging
from gossipjax.systems import Machines
from gossipjax.systems._kernel.bandwidth import MODELS, Bandwidth
from gossipjax.timeline import rounds as planned_rounds
from gossipjax.timeline._checks import undirected
from gossipjax.topology import Topology
from gossipjax.wrappers import track_versions

HORIZON = 10**9
"""Rounds within which an accuracy must be reached."""
MOST_MESSAGES = 200_000
"""Messages that are planned for the seconds of many rounds: a second or two of planning."""
CONTRACTS = 1e-9
"""Weights whose ρ² is nearer to one than this are taken for weights that do not contract."""
COORDINATES = 256
"""Independent coordinates of the simulated models."""
MOST_NODES = 2000
"""All eigenvalues of W are computed."""


def rounds(
    graph: Topology,
    num_rounds: int,
    *,
    weights: Weighing = metropolis,
    error: float | None = None,
    devices: Devices | Machines | None = None,
    model_bytes: int | None = None,
    local_steps: int | None = None,
    time_batch: int = 1,
    bandwidth: Bandwidth = "greedy",
    training: Prediction | None = None,
    check: bool = False,
    seed: int = 0,
) -> Forecast:
    """Predict T synchronous rounds ``x ← W x`` on a graph.

    With the eigenvalues λ_k of W, ρ = ``max_{k ≥ 2} |λ_k|`` and the hop distance h_ij:

    * ``consensus_distance``: ``E ‖x_T − x̄‖²/n = Σ_{k ≥ 2} λ_k^{2T} / n`` a coordinate, from independent start values of
      variance one;
    * ``mean_staleness``, ``max_staleness``: ``min(T, h_ij − 1)`` updates over pairs i ≠ j, if every node updates its
      model in every round before it mixes;
    * with ``error``: ``rounds_to_error``, the least T' with ``E_T' ≤ error · E_0``, and ``rounds_from_any_start``, at
      most ``⌈ln error / (2 ln ρ)⌉``;
    * with ``model_bytes``: ``bytes_per_round``, and ``bytes_to_error``;
    * with ``devices``: ``seconds`` of T rounds behind barriers, ``seconds_per_round`` in the long run, or where links
      are shared its lower bound ``least_seconds_per_round``, and ``seconds_to_error``;
    * with ``training``: ``rounds_of_training``, and with sizes and devices ``bytes_of_training`` and
      ``seconds_of_training`` of the rounds, rounded up to whole ones; of the same origin and interval, since both grow
      with the rounds.

    >>> import gossipjax as gj
    >>> forecast = gj.predict.rounds(gj.topology.ring(8), 10, error=0.01)
    >>> print(forecast["rounds_to_error"])
    rounds_to_error: 8 rounds (exact)

    Args:
        graph: undirected, connected, of 2 to 2,000 nodes.
        num_rounds: T.
        weights: function of a graph that returns a symmetric mixing matrix.
        error: share of the disagreement at the start, in (0, 1); None: nothing is said of accuracy.
        devices: of n nodes, always online; needs ``model_bytes`` and ``local_steps``.
        model_bytes: of one message.
        local_steps: of a node in each round.
        time_batch: b, samples of a step in the training time.
        bandwidth: how it is shared, see :func:`gossipjax.systems.plexus`.
        training: rounds that training takes to an accuracy, which no formula knows: a prediction of a
            :class:`PowerLaw` in rounds.
        check: whether to run :func:`gossipjax.simulate` and the planner beside the formulas.
        seed: of the simulated start values.

    Raises:
        ValueError: if a number is out of range, something that is needed is missing, or the graph or its weights are of
            a kind that these formulas do not know.
    """
    graph, weights = undirected(graph, "graph"), callable_of_one("weights", weights, "weights(graph) -> matrix")
    n = whole("number of nodes of graph", graph.num_nodes, least=2, most=MOST_NODES)
    steps, check, seed = whole("num_rounds", num_rounds, least=1, most=10**6), flag("check", check), checked_seed(seed)
    target = None if error is None else consensus(real("error", error, above=0, below=1), horizon=HORIZON)
    size, local = (
        optional_whole(name, value, least=1)
        for name, value in (("model_bytes", model_bytes), ("local_steps", local_steps))
    )
    batch = whole("time_batch", time_batch, least=1, most=2**53)
    choice("bandwidth", bandwidth, MODELS)
    _needs(devices, size, local, batch)
    training = None if training is None else _checked_training(training)
    matrix = weights(graph)
    W = checked_matrix(matrix, graph)
    squares = np.square(np.linalg.eigvalsh(W - 1 / n))
    run = _simulated(matrix, squares, steps, seed) if check else {}
    found = [_agreement(squares, steps, run.get("consensus")), *_staleness(graph, steps, run)]
    found += [] if target is None or error is None else _accuracy(matrix, squares, W, target, float(error), check)
    if size is not None:
        found += _bytes(graph, size, found, run.get("messages"))
    load = {"model_bytes": size, "local_steps": local, "time_batch": batch, "bandwidth": bandwidth}
    if devices is not None:
        found += _seconds(devices, graph, weights, steps, target, load, check)
    if training is not None:
        found += [dataclasses.replace(training, name="rounds_of_training"), *_training(training, graph, size)]
        found += [] if devices is None else [_seconds_of_training(training, devices, graph, weights, load)]
    return Forecast(f"{steps} rounds on {graph.name}", tuple(found))


def _needs(devices: Any, size: int | None, local: int | None, batch: int) -> None:
    if devices is not None and (size is None or local is None):
        raise ValueError("devices: their seconds need model_bytes and local_steps; pass both")
    if devices is None and batch != 1:
        raise ValueError(f"time_batch={batch}: samples take time on devices only; pass devices, or leave it out")
    if devices is None and local is not None:
        raise ValueError(f"local_steps={local}: take time on devices only; pass devices, or leave local_steps out")


def _agreement(squares: np.ndarray, steps: int, check: Check | None) -> Prediction:
    place = "Σ λ_k^2T / n; gossipjax.learn.consensus_error"
    words = "expected over independent start values of variance one, for each coordinate; fixed symmetric W"
    return exact("consensus_distance", _left(squares, steps), "start variances", place, words, check)


def _left(squares: np.ndarray, steps: int) -> float:
    """Compute E_T; the eigenvalue 1 is 0 here, and 0⁰ = 1 does not count."""
    return float(np.sum(squares**steps) - (0.0**steps)) / len(squares)


def _staleness(graph: Topology, steps: int, run: dict[str, Check]) -> list[Prediction]:
    hops = sparse.csgraph.shortest_path(graph.adjacency(), unweighted=True)
    pairs = np.minimum(steps, hops[~np.eye(len(hops), dtype=bool)] - 1)
    place = "min(T, hops − 1); gossipjax.observe.staleness_summary"
    words = "every node updates its model once a round, before it mixes; over pairs of different nodes"
    return [
        exact(f"{name}_staleness", value, "updates", place, words, run.get(name))
        for name, value in (("mean", pairs.mean()), ("max", pairs.max()))
    ]


def _accuracy(
    matrix: Any, squares: np.ndarray, W: np.ndarray, target: Target, error: float, check: bool
) -> list[Prediction]:
    needed = target.rounds(W)
    if not np.isfinite(needed) or squares.max() >= 1 - CONTRACTS:
        raise ValueError(
            f"error={error:g}: not reached within {target.horizon:,} rounds; use weights that contract, or ask for less"
        )
    found = _crossing(matrix, error, int(needed)) if check else None
    words = f"mean over start values of the disagreement, at most {error:g} of that at the start; fixed symmetric W"
    place = "least T with Σ λ_k^2T ≤ error (n − 1); gossipjax.design.consensus"
    contraction = float(squares.max())
    most = 1 if contraction == 0 else max(1, math.ceil(math.log(error) / math.log(contraction) - 1e-12))
    bound = Prediction(
        "rounds_from_any_start",
        float(most),
        0.0,
        float(most),
        "rounds",
        "bound",
        "⌈ln error / (2 ln ρ)⌉, ρ = ‖W − J‖₂; theory.spectral.contraction_factor",
        "whatever the start values; attained up to rounding up by the slowest eigenvector",
        _slowest(matrix, W, error, most) if check else None,
    )
    return [exact("rounds_to_error", needed, "rounds", place, words, found), bound]


def _bytes(graph: Topology, size: int, found: list[Prediction], check: Check | None) -> list[Prediction]:
    sent, words = 2.0 * graph.num_edges * size, f"a model of {size:,} bytes over every edge and in both directions"
    if check is not None:
        check = dataclasses.replace(check, measured=check.measured * size)
    place = "2 · edges · model_bytes; gossipjax.types.Info.bits"
    made = [exact("bytes_per_round", sent, "bytes", place, words, check)]
    needed = [each for each in found if each.name == "rounds_to_error"]
    return made + [exact("bytes_to_error", sent * each.value, "bytes", place, words, None) for each in needed]


def _seconds(
    devices: Any,
    graph: Topology,
    weights: Weighing,
    steps: int,
    target: Target | None,
    load: dict[str, Any],
    check: bool,
) -> list[Prediction]:
    place = "gossipjax.systems.synchronous(round_seconds=None)"
    words = f"rounds behind barriers, {load['bandwidth']} sharing of bandwidth, no latency, all devices online"
    asked = Target(f"{steps} rounds", lambda W: float(steps), steps)
    taken = score(devices, asked, graph, weights=weights, num_rounds=max(2, steps), **load).seconds
    pace = equal_split(devices, graph, **(load | {"bandwidth": "unlimited"}))
    alone = load["bandwidth"] == "unlimited"
    made = [
        exact("seconds", taken, "s", place, words, None, "planned"),
        Prediction(
            "seconds_per_round" if alone else "least_seconds_per_round",
            pace,
            pace,
            pace if alone else math.inf,
            "s",
            "exact" if alone else "bound",
            "largest cycle mean of c_j + transfer_ji; theory.round_time.seconds_per_round",
            f"in the long run; {words}" if alone else f"no round is faster in the long run: no link is shared; {words}",
        ),
    ]
    if target is not None:
        planned = _planned(graph)
        reached = score(devices, target, graph, weights=weights, num_rounds=planned, **load)
        counted = f"{words}; {reached.rounds:,.0f} rounds"
        whole_way = (
            counted
            if reached.rounds <= planned
            else (f"{counted}, the first {planned} planned and others at the pace of their second half")
        )
        made.append(exact("seconds_to_error", reached.seconds, "s", place, whole_way, None, "planned"))
    return made


def _checked_training(training: Any) -> Prediction:
    remedy = "such as of gossipjax.predict.power_law(...).predict(...)"
    if instance("training", training, Prediction, remedy).unit != "rounds":
        raise ValueError(f"training={shown(training)}: must be a prediction in rounds, {remedy}")
    if training.value > HORIZON:
        raise ValueError(f"training={training.value:g} rounds: must be at most {HORIZON:,}")
    return training


def _training(training: Prediction, graph: Topology, size: int | None) -> list[Prediction]:
    if size is None:
        return []
    sent = 2.0 * graph.num_edges * size
    return [
        _scaled(training, "bytes_of_training", "bytes", lambda rounds: sent * rounds, "every edge, both directions")
    ]


def _seconds_of_training(
    training: Prediction, devices: Any, graph: Topology, weights: Weighing, load: dict[str, Any]
) -> Prediction:
    planned = _planned(graph)

    def seconds(rounds: float) -> float:
        if math.isinf(rounds):
            return math.inf
        asked = Target("training", lambda W: rounds, HORIZON)
        return score(devices, asked, graph, weights=weights, num_rounds=planned, **load).seconds

    words = f"rounds behind barriers, the first {planned:,} planned and others at the pace of their second half"
    return _scaled(training, "seconds_of_training", "s", seconds, words)


def _planned(graph: Topology) -> int:
    """Return how many rounds to plan: where links are shared, the pace may change for hundreds of them."""
    return max(32, min(1024, MOST_MESSAGES // max(1, 2 * graph.num_edges)))


def _scaled(training: Prediction, name: str, unit: str, of: Callable[[float], float], words: str) -> Prediction:
    """Map the rounds of the value and of both ends, rounded up."""
    ends = (training.value, training.low, training.high)
    value, low, high = (of(each if math.isinf(each) else float(math.ceil(each))) for each in ends)
    assumptions = f"{training.assumptions}; {words}, whole rounds"
    return Prediction(name, value, low, high, unit, training.origin, training.place, assumptions)


def _simulated(matrix: Any, squares: np.ndarray, steps: int, seed: int) -> dict[str, Check]:
    """Run T rounds from normal start values; the standard error of a mean of squares of normal numbers is exact."""
    n = len(squares)
    x0 = jax.random.normal(jax.random.key(seed), (n, COORDINATES))
    protocol, plan = track_versions(gossip_averaging()), planned_rounds(matrix, steps)
    watch = [consensus_distance(), staleness_summary()]
    run = simulate(jax.random.key(seed), protocol, plan, x0, observers=watch, record_every=steps, progress=False)
    last = run.dataset.isel(record=-1)
    sampling = math.sqrt(2 * np.sum(squares ** (2 * steps)) / COORDINATES) / n
    rounding = steps * float(jnp.finfo(x0.dtype).eps) ** 2
    words = f"{steps} rounds of {n} nodes, {COORDINATES} coordinates"
    stale = last["staleness"]
    return {
        "consensus": Check(float(last["consensus_distance"]) / COORDINATES, math.hypot(sampling, rounding), words),
        "mean": Check(float(stale.sel(statistic="mean")), 0.0, words),
        "max": Check(float(stale.sel(statistic="max")), 0.0, words),
        "messages": Check(float(last["messages_sent"]) / steps, 0.0, words),
    }


def _distances(matrix: Any, x0: Float[np.ndarray, " n *d"], steps: int) -> np.ndarray:
    start = jnp.asarray(x0, jnp.result_type(float))
    plan, key = planned_rounds(matrix, steps), jax.random.key(0)
    run = simulate(
        key, gossip_averaging(), plan, start, observers=[consensus_distance()], record_every=1, progress=False
    )
    return np.asarray(run["consensus_distance"], np.float64)


def _first(distances: np.ndarray, error: float) -> float:
    below = np.flatnonzero(distances <= error * distances[0])
    return float(below[0]) if below.size else math.inf


def _crossing(matrix: Any, error: float, needed: int) -> Check:
    """Start every coordinate at another node, which gives the mean over start values without drawing any."""
    n = matrix.shape[0]
    found = _first(_distances(matrix, np.eye(n), needed + 1), error)
    return Check(found, 0.0, f"{needed + 1} rounds from the identity matrix")


def _slowest(matrix: Any, W: np.ndarray, error: float, most: int) -> Check:
    values, vectors = np.linalg.eigh(W - 1 / len(W))
    slowest = vectors[:, np.argmax(np.abs(values))]
    return Check(_first(_distances(matrix, slowest, most), error), 0.0, f"{most} rounds from the slowest eigenvector")
