"""Locks of folders: one process works in a folder at a time, and others can look whether one does."""

from __future__ import annotations

import os
import pathlib
import socket
import time
from typing import TextIO

try:
    import fcntl
except ImportError:  # Windows has none: two processes in one folder are then not kept apart
    fcntl = None  # type: ignore[assignment]

TRIES, PAUSE_S = 10, 0.02
"""Who looks at a lock shares it for some microseconds, so a lock is held by others only if no try finds it free."""


class Held(Exception):
    """Another process holds the lock; ``holder`` says which."""

    def __init__(self, holder: str):
        super().__init__(holder)
        self.holder = holder


def take_lock(path: pathlib.Path) -> TextIO:
    """Take the lock of a folder, and write who holds it into its file.

    The system releases the lock when the file is closed, and when the process ends, even if it was killed.

    Args:
        path: file of the lock; created if it is missing.

    Raises:
        Held: another process holds it.
        OSError: the file cannot be written.
    """
    file = open(path, "a+", encoding="utf-8")
    try:
        if fcntl is not None and not _locked(file, fcntl.LOCK_EX, TRIES):
            file.seek(0)
            raise Held(file.read().strip() or "another process")
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
    except BaseException:
        file.close()
        raise
    return file


def is_locked(path: pathlib.Path) -> bool:
    """Whether a process, this one included, holds the lock; those who only look do not count."""
    if fcntl is None or not path.exists():
        return False
    with open(path, encoding="utf-8") as file:
        return not _locked(file, fcntl.LOCK_SH, 1)


def _locked(file: TextIO, how: int, tries: int) -> bool:
    for left in reversed(range(tries)):
        try:
            fcntl.flock(file, how | fcntl.LOCK_NB)
        except BlockingIOError:
            if left:
                time.sleep(PAUSE_S)
        else:
            return True
    return False
