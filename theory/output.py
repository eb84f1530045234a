"""Places that results are written to: tried before the work that makes them, written whole or not at all."""

from __future__ import annotations

import os
import pathlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


def check_folder(name: str, folder: str | os.PathLike[str], *files: str) -> None:
    """Make a folder, and see that files can be written there.

    Args:
        name: of the argument or option that names the folder, for the message.
        folder: made if it is missing.
        files: names that will be written into it.

    Raises:
        ValueError: the folder cannot be made or written to, or a folder bears the name of a file.
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
    """See that a file can be written; its folder is made if it is missing.

    Raises:
        ValueError: it cannot, as :func:`check_folder` says.
    """
    target = pathlib.Path(path)
    if not target.name:
        raise ValueError(f"{name} {target}: must name a file")
    check_folder(name, target.parent, target.name)


@contextmanager
def replacing(target: pathlib.Path) -> Iterator[pathlib.Path]:
    """Give a temporary path beside the target; rename it to the target on success, remove it on failure."""
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=target.suffix, dir=target.parent)
    os.close(handle)
    temporary = pathlib.Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)  # mkstemp makes files that only the owner can read
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
