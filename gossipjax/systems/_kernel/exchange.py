"""Transfers that are asked for at known times: at once where nobody competes for bandwidth, else one by one."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Int8

from gossipjax.systems._activity import COMPLETED, CUT
from gossipjax.systems._kernel.bandwidth import MODELS, Bandwidth, Capacities
from gossipjax.systems._kernel.loop import NEVER, Kernel, make_kernel
from gossipjax.systems._kernel.loop import run as run_kernel
from gossipjax.systems._kernel.queue import at, cancel, follow


class Requests(NamedTuple):
    """Transfers of one size, sorted by the time at which they are asked for."""

    sender: Int[np.ndarray, " x"]
    receiver: Int[np.ndarray, " x"]
    asked_s: Float[np.ndarray, " x"]
    limit_s: Float[np.ndarray, " x"]
    """When it is cut."""


class Outcome(NamedTuple):
    """What became of them."""

    ended_s: Float[np.ndarray, " x"]
    sent_bytes: Float[np.ndarray, " x"]
    state: Int8[np.ndarray, " x"]


def alone_rates(
    sender: Int[np.ndarray, " x"], receiver: Int[np.ndarray, " x"], limits: Capacities
) -> Float[np.ndarray, " x"]:
    """Return min(u_i, d_j), the bytes a second of transfers that have both their ends for themselves."""
    return np.minimum(limits.up[sender], limits.down[receiver])


def exchange(requests: Requests, size: float, bandwidth: Bandwidth, limits: Capacities) -> Outcome:
    """Follow transfers of ``size`` bytes to their end, or to where they are cut.

    Where no node's capacity is exceeded if all run at min(u_i, d_j), all models of bandwidth agree, and nothing is
    simulated.

    Args:
        requests: sorted by time.
        size: bytes of each.
        bandwidth: how it is shared.
        limits: capacities of all nodes.
    """
    rates = alone_rates(requests.sender, requests.receiver, limits)
    outcome = _alone(requests, size, rates)
    if bandwidth == "unlimited" or uncontended(requests, outcome.ended_s, rates, limits):
        return outcome
    return _simulated(requests, size, bandwidth, limits)


def uncontended(
    requests: Requests, ended_s: Float[np.ndarray, " x"], rates: Float[np.ndarray, " x"], limits: Capacities
) -> bool:
    """Tell whether no capacity is exceeded; at equal times transfers end before others begin."""
    sides = ((requests.sender, limits.up), (requests.receiver, limits.down))
    return all(_fits(nodes, requests.asked_s, ended_s, rates, capacity) for nodes, capacity in sides)


def _fits(nodes: np.ndarray, begin: np.ndarray, end: np.ndarray, rates: np.ndarray, capacity: np.ndarray) -> bool:
    lasts = end > begin
    nodes, begin, end, rates = nodes[lasts], begin[lasts], end[lasts], rates[lasts]
    node, time = np.concatenate([nodes, nodes]), np.concatenate([begin, end])
    change = np.concatenate([rates, -rates])
    order = np.lexsort((change, time, node))
    # The changes of a node sum to zero, so its sum begins at zero behind those of the others.
    return bool((np.cumsum(change[order]) <= capacity[node[order]]).all())


def _alone(requests: Requests, size: float, rates: np.ndarray) -> Outcome:
    seconds = size / rates
    end = requests.asked_s + seconds
    done = end <= requests.limit_s
    left = np.maximum(requests.limit_s - requests.asked_s, 0.0)
    sent = np.where(done, size, np.minimum(rates * np.where(done, 0.0, left), size))
    return Outcome(np.where(done, end, requests.limit_s), sent, np.where(done, COMPLETED, CUT).astype(np.int8))


class _Run(NamedTuple):
    """The transfers while they are simulated."""

    kernel: Kernel
    requests: tuple[list[int], list[int], list[float]]
    """Sender, receiver and limit of each."""
    size: float
    number_of: dict[int, int]
    """Of the network, by request."""
    request_of: list[int]
    cuts: list[Any]
    """By request: the entry of its cut."""
    ended: list[float]
    sent: list[float]
    state: list[int]


def _simulated(requests: Requests, size: float, bandwidth: Bandwidth, limits: Capacities) -> Outcome:
    """One after another; at equal times completions come first, then cuts, then new transfers."""
    sender, receiver, asked, limit = (column.tolist() for column in requests)
    kernel, total = make_kernel(MODELS[bandwidth](limits.up, limits.down)), len(asked)
    outcome = list(limit), [0.0] * total, [CUT] * total
    run = _Run(kernel, (sender, receiver, limit), size, {}, [], [None] * total, *outcome)
    begins = np.flatnonzero(requests.asked_s < requests.limit_s).tolist()
    follow(kernel.queue, [asked[k] for k in begins], partial(_start, run), begins, rank=1)
    run_kernel(kernel, finished=partial(_complete, run))
    return Outcome(np.array(run.ended, np.float64), np.array(run.sent, np.float64), np.array(run.state, np.int8))


def _start(run: _Run, now: float, k: int) -> None:
    sender, receiver, limit = run.requests
    run.number_of[k] = len(run.request_of)
    run.request_of.append(k)
    if limit[k] < NEVER:
        run.cuts[k] = at(run.kernel.queue, limit[k], _cut, run, k)
    run.kernel.network.start(now, sender[k], receiver[k], run.size)


def _complete(run: _Run, number: int) -> None:
    k = run.request_of[number]
    run.ended[k], run.sent[k], run.state[k] = run.kernel.now, run.size, COMPLETED
    if run.cuts[k] is not None:
        cancel(run.cuts[k])


def _cut(run: _Run, k: int) -> None:
    run.sent[k] = run.kernel.network.cancel(run.kernel.now, run.number_of[k])
