"""The host driver around the loop: checks, chunks, progress, records, callbacks, resume, errors."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Key, Num, PyTree
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from gossipjax._base import placement
from gossipjax._base.arguments import callable_, choice, flag, instance, shown
from gossipjax._base.binding import Static, bind
from gossipjax._base.calls import Call, attach
from gossipjax._base.memory import check_device_memory
from gossipjax._base.rows import bytes_per_row, replicate
from gossipjax._base.streams import STARTS
from gossipjax._engine import chunks, loop
from gossipjax._engine.checks import (
    check_form,
    check_message,
    check_models,
    check_requires,
    check_start,
    check_step,
    check_weights,
)
from gossipjax._engine.driver import Callback, Driver, Job, Settings
from gossipjax._engine.driver import Diverged as Diverged
from gossipjax._engine.packing import chosen as packing_chosen
from gossipjax.observe._models import Observer, bind_observers, check_observers
from gossipjax.results._provenance import call_record, described, stopped_call
from gossipjax.results._trajectory import Trajectory, manifest
from gossipjax.timeline import _moments
from gossipjax.types import Params, Planned, Properties, Protocol, Task, Timeline, as_timeline

Strategy = placement.Strategy
Packing = Literal["auto", "sequential", "packed"]


def simulate(
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
    progress: bool | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    callback: Callback | None = None,
    throw: bool = True,
) -> Trajectory:
    """Run a protocol over a timeline: check everything, run in chunks, record, report.

    Results do not depend on chunks and restarts; nor, up to rounding, on recording, packing or the number of other
    seeds: other programs may add in another order (2e-7 of a float32 parameter).

    >>> import jax, gossipjax as gj
    >>> plan = gj.timeline.rounds(gj.mixing.metropolis(gj.topology.hypercube(3)), 5)
    >>> x0 = jax.numpy.arange(8.0)
    >>> watch = [gj.observe.consensus_distance()]
    >>> run = gj.simulate(jax.random.key(0), gj.gossip_averaging(), plan, x0, observers=watch, record_every=1)
    >>> [round(float(value), 4) for value in run["consensus_distance"]]  # by (d − 1)²/(d + 1)² = 1/4 a round
    [5.25, 1.3125, 0.3281, 0.082, 0.0205, 0.0051]

    Stop early, and log while it runs: a callback gets every record as a dict of plain values.

    >>> def enough(record):
    ...     return record["consensus_distance"] < 0.1
    >>> run = gj.simulate(
    ...     jax.random.key(0), gj.gossip_averaging(), plan, x0, observers=watch, record_every=1, callback=enough
    ... )
    >>> int(run["event"][-1])
    3

    Weights & Biases: ``callback=lambda record: wandb.log(record, step=record["event"])``, which returns None. CSV:
    make ``csv.DictWriter(file, names)`` and pass its ``writerow`` in a function of two lines; TensorBoard likewise,
    with ``writer.add_scalar(name, value, record["event"])``.

    Go on: pass the trajectory as the start, with the same key and a longer timeline that begins with the same events.
    100 rounds and 100 more are 200 at once with the same ``record_every``, bit for bit (where events are packed, a mean
    loss up to rounding). Other intervals are other programs: XLA may round a tiny model's sums in another way.

    >>> longer = gj.timeline.rounds(gj.mixing.metropolis(gj.topology.hypercube(3)), 9)
    >>> run = gj.simulate(jax.random.key(0), gj.gossip_averaging(), longer, run, observers=watch, record_every=1)
    >>> run["event"].values.tolist()
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]

    Args:
        key: one typed key, or S of them (``jax.random.split(key, S)``): S runs of the same plan in one call, which
            adds the dimension ``seed``.
        protocol: what nodes do.
        timeline: who meets whom, when; or a plan of :mod:`gossipjax.systems`, whose timeline is run.
        x0: where to start. A task: all nodes of a run start from the model that ``task.init`` draws, and each seed
            draws its own. A function of a key that makes stacked parameters, leaves ``(num_rows, ...)``: likewise one
            start for each seed. Stacked parameters: all seeds start there. A :class:`Trajectory`: go on where it ends.
        observers: what to measure at every record, see :mod:`gossipjax.observe`.
        record_every: source events between records; None: about 100 records (a continued run keeps the interval that
            it has where that fits no other). The start and the end are always there.
        record_at: increasing numbers of source events of this timeline at which to record, instead of record_every.
        record_times: increasing simulated seconds at which to record, instead: after the last event up to each (later
            by a relative 1e-12 still counts as up to); times with no event between them share a record.
        strategy: how a step is spread over nodes: "vmap", "map", "shard", or "auto" (by measured thresholds); None: as
            :func:`gossipjax.placement.using` says.
        packing: "packed" runs narrow events in wide conflict-free ones (:func:`gossipjax.pack`), "sequential" one after
            another, "auto" as is faster here.
        progress: show a progress bar with the time left; None: only on a terminal.
        checkpoint: a folder in which state and records are kept after each chunk; the same call resumes from there, and
            so does one with a longer timeline.
        callback: called on the host at every record, the start included, with a dict of plain values: ``event``,
            ``time`` (seconds), ``bytes_sent``, ``messages_sent``, ``train_loss`` and what the observers measured
            (statistics over nodes as ``<name>_mean``, …; with S seeds arrays of S values). True ends the run there. The
            records of a resumed checkpoint are given to it again first; those of a continued trajectory are not.
        throw: raise when parameters or losses become infinite or NaN; False: keep going and note it in the manifest.

    Returns:
        A :class:`Trajectory`: ``bytes_sent``, ``messages_sent``, ``train_loss`` and what the observers measured, with
        ``time`` in float64. A timeline without events gives the record of the start alone. A run that grows without
        bounds, but has not reached infinity, is noted there and warned of, see :class:`gossipjax.Diverging`.

    Raises:
        ValueError: whatever does not fit, before any work: numbers of nodes, shapes, types, NaN, requirements, more
            memory than there is, a checkpoint or trajectory of another run.
        TypeError: things of the wrong sort, such as a timeline that is none.
        Diverged: parameters or losses became infinite or NaN; names the first bad event, its node and time.
        OSError: a checkpoint cannot be written; what was kept before stays.
    """
    flag("throw", throw)
    timeline = as_timeline(timeline)
    progress = progress if progress is None else flag("progress", progress)
    callback = callback if callback is None else callable_("callback", callback, "callback(record) -> True to stop")
    records = {"record_every": record_every, "record_at": record_at, "record_times": record_times}
    job, call, about = _prepare(key, protocol, timeline, x0, observers, strategy, packing, records)
    with contextlib.ExitStack() as stack:
        saved = None
        if checkpoint is not None:
            from gossipjax._engine.checkpoint import Checkpoint

            saved = stack.enter_context(Checkpoint(checkpoint, job.run_identity()))
        driver = Driver(job)
        if saved is not None:
            driver.restore(saved)
        bar = stack.enter_context(_bar(progress))
        row = bar.add_task(timeline.properties.name, total=len(timeline))
        for done in driver.run(saved, callback, throw):
            bar.update(row, completed=done)
    trajectory = driver.trajectory(about)
    stopped = trajectory.manifest.get("stopped")
    attach(trajectory, call if stopped is None else stopped_call(call, stopped["event"]))
    return trajectory


def _prepare(key, protocol, timeline, x0, observers, strategy, packing, records) -> tuple[Job, Call, dict[str, Any]]:
    """Check everything, make the choices, and say in the manifest what they are."""
    _check_sorts(key, protocol, timeline, strategy)
    given = protocol
    protocol, watching, facts = bind(protocol), bind_observers(observers), timeline.properties
    strategy = placement.in_force() if strategy is None else strategy
    start = _bind_start(x0, facts.num_rows)
    record_every = records["record_every"]
    record_at = _record_at(key, timeline, records["record_at"], records["record_times"])
    times = chunks.positions(len(timeline), record_every, record_at)
    form = _check(key, protocol, timeline, start, watching, len(times) + 1)
    shape = jax.eval_shape(lambda x: loop.with_slots(x, facts), form)
    with placement.using(strategy):
        chosen = placement.chosen(jax.tree.leaves(shape)[0].shape[0], bytes_per_row(shape))
    numbers = Properties(facts.num_nodes, facts.num_rows, "checked already", num_slots=facts.num_slots)
    # Seeds run together where rows are small, one after another where they are large.
    settings = Settings(strategy, None if key.ndim == 0 else "vmap" if chosen.strategy == "vmap" else "map", numbers)
    size, trains, reports = _step_form(protocol, timeline, shape)
    every = chunks.interval(len(timeline), record_every)
    interval = every if record_at is None else len(timeline) // max(len(record_at), 1)
    wide = packing_chosen(timeline, packing, many_seeds=key.ndim > 0, row_bytes=size, trains=trains, interval=interval)
    call = call_record(
        key, given, timeline, x0, **records, observers=list(observers), strategy=strategy, packing=packing
    )
    about = manifest(key, _configuration(call, timeline, shape, settings, chosen, wide, watching, x0))
    if chosen.strategy == "shard" and facts.synchronous:
        protocol, watching = placement.everywhere((protocol, watching))
    job = Job(
        key, protocol, timeline, start, watching, form, settings, facts.synchronous, wide, record_every, record_at,
        _moments.before(timeline, key), reports,
    )  # fmt: skip
    return job, call, about


def _check_sorts(key, protocol, timeline, strategy) -> None:
    """Refuse things of the wrong sort."""
    dtype = getattr(key, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jax.dtypes.prng_key) or key.ndim > 1 or not key.size:
        raise ValueError(
            f"key={shown(key)}: must be a typed key, jax.random.key(0), or a vector of them, jax.random.split(key, S)"
        )
    instance("protocol", protocol, Protocol, "build one, such as gossipjax.gossip_averaging()")
    if strategy is not None:
        choice("strategy", strategy, get_args(Strategy))


def _step_form(protocol: Protocol, timeline: Timeline, x0: PyTree) -> tuple[int, bool, bool]:
    """Bytes of one row of the protocol's state, whether its steps train, and whether they report what they send."""
    key, reported = jax.random.key(0), []

    def step(x0: PyTree, timeline: Timeline) -> tuple[Any, Any]:
        state = protocol.init(key, x0)
        info = protocol.step(key, state, loop.first_event(key, timeline))[1]
        reported.append(info.bits is not None)  # an int may be too large for an output
        return state, info.loss

    state, loss = jax.eval_shape(step, x0, timeline)
    rows = jax.tree.leaves(x0)[0].shape[0]
    stacked = [leaf for leaf in jax.tree.leaves(state) if leaf.shape[:1] == (rows,) and not _is_key(leaf)]
    return bytes_per_row(stacked), loss is not None, reported[-1]


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _record_at(key, timeline: Timeline, record_at, record_times) -> Sequence[int] | None:
    """Turn simulated seconds into numbers of events."""
    if record_times is None:
        return record_at
    if record_at is not None:
        raise ValueError("both record_at and record_times are given; pass one of them")
    return _moments.record_numbers(timeline, key, record_times)


