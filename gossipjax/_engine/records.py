"""Collect records on the host and turn them into an xarray Dataset."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from gossipjax._base import counter
from gossipjax._engine.loop import Losses, Status, Totals
from gossipjax.observe._models import STATISTICS, Observer
from gossipjax.results._trajectory import FORMAT

if TYPE_CHECKING:  # only at the end of a run is xarray needed, which takes 40 MB
    from xarray import Dataset

_BAD = {"bits": np.int32, "event": np.uint32, "time": np.float64, "node": np.int32}
_TOTALS = ("bits", "messages")
_SUMS = ("bytes_sent", "messages_sent", "gradient_calls")


class Log:
    """Records of all pieces so far, and totals that carry over to the next piece. All arrays: ``(records, *seeds)``."""

    def __init__(self, num_seeds: int | None, *, reports: bool = True, local_steps: int | None = None):
        """Begin without records.

        Args:
            num_seeds: S; None: a run without an axis of seeds.
            reports: whether the protocol reports what it sends; else bytes and messages are NaN.
            local_steps: gradients of a node that acts, 0 or more; None: not known, so that their number is NaN.
        """
        self.seeds, self.reports, self.local_steps = num_seeds, reports, local_steps
        self.columns: dict[str, list[np.ndarray]] = {}
        self.totals = {name: np.zeros(self._shape, np.uint64) for name in (*_TOTALS, "gradients")}
        self.bad = {name: np.zeros(self._shape, kind) for name, kind in _BAD.items()}
        self.losses: Any = Losses(np.zeros(2, np.float32), np.zeros(2, np.uint32))  # type: ignore[arg-type]
        if num_seeds is not None:
            self.losses = jax.tree.map(lambda leaf: np.tile(leaf, (num_seeds, 1)), self.losses)

    def __len__(self) -> int:
        """Number of records."""
        return sum(map(len, self.columns.get("position", [])))

    @property
    def _shape(self) -> tuple[int, ...]:
        return () if self.seeds is None else (self.seeds,)

    @property
    def positions(self) -> np.ndarray:
        """Number of events done at each record so far."""
        return _joined(self.columns.get("position", [np.zeros(0, np.int64)]))

    @property
    def event(self) -> int:
        """Source events done at the last record, the same for all seeds."""
        return int(np.ravel(self.columns["event"][-1][-1])[0])

    def add(self, found: Totals, positions: np.ndarray) -> None:
        """Append the records of one call, which lie at ``positions``.

        Args:
            found: totals of its stretches, those that end with a record first.
            positions: events up to each of these records.
        """
        by_record = (lambda a: np.moveaxis(np.asarray(a), 1, 0)) if self.seeds is not None else np.asarray
        totals = {name: by_record(counter.value(getattr(found, name))) + self.totals[name] for name in _TOTALS}
        losses = jax.tree.map(by_record, found.losses)
        before = np.asarray(self.losses.numbers)[None, ..., 0]
        new = np.diff(losses.numbers[..., 0], axis=0, prepend=before)  # counts of 32 bits: differences are right
        totals["gradients"] = self.totals["gradients"] + np.cumsum(new, axis=0, dtype=np.uint64)
        self.totals = {name: values[-1] for name, values in totals.items()}
        self.losses = jax.tree.map(lambda leaf: leaf[-1], losses)
        if not (kept := len(positions)):
            return
        self._put("position", positions)
        self._put("event", by_record(found.event)[:kept].astype(np.int64))
        self._put("time", by_record(found.time)[:kept].astype(np.float64))
        unknown = np.full(totals["bits"][:kept].shape, np.nan)
        self._put("bytes_sent", totals["bits"][:kept] / 8.0 if self.reports else unknown)
        self._put("messages_sent", totals["messages"][:kept].astype(np.int64) if self.reports else unknown)
        calls = None if self.local_steps is None else self.local_steps * totals["gradients"][:kept].astype(np.int64)
        self._put("gradient_calls", unknown if calls is None else calls)
        self._put("loss", losses.total[:kept].astype(np.float64).sum(axis=-1))
        self._put("losses", losses.numbers[:kept])
        for name, values in found.values.items():
            self._put(f"values/{name}", by_record(values)[:kept])

    def column(self, name: str) -> np.ndarray:
        """Return one variable at all records: a measured one, or ``train_loss``."""
        if name == "train_loss":
            return _mean_losses(_joined(self.columns["loss"]), _joined(self.columns["losses"]))
        return _joined(self.columns[f"values/{name}"])

    def _put(self, name: str, values: np.ndarray) -> None:
        self.columns.setdefault(name, []).append(values)

    def select(self, positions: np.ndarray) -> None:
        """Keep only the start and the records at these positions; totals are sums since the start and lose nothing."""
        kept = np.isin(self.positions, positions) | (self.positions == 0)
        self.columns = {name: [_joined(parts)[kept]] for name, parts in self.columns.items()}

    def note(self, status: Status) -> None:
        """Remember the first bad event of each seed."""
        found = jax.tree.map(np.asarray, status)
        new = (self.bad["bits"] == 0) & (found.bits != 0)
        self.bad = {name: np.where(new, getattr(found, name), values) for name, values in self.bad.items()}

    @property
    def diverged(self) -> bool:
        """Whether any seed met a bad event."""
        return bool(np.any(self.bad["bits"] != 0))

    def row(self, number: int, observers: Sequence[Observer]) -> dict[str, Any]:
        """Return one record as plain values: numbers, or arrays over seeds; each statistic over nodes has its own name.

        Args:
            number: of the record; 0 is the start.
            observers: that measured it.
        """
        recent = {name: _tail(parts, number) for name, parts in self.columns.items()}
        found = {name: recent[name][-1] for name in ("event", "time", *_SUMS)}
        found["event"] = np.ravel(found["event"])[0]  # the same for all seeds
        found["train_loss"] = _mean_losses(recent["loss"], recent["losses"])[-1]
        for variable in (variable for observer in observers for variable in observer.variables):
            values = recent[f"values/{variable.name}"][-1]
            if variable.dims == ("statistic",):
                found |= {f"{variable.name}_{name}": values[..., at] for at, name in enumerate(STATISTICS)}
            else:
                found[variable.name] = values
        return {name: value.item() if np.shape(value) == () else value for name, value in found.items()}

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return everything as named arrays, for a file."""
        self.columns = {name: [_joined(parts)] for name, parts in self.columns.items()}
        found = {f"columns/{name}": parts[0] for name, parts in self.columns.items()}
        for name in ("totals", "bad"):
            found |= {f"{name}/{key}": values for key, values in getattr(self, name).items()}
        return found | {f"losses/{name}": np.asarray(value) for name, value in self.losses._asdict().items()}

    def load_state_dict(self, saved: Mapping[str, np.ndarray]) -> None:
        """Restore what :meth:`state_dict` returned."""

        def part(name: str) -> dict[str, np.ndarray]:
            own = {key: np.asarray(values) for key, values in saved.items() if key.startswith(f"{name}/")}
            return {key.removeprefix(f"{name}/"): values for key, values in own.items()}

        self.columns = {name: [values] for name, values in part("columns").items()}
        self.totals, self.bad, self.losses = part("totals"), part("bad"), Losses(**part("losses"))  # type: ignore[arg-type]

    def dataset(self, observers: Sequence[Observer], manifest: dict[str, Any]) -> Dataset:
        """Build the Dataset: dimensions ``record``, ``seed`` and the observers' own; units on every variable."""
        from xarray import Dataset

        columns = {name: _joined(parts) for name, parts in self.columns.items()}
        columns["train_loss"] = self.column("train_loss")
        seed = () if self.seeds is None else ("seed",)
        variables: dict[str, Any] = {
            "bytes_sent": (("record", *seed), columns["bytes_sent"], _about("bytes sent by the whole network", "B")),
            "messages_sent": (("record", *seed), columns["messages_sent"], _about("messages sent by the network", "1")),
            "train_loss": (
                ("record", *seed),
                columns["train_loss"],
                _about("mean mini-batch loss since last record", "1"),
            ),
            "gradient_calls": (
                ("record", *seed),
                columns["gradient_calls"],
                _about("mini-batch gradients taken by all nodes", "1"),
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


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _tail(parts: Sequence[np.ndarray], number: int) -> np.ndarray:
    """Entries ``number - 1`` and ``number`` of an array in parts, without joining all parts."""
    end = sum(map(len, parts))
    recent = parts[-1] if len(parts[-1]) > 1 or len(parts) == 1 else np.concatenate(parts[-2:])
    return recent[max(0, len(recent) + number - end - 1) : len(recent) + number - end + 1]


def _mean_losses(total: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Mean loss between each record and the previous one, from sums since the start; NaN if there is no loss."""
    loss, new = np.diff(total, axis=0, prepend=0.0), np.diff(numbers, axis=0, prepend=numbers[:1] * 0)
    steps, bad = new[..., 0].astype(np.float64), new[..., 1]
    loss[0] = np.nan
    return np.where((steps > 0) & (bad == 0), loss / np.maximum(steps, 1.0), np.nan)


def _about(long_name: str, units: str) -> dict[str, str]:
    return {"long_name": long_name, "units": units}
