"""Files of timelines."""

from __future__ import annotations

import os
import pathlib

from gossipjax._base import npz
from gossipjax._base.arguments import instance
from gossipjax._base.calls import recorded
from gossipjax.timeline._sound import check_loaded
from gossipjax.types import Timeline


def save(timeline: Timeline, path: str | os.PathLike[str]) -> pathlib.Path:
    """Write a timeline to one .npz file; after an error, no partial file remains.

    Args:
        timeline: a timeline that a builder of this package made.
        path: path that ends in .npz, in an existing folder.

    Returns:
        The path.

    Raises:
        ValueError: if the path is wrong, or the timeline has your own ``event`` or ``draw``, which a file cannot hold.
    """
    instance("timeline", timeline, Timeline, "build one with gossipjax.timeline, such as rounds(W, 100)")
    return npz.save(timeline, path)


@recorded(file="path")
def load(path: str | os.PathLike[str], *, max_bytes: int | None = None) -> Timeline:
    """Read a timeline that :func:`save` wrote; its runs equal those of the original bit for bit.

    Args:
        path: of the file.
        max_bytes: largest decompressed size; None: 1 GiB, or 64 times the size of the file if that is more.

    Raises:
        ValueError: if the file does not exist, holds no timeline, comes from another version of this package, was
            changed, contradicts itself, or exceeds the limit.
    """
    timeline: Timeline = npz.load(path, Timeline, max_bytes=max_bytes)
    return check_loaded(timeline, path)
