"""Who trained, sent and averaged when, in the same form for all systems."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int8, Int32

from gossipjax._base.arguments import wholes
from gossipjax._base.display import displayed, size

UNDER_WAY, COMPLETED, CUT = range(3)
"""States of a transfer: still in progress at the end, completed, cut."""


@displayed
class Activity(NamedTuple):
    """Trainings, model messages and means, each in no particular order; seconds from a common origin."""

    training_node: Int32[np.ndarray, " t"]
    training_start_s: Float64[np.ndarray, " t"]
    training_end_s: Float64[np.ndarray, " t"]
    """When it ends or is interrupted."""
    training_completed: Bool[np.ndarray, " t"]
    sender: Int32[np.ndarray, " x"]
    """n stands for the coordinator of HADFL."""
    receiver: Int32[np.ndarray, " x"]
    """-1: unknown, for a message in flight when the plan ends."""
    asked_s: Float64[np.ndarray, " x"]
    """When the transfer is requested; it may wait for bandwidth."""
    ended_s: Float64[np.ndarray, " x"]
    """When it completes, is cut, or the plan ends."""
    sent_bytes: Float64[np.ndarray, " x"]
    state: Int8[np.ndarray, " x"]
    """:data:`UNDER_WAY`, ``COMPLETED`` or ``CUT``."""
    mean_s: Float64[np.ndarray, " a"]
    mean_node: Int32[np.ndarray, " a"]
    """Who takes a mean, or merges what it received."""

    def _facts(self) -> tuple[str, dict[str, Any]]:
        sizes = {"trainings": self.training_node.size, "transfers": self.sender.size, "means": self.mean_node.size}
        return "", sizes | {"sent": size(self.sent_bytes.sum())}


def check_activity(found: Activity, n: int, *, coordinators: int = 0) -> None:
    """Check that the columns agree with each other and with the number of nodes n.

    Args:
        found: the columns.
        n: number of nodes.
        coordinators: 1 if node n sends and receives too.

    Raises:
        ValueError: if columns differ in length, or nodes or states do not exist.
    """
    nodes = wholes("training_node", found.training_node, shape=(None,), least=0, most=n - 1)
    for name in ("training_start_s", "training_end_s", "training_completed"):
        _same_length(name, getattr(found, name), nodes)
    senders = wholes("sender", found.sender, shape=(None,), least=0, most=n - 1 + coordinators)
    wholes("receiver", found.receiver, shape=senders.shape, least=-1, most=n - 1 + coordinators)
    wholes("state", found.state, shape=senders.shape, least=0, most=CUT)
    for name in ("asked_s", "ended_s", "sent_bytes"):
        _same_length(name, getattr(found, name), senders)
    _same_length("mean_s", found.mean_s, wholes("mean_node", found.mean_node, shape=(None,), least=0, most=n - 1))


def _same_length(name: str, column: np.ndarray, other: np.ndarray) -> None:
    kind = getattr(column, "dtype", np.dtype(object)).kind
    if np.shape(column) != other.shape or kind not in "biuf" or not np.isfinite(column).all():
        raise ValueError(f"{name} of shape {np.shape(column)}: must be {other.size} finite numbers, one for each")


def shifted(found: Activity, seconds: float) -> Activity:
    """Move all times by some seconds."""
    times = {name: getattr(found, name) + seconds for name in Activity._fields if name.endswith("_s")}
    return found._replace(**times)


def within(found: Activity, first_s: float, last_s: float) -> Activity:
    """Keep everything that overlaps a window of time."""
    trained = (found.training_end_s >= first_s) & (found.training_start_s <= last_s)
    moved = (found.ended_s >= first_s) & (found.asked_s <= last_s)
    averaged = (found.mean_s >= first_s) & (found.mean_s <= last_s)
    return Activity(
        *(column[trained] for column in found[:4]),
        *(column[moved] for column in found[4:10]),
        *(column[averaged] for column in found[10:]),
    )
