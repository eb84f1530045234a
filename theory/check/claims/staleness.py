"""Claims on staleness: how much gossip nodes need to know each other's newest models (Mitra and Ulukus 2024)."""

from __future__ import annotations

from typing import Any

import numpy as np

import gossipjax as gj
from gossipjax.observe import mean_hops, staleness_by_source, staleness_histogram, staleness_matrix
from gossipjax.timeline import clocks, drawn_gossip, opportunistic, push_gossip, push_rounds

from ... import staleness as exact
from ..claim import Assumption, Axis, Claim, Kind, Observation, Points, Sampling, each, pointwise
from ..engine import Records, paced, planned_runs, runs, settled

PAPER = "Mitra and Ulukus 2024, arXiv 2404.19749"
STALENESS = "mean staleness, updates"
SAMPLING, TOGETHER = Sampling(128, 64), Sampling(384, 96, independent=False)
RECORDS = 12
"""Records of each run after its burn-in, two mean delays apart."""


def _tracked(n: int, sources: int | None = None, **options: Any) -> gj.Protocol:
    return gj.track_versions(gj.gossip_averaging(), sources, num_nodes=n, **options)


def _drawn(seed: int, n: int, rate: float, replicas: int, observers: Any, **options: Any) -> tuple[Records, Assumption]:
    """Run Poisson updates at rate 1 and pushes at rate λ among n nodes; return the records after the burn-in."""
    every = max(8, int(2 * float(exact.mean_staleness(n, gossip_rate=rate, update_rate=1.0)) * n * (1 + rate)))
    burn_in = int(np.ceil(8 * np.log(n) / rate * n * (1 + rate) / every))
    plan = drawn_gossip(n, every * (burn_in + RECORDS), update_rate=1.0, gossip_rate=rate)
    sources = min(n, 16) if n > 64 else None
    records = runs(seed, replicas, _tracked(n, sources, **options), plan, np.zeros(n), observers, every=every)
    pushes = paced(records["messages"][:, -1], len(plan) * rate / (1 + rate))
    return {name: values[:, burn_in:] for name, values in records.items()}, pushes


def _observed(values: np.ndarray, *assumptions: Assumption) -> Observation:
    """Average each replica over its records, and over all other axes."""
    flat = values.reshape(*values.shape[:2], -1).mean(axis=2)
    return Observation(flat.mean(axis=1), (settled(flat), *assumptions))


