"""The result of a run: labelled variables with units, saved in one file and plotted in one call."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from gossipjax._base import call_json, display
from gossipjax._base.arguments import flag, instance
from gossipjax._base.calls import Call, attach, record_of
from gossipjax._base.hosts import is_first
from gossipjax._base.leaves import plain
from gossipjax._base.paths import as_path, replacing
from gossipjax.results._stored import arrays_dataset, arrays_of, containers, from_containers

if TYPE_CHECKING:  # functions import xarray when they need it, because it takes 40 MB
    from pandas import DataFrame
    from xarray import DataArray, Dataset, DataTree

FORMAT = "gossipjax-trajectory-1"


@dataclasses.dataclass(frozen=True, eq=False)
class Continuation:
    """The end of a run, from which a longer run can continue.

    Attributes:
        done: number of events so far.
        records: records of the whole run so far, with running sums.
        identity: returns the identity of the run; a function, because it costs a trace of the program.
        plan: returns the hash of the events so far; a function for the same reason.
    """

    done: int
    records: Mapping[str, np.ndarray]
    identity: Callable[[], dict[str, Any]]
    plan: Callable[[], str]


@display.displayed
@dataclasses.dataclass(frozen=True, eq=False)
class Trajectory:
    """Records of a run, and the state at its end.

    Attributes:
        dataset: variables over the dimension ``record`` (and ``seed``, ``statistic``, …) with units, and the manifest
            in its attributes. Coordinates: ``event`` (source events so far) and ``time`` (simulated seconds).
        state: final protocol state. If the trajectory was loaded from a file: a list of the leaves, or None if it was
            saved without models.
        x: final models, stacked, after the axis of seeds if there are several; None if saved without models. They may
            be arrays of ``state``: do not donate them to a compiled function if the run is to be continued or saved.
        spread: set on several hosts, where ``state`` and ``x`` are None until :meth:`gather` brings them together.
        continuation: state for a longer run, which takes the trajectory as x0 of :func:`gossipjax.simulate`; None if
            saved without models.
    """

    dataset: Dataset
    state: Any = None
    x: Any = None
    continuation: Continuation | None = None
    spread: Callable[[], tuple[Any, Any]] | None = None

    def gather(self) -> Trajectory:
        """Bring the models and the state of a run on several hosts to each of them; all processes must call it.

        Returns:
            A trajectory with ``x`` and ``state``; this one, if it has them.
        """
        if self.spread is None:
            return self
        state, x = self.spread()
        found = dataclasses.replace(self, state=state, x=x, spread=None)
        if isinstance(call := record_of(self), Call):
            attach(found, call)
        return found

    def __getitem__(self, name: str) -> DataArray:
        """Return one variable, such as ``trajectory["consensus_distance"]``."""
        instance("name", name, str, "pass the name of one variable, or use trajectory.dataset")
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
        """Return configuration, versions, device, key and code version of the run."""
        return json.loads(self.dataset.attrs["manifest"])

    def cite(self) -> str:
        """Print and return the BibTeX entries of all that the run used."""
        from gossipjax.results._provenance import cite

        entries = cite(record_of(self))
        print(entries)
        return entries

    def to_dataset(self) -> Dataset:
        """Return the xarray Dataset."""
        return self.dataset

    def to_frame(self, by: str | None = "node") -> DataFrame:
        """Return a tidy pandas table, with one row for each record, seed and node.

        >>> import gossipjax as gj, jax, jax.numpy as jnp
        >>> task = gj.tasks.quadratic(jnp.asarray([[0.0], [2.0]]))
        >>> plan, watch = gj.timeline.rounds(gj.mixing.averaging(2), 1), [gj.observe.metrics_by_node(task)]
        >>> x0 = jnp.asarray([[0.0], [4.0]])
        >>> run = gj.simulate(jax.random.key(0), gj.gossip_averaging(), plan, x0, observers=watch)
        >>> run.to_frame()[["event", "node", "squared_error_by_node"]].values.tolist()
        [[0.0, 0.0, 1.0], [0.0, 1.0, 9.0], [1.0, 0.0, 1.0], [1.0, 1.0, 1.0]]

        Args:
            by: a dimension of what observers measured: ``"node"`` (:func:`~gossipjax.observe.metrics_by_node`,
                :func:`~gossipjax.observe.traffic_by_node`, :func:`~gossipjax.observe.staleness_by_node`), ``"source"``,
                ``"statistic"``; None: what has no other dimension, one row for each record and seed.

        Returns:
            The table. Columns: ``record``, ``event``, ``time``, ``seed`` if there are several, the dimension, and all
            variables with that dimension. ``table.to_csv(path, index=False)`` writes a file.

        Raises:
            TypeError: if ``by`` is not a name.
            ValueError: if nothing was recorded by that dimension.
        """
        from gossipjax.results._frame import long_table

        return long_table(self.dataset, by)

    def save(self, path: str | os.PathLike[str], *, models: bool = False) -> pathlib.Path:
        """Write one netCDF-4 file. A temporary file comes first, so that a failure keeps an earlier file intact.

        On several hosts, process 0 writes it, and the others return at once.

        Args:
            path: path of the file, in an existing folder.
            models: whether to save the final models and the protocol's state too. The file is then as large as the
                network, and a run can continue from the loaded trajectory as from this one.

        Returns:
            The path.

        Raises:
            ValueError: if the folder does not exist, or models=True and the trajectory has no models, or they are not
                dicts, lists and tuples of arrays.
            OSError: if the file cannot be written (a full disk, no permission); no partial file remains.
        """
        target = as_path("path", path)
        if not is_first():
            return target
        groups = {"/": self.dataset} | (self._model_groups() if flag("models", models) else {})
        if (call := record_of(self)) is not None:
            groups["call"] = arrays_dataset({"npz": call_json.pack(call)}, {})
        with replacing(target) as temporary:
            write_datasets(temporary, groups)
        return target

    def _model_groups(self) -> dict[str, Dataset]:
        if self.x is None or self.continuation is None:
            if self.spread is not None:
                raise ValueError("models=True: the models of this trajectory lie on several hosts; call gather() first")
            raise ValueError("models=True: this trajectory has no models; it was read from a file without them")
        leaves: list[Any] = []
        structure = containers(self.x, leaves)
        state = self.state if isinstance(self.state, list) else jax.tree.leaves(self.state)
        end = self.continuation
        about = {"done": end.done, "identity": json.dumps(end.identity()), "plan": end.plan()}
        return {
            "models": arrays_dataset({f"leaf_{i}": leaf for i, leaf in enumerate(leaves)}, {"containers": structure}),
            "state": arrays_dataset({f"leaf_{i}": plain(leaf) for i, leaf in enumerate(state)}, {}),
            "records": arrays_dataset({name.replace("/", "|"): v for name, v in end.records.items()}, about),
        }

    def plot(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        variables: Sequence[str] | None = None,
        x: str = "event",
    ) -> Any:
        """Plot variables against ``event``, ``time`` or ``bytes_sent``, with bands over nodes and seeds.

        Args:
            path: file to write; its suffix chooses the format. None: only return the figure.
            variables: names; None: the training loss and the variables of observers, up to six, or the bytes sent if
                there are no others.
            x: horizontal axis; ``round`` is a synonym of ``event`` if every event is a synchronous round.

        Returns:
            The figure, which a notebook shows.

        Raises:
            TypeError: if path or variables have the wrong type.
            ValueError: if the suffix is not a known format, the folder does not exist, or a variable or the axis is
                unknown.
        """
        from gossipjax._base.figure import check_path, write
        from gossipjax.results._plot import plot_trajectory

        target = check_path(path)
        figure = plot_trajectory(self.dataset, variables=variables, x=x)
        if target is not None:
            write(figure, target, dpi=160)
        return figure

    def plot_nodes(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        variable: str = "accuracy_by_node",
        against: Any = None,
        label: str = "degree",
        worst: str = "lowest",
    ) -> Any:
        """Plot all nodes: deciles and the worst tenth over time, and the end against a property of the nodes.

        Args:
            path: file to write; its suffix chooses the format. None: only return the figure.
            variable: recorded for each node, such as those of :func:`~gossipjax.observe.metrics_by_node`.
            against: one number for each node, such as ``topology.degrees``; None: the second panel shows the share of
                nodes below each value.
            label: what ``against`` is.
            worst: which end of the values is the worst: ``"lowest"``, or ``"highest"`` as of a loss.

        Returns:
            The figure, which a notebook shows.

        Raises:
            TypeError: if an argument has the wrong type.
            ValueError: if the suffix is not a known format, the folder does not exist, the variable is not recorded for
                each node, or ``against`` is not one number for each node.
        """
        from gossipjax._base.figure import check_path, write
        from gossipjax.results._plot_nodes import plot_nodes

        target = check_path(path)
        figure = plot_nodes(self.dataset, variable=variable, against=against, label=label, worst=worst)
        if target is not None:
            write(figure, target, dpi=160)
        return figure


def configuration(dataset: Dataset) -> dict[str, Any]:
    """Return the configuration in a dataset's manifest; an empty dict without a manifest."""
    return json.loads(dataset.attrs.get("manifest", "{}")).get("configuration", {})


