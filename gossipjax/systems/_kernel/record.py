"""What happens in a run is written down here as it happens, and turned into an Activity at the end."""

from __future__ import annotations

import dataclasses

import numpy as np

from gossipjax.systems._activity import COMPLETED, CUT, UNDER_WAY, Activity


@dataclasses.dataclass(slots=True, eq=False)
class Record:
    """Rows of the activity, growing."""

    trainings: list[list] = dataclasses.field(default_factory=list)
    """Node, start, end, whether it was completed; None instead of an end: it is under way."""
    transfers: list[list] = dataclasses.field(default_factory=list)
    """Sender, receiver, start, end, bytes, bytes sent, state; the number is that of the network."""
    means: list[tuple[float, int]] = dataclasses.field(default_factory=list)
    """Seconds and node."""


def training_starts(record: Record, now: float, node: int) -> int:
    """Note a training; return its number."""
    record.trainings.append([node, now, None, False])
    return len(record.trainings) - 1


def training_ends(record: Record, now: float, number: int, completed: bool) -> None:
    """Note the end of a training, or its interruption."""
    record.trainings[number][2:] = now, completed


def transfer_starts(record: Record, now: float, sender: int, receiver: int, size: float) -> None:
    """Note that a transfer is asked for."""
    record.transfers.append([sender, receiver, now, now, size, 0.0, UNDER_WAY])


def transfer_ends(record: Record, now: float, number: int, sent: float | None) -> None:
    """Note the end of a transfer, and the bytes sent until it was cut; None: it is complete."""
    entry = record.transfers[number]
    entry[3] = now
    entry[5], entry[6] = (entry[4], COMPLETED) if sent is None else (sent, CUT)


def activity_of(record: Record, end_s: float, under_way: dict[int, float]) -> Activity:
    """Write the rows out as arrays.

    Args:
        record: all that happened.
        end_s: when the plan ends.
        under_way: bytes sent by each transfer that has not ended.
    """
    for number, sent in under_way.items():
        record.transfers[number][3], record.transfers[number][5] = end_s, sent
    node, start, end, completed = columns(record.trainings, 4)
    sender, receiver, asked, ended, _, sent_bytes, state = columns(record.transfers, 7)
    seconds, averaging = columns(record.means, 2)
    return Activity(
        training_node=np.array(node, np.int32),
        training_start_s=np.array(start, np.float64),
        training_end_s=np.array([end_s if each is None else each for each in end], np.float64),
        training_completed=np.array(completed, bool),
        sender=np.array(sender, np.int32),
        receiver=np.array(receiver, np.int32),
        asked_s=np.array(asked, np.float64),
        ended_s=np.array(ended, np.float64),
        sent_bytes=np.array(sent_bytes, np.float64),
        state=np.array(state, np.int8),
        mean_s=np.array(seconds, np.float64),
        mean_node=np.array(averaging, np.int32),
    )


def columns(rows: list, count: int) -> tuple:
    """Turn rows into columns, also where there are none."""
    return tuple(zip(*rows, strict=True)) if rows else ((),) * count
