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
from jaxtyping import Array, Key, PyTree
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from gossipjax import engine, spread
from gossipjax.check import check_requires, check_start, check_step
from gossipjax.engine import STARTS, STEPS
from gossipjax.log import Log
from gossipjax.observe import Observer, check_observers
from gossipjax.pieces import Piece, plan
from gossipjax.rows import bytes_per_row
from gossipjax.trajectory import Trajectory, manifest
from gossipjax.types import Params, Properties, Protocol, Timeline

Strategy = Literal["auto", "vmap", "map", "shard"]


class Diverged(FloatingPointError):
    """Parameters became infinite or NaN; the message names the first bad event and its simulated time."""


@dataclasses.dataclass(frozen=True)
class _Settings:
    """What compiled calls depend on besides their arrays."""

    strategy: Strategy
    seeds: Literal["vmap", "map"] | None


_NO_FACTS = Properties(num_nodes=0, num_rows=0, name="checked already")


def _advance_call(event, settings: _Settings, every, key, protocol, xs, static, state, observers):
    """Advance one piece of the timeline."""

    def one(key, state):
        timeline = Timeline(xs, static, event, _NO_FACTS)
        return engine.run(key, protocol, timeline, state, record_every=every, observers=observers)

    return _each_seed(one, settings, key, state)


def _start_call(settings: _Settings, synchronous: bool, key, protocol, x0):
    """Make the state of every seed and record it."""

    def one(key):
        x = x0(jax.random.fold_in(key, STARTS)) if isinstance(x0, Partial) else jax.tree.map(jnp.copy, x0)
        state = protocol.init(jax.random.fold_in(key, STEPS), x)
        return spread.over_nodes(state) if synchronous else state

    return _each_seed(one, settings, key)


def _observe_call(settings: _Settings, protocol, state, observers):
    zero = jnp.zeros((), jnp.uint32), jnp.zeros((), jnp.float32)
    return _each_seed(lambda state: engine.observe(protocol, state, observers, *zero), settings, state)


def _model_call(settings: _Settings, protocol, state):
    return _each_seed(protocol.model, settings, state)


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
    strategy: Strategy = "auto",
    progress: bool | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    throw: bool = True,
) -> Trajectory:
    """Run a protocol over a timeline: check everything, run in chunks, record, report.

    Results do not depend on record_every, record_at, chunks, restarts or the number of other seeds.

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
        record_at: increasing numbers of source events at which to record, instead of record_every.
        strategy: how a step is spread over nodes: "vmap", "map", "shard", or "auto" (by measured thresholds).
        progress: show a progress bar with the time left; None: only on a terminal.
        checkpoint: a folder in which state and records are kept after each chunk; the same call resumes from there.
        throw: raise when parameters become infinite or NaN; False: keep going and note it in the manifest.

    Returns:
        A :class:`Trajectory`: ``bytes_sent``, ``messages_sent``, ``train_loss`` and what the observers measured.

    Raises:
        ValueError: whatever does not fit, before any work: numbers of nodes, shapes, types, NaN, requirements.
        Diverged: parameters became infinite or NaN; names the first bad event and its time.
    """
    protocol, observers, start = _bind(protocol), tuple(observers), _bind_start(x0)
    shape = _check(key, protocol, timeline, start, observers)
    pieces = plan(len(timeline), record_every, record_at)
    choice = _choice(shape, strategy)
    settings = _Settings(strategy, None if key.ndim == 0 else "vmap" if choice.strategy == "vmap" else "map")
    about = manifest(key, _configuration(protocol, timeline, shape, settings, choice, pieces, observers))
    if choice.strategy == "shard" and timeline.properties.synchronous:
        protocol, observers = spread.everywhere((protocol, observers))
    state = _start(settings, timeline.properties.synchronous, key, protocol, start)
    log = Log(jax.device_get(_observe(settings, protocol, state, observers)), key.shape[0] if key.ndim else None)
    done, saved = 0, None
    if checkpoint is not None:
        from gossipjax.checkpoint import Checkpoint, fingerprint  # here, because Orbax takes 25 MB

        contents = fingerprint(protocol, timeline, start, observers, pieces)
        plan_of_run = {name: value for name, value in about["configuration"].items() if name != "strategy"}
        identity = {"key": about["key"], "configuration": plan_of_run, "program or data": contents}
        saved = Checkpoint(pathlib.Path(checkpoint), identity)
        if (found := saved.restore(state)) is not None:
            done, state, records = found
            log.load_state_dict(records)
    with _bar(progress) as bar:
        row = bar.add_task(
            timeline.properties.name, total=len(timeline), completed=pieces[done - 1].stop if done else 0
        )
        for number, piece in enumerate(pieces[done:], start=done + 1):
            state = _one_piece(settings, key, protocol, timeline, state, observers, piece, log, throw)
            bar.update(row, completed=piece.stop)
            if saved is not None:
                saved.save(number, state, log.state_dict())
    if log.diverged:
        about["diverged"] = {name: values.tolist() for name, values in log.bad.items()}
    return Trajectory(log.dataset(observers, about), state, _model(settings, protocol, state))


def _one_piece(settings, key, protocol, timeline, state, observers, piece: Piece, log: Log, throw: bool) -> Any:
    part = timeline[piece.start : piece.stop]
    watching = observers if piece.every is not None else ()
    (state, status), records = _advance(
        timeline.event, settings, piece.every, key, protocol, part.xs, part.static, state, watching
    )
    log.add(jax.device_get(records), keep=piece.every is not None)
    if log.note(jax.device_get(status)) and throw:
        raise Diverged(_explain(log))
    return state


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


def _bind(protocol: Protocol) -> Protocol:
    """Let plain functions stand in a protocol: jit needs pytrees."""
    init, step, model = (f if isinstance(f, Partial) else Partial(f) for f in protocol[:3])
    return Protocol(init, step, model, protocol.requires)


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
    x0 = jax.jit(start)(jax.random.fold_in(one, STARTS)) if isinstance(start, Partial) else start
    check_start(x0, timeline.properties)
    x0 = jax.tree.map(jnp.asarray, x0)
    state = jax.eval_shape(protocol.init, one, x0)
    check_step(one, protocol, timeline, state)
    check_observers(observers, jax.eval_shape(protocol.model, state))
    return jax.eval_shape(lambda x: x, x0)


def _choice(x: PyTree, strategy: Strategy) -> spread.Choice:
    """Pick how all nodes are spread; seeds then run together where rows are small, one after another where large."""
    with spread.using(strategy):
        return spread.chosen(jax.tree.leaves(x)[0].shape[0], bytes_per_row(x))


def _configuration(protocol, timeline, x, settings, choice, pieces, observers) -> dict[str, Any]:
    facts = timeline.properties
    return {
        "protocol": getattr(protocol.step.func, "__module__", "?"),
        "timeline": facts.name,
        "mixing": facts.messages,
        "num_events": len(timeline),
        "num_nodes": facts.num_nodes,
        "num_rows": facts.num_rows,
        "bytes_per_row": bytes_per_row(x),
        "strategy": f"{choice.strategy}: {choice.reason}",
        "seeds": settings.seeds,
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
