"""An estimate of the memory of a run, read off its compiled programs before it begins."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Int, Key, Num, PyTree

from gossipjax._base import display
from gossipjax._base.leaves import form_of, is_key
from gossipjax._base.memory import free_device_bytes
from gossipjax._engine import chunks
from gossipjax._engine.driver import Driver
from gossipjax._engine.prepare import Packing, Recording, Strategy, as_execution, prepare
from gossipjax._engine.programs import Job, advance_call, models_made, start_call, state_form
from gossipjax._engine.records import Log
from gossipjax.observe._models import Observer
from gossipjax.results._trajectory import Trajectory
from gossipjax.types import Params, Planned, Protocol, Task, Timeline, as_timeline


@display.displayed
@dataclasses.dataclass(frozen=True)
class MemoryEstimate:
    """Bytes of all arrays of a run: on a CPU in all, on accelerators on each of them.

    The memory of Python, of JAX and of the compiler while it works is not included.

    Attributes:
        state: what the protocol keeps, of all seeds.
        start: at most while the start is made.
        events: at most while events run and observers measure.
        end: at most while the result is made.
        records: on the host, of the whole run.
        data: training samples, which are included in the stages; with a mesh, on one device: those of its nodes.
        free: memory that is free now.
    """

    state: int
    start: int
    events: int
    end: int
    records: int
    data: int
    free: float

    @property
    def peak(self) -> int:
        """Bytes at the largest stage, records included."""
        return max(self.start, self.events, self.end) + self.records

    def _facts(self) -> tuple[str, dict[str, Any]]:
        sizes = {name: display.size(value) for name, value in dataclasses.asdict(self).items()}
        return f"about {display.size(self.peak)} at the peak", sizes


def estimate_memory(
    key: Key[Array, "*seeds"],
    protocol: Protocol,
    timeline: Timeline | Planned,
    x0: Params | Task | Callable[[Key[Array, ""]], Params] | Trajectory,
    *,
    observers: Sequence[Observer] = (),
    record_every: int | None = None,
    record_at: Sequence[int] | None = None,
    record_times: Sequence[int | float] | Num[Array | np.ndarray, " r"] | None = None,
    strategy: Strategy | None = None,
    packing: Packing = "auto",
    mesh: Mesh | None = None,
    parts: Literal["blocks", "metis"] | Int[Array | np.ndarray, " n"] = "blocks",
) -> MemoryEstimate:
    """Estimate the memory of the run that :func:`gossipjax.simulate` would do with the same arguments.

    The programs of the run are compiled, not called; if nothing is sharded, a run afterwards does not compile them
    again. Sizes are arguments, temporary arrays and results of each program, plus arrays that the caller holds as a
    start. What a user's start draws at once counts too: ``jax.random.normal`` needs about five times its result.

    >>> import jax, gossipjax as gj
    >>> plan = gj.timeline.rounds(gj.mixing.metropolis(gj.topology.hypercube(3)), 5)
    >>> start = jax.numpy.ones((8, 1000), jax.numpy.float32)
    >>> estimate = gj.estimate_memory(jax.random.key(0), gj.gossip_averaging(), plan, start)
    >>> estimate.state
    32000
    >>> 2 * estimate.state <= estimate.peak <= 5 * estimate.state
    True

    Args:
        key: as for ``simulate``, and so are all other arguments.
        protocol: what nodes do.
        timeline: who meets whom, when; or a plan that has a timeline.
        x0: where to start.
        observers: what to measure at every record.
        record_every: source events between records.
        record_at: numbers of source events at which to record.
        record_times: simulated seconds at which to record.
        strategy: how a step is spread over nodes.
        packing: whether narrow events are packed.
        mesh: devices over which the nodes are spread. The start is made on one device, or with CPUs in the memory that
            they share; the end comes back to the host.
        parts: which device holds which nodes.

    Returns:
        The estimate, by stage.

    Raises:
        ValueError: whatever does not fit, as ``simulate`` says.
        TypeError: things of the wrong sort.
    """
    recording = Recording(record_every, record_at, record_times)
    execution = as_execution(strategy, packing, mesh, parts)
    job, _, _ = prepare(key, protocol, as_timeline(timeline), x0, observers, recording, execution)
    if isinstance(job.start, Trajectory):
        Driver(job, begin=False).pieces(single=False, many=False)  # refuses what simulate refuses
    return _of_job(job)


def _of_job(job: Job) -> MemoryEstimate:
    held = 0 if callable(job.start) else _bytes(job.start.state if isinstance(job.start, Trajectory) else job.start)
    state, start = _state(job, held)
    size = _bytes(state)
    placed = state if job.placement is None else job.placement.form(state, seeds=job.key.ndim > 0)
    events, records = _events(job, placed)
    events += held
    end = held + size + _bytes(models_made(job, state))
    return MemoryEstimate(size, start, events, end, records, _data(job), free_device_bytes())


def _data(job: Job) -> int:
    """Return the bytes of the training samples that a device holds."""
    if job.placement is not None:
        report = job.placement.report
        return report["data_copied"] + (sum(report["data"]) + report["data_padding"]) // report["devices"]
    tasks = jax.tree.leaves((job.protocol, job.observers), is_leaf=lambda value: isinstance(value, Task))
    data = [leaf for task in tasks if isinstance(task, Task) for leaf in jax.tree.leaves(task.data)]
    return _bytes(list({id(leaf): leaf for leaf in data}.values()))


def _state(job: Job, held: int) -> tuple[Any, int]:
    """Return the form of the state, as it lies on the devices, and the bytes while it is made."""
    if isinstance(job.start, Trajectory):
        state = state_form(job)
        return state, held + _bytes(state)
    call = start_call(job)
    program = call.program.lower(*call.arguments).compile()
    (state, _), (places, _) = program.out_info, program.output_shardings
    placed = jax.tree.map(lambda leaf, at: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=at), state, places)
    several = any(len(at.device_set) > 1 for at in jax.tree.leaves(places))
    if several:  # arrays of the start are moved to the devices first
        return placed, held + call.footprint.total
    return jax.tree.map(form_of, state), call.footprint.total


def _events(job: Job, state: Any) -> tuple[int, int]:
    """Return the bytes of the largest piece while it runs, and the bytes of all records."""
    ends = np.append(0, chunks.positions(len(job.timeline), job.record_every, job.record_at))
    pieces = chunks.plan(ends, 0, job.room, packed=job.wide.packed)
    log = Log(job.key.shape[0] if job.key.ndim else None)
    piece = max(pieces, key=lambda piece: piece.stop - piece.start)
    call, _ = advance_call(job, piece, state, log.losses, None)
    program = call.program.lower(*call.arguments).compile()
    return call.footprint.total, len(ends) * _bytes(program.out_info[1]) // job.room.records


def _bytes(tree: PyTree) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree) if not is_key(leaf))
