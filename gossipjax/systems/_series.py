"""Amounts that accrue over time, summed up to any time: bytes of transfers, seconds of training."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from jaxtyping import Float, Int

from gossipjax.systems._activity import Activity

Spans: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Begins, ends, amounts."""


def transfers_of(found: Activity) -> Spans:
    """Take the bytes of all transfers."""
    return found.asked_s, found.ended_s, found.sent_bytes


def trainings_of(found: Activity) -> Spans:
    """Take the seconds of all trainings."""
    return found.training_start_s, found.training_end_s, found.training_end_s - found.training_start_s


def by_node(found: Activity, num_nodes: int, until_s: float = np.inf) -> Float[np.ndarray, "2 n"]:
    """Sum the bytes that each node has sent, and those that it has received, up to a time.

    Args:
        found: the transfers.
        num_nodes: number of senders and receivers n.
        until_s: seconds.
    """
    lasted = np.clip(until_s - found.asked_s, 0.0, found.ended_s - found.asked_s)
    begun = found.asked_s <= until_s
    share = np.where(found.ended_s > found.asked_s, lasted / np.maximum(found.ended_s - found.asked_s, 1e-300), begun)
    size, known = found.sent_bytes * share, found.receiver >= 0
    sent = np.bincount(found.sender, size, num_nodes)
    return np.stack([sent, np.bincount(found.receiver[known], size[known], num_nodes)])


def accrued(
    spans: list[Spans],
    pattern: Int[np.ndarray, " k"],
    begin_s: Float[np.ndarray, " k"],
    times_s: Float[np.ndarray, " r"],
) -> Float[np.ndarray, " r"]:
    """Sum all earlier pieces, and the elapsed part of the current one, at each time.

    Args:
        spans: of each pattern.
        pattern: of each piece.
        begin_s: of each piece, in seconds, increasing; every piece ends before the next begins.
        times_s: seconds, in any order.
    """
    amounts = np.array([amount.sum() for _, _, amount in spans])
    before = np.append(0.0, np.cumsum(amounts[pattern]))
    piece = np.searchsorted(begin_s, times_s, side="right") - 1
    result = np.zeros(times_s.shape)
    for number in np.unique(pattern[piece[piece >= 0]]):
        at = np.flatnonzero((piece >= 0) & (pattern[np.maximum(piece, 0)] == number))
        result[at] = before[piece[at]] + _progress(spans[number], times_s[at] - begin_s[piece[at]])
    return result


def _progress(spans: Spans, times: np.ndarray) -> np.ndarray:
    """Sum amounts that accrue evenly from their start to their end."""
    start, end, amount = spans
    by_end = np.argsort(end, kind="stable")
    done = np.append(0.0, np.cumsum(amount[by_end]))[np.searchsorted(end[by_end], times, side="right")]
    by_start = np.argsort(start, kind="stable")
    start, end, amount = start[by_start], end[by_start], amount[by_start]
    longest = (end - start).max(initial=0.0)
    low, high = np.searchsorted(start, times - longest, side="left"), np.searchsorted(start, times, side="right")
    for k, t in enumerate(times):
        s, e, a = start[low[k] : high[k]], end[low[k] : high[k]], amount[low[k] : high[k]]
        running = e > t
        done[k] += float((a[running] * (t - s[running]) / (e[running] - s[running])).sum())
    return done
