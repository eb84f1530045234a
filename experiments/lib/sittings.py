"""The sittings of a long run: who works on it, from where it goes on, and how long it took in all."""

from __future__ import annotations

import json
import pathlib
import shutil
import time
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.lib.kept import hash_of
from gossipjax._base.locks import Held, is_locked, take_lock
from theory.output import replacing


class Busy(ValueError):
    """Another process works on the same run."""


class Sittings:
    """A folder with the checkpoint of a run under way, its lock, and the times at which processes worked on it.

    A sitting that did not end by
    itself counts until its last checkpoint, for what came later is done again.
    """

    def __init__(self, folder: pathlib.Path, code: str, needed: Mapping[str, str | None] | None = None):
        """Name the folder of a run.

        Args:
            folder: of the checkpoint; its name is that of the run.
            code: digest of the code that makes it.
            needed: digests of the other runs that it is made from; a checkpoint of other code, or of other runs, is
                dropped.
        """
        self.folder, self.code = folder, code
        self._made_by = f"{code}-{hash_of(dict(needed))}" if needed else code
        self._lock: Any = None

    @property
    def checkpoint(self) -> pathlib.Path:
        """Where the run's state lies."""
        return self.folder / f"{self._made_by}.checkpoint"

    def __enter__(self) -> Sittings:
        """Begin a sitting.

        Raises:
            Busy: another process works on the run.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._lock = take_lock(self.folder / "lock")
        except Held as error:
            raise Busy(f"{self.folder.name} is in use by {error.holder}; wait for it to end") from None
        try:
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

    def is_busy(self) -> bool:
        """Whether a process works on the run now."""
        return is_locked(self.folder / "lock")

    def seconds(self) -> float:
        """Add up the sittings of this code and these needed runs so far; the present one until now."""
        ended = self._ended()
        if not self.is_busy():
            return sum(end - start for start, end in ended)
        return sum(end - start for start, end in ended[:-1]) + time.time() - ended[-1][0]

    def count(self) -> int:
        """Count them."""
        return len(self._ended())

    def _ended(self) -> list[list[float]]:
        """Read the sittings; each ends at the last checkpoint before the next began."""
        try:
            kept = json.loads((self.folder / "sittings.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return []
        if kept["made_by"] != self._made_by:
            return []
        times = kept["times"]
        if times and times[-1][1] is None:
            saved = [path.stat().st_mtime for path in self.checkpoint.glob("after-*.npz")]
            times[-1][1] = max([times[-1][0], *saved])
        return times

    def _write(self, times: Sequence[Sequence[float | None]]) -> None:
        with replacing(self.folder / "sittings.json") as temporary:
            temporary.write_text(json.dumps({"made_by": self._made_by, "times": times}), encoding="utf-8")
