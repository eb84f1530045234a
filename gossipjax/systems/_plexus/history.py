"""What a plan of Plexus holds in addition to other plans: rounds, fates, members, messages by type, views."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float64, Int8, Int32, Int64

from gossipjax._base.arguments import reals, whole, wholes
from gossipjax._base.display import displayed
from gossipjax.systems._activity import CUT, Activity
from gossipjax.systems._details import Details
from gossipjax.systems._plexus.sizes import AGGREGATED, KINDS, TRAINED

FATES = ("running", "interrupted", "gone", "trained", "unsent", "cancelled", "stored", "late", "dropped", "averaged")
"""What became of a training: under way at the end; interrupted by a later round; its node went offline before its end;
finished, but its model is still with its node; no live aggregator was found; its upload was cut, or never begun; it is
in an aggregation that is open at the end; it came after the mean was taken; its aggregation was dropped; averaged."""
RUNNING, INTERRUPTED, GONE, TRAINED_ONLY, UNSENT, CANCELLED, STORED, LATE, DROPPED, AVERAGED = range(len(FATES))


@displayed
@dataclasses.dataclass(frozen=True, eq=False)
class PlexusHistory(Details):
    """What happened in a run of Plexus, in the order of time. Times are seconds from the start, rounds count from 1.

    Attributes:
        outcome: "rounds", "duration" or "stalled": why it ended.
        report: one line on the outcome, with the state of the network if it stalled.
        training_node: ``(t,)`` who trains.
        training_round: ``(t,)`` in which round.
        training_start_s: ``(t,)`` when it starts.
        training_end_s: ``(t,)`` when it ends or is interrupted; the end of the run if it is under way then.
        training_source: ``(t,)`` the aggregation whose mean it starts from; -1: the common initial model.
        training_fate: ``(t,)`` see :data:`FATES`.
        aggregation_s: ``(a,)`` when the mean is taken.
        aggregation_node: ``(a,)`` by whom.
        aggregation_round: ``(a,)`` the round whose trainings it averages.
        member_offsets: ``(a + 1,)``; aggregation a averages ``members[member_offsets[a] : member_offsets[a + 1]]``.
        members: ``(m,)`` numbers of trainings.
        transfer_sender: ``(x,)`` of each model message between two nodes.
        transfer_receiver: ``(x,)``.
        transfer_kind: ``(x,)`` number in :data:`KINDS`.
        transfer_start_s: ``(x,)`` when it is asked for; it may wait for bandwidth.
        transfer_end_s: ``(x,)`` when it completes or is cancelled; the end of the run if it is under way then.
        transfer_size: ``(x,)`` bytes of the message.
        transfer_sent: ``(x,)`` bytes that were sent.
        transfer_state: ``(x,)`` as :class:`gossipjax.systems.Activity` says.
        messages_sent: ``(7,)`` by type, see :data:`KINDS`.
        messages_delivered: ``(7,)``.
        messages_lost: ``(7,)`` the receiver was offline, or the transfer was cancelled.
        messages_in_flight: ``(7,)`` at the end of the run; sent = delivered + lost + in flight.
        message_bytes: ``(7,)`` bytes sent, those of transfers that were cut included.
        online_s: ``(o,)`` when the number of nodes online changed; starts with 0.
        online_count: ``(o,)`` from then on.
        view_active: ``(a, 4)`` at each aggregation min, mean, median and max over the nodes online of how many nodes
            each believes active; n without churn, where views are equal.
    """

    outcome: str
    report: str
    training_node: Int32[np.ndarray, " t"]
    training_round: Int32[np.ndarray, " t"]
    training_start_s: Float64[np.ndarray, " t"]
    training_end_s: Float64[np.ndarray, " t"]
    training_source: Int32[np.ndarray, " t"]
    training_fate: Int8[np.ndarray, " t"]
    aggregation_s: Float64[np.ndarray, " a"]
    aggregation_node: Int32[np.ndarray, " a"]
    aggregation_round: Int32[np.ndarray, " a"]
    member_offsets: Int64[np.ndarray, " a1"]
    members: Int32[np.ndarray, " m"]
    transfer_sender: Int32[np.ndarray, " x"]
    transfer_receiver: Int32[np.ndarray, " x"]
    transfer_kind: Int8[np.ndarray, " x"]
    transfer_start_s: Float64[np.ndarray, " x"]
    transfer_end_s: Float64[np.ndarray, " x"]
    transfer_size: Int64[np.ndarray, " x"]
    transfer_sent: Float64[np.ndarray, " x"]
    transfer_state: Int8[np.ndarray, " x"]
    messages_sent: Int64[np.ndarray, "7"]
    messages_delivered: Int64[np.ndarray, "7"]
    messages_lost: Int64[np.ndarray, "7"]
    messages_in_flight: Int64[np.ndarray, "7"]
    message_bytes: Float64[np.ndarray, "7"]
    online_s: Float64[np.ndarray, " o"]
    online_count: Int32[np.ndarray, " o"]
    view_active: Float64[np.ndarray, "a 4"]

    def _facts(self) -> tuple[str, dict[str, Any]]:
        counts = {"trainings": self.training_node.size, "transfers": self.transfer_sender.size}
        return self.report, counts | {"means": self.aggregation_s.size}

    def members_of(self, aggregation: int) -> Int32[np.ndarray, " m"]:
        """Return the numbers of the trainings that an aggregation averages."""
        last = self.aggregation_s.size - 1
        aggregation = whole("aggregation", aggregation, least=0, most=last, remedy="one of those in the plan")
        return self.members[self.member_offsets[aggregation] : self.member_offsets[aggregation + 1]]

    @property
    def ended_by(self) -> str:
        """The outcome."""
        return self.outcome

    def check(self, n: int, activity: Activity) -> None:
        """Hold the columns against each other, and against the activity of the plan of n nodes.

        Raises:
            ValueError: columns of different lengths, or numbers that stand for nothing.
        """
        _check(self, n, activity)

    def summary(self) -> str:
        """Say in a few lines what happened."""
        fates = np.bincount(self.training_fate, minlength=len(FATES))
        by_kind = ", ".join(
            f"{count:,} {kind} ({size / 1e6:,.2f} MB)"
            for kind, count, size in zip(KINDS, self.messages_sent, self.message_bytes, strict=True)
            if count
        )
        lost = ", ".join(f"{count:,} {fate}" for fate, count in zip(FATES, fates, strict=True) if count)
        return f"{self.report}\ntrainings: {lost}\nmessages: {by_kind}"

    def round_end_s(self) -> Float64[np.ndarray, " r"]:
        """Return when the first mean of each round was taken; NaN where none was."""
        rounds, first = np.unique(self.aggregation_round, return_index=True)
        ends = np.full(int(rounds.max(initial=0)), np.nan)
        ends[rounds - 1] = self.aggregation_s[first]
        return ends

    def activity(self) -> Activity:
        """Return who trained, sent and averaged in the form of all systems; the arrays are the same."""
        return Activity(
            training_node=self.training_node,
            training_start_s=self.training_start_s,
            training_end_s=self.training_end_s,
            training_completed=self.training_fate >= TRAINED_ONLY,
            sender=self.transfer_sender,
            receiver=self.transfer_receiver,
            asked_s=self.transfer_start_s,
            ended_s=self.transfer_end_s,
            sent_bytes=self.transfer_sent,
            state=self.transfer_state,
            mean_s=self.aggregation_s,
            mean_node=self.aggregation_node,
        )


def _check(history: PlexusHistory, n: int, activity: Activity) -> None:
    """Check that the columns agree with each other and with the activity of a plan of n nodes.

    Raises:
        ValueError: if columns differ in length, or refer to nodes, trainings, means or types that do not exist.
    """
    trainings = np.shape(history.training_node)
    means, transfers, most = np.shape(history.aggregation_s), np.shape(history.transfer_sender), np.iinfo(np.int64).max
    for name, shape, least, last in (
        ("training_node", (None,), 0, n - 1),
        ("training_round", trainings, 1, most),
        ("training_source", trainings, -1, history.aggregation_s.size - 1),
        ("training_fate", trainings, 0, len(FATES) - 1),
        ("aggregation_node", means, 0, n - 1),
        ("aggregation_round", means, 1, most),
        ("member_offsets", (history.aggregation_s.size + 1,), 0, history.members.size),
        ("members", (None,), 0, history.training_node.size - 1),
        ("transfer_sender", (None,), 0, n - 1),
        ("transfer_receiver", transfers, 0, n - 1),
        ("transfer_kind", transfers, TRAINED, AGGREGATED),
        ("transfer_size", transfers, 0, most),
        ("transfer_state", transfers, 0, CUT),
        *((f"messages_{name}", (len(KINDS),), 0, most) for name in ("sent", "delivered", "lost", "in_flight")),
        ("online_count", np.shape(history.online_s), 0, n),
    ):
        wholes(name, getattr(history, name), shape=shape, least=least, most=last)
    for name, shape in (
        ("training_start_s", trainings),
        ("training_end_s", trainings),
        ("aggregation_s", (None,)),
        ("transfer_start_s", transfers),
        ("transfer_end_s", transfers),
        ("transfer_sent", transfers),
        ("message_bytes", (len(KINDS),)),
        ("online_s", (None,)),
        ("view_active", (*means, 4)),
    ):
        reals(name, getattr(history, name), shape=shape, least=0)
    if (np.diff(history.member_offsets) < 0).any() or (np.diff(history.aggregation_s) < 0).any():
        raise ValueError("member_offsets or aggregation_s decreases")
    for name, mine, other in zip(Activity._fields, history.activity(), activity, strict=True):
        if not np.array_equal(mine, other):
            raise ValueError(f"{name} of the activity is not that of the history")
