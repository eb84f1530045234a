"""Who trained, sent and averaged when: one form for the plans of all systems, and what they cost up to any time."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Float64, Int8, Int32, Int64, Num

from gossipjax._base import npz
from gossipjax._base.arguments import instance, real, reals, whole, wholes
from gossipjax._base.calls import recorded
from gossipjax._base.display import displayed, size
from gossipjax.systems._plexus.plan import CUT, TRAINED_ONLY, PlexusPlan, check_plexus
from gossipjax.types import Timeline


@displayed
class Activity(NamedTuple):
    """Trainings, model messages and means, each in no particular order; seconds from a common origin."""

    training_node: Int32[np.ndarray, " t"]
    training_start_s: Float64[np.ndarray, " t"]
    training_end_s: Float64[np.ndarray, " t"]
    """When it ends or is interrupted."""
    training_completed: Bool[np.ndarray, " t"]
    sender: Int32[np.ndarray, " x"]
    receiver: Int32[np.ndarray, " x"]
    """-1: not known, of a message under way when the plan ends."""
    asked_s: Float64[np.ndarray, " x"]
    """When the transfer is asked for; it may wait for bandwidth."""
    ended_s: Float64[np.ndarray, " x"]
    """When it completes, is cut, or the plan ends."""
    sent_bytes: Float64[np.ndarray, " x"]
    state: Int8[np.ndarray, " x"]
    """:data:`UNDER_WAY`, ``COMPLETED`` or ``CUT``."""
    mean_s: Float64[np.ndarray, " a"]
    mean_node: Int32[np.ndarray, " a"]
    """Who takes a mean, or merges what it received."""

    def _facts(self) -> tuple[str, dict[str, Any]]:
        sizes = {"trainings": self.training_node.size, "transfers": self.sender.size, "means": self.mean_node.size}
        return "", sizes | {"sent": size(self.sent_bytes.sum())}


@displayed
@dataclasses.dataclass(frozen=True, eq=False)
class SystemPlan:
    """A planned run of a system on devices: its timeline, and what its nodes did meanwhile.

    What happens is kept in patterns: piece k is ``activities[pattern[k]]``, shifted by ``begin_s[k]``. Rounds that go
    alike are one pattern; no piece lasts beyond the beginning of the next. :func:`activity` writes them out.

    Attributes:
        name: the system and its settings.
        timeline: run the system's protocol on it.
        end_s: seconds.
        activities: patterns, seconds from their beginning.
        pattern: ``(k,)`` of each piece.
        begin_s: ``(k,)`` seconds, increasing.
        round_end_s: ``(r,)`` seconds at which the last node has finished each round; empty where there are no rounds.
        round_bytes: ``(r,)`` bytes sent for each round, those of transfers that were cut included.
        round_dropped: ``(r,)`` transfers of each round that were cut.
        node_round_end_s: ``(r, n)`` when each node has finished each round, where nodes drift apart; else ``(0, n)``.
    """

    name: str
    timeline: Timeline
    end_s: float
    activities: tuple[Activity, ...]
    pattern: Int64[np.ndarray, " k"]
    begin_s: Float64[np.ndarray, " k"]
    round_end_s: Float64[np.ndarray, " r"]
    round_bytes: Float64[np.ndarray, " r"]
    round_dropped: Int64[np.ndarray, " r"]
    node_round_end_s: Float64[np.ndarray, "r2 n"]

    @property
    def num_nodes(self) -> int:
        """Number of nodes n."""
        return self.timeline.properties.num_nodes

    @property
    def round_seconds(self) -> Float64[np.ndarray, " r"]:
        """Seconds from the end of one round to that of the next, the first from 0 on."""
        return np.diff(self.round_end_s, prepend=0.0)

    @property
    def node_training_seconds(self) -> Float64[np.ndarray, " n"]:
        """Seconds that each node trained, in trainings that were interrupted too."""
        used = np.bincount(self.pattern, minlength=len(self.activities))
        total = np.zeros(self.num_nodes)
        for times, found in zip(used, self.activities, strict=True):
            seconds = found.training_end_s - found.training_start_s
            total += times * np.bincount(found.training_node, seconds, self.num_nodes)
        return total

    def total_bytes(self, until_s: int | float) -> float:
        """Bytes sent up to a time; see :func:`traffic_series`."""
        until_s = real("until_s", until_s, infinite=True, unit="seconds")
        return float(traffic_series(self, np.array([until_s]))[0])

    def training_seconds(self, until_s: int | float) -> float:
        """Seconds of training, over all nodes, up to a time; see :func:`training_series`."""
        until_s = real("until_s", until_s, infinite=True, unit="seconds")
        return float(training_series(self, np.array([until_s]))[0])

    def _facts(self) -> tuple[str, dict[str, Any]]:
        used = np.bincount(self.pattern, minlength=len(self.activities)).tolist()
        pairs = list(zip(used, self.activities, strict=True))
        counts = {
            "nodes": self.num_nodes,
            "events": len(self.timeline),
            "rounds": self.round_end_s.size or None,
            "trainings": sum(times * found.training_node.size for times, found in pairs),
            "transfers": sum(times * found.sender.size for times, found in pairs),
        }
        sent = sum(times * found.sent_bytes.sum() for times, found in pairs)
        return self.name, counts | {"duration": f"{self.end_s:,.1f} s", "sent": size(sent)}

    def summary(self) -> str:
        """Say in a few lines what happened."""
        used = np.bincount(self.pattern, minlength=len(self.activities))
        pairs = list(zip(used.tolist(), self.activities, strict=True))
        trainings = sum(times * found.training_node.size for times, found in pairs)
        lost = sum(times * int(np.count_nonzero(~found.training_completed)) for times, found in pairs)
        messages = sum(times * found.sender.size for times, found in pairs)
        cut = sum(times * int(np.count_nonzero(found.state == CUT)) for times, found in pairs)
        sent, seconds = self.total_bytes(self.end_s), self.training_seconds(self.end_s)
        return (
            f"{self.name}\n{self.end_s:,.1f} s\ntrainings: {trainings:,}, {lost:,} not finished, {seconds / 3600:,.2f} "
            f"h in all\ntransfers: {messages:,}, {cut:,} cut, {sent / 2**30:,.3f} GiB sent"
        )

    def save(self, path: str | os.PathLike[str]) -> pathlib.Path:
        """Write one .npz file, which :func:`load_plan` reads; whole or not at all."""
        return npz.save(self, path)


Plan: TypeAlias = SystemPlan | PlexusPlan
"""A plan of any system."""
_Spans: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Begins, ends, amounts."""


