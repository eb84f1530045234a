"""The plan of a run of any system: its timeline, who trained, sent and averaged when, and what that costs."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from typing import Any

import numpy as np
from jaxtyping import Float, Float64, Int64, Num

from gossipjax._base import npz
from gossipjax._base.arguments import instance, real, reals, whole, wholes
from gossipjax._base.calls import recorded
from gossipjax._base.display import displayed, size
from gossipjax.systems._activity import CUT, Activity, check_activity, shifted, within
from gossipjax.systems._details import Details
from gossipjax.systems._series import accrued, by_node, trainings_of, transfers_of
from gossipjax.systems._workload import Workload
from gossipjax.timeline._sound import check_loaded
from gossipjax.types import Ledger, Timeline, as_timeline


@displayed
@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """A planned run of any system on devices: its timeline, and what its nodes did during the run.

    ``gossipjax.simulate`` and ``gossipjax.run`` accept a plan in place of a timeline.

    A plan is stored as patterns: piece k is ``activities[pattern[k]]``, shifted by ``begin_s[k]``. Identical rounds
    share a pattern; every piece ends before the next begins. :func:`activity` writes the pieces out.

    Attributes:
        name: the system and its settings.
        timeline: the events of the learning; its properties say what the plan was made for.
        end_s: seconds.
        activities: patterns, seconds from their beginning.
        pattern: ``(k,)`` of each piece.
        begin_s: ``(k,)`` seconds, increasing.
        round_end_s: ``(r,)`` seconds at which the last node has finished each round, or its first mean is taken (NaN if
            there is none); empty if the system has no rounds.
        round_bytes: ``(q,)`` bytes sent for each round, including those of transfers that were cut; empty if transfers
            do not belong to rounds.
        round_dropped: ``(q,)`` number of transfers of each round that were cut; empty like ``round_bytes``.
        node_round_end_s: ``(r, n)`` seconds at which each node has finished each round, if nodes drift apart; otherwise
            ``(0, n)``.
        details: what the system adds: the :class:`gossipjax.systems.PlexusHistory` of Plexus, the
            :class:`gossipjax.systems.HADFLHistory` of HADFL; None for other systems.
    """

    name: str
    timeline: Timeline
    end_s: float
    activities: tuple[Activity, ...]
    pattern: Int64[np.ndarray, " k"]
    begin_s: Float64[np.ndarray, " k"]
    round_end_s: Float64[np.ndarray, " r"]
    round_bytes: Float64[np.ndarray, " q"]
    round_dropped: Int64[np.ndarray, " q"]
    node_round_end_s: Float64[np.ndarray, "r2 n"]
    details: Details | None = None

    @property
    def num_nodes(self) -> int:
        """Number of nodes n."""
        return self.timeline.properties.num_nodes

    @property
    def history(self) -> Any:
        """The ``details`` of a plan of Plexus or HADFL.

        Raises:
            ValueError: the plan is of another system.
        """
        if self.details is None:
            raise ValueError(
                f"{self.name} has no history, which only plexus and hadfl keep: see gossipjax.systems.activity"
            )
        return self.details

    @property
    def round_seconds(self) -> Float64[np.ndarray, " r"]:
        """Seconds from the end of each round to the end of the next; the first round begins at 0.

        In Plexus: between the first means of consecutive rounds; rounds without a mean are left out. In HADFL: between
        the means of consecutive rings.
        """
        seconds = np.diff(self.round_end_s, prepend=0.0)
        return seconds[~np.isnan(seconds)]

    @property
    def node_training_seconds(self) -> Float64[np.ndarray, " n"]:
        """Seconds that each node trained, including trainings that were interrupted."""
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

    def node_traffic(self, until_s: int | float = np.inf) -> Ledger:
        """Bytes sent and received by each node up to a time ≥ 0; see :func:`node_traffic`."""
        return node_traffic(self, until_s)

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
        counts |= {"ended by": None if self.details is None else self.details.ended_by}
        return self.name, counts | {"duration": f"{self.end_s:,.1f} s", "sent": size(sent)}

    def summary(self) -> str:
        """Describe the run in a few lines."""
        used = np.bincount(self.pattern, minlength=len(self.activities))
        pairs = list(zip(used.tolist(), self.activities, strict=True))
        trainings = sum(times * found.training_node.size for times, found in pairs)
        lost = sum(times * int(np.count_nonzero(~found.training_completed)) for times, found in pairs)
        messages = sum(times * found.sender.size for times, found in pairs)
        cut = sum(times * int(np.count_nonzero(found.state == CUT)) for times, found in pairs)
        sent, seconds = self.total_bytes(self.end_s), self.training_seconds(self.end_s)
        more = "" if self.details is None else f"\n{self.details.summary()}"
        return (
            f"{self.name}\n{self.end_s:,.1f} s\ntrainings: {trainings:,}, {lost:,} not finished, {seconds / 3600:,.2f} "
            f"h in all\ntransfers: {messages:,}, {cut:,} cut, {sent / 2**30:,.3f} GiB sent{more}"
        )

    def save(self, path: str | os.PathLike[str]) -> pathlib.Path:
        """Write one .npz file atomically; :func:`load_plan` reads it."""
        return npz.save(self, path)


@recorded(file="path")
def load_plan(path: str | os.PathLike[str], *, max_bytes: int | None = None) -> Plan:
    """Read a plan of any system that :meth:`Plan.save` wrote; it runs as it did before.

    Args:
        path: of the file.
        max_bytes: most bytes that the file may inflate to; None: 1 GiB, or 64 times the size of the file if that is
            more.

    Raises:
        ValueError: if the file does not exist, is not a plan, was written by another version of this package, was
            changed since, contradicts itself, or inflates to more than ``max_bytes``.
    """
    plan: Plan = npz.load(path, Plan, max_bytes=max_bytes)
    if isinstance(plan.timeline, Timeline):
        check_loaded(plan.timeline, path)
    try:
        _check(plan)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} holds no plan that a system can have made ({error}); plan the run again") from error
    return plan


def _check(plan: Plan) -> None:
    """Check that the parts of a plan agree with each other."""
    instance("timeline", plan.timeline, Timeline, "of the plan")
    n, total = plan.num_nodes, len(instance("activities", plan.activities, tuple, "of Activity"))
    whole("num_nodes", n, least=1)
    whole("number of activities", total, least=1)
    real("end_s", plan.end_s, least=0, unit="seconds")
    pattern = wholes("pattern", plan.pattern, shape=(None,), least=0, most=total - 1)
    begins = reals("begin_s", plan.begin_s, shape=pattern.shape, least=0, unit="seconds")
    if (np.diff(begins) < 0).any():
        raise ValueError("begin_s decreases")
    ends = plan.round_end_s if plan.details is None else np.nan_to_num(plan.round_end_s)
    ends = reals("round_end_s", ends, shape=(None,), least=0, unit="seconds")
    for name in ("round_bytes", "round_dropped"):
        reals(name, getattr(plan, name), shape=ends.shape if plan.details is None else (0,), least=0)
    reals("node_round_end_s", plan.node_round_end_s, shape=(None, n), least=0, unit="seconds")
    coordinators = 0
    if plan.details is not None:
        coordinators = instance("details", plan.details, Details, "that of Plexus or HADFL, or None").num_coordinators
    for found in plan.activities:
        check_activity(instance("activities", found, Activity, "of the plan"), n, coordinators=coordinators)
    if plan.details is not None:
        plan.details.check(n, plan.activities[0])


def activity(plan: Plan, first_s: int | float = 0.0, last_s: int | float = np.inf) -> Activity:
    """Write out who trained, sent and averaged between two times.

    Args:
        plan: of any system.
        first_s: seconds; what ended earlier is left out.
        last_s: seconds; what begins later is left out.

    Returns:
        The activity in that window, in seconds from the beginning of the run.
    """
    first_s = real("first_s", first_s, unit="seconds")
    last_s = real("last_s", last_s, least=first_s, infinite=True, unit="seconds", remedy="not before first_s")
    begin = checked_plan(plan).begin_s
    last_end = np.append(begin[1:], np.inf)
    chosen = np.flatnonzero((begin <= last_s) & (last_end >= first_s))
    parts = [shifted(plan.activities[plan.pattern[k]], float(begin[k])) for k in chosen]
    whole = Activity(*(np.concatenate(column) for column in zip(*parts, strict=True))) if parts else plan.activities[0]
    return within(whole, first_s, last_s)


def traffic_series(plan: Plan, times_s: Num[np.ndarray, " r"]) -> Float[np.ndarray, " r"]:
    """Count the bytes of models sent up to given times, including those of transfers that are cut later.

    A transfer in progress counts in proportion to the time since it was requested, which is exact if its rate is
    constant.

    Args:
        plan: of any system.
        times_s: seconds, in any order.

    Returns:
        Bytes.
    """
    return _series(plan, times_s, transfers_of)


def training_series(plan: Plan, times_s: Num[np.ndarray, " r"]) -> Float[np.ndarray, " r"]:
    """Sum the seconds of training of all nodes up to given times, including those of interrupted trainings.

    Args:
        plan: of any system.
        times_s: seconds, in any order.

    Returns:
        Seconds.
    """
    return _series(plan, times_s, trainings_of)


def node_traffic(plan: Plan, until_s: int | float = np.inf) -> Ledger:
    """Sum up the bytes that each node has sent and received up to a time, including those of transfers that are cut.

    Both ends of a transfer in progress are charged in proportion to its time, as in :func:`traffic_series`, whose value
    at this time is the sum of all bytes sent. Bytes on their way to an unknown receiver are received by nobody.

    >>> from gossipjax import devices, systems, topology
    >>> plan = systems.synchronous(devices.uniform(4), topology.star(4), 2, local_steps=5, model_bytes=100)
    >>> sent, received = systems.node_traffic(plan)
    >>> sent.tolist(), received.tolist()
    ([600.0, 200.0, 200.0, 200.0], [600.0, 200.0, 200.0, 200.0])

    Args:
        plan: of any system.
        until_s: seconds, ≥ 0.

    Returns:
        Bytes of each node, ``(n,)`` in float64; of HADFL ``(n + 1,)``, the last entry being the coordinator's.
    """
    until_s = real("until_s", until_s, least=0, infinite=True, unit="seconds")
    n = checked_plan(plan).num_nodes + (0 if plan.details is None else plan.details.num_coordinators)
    found = [by_node(each, n) for each in plan.activities]
    whole = np.searchsorted(plan.begin_s, until_s, side="right") - 1  # pieces before this one have ended
    used = np.bincount(plan.pattern[: max(whole, 0)], minlength=len(found))
    total = sum((times * each for times, each in zip(used, found, strict=True)), np.zeros((2, n)))
    if whole >= 0:
        total = total + by_node(plan.activities[plan.pattern[whole]], n, until_s - float(plan.begin_s[whole]))
    return Ledger(*total)


def _series(plan: Plan, times_s: Any, spans: Any) -> Float[np.ndarray, " r"]:
    times = reals("times_s", times_s, shape=(None,), infinite=True, unit="seconds")
    found = [spans(each) for each in checked_plan(plan).activities]
    return accrued(found, plan.pattern, plan.begin_s, times)


def checked_plan(plan: Any) -> Plan:
    """Return ``plan``.

    Raises:
        TypeError: if it is not a plan.
    """
    return instance("plan", plan, Plan, "plan a run with gossipjax.systems, such as plexus")


def plan_of_one(
    name: str,
    timeline: Timeline,
    end_s: float,
    activity: Activity,
    *,
    round_end_s: Float[np.ndarray, " r"] | None = None,
    history: Details | None = None,
) -> Plan:
    """Make a plan in one piece, whose transfers belong to no round.

    Args:
        name: the system and its settings.
        timeline: of the learning.
        end_s: seconds.
        activity: all that happened.
        round_end_s: of each round, NaN if unknown; None: there are no rounds.
        history: of Plexus or HADFL.
    """
    return Plan(
        name=name,
        timeline=timeline,
        end_s=end_s,
        activities=(activity,),
        pattern=np.zeros(1, np.int64),
        begin_s=np.zeros(1),
        round_end_s=np.zeros(0) if round_end_s is None else round_end_s,
        round_bytes=np.zeros(0),
        round_dropped=np.zeros(0, np.int64),
        node_round_end_s=np.zeros((0, timeline.properties.num_nodes)),
        details=history,
    )


@recorded()
def stand_in(plan: Plan | Timeline) -> Timeline:
    """Let a model of another size stand in for the planned one, such as a small model for a large one.

    The run takes the seconds and local steps of the plan. Bytes are counted separately: those of the plan
    (:func:`gossipjax.systems.traffic_series`) refer to the planned messages, ``bytes_sent`` of the run to the messages
    of the model that stands in.

    Args:
        plan: of any system, or its timeline.

    Returns:
        The timeline, with messages of any size allowed.

    Raises:
        TypeError: if ``plan`` is neither a plan nor a timeline.
    """
    timeline = as_timeline(plan)
    return dataclasses.replace(timeline, properties=dataclasses.replace(timeline.properties, message_bytes=None))


def assuming(timeline: Timeline, load: Workload) -> Timeline:
    """Record what the times of a timeline assume; :func:`gossipjax.simulate` compares it with the protocol."""
    return dataclasses.replace(timeline, properties=dataclasses.replace(timeline.properties, **load._asdict()))
