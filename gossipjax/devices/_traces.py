"""Build devices from published traces, with the conventions of Plexus."""

from __future__ import annotations

import os
import pathlib
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from gossipjax._base.arguments import choice, flag
from gossipjax._base.calls import recorded
from gossipjax._base.hashing import file_hash
from gossipjax._base.npz import read_npz
from gossipjax.devices import _sessions
from gossipjax.devices._availability import Availability, take
from gossipjax.devices._checks import path_of, require, require_range
from gossipjax.devices._csv import availability_of, count_empty, read_columns
from gossipjax.devices._device import Devices
from gossipjax.devices._files import require_keys
from gossipjax.devices._generators import rate_of
from gossipjax.devices._sessions import generators
from gossipjax.tasks._data.files import DataUnavailable, data_folder

Source = Literal["charging", "strict", "fedscale_synth"]
STRICT_PHONES = 1000
"""Number of phones in the log of the strict trace; the file omits phones that never qualify."""


@recorded("dhasade2025plexus", "lai2022fedscale")
def from_traces(
    n: int,
    seed: int,
    *,
    folder: str | os.PathLike[str] | None = None,
    availability: Source | None = None,
    bandwidth_order: Literal["file", "random"] = "file",
    whole_milliseconds: bool = True,
) -> Devices:
    """Build n devices from trace files with the conventions of Plexus.

    Node i is in city i mod c (227 cities). Compute comes from random devices of the trace, without repetition up to
    its size. Bandwidth comes from entries 1..n for every seed: floor(kbps) * 1024 / 8 bytes/s in each direction.
    Latency is clipped to [0, 400] ms (a note counts the changed entries) and truncated to whole milliseconds.

    Each file is checked against the sha256 that a file ``SHA256SUMS`` lists for it, in the folder or in its parent.
    Where none lists it, a note has the first 12 digits of its sha256.

    Args:
        n: number of nodes, at least 1.
        seed: chooses devices, not negative; the device of a node does not change when n grows.
        folder: with ``device_capacity.csv``, ``latency_ms.npz`` and availability files; None: the subfolder ``traces``
            of the folder that ``GOSSIPJAX_DATA`` names.
        availability: None: always online. ``"charging"``: devices of ``availability_charging_synth.npz``.
            ``"strict"``: 1,000 phones; those missing from ``availability_strict.npz`` are never online.
            ``"fedscale_synth"``: drawn by :func:`gossipjax.devices.charging`. Devices of a file are dealt in random
            order, without repetition up to their number.
        bandwidth_order: ``"file"`` as above, or ``"random"``: from random devices, independent of compute.
        whole_milliseconds: truncate latency to whole milliseconds; if false, keep the fractions.

    Returns:
        Devices whose notes list the changes.

    Raises:
        ValueError: if n is below 1, the seed is negative, a choice is unknown, a file is malformed (the message names
            the file and the entry), or its sha256 is not the listed one.
        DataUnavailable: if a file does not exist.

    Reference:
        Dhasade et al., "Practical Federated Learning without a Server", EuroMLSys 2025, and its code (compute,
        bandwidth, latency); Lai et al., "FedScale", ICML 2022 (capacity and behaviour traces).
    """
    of_compute, of_bandwidth, of_availability = generators(n, seed, "traces", 3)
    choice("bandwidth_order", bandwidth_order, ("file", "random"))
    if availability is not None:
        choice("availability", availability, ("charging", "strict", "fedscale_synth"))
    flag("whole_milliseconds", whole_milliseconds)
    root = _folder(folder)
    path, origin = _verified(root, "device_capacity.csv")
    capacity = _capacity(path)
    path, more = _verified(root, "latency_ms.npz")
    delay, notes = _city_latency(path, whole_milliseconds)
    notes += origin + more
    compute, kbps = capacity["compute_ms_per_sample"], capacity["bandwidth_kbps"]
    if n > compute.size:
        notes += (f"capacity: {n} nodes share {compute.size} devices",)
    entries = np.arange(n) % kbps.size if bandwidth_order == "file" else _deal(of_bandwidth, kbps.size, n)
    rate = rate_of(kbps[entries])
    intervals, more = _availability(root, n, seed, availability, of_availability)
    seconds = compute[_deal(of_compute, compute.size, n)] / 1e3
    name = f"traces({n}, seed {seed})"
    return Devices(seconds, rate, rate, delay, np.arange(n) % len(delay), intervals, name, notes + more)


def _folder(folder: str | os.PathLike[str] | None) -> pathlib.Path:
    """Return the folder with the traces."""
    if folder is not None:
        return path_of(folder, "folder").expanduser()
    root = data_folder()
    if root is None:
        raise DataUnavailable(
            "from_traces needs trace files: put them in a folder traces/ and set GOSSIPJAX_DATA to its parent folder "
            "(not set now), or pass folder=; fitted() draws similar devices without files"
        )
    return root / "traces"


