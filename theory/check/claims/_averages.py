"""Runs of averaging that many claims share: starts, models and their spread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

import gossipjax as gj
from gossipjax import Protocol, Timeline, observe, timeline

from ... import moments
from ..claim import Assumption, Points
from ..engine import averages, paced, planned_runs, runs, stacked

BOYD = "Boyd, Ghosh, Prabhakar, Shah 2006"
NODES = 12
"""Number of nodes in most claims; few shapes mean few programs to compile."""
DISAGREEMENT = "squared disagreement V (start: 1)"


def models_of(
    seed: int,
    replicas: int,
    plan: Timeline | Sequence[Timeline],
    x0: np.ndarray,
    *,
    every: int | None = None,
    protocol: Protocol | None = None,
) -> np.ndarray:
    """Run averaging (or another protocol) and return all models, ``(replicas, records, nodes, columns)``."""
    chosen = gj.gossip_averaging() if protocol is None else protocol
    return runs(seed, replicas, chosen, plan, stacked(x0), [observe.models()], every=every)["model"]


def random_rounds(
    seed: int,
    matrices: np.ndarray,
    x0: np.ndarray,
    *,
    stochastic: Literal["row", "column"] = "row",
    protocol: Protocol | None = None,
) -> tuple[np.ndarray, Timeline]:
    """Run each replica on its own matrices, ``(replicas, rounds, nodes, nodes)``; return all models, and the plan."""
    cycle = list(matrices.reshape(-1, *matrices.shape[2:]))
    plan = timeline.rounds(cycle, len(cycle), stochastic=stochastic)
    plans = pieces(plan, matrices.shape[1])
    return models_of(seed, len(plans), plans, x0, every=1, protocol=protocol), plan


def starts(n: int) -> np.ndarray:
    """Return three starts of mean zero and length one, ``(n, 3)``: a spike, two halves and a ramp."""
    columns = np.stack([np.arange(n) == 0, np.arange(n) < n // 2, np.arange(n)], axis=1).astype(float)
    columns -= columns.mean(axis=0)
    return columns / np.linalg.norm(columns, axis=0)


def spread(models: np.ndarray) -> np.ndarray:
    """Compute V = Σ_i (x_i − x̄)², averaged over the starts."""
    return np.square(models - models.mean(axis=-2, keepdims=True)).sum(axis=-2).mean(axis=-1)


def pieces(plan: Timeline, length: int) -> list[Timeline]:
    """Cut a plan into plans of equal length; if its events are independent, so are the runs."""
    return [plan[k : k + length] for k in range(0, len(plan), length)]


def timed_models(seed: int, points: Points, replicas: int, plan, x0: np.ndarray, messages_per_second: float):
    """Record the models of planned runs at given seconds, and test the number of messages."""
    times = np.asarray(points, float)
    records = planned_runs(seed, replicas, gj.gossip_averaging(), plan, times, stacked(x0), [observe.models()])
    return records["model"], paced(records["messages"][:, -1], messages_per_second * times[-1])


def moments_at(events, x0: np.ndarray, times: np.ndarray, read) -> np.ndarray:
    """Return what ``read`` computes from the exact second moments, averaged over the starts."""
    paths = [moments.transient_moments(events, moments.initial_moments(column), times) for column in x0.T]
    return np.mean([[read(moments.consensus_and_mean(Z, len(x0))) for Z in path] for path in paths], axis=0)


def matrix_of(seed: int, plan: Timeline) -> tuple[np.ndarray, Assumption]:
    """Return the matrix by which a whole run of the engine multiplies the models, from unit vectors as starts."""
    n = plan.properties.num_nodes
    return models_of(seed, 1, plan, np.eye(n))[0, -1], averages(plan)
