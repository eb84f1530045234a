"""Packing: merge many narrow events of a timeline into a few wide ones without conflicts.

Every event is put one level above the last event that touched any of its rows. Events of one level share no row, so
running the levels in order is the sequential run. A level is cut into wide events of one common width, so that a run
compiles one shape.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key

from gossipjax._base.arguments import choice, instance, optional_whole, shown
from gossipjax._base.calls import recorded
from gossipjax._base.placement import SMALL_ROW, on_cpu
from gossipjax._base.streams import EVENTS
from gossipjax._engine.levels import block_size
from gossipjax.facts import Packing, Properties
from gossipjax.mixing._apply import GroupMixing, PairMixing
from gossipjax.timeline._events import EMPTY, draw_window, event_form
from gossipjax.timeline._from_events import planned_event
from gossipjax.timeline._moments import event_times, written_times
from gossipjax.types import NOBODY, Timeline

WINDOW = 1 << 20
"""Most events that are written out at once."""
BLOCK = 256
"""If more than one wide event for BLOCK source events, or entries, is part-filled, lanes are scattered by a mask, not
copied as blocks."""
OVERHEAD = {"cpu": 64, "gpu": 4096, "tpu": 4096}
"""Cost of one iteration of the loop, in source events of a wide event; determines the width."""


class _Group(NamedTuple):
    """Fields of an event that merging concatenates: one entry per acting node, transfer, …"""

    fields: dict[str, Any]
    """Each ``(T, k, ...)``."""
    live: Any
    """``(T, k)``: whether the entry is in use."""


@recorded()
def pack(
    timeline: Timeline, width: int | None = None, *, barrier_every: int | None = None, key: Key[Array, ""] | None = None
) -> Timeline:
    """Merge events that share no row into wide events: the same run in fewer, wider steps.

    ``properties.packing`` of the result reports levels, mean width and waste. Keys fold in the number of the source
    event, so the same random numbers are drawn. Results are equal bit for bit if the kernel that computes a row does
    not depend on the number of rows; otherwise they differ by rounding.

    >>> import gossipjax as gj
    >>> wide = gj.pack(gj.timeline.poisson_pairs(gj.topology.ring(1000), 20_000, seed=0))
    >>> wide.properties.packing.mean_width > 100
    True

    Args:
        timeline: of narrow events (pairwise meetings, messages, walks), none of them packed.
        width: most source events in a wide event; None: chosen by weighing the cost of empty lanes against that of an
            iteration of the loop.
        barrier_every: source events between barriers, at which all earlier events must be done (for a record); a
            divisor of T. All intervals between barriers get the same number of wide events. None: no barriers.
        key: of the run, for timelines that draw inside; None for planned ones.

    Raises:
        ValueError: if the timeline has rounds or packed events, the width is below 1, barriers do not divide T, or the
            key is missing.
    """
    every = _checked(timeline, width, barrier_every, key)
    facts = timeline.properties
    if not len(timeline):
        nothing = Packing(events=0, levels=0, width=width or 1, wide_events=0, waste=0.0)
        return dataclasses.replace(timeline, properties=dataclasses.replace(facts, packing=nothing))
    event = _write_out(timeline, key)
    levels = _levels(_touched(event, facts), facts, every)
    levels[every - 1 :: every] = np.maximum.reduceat(levels, np.arange(0, len(levels), every))
    order = np.argsort(levels.astype(np.min_scalar_type(levels.max())), kind="stable")  # few digits are sorted faster
    sizes = np.bincount(levels)
    sizes = sizes[sizes > 0]
    width = _best_width(sizes) if width is None else width
    counts = _counts(sizes, order, every, width)
    xs, shared = _merge(event, facts, order, counts)
    packing = Packing(
        events=len(levels),
        levels=sizes.size,
        width=width,
        wide_events=counts.size,
        waste=1.0 - len(levels) / (counts.size * width),
    )
    return Timeline(xs, shared, planned_event, dataclasses.replace(facts, packing=packing), seconds=written_times)


EXCHANGED_ROWS = range(64, 8192)
"""Row sizes in bytes for which exchanges run faster packed on a CPU: XLA runs events of shorter rows in one call."""
SHORT = 1024
"""Events between two records below which packing is not worth its compilation."""


class Choice(NamedTuple):
    """Whether the driver packs, and why."""

    packed: bool
    reason: str
    block: int | None = None
    """Events whose levels are found on the device at once; None: no levels are found there."""


def choose(
    timeline: Timeline,
    wish: str,
    *,
    many_seeds: bool = False,
    row_bytes: int = 0,
    trains: bool = False,
    interval: int = SHORT,
) -> Choice:
    """Decide whether :func:`gossipjax.simulate` packs a timeline.

    On a CPU, packing included (events a second; one core, rows of 4 bytes to 40 kB, ``python -m benchmarks driver``):
    exchanges of rows of 100 bytes to 8 kB and training on rows below 16 kB are up to three times faster packed. All
    other events are faster one after another, tiny ones five times: XLA makes one kernel of their loop. Intervals of
    fewer than :data:`SHORT` events between records pack into wide events of many shapes, whose compilation costs more.

    Args:
        timeline: the plan.
        wish: "auto", "sequential", "packed" or "levels".
        many_seeds: whether several seeds run in one call.
        row_bytes: size of one row of the protocol's state.
        trains: whether acting nodes take gradients.
        interval: events between records.

    Raises:
        ValueError: if the wish is unknown, or is "packed" or "levels" and the timeline cannot be packed.
    """
    choice("packing", wish, ("auto", "sequential", "packed", "levels"))
    if wish == "sequential":
        return Choice(False, "sequential: asked for")
    obstacle = can_pack(timeline)
    if wish == "levels" and obstacle is None:
        size = block_size(timeline.properties)
        return Choice(False, f"levels: asked for, found in the run for {size} events at once", size)
    if timeline.draw is not None and many_seeds:
        obstacle = "each seed draws its own events"
    if wish in ("packed", "levels"):
        if obstacle is not None:
            raise ValueError(f"{timeline.properties.name} cannot be packed: {obstacle}; use packing='auto'")
        return Choice(True, "packed: asked for")
    if obstacle is not None:
        return Choice(False, f"sequential: {obstacle}")
    if interval < SHORT:
        return Choice(False, f"sequential: only {interval} events between records")
    return _by_backend(jax.default_backend(), event_form(timeline), row_bytes, trains)


def _by_backend(backend: str, event: Any, row_bytes: int, trains: bool) -> Choice:
    if backend != "cpu":
        return Choice(True, f"packed: a {backend} runs wide events")
    if trains:
        small = row_bytes < SMALL_ROW
        return Choice(small, f"{'packed' if small else 'sequential'}: training on rows of {row_bytes} bytes on a CPU")
    mutual = not isinstance(event.mixing, PairMixing) or len(event.mixing.senders) > 1
    wide = mutual and row_bytes in EXCHANGED_ROWS
    return Choice(wide, f"{'packed' if wide else 'sequential'}: mixing rows of {row_bytes} bytes on a CPU")


def can_pack(timeline: Timeline) -> str | None:
    """Return why a timeline cannot be packed, or None if it can."""
    event = event_form(timeline)
    if timeline.properties.packing is not None:
        return "its events are packed already"
    if event.nodes is None:
        return "every node acts in every event"
    if event.mixing is not None and not isinstance(event.mixing, PairMixing | GroupMixing):
        return "its mixing touches all rows"
    return None


def _checked(timeline: Any, width: Any, barrier_every: Any, key: Any) -> int:
    """Check the arguments of :func:`pack`; return the number of events between barriers."""
    instance("timeline", timeline, Timeline, "build one with gossipjax.timeline, such as poisson_pairs")
    optional_whole("width", width, least=1, most=2**31 - 1, remedy="source events that a wide event has room for")
    every = optional_whole("barrier_every", barrier_every, least=1)
    name, total = timeline.properties.name, len(timeline)
    if timeline.draw is not None and key is None:
        raise ValueError(f"{name} draws its events inside the run: pass the run's key to pack it")
    if key is not None and not jnp.issubdtype(getattr(key, "dtype", np.int32), jax.dtypes.prng_key):
        raise TypeError(f"key={shown(key)}: must be the run's typed key, such as jax.random.key(0)")
    if every is not None and total % every:
        raise ValueError(f"barrier_every={every} must divide the {total} events of {name}")
    if (reason := can_pack(timeline)) is not None:
        raise ValueError(f"{name} cannot be packed: {reason}; run it as it is")
    return total if every is None else every


@jax.jit
def _events(key: Key[Array, ""], timeline: Timeline) -> Any:
    return jax.vmap(lambda x: timeline.event(key, timeline.shared, x))(draw_window(key, timeline))


def _write_out(timeline: Timeline, key: Key[Array, ""] | None) -> Any:
    """All events as host arrays with leading axis T, at the host's times."""
    stream = jax.random.fold_in(jax.random.key(0) if key is None else key, EVENTS)
    bare = dataclasses.replace(timeline, properties=Properties(num_nodes=0, num_rows=0, name=""), seconds=None)
    parts = [jax.device_get(_events(stream, bare[at : at + WINDOW])) for at in range(0, len(timeline), WINDOW)]
    events = jax.tree.map(lambda *leaves: np.concatenate(leaves) if len(leaves) > 1 else leaves[0], *parts)
    if timeline.seconds is None:
        return events._replace(time=events.time.astype(np.float64))
    times = event_times(timeline)[:, None]
    return events._replace(time=np.broadcast_to(times, events.time.shape))


