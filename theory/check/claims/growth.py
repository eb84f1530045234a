"""Claims on growth: which capacity keeps staleness bounded as the network grows, and which does not."""

from __future__ import annotations

from typing import Any

import numpy as np

import gossipjax as gj
from gossipjax.observe import staleness_by_source
from gossipjax.timeline import clocks, drawn_gossip, opportunistic_windows, push_gossip

from ... import staleness as exact
from ..claim import Axis, Claim, Law, Observation, Sampling, each
from ..engine import planned_runs, runs, settled

PAPER = "Mitra and Ulukus 2024, arXiv 2404.19749"
SOURCES = 8
"""Number of tracked nodes; the law does not depend on it."""
SIZES = Axis("nodes n", (16, 64, 256, 1024, 4096), (16, 64, 256, 1024))
STALENESS = "mean staleness, updates"


def _uniform(rate_of: Any) -> Any:
    """Measure the mean staleness under uniform push gossip at λ(n), with updates at rate 1."""

    def one(seed: int, n: float, replicas: int) -> Observation:
        size, rate = int(n), float(rate_of(n))
        # One program per size serves every capacity, because the rate and the number of records are its arguments.
        every, burn_in, records = 2048 if size < 200 else 64 * size, 6, 6
        spread = every / (size * (1 + rate)) * rate / np.log(size)
        assert spread > 0.5, "records are too close to each other"
        plan = drawn_gossip(size, every * (burn_in + records), update_rate=1.0, gossip_rate=rate)
        protocol = gj.track_versions(gj.gossip_averaging(), SOURCES, num_nodes=size)
        observed = runs(seed, replicas, protocol, plan, np.zeros(size), [staleness_by_source()], every=every)
        values = observed["staleness_of_source"][:, burn_in:].mean(axis=2)
        return Observation(values.mean(axis=1), (settled(values),))

    return each(one)


