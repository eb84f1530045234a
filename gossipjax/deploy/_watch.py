"""Decide which node to blame, from the heartbeats of all."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

from gossipjax.deploy._job import Waiting
from gossipjax.deploy._wire import HELLO

START_S = 300.0
"""Time without a sign of life, or of waiting for a connection, that a node has to start, import and compile, unless
``patience`` is longer."""

REMEDY = "raise patience if the machine is slow"


class NodeFailed(RuntimeError):
    """A node died, hung or fell behind; all processes of the run have ended.

    Attributes:
        node: its number.
        pid: of its process; 0 before it had one.
        reason: "died", "silent", "late" or "error".
        done: turns that each node had done when the run was given up.
    """

    def __init__(self, node: int, pid: int, reason: str, text: str, done: list[int]):
        """Describe a failure."""
        super().__init__(f"node {node} (pid {pid}) {text}; turns done by each node: {done}")
        self.node, self.pid, self.reason, self.done = node, pid, reason, done


@dataclasses.dataclass
class Life:
    """What the parent knows of a node."""

    heard_s: float
    """When it last gave a sign of life."""
    pid: int = 0
    done: int = 0
    waiting: Waiting | None = None
    waiting_since_s: float = 0.0
    running: bool = False
    """Whether it has begun its turns."""
    result: Any = None
    """What it reported at its end."""


def note_beat(life: Life, now: float, done: int, waiting: Waiting | None) -> None:
    """Record a heartbeat."""
    if waiting is None or waiting != life.waiting:
        life.waiting_since_s = now
    life.heard_s, life.done, life.waiting = now, done, waiting


def verdict(lives: list[Life], now: float, patience: float) -> tuple[int, str, str] | None:
    """Return the node to blame, the reason and its description; None as long as all is well.

    A node is silent if it gives no sign of life for longer than ``patience``, or than the time to start if it does not
    run yet. A node that waits for a message for so long accuses its sender; one that is accused, but waits itself,
    hands the blame on.
    """
    limits = [patience if life.running else max(START_S, patience) for life in lives]
    for node, life in enumerate(lives):
        if life.result is None and now - life.heard_s > limits[node]:
            state = _process_state(life.pid)
            return node, "silent", f"gave no sign of life for {now - life.heard_s:.1f} s{state}; {REMEDY}"
    for node, life in enumerate(lives):
        if life.result is None and life.waiting and now - life.waiting_since_s > limits[node]:
            return _accused(lives, node, now)
    return None


def _accused(lives: list[Life], first: int, now: float) -> tuple[int, str, str]:
    """Follow who waits for whom to the node that waits for nobody."""
    node, seen = first, {first}
    while (waiting := lives[node].waiting) is not None and lives[node].result is None:
        accuser, node = node, waiting.sender
        if node in seen:
            break
        seen.add(node)
    waiting = lives[accuser].waiting
    assert waiting is not None
    since = now - lives[accuser].waiting_since_s
    name = "connection" if waiting.message == HELLO else f"message {waiting.message}"
    return node, "late", f"is late: node {accuser} has waited {since:.1f} s for its {name}; {REMEDY}"


def _process_state(pid: int) -> str:
    """Say so if the system knows that a process is stopped."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # no such file, or no such process any more
        return ""
    return ": its process is stopped" if fields[0] == "T" else ""
