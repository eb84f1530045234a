"""Shares of bandwidth among concurrent transfers: three models behind one interface.

Every node i has a capacity of u_i bytes a second for what it sends and d_i for what it receives. All models obey
Σ rates of its outgoing transfers ≤ u_i and Σ rates of its incoming ones ≤ d_i, except :func:`unlimited`.
"""

from __future__ import annotations

import dataclasses
import heapq
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float, Num

from gossipjax._base.arguments import reals, wholes

FASTEST = 1e12
"""Bytes per second that stand for infinity; sums of whole numbers of this size are exact in float64."""


Rates: TypeAlias = Sequence[int | float] | Num[np.ndarray, " n"]
"""Bytes a second, one entry per node."""
Bandwidth = Literal["greedy", "fair", "unlimited"]
"""The names of the three models."""


class Capacities(NamedTuple):
    """Bytes per second, as whole numbers, so that sums are exact."""

    up: Float[np.ndarray, " n"]
    down: Float[np.ndarray, " n"]


def capacities(upload: Rates, download: Rates) -> Capacities:
    """Round capacities down to whole bytes a second, at most :data:`FASTEST`.

    Raises:
        ValueError: capacities that are not two vectors of one length, or less than one byte a second.
    """
    up, down = whole_rates("upload", upload), whole_rates("download", download)
    if up.shape != down.shape:
        raise ValueError(f"upload of shape {up.shape}, download of shape {down.shape}: give one entry per node of both")
    return Capacities(up, down)


class Network(NamedTuple):
    """Transfers in progress. The times passed in must not decrease, nor exceed the time of the next completion."""

    start: Callable[[float, int, int, float], int]
    """``start(now, sender, receiver, size)`` requests a transfer of ``size`` bytes and returns its number."""
    cancel: Callable[[float, int], float]
    """``cancel(now, number)`` ends a transfer, frees both sides, and returns the bytes sent."""
    next_time: Callable[[], float]
    """Time of the next completion in seconds; infinity if there are no transfers."""
    finish: Callable[[], int]
    """Carry out the completion whose time ``next_time`` has just returned, and return the number of the transfer."""
    rates: Callable[[], dict[int, float]]
    """Bytes per second of all transfers; 0: waiting for bandwidth."""
    sent: Callable[[float], dict[int, float]]
    """``sent(now)``: bytes that each transfer has sent so far."""


@dataclasses.dataclass(slots=True)
class _Transfer:
    number: int
    sender: int
    receiver: int
    size: float
    remaining: float
    rate: float = 0.0
    since: float = 0.0
    end: float = float("inf")


@dataclasses.dataclass(slots=True)
class _Links:
    """State of a network: unused bytes per second of each side, and transfers in the order of their requests."""

    up: list[float]
    down: list[float]
    under_way: dict[int, _Transfer]
    ends: list[tuple[float, int]]
    """Heap; an entry counts while its transfer still ends then."""
    queued: defaultdict[int, dict[int, _Transfer]]
    """By sender: transfers without bandwidth."""
    incoming: defaultdict[int, dict[int, _Transfer]]
    """By receiver: transfers with bandwidth."""
    noted: defaultdict[int, dict[int, _Transfer]]
    """By receiver: transfers that wait because it was full when their senders tried to start them."""
    count: int = 0


def greedy(upload: Rates, download: Rates) -> Network:
    """Reserve bandwidth greedily: the first transfer takes all that its sender and receiver have left, and keeps it.

    A new transfer joins the queue of its sender, which is then scanned in order: each entry starts with the rate
    min(free at the sender, free at the receiver), or is noted at the receiver if that is zero; the scan stops when the
    sender has nothing left. When a transfer ends, both sides get its rate back. The receiver offers its free bandwidth
    to its running incoming transfers in order, then to the noted ones; each is raised by min(free at its sender, free
    at the receiver). Then the sender scans its queue again. Of transfers that end at the same instant, the one that
    was created first ends first; this decides who gets their bandwidth. The reference breaks such ties by the order in
    which the ends were scheduled.

    Args:
        upload: u (n,) bytes a second; rounded down to whole bytes, at most :data:`FASTEST`.
        download: d (n,) likewise.

    Raises:
        ValueError: capacities that are not two vectors of one length, or less than one byte a second.

    Reference: the scheduler of the public code of Dhasade et al. 2025, arXiv 2503.05509.
    """
    return _network(_links(upload, download), _start_greedy, _release_greedy)


