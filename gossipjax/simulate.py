"""The host driver around the loop: checks, chunks, progress, records, resume, errors."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float, Key, PyTree
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from gossipjax import engine, spread
from gossipjax.check import check_requires, check_start, check_step, check_weights
from gossipjax.describe import describe
from gossipjax.engine import STARTS, STEPS
from gossipjax.log import Log
from gossipjax.observe import Observer, bind_observers, check_observers
from gossipjax.packing import WINDOW, pack
from gossipjax.packing import chosen as packing_chosen
from gossipjax.pieces import Piece, plan
from gossipjax.rows import bytes_per_row
from gossipjax.static import bind
from gossipjax.trajectory import Trajectory, manifest
from gossipjax.types import Params, Properties, Protocol, Timeline

Strategy = Literal["auto", "vmap", "map", "shard"]
Packing = Literal["auto", "sequential", "packed"]


class Diverged(FloatingPointError):
    """Parameters became infinite or NaN; the message names the first bad event and its simulated time."""


@dataclasses.dataclass(frozen=True)
class _Settings:
    """What compiled calls depend on besides their arrays."""

    strategy: Strategy
    seeds: Literal["vmap", "map"] | None
    facts: Properties
    """Numbers of nodes and rows."""


def _advance_call(functions, settings: _Settings, every, key, protocol, xs, static, state, observers):
    """Advance one piece of the timeline, whose functions are ``event`` and ``draw``."""

    def one(key, state):
        timeline = Timeline(xs, static, functions[0], settings.facts, functions[1])
        return engine.run(key, protocol, timeline, state, record_every=every, observers=observers)

    return _each_seed(one, settings, key, state)


def _start_call(settings: _Settings, synchronous: bool, key, protocol, x0):
    """Make the state of every seed and record it."""

    def one(key):
        x = x0(jax.random.fold_in(key, STARTS)) if isinstance(x0, Partial) else jax.tree.map(jnp.copy, x0)
        state = protocol.init(jax.random.fold_in(key, STEPS), engine.with_slots(x, settings.facts))
        return spread.over_nodes(state) if synchronous else state

    return _each_seed(one, settings, key)


def _observe_call(settings: _Settings, protocol, state, observers, index, time):
    rows = settings.facts.num_rows
    return _each_seed(lambda state: engine.observe(protocol, state, rows, observers, index, time), settings, state)


def _model_call(settings: _Settings, protocol, state):
    return _each_seed(lambda state: engine.models(protocol, state, settings.facts.num_rows), settings, state)


def _each_seed(one: Callable[..., Any], settings: _Settings, *batched: Any) -> Any:
    """Run one seed, or a batch: by vmap, or one after another where a node's row is large (see ``spread``)."""
    with spread.using(settings.strategy):
        if settings.seeds is None:
            return one(*batched)
        if settings.seeds == "vmap":
            return jax.vmap(one)(*batched)
        return jax.lax.map(lambda arguments: one(*arguments), batched)


_advance = jax.jit(_advance_call, static_argnums=(0, 1, 2), donate_argnums=(7,))
_start = jax.jit(_start_call, static_argnums=(0, 1))
_observe = jax.jit(_observe_call, static_argnums=(0,))
_model = jax.jit(_model_call, static_argnums=(0,))


