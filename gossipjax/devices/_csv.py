"""Build devices from arrays or a CSV file, and availability from an .npz file."""

from __future__ import annotations

import csv
import os
import pathlib

import numpy as np
from jaxtyping import Float, Int, Num

from gossipjax._base.arguments import reals, whole, wholes
from gossipjax._base.calls import recorded
from gossipjax._base.npz import read_npz
from gossipjax.devices._availability import Availability, from_sessions
from gossipjax.devices._checks import path_of, require
from gossipjax.devices._device import Devices
from gossipjax.devices._files import require_keys

_NUMBERS = ("compute_ms_per_sample", "bandwidth_kbps", "upload_kbps", "download_kbps")
_NAMES = ("id", "device_id", "device", "node", "name")
"""CSV columns with numbers (above) and columns that only name the devices."""


@recorded()
def from_arrays(
    seconds_per_sample: Num[np.ndarray, " n"],
    upload_bytes_per_second: Num[np.ndarray, " n"],
    download_bytes_per_second: Num[np.ndarray, " n"],
    *,
    latency_seconds: Num[np.ndarray, "c c"] | int | float = 0.0,
    city: Int[np.ndarray, " n"] | None = None,
    availability: Availability | None = None,
    name: str = "arrays",
) -> Devices:
    """Build devices from arrays.

    Args:
        seconds_per_sample: ``(n,)`` inference time of one sample.
        upload_bytes_per_second: ``(n,)``, positive; infinite: unlimited.
        download_bytes_per_second: ``(n,)``, positive; infinite: unlimited.
        latency_seconds: one-way delay: one number, or ``(c, c)`` from city to city.
        city: ``(n,)`` city of each node; None: node i is in city i mod c.
        availability: of the n nodes; None: always online.
        name: for reports.

    Raises:
        ValueError: if a shape or a number is invalid; the message names the field, the entry and its value.
    """
    remedy = "one number, or (c, c) from city to city"
    delay = np.atleast_2d(reals("latency_seconds", latency_seconds, least=0, unit="seconds", remedy=remedy))
    if city is None:
        seconds_per_sample = reals("seconds_per_sample", seconds_per_sample, shape=(None,))
        city = np.arange(seconds_per_sample.size) % max(1, len(delay))
    return Devices(
        seconds_per_sample, upload_bytes_per_second, download_bytes_per_second, delay, city, availability, name
    )


@recorded(file="path")
def read_csv(
    path: str | os.PathLike[str],
    *,
    bits_per_kilobit: int = 1000,
    latency_seconds: Num[np.ndarray, "c c"] | int | float = 0.0,
    availability: Availability | None = None,
) -> Devices:
    """Read devices from a CSV file with a header, one device per line.

    Columns: ``compute_ms_per_sample``, and either ``bandwidth_kbps`` (both directions) or ``upload_kbps`` and
    ``download_kbps``; all positive. Blank lines are ignored, and so are columns that only name the devices (``id``,
    ``device_id``, ``device``, ``node`` or ``name``). Any other column is an error: it may be one of these with another
    name or unit.

    Args:
        path: the file.
        bits_per_kilobit: 1000, or 1024 as in Plexus: bytes/s = kbps * bits_per_kilobit / 8.
        latency_seconds: one-way delay: one number, or ``(c, c)`` from city to city, with node i in city i mod c.
        availability: of the devices in the file; None: always online.

    Raises:
        ValueError: if a value is invalid, or a column is missing, unknown, repeated or redundant; the message names
            the file and the line or column.
    """
    source = path_of(path)
    bits = whole("bits_per_kilobit", bits_per_kilobit, remedy="choose 1000, or 1024 as Plexus does")
    require(bits in (1000, 1024), f"bits_per_kilobit={bits}: choose 1000, or 1024 as Plexus does")
    columns = read_columns(source)
    compute = _column(source, columns, "compute_ms_per_sample")
    if "bandwidth_kbps" in columns:
        up = down = columns["bandwidth_kbps"]
    else:
        up, down = (_column(source, columns, name) for name in ("upload_kbps", "download_kbps"))
    byte = bits / 8
    return from_arrays(
        compute / 1e3,
        up * byte,
        down * byte,
        latency_seconds=latency_seconds,
        availability=availability,
        name=source.name,
    )


