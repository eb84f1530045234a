"""The clocks of the nodes as the model of :func:`gossipjax.metered` has them, for messages of known sizes."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Num

from gossipjax.deploy._programs import Plan


def round_ends(
    plan: Plan,
    bits: Num[np.ndarray, "T n"],
    compute_seconds: Float[np.ndarray, " n"],
    bytes_per_second: Float[np.ndarray, " n"],
    latency_seconds: Float[np.ndarray, " n"],
    overlap: bool,
) -> Float[np.ndarray, "T n"]:
    """Predict when each node ends each round::

        r_i = t_i + compute_i            u_i ← max(u_i, r_i) + bytes sent_i / rate_i
        t_i ← max(r_i, or u_i without overlap, max_{j heard by i} u_j + latency_j)

    Args:
        plan: rounds.
        bits: that each node sends in each round, to all its neighbours together.
        compute_seconds: of a round.
        bytes_per_second: of each uplink.
        latency_seconds: of the messages of each node.
        overlap: whether a node goes on while its uplink still sends.
    """
    rounds, n = bits.shape
    clock, uplink, ends = np.zeros(n), np.zeros(n), np.empty((rounds, n))
    for t in range(rounds):
        ready = clock + compute_seconds
        uplink = np.maximum(uplink, ready) + bits[t] / 8 / bytes_per_second
        clock = ready if overlap else uplink
        arrives = uplink + latency_seconds
        heard = [[receipt.sender for receipt in plan.turns[i][t].receipts] for i in range(n)]
        clock = np.array([max([clock[i], *arrives[heard[i]]]) for i in range(n)])
        ends[t] = clock
    return ends


def longest_wait(plan: Plan, compute_seconds: Float[np.ndarray, " n"] | None, burst_s: float) -> float:
    """Return the longest time, in simulated seconds, for which a node may have nothing to do by the plan."""
    compute = 0.0 if compute_seconds is None else float(compute_seconds.max())
    if plan.rounds:
        return compute + burst_s
    return float(max((np.diff(_times(plan, turns), prepend=0.0).max(initial=0.0) for turns in plan.turns), default=0.0))


def _times(plan: Plan, turns: tuple) -> Float[np.ndarray, " k"]:
    return np.array([plan.times[turn.event] for turn in turns])
