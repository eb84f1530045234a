"""From what happened to the timeline of the learning: units, rings, copies, and the messages between them.

Rows: the n devices; row n, the last mean of a ring, which begins as the model of device 0; and a slot for each mean
that is still to be read. A ring of more than :data:`LANES` members is written as several events at one time, which
build the mean up: ``m ← m a/(a + b) + Σ x_i/(a + b)`` for b further members.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Num

from gossipjax.facts import Properties, Traffic
from gossipjax.systems._hadfl.state import DROPPED, IN_FLIGHT, MERGED, RING, SEND, SUPERSEDED, UNIT, Run
from gossipjax.timeline._from_events import from_events
from gossipjax.timeline.flights import assign_slots
from gossipjax.types import NOBODY, Timeline

LANES = 8
"""Members of one group: each event gathers so many rows."""


class _Group(NamedTuple):
    """One event: who trains, what is averaged into which rows, and who sends how many models."""

    seconds: float
    node: int = NOBODY
    members: tuple[int, ...] = ()
    weights: tuple[float, ...] = ()
    targets: tuple[int, ...] = ()
    speakers: tuple[int, ...] = ()
    messages: tuple[int, ...] = ()


def timeline_of(run: Run, name: str) -> Timeline:
    """Write the run as a timeline of events."""
    n = run.settings.num_nodes
    groups, written, read = _numbered(run)
    used = sorted(read)
    slots, num_slots = assign_slots(
        np.array([written[mean] for mean in used], np.int64), np.array([read[mean] for mean in used], np.int64)
    )
    row = {-1 - mean: n + 1 + int(slot) for mean, slot in zip(used, slots, strict=True)}
    unread = {-1 - mean for mean in range(len(run.means))} - row.keys()
    events = [_with_rows(group, row, unread) for group in groups]
    fates = np.bincount(np.array(run.fates, np.int64), minlength=4).tolist()
    ring_models = sum(2 * (len(members) - 1) for members, _ in run.members.values())
    traffic = Traffic(
        sent=len(run.fates) + ring_models,
        delivered=fates[MERGED] + ring_models,
        dropped=fates[DROPPED],
        superseded=fates[SUPERSEDED],
        in_flight=fates[IN_FLIGHT],
    )
    words = f"group: up to {LANES} members of a ring, or a mean and the own model"
    facts = Properties(n, n + 1, name, num_slots=num_slots, traffic=traffic, messages=words)
    return from_events(_columns(events), facts)


def _numbered(run: Run) -> tuple[list[_Group], dict[int, int], dict[int, int]]:
    """List the events, in which row −1 − k stands for mean k; and where each mean is written, and read last."""
    n, written, read = run.settings.num_nodes, {0: 0}, {}
    groups = [_Group(0.0, members=(0,), weights=(1.0,), targets=(n, -1))]
    for moment in run.moments:
        mean, seconds = moment.mean, moment.seconds
        if moment.kind == RING:
            groups.extend(_ring(run, seconds, mean))
            written[mean] = len(groups) - 1
            continue
        if mean >= 0:
            read[mean] = len(groups)
        if moment.kind == SEND:
            groups.append(_Group(seconds, speakers=(moment.node,), messages=(1,)))
        elif moment.kind == UNIT and mean < 0:
            groups.append(_Group(seconds, moment.node))
        elif moment.kind == UNIT:
            pair, weights = (moment.node, -1 - mean), (1.0 - moment.beta, moment.beta)
            groups.append(_Group(seconds, moment.node, pair, weights, (moment.node,)))
        else:
            groups.append(_Group(seconds, NOBODY, (-1 - mean,), (1.0,), (moment.node,)))
    return groups, written, read


def _ring(run: Run, seconds: float, mean: int) -> list[_Group]:
    """Average the members into the row of the last mean; the last event copies it to the living, and to its slot."""
    members, living = run.members[mean]
    row, groups, done = run.settings.num_nodes, [], 0
    while done < len(members):
        new = members[done : done + LANES - (done > 0)]
        total = done + len(new)
        old = (row,) if done else ()
        weights = (done / total,) * bool(done) + (1.0 / total,) * len(new)
        # A ring of M sends 2 (M − 1) models altogether: M members one each, and all but two a second one.
        counts = tuple(2 if done + k < len(members) - 2 else 1 for k in range(len(new)))
        groups.append(_Group(seconds, NOBODY, (*old, *new), weights, (row,), tuple(new), counts))
        done = total
    groups[-1] = groups[-1]._replace(targets=(row, -1 - mean, *living[: LANES - 1]))
    for begin in range(LANES - 1, len(living), LANES):
        groups.append(_Group(seconds, NOBODY, (row,), (1.0,), tuple(living[begin : begin + LANES])))
    return groups


def _with_rows(group: _Group, row: dict[int, int], unread: set[int]) -> _Group:
    members = tuple(row.get(each, each) for each in group.members)
    return group._replace(
        members=members, targets=tuple(row.get(each, each) for each in group.targets if each not in unread)
    )


def _columns(events: list[_Group]) -> dict[str, np.ndarray]:
    members = _padded([event.members for event in events], NOBODY, np.int32)
    speakers = _padded([event.speakers for event in events], NOBODY, np.int32)
    return {
        "time": np.array([event.seconds for event in events], np.float64),
        "nodes": np.array([[event.node] for event in events], np.int32),
        "members": members[:, None],
        "weights": _padded([event.weights for event in events], 0.0, np.float64)[:, None],
        "targets": _padded([event.targets for event in events], NOBODY, np.int32)[:, None],
        "speakers": speakers,
        "messages": _padded([event.messages for event in events], 0, np.uint32),
    }


def _padded(rows: list[tuple], fill: int | float, kind: type) -> Num[np.ndarray, "t w"]:
    """Stack rows of different lengths."""
    width = max(1, max(len(row) for row in rows))
    out: np.ndarray = np.full((len(rows), width), fill, kind)
    for row, values in zip(out, rows, strict=True):
        row[: len(values)] = values
    return out
