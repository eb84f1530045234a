"""The host driver around the loop: prepare, run piece by piece, record, report."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Int, Key, Num

from gossipjax._base.arguments import callable_of_one, flag
from gossipjax._base.calls import attach
from gossipjax._base.hosts import is_first, several
from gossipjax._base.progress import progress_bar
from gossipjax._engine.driver import Callback, Driver, require_mesh, require_same_run
from gossipjax._engine.driver import Diverged as Diverged
from gossipjax._engine.prepare import Packing, Recording, Strategy, as_execution, prepare
from gossipjax.observe._models import Observer
from gossipjax.results._provenance import stopped_call
from gossipjax.results._trajectory import Trajectory
from gossipjax.types import Params, Planned, Protocol, Task, Timeline, as_timeline


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
    mesh: Mesh | None = None,
    parts: Literal["blocks", "metis"] | Int[Array | np.ndarray, " n"] = "blocks",
    progress: bool | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    callback: Callback | None = None,
    throw: bool = True,
) -> Trajectory:
    """Run a protocol over a timeline: check everything, run in chunks, record, report.

    Results do not depend on chunks, restarts or the number of events between records. Packing and the number of other
    seeds change them by rounding only, because other programs may add in another order (2e-7 of a float32 parameter).

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

    Weights & Biases: ``callback=lambda record: wandb.log(record, step=record["event"])``, which returns None. CSV: a
    function that calls ``writerow(record)`` of a ``csv.DictWriter(file, names)`` and returns None. TensorBoard: a
    function that calls ``writer.add_scalar(name, value, record["event"])`` for each item.

    Continue a run: pass its trajectory as the start, with the same key and a longer timeline that begins with the same
    events. 100 rounds and 100 more equal 200 at once bit for bit, whatever the intervals between records. If events are
    packed, models and losses are equal up to rounding.

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
            another, "auto" as is faster here. "levels" finds the wide events inside the run, a block of events at once,
            with no plan on the host: for accelerators, for many seeds, and for drawn events
            (:func:`gossipjax.timeline.drawn_pairs`) on a mesh. On a CPU, rows of a few bytes are faster sequentially.
        mesh: devices over which the nodes are spread (:func:`gossipjax.mesh`); None: nodes stay on one device, or are
            spread by "shard". The run is the same one, up to rounding; a choice between nearly equal values, such as
            that of the largest coordinates in ``jwins``, may then fall the other way. ``manifest["placement"]`` says
            how many rows each device holds and how many move in a round.
        parts: which device of the mesh holds which nodes: "blocks" of consecutive nodes; "metis", which cuts few edges
            of a fixed graph (``pip install gossipjax[scale]``); or the device of each node.
        progress: show a progress bar with the time left; None: only on a terminal. A packed run that shows it, keeps
            checkpoints, or has several hosts may be packed to another width, which changes numbers by rounding.
        checkpoint: a folder in which state and records are kept after each chunk; the same call resumes from there, and
            so does one with a longer timeline, on another mesh, or on another number of hosts, all of which see the
            folder; process 0 writes it.
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
    require_mesh(mesh)
    timeline = as_timeline(timeline)
    progress = progress if progress is None else flag("progress", progress)
    callback = (
        callback if callback is None else callable_of_one("callback", callback, "callback(record) -> True to stop")
    )
    recording = Recording(record_every, record_at, record_times)
    job, call, about = prepare(
        key, protocol, timeline, x0, observers, recording, as_execution(strategy, packing, mesh, parts)
    )
    with contextlib.ExitStack() as stack:
        saved = None
        require_same_run(job)
        if checkpoint is not None:
            from gossipjax._engine.checkpoint import open_checkpoint

            saved = stack.enter_context(open_checkpoint(checkpoint, job.run_identity()))
        driver = Driver(job)
        if saved is not None:
            driver.restore(saved)
        progress = is_first() and (sys.stderr.isatty() if progress is None else progress)
        show = stack.enter_context(progress_bar(progress, timeline.properties.name, len(timeline)))
        many = progress or several()  # all processes cut the run alike, whichever of them show a bar
        for done in driver.run(saved, callback, throw, many=many):
            show(done)
    trajectory = driver.trajectory(about)
    stopped = trajectory.manifest.get("stopped")
    attach(trajectory, call if stopped is None else stopped_call(call, stopped["event"]))
    return trajectory
