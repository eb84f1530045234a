"""Record what the kernel does not about a run of Plexus, and make the history of a plan from both records."""

from __future__ import annotations

import dataclasses

import numpy as np

from gossipjax.systems._kernel.record import Record, activity_of, columns
from gossipjax.systems._plexus.history import AVERAGED, PlexusHistory
from gossipjax.systems._plexus.sizes import BYTES, KINDS


def _zeros() -> list[int]:
    return [0] * len(KINDS)


@dataclasses.dataclass(slots=True)
class PlexusRecord:
    """Growing columns of the history; trainings and transfers are numbered as in the kernel's record."""

    training_round: list[int] = dataclasses.field(default_factory=list)
    training_source: list[int] = dataclasses.field(default_factory=list)
    fates: list[int] = dataclasses.field(default_factory=list)
    """Of trainings."""
    aggregations: list[tuple[int, list[int]]] = dataclasses.field(default_factory=list)
    """Round and members."""
    kinds: list[int] = dataclasses.field(default_factory=list)
    """Of transfers."""
    sent: list[int] = dataclasses.field(default_factory=_zeros)
    delivered: list[int] = dataclasses.field(default_factory=_zeros)
    lost: list[int] = dataclasses.field(default_factory=_zeros)
    online: list[tuple[float, int]] = dataclasses.field(default_factory=list)
    views: list[tuple[float, ...]] = dataclasses.field(default_factory=list)


def set_fate(record: PlexusRecord, number: int, fate: int) -> None:
    """Note the fate of a trained model; once averaged, it stays averaged."""
    if record.fates[number] != AVERAGED:
        record.fates[number] = fate


def aggregates(record: PlexusRecord, round_: int, members: list[int]) -> int:
    """Note a mean and its members; return its number."""
    for number in members:
        record.fates[number] = AVERAGED
    record.aggregations.append((round_, members))
    return len(record.aggregations) - 1


def make_history(
    common: Record,
    own: PlexusRecord,
    *,
    outcome: str,
    report: str,
    end_s: float,
    under_way: dict[int, float],
    in_flight: list[int],
) -> PlexusHistory:
    """Write the columns out as arrays.

    Args:
        common: the kernel's record.
        own: what Plexus adds.
        outcome: why the run ended.
        report: one line on it.
        end_s: when.
        under_way: bytes sent so far by each unfinished transfer.
        in_flight: number of control messages in flight, by type.
    """
    found = activity_of(common, end_s, under_way)
    averaged, members = columns(own.aggregations, 2)
    changes, counts = columns(own.online, 2)
    for number in under_way:
        in_flight[own.kinds[number]] += 1
    kinds = np.array(own.kinds, np.int8)
    return PlexusHistory(
        outcome=outcome,
        report=report,
        training_node=found.training_node,
        training_round=np.array(own.training_round, np.int32),
        training_start_s=found.training_start_s,
        training_end_s=found.training_end_s,
        training_source=np.array(own.training_source, np.int32),
        training_fate=np.array(own.fates, np.int8),
        aggregation_s=found.mean_s,
        aggregation_node=found.mean_node,
        aggregation_round=np.array(averaged, np.int32),
        member_offsets=np.cumsum([0, *map(len, members)], dtype=np.int64),
        members=np.array([number for group in members for number in group], np.int32),
        transfer_sender=found.sender,
        transfer_receiver=found.receiver,
        transfer_kind=kinds,
        transfer_start_s=found.asked_s,
        transfer_end_s=found.ended_s,
        transfer_size=np.array(common.size, np.int64),
        transfer_sent=found.sent_bytes,
        transfer_state=found.state,
        messages_sent=np.array(own.sent, np.int64),
        messages_delivered=np.array(own.delivered, np.int64),
        messages_lost=np.array(own.lost, np.int64),
        messages_in_flight=np.array(in_flight, np.int64),
        message_bytes=_bytes(own, kinds, found.sent_bytes),
        online_s=np.array(changes, np.float64),
        online_count=np.array(counts, np.int32),
        view_active=np.array(own.views, np.float64).reshape(-1, 4),
    )


def _bytes(own: PlexusRecord, kinds: np.ndarray, sent: np.ndarray) -> np.ndarray:
    total = np.zeros(len(KINDS))
    for kind, size in BYTES.items():
        total[kind] = own.sent[kind] * size
    return total + np.bincount(kinds.astype(np.int64), sent, len(KINDS))
