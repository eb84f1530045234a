"""Places that results are written to, tried before the work that makes them."""

from __future__ import annotations

import os
import pathlib
import tempfile


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
