"""Transfers requested at known times: computed at once if none compete for bandwidth, otherwise simulated."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Int8

from gossipjax.systems._activity import COMPLETED, CUT
from gossipjax.systems._kernel.bandwidth import MODELS, Bandwidth, Capacities
from gossipjax.systems._kernel.loop import make_kernel, run
from gossipjax.systems._kernel.queue import follow


class Requests(NamedTuple):
    """Transfers of one size, sorted by the time of the request."""

    sender: Int[np.ndarray, " x"]
    receiver: Int[np.ndarray, " x"]
    asked_s: Float[np.ndarray, " x"]
    limit_s: Float[np.ndarray, " x"]
    """When it is cut."""


class Outcome(NamedTuple):
    """How the transfers ended."""

    ended_s: Float[np.ndarray, " x"]
    sent_bytes: Float[np.ndarray, " x"]
    state: Int8[np.ndarray, " x"]


def alone_rates(
    sender: Int[np.ndarray, " x"], receiver: Int[np.ndarray, " x"], limits: Capacities
) -> Float[np.ndarray, " x"]:
    """Return min(u_i, d_j), the bytes per second of transfers that share neither end with another."""
    return np.minimum(limits.up[sender], limits.down[receiver])


def exchange(requests: Requests, size: float, bandwidth: Bandwidth, limits: Capacities) -> Outcome:
    """Follow transfers of ``size`` bytes until they end or are cut.

    If no capacity is exceeded when all transfers run at min(u_i, d_j), all models of bandwidth agree and nothing needs
    to be simulated.

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
    """Return whether no capacity is exceeded; at equal times transfers end before others begin."""
    sides = ((requests.sender, limits.up), (requests.receiver, limits.down))
    return all(_fits(nodes, requests.asked_s, ended_s, rates, capacity) for nodes, capacity in sides)


def _fits(nodes: np.ndarray, begin: np.ndarray, end: np.ndarray, rates: np.ndarray, capacity: np.ndarray) -> bool:
    lasts = end > begin
    nodes, begin, end, rates = nodes[lasts], begin[lasts], end[lasts], rates[lasts]
    node, time = np.concatenate([nodes, nodes]), np.concatenate([begin, end])
    change = np.concatenate([rates, -rates])
    order = np.lexsort((change, time, node))
    # The changes of a node sum to zero, so the running sum is zero where the next node begins.
    return bool((np.cumsum(change[order]) <= capacity[node[order]]).all())


def _alone(requests: Requests, size: float, rates: np.ndarray) -> Outcome:
    seconds = size / rates
    end = requests.asked_s + seconds
    done = end <= requests.limit_s
    left = np.maximum(requests.limit_s - requests.asked_s, 0.0)
    sent = np.where(done, size, np.minimum(rates * np.where(done, 0.0, left), size))
    return Outcome(np.where(done, end, requests.limit_s), sent, np.where(done, COMPLETED, CUT).astype(np.int8))


def _simulated(requests: Requests, size: float, bandwidth: Bandwidth, limits: Capacities) -> Outcome:
    """Simulate the transfers; at equal times completions come first, then cuts, then new transfers."""
    kernel = make_kernel(MODELS[bandwidth](limits.up, limits.down))
    sender, receiver, limit = requests.sender.tolist(), requests.receiver.tolist(), requests.limit_s.tolist()
    total, start, cancel = len(sender), kernel.network.start, kernel.network.cancel
    ended, sent, state = list(limit), [0.0] * total, [CUT] * total
    begins = requests.asked_s < requests.limit_s
    request_of: list[int] = []
    number_of: dict[int, int] = {}

    def begin(now: float, k: int) -> None:
        number_of[k] = len(request_of)
        request_of.append(k)
        start(now, sender[k], receiver[k], size)

    def complete(number: int) -> None:
        k = request_of[number]
        del number_of[k]
        ended[k], sent[k], state[k] = kernel.now, size, COMPLETED

    def cut(now: float, k: int) -> None:
        if k in number_of:
            sent[k] = cancel(now, number_of.pop(k))

    first = np.flatnonzero(begins)
    last = np.flatnonzero(begins & np.isfinite(requests.limit_s))
    last = last[np.argsort(requests.limit_s[last], kind="stable")]
    cuts = ((limit[k], k) for k in last.tolist() if state[k] != COMPLETED)
    follow(kernel.queue, cuts, cut, rank=0)
    follow(kernel.queue, zip(requests.asked_s[first].tolist(), first.tolist(), strict=True), begin, rank=1)
    run(kernel, finished=complete)
    return Outcome(np.array(ended, np.float64), np.array(sent, np.float64), np.array(state, np.int8))
