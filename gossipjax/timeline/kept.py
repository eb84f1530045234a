"""Timelines in files, to be run again elsewhere."""

from __future__ import annotations

import os
import pathlib

from gossipjax import files
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
    return files.save(timeline, path)


def load(path: str | os.PathLike[str]) -> Timeline:
    """Read a timeline that :func:`save` wrote: its run is the run of the original, bit for bit.

    Raises:
        ValueError: no such file, no timeline, or one of another version of this package.
    """
    timeline: Timeline = files.load(path, Timeline)
    return timeline