@jax.jit
def _called(function: Partial, key: Key[Array, ""]) -> Any:
    """Call a start's function; compiled once for all calls."""
    return function(key)


def _bind_start(x0: Any, rows: int) -> Any:
    """Make a start one of three: a function of a key that jit takes, stacked arrays, an earlier trajectory."""
    if isinstance(x0, Task):
        return Partial(_task_start, x0, Static(rows))
    if isinstance(x0, Partial | Trajectory) or not callable(x0):
        return x0
    return Partial(x0)


def _task_start(task: Task, rows: Static[int], key: Key[Array, ""]) -> Params:
    return replicate(task.init(key), rows.value)


def _check(key, protocol: Protocol, timeline: Timeline, start, observers: tuple[Observer, ...], records: int) -> PyTree:
    """Check everything that can be checked before the work; return the form of the stacked start."""
    facts, one = timeline.properties, key[0] if key.ndim else key
    check_requires(protocol.requires, facts)
    form = _form(start, one, facts, key.ndim)
    check_models(protocol, form)
    x0 = jax.eval_shape(lambda x: loop.with_slots(x, facts), form)
    state = jax.eval_shape(protocol.init, one, x0)
    check_step(one, protocol, timeline, state)
    check_message(one, protocol, timeline, state)
    check_weights(one, protocol.requires, timeline)
    x = jax.eval_shape(lambda state: loop.models(protocol, state, facts.num_rows), state)
    beside = (None if f is None else jax.eval_shape(f, state) for f in (protocol.versions, protocol.meter))
    measured = check_observers(observers, x, *beside)
    seeds, model, kept = max(key.size, 1), _bytes(x0), records * _bytes(measured)
    check_device_memory(
        f"this run ({seeds} seed(s), {facts.num_rows} models of {model // max(facts.num_rows, 1):,} bytes and what the "
        f"protocol keeps beside them, {_bytes(state):,} bytes a seed, and {kept:,} of records)",
        seeds * (_bytes(state) + kept) + (model if facts.synchronous else 0),
        "take fewer nodes, seeds or records, a smaller model, or a protocol of sampled clients such as fedavg",
    )
    if isinstance(start, Partial):
        check_start(_called(start, jax.random.fold_in(one, STARTS)), facts)
    return form


