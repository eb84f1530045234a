"""Results on disk: one self-describing netCDF file per stem, written completely or not at all.

Figures read results through this module, which uses only NumPy, SciPy and xarray, and not the engine.
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
    """Return the path of the result of a stem."""
    return folder / f"{stem}.nc"


def save(stem: str, dataset: xr.Dataset, manifest: dict[str, Any], folder: pathlib.Path = DEFAULT) -> pathlib.Path:
    """Write a result under a temporary name, then rename it; an interrupted run leaves the last good file.

    Args:
        stem: common name of experiment, result and figure.
        dataset: dataset with named dimensions, and units in the attributes.
        manifest: configuration, versions, device and code version, as JSON-able values.
        folder: created if it is missing.

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
    """Compute the checksum that a result contains, of all values, coordinates and other attributes.

    It must survive a netCDF file, which changes the width of text and the form of attributes, and is therefore not the
    engine's hash of arrays.
    """
    digest = hashlib.sha256(_attributes(dataset.attrs))
    for name in sorted(map(str, dataset.variables)):
        variable = dataset.variables[name]
        values = np.asarray(variable.values)
        # Files change the width of text, but not the type of numbers.
        text = values.dtype.kind in "OUS"
        content = "\0".join(map(str, values.ravel())).encode() if text else np.ascontiguousarray(values).tobytes()
        for part in (f"{name}{variable.dims}{values.shape}".encode(), content, _attributes(variable.attrs)):
            digest.update(f"{len(part)}:".encode() + part)
    return digest.hexdigest()


def _attributes(attributes: Mapping[Any, Any]) -> bytes:
    """Serialise attributes in the form in which a file returns them: NumPy numbers, and scalars for lists of one."""
    plain = {str(name): np.ravel(value).tolist() for name, value in attributes.items() if name != "checksum"}
    return json.dumps(plain, sort_keys=True).encode()


def load(stem: str, folder: pathlib.Path = DEFAULT) -> xr.Dataset:
    """Read a result.

    Raises:
        ValueError: the file is missing or damaged; the message names the command that makes it.
    """
    source = path_of(stem, folder)
    remedy = f"run: python -m experiments run {stem} --out {folder}"
    if not source.is_file():
        raise ValueError(f"no result {source}; {remedy}")
    try:
        dataset = xr.load_dataset(source, engine="h5netcdf")
        if "checksum" in dataset.attrs and dataset.attrs["checksum"] != checksum(dataset):
            raise ValueError("its content has changed since it was written")
        return dataset
    except Exception as error:  # h5py raises many kinds of errors for files that are not its own
        raise ValueError(f"{source} is damaged ({error}); {remedy}") from error


def manifest_of(dataset: xr.Dataset) -> dict[str, Any]:
    """Return the manifest of a loaded result."""
    return json.loads(dataset.attrs["manifest"])