def _ends(variable: DataArray) -> str | int | None:
    """Format the first and the last value, averaged over nodes and seeds; the shape if the variable is not a curve."""
    if not set(variable.dims) <= {"record", "seed", "statistic"}:
        return " x ".join(map(str, variable.shape))
    curve = variable.sel(statistic="mean") if "statistic" in variable.dims else variable
    curve = curve.mean("seed") if "seed" in curve.dims else curve
    values = curve.dropna("record").to_numpy()
    if not values.size:
        return None
    if variable.attrs.get("units") == "B":
        return display.size(float(values[-1]))
    return (
        round(values[-1])
        if variable.name in ("messages_sent", "gradient_calls")
        else f"{values[0]:.4g} → {values[-1]:.4g}"
    )


def load(path: str | os.PathLike[str]) -> Trajectory:
    """Read a trajectory that :meth:`Trajectory.save` wrote.

    Raises:
        ValueError: if the file does not exist, or is not a trajectory.
    """
    from xarray import load_datatree

    source = as_path("path", path)
    if not source.is_file():
        raise ValueError(f"no file {source}; pass a path that Trajectory.save wrote")
    try:
        tree = load_datatree(source, engine="h5netcdf")
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ValueError(f"{source} is not a readable netCDF file ({error}); run the experiment again") from error
    dataset = tree.to_dataset()
    if dataset.attrs.get("format") != FORMAT:
        raise ValueError(f"{source} is a netCDF file but not a gossipjax trajectory (expected format {FORMAT!r})")
    try:
        trajectory = Trajectory(dataset, *(_read_models(tree) if "models" in tree.children else ()))
        if "call" in tree.children:
            attach(trajectory, call_json.unpack(arrays_of(tree["call"].to_dataset())["npz"]))
        return trajectory
    except (KeyError, IndexError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"the models or the call in {source} are damaged ({error!r}); run the experiment again"
        ) from error


