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

from gossipjax._base import display
from gossipjax._base.arguments import instance

if TYPE_CHECKING:  # here, and in load, because xarray takes 40 MB
    from xarray import DataArray, Dataset

FORMAT = "gossipjax-trajectory-1"


@display.displayed
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
        instance("name", name, str, "ask for one variable at a time, or use trajectory.dataset")
        if name not in self.dataset:
            raise ValueError(f"no variable {name!r}; this trajectory has {sorted(map(str, self.dataset.variables))}")
        return self.dataset[name]

    def _facts(self) -> tuple[str, dict[str, Any]]:
        about, sizes = self.manifest, self.dataset.sizes
        run = about.get("configuration", {})
        facts = {"events": run.get("num_events"), "records": sizes["record"], "seeds": sizes.get("seed")}
        if "diverged" in about:
            bits, events = (np.ravel(about["diverged"][name]) for name in ("bits", "event"))
            facts["diverged"] = f"at event {events[bits != 0].min()}"
        facts |= {"diverging": "though finite"} if "diverging" in about else {}
        return display.headline(run), facts | {str(name): _ends(v) for name, v in self.dataset.data_vars.items()}

    def _repr_html_(self) -> str:
        return display.html(self, more=f"<details><summary>records</summary>{self.dataset._repr_html_()}</details>")

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
            path: where to write the picture; its ending chooses the format. None: only return the figure.
            variables: which; None: all that are one curve per run.
            x: the horizontal axis; ``round`` is another word for ``event`` where every event is a synchronous round.

        Returns:
            The figure, which a notebook shows: see :func:`gossipjax.plot.plot_trajectory`.

        Raises:
            TypeError: a path or variables of another sort.
            ValueError: an ending that no format has, a folder that does not exist, an unknown variable or axis.
        """
        from gossipjax.figure import check_path, write
        from gossipjax.plot import plot_trajectory

        target = check_path(path)
        figure = plot_trajectory(self.dataset, variables=variables, x=x)
        if target is not None:
            write(figure, target, dpi=160)
        return figure


def configuration(dataset: Dataset) -> dict[str, Any]:
    """Return what was run, from a data set's manifest; nothing where it has none."""
    return json.loads(dataset.attrs.get("manifest", "{}")).get("configuration", {})


def _ends(variable: DataArray) -> str | int | None:
    """Say how a variable begins and ends, over nodes and seeds on average; of one that is no curve: its shape."""
    if not set(variable.dims) <= {"record", "seed", "statistic"}:
        return " x ".join(map(str, variable.shape))
    curve = variable.sel(statistic="mean") if "statistic" in variable.dims else variable
    curve = curve.mean("seed") if "seed" in curve.dims else curve
    values = curve.dropna("record").to_numpy()
    if not values.size:
        return None
    if variable.attrs.get("units") == "B":
        return display.size(float(values[-1]))
    return round(values[-1]) if variable.name == "messages_sent" else f"{values[0]:.4g} → {values[-1]:.4g}"


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
