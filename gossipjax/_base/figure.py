"""Figures that notebooks show, and writing them to files."""

from __future__ import annotations

import io
import os
import pathlib
from typing import Any

import matplotlib.figure

from gossipjax._base.arguments import instance
from gossipjax._base.paths import replacing

_SCREEN = 96
"""Pixels per inch at which a browser shows the picture, independent of its resolution."""


class Figure(matplotlib.figure.Figure):
    """A Matplotlib figure that a notebook shows as a picture, with or without ``pyplot``.

    ``pyplot`` does not register it, so it need not be closed.
    """

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        """Return the picture and its size on the page, in Jupyter's format."""
        stream = io.BytesIO()
        self.savefig(stream, format="png")
        width, height = (round(_SCREEN * float(inches)) for inches in self.get_size_inches())
        return stream.getvalue(), {"width": width, "height": height}


def check_path(path: Any) -> pathlib.Path | None:
    """Check the path of a picture, or None, and return it.

    Args:
        path: its suffix chooses the format; PNG without a suffix.

    Raises:
        TypeError: if path is not a path.
        ValueError: if Matplotlib does not know the suffix, or the folder does not exist.
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
    """Write a picture by way of memory and a temporary file, so that a failure keeps an earlier file intact."""
    picture = io.BytesIO()
    figure.savefig(picture, dpi=dpi, format=_format(path))
    with replacing(path) as temporary:
        temporary.write_bytes(picture.getbuffer())


def _format(path: pathlib.Path) -> str:
    return path.suffix.lstrip(".").lower() or "png"
