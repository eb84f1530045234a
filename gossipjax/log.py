"""Records gathered on the host, and their way into an xarray Dataset."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from gossipjax import counter
from gossipjax.engine import Records, Status
from gossipjax.observe import STATISTICS, Observer
from gossipjax.trajectory import FORMAT

if TYPE_CHECKING:  # only at the end of a run is xarray needed, which takes 40 MB
    from xarray import Dataset

_BAD = {"bits": np.int32, "event": np.uint32, "time": np.float64}


class Log:
    """Records of the pieces run so far, and running totals that outlive a piece. All arrays: ``(records, *seeds)``."""

    def __init__(self, first: Records, num_seeds: int | None):
        """Begin with the record of the start, whose leaves are ``(*seeds,)``."""
        self.seeds = num_seeds
        self.columns: dict[str, list[np.ndarray]] = {}
        self.pending = {name: np.zeros(self._shape, np.float64) for name in ("loss", "steps")}
        self.totals = {name: np.zeros(self._shape, np.uint64) for name in ("bits", "messages")}
        self.bad = {name: np.zeros(self._shape, kind) for name, kind in _BAD.items()}
        axis = 0 if num_seeds is None else 1
        self.add(jax.tree.map(lambda leaf: np.expand_dims(np.asarray(leaf), axis), first), keep=True)

    @property
    def _shape(self) -> tuple[int, ...]:
        return () if self.seeds is None else (self.seeds,)

    def add(self, records: Records, *, keep: bool) -> None:
        """Append one call's records, or (``keep=False``) only its totals."""
        by_record = (lambda a: np.moveaxis(np.asarray(a), 1, 0)) if self.seeds is not None else np.asarray
        loss, steps = by_record(records.loss).astype(np.float64), by_record(records.steps).astype(np.float64)
        loss[0], steps[0] = loss[0] + self.pending["loss"], steps[0] + self.pending["steps"]
        totals = {
            name: by_record(counter.value(getattr(records, name))) + self.totals[name] for name in ("bits", "messages")
        }
        self.totals = {name: values[-1] for name, values in totals.items()}
        if not keep:
            self.pending = {"loss": loss[-1], "steps": steps[-1]}
            return
        self.pending = {"loss": np.zeros(self._shape), "steps": np.zeros(self._shape)}
        self._put("event", by_record(records.event).astype(np.int64))
        self._put("time", by_record(records.time).astype(np.float64))
        self._put("bytes_sent", totals["bits"] / 8.0)
        self._put("messages_sent", totals["messages"].astype(np.int64))
        with np.errstate(invalid="ignore"):
            self._put("train_loss", np.where(steps > 0, loss / np.maximum(steps, 1.0), np.nan))
        for name, values in records.values.items():
            self._put(f"values/{name}", by_record(values))

    def _put(self, name: str, values: np.ndarray) -> None:
        self.columns.setdefault(name, []).append(values)

    def note(self, status: Status) -> bool:
        """Remember the first bad event of each seed; return whether there is any."""
        found = jax.tree.map(np.asarray, status)
        new = (self.bad["bits"] == 0) & (found.bits != 0)
        self.bad = {name: np.where(new, getattr(found, name), values) for name, values in self.bad.items()}
        return self.diverged

    @property
    def diverged(self) -> bool:
        """Whether any seed met a bad event."""
        return bool(np.any(self.bad["bits"] != 0))

    def state_dict(self) -> dict[str, Any]:
        """Return everything as arrays, for a checkpoint."""
        return {
            "columns": {name: np.concatenate(parts) for name, parts in self.columns.items()},
            "pending": self.pending,
            "totals": self.totals,
            "bad": self.bad,
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.columns = {name: [np.asarray(values)] for name, values in saved["columns"].items()}
        # A checkpoint holds no zero-dimensional arrays.
        for name in ("pending", "totals", "bad"):
            setattr(self, name, {key: np.reshape(values, self._shape) for key, values in saved[name].items()})

    def dataset(
        self, observers: Sequence[Observer], manifest: dict[str, Any], *, traffic_reported: bool = True
    ) -> Dataset:
        """Build the Dataset: dimensions ``record``, ``seed`` and the observers' own; units on every variable.

        Bytes and messages of a protocol that does not report them are not a number: 0 would say that nothing is sent.
        """
        from xarray import Dataset

        columns = {name: np.concatenate(parts) for name, parts in self.columns.items()}
        if not traffic_reported:
            unknown = np.full(columns["bytes_sent"].shape, np.nan)
            columns |= {"bytes_sent": unknown, "messages_sent": unknown.copy()}
        seed = () if self.seeds is None else ("seed",)
        variables: dict[str, Any] = {
            "bytes_sent": (("record", *seed), columns["bytes_sent"], _about("bytes sent by the whole network", "B")),
            "messages_sent": (("record", *seed), columns["messages_sent"], _about("messages sent by the network", "1")),
            "train_loss": (
                ("record", *seed),
                columns["train_loss"],
                _about("mean mini-batch loss since last record", "1"),
            ),
        }
        for observer in observers:
            for v in observer.variables:
                variables[v.name] = (
                    ("record", *seed, *v.dims),
                    columns[f"values/{v.name}"],
                    _about(v.long_name, v.units),
                )
        time, event = columns["time"], columns["event"]
        if seed and np.all(time == time[:, :1]):
            time = time[:, 0]
        event = event[:, 0] if seed else event
        coordinates: dict[str, Any] = {
            "event": ("record", event, _about("source events done", "1")),
            "time": (("record", *seed)[: time.ndim], time, _about("simulated time", "s")),
        }
        if any("statistic" in v.dims for observer in observers for v in observer.variables):
            coordinates["statistic"] = ("statistic", list(STATISTICS))
        return Dataset(variables, coordinates, {"format": FORMAT, "manifest": json.dumps(manifest)})


def _about(long_name: str, units: str) -> dict[str, str]:
    return {"long_name": long_name, "units": units}