def _touched(event: Any, facts: Properties) -> list[Int[np.ndarray, " T"]]:
    """Rows that each event reads or writes; a node that trains a row other than its own counts as one more row."""
    rows = facts.num_rows + facts.num_slots
    columns = []
    if event.rows is not None:
        columns += list(event.rows.T) + [
            np.where(node < facts.num_nodes, node + rows, NOBODY) for node in event.nodes.T
        ]
    else:
        columns += list(event.nodes.T)
    if event.begin is not None:
        columns += list(event.begin.T)
    if isinstance(event.mixing, PairMixing):
        columns += [*event.mixing.senders.T, *event.mixing.receivers.T]
    elif isinstance(event.mixing, GroupMixing):
        columns += [*event.mixing.members.reshape(len(event.index), -1).T]
        columns += [*event.mixing.targets.reshape(len(event.index), -1).T]
    if event.speakers is not None:
        columns += list(event.speakers.T)
    distinct: list[np.ndarray] = []
    for column in columns:
        if not any(np.array_equal(column, other) for other in distinct):
            distinct.append(column)
    return distinct


@jax.jit
def _level_scan(rows: Int[Array, "T w"], floor: Int[Array, " T"] | None, last: Int[Array, " r"]) -> Int[Array, " T"]:
    def put(last, x):  # the carry is one array: scalars beside it would make the loop five times slower
        touched, floor = x
        level = jnp.max(last.at[touched].get(mode="fill", fill_value=0))
        level = (level if floor is None else jnp.maximum(level, floor)) + 1
        return last.at[touched].set(level, mode="drop"), level

    return jax.lax.scan(put, last, (rows, floor))[1]


