"""Results on disk: one self-describing netCDF file per stem, written whole or not at all.

Figures read results through this module and import nothing of the engine: it stands on NumPy, SciPy and xarray.
"""

from __future__ import annotations

import json
import os
import pathlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import xarray as xr
from scipy import stats

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
        dataset.assign_attrs(stem=stem, manifest=json.dumps(manifest)).to_netcdf(temporary, engine="h5netcdf")
    return target


@contextmanager
def replacing(target: pathlib.Path) -> Iterator[pathlib.Path]:
    """Give a temporary path beside the target; rename it to the target on success, remove it on failure."""
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=target.suffix, dir=target.parent)
    os.close(handle)
    temporary = pathlib.Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)  # mkstemp makes files that only the owner can read
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def mean_and_interval(values: np.ndarray, axis: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and half-width of the 95 % t-interval over independent runs along an axis; NaN width for one run."""
    values = np.asarray(values, np.float64)
    count, mean = values.shape[axis], np.asarray(values.mean(axis))
    if count < 2:
        return mean, np.full(mean.shape, np.nan)
    return mean, stats.t.ppf(0.975, count - 1) * np.asarray(values.std(axis, ddof=1)) / np.sqrt(count)


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
        return xr.load_dataset(source, engine="h5netcdf")
    except (OSError, ValueError) as error:
        raise ValueError(f"{source} is damaged ({error}); {remedy}") from error


def manifest_of(dataset: xr.Dataset) -> dict[str, Any]:
    """Return the manifest of a loaded result."""
    return json.loads(dataset.attrs["manifest"])