def _planned(
    seed: int, replicas: int, n: int, delay: float, plan: Any, observer: Any, *, sources: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Record runs of ``plan(duration, seed)`` at 12 times, two mean delays apart, after a burn-in of eight."""
    times = delay * (8 + 2 * np.arange(1, RECORDS + 1))
    records = planned_runs(
        seed, replicas, _tracked(n, sources), lambda k: plan(float(times[-1]), k), times, np.zeros(n), [observer]
    )
    (values,) = (records[variable.name] for variable in observer.variables[:1])
    return values, times


def _mean(seed: int, n: float, replicas: int, rate: float) -> Observation:
    records, pushes = _drawn(seed, int(n), rate, replicas, [staleness_by_source()])
    return _observed(records["staleness_of_source"], pushes)


def _maximum(seed: int, n: float, replicas: int) -> Observation:
    records, pushes = _drawn(seed, int(n), 2.0, replicas, [staleness_by_source()])
    return _observed(records["max_staleness_of_source"], pushes)


def _histogram(seed: int, points: Points, replicas: int) -> Observation:
    n, bins = 30, 16
    records, pushes = _drawn(seed, n, 2.0, replicas, [staleness_histogram(bins)])
    shares = records["staleness_histogram"] / (n * (n - 1))
    at = [int(k) for k in points]
    return Observation(shares.mean(axis=1)[:, at], (settled(shares[..., 0]), pushes))


def _hops(seed: int, n: float, replicas: int) -> Observation:
    """Give every push a version of its own; otherwise a version's first arrival counts, which took fewer hops."""
    graph = gj.topology.complete(int(n))
    every = max(8, int(4 * np.log(n) * n))
    plans = [
        gj.timeline.poisson_push(graph, num_events=every * (2 + RECORDS), seed=seed * 100_003 + k)
        for k in range(replicas)
    ]
    records = runs(
        seed,
        replicas,
        _tracked(graph.num_nodes, hops=True),
        plans,
        np.zeros(graph.num_nodes),
        [mean_hops()],
        every=every,
    )
    return _observed(records["hops"][:, 2:])


def _shifted(seed: int, shift: float, replicas: int) -> Observation:
    clock = clocks.shifted_exponential(float(shift), 0.5)
    values, _ = _planned(
        seed,
        replicas,
        12,
        1.6,
        lambda t, k: push_gossip(12, t, compute=clock, gossip=2.0, seed=k),
        staleness_by_source(),
    )
    return _observed(values)


def _two_way(seed: int, n: float, replicas: int) -> Observation:
    size = int(n)

    def plan(duration: float, k: int) -> gj.Timeline:
        return push_gossip(size, duration, compute=clocks.poisson(1.0), gossip=1.5, two_way=True, seed=k)

    values, _ = _planned(seed, replicas, size, 1.5, plan, staleness_by_source())
    return _observed(values)


def _two_nodes(seed: int, flight: float, replicas: int) -> Observation:
    def plan(duration: float, k: int) -> gj.Timeline:
        return push_gossip(2, duration, compute=clocks.poisson(1.0), gossip=2.0, latency=flight, seed=k)

    values, _ = _planned(seed, replicas, 2, flight + 1.5, plan, staleness_by_source())
    return _observed(values)


RATES = np.array([0.4, 0.8, 1.2, 1.6, 2.0, 2.4, 2.8, 3.2])
"""Pushes per unit time of nodes that differ."""


def _heterogeneous(seed: int, points: Points, replicas: int) -> Observation:
    def plan(duration: float, k: int) -> gj.Timeline:
        return push_gossip(8, duration, compute=clocks.poisson(1.0), gossip=RATES, seed=k)

    values, _ = _planned(seed, replicas, 8, 2.0, plan, staleness_matrix())
    about = [values[:, :, (int(i) + 1) % 8, int(i)] for i in points]
    return Observation(np.stack([staleness.mean(axis=1) for staleness in about], axis=1), (settled(about[0]),))


def _on_graph(
    seed: int, pairs: list[tuple[int, int]], replicas: int, graph: gj.topology.Topology, rate: float, delay: float
):
    """Measure the staleness of node j about i on a graph, for pairs (i, j)."""

    def plan(duration: float, k: int) -> gj.Timeline:
        return push_gossip(graph, duration, compute=clocks.poisson(1.0), gossip=rate, seed=k)

    values, _ = _planned(seed, replicas, graph.num_nodes, delay, plan, staleness_matrix())
    samples = np.stack([values[:, :, j, i].mean(axis=1) for i, j in pairs], axis=1)
    return Observation(samples, (settled(values[:, :, pairs[-1][1], pairs[-1][0]]),))


def _ring(seed: int, points: Points, replicas: int) -> Observation:
    return _on_graph(seed, [(0, int(r)) for r in points], replicas, gj.topology.ring(9), 3.0, 3.0)


def _irregular() -> gj.topology.Topology:
    return gj.topology.barabasi_albert(9, 2, seed=1)


def _irregular_delay(points: np.ndarray) -> np.ndarray:
    graph = _irregular()
    rates = np.zeros((9, 9))
    rates[graph.senders, graph.receivers] = 2.0 / graph.degrees[graph.senders]
    delays = exact.graph_delay(rates, 0)
    return np.asarray([delays[int(j)] for j in points])


def _small_graph(seed: int, points: Points, replicas: int) -> Observation:
    return _on_graph(seed, [(0, int(j)) for j in points], replicas, _irregular(), 2.0, 3.0)


def _opportunistic(seed: int, n: float, replicas: int, relay: Any, rate: float) -> Observation:
    size = int(n)
    delay = float(exact.opportunistic_staleness(size, gossip_rate=rate, update_rate=1.0, relay=relay == "everything"))

    def plan(duration: float, k: int) -> gj.Timeline:
        return opportunistic(size, duration, update_rate=1.0, capacity=rate, relay=relay, seed=k)

    values, _ = _planned(seed, replicas, size, max(delay, 1.0), plan, staleness_by_source())
    return _observed(values)


def _rounds(seed: int, point: float, replicas: int, pushes: Any) -> Observation:
    """Run push gossip in rounds; the samples are parts of one long run, recorded every four mean delays."""
    n, rate = (int(point), None) if pushes == "one" else (16, 2.0)
    step = 1.0 if rate is None else float(point)
    delay = exact.one_push_rounds(n) if rate is None else exact.fixed_step_rounds(n, gossip_rate=rate, step=step)
    apart, per_sample = int(np.ceil(4 * delay)), 3
    rounds = apart * (2 + per_sample * replicas)
    plan = push_rounds(n, rounds, step=step, compute=1.0, gossip_rate=rate, pushes=pushes, seed=seed)
    every = len(plan) // rounds * apart
    records = runs(seed, 1, _tracked(n), plan, np.zeros(n), [staleness_by_source()], every=every)
    values = records["staleness_of_source"][0, 2:].mean(axis=1).reshape(replicas, per_sample)
    return Observation(values.mean(axis=1), (settled(values),))


def _squares(seed: int, n: float, replicas: int) -> Observation:
    """Measure squared distances from the known mean; those from the sample mean would be too small."""
    size = int(n)
    records, pushes = _drawn(seed, size, 2.0, replicas, [staleness_matrix()])
    mean = float(exact.mean_staleness(size, gossip_rate=2.0, update_rate=1.0))
    about_others = records["staleness_matrix"][:, :, ~np.eye(size, dtype=bool)]
    return _observed((about_others - mean) ** 2, pushes)


def _delay_bound(kind: Kind, side: str) -> Claim:
    return Claim(
        f"staleness_heterogeneous_{kind}_bound",
        f"With push rates λ_1 … λ_n every delay is at {side} (coupling with equal rates, n = 8).",
        "coupling with the fastest and the slowest equal rates",
        Axis("source i (holder i + 1)", (0, 2, 5, 7), (0, 6)),
        STALENESS,
        predict=lambda i: np.full(i.shape, getattr(exact.delay_bounds(RATES), kind)),
        simulate=_heterogeneous,
        sampling=TOGETHER._replace(precision=0.2),
        catches=("an update counted twice",) if kind == "upper" else ("a push reaches more than one node",),
        kind=kind,
    )


CLAIMS = (
    Claim(
        "staleness_mean_push",
        "Under uniform push gossip at rate λ = 2 mean staleness is m H_{n−1}/λ (m = 1, Poisson updates).",
        f"{PAPER}, Lemma 1 as an equality",
        Axis("nodes n", (4, 16, 64, 256), (4, 24)),
        STALENESS,
        predict=lambda n: exact.mean_staleness(n.astype(int), gossip_rate=2.0, update_rate=1.0),
        simulate=each(lambda seed, n, replicas: _mean(seed, n, replicas, 2.0)),
        sampling=SAMPLING,
        catches=("biased partner choice", "counters of the receiver copied over", "an update counted twice"),
    ),
    Claim(
        "staleness_maximum_over_holders",
        "The largest staleness over the holders of a source has mean 2m (n−1)/n H_{n−1}/λ.",
        "Little's law on the spreading of an update; holds for every update clock",
        Axis("nodes n", (4, 16, 64, 256), (4, 24)),
        "maximum staleness over holders, updates",
        predict=lambda n: exact.max_staleness(n.astype(int), gossip_rate=2.0, update_rate=1.0),
        simulate=each(_maximum),
        sampling=SAMPLING,
        catches=("biased partner choice",),
    ),
    Claim(
        "staleness_distribution",
        "Staleness counts Poisson updates in a random delay, so its whole law is known (n = 30, λ = 2).",
        "reversed first passage on the complete graph; generating function inverted by FFT",
        Axis("staleness k, updates", (0, 1, 2, 3, 4, 6), (0, 1, 3)),
        "share of pairs",
        predict=lambda k: exact.staleness_pmf(30, gossip_rate=2.0, update_rate=1.0, size=64)[k.astype(int)],
        simulate=_histogram,
        sampling=Sampling(192, 64, independent=False),
        catches=("biased partner choice",),
    ),
    Claim(
        "staleness_hops",
        "If every push has a new version, the newest version took n (H_n − 1)/(n − 1) transmissions on average.",
        "depth of a node in the random recursive tree",
        Axis("nodes n", (4, 16, 64), (24,)),
        "transmissions",
        predict=lambda n: exact.mean_hops(n.astype(int)),
        simulate=each(_hops),
        sampling=SAMPLING,
        catches=("biased partner choice",),
    ),
    Claim(
        "staleness_shifted_clocks",
        "Mean staleness depends only on the update rate m = 1/(c + 1/μ), not on the clock's law (n = 12, λ = 2).",
        f"{PAPER}; stationarity of the update process",
        Axis("fixed part c of the update clock, s", (0.0, 0.25, 0.5, 1.5), (0.5,)),
        STALENESS,
        predict=lambda c: exact.mean_staleness(12, gossip_rate=2.0, update_rate=1.0 / (c + 0.5)),
        simulate=each(_shifted),
        sampling=Sampling(96, 48),
        catches=("clocks started at zero instead of in equilibrium",),
    ),
    Claim(
        "staleness_two_way",
        "Two-way exchanges halve mean staleness: m H_{n−1}/(2λ) (each node starts λ = 1.5 exchanges per second).",
        "reversed first passage with both directions",
        Axis("nodes n", (4, 12, 40), (12,)),
        STALENESS,
        predict=lambda n: exact.mean_staleness(n.astype(int), gossip_rate=1.5, update_rate=1.0, two_way=True),
        simulate=each(_two_way),
        sampling=Sampling(96, 48),
        catches=("an exchange that works one way",),
    ),
    Claim(
        "staleness_heterogeneous_rates",
        "With push rates λ_1 … λ_n the delay from i to j is a double integral over their products (n = 8).",
        "thinning of the reversed cluster; the natural form of the paper's Lemma 1",
        Axis("source i (holder i + 1)", (0, 2, 5, 7), (0, 6)),
        STALENESS,
        predict=pointwise(lambda k: exact.mean_delay_heterogeneous(RATES, k, (k + 1) % 8)),
        simulate=_heterogeneous,
        sampling=TOGETHER,
        catches=("rates of other nodes",),
    ),
    Claim(
        "staleness_ring",
        "On a ring the delay at distance r is the smaller of Gamma(r, λ/2) and Gamma(n − r, λ/2) (n = 9, λ = 3).",
        "two independent fronts around the ring",
        Axis("distance r", (1, 2, 3, 4), (1, 4)),
        STALENESS,
        predict=pointwise(lambda k: exact.ring_delay(9, k, 3.0)),
        simulate=_ring,
        sampling=TOGETHER,
        catches=("edges off by one neighbour",),
    ),
    Claim(
        "staleness_irregular_graph",
        "On any graph the delay is a recursion over sets of nodes (preferential attachment, n = 9, source 0).",
        "Yates' recursion with the source inside the network",
        Axis("holder j", (1, 3, 5, 8), (1, 8)),
        STALENESS,
        predict=_irregular_delay,
        simulate=_small_graph,
        sampling=TOGETHER,
        catches=("edges off by one neighbour", "partners drawn uniformly from all nodes"),
    ),
    Claim(
        "opportunistic_with_relay_is_uniform",
        "If the node that updated last pushes all it knows, staleness is m H_{n−1}/λ: Ω(log n) suffices, not Ω(n).",
        f"against {PAPER}, whose theorem asks for Ω(n); exact for Poisson clocks",
        Axis("nodes n", (4, 12, 40), (12,)),
        STALENESS,
        predict=lambda n: exact.opportunistic_staleness(n.astype(int), gossip_rate=2.0, update_rate=1.0, relay=True),
        simulate=each(lambda seed, n, replicas: _opportunistic(seed, n, replicas, "everything", 2.0)),
        sampling=SAMPLING,
        catches=("a push carries its sender's version only",),
    ),
    Claim(
        "opportunistic_newest_only",
        "If only the network's newest version travels, staleness is m (n−1)/λ: bounded iff λ = Ω(n).",
        f"{PAPER}, theorem on opportunistic gossip, in the reading in which it is true",
        Axis("nodes n", (4, 12, 40), (12,)),
        STALENESS,
        predict=lambda n: exact.opportunistic_staleness(n.astype(int), gossip_rate=2.0, update_rate=1.0, relay=False),
        simulate=each(lambda seed, n, replicas: _opportunistic(seed, n, replicas, "newest", 2.0)),
        sampling=SAMPLING,
        catches=("a push carries all versions",),
    ),
    Claim(
        "staleness_fixed_step_engine",
        "In rounds of Δ s staleness is m Δ E_1 of a chain, which is more than in continuous time (n = 16, λ = 2).",
        "exact chain of the rounds engine; the bias is about λΔ/ln(1 + λΔ)",
        Axis("step Δ, s", (0.1, 0.5, 1.0), (0.5,)),
        STALENESS,
        predict=pointwise(lambda d: exact.fixed_step_staleness(16, gossip_rate=2.0, step=d, update_rate=1.0)),
        simulate=each(lambda seed, step, replicas: _rounds(seed, step, replicas, "poisson")),
        sampling=Sampling(64, 24, precision=0.15),
        catches=("messages of a round carry what came in it",),
    ),
    Claim(
        "staleness_one_push_a_round",
        "With one push per node and round, staleness is m times the mean rounds of a chain with p_k = k/(n − 1).",
        "exact chain of the rounds engine",
        Axis("nodes n", (6, 16, 48), (16,)),
        STALENESS,
        predict=pointwise(exact.one_push_rounds),
        simulate=each(lambda seed, n, replicas: _rounds(seed, n, replicas, "one")),
        sampling=Sampling(64, 24, precision=0.15),
        catches=("messages of a round carry what came in it",),
    ),
    Claim(
        "staleness_flight_time",
        "A message that takes d seconds is d seconds older: between two nodes staleness is m (1/λ + d) (λ = 2).",
        "time since the sending of the last push that has arrived",
        Axis("flight time d, s", (0.1, 0.5, 2.0, 6.0), (2.0,)),
        STALENESS,
        predict=lambda d: 0.5 + d,
        simulate=each(_two_nodes),
        sampling=Sampling(256, 96),
        catches=("messages that arrive at once", "a message that carries the model on arrival"),
    ),
    _delay_bound("upper", "most H_{n−1}/λ_min"),
    _delay_bound("lower", "least H_{n−1}/λ_max"),
    Claim(
        "staleness_variance",
        "With Poisson updates staleness has variance m² Var T + m E T, T the delay (complete graph, λ = 2, m = 1).",
        "Poisson updates in a random delay",
        Axis("nodes n", (4, 12, 30), (12,)),
        "variance of the staleness, updates²",
        predict=pointwise(lambda n: exact.staleness_variance(n, gossip_rate=2.0, update_rate=1.0)),
        simulate=each(_squares),
        # Squares are skewed, so that their mean is normal only for many replicas.
        sampling=Sampling(512, 256),
        catches=("clocks that are not memoryless", "biased partner choice"),
    ),
)