def simulate(
    key: Key[Array, "*seeds"],
    protocol: Protocol,
    timeline: Timeline,
    x0: Params | Callable[[Key[Array, ""]], Params],
    *,
    observers: Sequence[Observer] = (),
    record_every: int | None = None,
    record_at: Sequence[int] | None = None,
    record_times: Sequence[float] | None = None,
    strategy: Strategy | None = None,
    packing: Packing = "auto",
    progress: bool | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    throw: bool = True,
) -> Trajectory:
    """Run a protocol over a timeline: check everything, run in chunks, record, report.

    Results do not depend on recording, chunks, packing, restarts or the number of other seeds.

    >>> import jax, gossipjax as gj
    >>> plan = gj.timeline.rounds(gj.weights.metropolis(gj.topology.hypercube(3)), 5)
    >>> x0 = jax.numpy.arange(8.0)
    >>> watch = [gj.observe.consensus_distance()]
    >>> run = gj.simulate(jax.random.key(0), gj.gossip_averaging(), plan, x0, observers=watch, record_every=1)
    >>> [round(float(value), 4) for value in run["consensus_distance"]]  # by (d − 1)²/(d + 1)² = 1/4 a round
    [5.25, 1.3125, 0.3281, 0.082, 0.0205, 0.0051]

    Args:
        key: one typed key, or S of them (``jax.random.split(key, S)``): S runs of the same plan in one call, which
            adds the dimension ``seed``.
        protocol: what nodes do.
        timeline: who meets whom, when.
        x0: stacked start parameters, leaves ``(num_rows, ...)``; or a function of a key that makes them, so that each
            seed has a start of its own.
        observers: what to measure at every record, see :mod:`gossipjax.observe`.
        record_every: source events between records; None: about 100 records. The start and the end are always there.
        record_at: increasing numbers of source events of this timeline at which to record, instead of record_every.
        record_times: increasing simulated seconds at which to record, instead: after the last event up to each; times
            with no event between them share a record.
        strategy: how a step is spread over nodes: "vmap", "map", "shard", or "auto" (by measured thresholds); None: as
            :func:`gossipjax.spread.using` says.
        packing: "packed" runs narrow events in wide conflict-free ones (:func:`gossipjax.pack`), "sequential" one after
            another, "auto" as is faster here (:func:`gossipjax.packing.chosen`).
        progress: show a progress bar with the time left; None: only on a terminal.
        checkpoint: a folder in which state and records are kept after each chunk; the same call resumes from there.
        throw: raise when parameters become infinite or NaN; False: keep going and note it in the manifest.

    Returns:
        A :class:`Trajectory`: ``bytes_sent``, ``messages_sent``, ``train_loss`` and what the observers measured.

    Raises:
        ValueError: whatever does not fit, before any work: numbers of nodes, shapes, types, NaN, requirements.
        Diverged: parameters became infinite or NaN; names the first bad event and its time.
    """
    protocol, observers, start = bind(protocol), bind_observers(observers), _bind_start(x0)
    facts, strategy = timeline.properties, spread.in_force() if strategy is None else strategy
    shape = _check(key, protocol, timeline, start, observers)
    choice = _choice(shape, strategy)
    numbers = Properties(facts.num_nodes, facts.num_rows, "checked already", num_slots=facts.num_slots)
    settings = _Settings(strategy, None if key.ndim == 0 else "vmap" if choice.strategy == "vmap" else "map", numbers)
    size, trains, reports = _step_form(protocol, timeline, shape)
    record_at = _record_at(key, timeline, record_at, record_times)
    interval = _interval(len(timeline), record_every, record_at)
    wide = packing_chosen(timeline, packing, many_seeds=key.ndim > 0, row_bytes=size, trains=trains, interval=interval)
    pieces = plan(len(timeline), record_every, record_at, packed=wide.packed)
    about = manifest(key, _configuration(protocol, timeline, shape, settings, choice, wide, pieces, observers))
    if choice.strategy == "shard" and facts.synchronous:
        protocol, observers = spread.everywhere((protocol, observers))
    state = _start(settings, facts.synchronous, key, protocol, start)
    first = _observe(settings, protocol, state, observers, *_before(key, timeline))
    log = Log(jax.device_get(first), key.shape[0] if key.ndim else None)
    done, saved = 0, None
    if checkpoint is not None:
        from gossipjax.checkpoint import Checkpoint, fingerprint  # here, because Orbax takes 25 MB

        saved = Checkpoint(
            pathlib.Path(checkpoint), _identity(about, fingerprint(protocol, timeline, start, observers, pieces))
        )
        if (found := saved.restore(state)) is not None:
            done, state, records = found
            log.load_state_dict(records)
    with _bar(progress) as bar:
        row = bar.add_task(facts.name, total=len(timeline), completed=pieces[done - 1].stop if done else 0)
        width = None
        for number, piece in enumerate(pieces[done:], start=done + 1):
            part, every = timeline[piece.start : piece.stop], piece.every
            if wide.packed:
                part, every, width = _packed(key, part, piece, width)
            state = _one_piece(settings, key, protocol, part, state, observers, every, piece.every is None, log, throw)
            bar.update(row, completed=piece.stop)
            if saved is not None:
                saved.save(number, state, log.state_dict())
    if log.diverged:
        about["diverged"] = {name: values.tolist() for name, values in log.bad.items()}
    return Trajectory(log.dataset(observers, about, traffic_reported=reports), state, _model(settings, protocol, state))