def read_columns(path: pathlib.Path) -> dict[str, Float[np.ndarray, " n"]]:
    """Read the columns of a CSV file of devices as positive numbers; skip those that only name the devices.

    Raises:
        ValueError: if a value or a column is invalid; the message names the file and the line or column.
    """
    require(path.is_file(), f"no file {path}: correct the path, or write the file first")
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream)
            lines = [(reader.line_num, row) for row in reader if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is not a valid CSV file ({error}): export it again as UTF-8") from error
    require(len(lines) > 1, f"{path} is empty: it needs a header and a line per device")
    header = [name.strip() for name in lines[0][1]]
    _check_header(path, header)
    known = [k for k, name in enumerate(header) if name in _NUMBERS]
    values = np.empty((len(lines) - 1, len(known)))
    for row, (line, cells) in enumerate(lines[1:]):
        require(
            len(cells) == len(header), f"{path}, line {line}: {len(cells)} cells under {len(header)} columns: fill all"
        )
        values[row] = [_number(path, line, header[k], cells[k]) for k in known]
    return {header[k]: values[:, place] for place, k in enumerate(known)}


def _check_header(path: pathlib.Path, header: list[str]) -> None:
    """Reject columns whose meaning would have to be guessed or ignored."""
    for name in header:
        require(header.count(name) == 1, f"{path} has the column {name!r} twice: leave one out")
        require(
            name in (*_NUMBERS, *_NAMES),
            f"{path} has an unknown column {name!r}: rename it and convert its unit, or remove it; numbers belong in "
            f"{', '.join(_NUMBERS)}, and names of devices in {', '.join(_NAMES)}",
        )
    directions = [name for name in ("upload_kbps", "download_kbps") if name in header]
    require(
        "bandwidth_kbps" not in header or not directions,
        f"{path} has the columns bandwidth_kbps and {' and '.join(directions)}: the former covers both directions; "
        "keep either that, or upload_kbps and download_kbps",
    )


@recorded(file="path")
def read_availability(path: str | os.PathLike[str]) -> Availability:
    """Read intervals from an .npz file in one of two formats; empty intervals [t, t) are dropped.

    Both formats have ``offsets (n + 1,)``, ``on_s (m,)`` and ``off_s (m,)``: device i is online in [on_s[j], off_s[j])
    for offsets[i] <= j < offsets[i + 1], sorted and disjoint. The period is stored in one of two ways:

    * ``period_s``, one number or ``(n,)``: the intervals repeat with that period;
    * ``trace_start_s`` and ``trace_end_s (n,)``, whole seconds of one clock: each device repeats its own observation
      window, aligned with the clock modulo the length of the window. If windows are whole days, time 0 is midnight of
      the clock and intervals keep their hour of the day.

    Args:
        path: the file.

    Raises:
        ValueError: if an array or an interval is invalid; the message names the file, the device and the interval.
    """
    source = path_of(path)
    return availability_of(source, read_npz(source))


def availability_of(source: pathlib.Path, arrays: dict[str, np.ndarray]) -> Availability:
    """Check and interpret the arrays of a file of intervals; see :func:`read_availability`."""
    require_keys(source, arrays, ("offsets", "on_s", "off_s"))
    try:
        offsets = wholes("offsets", arrays["offsets"], shape=(None,))
        if "period_s" in arrays:
            number, period = max(0, offsets.size - 1), arrays["period_s"]
            require(
                period.shape in ((), (1,), (number,)),
                f"period_s has shape {period.shape} for {number} devices: give one number, or one for each device",
            )
            return _without_empty(offsets, arrays["on_s"], arrays["off_s"], np.broadcast_to(period, (number,)))
        require_keys(source, arrays, ("trace_start_s", "trace_end_s"))
        return _windows(arrays)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error


def count_empty(arrays: dict[str, np.ndarray]) -> int:
    """Count the intervals of length 0."""
    return int((arrays["on_s"] == arrays["off_s"]).sum())


def _windows(arrays: dict[str, np.ndarray]) -> Availability:
    """Check the intervals in their windows, then rotate each window so that it starts at a multiple of its length."""
    names = ("offsets", "on_s", "off_s", "trace_start_s", "trace_end_s")
    for name in names:
        kind = arrays[name].dtype.kind
        require(kind in "iu" and arrays[name].ndim == 1, f"{name} must be a vector of whole seconds: round the times")
    offsets, on, off, start, end = (arrays[name].astype(np.int64) for name in names)
    require(
        start.size == end.size == offsets.size - 1,
        f"{start.size} trace_start_s, {end.size} trace_end_s and {offsets.size} offsets: give n, n and n + 1",
    )
    require(
        on.shape == off.shape and int(offsets[-1]) == on.size and bool((np.diff(offsets) >= 0).all()),
        f"offsets must rise from 0 to the number of intervals, {on.size} of on_s and {off.size} of off_s",
    )
    begin = np.repeat(start, np.diff(offsets))
    within = _without_empty(offsets, on - begin, off - begin, end - start)
    length = (within.off_s - within.on_s).astype(np.int64)
    clock = within.on_s.astype(np.int64) + start[within.nodes]
    return from_sessions(within.nodes, clock, length, end - start)


def _without_empty(offsets: np.ndarray, on: np.ndarray, off: np.ndarray, period: np.ndarray) -> Availability:
    """Drop intervals [t, t); the class checks everything else."""
    if on.shape != off.shape or on.ndim != 1 or offsets.ndim != 1 or offsets[-1:].tolist() != [on.size]:
        return Availability(offsets, on, off, period)
    nonempty = on != off
    before = np.concatenate([[0], np.cumsum(nonempty)])
    require(bool(((offsets >= 0) & (offsets <= on.size)).all()), f"offsets must lie in 0..{on.size}, the intervals")
    return Availability(before[offsets], on[nonempty], off[nonempty], period)


def _column(path: pathlib.Path, columns: dict[str, np.ndarray], name: str) -> np.ndarray:
    require(
        name in columns,
        f"{path} lacks the column {name}: give compute_ms_per_sample, and bandwidth_kbps or upload_kbps and "
        "download_kbps",
    )
    return columns[name]


def _number(path: pathlib.Path, line: int, column: str, text: str) -> float:
    """Read one positive number; reject 1_000, which Python's float accepts."""
    try:
        value = np.nan if "_" in text else float(text)
    except ValueError:
        value = np.nan
    require(
        0 < value < np.inf, f"{path}, line {line}: {column} {text[:40]!r} must be a positive number: correct or drop it"
    )
    return value
