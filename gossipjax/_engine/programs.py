"""The compiled calls of a run: its start, the pieces of its timeline, and its models, with their memory."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jax.tree_util import Partial

from gossipjax._base import placement
from gossipjax._base.local import AXIS, Local
from gossipjax._base.memory import Footprint, check_device_memory, footprint, is_large
from gossipjax._base.streams import STARTS, STEPS
from gossipjax._engine import chunks, loop, stretches
from gossipjax._engine.chunks import Piece, Room
from gossipjax._engine.fingerprint import Origin, identity, of_start
from gossipjax._engine.mesh.data import on_device, specs
from gossipjax._engine.mesh.placement import Place, Placement, replicate
from gossipjax._engine.packing import Choice as Packed
from gossipjax._engine.packing import pack
from gossipjax._engine.stretches import Cuts
from gossipjax.facts import Properties
from gossipjax.observe._models import Observer
from gossipjax.results._trajectory import Trajectory
from gossipjax.types import Protocol, Timeline


@dataclasses.dataclass(frozen=True)
class Settings:
    """What compiled calls depend on in addition to their arrays."""

    strategy: placement.Strategy
    bytes_per_row: int
    """Of one model; decides how steps are spread over nodes if the strategy is "auto"."""
    seeds: Literal["vmap", "map"] | None
    facts: Properties
    """Numbers of nodes and rows."""
    block: int | None = None
    """Events whose levels are found at once; None: there are no levels, or they are packed."""


@dataclasses.dataclass(frozen=True)
class Job:
    """A run that has been checked."""

    key: Any
    protocol: Protocol
    timeline: Timeline
    start: Any
    """Stacked parameters, a function of a key that makes them, or the trajectory to continue."""
    observers: tuple[Observer, ...]
    form: Any
    """Shapes of the stacked start."""
    settings: Settings
    synchronous: bool
    wide: Packed
    record_every: int | None
    record_at: Sequence[int] | None
    before: tuple[int, float]
    """Event number and time before the first event."""
    room: Room
    """Numbers of events and of records for which its compiled calls have room."""
    reports: bool
    """Whether the protocol reports what it sends; otherwise bytes and messages are NaN, because 0 would be a claim."""
    bytes: int
    """Of the states of all seeds."""
    vmapped: bool
    """Whether all nodes train at once."""
    local_steps: int | None
    """Gradients of a node that acts; None: not known."""
    placement: Placement | None = None
    """Where the rows of a run on a mesh lie; None: all on one device."""

    @property
    def origin(self) -> Origin:
        """What determines the numbers of the run."""
        return Origin(self.key, self.protocol, self.timeline, self.observers, self.form)

    def run_identity(self) -> dict[str, Any]:
        """Return what a saved part of this run must share."""
        start = self.start.state if isinstance(self.start, Trajectory) else self.start
        return {**identity(self.origin), "start": of_start(start)}


def _advance_call(functions, settings: Settings, key, protocol, xs, shared, state, losses, observers, cuts: Cuts):
    """Advance one piece of the timeline; ``functions`` are its ``event`` and ``draw``."""

    def part(key, state, losses):
        timeline = Timeline(xs, shared, functions[0], settings.facts, functions[1])
        return stretches.advance(
            key, protocol, timeline, state, losses, cuts, observers=observers, block=settings.block
        )  # fmt: skip

    return _each_seed(part, settings, key, state, losses)


def _placed_call(functions, settings: Settings, mesh: Mesh, key, protocol, xs, shared, state, losses, *rest):
    """Advance one piece inside one ``shard_map``: all arrays in it are those of one device."""
    rows = P(AXIS) if settings.seeds is None else P(None, AXIS)
    observers, cuts, place = rest
    of_place = Place(Local(P(AXIS), P(AXIS), P()), P(AXIS), P())  # type: ignore[arg-type]

    def of_device(key, protocol, xs, shared, state, losses, observers, cuts, place):
        def part(key, state, losses):
            timeline = Timeline(xs, shared, functions[0], settings.facts, functions[1])
            own, watch = on_device((protocol, observers))
            return stretches.advance(
                key, own, timeline, state, losses, cuts, observers=watch, place=place, block=settings.block
            )  # fmt: skip

        return _each_seed(part, settings, key, state, losses)

    # No check of replication: it would require every constant in a loop to be cast to "varying".
    run = jax.shard_map(
        of_device, mesh=mesh,
        in_specs=(P(), specs(protocol), P(), P(), rows, P(), specs(observers), P(), of_place),
        out_specs=((rows, P(), P()), P()), check_vma=False,
    )  # fmt: skip
    return run(key, protocol, xs, shared, state, losses, observers, cuts, place)


def _start_call(settings: Settings, synchronous: bool, key, protocol, x0):
    """Make the state of every seed, and whether each leaf of its start is finite."""

    def one(key):
        x = x0(jax.random.fold_in(key, STARTS)) if isinstance(x0, Partial) else jax.tree.map(jnp.copy, x0)
        state = protocol.init(jax.random.fold_in(key, STEPS), loop.with_slots(x, settings.facts))
        finite = jax.tree.map(lambda leaf: jnp.all(jnp.isfinite(leaf)), x)
        return (placement.place_rows(state) if synchronous else state), finite

    return _each_seed(one, settings, key)


def _model_call(settings: Settings, protocol, state):
    return _each_seed(lambda state: loop.models(protocol, state, settings.facts.num_rows), settings, state)


def _each_seed(one: Callable[..., Any], settings: Settings, *batched: Any) -> Any:
    """Run one seed, or a batch of seeds: by vmap, or one after another if rows are large (see ``placement``)."""
    with placement.for_rows(settings.strategy, settings.bytes_per_row):
        if settings.seeds is None:
            return one(*batched)
        if settings.seeds == "vmap":
            return jax.vmap(one)(*batched)
        return jax.lax.map(lambda arguments: one(*arguments), batched)


_placed = jax.jit(_placed_call, static_argnums=(0, 1, 2), donate_argnums=(7,))
_advance = jax.jit(_advance_call, static_argnums=(0, 1), donate_argnums=(6,))
_start = jax.jit(_start_call, static_argnums=(0, 1))
_model = jax.jit(_model_call, static_argnums=(0,))


class Call(NamedTuple):
    """A compiled function and its arguments; arrays may be forms, ``jax.ShapeDtypeStruct``, if it is only compiled."""

    program: Any
    arguments: tuple[Any, ...]

    @property
    def footprint(self) -> Footprint:
        """Bytes that the program needs. A call of it with these arguments does not compile it again."""
        return footprint(self.program.lower(*self.arguments).compile())


def start_call(job: Job) -> Call:
    """Return the call that makes the state of a run."""
    return Call(_start, (job.settings, job.synchronous, job.key, job.protocol, job.start))


def advance_call(job: Job, piece: Piece, state: Any, losses: Any, width: int | None) -> tuple[Call, int | None]:
    """Return the call that runs a piece of the timeline, and the width of its packed events."""
    part, stops, size = job.timeline[piece.start : piece.stop], piece.stops, job.room.events
    if job.wide.packed and len(job.timeline):
        part, stops, size, width = _packed(job, piece, width)
    if job.placement is not None:
        return _placed_advance(job, part, stops, size, piece, state, losses), width
    return Call(_advance, (
        (part.event, part.draw), job.settings, job.key, job.protocol, stretches.padded(part.xs, size), part.shared,
        state, losses, job.observers, stretches.cuts(stops, piece, job.room.records, job.before),
    )), width  # fmt: skip


def _placed_advance(job: Job, part: Timeline, stops: Any, size: int, piece: Piece, state: Any, losses: Any) -> Call:
    spread = job.placement
    assert spread is not None
    planned = part if spread.place.rows is not None else spread.timeline
    functions, shared = (planned.event, planned.draw), planned.shared
    cut = stretches.cuts(stops, piece, job.room.records, job.before)
    given = (job.key, stretches.padded(part.xs, size), shared, losses, cut)
    key, xs, shared, losses, cut = replicate(spread.mesh, given)
    return Call(_placed, (
        functions, job.settings, spread.mesh, key, spread.protocol, xs, shared, state, losses,
        spread.observers, cut, spread.place_for(part, job.settings.block),
    ))  # fmt: skip


def _packed(job: Job, piece: Piece, width: int | None) -> tuple[Timeline, list[int], int, int]:
    """Pack a piece, with a barrier at each record.

    Returns:
        The wide events, the numbers of them at the end of each stretch, the number for which there is room, and the
        width.
    """
    stops = piece.stops
    intervals = sum(stop > 0 for stop in stops)
    # The record of the start runs no event, but its program takes events of the form of those after it.
    first = int(chunks.positions(len(job.timeline), job.record_every, job.record_at)[0])
    stop = piece.stop if intervals else min(first, chunks.CHUNK_EVENTS)
    part = job.timeline[piece.start : stop]
    every = len(part) // max(intervals, 1)
    wide = pack(part, width, barrier_every=every, key=job.key if part.draw is not None else None)
    assert wide.properties.packing is not None
    each = len(wide) // max(intervals, 1)
    room = max(len(wide), chunks.size(len(wide), chunks.bytes_per_entry(wide.xs)))
    return wide, [each * (stop // every) for stop in stops], room, wide.properties.packing.width


def check_fits(job: Job, what: str, call: Call) -> None:
    """Check that a call of a large run fits into the free memory of the device, beside what is there.

    Raises:
        ValueError: if it does not.
    """
    if is_large(job.bytes):
        check_device_memory(what, call.footprint.new, advice(job))


def advice(job: Job) -> str:
    """Return what to change in a run that does not fit into memory."""
    ways = ["take fewer nodes or observers, smaller batches, a smaller model or one of float16 parameters"]
    ways += ["fewer seeds in one call"] if job.key.ndim else []
    ways += ['strategy="map", which trains one node at a time'] if job.vmapped else []
    ways += ['packing="sequential"'] if job.wide.packed else []
    return ", or ".join(ways)


def models_made(job: Job, state: Any) -> Any:
    """Return the forms of the models that are made from a state, which may have forms instead of arrays.

    There are none if models are some of its arrays.
    """
    program = _model_program(job, state)
    return program.out_info if program.jaxpr.eqns else ()


def state_form(job: Job) -> Any:
    """Return the form of the state of a run."""
    call = functools.partial(_start_call, job.settings, False)
    return jax.eval_shape(call, job.key, job.protocol, job.form)[0]


def _model_program(job: Job, state: Any) -> Any:
    seeds: Literal["vmap"] | None = None if job.settings.seeds is None else "vmap"
    return _model.trace(dataclasses.replace(job.settings, seeds=seeds), job.protocol, state)


def models_of(job: Job, state: Any) -> Any:
    """Return the models of a state: its own arrays where models are parts of it, instead of copies."""
    program, arrays = _model_program(job, state), jax.tree.leaves((job.protocol, state))
    if program.jaxpr.eqns:
        return _model(job.settings, job.protocol, state)
    found = dict(zip(program.jaxpr.jaxpr.invars, arrays, strict=True))
    return jax.tree.unflatten(jax.tree.structure(program.out_info), [found[var] for var in program.jaxpr.jaxpr.outvars])
