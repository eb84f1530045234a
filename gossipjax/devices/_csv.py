"""A user's own devices: from arrays, from a CSV file, and intervals from an .npz file."""

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
"""Columns of a CSV file."""


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
    """Make devices of one's own numbers.

    Args:
        seconds_per_sample: ``(n,)`` inference of one sample.
        upload_bytes_per_second: ``(n,)``, positive; infinite: unlimited.
        download_bytes_per_second: ``(n,)``, likewise.
        latency_seconds: one-way delay: one number, or ``(c, c)`` from city to city.
        city: ``(n,)`` city of each node; None: node i is in city i mod c.
        availability: of the n nodes; None: always online.
        name: for reports.

    Raises:
        ValueError: naming the field, the entry and its value, where a shape or a number does not fit.
    """
    remedy = "one number, or (c, c) from city to city"
    delay = np.atleast_2d(reals("latency_seconds", latency_seconds, least=0, unit="seconds", remedy=remedy))
    if city is None:
        seconds_per_sample = reals("seconds_per_sample", seconds_per_sample, shape=(None,))
        city = np.arange(seconds_per_sample.size) % max(1, len(delay))
    return Devices(
        seconds_per_sample, upload_bytes_per_second, download_bytes_per_second, delay, city, availability, name
    )


@recorded()
def read_csv(
    path: str | os.PathLike[str],
    *,
    bits_per_kilobit: int = 1000,
    latency_seconds: Num[np.ndarray, "c c"] | int | float = 0.0,
    availability: Availability | None = None,
) -> Devices:
    """Read devices from a CSV file with a header, one device per line.

    Columns: ``compute_ms_per_sample``, and either ``bandwidth_kbps`` (both directions) or ``upload_kbps`` and
    ``download_kbps``; all positive. A column that only names the devices (``id``, ``device_id``, ``device``, ``node``
    or ``name``) is ignored, and so are blank lines. Any other column is refused: it may be one of these with another
    name or unit.

    Args:
        path: the file.
        bits_per_kilobit: 1000, or 1024 as Plexus counts: bytes/s = kbps * bits_per_kilobit / 8.
        latency_seconds: one-way delay: one number, or ``(c, c)`` from city to city, with node i in city i mod c.
        availability: of the devices in the file; None: always online.

    Raises:
        ValueError: naming the file, the line and the value that does not fit, or the column that is missing, unknown,
            there twice, or beside one that says the same.
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
    """Read the columns of a CSV file of devices as positive numbers, without those that only name the devices.

    Raises:
        ValueError: naming the file, the line and the value that does not fit, or a column that must not be there.
    """
    require(path.is_file(), f"no file {path}: correct the path, or write the file first")
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream)
            lines = [(reader.line_num, row) for row in reader if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is no text of comma-separated values ({error}): export it again as UTF-8") from error
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
    """Refuse columns whose meaning would be guessed or ignored."""
    for name in header:
        require(header.count(name) == 1, f"{path} has the column {name!r} twice: leave one out")
        require(
            name in (*_NUMBERS, *_NAMES),
            f"{path} has an unknown column {name!r}: leave it out; numbers stand under {', '.join(_NUMBERS)}, in these "
            f"units, and what only names the devices under {', '.join(_NAMES)}",
        )
    beside = [name for name in ("upload_kbps", "download_kbps") if name in header]
    require(
        "bandwidth_kbps" not in header or not beside,
        f"{path} has the columns bandwidth_kbps and {' and '.join(beside)}: the former stands for both directions; "
        "keep that, or upload_kbps and download_kbps",
    )


@recorded()
def read_availability(path: str | os.PathLike[str]) -> Availability:
    """Read intervals from an .npz file in one of two forms; empty intervals [t, t) hold no time and are left out.

    Both have ``offsets (n + 1,)``, ``on_s (m,)`` and ``off_s (m,)``: device i is online in [on_s[j], off_s[j]) for
    offsets[i] <= j < offsets[i + 1], sorted and disjoint. Then

    * ``period_s``, one number or ``(n,)``: all repeats with that period;
    * ``trace_start_s`` and ``trace_end_s (n,)``, whole seconds of one clock: each device repeats its own window of
      observation, at the same time of the clock modulo the window: where windows are whole days, time 0 is the
      clock's midnight and the hour of the day is kept.

    Args:
        path: the file.

    Raises:
        ValueError: naming the file, the device and the interval that does not fit.
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
    """Count the intervals that end when they begin."""
    return int((arrays["on_s"] == arrays["off_s"]).sum())


def _windows(arrays: dict[str, np.ndarray]) -> Availability:
    """Check the intervals within their windows, then turn each window so that it begins at a multiple of its length."""
    names = ("offsets", "on_s", "off_s", "trace_start_s", "trace_end_s")
    for name in names:
        kind = arrays[name].dtype.kind
        require(kind in "iu" and arrays[name].ndim == 1, f"{name} must be a vector of whole seconds: round its times")
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
    """Leave out intervals [t, t); everything else is checked by the class."""
    if on.shape != off.shape or on.ndim != 1 or offsets.ndim != 1 or offsets[-1:].tolist() != [on.size]:
        return Availability(offsets, on, off, period)
    kept = on != off
    before = np.concatenate([[0], np.cumsum(kept)])
    require(bool(((offsets >= 0) & (offsets <= on.size)).all()), f"offsets must lie in 0..{on.size}, the intervals")
    return Availability(before[offsets], on[kept], off[kept], period)


def _column(path: pathlib.Path, columns: dict[str, np.ndarray], name: str) -> np.ndarray:
    require(
        name in columns,
        f"{path} lacks the column {name}: give compute_ms_per_sample, and bandwidth_kbps or upload_kbps and "
        "download_kbps",
    )
    return columns[name]


def _number(path: pathlib.Path, line: int, column: str, text: str) -> float:
    """Read one positive number; Python would read 1_000 too."""
    try:
        value = np.nan if "_" in text else float(text)
    except ValueError:
        value = np.nan
    require(
        0 < value < np.inf, f"{path}, line {line}: {column} {text[:40]!r} must be a positive number: correct or drop it"
    )
    return value
