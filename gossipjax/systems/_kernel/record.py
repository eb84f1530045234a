"""Record a run as it happens, and turn the record into an Activity at the end."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from gossipjax.systems._activity import COMPLETED, CUT, UNDER_WAY, Activity


@dataclasses.dataclass(slots=True, eq=False)
class Record:
    """Growing columns of the activity: lists of numbers, which cost the garbage collector nothing."""

    training_node: list[int] = dataclasses.field(default_factory=list)
    training_start_s: list[float] = dataclasses.field(default_factory=list)
    training_end_s: list[float] = dataclasses.field(default_factory=list)
    """Infinity while it is in progress."""
    training_completed: list[bool] = dataclasses.field(default_factory=list)
    sender: list[int] = dataclasses.field(default_factory=list)
    """Transfers are numbered as in the network."""
    receiver: list[int] = dataclasses.field(default_factory=list)
    asked_s: list[float] = dataclasses.field(default_factory=list)
    ended_s: list[float] = dataclasses.field(default_factory=list)
    size: list[float] = dataclasses.field(default_factory=list)
    """Bytes of the whole message."""
    sent_bytes: list[float] = dataclasses.field(default_factory=list)
    state: list[int] = dataclasses.field(default_factory=list)
    mean_s: list[float] = dataclasses.field(default_factory=list)
    mean_node: list[int] = dataclasses.field(default_factory=list)


def training_starts(record: Record, now: float, node: int) -> int:
    """Note a training; return its number."""
    record.training_node.append(node)
    record.training_start_s.append(now)
    record.training_end_s.append(math.inf)
    record.training_completed.append(False)
    return len(record.training_node) - 1


def training_ends(record: Record, now: float, number: int, completed: bool) -> None:
    """Note the end of a training, or its interruption."""
    record.training_end_s[number] = now
    record.training_completed[number] = completed


def averages(record: Record, now: float, node: int) -> None:
    """Note that a node takes a mean, or merges what it received."""
    record.mean_s.append(now)
    record.mean_node.append(node)


def transfer_starts(record: Record, now: float, sender: int, receiver: int, size: float) -> None:
    """Note the request for a transfer."""
    record.sender.append(sender)
    record.receiver.append(receiver)
    record.asked_s.append(now)
    record.ended_s.append(now)
    record.size.append(size)
    record.sent_bytes.append(0.0)
    record.state.append(UNDER_WAY)


def transfer_ends(record: Record, now: float, number: int, sent: float | None) -> None:
    """Note the end of a transfer and the bytes sent until it was cut; ``sent=None``: it is complete."""
    record.ended_s[number] = now
    record.sent_bytes[number] = record.size[number] if sent is None else sent
    record.state[number] = COMPLETED if sent is None else CUT


def activity_of(record: Record, end_s: float, under_way: dict[int, float]) -> Activity:
    """Write the columns out as arrays.

    Args:
        record: all that happened.
        end_s: when the plan ends.
        under_way: bytes sent so far by each unfinished transfer.
    """
    for number, sent in under_way.items():
        record.ended_s[number], record.sent_bytes[number] = end_s, sent
    return Activity(
        training_node=np.array(record.training_node, np.int32),
        training_start_s=np.array(record.training_start_s, np.float64),
        training_end_s=np.minimum(np.array(record.training_end_s, np.float64), end_s),
        training_completed=np.array(record.training_completed, bool),
        sender=np.array(record.sender, np.int32),
        receiver=np.array(record.receiver, np.int32),
        asked_s=np.array(record.asked_s, np.float64),
        ended_s=np.array(record.ended_s, np.float64),
        sent_bytes=np.array(record.sent_bytes, np.float64),
        state=np.array(record.state, np.int8),
        mean_s=np.array(record.mean_s, np.float64),
        mean_node=np.array(record.mean_node, np.int32),
    )


def columns(rows: list, count: int) -> tuple:
    """Turn rows into ``count`` columns, even if there are no rows."""
    return tuple(zip(*rows, strict=True)) if rows else ((),) * count
