"""What happens in a run is written down here as it happens, and made into a plan at the end."""

from __future__ import annotations

import dataclasses

import numpy as np

from gossipjax.systems._plexus.plan import AVERAGED, COMPLETED, CUT, RUNNING, UNDER_WAY, PlexusPlan
from gossipjax.systems._plexus.sizes import BYTES, KINDS


def _zeros() -> list[int]:
    return [0] * len(KINDS)


@dataclasses.dataclass(slots=True)
class Log:
    """Columns of the plan, growing; see :class:`gossipjax.systems.PlexusPlan`."""

    trainings: list[list] = dataclasses.field(default_factory=list)
    """Node, round, start, end, source, fate."""
    aggregations: list[tuple[float, int, int, list[int]]] = dataclasses.field(default_factory=list)
    """Seconds, node, round, members."""
    transfers: list[list] = dataclasses.field(default_factory=list)
    """Sender, receiver, kind, start, end, size, bytes sent, state; the number is that of the network."""
    sent: list[int] = dataclasses.field(default_factory=_zeros)
    delivered: list[int] = dataclasses.field(default_factory=_zeros)
    lost: list[int] = dataclasses.field(default_factory=_zeros)
    online: list[tuple[float, int]] = dataclasses.field(default_factory=list)
    views: list[tuple[float, ...]] = dataclasses.field(default_factory=list)


def training_starts(log: Log, node: int, round_: int, now: float, source: int) -> int:
    """Note a training; return its number."""
    log.trainings.append([node, round_, now, now, source, RUNNING])
    return len(log.trainings) - 1


def training_ends(log: Log, number: int, now: float, fate: int) -> None:
    """Note the end of a training, or its interruption."""
    log.trainings[number][3] = now
    log.trainings[number][5] = fate


def set_fate(log: Log, number: int, fate: int) -> None:
    """Note what became of a trained model; one that was averaged stays so."""
    if log.trainings[number][5] != AVERAGED:
        log.trainings[number][5] = fate


def aggregates(log: Log, now: float, node: int, round_: int, members: list[int]) -> int:
    """Note a mean and its members; return its number."""
    for number in members:
        log.trainings[number][5] = AVERAGED
    log.aggregations.append((now, node, round_, members))
    return len(log.aggregations) - 1


def transfer_starts(log: Log, sender: int, receiver: int, kind: int, now: float, size: int) -> None:
    """Note that a model message is asked for."""
    log.sent[kind] += 1
    log.transfers.append([sender, receiver, kind, now, now, size, 0.0, UNDER_WAY])


def transfer_ends(log: Log, number: int, now: float, bytes_sent: float | None) -> None:
    """Note the end of a transfer; bytes_sent is None where it completed."""
    entry = log.transfers[number]
    completed = bytes_sent is None
    (log.delivered if completed else log.lost)[entry[2]] += 1
    entry[4], entry[6], entry[7] = now, entry[5] if completed else bytes_sent, COMPLETED if completed else CUT


def make_plan(
    log: Log,
    *,
    num_nodes: int,
    name: str,
    outcome: str,
    report: str,
    end_s: float,
    under_way: dict[int, float],
    in_flight: list[int],
) -> PlexusPlan:
    """Write the columns out as arrays.

    Args:
        log: all that happened.
        num_nodes: n.
        name: the system and its settings.
        outcome: why the run ended.
        report: one line on it.
        end_s: when.
        under_way: bytes sent by each transfer that is not finished.
        in_flight: control messages by type that are on their way.
    """
    for number, sent in under_way.items():
        log.transfers[number][4], log.transfers[number][6] = end_s, sent
    for training in log.trainings:
        if training[5] == RUNNING:
            training[3] = end_s
    node, round_, start, end, source, fate = _columns(log.trainings, 6)
    seconds, aggregator, averaged, members = _columns(log.aggregations, 4)
    sender, receiver, kind, asked, ended, size, sent, state = _columns(log.transfers, 8)
    changes, counts = _columns(log.online, 2)
    for index in under_way:
        in_flight[log.transfers[index][2]] += 1
    return PlexusPlan(
        num_nodes=num_nodes,
        name=name,
        outcome=outcome,
        report=report,
        end_s=end_s,
        training_node=np.array(node, np.int32),
        training_round=np.array(round_, np.int32),
        training_start_s=np.array(start, np.float64),
        training_end_s=np.array(end, np.float64),
        training_source=np.array(source, np.int32),
        training_fate=np.array(fate, np.int8),
        aggregation_s=np.array(seconds, np.float64),
        aggregation_node=np.array(aggregator, np.int32),
        aggregation_round=np.array(averaged, np.int32),
        member_offsets=np.cumsum([0, *map(len, members)], dtype=np.int64),
        members=np.array([number for group in members for number in group], np.int32),
        transfer_sender=np.array(sender, np.int32),
        transfer_receiver=np.array(receiver, np.int32),
        transfer_kind=np.array(kind, np.int8),
        transfer_start_s=np.array(asked, np.float64),
        transfer_end_s=np.array(ended, np.float64),
        transfer_size=np.array(size, np.int64),
        transfer_sent=np.array(sent, np.float64),
        transfer_state=np.array(state, np.int8),
        messages_sent=np.array(log.sent, np.int64),
        messages_delivered=np.array(log.delivered, np.int64),
        messages_lost=np.array(log.lost, np.int64),
        messages_in_flight=np.array(in_flight, np.int64),
        message_bytes=_bytes(log),
        online_s=np.array(changes, np.float64),
        online_count=np.array(counts, np.int32),
        view_active=np.array(log.views, np.float64).reshape(-1, 4),
    )


def _columns(rows: list, count: int) -> tuple:
    return tuple(zip(*rows, strict=True)) if rows else ((),) * count


def _bytes(log: Log) -> np.ndarray:
    total = np.zeros(len(KINDS))
    for kind, size in BYTES.items():
        total[kind] = log.sent[kind] * size
    kinds, sent = ([row[column] for row in log.transfers] for column in (2, 6))
    return total + np.bincount(np.array(kinds, np.int64), np.array(sent, np.float64), len(KINDS))
