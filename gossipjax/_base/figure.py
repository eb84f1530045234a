"""A figure that notebooks show, and its way into a file."""

from __future__ import annotations

import io
import os
import pathlib
from typing import Any

import matplotlib.figure

from gossipjax._base.arguments import instance
from gossipjax._base.paths import replacing

_SCREEN = 96
"""Pixels an inch of a page in a browser, whatever the picture's own resolution."""


class Figure(matplotlib.figure.Figure):
    """A Matplotlib figure that a notebook shows as a picture, whether or not ``pyplot`` and its backend are in use.

    Nothing else knows of it, so there is nothing to close.
    """

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        """Return the picture, and its size on the page, as Jupyter asks for it."""
        stream = io.BytesIO()
        self.savefig(stream, format="png")
        width, height = (round(_SCREEN * float(inches)) for inches in self.get_size_inches())
        return stream.getvalue(), {"width": width, "height": height}


def check_path(path: Any) -> pathlib.Path | None:
    """Return where a picture is to be written, or None.

    Args:
        path: its ending chooses the format; without one: PNG.

    Raises:
        TypeError: not a path.
        ValueError: an ending that Matplotlib has no format for, or a folder that does not exist.
    """
    if path is None:
        return None
    instance("path", path, (str, os.PathLike), "give the name of a file, such as 'run.png', or None")
    target = pathlib.Path(path)
    if target.is_dir():
        raise ValueError(f"path={str(path)!r}: is a folder; name a file in it")
    known = Figure().canvas.get_supported_filetypes()
    if _format(target) not in known:
        raise ValueError(f"path={str(path)!r}: its ending must be one of {', '.join(sorted(known))}")
    if not target.parent.is_dir():
        raise ValueError(f"path={str(path)!r}: there is no folder {target.parent}; make it first")
    return target


def write(figure: matplotlib.figure.Figure, path: pathlib.Path, *, dpi: int) -> None:
    """Write a picture, first into memory and under a temporary name, so that a failure leaves an earlier file whole."""
    picture = io.BytesIO()
    figure.savefig(picture, dpi=dpi, format=_format(path))
    with replacing(path) as temporary:
        temporary.write_bytes(picture.getbuffer())


def _format(path: pathlib.Path) -> str:
    return path.suffix.lstrip(".").lower() or "png"