def _levels(columns: list[Int[np.ndarray, " T"]], facts: Properties, every: int) -> Int[np.ndarray, " T"]:
    """Level of each event, from 1; events after a barrier lie above all events before it. Some levels are empty."""
    total = len(columns[0])
    size = 1 << (total - 1).bit_length()  # few shapes to compile
    padded = np.empty((size, len(columns)), np.int32)
    padded[total:] = NOBODY
    for k, column in enumerate(columns):
        padded[:total, k] = column
    # An interval has at most as many levels as events.
    floor = None if every == total else (np.arange(size) // every * every).astype(np.int32)
    last = np.zeros(facts.num_rows + facts.num_slots + facts.num_nodes, np.int32)
    with on_cpu():  # an accelerator takes about 8 µs for each step of a scan
        return np.array(_level_scan(padded, floor, last)[:total])


def _best_width(sizes: Int[np.ndarray, " levels"]) -> int:
    """Power of two with the least cost: iterations of the loop × (overhead of an iteration + lanes)."""
    overhead = OVERHEAD.get(jax.default_backend(), OVERHEAD["gpu"])
    widths = [1 << power for power in range(max(1, int(sizes.max(initial=1))).bit_length() + 1)]
    return min(widths, key=lambda w: int(np.sum(-(-sizes // w))) * (overhead + w))


def _counts(
    sizes: Int[np.ndarray, " levels"], order: Int[np.ndarray, " T"], every: int, width: int
) -> Int[np.ndarray, " wide"]:
    """Count the source events in each wide event; those of each follow one another in the order of levels.

    All intervals between barriers get the same number of wide events; those added to reach it are empty and come first.
    """
    parts = -(-sizes // width)
    filled = np.full(parts.sum(), width)
    filled[np.cumsum(parts) - 1] = sizes - (parts - 1) * width
    intervals = order[np.cumsum(filled) - 1] // every
    used = np.bincount(intervals)
    room = _rounded(int(used.max()))
    counts = np.zeros(room * used.size, np.int64)
    counts[np.arange(filled.size) + (np.arange(1, used.size + 1) * room - np.cumsum(used))[intervals]] = filled
    return counts


def _rounded(count: int) -> int:
    """Round up to two significant binary digits, so that other parts of the run have the same shape."""
    step = 1 << max(0, count.bit_length() - 2)
    return -(-count // step) * step


def _merge(event: Any, facts: Properties, order, counts) -> tuple[dict[str, np.ndarray], dict[str, Array]]:
    """Concatenate the entries of the source events of each wide event."""
    xs: dict[str, np.ndarray] = {}
    shared: dict[str, Array] = {}
    for group in _groups(event, facts):
        sources = _sources(group.live, order, counts)
        for name, array in group.fields.items():
            if name in ("weights", "keep") and array.ndim == 2 and (array == array[0, 0]).all():
                shared[name] = jnp.full(sources.lanes, array[0, 0])
            else:
                xs[name] = _laid_out(name, array, sources, spare="index" in group.fields)
    _mark_ends(xs, event, order, counts)
    return xs, shared


class _Sources(NamedTuple):
    """What fills the lanes of the wide events: whole source events, or single entries of theirs."""

    numbers: Int[np.ndarray, " u"]
    """Of the events or entries, one wide event after another."""
    held: Int[np.ndarray, " wide"]
    """How many of them each wide event holds."""
    lanes: int
    whole: bool
    """Whether the numbers are those of events, all entries of which are in use."""


def _sources(live, order, counts) -> _Sources:
    """Find what fills the lanes.

    Args:
        live: which entries of each source event are in use.
        order: of the source events.
        counts: how many of them each wide event holds.
    """
    k = live.shape[1]
    if k and live.all():
        return _Sources(order, counts, max(1, k * int(counts.max())), True)
    entries, kept = (order[:, None] * k + np.arange(k)).ravel(), live[order].ravel()
    before, ends = np.append(0, np.cumsum(kept)), np.cumsum(counts * k)
    held = before[ends] - before[ends - counts * k]
    return _Sources(entries[kept], held, _rounded(max(1, int(held.max(initial=0)))), False)


def _laid_out(name: str, array: np.ndarray, sources: _Sources, *, spare: bool) -> np.ndarray:
    """Return a field ``(T, k, ...)`` of the source events as that of the wide ones ``(wide, lanes, ...)``.

    Args:
        name: of the field.
        array: of the source events.
        sources: what fills the lanes.
        spare: whether there is one more lane, without an entry.
    """
    numbers, held, lanes, whole = sources
    form = array.shape[2:]
    each = array.shape[1] if whole else 1
    array = array.reshape(-1, each, *form)
    wide = np.full((held.size, lanes + spare, *form), EMPTY[name], array.dtype)
    ends = np.cumsum(held)
    short = np.flatnonzero(held * each < lanes)
    if short.size > numbers.size // BLOCK:
        wide[:, :lanes][np.arange(lanes) < each * held[:, None]] = array.take(numbers, axis=0).reshape(-1, *form)
        return wide
    done = 0
    for row in (*short.tolist(), held.size):  # full rows between two that are not
        if row > done:
            found = array.take(numbers[ends[done] - held[done] : ends[row - 1]], axis=0)
            wide[done:row, :lanes] = found.reshape(row - done, lanes, *form)
        if row < held.size:
            found = array.take(numbers[ends[row] - held[row] : ends[row]], axis=0)
            wide[row, : each * held[row]] = found.reshape(-1, *form)
        done = row + 1
    return wide


def _mark_ends(xs: dict[str, np.ndarray], event: Any, order, counts) -> None:
    """Write into the spare lane, which is nobody's, number and time of the last source event, which records read."""
    wide = np.flatnonzero(counts)
    last = order[np.cumsum(counts)[wide] - 1]
    for name in ("index", "time"):
        xs[name][wide, -1] = getattr(event, name)[last, -1]


def _speak_by_lane(event: Any) -> bool:
    """Whether every message belongs to one transfer."""
    return isinstance(event.mixing, PairMixing) and event.mixing.senders.shape == event.messages.shape


def _speakers(event: Any) -> Int[np.ndarray, "T m"]:
    """Rows that send the messages; after merging, messages and transfers are no longer aligned."""
    return event.mixing.senders if event.speakers is None else event.speakers


def _groups(event: Any, facts: Properties) -> list[_Group]:
    """Fields of the source events, grouped by what their entries stand for."""
    rows = facts.num_rows + facts.num_slots
    acting = {"index": event.index, "time": event.time, "nodes": event.nodes}
    acting |= {} if event.rows is None else {"rows": event.rows}
    groups = [_Group(acting, event.nodes < facts.num_nodes)]
    if event.begin is not None:
        groups.append(_Group({"begin": event.begin}, event.begin < facts.num_nodes))
    if event.messages is not None:
        said = {"messages": event.messages}
        if event.speakers is not None or _speak_by_lane(event):
            said["speakers"] = np.where(event.messages > 0, _speakers(event), NOBODY)
        groups.append(_Group(said, event.messages > 0))
    mixing: Any = event.mixing
    if isinstance(mixing, PairMixing):
        fields = dict(zip(mixing._fields, mixing, strict=True))
        fields |= {} if event.sources is None else {"sources": event.sources}
        groups.append(_Group(fields, (mixing.receivers < rows) & (mixing.senders < rows)))
    elif isinstance(mixing, GroupMixing):
        fields = {name: value for name, value in zip(mixing._fields, mixing, strict=True) if value is not None}
        gives = (mixing.members < rows) & (mixing.weights != 0)  # a message is sent even where nobody takes it
        groups.append(_Group(fields, (mixing.targets < rows).any(axis=-1) | gives.any(axis=-1)))
    return groups
