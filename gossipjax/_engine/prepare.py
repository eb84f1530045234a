"""Prepare a run, between the call of ``simulate`` and the first event: checks, choices, and their record."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Key, PyTree

from gossipjax._base import placement
from gossipjax._base.arguments import choice, instance, shown
from gossipjax._base.binding import Frozen, bind
from gossipjax._base.calls import Call
from gossipjax._base.leaves import is_key
from gossipjax._base.memory import check_device_memory
from gossipjax._base.program_cache import use_default_cache
from gossipjax._base.rows import bytes_per_row, replicate
from gossipjax._engine import chunks, packing
from gossipjax._engine.checks import (
    check_begins,
    check_form,
    check_graph,
    check_message,
    check_models,
    check_start,
    check_step,
    check_weights,
    start_form,
)
from gossipjax._engine.mesh.checks import check_placeable
from gossipjax._engine.mesh.devices import as_mesh
from gossipjax._engine.mesh.placement import placement_of
from gossipjax._engine.probe import Probe, key_form, numbers
from gossipjax._engine.programs import Job, Settings
from gossipjax.facts import Properties, check_requires
from gossipjax.observe._models import Observer, bind_observers, check_observers
from gossipjax.results._provenance import call_record, describe_call
from gossipjax.results._trajectory import Trajectory, manifest
from gossipjax.sharing._aims import check_aims
from gossipjax.timeline import _moments
from gossipjax.timeline._events import draw_window, first_of_run
from gossipjax.types import Params, Protocol, Task, Timeline

Strategy = placement.Strategy
Packing = Literal["auto", "sequential", "packed", "levels"]


class Recording(NamedTuple):
    """When a run records; at most one field is set."""

    record_every: int | None
    record_at: Sequence[int] | None
    record_times: Any


class Execution(NamedTuple):
    """How a run is executed; this changes its numbers by rounding only."""

    strategy: Strategy
    packing: Packing
    mesh: Any = None
    """Devices over which nodes are spread; None: no mesh."""
    parts: Any = "blocks"


class Choices(NamedTuple):
    """Choices that the caller left open."""

    placed: placement.Choice
    packed: packing.Choice


def prepare(
    key: Any,
    protocol: Any,
    timeline: Any,
    x0: Any,
    observers: Any,
    recording: Recording,
    execution: Execution,
) -> tuple[Job, Call, dict[str, Any]]:
    """Check everything and make the choices of a run.

    Returns:
        The run, the record of its call, and its manifest.
    """
    _check_sorts(key, protocol, timeline)
    use_default_cache()
    bound, watching, facts = bind(protocol), bind_observers(observers), timeline.properties
    start = _bind_start(x0, facts.num_rows)
    recording, at = _resolve_times(key, timeline, recording)
    records = len(chunks.positions(len(timeline), recording.record_every, at))
    form, found, before, record_bytes = _check(key, bound, timeline, start, watching, records + 1)
    room = chunks.room(len(timeline), records, _entry_bytes(key, timeline), record_bytes)
    if execution.mesh is not None:
        check_placeable(bound, timeline, found, execution.strategy)
    choices = _choose(key, timeline, found, execution, _interval(timeline, recording, at))
    written = {"strategy": execution.strategy, "packing": execution.packing}  # numbers do not depend on the mesh
    call = call_record(key, protocol, timeline, x0, **recording._asdict(), observers=list(observers), **written)
    spread = None
    if execution.mesh is not None:
        spread = placement_of(execution.mesh, execution.parts, timeline, bound, watching)
        execution = execution._replace(strategy=choices.placed.strategy)
    if choices.placed.strategy == "shard" and "synchronous" in facts:
        bound, watching = placement.replicate_on_devices((bound, watching))
    # Seeds run together if rows are small, one after another if they are large.
    together: Literal["vmap", "map"] = "vmap" if choices.placed.strategy == "vmap" else "map"
    seeds = together if key.ndim else None
    settings = Settings(
        execution.strategy, bytes_per_row(found.x0), seeds, numbers(facts), choices.packed.block
    )  # fmt: skip
    about = manifest(key, _configuration(call, timeline, found.x0, settings, choices, watching, x0))
    if spread is not None:
        about["placement"] = spread.report
    job = Job(
        key, bound, timeline, start, watching, form, settings, "synchronous" in facts, choices.packed,
        recording.record_every, at, before, room, found.bits.reported, key.size * _bytes(found.state),
        choices.placed.strategy == "vmap", _local_steps(bound, found), spread,
    )  # fmt: skip
    return job, call, about


def _local_steps(protocol: Protocol, found: Probe) -> int | None:
    """Return how many gradients an acting node takes; one that reports no losses cannot be counted as acting."""
    steps = protocol.requires.local_steps
    return steps if found.trains or steps == 0 else None


def _entry_bytes(key: Any, timeline: Timeline) -> int:
    """Return the bytes of one event in a compiled call; what is drawn during the run is drawn for each seed."""
    if timeline.draw is None or not len(timeline):
        return chunks.bytes_per_entry(timeline.xs)
    drawn = jax.eval_shape(lambda one: draw_window(one, timeline[:1]), jax.random.key(0))
    return key.size * chunks.bytes_per_entry(drawn)


def as_execution(strategy: Any, packing: Any, mesh: Any = None, parts: Any = "blocks") -> Execution:
    """Return how a run is executed; the default strategy is that of :func:`gossipjax.placement.using`."""
    if mesh is None and not (isinstance(parts, str) and parts == "blocks"):
        raise ValueError(f"parts={shown(parts)}: spreads nodes over the devices of a mesh; pass mesh=gossipjax.mesh()")
    mesh = None if mesh is None else as_mesh(mesh)
    if strategy is None:
        strategy = placement.in_force()
    choice("strategy", strategy, get_args(Strategy))
    return Execution(strategy, packing, mesh, parts)


def _check_sorts(key, protocol, timeline) -> None:
    """Refuse arguments of the wrong type."""
    dtype = getattr(key, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jax.dtypes.prng_key) or key.ndim > 1 or not key.size:
        raise ValueError(
            f"key={shown(key)}: must be a typed key, jax.random.key(0), or a vector of them, jax.random.split(key, S)"
        )
    instance("protocol", protocol, Protocol, "build one, such as gossipjax.gossip_averaging()")
    instance("timeline", timeline, Timeline, "build one with gossipjax.timeline, such as rounds(W, 100)")


def _resolve_times(key, timeline: Timeline, recording: Recording) -> tuple[Recording, Sequence[int] | None]:
    """Turn simulated seconds into numbers of events."""
    if recording.record_times is None:
        return recording, recording.record_at
    if recording.record_at is not None:
        raise ValueError("both record_at and record_times are given; pass one of them")
    return recording, _moments.record_numbers(timeline, key, recording.record_times)


def _interval(timeline: Timeline, recording: Recording, at: Sequence[int] | None) -> int:
    """Return the number of events between two records; the average, if records are irregular."""
    if at is None:
        return chunks.interval(len(timeline), recording.record_every)
    return len(timeline) // max(len(at), 1)


def _bind_start(x0: Any, rows: int) -> Any:
    """Turn a start into a function of a key that jit accepts, stacked arrays, or an earlier trajectory."""
    if isinstance(x0, Task):
        return Partial(_task_start, x0, Frozen(rows))
    if isinstance(x0, Partial | Trajectory) or not callable(x0):
        return x0
    return Partial(x0)


def _task_start(task: Task, rows: Frozen[int], key: Key[Array, ""]) -> Params:
    return replicate(task.init(key), rows.value)


def _check(
    key, protocol: Protocol, timeline: Timeline, start, observers: tuple[Observer, ...], records: int
) -> tuple[PyTree[jax.ShapeDtypeStruct], Probe, tuple[int, float], int]:
    """Check everything that can be checked before the work.

    Returns:
        The form of the stacked start, the probe, the event number and time before the first event, and the bytes that
        observers measure at a record.
    """
    facts, one = timeline.properties, key_form(key)
    check_requires(protocol.requires, facts)
    form = _form(start, one, facts, key.ndim)
    check_models(protocol, form)
    found = check_step(one, protocol, timeline, form)
    check_message(found.bits, timeline)
    first = first_of_run(timeline, key[0] if key.ndim else key) if len(timeline) else None
    if first is not None:
        check_weights(protocol.requires, timeline, first.mixing)
        check_graph(protocol, timeline, first.mixing)
        check_begins(timeline, first)
        check_aims(protocol, timeline)
    measured = check_observers(observers, found.x, found.versions, found.meter)
    seeds, record = max(key.size, 1), _bytes(measured)
    _check_memory(seeds, found, facts, records * record)
    return form, found, _moments.before(timeline, first), seeds * record


def _check_memory(seeds: int, found: Probe, facts: Properties, kept: int) -> None:
    model, state = _bytes(found.x0), _bytes(found.state)
    check_device_memory(
        f"this run ({seeds} seed(s), {facts.num_rows} models of {model // max(facts.num_rows, 1):,} bytes and what the "
        f"protocol keeps beside them, {state:,} bytes a seed, and {kept:,} of records)",
        seeds * (state + kept),
        "take fewer nodes, seeds or records, a smaller model, or a protocol of sampled clients such as fedavg",
    )


def _form(start: Any, key, facts: Properties, seeds: int) -> PyTree[jax.ShapeDtypeStruct]:
    """Shapes of the stacked start; if a function makes it, it is not called."""
    if isinstance(start, Trajectory):
        if start.x is None:
            raise ValueError(
                "x0 is a trajectory without its models: pass the one that simulate returned, or save it "
                "with models=True"
            )
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[seeds:], leaf.dtype), start.x)
    if isinstance(start, Partial):
        form = start_form(start, key)
        check_form(form, facts)
        return form
    return check_start(start, facts)


def _bytes(tree: PyTree) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree) if not is_key(leaf))


def _choose(key, timeline: Timeline, found: Probe, execution: Execution, interval: int) -> Choices:
    """Choose how steps are spread over nodes, and whether events are packed."""
    size = bytes_per_row(found.x0)
    with placement.for_rows(execution.strategy, size):
        placed = placement.choose(jax.tree.leaves(found.x0)[0].shape[0], size)
    if execution.mesh is not None and placed.strategy == "shard":
        placed = placement.Choice("map", f"{placed.reason}, which the mesh gives its nodes")
    rows = jax.tree.leaves(found.x0)[0].shape[0]
    stacked = [leaf for leaf in jax.tree.leaves(found.state) if leaf.shape[:1] == (rows,) and not is_key(leaf)]
    packed = packing.choose(
        timeline, execution.packing, many_seeds=key.ndim > 0, row_bytes=bytes_per_row(stacked), trains=found.trains,
        interval=interval,
    )  # fmt: skip
    return Choices(placed, packed)


def _configuration(call: Call, timeline, x, settings: Settings, choices: Choices, observers, x0) -> dict[str, Any]:
    facts, leaves = timeline.properties, jax.tree_util.tree_leaves_with_path(x)
    shared = not (callable(x0) or isinstance(x0, Task | Trajectory))
    return describe_call(call) | {
        "mixing": facts.messages,
        "synchronous": "synchronous" in facts,
        "num_events": len(timeline),
        "num_nodes": facts.num_nodes,
        "num_rows": facts.num_rows,
        "bytes_per_row": bytes_per_row(x),
        "start": "the same for all seeds" if shared else "each seed its own",
        "parameters": {jax.tree_util.keystr(path): f"{leaf.dtype}{list(leaf.shape[1:])}" for path, leaf in leaves},
        "strategy": f"{choices.placed.strategy}: {choices.placed.reason}",
        "seeds": settings.seeds,
        "packing": choices.packed.reason,
        "traffic": None if facts.traffic is None else dataclasses.asdict(facts.traffic),
        "variables": [variable.name for observer in observers for variable in observer.variables],
    }