def fair(upload: Rates, download: Rates) -> Network:
    """Share bandwidth max-min fairly among all transfers at any time: :func:`max_min_rates` at each start and end.

    Args:
        upload: u (n,) bytes a second; rounded down to whole bytes, at most :data:`FASTEST`.
        download: d (n,) likewise.

    Raises:
        ValueError: as :func:`greedy`.

    Reference: Bertsekas and Gallager 1992, Data Networks, section 6.5.2.
    """
    return _network(_links(upload, download), _start_fair, _release_fair)


def unlimited(upload: Rates, download: Rates) -> Network:
    """Let every transfer run at min(u_i, d_j), as if it were alone: there is no limit on the total of a node.

    Args:
        upload: u (n,) bytes a second; rounded down to whole bytes, at most :data:`FASTEST`.
        download: d (n,) likewise.

    Raises:
        ValueError: as :func:`greedy`.
    """
    return _network(_links(upload, download), _start_alone, lambda links, now, transfer: None)


MODELS: dict[str, Callable[[Rates, Rates], Network]] = {"greedy": greedy, "fair": fair, "unlimited": unlimited}
"""The model of each name in :data:`Bandwidth`."""


def max_min_rates(
    senders: Sequence[int],
    receivers: Sequence[int],
    upload: Rates,
    download: Rates,
) -> Float[np.ndarray, " m"]:
    """Share capacities max-min fairly: no rate can grow unless a rate that is no larger shrinks.

    Progressive filling: the side with the least equal share, free/(transfers left), fixes the rates of its transfers.

    Args:
        senders: of m transfers.
        receivers: of them.
        upload: u (n,) bytes a second.
        download: d (n,) bytes a second.

    Returns:
        Bytes a second of each.

    Raises:
        ValueError: if nodes do not exist, or capacities are not positive numbers.

    Reference: Bertsekas and Gallager 1992, Data Networks, section 6.5.2.
    """
    up = reals("upload", upload, shape=(None,), above=0, infinite=True)
    down = reals("download", download, shape=up.shape, above=0, infinite=True, remedy="as many as of upload")
    ends = wholes("senders", senders, shape=(None,), least=0, most=up.size - 1)
    others = wholes("receivers", receivers, shape=ends.shape, least=0, most=up.size - 1, remedy="one for each sender")
    return _max_min_rates(ends.tolist(), others.tolist(), up.tolist(), down.tolist())


def _max_min_rates(senders: list, receivers: list, upload: list, download: list) -> Float[np.ndarray, " m"]:
    n = len(upload)
    sides: dict[int, list[int]] = {}
    for number, (i, j) in enumerate(zip(senders, receivers, strict=True)):
        sides.setdefault(i, []).append(number)
        sides.setdefault(n + j, []).append(number)
    free = {side: float(upload[side] if side < n else download[side - n]) for side in sides}
    left = {side: len(members) for side, members in sides.items()}
    rates = np.full(len(senders), -1.0)
    while left:
        side = min(left, key=lambda side: free[side] / left[side])
        share = max(free[side], 0.0) / left[side]
        for number in sides[side]:
            if rates[number] < 0:
                rates[number] = share
                for end in (senders[number], n + receivers[number]):
                    free[end] -= share
                    left[end] -= 1
        left = {side: count for side, count in left.items() if count}
    return rates


def whole_rates(name: str, rates: Rates) -> Float[np.ndarray, " n"]:
    """Round the capacities of all nodes down to whole bytes a second, at most :data:`FASTEST`.

    Raises:
        ValueError: not a vector of numbers, or less than one byte a second.
    """
    remedy = "in bytes a second, one per node; or its transfers never end"
    return np.minimum(np.floor(reals(name, rates, shape=(None,), least=1, infinite=True, remedy=remedy)), FASTEST)


def _links(upload, download) -> _Links:
    up, down = capacities(upload, download)
    return _Links(up.tolist(), down.tolist(), {}, [], defaultdict(dict), defaultdict(dict), defaultdict(dict))


def _network(links: _Links, start, release) -> Network:
    return Network(
        partial(start, links),
        partial(_cancel, links, release),
        partial(_next_time, links),
        partial(_finish, links, release),
        lambda: {number: transfer.rate for number, transfer in links.under_way.items()},
        lambda now: {number: _sent(transfer, now) for number, transfer in links.under_way.items()},
    )


