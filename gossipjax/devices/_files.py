"""Save devices to .npz files and load them."""

from __future__ import annotations

import os
import pathlib

import numpy as np

from gossipjax._base.arguments import instance
from gossipjax._base.calls import recorded
from gossipjax._base.npz import read_npz
from gossipjax._base.paths import replacing
from gossipjax.devices._availability import Availability
from gossipjax.devices._checks import path_of, require
from gossipjax.devices._device import BUILD_DEVICES, Devices

FORMAT = "gossipjax-devices-1"
_FIELDS = ("seconds_per_sample", "upload_bytes_per_second", "download_bytes_per_second", "city_latency_seconds", "city")
_INTERVALS = ("offsets", "on_s", "off_s", "period_s")


def save(devices: Devices, path: str | os.PathLike[str]) -> pathlib.Path:
    """Write devices to one .npz file; the write is atomic, so a failure leaves an earlier file intact.

    Args:
        devices: what to write, including name and notes.
        path: a file in an existing folder.

    Returns:
        The path.

    Raises:
        ValueError: if the folder does not exist.
        OSError: if the file cannot be written; no partial file remains.
    """
    instance("devices", devices, Devices, BUILD_DEVICES)
    target = path_of(path)
    arrays = {name: getattr(devices, name) for name in _FIELDS}
    if devices.availability is not None:
        arrays |= {name: getattr(devices.availability, name) for name in _INTERVALS}
    arrays |= {"name": np.array(devices.name), "notes": np.array(devices.notes, np.str_), "format": np.array(FORMAT)}
    with replacing(target) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, allow_pickle=False, **arrays)
    return target


@recorded(file="path")
def load(path: str | os.PathLike[str]) -> Devices:
    """Read devices that :func:`save` wrote.

    Raises:
        ValueError: if the file does not exist, does not hold devices, or holds invalid numbers.
    """
    source = path_of(path)
    arrays = read_npz(source)
    require(
        str(arrays.get("format")) == FORMAT,
        f"{source} does not hold devices (format {FORMAT!r} expected): pass a file that save wrote",
    )
    names = (*_FIELDS, "name", "notes", *(_INTERVALS if "offsets" in arrays else ()))
    require_keys(source, arrays, names)
    try:
        intervals = Availability(**{name: arrays[name] for name in _INTERVALS}) if "offsets" in arrays else None
        return Devices(
            **{name: arrays[name] for name in _FIELDS},
            availability=intervals,
            name=str(arrays["name"]),
            notes=tuple(arrays["notes"].tolist()),
        )
    except (ValueError, TypeError) as error:
        raise ValueError(f"{source}: {error}") from error


def require_keys(path: pathlib.Path, arrays: dict[str, np.ndarray], names: tuple[str, ...]) -> None:
    """Raise ``ValueError`` unless a file has all of these arrays."""
    missing = [name for name in names if name not in arrays]
    require(not missing, f"{path} lacks {missing}; it has {sorted(arrays)}: add these arrays")
