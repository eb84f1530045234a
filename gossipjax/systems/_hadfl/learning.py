"""From what happened to the timeline of the learning: units, rings, copies, and the messages between them.

Rows: the n devices; row n, the last mean of a ring, which begins as the model of device 0; and a slot for each mean
that is still to be read, and for each model of a member that died in a ring whose mean it is in. A ring of more than
:data:`LANES` members is written as several events at one time, which build the mean m of a members up by b more:
``m ← m a/(a + b) + Σ x_i/(a + b)``.

The messages of the events are whole models: broadcasts, backups, restorations, and 2 (M − 1) of a ring that took its
mean. Fragments of rings that started anew or were abandoned stand in the activity of the plan only.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Num

from gossipjax.facts import Properties, Traffic
from gossipjax.systems._hadfl.state import Run
from gossipjax.systems._hadfl.tables import AVERAGE, COPY, DROPPED, IN_FLIGHT, KEEP, READ, SEND, SUPERSEDED, UNIT
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
    used = sorted(read, key=lambda model: (written[model], model))
    slots, num_slots = assign_slots(
        np.array([written[model] for model in used], np.int64), np.array([read[model] for model in used], np.int64)
    )
    row = {model: n + 1 + int(slot) for model, slot in zip(used, slots, strict=True)}
    events = [_with_rows(group, row) for group in groups]
    fates = np.bincount(np.array(run.fates, np.int64), minlength=4).tolist()
    ring_models = sum(2 * (len(members) - 1) for members, _ in run.members.values())
    traffic = Traffic(
        sent=len(run.fates) + ring_models,
        delivered=fates[READ] + ring_models,
        dropped=fates[DROPPED],
        superseded=fates[SUPERSEDED],
        in_flight=fates[IN_FLIGHT],
    )
    words = f"group: up to {LANES} members of a ring, or a mean and the own model"
    facts = Properties(n, n + 1, name, {"rings"}, num_slots=num_slots, traffic=traffic, messages=words)
    return from_events(_columns(events), facts)


def _mean(number: int) -> int:
    """Stand for the row of a mean until it has one."""
    return -1 - 2 * number


def _kept(number: int) -> int:
    """Stand for the row of a model that is kept, until it has one."""
    return -2 - 2 * number


def _numbered(run: Run) -> tuple[list[_Group], dict[int, int], dict[int, int]]:
    """List the events, in which negative numbers stand for models; and where each is written, and read last."""
    n, written, read = run.settings.num_nodes, {_mean(0): 0}, {}
    groups = [_Group(0.0, members=(0,), weights=(1.0,), targets=(n, _mean(0)))]
    for moment in run.moments:
        node, seconds, model = moment.node, moment.seconds, _mean(moment.number)
        if moment.kind == AVERAGE:
            for member in run.members[moment.number][0]:
                if member.kept >= 0:
                    read[_kept(member.kept)] = len(groups) + len(run.members[moment.number][0])
            groups.extend(_ring(run, seconds, moment.number))
            written[model] = len(groups) - 1
        elif moment.kind == KEEP:
            written[_kept(moment.number)] = len(groups)
            groups.append(_Group(seconds, members=(node,), weights=(1.0,), targets=(_kept(moment.number),)))
        elif moment.kind == SEND:
            groups.append(_Group(seconds, speakers=(node,), messages=(1,)))
        elif moment.kind == COPY:
            read[model] = len(groups)
            groups.append(_Group(seconds, members=(model,), weights=(1.0,), targets=(node,)))
        elif moment.kind == UNIT and moment.number < 0:
            groups.append(_Group(seconds, node))
        else:
            read[model] = len(groups)
            groups.append(_Group(seconds, node, (node, model), (1.0 - moment.beta, moment.beta), (node,)))
    return groups, written, read


def _ring(run: Run, seconds: float, number: int) -> list[_Group]:
    """Average the members into the row of the last mean; the last event copies it to the living, and to its slot."""
    members, living = run.members[number]
    rows = [member.node if member.kept < 0 else _kept(member.kept) for member in members]
    row, groups, done = run.settings.num_nodes, [], 0
    while done < len(members):
        new = range(done, min(len(members), done + LANES - (done > 0)))
        total = new.stop
        old = (row,) if done else ()
        weights = (done / total,) * bool(done) + (1.0 / total,) * len(new)
        # A ring of M sends 2 (M − 1) models altogether: M members one each, and all but two a second one.
        counts = tuple(2 if k < len(members) - 2 else 1 for k in new)
        speakers = tuple(members[k].node for k in new)
        groups.append(_Group(seconds, NOBODY, (*old, *(rows[k] for k in new)), weights, (row,), speakers, counts))
        done = total
    groups[-1] = groups[-1]._replace(targets=(row, _mean(number), *living[: LANES - 1]))
    for begin in range(LANES - 1, len(living), LANES):
        groups.append(_Group(seconds, NOBODY, (row,), (1.0,), tuple(living[begin : begin + LANES])))
    return groups


def _with_rows(group: _Group, row: dict[int, int]) -> _Group:
    """Put rows in the place of models; a model that nobody reads is not written."""
    members = tuple(row.get(each, each) for each in group.members)
    targets = tuple(row.get(each, each) for each in group.targets)
    return group._replace(members=members, targets=tuple(each for each in targets if each >= 0))


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
