"""The events of servers that take single gradients: those of FedBuff, with rows for models that are still used."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from gossipjax.facts import Properties, Traffic
from gossipjax.timeline._from_events import listed
from gossipjax.types import NOBODY, Timeline

SERVER, BUFFER, WORK, KEPT = range(4)
"""Rows: the server's model, its buffer, the row that trains, and from ``KEPT`` on older models that are still used."""


class Gradient(NamedTuple):
    """A gradient that counts."""

    time: float
    """When it reaches the server."""
    worker: int
    version: int
    """Number of the model at which it was computed."""
    weight: float
    """Of it in the update."""
    last: bool
    """Whether the server now updates its model."""
    sent: int
    """Messages that have left anybody until this update, its models included; 0 if the server does not update."""
    ignored: int
    """Gradients among them that do not count."""


def planned(n: int, gradients: list[Gradient], name: str) -> Timeline:
    """Return the plan of n workers."""
    places, slots = _places(gradients)
    sent, ignored = gradients[-1].sent, gradients[-1].ignored
    properties = Properties(
        n,
        1,
        name,
        num_slots=KEPT - 1 + slots,
        tags={"buffered"},
        traffic=Traffic(sent, sent - ignored, dropped=ignored),
        messages="group: a worker and the server",
    )
    return listed(_events(n, gradients, places), properties)


def _places(gradients: list[Gradient]) -> tuple[dict[int, int], int]:
    """Assign a slot to each model that is used when it is no longer the server's, from its making to its last use."""
    last_use: dict[int, int] = {}
    current = 0
    for number, gradient in enumerate(gradients):
        if gradient.version < current:
            last_use[gradient.version] = number
        current += gradient.last
    places: dict[int, int] = {}
    free: list[int] = []
    width = 0
    ends: dict[int, list[int]] = {}
    for version, number in last_use.items():
        ends.setdefault(number, []).append(version)
    made = 0

    def keep(version: int) -> None:
        nonlocal width
        if version in last_use:
            if not free:
                free.append(width)
                width += 1
            places[version] = free.pop()

    keep(0)
    for number, gradient in enumerate(gradients):
        free.extend(places[version] for version in ends.get(number, ()))
        if gradient.last:
            made += 1
            keep(made)
    return places, width


def _events(n: int, gradients: list[Gradient], places: dict[int, int]) -> dict[str, np.ndarray]:
    """Write each gradient as three groups: the server, the buffer, and the row that trains next."""
    total = 1 + len(gradients)
    worker = np.array([NOBODY] + [g.worker for g in gradients])
    weight = np.array([0.0] + [g.weight for g in gradients])
    last = np.array([False] + [g.last for g in gradients])
    version = np.array([0] + [g.version for g in gradients])
    made = np.cumsum(last)  # versions after each event
    before = made - last
    kept = np.array([KEPT + places.get(int(v), NOBODY - KEPT) for v in version])
    point = np.where(version == before, SERVER, kept)
    following = np.append(version[1:], -1)
    next_is_new = following == made
    next_is_old = (following >= 0) & ~next_is_new
    store = np.array([KEPT + places[v] if v in places else NOBODY for v in made.tolist()])
    store[1:][~last[1:]] = NOBODY

    members = np.full((total, 3, 4), NOBODY, np.int64)
    members[:, :2, :2], members[:, :2, 3] = (SERVER, BUFFER), WORK
    members[:, :2, 2] = point[:, None]
    members[:, 2, 0] = np.where(next_is_old, np.append(kept[1:], NOBODY), NOBODY)
    shares = np.zeros((total, 3, 4))
    shares[:, 0, 0] = 1.0
    shares[:, 0, 1] = np.where(last, -1.0, 0.0)
    shares[:, 0, 2], shares[:, 0, 3] = np.where(last, -weight, 0.0), np.where(last, weight, 0.0)
    shares[:, 1, 1] = np.where(last, 0.0, 1.0)
    shares[:, 1, 2], shares[:, 1, 3] = np.where(last, 0.0, weight), np.where(last, 0.0, -weight)
    shares[:, 2, 0] = next_is_old
    targets = np.full((total, 3, 3), NOBODY, np.int64)
    targets[:, 0, 0], targets[:, 0, 1] = SERVER, store
    targets[:, 0, 2] = np.where(next_is_new, WORK, NOBODY)
    targets[:, 1, 0] = BUFFER
    targets[:, 2, 0] = np.where(next_is_old, WORK, NOBODY)
    return {
        "time": np.array([0.0] + [g.time for g in gradients]),
        "nodes": worker[:, None],
        "rows": np.where(worker == NOBODY, NOBODY, WORK)[:, None],
        "members": members,
        "weights": shares,
        "targets": targets,
        "messages": _messages(n, gradients)[:, None],
    }


def _messages(n: int, gradients: list[Gradient]) -> np.ndarray:
    """Count the messages since the last update; models are sent at time 0 and at updates."""
    counted = np.array([n] + [g.sent for g in gradients], np.int64)
    return np.diff(np.maximum.accumulate(counted), prepend=0).astype(np.uint32)