def _existing(folder: pathlib.Path, name: str) -> pathlib.Path:
    path = folder / name
    if not path.is_file():
        raise DataUnavailable(
            f"trace file {path} is missing: copy it there, set GOSSIPJAX_DATA to the parent folder of traces/, or pass "
            "folder=; fitted() draws similar devices without files"
        )
    return path


def _verified(folder: pathlib.Path, name: str) -> tuple[pathlib.Path, tuple[str, ...]]:
    """Find a file, and check its sha256 where one is listed; else return a note of it."""
    path = _existing(folder, name)
    sha256 = file_hash(path)
    home = folder.resolve()
    for sums, entry in ((home / "SHA256SUMS", name), (home.parent / "SHA256SUMS", f"{home.name}/{name}")):
        if (listed := _listed(sums).get(entry)) is None:
            continue
        require(
            sha256 == listed,
            f"{path} is corrupt or is not the file that {sums} lists: sha256 {sha256}, expected {listed}: copy it "
            "again from its source",
        )
        return path, ()
    return path, (f"{name}: sha256 {sha256[:12]}, in no SHA256SUMS",)


def _listed(sums: pathlib.Path) -> dict[str, str]:
    """Read the sha256 of each file that a file in the format of sha256sum lists."""
    if not sums.is_file():
        return {}
    lines = [line.split(maxsplit=1) for line in sums.read_text(encoding="utf-8").splitlines()]
    return {
        parts[1].removeprefix("*").removeprefix("./").strip(): parts[0].lower() for parts in lines if len(parts) == 2
    }


def _deal(rng: np.random.Generator, count: int, n: int) -> Int[np.ndarray, " n"]:
    """Deal ``count`` devices in random order, cyclically; the order does not depend on n."""
    return rng.permutation(count)[np.arange(n) % count]


def _capacity(path: pathlib.Path) -> dict[str, Float[np.ndarray, " m"]]:
    """Read compute (ms per sample) and bandwidth (kbit/s, at least 1)."""
    columns = read_columns(path)
    for name in ("compute_ms_per_sample", "bandwidth_kbps"):
        require(name in columns, f"{path} lacks the column {name}: copy the published file again")
    require_range(f"{path}, bandwidth_kbps", columns["bandwidth_kbps"], columns["bandwidth_kbps"] >= 1, "is below 1")
    return columns


def _city_latency(path: pathlib.Path, whole_milliseconds: bool) -> tuple[Float[np.ndarray, "c c"], tuple[str, ...]]:
    """Read one-way delays, clip them to [0, 400] ms, and return seconds and notes on the changes.

    Corrected measurements may be slightly negative; values below -1 ms are errors.
    """
    arrays = read_npz(path)
    require_keys(path, arrays, ("latency_ms",))
    latency = arrays["latency_ms"]
    require(
        latency.ndim == 2 and latency.shape[0] == latency.shape[1] > 0 and latency.dtype.kind in "iuf",
        f"{path}: latency_ms is {latency.dtype} of shape {latency.shape}; it must be real numbers (c, c), city to city",
    )
    delay = latency.astype(np.float64)
    rule = "ms must be finite and at least -1: correct it"
    require_range(f"{path}, latency_ms", delay, np.isfinite(delay) & (delay >= -1), rule)
    below, above = int((delay < 0).sum()), int((delay > 400).sum())
    delay = np.clip(delay, 0.0, 400.0)
    note = f"latency: of {delay.size} entries, {below} below 0 ms were raised to 0 and {above} above 400 ms cut to 400"
    if whole_milliseconds:
        return np.floor(delay) / 1e3, (note, "latency: cut to whole milliseconds")
    return delay / 1e3, (note,)


def _availability(
    root: pathlib.Path, n: int, seed: int, source: Source | None, rng: np.random.Generator
) -> tuple[Availability | None, tuple[str, ...]]:
    """Assign the intervals of a device to each node; return notes on omitted intervals and phones."""
    if source is None:
        return None, ()
    if source == "fedscale_synth":
        return _sessions.charging(n, seed), ("availability: synthetic, fitted to published curves",)
    name = "availability_strict.npz" if source == "strict" else "availability_charging_synth.npz"
    path, origin = _verified(root, name)
    arrays = read_npz(path)
    known = availability_of(path, arrays)
    notes = (f"availability: {count_empty(arrays)} empty intervals of {name} were left out", *origin)
    if source == "charging":
        return take(known, _deal(rng, known.num_nodes, n)), notes
    absent = max(0, STRICT_PHONES - known.num_nodes)
    note = f"availability: {absent} of {absent + known.num_nodes} phones never qualify and are never online"
    everyone = _with_absent(known, absent)
    return take(everyone, _deal(rng, everyone.num_nodes, n)), (*notes, note)


def _with_absent(availability: Availability, absent: int) -> Availability:
    """Append devices that are never online."""
    offsets = np.append(availability.offsets, np.full(absent, availability.on_s.size))
    period = np.append(availability.period_s, np.full(absent, float(_sessions.DAY_S)))
    return Availability(offsets, availability.on_s, availability.off_s, period)