def _read_models(tree: DataTree) -> tuple[list[np.ndarray], Any, Continuation]:
    models, state, records = (arrays_of(tree[name].to_dataset()) for name in ("models", "state", "records"))
    about = tree["records"].attrs
    identity, plan = json.loads(about["identity"]), str(about["plan"])
    named = {name.replace("|", "/"): array for name, array in records.items()}
    x = from_containers(json.loads(tree["models"].attrs["containers"]), list(models.values()))
    return list(state.values()), x, Continuation(int(about["done"]), named, lambda: identity, lambda: plan)


def write_datasets(path: pathlib.Path, groups: Mapping[str, Dataset]) -> None:
    """Write a netCDF-4 file. Build it in memory first, because HDF5 crashes Python on a full disk.

    Raises:
        OSError: if the file cannot be written.
    """
    from xarray import DataTree

    path.write_bytes(DataTree.from_dict(groups).to_netcdf(None, engine="h5netcdf"))


def manifest(key: Any, configuration: Mapping[str, Any]) -> dict[str, Any]:
    """Collect all that is needed to repeat a run: settings, versions, device, key and code version."""
    about = {
        "configuration": dict(configuration),
        "key": np.asarray(jax.random.key_data(key)).tolist(),
        "key_type": str(jax.random.key_impl(key)),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    return about | environment()


def environment() -> dict[str, Any]:
    """Return the environment on which a run's result depends: versions, device, width of floats, code version."""
    packages = ("gossipjax", "jax", "jaxlib", "numpy", "optax", "flax")
    return {
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "x64": bool(jax.config.jax_enable_x64),  # type: ignore[attr-defined]
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in packages},
        "code": code_version(),
    }


@functools.cache
def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


@functools.cache
def code_version() -> str:
    """Return the commit of the running checkout, with ``+`` if it has changes; else the package's version.

    Cached for the process, which keeps running the code it imported if the checkout changes later.
    """
    folder = pathlib.Path(__file__).resolve().parents[1]
    if not (folder.parent / ".git").exists():
        return _version("gossipjax")
    command = ["git", "-C", str(folder), "status", "--porcelain=v2", "--branch", "--", "."]
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.splitlines()
        commit = next(line.split()[-1] for line in told if line.startswith("# branch.oid"))
        return commit[:12] + ("+" if any(not line.startswith("#") for line in told) else "")
    except (OSError, subprocess.SubprocessError):
        return _version("gossipjax")