def _interval(num_events: int, record_every: int | None, record_at: Sequence[int] | None) -> int:
    """Events between two records, on average."""
    if record_at is not None:
        return num_events // max(len(record_at), 1)
    return max(1, num_events // 100) if record_every is None else record_every


def _step_form(protocol: Protocol, timeline: Timeline, x0: PyTree) -> tuple[int, bool, bool]:
    """Bytes of one row of the protocol's state, whether its steps train, and whether they report what they send."""
    key, reported = jax.random.key(0), []

    def step(x0: PyTree, timeline: Timeline) -> tuple[Any, Any]:
        state = protocol.init(key, x0)
        info = protocol.step(key, state, engine.first_event(key, timeline))[1]
        reported.append(info.bits is not None)  # an int may be too large for an output
        return state, info.loss

    state, loss = jax.eval_shape(step, x0, timeline)
    rows = jax.tree.leaves(x0)[0].shape[0]
    stacked = [leaf for leaf in jax.tree.leaves(state) if leaf.shape[:1] == (rows,) and not _is_key(leaf)]
    return bytes_per_row(stacked), loss is not None, reported[-1]


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _identity(about: dict[str, Any], contents: str) -> dict[str, Any]:
    """What a resumed run must share; how the work is spread may change with the machine."""
    kept = {k: v for k, v in about["configuration"].items() if k not in ("strategy", "seeds", "packing")}
    return {"key": about["key"], "configuration": kept, "program or data": contents}


def _packed(key, part: Timeline, piece: Piece, width: int | None) -> tuple[Timeline, int, int]:
    """Pack one piece, with a barrier at each of its records; return it with its wide events a record and its width."""
    every = piece.stop - piece.start if piece.every is None else piece.every
    packed = pack(part, width, barrier_every=every, key=key if part.draw is not None else None)
    assert packed.properties.packing is not None
    return packed, len(packed) * every // len(part), packed.properties.packing.width


def _one_piece(settings, key, protocol, part: Timeline, state, observers, every, silent, log: Log, throw: bool) -> Any:
    functions, watching = (part.event, part.draw), () if silent else observers
    (state, status), records = _advance(
        functions, settings, every, key, protocol, part.xs, part.static, state, watching
    )
    log.add(jax.device_get(records), keep=not silent)
    if log.note(jax.device_get(status)) and throw:
        raise Diverged(_explain(log))
    return state


def _before(key, timeline: Timeline) -> tuple[Array, Array]:
    """Number and time before the first event: not 0 for a later window of a longer plan."""
    index, time = _moments(_stream(key), timeline[:1])
    return index[0], jnp.where(index[0] == 0, 0, time[0]).astype(jnp.float32)


def _record_at(key, timeline: Timeline, record_at, record_times) -> Sequence[int] | None:
    """Turn simulated seconds into numbers of events."""
    if record_times is None:
        return record_at
    if record_at is not None:
        raise ValueError("both record_at and record_times are given; pass one of them")
    wanted = np.asarray(record_times, np.float64).ravel()
    times = event_times(key, timeline)
    counts = np.unique(np.searchsorted(times, wanted, side="right"))
    if not wanted.size or counts[0] == 0 or wanted[-1] < 0 or (np.diff(wanted) <= 0).any():
        raise ValueError(
            f"record_times={wanted[:5].tolist()} …: must be increasing seconds, the first event being at {times[0]:g} s"
        )
    return counts.tolist()


def event_times(key: Key[Array, "*seeds"], timeline: Timeline) -> Float[np.ndarray, " T"]:
    """Return the simulated seconds of every event of a timeline.

    Raises:
        ValueError: several keys, where each draws times of its own.
    """
    if timeline.draw is not None and key.ndim:
        raise ValueError(f"each seed draws its own times in {timeline.properties.name}; use record_at, or one key")
    parts = [timeline[at : at + WINDOW] for at in range(0, len(timeline), WINDOW)]
    return np.concatenate([np.asarray(_moments(_stream(key), part)[1], np.float64) for part in parts])


def _stream(key: Key[Array, "*seeds"]) -> Key[Array, ""]:
    return jax.random.fold_in(key[0] if key.ndim else key, engine.EVENTS)


def _moments(key: Key[Array, ""], timeline: Timeline) -> tuple[Array, Array]:
    """Number and time of every event; compiled once for each kind of timeline."""
    return _moments_jit((timeline.event, timeline.draw), key, timeline.xs, timeline.static)


def _moments_call(functions, key, xs, static):
    event, draw = functions
    xs = xs if draw is None else draw(key, static, xs)

    def of(x):
        made = event(key, static, x)
        return made.index[-1], made.time[-1]

    return jax.vmap(of)(xs)


_moments_jit = jax.jit(_moments_call, static_argnums=(0,))


def _explain(log: Log) -> str:
    """Name the earliest bad event over the seeds."""
    bits, event, time = (np.atleast_1d(log.bad[name]) for name in ("bits", "event", "time"))
    first = min(np.flatnonzero(bits), key=lambda seed: int(event[seed]))
    which = f" of seed {first}" if log.seeds is not None else ""
    return (
        f"parameters became infinite or NaN at event {int(event[first])}{which} "
        f"(simulated time {float(time[first]):g} s); lower the learning rate or check the mixing weights "
        "(throw=False keeps the records)"
    )


@jax.jit
def _called(function: Partial, key: Key[Array, ""]) -> Any:
    """Call a start's function; compiled once for all calls."""
    return function(key)


def _bind_start(x0: Any) -> Any:
    if isinstance(x0, Partial) or not callable(x0):
        return x0
    return Partial(x0)


def _check(key, protocol: Protocol, timeline: Timeline, start: Any, observers: tuple[Observer, ...]) -> PyTree:
    """Check everything that can be checked before the work; return the form of the stacked models."""
    if not jnp.issubdtype(getattr(key, "dtype", np.int32), jax.dtypes.prng_key) or key.ndim > 1:
        raise ValueError("key must be a typed key, jax.random.key(0), or a vector of them, jax.random.split(key, S)")
    check_requires(protocol.requires, timeline.properties)
    one = key[0] if key.ndim else key
    x0 = _called(start, jax.random.fold_in(one, STARTS)) if isinstance(start, Partial) else start
    check_start(x0, timeline.properties)
    x0 = jax.eval_shape(lambda x: engine.with_slots(x, timeline.properties), jax.tree.map(jnp.asarray, x0))
    state = jax.eval_shape(protocol.init, one, x0)
    check_step(one, protocol, timeline, state)
    check_weights(one, protocol.requires, timeline)
    rows = timeline.properties.num_rows
    x = jax.eval_shape(lambda state: engine.models(protocol, state, rows), state)
    beside = (None if f is None else jax.eval_shape(f, state) for f in (protocol.versions, protocol.meter))
    check_observers(observers, x, *beside)
    return x0


def _choice(x: PyTree, strategy: Strategy) -> spread.Choice:
    """Pick how all nodes are spread; seeds then run together where rows are small, one after another where large."""
    with spread.using(strategy):
        return spread.chosen(jax.tree.leaves(x)[0].shape[0], bytes_per_row(x))


def _configuration(protocol, timeline, x, settings, choice, wide, pieces, observers) -> dict[str, Any]:
    facts = timeline.properties
    return {
        "protocol": describe(protocol),
        "timeline": facts.name,
        "mixing": facts.messages,
        "num_events": len(timeline),
        "num_nodes": facts.num_nodes,
        "num_rows": facts.num_rows,
        "bytes_per_row": bytes_per_row(x),
        "strategy": f"{choice.strategy}: {choice.reason}",
        "seeds": settings.seeds,
        "packing": wide.reason,
        "traffic": None if facts.traffic is None else dataclasses.asdict(facts.traffic),
        "records": sum(1 if p.every == p.stop - p.start else (p.stop - p.start) // p.every for p in pieces if p.every),
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
