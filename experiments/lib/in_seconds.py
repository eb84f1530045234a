"""Devices, networks and goals whose seconds are compared: exact rounds to an accuracy, planned seconds of rounds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

import gossipjax as gj
from gossipjax import design, mixing, topology
from gossipjax.design._pace import pace_of as pace_of
from gossipjax.design._pace import planned_ends, site_of

PHONES, CENTRE, EDGE = "phones", "data centre", "edge devices"
GOALS = ("consensus", "quadratic")
START = 2.0
"""Of every coordinate of the quadratic."""


class Load(NamedTuple):
    """What a round costs a node."""

    model_bytes: int = 4_000_000
    local_steps: int = 5
    time_batch: int = 8


def devices_of(kind: str, n: int, seed: int) -> gj.devices.Devices:
    """Draw n devices of a kind. Phones are fitted to measurements; the other two kinds are made up.

    A data centre has nearly equal machines at 10 Gbit/s. Speeds and bandwidths of edge devices (20 Mbit/s up, four
    times as much down) are log-normal.
    """
    if kind == PHONES:
        return gj.devices.fitted(n, seed=seed)
    draws = np.exp(np.random.default_rng(seed).standard_normal((2, n)))
    if kind == CENTRE:
        rate = np.full(n, 1.25e9)
        return gj.devices.from_arrays(5e-4 * draws[0] ** 0.05, rate, rate, name=f"data centre, draw {seed}")
    up = 2.5e6 * draws[1] ** 0.7
    return gj.devices.from_arrays(8e-3 * draws[0] ** 0.5, up, 4 * up, name=f"edge devices, draw {seed}")


def labels_of(n: int, num_labels: int, seed: int) -> Float[np.ndarray, "n K"]:
    """Deal one label to each node, as unit vectors."""
    return np.eye(num_labels)[np.random.default_rng(seed).permutation(n) % num_labels]


def fixed_networks(n: int, seed: int) -> dict[str, list[Any]]:
    """Return the mixing matrix of each usual graph, in a list."""
    return {name: [mixing.metropolis(graph)] for name, graph in design.standard_graphs(n, seed=seed).items()}


def changing_networks(n: int) -> dict[str, list[Any]]:
    """Return the matrices of networks in which nodes have few peers a round and average exactly after some rounds.

    The one-peer exponential graph does so if n is a power of two.
    """
    return {
        "one-peer exponential": [mixing.uniform(graph) for graph in topology.one_peer_exponential(n)],
        "Base-2": [*mixing.base_graph(n, 1)],
        "Base-3": [*mixing.base_graph(n, 2)],
    }


def rounds_to(
    errors: Float[np.ndarray, "goals levels"],
    matrices: Sequence[Any],
    targets: Float[np.ndarray, "n K"],
    step: float,
    horizon: int,
) -> Float[np.ndarray, "goals levels"]:
    """Compute the rounds to errors of both goals, in float64; infinite if an error is not reached by the horizon.

    Args:
        errors: of averaging, the share of the disagreement at the start that is left; of a quadratic, mean ‖x − b̄‖².
        matrices: a cycle of mixing matrices.
        targets: b of the quadratic ``x ← W ((1 − h) x + h b)``, which starts at :data:`START`.
        step: h.
        horizon: most rounds.
    """
    cycle, n = [W.toarray() for W in matrices], len(targets)
    mean, x, X = targets.mean(0), np.full(targets.shape, START), np.eye(n)
    found = np.full(errors.shape, np.inf)
    for t in range(1, horizon + 1):
        W = cycle[(t - 1) % len(cycle)]
        X, x = W @ X, W @ ((1 - step) * x + step * targets)
        now = np.array([np.sum((X - 1 / n) ** 2) / (n - 1), np.sum((x - mean) ** 2) / n])
        found[np.isinf(found) & (now[:, None] <= errors)] = t
        if np.isfinite(found).all():
            break
    return found


def round_ends(
    devices: gj.devices.Devices, matrices: Sequence[Any], num_rounds: int, load: Load, bandwidth: Any = "greedy"
) -> Float[np.ndarray, " r"]:
    """Plan rounds of a cycle of matrices behind barriers; return when the last node ends each of them.

    They are those of :func:`gossipjax.systems.synchronous`, of which nothing else is needed here.
    """
    site = site_of(devices, **load._asdict(), bandwidth=bandwidth)
    adjacency = np.array([W.toarray() != 0 for W in matrices]) & ~np.eye(site.num_nodes, dtype=bool)
    return planned_ends(site, adjacency, num_rounds)


def seconds_of(rounds: Float[np.ndarray, "..."], ends: Float[np.ndarray, " r"]) -> Float[np.ndarray, "..."]:
    """Return the seconds of so many rounds; those that are not planned take the pace of the second half."""
    finite = np.where(np.isfinite(rounds), rounds, 1).astype(int)
    later = np.maximum(finite - len(ends), 0)
    seconds = ends[np.minimum(finite, len(ends)) - 1] + (later * pace_of(ends) if later.any() else 0.0)
    return np.where(np.isfinite(rounds), seconds, np.inf)


def planned_for(rounds: Float[np.ndarray, "..."], most: int) -> int:
    """Return how many rounds to plan: an even number that holds all finite ones, or the most."""
    reached = rounds[np.isfinite(rounds)]
    last = reached.max() if reached.size else most
    return int(min(most, max(4, 2 * np.ceil(last / 2))))
