"""What a deployed run did: models, messages, and measured beside predicted times."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from gossipjax._base.arguments import real
from gossipjax._base.display import displayed
from gossipjax.deploy._clocks import round_ends
from gossipjax.deploy._job import Job, Result
from gossipjax.types import Params

if TYPE_CHECKING:  # functions import xarray when they need it, because it takes 40 MB
    from xarray import Dataset

SECONDS = {"units": "s"}


@displayed
@dataclasses.dataclass(frozen=True, eq=False)
class Report:
    """A run on processes.

    Attributes:
        x: final models, stacked, leaves ``(n, ...)``.
        dataset: per sender and receiver ``messages_planned``, ``messages_sent`` and ``messages_received``; per node
            ``bytes_counted`` (as the sharing counts them), ``bytes_on_wire`` (bodies, as they were sent) and
            ``messages_refused`` (of strangers); ``messages_unread``, which the plan counts as sent but never delivers,
            and which are not sent. Rounds: ``measured_end_s``, ``predicted_end_s`` (NaN if computation is not emulated)
            and ``train_loss``, per round and node. Events: the same, with ``node`` and ``event``, per turn; predicted
            are the planned times. All times are simulated seconds since the start.
    """

    x: Params
    dataset: Dataset

    def share_within(self, tolerance: float) -> float:
        """Return the share of rounds whose end differs from the predicted one by at most a relative tolerance.

        A round ends when its last node does. At events, every turn of a node counts.

        Args:
            tolerance: such as 0.05.

        Raises:
            ValueError: if it is negative, or nothing was predicted.
        """
        tolerance = real("tolerance", tolerance, least=0)
        measured, predicted = self.dataset["measured_end_s"], self.dataset["predicted_end_s"]
        if not bool(predicted.notnull().all()):
            raise ValueError("the times of this run were not predicted: pass compute_seconds to emulate computation")
        if "round" in measured.dims:
            measured, predicted = measured.max("node"), predicted.max("node")
        return float((abs(measured - predicted) <= tolerance * predicted).mean())

    def _facts(self) -> tuple[str, dict[str, Any]]:
        data = self.dataset
        end = float(data["measured_end_s"].max()) if data["measured_end_s"].size else 0.0
        facts = {"nodes": data.sizes["sender"], "messages": int(data["messages_received"].sum())}
        return str(data.attrs["run"]), facts | {"end": f"{end:.3g} s", "as planned": as_planned(data)}


def as_planned(data: Dataset) -> bool:
    """Return whether every planned message was sent and received, and no other."""
    planned = data["messages_planned"].values
    return all((data[name].values == planned).all() for name in ("messages_sent", "messages_received"))


def report_of(job: Job, results: list[Result]) -> Report:
    """Put together what the nodes report."""
    import xarray as xr

    n, structure = job.num_nodes, jax.tree.structure(job.x0)
    columns = zip(*(result.x for result in results), strict=True)
    x = jax.tree.unflatten(structure, [jnp.asarray(np.stack(column)) for column in columns])
    pair = ("sender", "receiver")
    variables: dict[str, Any] = {
        "messages_planned": (pair, job.plan.messages),
        "messages_sent": (pair, np.stack([result.sent for result in results])),
        "messages_received": (pair, np.stack([result.received for result in results], axis=1)),
        "messages_unread": ((), job.plan.unread),
        "bytes_counted": (("node",), np.array([result.bits.sum() / 8 for result in results]), {"units": "B"}),
        "bytes_on_wire": (("node",), np.array([result.wire_bytes for result in results]), {"units": "B"}),
        "messages_refused": (("node",), np.array([result.refused for result in results])),
    }
    variables |= _of_rounds(job, results) if job.plan.rounds else _of_events(job, results)
    nodes = np.arange(n)
    data = xr.Dataset(variables, {"node": nodes} if job.plan.rounds else {})
    return Report(x, data.assign_attrs(run=job.timeline.properties.name, overlap=int(job.overlap)))


def _of_rounds(job: Job, results: list[Result]) -> dict[str, Any]:
    names = ("end_s", "born_s", "loss", "bits")
    ends, born, loss, bits = (np.stack([getattr(result, name) for result in results], axis=1) for name in names)
    links, predicted = (job.bytes_per_second, job.latency_seconds), np.full(ends.shape, np.nan)
    if job.compute_seconds is not None:
        predicted = round_ends(job.plan, bits, job.compute_seconds, *links, job.overlap)
    at = ("round", "node")
    return {
        "measured_end_s": (at, ends, SECONDS),
        "predicted_end_s": (at, predicted, SECONDS),
        "measured_trained_s": (at, born, SECONDS),
        "train_loss": (at, loss),
    }


def _of_events(job: Job, results: list[Result]) -> dict[str, Any]:
    turns = [(node, turn.event) for node, of_node in enumerate(job.plan.turns) for turn in of_node]
    nodes, events = np.array(turns, np.int64).reshape(-1, 2).T
    joined = {name: np.concatenate([getattr(r, name) for r in results]) for name in ("end_s", "born_s", "loss")}
    return {
        "node": (("turn",), nodes),
        "event": (("turn",), events),
        "measured_end_s": (("turn",), joined["end_s"], SECONDS),
        "measured_begin_s": (("turn",), joined["born_s"], SECONDS),
        "predicted_end_s": (("turn",), job.plan.times[events], SECONDS),
        "train_loss": (("turn",), joined["loss"]),
    }