def _opportunistic(relay: Any) -> Any:
    def one(seed: int, n: float, replicas: int) -> Observation:
        """Capacity λ = ln n."""
        size, rate = int(n), float(np.log(n))
        delay = float(
            exact.opportunistic_staleness(size, gossip_rate=rate, update_rate=1.0, relay=relay == "everything")
        )
        sources = [k * size // SOURCES for k in range(SOURCES)]
        acting = SOURCES if relay == "newest" else size
        every = 1 << int(np.ceil(np.log2(2 * (delay + 2.0) * acting * (1 + rate))))
        burn_in, records = 8, 8
        only = sources if relay == "newest" else None
        windows = opportunistic_windows(
            size, every * (burn_in + records), update_rate=1.0, capacity=rate, relay=relay, seed=seed, sources=only
        )
        plans = [next(windows) for _ in range(replicas)]
        protocol = gj.track_versions(gj.gossip_averaging(), sources, num_nodes=size)
        observed = runs(seed, replicas, protocol, plans, np.zeros(size), [staleness_by_source()], every=every)
        values = observed["staleness_of_source"][:, burn_in:].mean(axis=2)
        return Observation(values.mean(axis=1), (settled(values),))

    return each(one)


def _in_flight(seed: int, n: float, replicas: int) -> Observation:
    """Measure the mean staleness at λ = ln n if messages take one second."""
    size, rate = int(n), float(np.log(n))
    delay = float(exact.flight_time_staleness(size, gossip_rate=rate, flight_time=1.0, update_rate=1.0)) + 1.0
    times = delay * (4 + 2 * np.arange(1, 7))

    def plan(k: int) -> gj.Timeline:
        return push_gossip(size, float(times[-1]), compute=clocks.poisson(1.0), gossip=rate, latency=1.0, seed=k)

    protocol = gj.track_versions(gj.gossip_averaging(), SOURCES, num_nodes=size)
    records = planned_runs(seed, replicas, protocol, plan, times, np.zeros(size), [staleness_by_source()])
    values = records["staleness_of_source"].mean(axis=2)
    return Observation(values.mean(axis=1), (settled(values),))


def _asymptote(n: np.ndarray) -> np.ndarray:
    return np.asarray(
        [exact.flight_time_staleness(int(k), gossip_rate=float(np.log(k)), flight_time=1.0, update_rate=1.0) for k in n]
    )


CLAIMS = (
    Claim(
        "log_capacity_bounds_staleness",
        "λ = ln n suffices: mean staleness stays bounded, H_{n−1}/ln n → 1 (m = 1).",
        f"{PAPER}, theorem on Ω(log n)",
        SIZES,
        STALENESS,
        predict=lambda n: exact.mean_staleness(n.astype(int), gossip_rate=np.log(n), update_rate=1.0),
        simulate=_uniform(np.log),
        sampling=Sampling(256, 64),
        catches=("gossip at a rate that does not grow", "biased partner choice"),
        kind="scaling",
        law=Law(("constant", "saturating")),
    ),
    Claim(
        "constant_capacity_does_not",
        "λ = 1 does not suffice: mean staleness grows as ln n (H_{n−1}, m = 1).",
        "exact mean staleness on the complete graph; the converse of the paper's theorem",
        SIZES,
        STALENESS,
        predict=lambda n: exact.mean_staleness(n.astype(int), gossip_rate=1.0, update_rate=1.0),
        simulate=_uniform(lambda n: 1.0),
        sampling=Sampling(64, 24),
        catches=("a push reaches more than one node",),
        kind="scaling",
        law=Law(("logarithm",)),
    ),
    Claim(
        "root_log_capacity_does_not",
        "λ = √ln n does not suffice either: mean staleness is H_{n−1}/√ln n, which has no bound.",
        "exact mean staleness on the complete graph: bounded iff λ = Ω(log n)",
        SIZES,
        STALENESS,
        predict=lambda n: exact.mean_staleness(n.astype(int), gossip_rate=np.sqrt(np.log(n)), update_rate=1.0),
        simulate=_uniform(lambda n: np.sqrt(np.log(n))),
        sampling=Sampling(64, 24, precision=0.05),
        catches=("gossip at a rate that does not grow",),
    ),
    Claim(
        "opportunistic_newest_needs_capacity_n",
        "If only the newest version travels, λ = ln n leaves staleness (n−1)/ln n: it needs λ = Ω(n).",
        f"{PAPER}, theorem on opportunistic gossip",
        SIZES,
        STALENESS,
        predict=lambda n: (n - 1) / np.log(n),
        simulate=_opportunistic("newest"),
        sampling=Sampling(24, 12),
        catches=("a push carries all versions",),
        kind="scaling",
        # local exponent of n/ln n over these sizes: 1 − 1/ln n, from 0.64 to 0.88
        law=Law(("power",), exponent=0.84, slack=0.08),
    ),
    Claim(
        "opportunistic_with_relay_needs_only_log",
        "If the node that updated last pushes all it knows, λ = ln n bounds staleness: Ω(n) is not needed.",
        f"against {PAPER}, whose theorem on opportunistic gossip asks for Ω(n)",
        Axis("nodes n", (16, 64, 256, 1024), (16, 64, 256)),
        STALENESS,
        predict=lambda n: exact.mean_staleness(n.astype(int), gossip_rate=np.log(n), update_rate=1.0),
        simulate=_opportunistic("everything"),
        sampling=Sampling(32, 32),
        catches=("a push carries its sender's version only",),
        kind="scaling",
        law=Law(("constant", "saturating")),
    ),
    Claim(
        "flight_time_breaks_log_capacity",
        "With a flight time d = 1 s capacity λ = ln n no longer bounds staleness: it grows as d ln n/ln(λd).",
        "reversed branching process with delay, growth rate W₀(λd)/d; not in the paper",
        Axis("nodes n", (16, 64, 256, 1024), (16, 128, 1024)),
        STALENESS,
        predict=_asymptote,
        simulate=each(_in_flight),
        sampling=Sampling(32, 32),
        catches=("messages that arrive at once",),
        kind="scaling",
        law=Law(("logarithm", "power")),
        mark="asymptotic",
    ),
)
