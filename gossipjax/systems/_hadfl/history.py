"""What a plan of HADFL says beyond that of other systems: cycles, forecasts, rings, fates of messages, times."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Bool, Float64, Int8, Int32, Int64

from gossipjax._base.arguments import reals, wholes
from gossipjax._base.display import displayed
from gossipjax.systems._activity import Activity
from gossipjax.systems._details import Details
from gossipjax.systems._hadfl.forecast import whole_units
from gossipjax.systems._hadfl.state import Run
from gossipjax.systems._hadfl.tables import AVERAGED, FATES, KINDS, MESSAGES, OUTCOMES, STATES, UNDER_WAY


@displayed
@dataclasses.dataclass(frozen=True, eq=False)
class HADFLHistory(Details):
    """What happened in a run of HADFL, in the order of time; c synchronisations of n devices.

    Attributes:
        report: one line on the outcome.
        start_s: when the first cycle begins; NaN: the strategy was never made.
        hyperperiod_s: HE of the measured speeds; infinite: it exceeds ``cycle.max_hyperperiod``.
        sync_s: T_sync.
        measured_s: ``(n,)`` seconds of a unit, from the warm-up; NaN: not measured.
        units_per_cycle: ``(n,)`` E_i, whole units in T_sync; 0: not measured.
        units: ``(n,)`` units that each device has completed.
        node_seconds: ``(n, 5)`` seconds in each of :attr:`STATES`; they add up to the duration.
        cycle_decided_s: ``(c,)`` when the coordinator decides.
        cycle_sync_s: ``(c,)`` when the members are due.
        cycle_end_s: ``(c,)`` when the ring is over; NaN: there was none, or it is under way.
        cycle_outcome: ``(c,)`` number in :attr:`OUTCOMES`; the words are :attr:`outcomes`.
        cycle_handshakes: ``(c,)`` questions whether a neighbour lives.
        cycle_bypassed: ``(c,)`` members that were left out.
        cycle_broadcaster: ``(c,)`` who sends the mean to the others; -1: nobody.
        versions: ``(c, n)`` that the coordinator knows; NaN: the device is not known to be alive.
        forecasts: ``(c, n)`` of the versions one synchronisation later; NaN: never observed.
        probabilities: ``(c, n)`` of being drawn first; 0 where nobody is drawn.
        selected: ``(c, n)`` who is ordered into the ring.
        survivors: ``(c, n)`` whose models are averaged.
        span_node: ``(s,)`` whose stretch of waiting for a ring, exchanging or idling this is.
        span_state: ``(s,)`` number in :attr:`STATES`.
        span_start_s: ``(s,)`` seconds.
        span_end_s: ``(s,)`` seconds.
        transfer_kind: ``(x,)`` number in :attr:`KINDS` of each transfer of the activity; node n there is
            the coordinator.
        message_fate: ``(m,)`` number in :attr:`FATES` of each broadcast, backup and restoration.
        control_messages: ``(9,)`` small messages, in the order of :attr:`MESSAGES`.
    """

    num_coordinators: ClassVar[int] = 1
    STATES: ClassVar[tuple[str, ...]] = STATES
    OUTCOMES: ClassVar[tuple[str, ...]] = OUTCOMES
    KINDS: ClassVar[tuple[str, ...]] = KINDS
    FATES: ClassVar[tuple[str, ...]] = FATES
    MESSAGES: ClassVar[tuple[str, ...]] = MESSAGES

    report: str
    start_s: float
    hyperperiod_s: float
    sync_s: float
    measured_s: Float64[np.ndarray, " n"]
    units_per_cycle: Int64[np.ndarray, " n"]
    units: Int64[np.ndarray, " n"]
    node_seconds: Float64[np.ndarray, "n 5"]
    cycle_decided_s: Float64[np.ndarray, " c"]
    cycle_sync_s: Float64[np.ndarray, " c"]
    cycle_end_s: Float64[np.ndarray, " c"]
    cycle_outcome: Int8[np.ndarray, " c"]
    cycle_handshakes: Int32[np.ndarray, " c"]
    cycle_bypassed: Int32[np.ndarray, " c"]
    cycle_broadcaster: Int32[np.ndarray, " c"]
    versions: Float64[np.ndarray, "c n"]
    forecasts: Float64[np.ndarray, "c n"]
    probabilities: Float64[np.ndarray, "c n"]
    selected: Bool[np.ndarray, "c n"]
    survivors: Bool[np.ndarray, "c n"]
    span_node: Int32[np.ndarray, " s"]
    span_state: Int8[np.ndarray, " s"]
    span_start_s: Float64[np.ndarray, " s"]
    span_end_s: Float64[np.ndarray, " s"]
    transfer_kind: Int8[np.ndarray, " x"]
    message_fate: Int8[np.ndarray, " m"]
    control_messages: Int64[np.ndarray, "9"]

    def _facts(self) -> tuple[str, dict[str, Any]]:
        return self.report, {"cycles": self.cycle_sync_s.size, "transfers": self.transfer_kind.size}

    @property
    def outcomes(self) -> tuple[str, ...]:
        """What became of each synchronisation, in a word; see ``cycle_outcome``."""
        return tuple(OUTCOMES[number] for number in self.cycle_outcome.tolist())

    def forecast_errors(self) -> Float64[np.ndarray, "c1 n"]:
        """Return each forecast minus the version observed one synchronisation later; NaN where either is missing."""
        return self.forecasts[:-1] - self.versions[1:]

    def check(self, n: int, activity: Activity) -> None:
        """Hold the columns against each other, and against the activity of the plan of n nodes.

        Raises:
            ValueError: columns of different lengths, or numbers that stand for nothing.
        """
        _check(self, n, activity)

    def summary(self) -> str:
        """Say in a few lines what happened."""
        messages = ", ".join(f"{count:,} {kind}" for kind, count in zip(MESSAGES, self.control_messages, strict=True))
        moved = np.bincount(self.transfer_kind, minlength=len(KINDS))
        models = ", ".join(f"{count:,} {kind}" for kind, count in zip(KINDS, moved, strict=True))
        return f"{self.report}\ntransfers: {models}\nsmall messages: {messages}"


def history_of(run: Run) -> HADFLHistory:
    """Write out what happened, up to the end of the plan."""
    n, rows, coordinator = run.settings.num_nodes, run.cycles, run.coordinator
    measured = np.array(coordinator.measured_s, np.float64)
    known = not np.isnan(coordinator.start_s)
    spans = list(zip(*run.spans, strict=True)) if run.spans else [(), (), (), ()]
    return HADFLHistory(
        report=_report(run),
        start_s=float(coordinator.start_s),
        hyperperiod_s=float(coordinator.hyperperiod_s),
        sync_s=float(coordinator.sync_s),
        measured_s=measured,
        units_per_cycle=whole_units(coordinator.sync_s, measured) if known else np.zeros(n, np.int64),
        units=np.array([device.units for device in run.devices], np.int64),
        node_seconds=np.array([device.seconds for device in run.devices], np.float64),
        cycle_decided_s=np.array([row.decided_s for row in rows], np.float64),
        cycle_sync_s=np.array([row.sync_s for row in rows], np.float64),
        cycle_end_s=np.array([row.end_s for row in rows], np.float64),
        cycle_outcome=np.array([row.outcome for row in rows], np.int8),
        cycle_handshakes=np.array([row.handshakes for row in rows], np.int32),
        cycle_bypassed=np.array([row.bypassed for row in rows], np.int32),
        cycle_broadcaster=np.array([row.broadcaster for row in rows], np.int32),
        versions=_stacked([row.versions for row in rows], n),
        forecasts=_stacked([row.forecasts for row in rows], n),
        probabilities=_stacked([row.probabilities for row in rows], n),
        selected=_marked([row.selected for row in rows], n),
        survivors=_marked([row.survivors for row in rows], n),
        span_node=np.array(spans[0], np.int32),
        span_state=np.array(spans[1], np.int8),
        span_start_s=np.array(spans[2], np.float64),
        span_end_s=np.array(spans[3], np.float64),
        transfer_kind=np.array(run.kinds, np.int8),
        message_fate=np.array(run.fates, np.int8),
        control_messages=np.array(run.messages, np.int64),
    )


def _report(run: Run) -> str:
    counts = np.bincount(np.array([row.outcome for row in run.cycles], np.int64), minlength=len(OUTCOMES))
    cycles = ", ".join(f"{count:,} {name}" for name, count in zip(OUTCOMES, counts, strict=True) if count)
    if np.isnan(run.coordinator.start_s):
        cycles = "no strategy, for no two devices have finished their warm-up with all living ones"
    elif not cycles:
        cycles = "the plan ends before the first synchronisation"
    died = "" if run.coordinator.works else f"; the coordinator failed at {run.settings.coordinator_fails_s:g} s"
    return f"{len(run.cycles):,} synchronisations: {cycles}{died}" if run.cycles else f"{cycles}{died}"


def _stacked(rows: list[np.ndarray], n: int) -> Float64[np.ndarray, "c n"]:
    return np.array(rows, np.float64).reshape(len(rows), n)


def _marked(rows: list[tuple[int, ...]], n: int) -> Bool[np.ndarray, "c n"]:
    out = np.zeros((len(rows), n), bool)
    for row, members in zip(out, rows, strict=True):
        row[list(members)] = True
    return out


def _check(history: HADFLHistory, n: int, activity: Activity) -> None:
    """Hold the columns against each other, and against the activity of the plan of n nodes.

    Raises:
        ValueError: columns of different lengths, or numbers of nodes, states and outcomes that do not exist.
    """
    cycles, spans = np.shape(history.cycle_sync_s), np.shape(history.span_node)
    most = np.iinfo(np.int64).max
    for name, shape, least, last in (
        ("units_per_cycle", (n,), 0, most),
        ("units", (n,), 0, most),
        ("cycle_outcome", cycles, 0, len(OUTCOMES) - 1),
        ("cycle_handshakes", cycles, 0, most),
        ("cycle_bypassed", cycles, 0, n),
        ("cycle_broadcaster", cycles, -1, n - 1),
        ("span_node", (None,), 0, n - 1),
        ("span_state", spans, 0, len(STATES) - 1),
        ("transfer_kind", activity.sender.shape, 0, len(KINDS) - 1),
        ("message_fate", (None,), 0, len(FATES) - 1),
        ("control_messages", (len(MESSAGES),), 0, most),
    ):
        wholes(name, getattr(history, name), shape=shape, least=least, most=last)
    for name, shape in (
        ("node_seconds", (n, len(STATES))),
        ("cycle_decided_s", cycles),
        ("span_start_s", spans),
        ("span_end_s", spans),
    ):
        reals(name, getattr(history, name), shape=shape, least=0)
    for name in ("versions", "forecasts", "probabilities", "selected", "survivors"):
        if np.shape(getattr(history, name)) != (*cycles, n):
            raise ValueError(f"{name} of shape {np.shape(getattr(history, name))}: must be {(*cycles, n)}")
    if np.shape(history.cycle_end_s) != cycles or np.shape(history.measured_s) != (n,):
        raise ValueError("cycle_end_s or measured_s has another length than cycles, or devices")
    known = np.isfinite(history.cycle_end_s)
    if not known[history.cycle_outcome == AVERAGED].all() or known[history.cycle_outcome == UNDER_WAY].any():
        raise ValueError("cycle_end_s lacks the end of a ring that took its mean, or has one of a ring under way")
