"""Run the chunks of a run: one compiled call after another, with records and checkpoints in between."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from gossipjax._base import hosts
from gossipjax._base.arguments import shown
from gossipjax._base.faults import first_fault
from gossipjax._base.leaves import in_form
from gossipjax._engine import chunks
from gossipjax._engine.checks import check_finite, edge_off_graph
from gossipjax._engine.chunks import Piece
from gossipjax._engine.fingerprint import PlanHash, identity
from gossipjax._engine.growth import note_growth
from gossipjax._engine.loop import LOSS, NO_NODE
from gossipjax._engine.programs import Job, advance_call, check_fits, models_of, start_call, state_form
from gossipjax._engine.records import Log
from gossipjax._engine.windows import Window
from gossipjax.results._trajectory import Continuation, Trajectory
from gossipjax.timeline._events import event_of
from gossipjax.types import Event, Timeline

Callback = Callable[[dict[str, Any]], bool | None]


class Diverged(FloatingPointError):
    """Parameters or losses became infinite or NaN; the message names the first bad event, its node and its time."""


class Driver:
    """A run in progress: its state, its records, and the number of events done."""

    def __init__(self, job: Job, *, begin: bool = True):
        """Begin a run, or continue from the end of a trajectory; without ``begin``, only check that this is possible.

        Raises:
            ValueError: if the start is a trajectory of another run, or has no state.
        """
        self.job = job
        seeds = job.key.shape[0] if job.key.ndim else None
        self.log = Log(seeds, reports=job.reports, local_steps=job.local_steps)
        self.done = 0
        self._inherited = -1
        """Number of events of the continued trajectory, whose records the callback has seen; -1: there is none."""
        self._where = ""
        self._width: int | None = None
        self._fits = False
        self._plan = PlanHash(job.timeline)
        if isinstance(job.start, Trajectory):
            self._continue(job.start)
        if begin:
            self.state = self._laid_out(self._start())

    def _start(self) -> Any:
        """Make the state; that of a trajectory is copied, because compiled calls donate their input."""
        job = self.job
        if isinstance(job.start, Trajectory):
            return in_form(jax.tree.leaves(job.start.state), state_form(job))
        begin = start_call(job)
        check_fits(job, "making the start of this run", begin)
        state, finite = begin.program(*begin.arguments)
        check_finite(jax.device_get(finite))
        return state

    def _continue(self, earlier: Trajectory) -> None:
        """Take over the records of a trajectory, if it is a part of this run."""
        kept = earlier.continuation
        if kept is None or earlier.state is None:
            raise ValueError(
                "x0 is a trajectory without its state: pass the one that simulate returned, or save it with models=True"
            )
        found, wanted = kept.identity(), identity(self.job.origin)
        changed = sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
        if changed:
            raise ValueError(
                f"x0 is a trajectory of another run (it differs in {', '.join(changed)}): go on with the same key, "
                "protocol and observers, or begin a new run from its models, x0=trajectory.x"
            )
        self._take_over("x0", kept.done, kept.records, kept.plan())
        self._inherited = kept.done

    def _laid_out(self, state: Any) -> Any:
        """Spread the rows of a state over the mesh, if there is one."""
        spread = self.job.placement
        return state if spread is None else spread.lay_out(state, seeds=self.job.key.ndim > 0)

    def whole_state(self) -> Any:
        """Return the state with its rows in order; from a mesh, on the host."""
        spread = self.job.placement
        return self.state if spread is None else spread.gather(self.state, seeds=self.job.key.ndim > 0)

    def restore(self, saved: Any) -> None:
        """Continue from a checkpoint, if it holds anything."""
        form = self.state if self.job.placement is None else state_form(self.job)
        if (found := saved.restore(form)) is not None:
            self._take_over(f"checkpoint={saved.folder}", found.done, found.records, found.plan)
            self.state = self._laid_out(found.state)

    def _take_over(self, where: str, done: int, records: Any, plan: str) -> None:
        total = len(self.job.timeline)
        if done > total:
            raise ValueError(
                f"{where}: {done} events are done already, more than the {total} of this timeline; pass the whole one"
            )
        if self._plan.upto(done) != plan:
            raise ValueError(
                f"{where}: its {done} events are not the first of this timeline; pass one that begins with them "
                "(planners that draw all events at once give others for another length: plan the long one, and run a "
                "part of it first, timeline[:1000])"
            )
        self.log.load_state_dict(records)
        self.done, self._where = done, where

    def run(self, saved: Any, callback: Callback | None, throw: bool, many: bool) -> Iterator[int]:
        """Run all pieces, save each before the callback sees its records, and yield the number of events done.

        Raises:
            Diverged: if parameters or losses became infinite or NaN, and ``throw`` is True.
        """
        pieces = self.pieces(single=callback is not None, many=many or saved is not None)
        seen = int(np.count_nonzero(self.log.positions <= self._inherited))
        for piece in [None, *pieces]:
            if piece is not None:
                self._advance(piece)
            if throw and self.log.diverged:
                raise Diverged(_explain(self.job, self.log, self.state))
            if piece is not None and piece.stop > piece.start and saved is not None:
                saved.save(self.done, self.whole_state(), self.log.state_dict(), self._plan.upto(self.done))
            yield self.done
            if callback is not None and self._told_to_stop(callback, seen):
                return
            seen = len(self.log)

    def pieces(self, single: bool, many: bool) -> list[Piece]:
        """Cut the rest of the run into pieces, and drop earlier records that were not requested.

        Raises:
            ValueError: if a record is requested where the earlier part of the run has none.
        """
        job, kept = self.job, self.log.positions
        ends = chunks.positions(len(job.timeline), job.record_every, job.record_at)
        if job.record_every is None and job.record_at is None and not np.isin(_up_to(self.done, ends), kept).all():
            ends = chunks.positions(len(job.timeline), int(kept[1]), None)
        due = _up_to(self.done, ends)
        if not np.isin(due, kept).all():
            raise ValueError(
                f"{self._where} holds another run (it differs in its records, which lie after {shown(kept.tolist())} "
                f"events and not after {shown(due.tolist())}); ask for the same ones, or fewer of them"
            )
        self.log.select(due)
        ends = ends[ends > self.done] if len(self.log) else np.append(0, ends)
        most = job.room._replace(records=1) if single else job.room
        return chunks.plan(ends, self.done, most, packed=job.wide.packed, many=many)

    def _advance(self, piece: Piece) -> None:
        job = self.job
        clock = Window(job.timeline[piece.start : piece.stop], piece, job.before[1], job.key)
        call, self._width = advance_call(job, piece, self.state, self.log.losses, self._width)
        if not self._fits:
            check_fits(job, "running the events of this run beside its state and data", call)
            self._fits = True
        (self.state, status, _), found = call.program(*call.arguments)
        found = self._used(jax.device_get(found), len(piece.stops))
        self.log.add(clock.with_times(found), piece.records)
        self.log.note(clock.with_time(jax.device_get(status)))
        self.done = piece.stop

    def _used(self, found: Any, stretches: int) -> Any:
        """Return the totals of the stretches that were run, without the room for others."""
        if stretches == self.job.room.records:
            return found
        used = (slice(None),) * self.job.key.ndim + (slice(stretches),)
        return jax.tree.map(lambda leaf: leaf[used].copy(), found)

    def _told_to_stop(self, callback: Callback, first: int) -> bool:
        """Pass the records from number ``first`` on to the callback, until it returns True."""
        for number in range(first, len(self.log)):
            answer = callback(self.log.row(number, self.job.observers))
            if not isinstance(answer, bool | np.bool_ | None):
                raise TypeError(
                    f"callback returned {shown(answer)}: it must return True to end the run, or False or None to go on"
                )
            if answer:
                return True
        return False

    def trajectory(self, about: dict[str, Any]) -> Trajectory:
        """Return the result of the run."""
        job, log = self.job, self.log
        if log.diverged:
            about["diverged"] = {name: values.tolist() for name, values in log.bad.items()}
        if self.done < len(job.timeline):
            about["stopped"] = {"event": log.event}
        about |= note_growth(log)
        about["configuration"]["records"] = len(log) - 1
        origin, done = job.origin, self.done
        ended = Continuation(
            done, log.state_dict(), lambda: identity(origin), lambda: PlanHash(origin.timeline).upto(done)
        )
        records = log.dataset(job.observers, about)
        if job.placement is None or not hosts.several():
            state = self.whole_state()
            return Trajectory(records, state, models_of(job, state), ended)

        def gather() -> tuple[Any, Any]:
            state = self.whole_state()
            return state, models_of(job, state)

        return Trajectory(records, None, None, ended, gather)


def require_mesh(mesh: Any) -> None:
    """Check that a run of several processes is given a mesh; without one, only process 0 would keep its results.

    Raises:
        ValueError: there are several processes, and no mesh.
    """
    if mesh is None and hosts.several():
        raise ValueError(
            f"mesh=None: {hosts.process_count()} processes do one run together, spread over the devices of all; pass "
            "mesh=gossipjax.mesh(), or do without gossipjax.configure(hosts=...) for runs of their own"
        )


def require_same_run(job: Job) -> None:
    """Check that all processes of a run were given the same one.

    Raises:
        ValueError: they were not, or the mesh lacks a process.
    """
    if not hosts.several() or job.placement is None:
        return
    missing = hosts.process_count() - job.placement.report["processes"]
    if missing:
        raise ValueError(
            f"mesh: has no device of {missing} of the {hosts.process_count()} processes: pass gossipjax.mesh(), which "
            "has those of all"
        )
    text = json.dumps(job.run_identity()) + PlanHash(job.timeline).upto(len(job.timeline))
    hosts.require_same("run", text + str(job.placement.where.parts.tolist()))


def _up_to(done: int, positions: np.ndarray) -> np.ndarray:
    return positions[positions <= done]


def _explain(job: Job, log: Log, state: Any) -> str:
    """Name the earliest bad event over the seeds, and its cause where the state or the edges of the event say it."""
    bits, event, time, node = (np.atleast_1d(log.bad[name]) for name in ("bits", "event", "time", "node"))
    first = min(np.flatnonzero(bits), key=lambda seed: int(event[seed]))
    of_node = "" if node[first] == NO_NODE else f" of node {int(node[first])}"
    of_seed = "" if log.seeds is None else f" of seed {first}"
    fault = first_fault(state, None if log.seeds is None else int(first))
    if fault is not None and fault.event <= int(event[first]):
        return f"node {fault.node} {fault.cause} (event {fault.event}{of_seed}; throw=False keeps the records)"
    loss = int(bits[first]) == LOSS
    what = f"the training loss{of_node}" if loss else f"parameters{of_node}"
    where = f"at event {int(event[first])}{of_seed} (simulated time {float(time[first]):g} s)"
    remedy = _edge_off_graph(job, int(event[first]))
    if remedy is None:
        remedy = (
            f"lower the learning rate or check {'the labels and inputs of that node' if loss else 'the mixing weights'}"
        )
    return f"{what} became infinite or NaN {where}; {remedy} (throw=False keeps the records)"


def _edge_off_graph(job: Job, number: int) -> str | None:
    """Say which edge of an event, or of the one before it, the topology lacks that the protocol was given."""
    timeline = job.timeline
    if "one_graph" not in timeline.properties:
        return None
    place = number - int(_event(timeline, 0).index[0])
    for each in range(max(place - 1, 0), place + 1):
        words = edge_off_graph(job.protocol, timeline, _event(timeline, each).mixing)
        if words is not None:
            return words
    return None


def _event(timeline: Timeline, place: int) -> Event:
    """Build an event on the host; draws of a run are others, on the same edges."""
    return event_of(jax.random.key(0), timeline, jax.tree.map(lambda leaf: jax.numpy.asarray(leaf[place]), timeline.xs))