@recorded()
def load_plan(path: str | os.PathLike[str], *, max_bytes: int | None = None) -> Plan:
    """Read the plan of any system that its ``save`` wrote; run it as it would have been run then.

    Args:
        path: of the file.
        max_bytes: that it may inflate to; None: 1 GiB, or 64 times the size of the file if that is more.

    Raises:
        ValueError: no such file, no plan, one of another version of this package, one that was changed since it was
            saved, one that contradicts itself, or one that inflates to more.
    """
    plan: Plan = npz.load(path, (SystemPlan, PlexusPlan), max_bytes=max_bytes)
    try:
        check_plexus(plan) if isinstance(plan, PlexusPlan) else _check_system(plan)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} holds no plan that a system can have made ({error}); plan the run again") from error
    return plan


def _check_system(plan: SystemPlan) -> None:
    """Hold the parts of a plan against each other."""
    instance("timeline", plan.timeline, Timeline, "of the plan")
    n, total = plan.num_nodes, len(instance("activities", plan.activities, tuple, "of Activity"))
    whole("num_nodes", n, least=1)
    real("end_s", plan.end_s, least=0, unit="seconds")
    pattern = wholes("pattern", plan.pattern, shape=(None,), least=0, most=total - 1)
    begins = reals("begin_s", plan.begin_s, shape=pattern.shape, least=0, unit="seconds")
    if (np.diff(begins) < 0).any():
        raise ValueError("begin_s decreases")
    ends = reals("round_end_s", plan.round_end_s, shape=(None,), least=0, unit="seconds")
    for name in ("round_bytes", "round_dropped"):
        reals(name, getattr(plan, name), shape=ends.shape, least=0)
    reals("node_round_end_s", plan.node_round_end_s, shape=(None, n), least=0, unit="seconds")
    for found in plan.activities:
        _check_activity(instance("activities", found, Activity, "of the plan"), n)


def _check_activity(found: Activity, n: int) -> None:
    nodes = wholes("training_node", found.training_node, shape=(None,), least=0, most=n - 1)
    for name in ("training_start_s", "training_end_s", "training_completed"):
        _same_length(name, getattr(found, name), nodes)
    senders = wholes("sender", found.sender, shape=(None,), least=0, most=n - 1)
    wholes("receiver", found.receiver, shape=senders.shape, least=-1, most=n - 1)
    wholes("state", found.state, shape=senders.shape, least=0, most=CUT)
    for name in ("asked_s", "ended_s", "sent_bytes"):
        _same_length(name, getattr(found, name), senders)
    _same_length("mean_s", found.mean_s, wholes("mean_node", found.mean_node, shape=(None,), least=0, most=n - 1))


def _same_length(name: str, column: np.ndarray, other: np.ndarray) -> None:
    kind = getattr(column, "dtype", np.dtype(object)).kind
    if np.shape(column) != other.shape or kind not in "biuf" or not np.isfinite(column).all():
        raise ValueError(f"{name} of shape {np.shape(column)}: must be {other.size} finite numbers, one for each")