def _form(start: Any, key, facts: Properties, seeds: int) -> PyTree[jax.ShapeDtypeStruct]:
    """Shapes of the stacked start, without making it where a function does."""
    if isinstance(start, Trajectory):
        if start.x is None:
            raise ValueError(
                "x0 is a trajectory without its models: pass the one that simulate returned, or save it "
                "with models=True"
            )
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[seeds:], leaf.dtype), start.x)
    if isinstance(start, Partial):
        form = jax.eval_shape(start, key)
        check_form(form, facts)
        return form
    check_start(start, facts)
    return jax.eval_shape(lambda x: x, jax.tree.map(jnp.asarray, start))


def _bytes(tree: PyTree) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree) if not _is_key(leaf))


def _configuration(call: Call, timeline, x, settings, choice, wide, observers, x0) -> dict[str, Any]:
    facts, leaves = timeline.properties, jax.tree_util.tree_leaves_with_path(x)
    shared = not (callable(x0) or isinstance(x0, Task | Trajectory))
    return described(call) | {
        "mixing": facts.messages,
        "synchronous": facts.synchronous,
        "num_events": len(timeline),
        "num_nodes": facts.num_nodes,
        "num_rows": facts.num_rows,
        "bytes_per_row": bytes_per_row(x),
        "start": "the same for all seeds" if shared else "each seed its own",
        "parameters": {jax.tree_util.keystr(path): f"{leaf.dtype}{list(leaf.shape[1:])}" for path, leaf in leaves},
        "strategy": f"{choice.strategy}: {choice.reason}",
        "seeds": settings.seeds,
        "packing": wide.reason,
        "traffic": None if facts.traffic is None else dataclasses.asdict(facts.traffic),
        "variables": [variable.name for observer in observers for variable in observer.variables],
    }


def _bar(progress: bool | None) -> Progress:
    """Make a progress bar, quiet unless asked for or on a terminal."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    shown = console.is_terminal if progress is None else progress
    return Progress(*columns, console=console, disable=not shown, transient=True)