def _new(links: _Links, now: float, sender: int, receiver: int, size: float) -> _Transfer:
    transfer = _Transfer(links.count, sender, receiver, size, size, since=now)
    links.under_way[links.count] = transfer
    links.count += 1
    return transfer


def _sent(transfer: _Transfer, now: float) -> float:
    return min(transfer.size, transfer.size - transfer.remaining + transfer.rate * (now - transfer.since))


def _set_rate(links: _Links, now: float, transfer: _Transfer, rate: float) -> None:
    if transfer.rate:
        transfer.remaining = max(0.0, transfer.remaining - transfer.rate * (now - transfer.since))
    transfer.since, transfer.rate = now, rate
    transfer.end = end = now + transfer.remaining / rate
    heapq.heappush(links.ends, (end, transfer.number))


def _next_time(links: _Links) -> float:
    ends, under_way = links.ends, links.under_way
    while ends:
        end, number = ends[0]
        transfer = under_way.get(number)
        if transfer is not None and transfer.end == end:
            return end
        heapq.heappop(ends)
    return float("inf")


def _finish(links: _Links, release) -> int:
    now, number = heapq.heappop(links.ends)
    release(links, now, links.under_way.pop(number))
    return number


def _cancel(links: _Links, release, now: float, number: int) -> float:
    transfer = links.under_way.pop(number)
    sent = _sent(transfer, now)
    release(links, now, transfer)
    return sent


def _start_alone(links: _Links, now: float, sender: int, receiver: int, size: float) -> int:
    transfer = _new(links, now, sender, receiver, size)
    _set_rate(links, now, transfer, min(links.up[sender], links.down[receiver]))
    return transfer.number


def _start_fair(links: _Links, now: float, sender: int, receiver: int, size: float) -> int:
    transfer = _new(links, now, sender, receiver, size)
    _release_fair(links, now, transfer)
    return transfer.number


def _release_fair(links: _Links, now: float, _: _Transfer) -> None:
    running = list(links.under_way.values())
    rates = _max_min_rates([t.sender for t in running], [t.receiver for t in running], links.up, links.down)
    for transfer, rate in zip(running, rates.tolist(), strict=True):
        if rate != transfer.rate:
            _set_rate(links, now, transfer, rate)


def _start_greedy(links: _Links, now: float, sender: int, receiver: int, size: float) -> int:
    transfer = _new(links, now, sender, receiver, size)
    queued = links.queued[sender]
    queued[transfer.number] = transfer
    if links.up[sender] > 0:
        _scan(links, now, sender)
    return transfer.number


def _scan(links: _Links, now: float, sender: int) -> None:
    """Start the queued transfers of a sender for which both sides have bandwidth."""
    up, queued = links.up, links.queued[sender]
    if up[sender] <= 0 or not queued:
        return
    for transfer in list(queued.values()):
        if up[sender] <= 0:
            return
        if not _raise(links, now, transfer):
            links.noted[transfer.receiver][transfer.number] = transfer


def _raise(links: _Links, now: float, transfer: _Transfer) -> bool:
    """Raise a transfer by all that both its sides have left, starting it if it waits; False: nothing is left."""
    number, sender, receiver = transfer.number, transfer.sender, transfer.receiver
    extra, down = links.up[sender], links.down[receiver]
    if down < extra:
        extra = down
    if extra <= 0:
        return False
    links.up[sender] -= extra
    links.down[receiver] -= extra
    if transfer.rate == 0:
        links.queued[sender].pop(number)
        links.noted[receiver].pop(number, None)
        links.incoming[receiver][number] = transfer
    _set_rate(links, now, transfer, transfer.rate + extra)
    return True


def _release_greedy(links: _Links, now: float, transfer: _Transfer) -> None:
    """Pass the rate of a finished transfer on to other transfers of its receiver and sender."""
    number, sender, receiver = transfer.number, transfer.sender, transfer.receiver
    if transfer.rate == 0:
        links.queued[sender].pop(number)
        links.noted[receiver].pop(number, None)
        return
    links.incoming[receiver].pop(number)
    links.up[sender] += transfer.rate
    links.down[receiver] += transfer.rate
    for other in [*links.incoming[receiver].values(), *links.noted[receiver].values()]:
        if links.down[receiver] <= 0:
            break
        _raise(links, now, other)
    _scan(links, now, sender)