def activity(plan: Plan, first_s: int | float = 0.0, last_s: int | float = np.inf) -> Activity:
    """Write out who trained, sent and averaged between two times.

    Args:
        plan: of any system.
        first_s: seconds; what ended before is left out.
        last_s: seconds; what begins later is left out.

    Returns:
        All of it, seconds from the beginning of the run.
    """
    first_s = real("first_s", first_s, unit="seconds")
    last_s = real("last_s", last_s, least=first_s, infinite=True, unit="seconds", remedy="not before first_s")
    activities, pattern, begin = _pieces(plan)
    last_end = np.append(begin[1:], np.inf)
    chosen = np.flatnonzero((begin <= last_s) & (last_end >= first_s))
    parts = [_shifted(activities[pattern[k]], float(begin[k])) for k in chosen]
    whole = Activity(*(np.concatenate(column) for column in zip(*parts, strict=True))) if parts else activities[0]
    return _within(whole, first_s, last_s)


def traffic_series(plan: Plan, times_s: Num[np.ndarray, " r"]) -> Float[np.ndarray, " r"]:
    """Count the bytes of models sent up to given times, those of transfers that are cut later included.

    A transfer under way counts in proportion to the time since it was asked for: exact where its rate is constant.

    Args:
        plan: of any system.
        times_s: seconds, in any order.

    Returns:
        Bytes.
    """
    return _series(plan, times_s, lambda found: (found.asked_s, found.ended_s, found.sent_bytes))


def training_series(plan: Plan, times_s: Num[np.ndarray, " r"]) -> Float[np.ndarray, " r"]:
    """Sum the seconds of training of all nodes up to given times, those of interrupted trainings included.

    Args:
        plan: of any system.
        times_s: seconds, in any order.

    Returns:
        Seconds.
    """
    return _series(plan, times_s, _trainings)


def _trainings(found: Activity) -> _Spans:
    return found.training_start_s, found.training_end_s, found.training_end_s - found.training_start_s


def _pieces(plan: Plan) -> tuple[tuple[Activity, ...], np.ndarray, np.ndarray]:
    instance("plan", plan, (SystemPlan, PlexusPlan), "plan a run with gossipjax.systems, such as plexus")
    if isinstance(plan, PlexusPlan):
        return (_of_plexus(plan),), np.zeros(1, np.int64), np.zeros(1)
    return plan.activities, plan.pattern, plan.begin_s


def _of_plexus(plan: PlexusPlan) -> Activity:
    return Activity(
        training_node=plan.training_node,
        training_start_s=plan.training_start_s,
        training_end_s=plan.training_end_s,
        training_completed=plan.training_fate >= TRAINED_ONLY,
        sender=plan.transfer_sender,
        receiver=plan.transfer_receiver,
        asked_s=plan.transfer_start_s,
        ended_s=plan.transfer_end_s,
        sent_bytes=plan.transfer_sent,
        state=plan.transfer_state,
        mean_s=plan.aggregation_s,
        mean_node=plan.aggregation_node,
    )


def _shifted(found: Activity, seconds: float) -> Activity:
    times = {name: getattr(found, name) + seconds for name in Activity._fields if name.endswith("_s")}
    return found._replace(**times)


def _within(found: Activity, first_s: float, last_s: float) -> Activity:
    trained = (found.training_end_s >= first_s) & (found.training_start_s <= last_s)
    moved = (found.ended_s >= first_s) & (found.asked_s <= last_s)
    averaged = (found.mean_s >= first_s) & (found.mean_s <= last_s)
    return Activity(
        *(column[trained] for column in found[:4]),
        *(column[moved] for column in found[4:10]),
        *(column[averaged] for column in found[10:]),
    )


def _series(plan: Plan, times_s: np.ndarray, spans: Callable[[Activity], _Spans]) -> np.ndarray:
    """Sum the pieces before each time, and the part of the piece that is under way."""
    times = reals("times_s", times_s, shape=(None,), infinite=True, unit="seconds")
    activities, pattern, begin = _pieces(plan)
    amounts = np.array([spans(found)[2].sum() for found in activities])
    before = np.append(0.0, np.cumsum(amounts[pattern]))
    piece = np.searchsorted(begin, times, side="right") - 1
    result = np.zeros(times.shape)
    for number in np.unique(pattern[piece[piece >= 0]]):
        at = np.flatnonzero((piece >= 0) & (pattern[np.maximum(piece, 0)] == number))
        result[at] = before[piece[at]] + _progress(spans(activities[number]), times[at] - begin[piece[at]])
    return result


def _progress(spans: _Spans, times: np.ndarray) -> np.ndarray:
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
