"""Output files and folders: checked before any work, and written completely or not at all."""

from __future__ import annotations

import os
import pathlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


def check_folder(name: str, folder: str | os.PathLike[str], *files: str) -> None:
    """Create a folder, and check that files can be written there.

    Args:
        name: argument or option that names the folder, for the message.
        folder: created if it is missing.
        files: names that will be written into it.

    Raises:
        ValueError: the folder cannot be created or written to, or one of the files exists as a folder.
    """
    target = pathlib.Path(folder)
    try:
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=target, prefix=".writable.") as file:
            file.write(b"x")
            file.flush()
    except OSError as error:
        reason = error.strerror or str(error)
        raise ValueError(f"{name} {target}: cannot be written to ({reason}); name a folder that can") from error
    for file_name in files:
        if (target / file_name).is_dir():
            raise ValueError(f"{name} {target / file_name}: is a folder, where a file must be written; remove it")


def check_file(name: str, path: str | os.PathLike[str]) -> None:
    """Check that a file can be written; its folder is created if it is missing.

    Raises:
        ValueError: the file cannot be written, see :func:`check_folder`.
    """
    target = pathlib.Path(path)
    if not target.name:
        raise ValueError(f"{name} {target}: must name a file")
    check_folder(name, target.parent, target.name)


@contextmanager
def replacing(target: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yield a temporary path beside the target; rename it to the target on success, remove it on failure."""
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=target.suffix, dir=target.parent)
    os.close(handle)
    temporary = pathlib.Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)  # files of mkstemp are readable only by their owner
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
