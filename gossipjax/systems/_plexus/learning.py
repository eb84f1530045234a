"""Turn a planned run into a timeline of its learning: only models that are needed later are stored and trained."""

from __future__ import annotations

import heapq
import itertools
from typing import NamedTuple

import numpy as np

from gossipjax.facts import Properties, Traffic
from gossipjax.systems._plexus.history import PlexusHistory
from gossipjax.systems._plexus.sizes import AGGREGATED, TRAINED
from gossipjax.timeline._from_events import from_events
from gossipjax.types import NOBODY, Timeline

GLOBAL = 0
"""The row of the global model; models in training have the slots after it."""


class _Uses(NamedTuple):
    """Which aggregations and trainings affect the result, and when they are used."""

    newest: list[bool]
    """By aggregation: whether it is of a later round than all before it, and so becomes the global model."""
    live: list[bool]
    """By aggregation: whether anything depends on it."""
    first: dict[int, int]
    """The first aggregation that takes each training."""
    last: dict[int, int]
    """The last one."""


def timeline_of(plan: PlexusHistory, name: str, num_nodes: int) -> Timeline:
    """Make the timeline of the learning: one event per aggregation, after one that hands out the initial model.

    At the event of a mean, the trainings that enter it for the first time are carried out, each at the slot that holds
    the model it started from; then ``x_g ← Σ_j x_j / m`` over the slots of all its members, for the global model and
    the slots of all trainings that start from this mean and will enter one. A training that enters two means (where
    views differ) is carried out once; one that enters none is not. Row 0 is the global model of the latest round; of
    several means of one round the first. Slots are assigned as a compiler assigns registers: there are as many as
    models alive at a time. Time is that of the mean. Each event counts the model messages asked for since the one
    before, those of wasted trainings included; the last one also those after it. Where no mean was ever taken, the
    first event is the only one.

    The run counts models, to which the plan adds a view and an overhead in each message. The first mean is event 1:
    where the keys of FedAvg's own rounds fold in r, those of round r = 1, 2, … here do too, which is one more than
    :func:`gossipjax.timeline.client_sampling` counts.

    Args:
        plan: what happened.
        name: the system and its settings.
        num_nodes: n.
    """
    averaged = _members(plan)
    uses = _uses(plan, averaged)
    members, trained, copies, num_slots = _slots(plan, uses, averaged)
    present = np.array([len(row) for row in members])
    rows = _padded(members)
    weights = np.where(rows == NOBODY, 0.0, 1.0 / np.maximum(present, 1)[:, None])
    acting = _padded(trained)
    taking = np.where(acting == NOBODY, 0, acting)
    slot_of = np.append(_slot_of(copies, plan), NOBODY)
    xs = {
        "time": np.append(0.0, plan.aggregation_s),
        "nodes": np.where(acting == NOBODY, NOBODY, plan.training_node[taking]),
        "rows": slot_of[np.where(acting == NOBODY, -1, acting)],
        "members": rows[:, None],
        "weights": weights[:, None],
        "targets": _targets(uses, copies)[:, None],
        "messages": _messages(plan)[:, None],
    }
    return from_events(xs, _properties(plan, name, num_nodes, num_slots))


def _members(plan: PlexusHistory) -> list[list[int]]:
    """Trainings that each aggregation averages."""
    edges, members = plan.member_offsets.tolist(), plan.members.tolist()
    return [members[begin:end] for begin, end in itertools.pairwise(edges)]


def _uses(plan: PlexusHistory, members: list[list[int]]) -> _Uses:
    """Go back in time: a mean is live if it becomes the global model, or if a training from it enters a live mean."""
    total = plan.aggregation_s.size
    best = np.maximum.accumulate(plan.aggregation_round)
    newest = (plan.aggregation_round > np.append(0, best)[:total]).tolist()
    live = list(newest)
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    source = plan.training_source.tolist()
    for aggregation in range(total - 1, -1, -1):
        if not live[aggregation]:
            continue
        for training in members[aggregation]:
            first[training] = aggregation
            last.setdefault(training, aggregation)
            if source[training] >= 0:
                live[source[training]] = True
    return _Uses(newest, live, first, last)


def _slots(
    plan: PlexusHistory, uses: _Uses, averaged: list[list[int]]
) -> tuple[list[list[int]], list[list[int]], list[list[tuple[int, int]]], int]:
    """Assign slots in the order of events; all models are read before any is written, so an event may reuse its own.

    Returns, by event, the slots of the members, the trainings carried out, and pairs of a training and the slot that
    takes the mean for it; and the number of slots.
    """
    starting: list[list[int]] = [[] for _ in range(plan.aggregation_s.size + 1)]
    source = plan.training_source.tolist()
    for training in sorted(uses.first):
        starting[source[training] + 1].append(training)
    free: list[int] = []
    slot: dict[int, int] = {}
    count = 0
    members, trained, copies = [[GLOBAL]], [[]], []  # type: tuple[list, list, list]
    for event, starts in enumerate(starting):
        if event:
            taken = averaged[event - 1] if uses.live[event - 1] else []
            members.append([slot[training] for training in taken])
            trained.append([training for training in taken if uses.first[training] == event - 1])
            for training in taken:
                if uses.last[training] == event - 1:
                    heapq.heappush(free, slot.pop(training))
        copies.append([])
        for training in starts:
            if not free:
                count += 1
                free.append(GLOBAL + count)
            slot[training] = heapq.heappop(free)
            copies[-1].append((training, slot[training]))
    return members, trained, copies, count


def _slot_of(copies: list[list[tuple[int, int]]], plan: PlexusHistory) -> np.ndarray:
    """Slot of each training while it is live."""
    found = np.full(plan.training_node.size, NOBODY, np.int64)
    pairs = np.array([pair for event in copies for pair in event], np.int64).reshape(-1, 2)
    found[pairs[:, 0]] = pairs[:, 1]
    return found


def _targets(uses: _Uses, copies: list[list[tuple[int, int]]]) -> np.ndarray:
    """Rows that take each mean."""
    globally = [[], *([GLOBAL] if newest else [] for newest in uses.newest)]
    return _padded([row + [slot for _, slot in pairs] for row, pairs in zip(globally, copies, strict=True)])


def _padded(rows: list[list[int]]) -> np.ndarray:
    """Lists as rows of an array, filled up with nobody."""
    width = max(1, *map(len, rows))
    table = np.full((len(rows), width), NOBODY, np.int64)
    table[np.arange(width) < np.array([len(row) for row in rows])[:, None]] = [k for row in rows for k in row]
    return table


def _messages(plan: PlexusHistory) -> np.ndarray:
    """Model messages asked for up to each event, since the one before."""
    events = 1 + np.searchsorted(plan.aggregation_s, plan.transfer_start_s, side="left")
    last = plan.aggregation_s.size
    return np.bincount(np.minimum(events, last), minlength=last + 1).astype(np.uint32)


def _properties(plan: PlexusHistory, name: str, num_nodes: int, num_slots: int) -> Properties:
    models = [TRAINED, AGGREGATED]
    return Properties(
        num_nodes=num_nodes,
        num_rows=1,
        name=name,
        num_slots=num_slots,
        tags={"averages"},
        traffic=Traffic(
            int(plan.messages_sent[models].sum()),
            int(plan.messages_delivered[models].sum()),
            dropped=int(plan.messages_lost[models].sum()),
            in_flight=int(plan.messages_in_flight[models].sum()),
        ),
        messages="group: the trained models of a round, and those who start from their mean",
    )
