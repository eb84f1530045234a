"""Results on disk: one self-describing netCDF file per stem, written whole or not at all.

Figures read results through this module and import nothing of the engine: it stands on NumPy, SciPy and xarray.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from scipy import stats

from theory.output import replacing

DEFAULT = pathlib.Path("results")


def path_of(stem: str, folder: pathlib.Path = DEFAULT) -> pathlib.Path:
    """Return where the result of a stem lies."""
    return folder / f"{stem}.nc"


def save(stem: str, dataset: xr.Dataset, manifest: dict[str, Any], folder: pathlib.Path = DEFAULT) -> pathlib.Path:
    """Write a result under a temporary name and rename it: an interrupted run leaves the last good file.

    Args:
        stem: the claim that names experiment, result and figure.
        dataset: named dimensions, units in the attributes.
        manifest: configuration, versions, device and code version, as JSON-able values.
        folder: made if it is missing.

    Returns:
        The path.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target = path_of(stem, folder)
    with replacing(target) as temporary:
        named = dataset.assign_attrs(stem=stem, manifest=json.dumps(manifest))
        named.assign_attrs(checksum=checksum(named)).to_netcdf(temporary, engine="h5netcdf")
    return target


def mean_and_interval(values: np.ndarray, axis: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and half-width of the 95 % t-interval over independent runs along an axis; NaN width for one run."""
    values = np.asarray(values, np.float64)
    count, mean = values.shape[axis], np.asarray(values.mean(axis))
    if count < 2:
        return mean, np.full(mean.shape, np.nan)
    return mean, stats.t.ppf(0.975, count - 1) * np.asarray(values.std(axis, ddof=1)) / np.sqrt(count)


def checksum(dataset: xr.Dataset) -> str:
    """Compute a checksum of all values, coordinates and attributes but the checksum, which a result carries along.

    It must survive the way through a netCDF file, which changes the width of texts and the form of attributes, so it
    is not the hash of arrays that the engine uses.
    """
    found = hashlib.sha256(_attributes(dataset.attrs))
    for name in sorted(map(str, dataset.variables)):
        variable = dataset.variables[name]
        values = np.asarray(variable.values)
        # Text is stored with another width than it had; numbers keep their type.
        text = values.dtype.kind in "OUS"
        content = "\0".join(map(str, values.ravel())).encode() if text else np.ascontiguousarray(values).tobytes()
        for part in (f"{name}{variable.dims}{values.shape}".encode(), content, _attributes(variable.attrs)):
            found.update(f"{len(part)}:".encode() + part)
    return found.hexdigest()


def _attributes(attributes: Mapping[Any, Any]) -> bytes:
    """Write attributes down as a file returns them: a list of one is one, and numbers are NumPy's."""
    plain = {str(name): np.ravel(value).tolist() for name, value in attributes.items() if name != "checksum"}
    return json.dumps(plain, sort_keys=True).encode()


def load(stem: str, folder: pathlib.Path = DEFAULT) -> xr.Dataset:
    """Read a result.

    Raises:
        ValueError: there is none, or the file is damaged; names the command that makes it.
    """
    source = path_of(stem, folder)
    remedy = f"run: python -m experiments run {stem} --out {folder}"
    if not source.is_file():
        raise ValueError(f"no result {source}; {remedy}")
    try:
        found = xr.load_dataset(source, engine="h5netcdf")
        if "checksum" in found.attrs and found.attrs["checksum"] != checksum(found):
            raise ValueError("its content is not that which was written")
        return found
    except Exception as error:  # h5py raises errors of nearly any sort for bytes that are no file of its own
        raise ValueError(f"{source} is damaged ({error}); {remedy}") from error


def manifest_of(dataset: xr.Dataset) -> dict[str, Any]:
    """Return the manifest of a loaded result."""
    return json.loads(dataset.attrs["manifest"])
