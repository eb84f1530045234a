"""Start a project: a copy of the small study in the folder ``study``, which runs as it stands."""

from __future__ import annotations

import os
import pathlib
import shutil
import tempfile

STUDY = pathlib.Path(__file__).parent / "study"


def new(folder: str | os.PathLike[str]) -> pathlib.Path:
    """Write a small study into a new folder: a protocol, an experiment, a figure, a test and a README.

    Args:
        folder: to make; its parent must exist.

    Returns:
        The folder.

    Raises:
        ValueError: if the folder exists and is not empty, or its parent does not exist.
        OSError: if the folder cannot be written.
    """
    path = pathlib.Path(folder).expanduser().resolve()
    if not path.parent.is_dir():
        raise ValueError(f"folder={str(folder)!r}: its parent does not exist; make {path.parent} first")
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ValueError(f"folder={str(folder)!r}: exists already and is not an empty folder; choose another name")
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".new-") as made:
        whole = pathlib.Path(made) / "study"
        shutil.copytree(STUDY, whole, ignore=shutil.ignore_patterns("__pycache__"))
        readme = whole / "README.md"
        readme.write_text(readme.read_text(encoding="utf-8").replace("NAME", path.name), encoding="utf-8")
        if path.exists():  # it may be the working directory
            for file in whole.iterdir():
                file.replace(path / file.name)
        else:
            whole.replace(path)
    return path
