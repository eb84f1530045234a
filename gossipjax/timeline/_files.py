"""Timelines in files, to be run again elsewhere."""

from __future__ import annotations

import os
import pathlib

from gossipjax._base import npz
from gossipjax._base.arguments import instance
from gossipjax._base.calls import recorded
from gossipjax.timeline._sound import check_loaded
from gossipjax.types import Timeline


def save(timeline: Timeline, path: str | os.PathLike[str]) -> pathlib.Path:
    """Write a timeline into one .npz file, whole or not at all.

    Args:
        timeline: of a builder of this package.
        path: ends in .npz; its folder exists.

    Returns:
        The path.

    Raises:
        ValueError: a wrong path, or a timeline with an ``event`` or ``draw`` of one's own, which cannot be kept.
    """
    instance("timeline", timeline, Timeline, "build one with gossipjax.timeline, such as rounds(W, 100)")
    return npz.save(timeline, path)


@recorded()
def load(path: str | os.PathLike[str], *, max_bytes: int | None = None) -> Timeline:
    """Read a timeline that :func:`save` wrote: its run is the run of the original, bit for bit.

    Args:
        path: of the file.
        max_bytes: that it may inflate to; None: 1 GiB, or 64 times the size of the file if that is more.

    Raises:
        ValueError: no such file, no timeline, one of another version of this package, one that was changed or
            contradicts itself, or one that inflates to more.
    """
    timeline: Timeline = npz.load(path, Timeline, max_bytes=max_bytes)
    return check_loaded(timeline, path)
