"""The sittings of a long run: who works on it, from where it goes on, and how long it took in all."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import socket
import time
from collections.abc import Sequence
from typing import Any

from theory.output import replacing

try:
    import fcntl
except ImportError:  # Windows has none: two processes on one run are then not kept apart
    fcntl = None  # type: ignore[assignment]


class Busy(ValueError):
    """Another process works on the same run."""


class Sittings:
    """A folder with the checkpoint of a run under way, its lock, and the times at which processes worked on it.

    The system releases the lock when its process ends, even if the process was killed. A sitting that did not end by
    itself counts until its last checkpoint, for what came later is done again.
    """

    def __init__(self, folder: pathlib.Path, code: str):
        """Name the folder of a run, made by code of this digest; checkpoints of other code are not gone on with."""
        self.folder, self.code = folder, code
        self._lock: Any = None

    @property
    def checkpoint(self) -> pathlib.Path:
        """Where the run's state lies."""
        return self.folder / f"{self.code}.checkpoint"

    def __enter__(self) -> Sittings:
        """Begin a sitting.

        Raises:
            Busy: another process works on the run.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = open(self.folder / "lock", "a+", encoding="utf-8")
        try:
            self._take_lock()
            for other in set(self.folder.glob("*.checkpoint")) - {self.checkpoint}:
                shutil.rmtree(other, ignore_errors=True)
            self._write([*self._ended(), [time.time(), None]])
        except BaseException:
            self._lock.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        """Let others work on the run."""
        self._lock.close()

    def _take_lock(self) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.seek(0)
            holder = self._lock.read().strip() or "another process"
            raise Busy(f"{self.folder.name} is in use by {holder}; wait for it to end") from None
        self._lock.truncate(0)
        self._lock.write(f"process {os.getpid()} on {socket.gethostname()}")
        self._lock.flush()

    def is_busy(self) -> bool:
        """Whether a process works on the run now."""
        if fcntl is None or not (self.folder / "lock").exists():
            return False
        with open(self.folder / "lock", "a", encoding="utf-8") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def seconds(self) -> float:
        """Add up the sittings of this code so far; the present one until now."""
        ended = self._ended()
        if not self.is_busy():
            return sum(end - start for start, end in ended)
        return sum(end - start for start, end in ended[:-1]) + time.time() - ended[-1][0]

    def count(self) -> int:
        """Count the sittings of this code."""
        return len(self._ended())

    def _ended(self) -> list[list[float]]:
        """Read the sittings; each ends at the last checkpoint before the next began."""
        try:
            kept = json.loads((self.folder / "sittings.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return []
        if kept["code"] != self.code:
            return []
        times = kept["times"]
        if times and times[-1][1] is None:
            saved = [path.stat().st_mtime for path in self.checkpoint.glob("after-*.npz")]
            times[-1][1] = max([times[-1][0], *saved])
        return times

    def _write(self, times: Sequence[Sequence[float | None]]) -> None:
        with replacing(self.folder / "sittings.json") as temporary:
            temporary.write_text(json.dumps({"code": self.code, "times": times}), encoding="utf-8")
