"""The result of a run: named, self-describing, on disk in one file, and plotted in one call."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

if TYPE_CHECKING:  # here, and in load, because xarray takes 40 MB
    from xarray import DataArray, Dataset

FORMAT = "gossipjax-trajectory-1"


@dataclasses.dataclass(frozen=True, eq=False)
class Trajectory:
    """Records of a run, and the state at its end.

    Attributes:
        dataset: variables over the dimension ``record`` (and ``seed``, ``statistic``, …) with units, and the manifest
            in its attributes. Coordinates: ``event`` (source events done) and ``time`` (simulated seconds).
        state: final protocol state, or None for a trajectory read from a file.
        x: final models, or None likewise.
    """

    dataset: Dataset
    state: Any = None
    x: Any = None

    def __getitem__(self, name: str) -> DataArray:
        """One variable, such as ``trajectory["consensus_distance"]``."""
        if name not in self.dataset:
            raise ValueError(f"no variable {name!r}; this trajectory has {sorted(map(str, self.dataset.variables))}")
        return self.dataset[name]

    @property
    def manifest(self) -> dict[str, Any]:
        """Configuration, versions, device, key and code version of the run."""
        return json.loads(self.dataset.attrs["manifest"])

    def to_dataset(self) -> Dataset:
        """Return the xarray Dataset."""
        return self.dataset

    def save(self, path: str | os.PathLike[str]) -> pathlib.Path:
        """Write one netCDF-4 file, first under a temporary name, so that a failure leaves an earlier file whole.

        Raises:
            ValueError: the folder does not exist.
            OSError: the file cannot be written (a full disk, no permission); nothing is left behind.
        """
        target = pathlib.Path(path)
        with replacing(target) as temporary:
            self.dataset.to_netcdf(temporary, engine="h5netcdf")
        return target

    def plot(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        variables: Sequence[str] | None = None,
        x: str = "event",
    ) -> Any:
        """Draw variables against ``event``, ``time`` or ``bytes_sent``, with the band over nodes or seeds.

        Args:
            path: where to write the picture; None: only return the figure.
            variables: which; None: all that are one curve per run.
            x: the horizontal axis.

        Returns:
            The matplotlib Figure.
        """
        from gossipjax.plot import plot_trajectory

        figure = plot_trajectory(self.dataset, variables=variables, x=x)
        if path is not None:
            with replacing(pathlib.Path(path)) as temporary:
                figure.savefig(temporary, dpi=160, format=pathlib.Path(path).suffix.lstrip(".") or "png")
        return figure


def load(path: str | os.PathLike[str]) -> Trajectory:
    """Read a trajectory that :meth:`Trajectory.save` wrote.

    Raises:
        ValueError: no such file, or not a trajectory.
    """
    from xarray import load_dataset

    source = pathlib.Path(path)
    if not source.is_file():
        raise ValueError(f"no file {source}; pass a path that Trajectory.save wrote")
    try:
        dataset = load_dataset(source, engine="h5netcdf")
    except (OSError, ValueError) as error:
        raise ValueError(f"{source} is no readable netCDF file ({error}); run the experiment again") from error
    if dataset.attrs.get("format") != FORMAT:
        raise ValueError(f"{source} is a netCDF file but no gossipjax trajectory (format {FORMAT!r} expected)")
    return Trajectory(dataset)


@contextmanager
def replacing(target: pathlib.Path) -> Iterator[pathlib.Path]:
    """Give a temporary path beside the target; rename it to the target on success, remove it on failure.

    Raises:
        ValueError: the target's folder does not exist.
    """
    if not target.parent.is_dir():
        raise ValueError(f"no folder {target.parent} to write {target.name} into; make it first")
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=target.suffix, dir=target.parent)
    os.close(handle)
    temporary = pathlib.Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)  # mkstemp makes files that only the owner can read
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def manifest(key: Any, configuration: Mapping[str, Any]) -> dict[str, Any]:
    """Collect what is needed to repeat a run: settings, versions, device, key and code version."""
    packages = ("gossipjax", "jax", "jaxlib", "numpy", "optax", "flax")
    return {
        "configuration": dict(configuration),
        "key": np.asarray(jax.random.key_data(key)).tolist(),
        "key_type": str(jax.random.key_impl(key)),
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in packages},
        "code": code_version(),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def code_version() -> str:
    """Return the commit of the checkout that runs, with ``+`` where it has changes; else the package's version."""
    folder = pathlib.Path(__file__).resolve().parent

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        if pathlib.Path(git("rev-parse", "--show-toplevel")) != folder.parent:
            return _version("gossipjax")
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.SubprocessError):
        return _version("gossipjax")
