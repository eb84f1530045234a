"""Transfers that are asked for at known times: at once where nobody competes for bandwidth, else one by one."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Int8, Num

from gossipjax.systems._kernel import bandwidth
from gossipjax.systems._plexus.plan import COMPLETED, CUT

Sharing = Literal["greedy", "fair", "unlimited"]
SHARING = {"greedy": bandwidth.greedy, "fair": bandwidth.fair, "unlimited": bandwidth.unlimited}
"""How bandwidth is shared; see :mod:`gossipjax.systems._kernel.bandwidth`."""


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


class Capacities(NamedTuple):
    """Bytes a second, whole numbers: so their sums are exact."""

    up: Float[np.ndarray, " n"]
    down: Float[np.ndarray, " n"]


def capacities(up: Num[np.ndarray, " n"], down: Num[np.ndarray, " n"]) -> Capacities:
    """Round capacities as :mod:`gossipjax.systems._kernel.bandwidth` does.

    Raises:
        ValueError: less than one byte a second.
    """
    return Capacities(bandwidth.whole_rates("upload", up), bandwidth.whole_rates("download", down))


def alone_rates(
    sender: Int[np.ndarray, " x"], receiver: Int[np.ndarray, " x"], limits: Capacities
) -> Float[np.ndarray, " x"]:
    """Return min(u_i, d_j), the bytes a second of transfers that have both their ends for themselves."""
    return np.minimum(limits.up[sender], limits.down[receiver])


def exchange(requests: Requests, size: float, sharing: Sharing, limits: Capacities) -> Outcome:
    """Follow transfers of ``size`` bytes to their end, or to where they are cut.

    Where no node's capacity is exceeded if all run at min(u_i, d_j), all models of sharing agree, and nothing is
    simulated.

    Args:
        requests: sorted by time.
        size: bytes of each.
        sharing: how bandwidth is shared.
        limits: capacities of all nodes.
    """
    rates = alone_rates(requests.sender, requests.receiver, limits)
    outcome = _alone(requests, size, rates)
    if sharing == "unlimited" or uncontended(requests, outcome.ended_s, rates, limits):
        return outcome
    return _simulated(requests, size, sharing, limits)


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


def _simulated(requests: Requests, size: float, sharing: Sharing, limits: Capacities) -> Outcome:
    """One after another; at equal times completions come first, then cuts, then new transfers."""
    asked, limit = requests.asked_s.tolist(), requests.limit_s.tolist()
    sender, receiver = requests.sender.tolist(), requests.receiver.tolist()
    total = len(asked)
    ended, sent, state = list(limit), [0.0] * total, [CUT] * total
    network = SHARING[sharing](limits.up, limits.down)
    by_limit = np.argsort(requests.limit_s, kind="stable").tolist()
    request_of: list[int] = []
    number_of: dict[int, int] = {}
    over = (requests.asked_s >= requests.limit_s).tolist()
    begun = cut = 0
    while begun < total or number_of:
        while cut < total and over[by_limit[cut]]:
            cut += 1
        completion, start = network.next_time(), _next(asked, begun)
        end = limit[by_limit[cut]] if cut < total and by_limit[cut] in number_of else float("inf")
        if completion <= min(end, start):
            k = request_of[network.finish()]
            del number_of[k]
            ended[k], sent[k], state[k], over[k] = completion, size, COMPLETED, True
        elif end <= start:
            k = by_limit[cut]
            sent[k], over[k] = network.cancel(end, number_of.pop(k)), True
        else:
            if not over[begun]:
                number_of[begun] = len(request_of)
                request_of.append(begun)
                network.start(start, sender[begun], receiver[begun], size)
            begun += 1
    return Outcome(np.array(ended, np.float64), np.array(sent, np.float64), np.array(state, np.int8))


def _next(asked: list[float], begun: int) -> float:
    return asked[begun] if begun < len(asked) else float("inf")
