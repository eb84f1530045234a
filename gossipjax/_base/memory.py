"""An estimate before the work: what does not fit into memory is refused, instead of being killed by the system."""

from __future__ import annotations

import os
import pathlib

_ALWAYS_THERE = 2**25
"""Bytes for which asking the system costs more than it tells."""


def free_bytes() -> float:
    """Return how much memory this process can still take: of the machine, or of its control group if that is less."""
    limits = [_meminfo(), _control_group()]
    return min((limit for limit in limits if limit is not None), default=_physical())


def check_memory(what: str, num_bytes: int | float, remedy: str) -> None:
    """Refuse what needs more memory than is free.

    Args:
        what: argument, value and what takes the memory, such as ``"num_nodes=200000: the complete graph"``.
        num_bytes: estimated peak; infinity is legal.
        remedy: what to do instead, ending the message.

    Raises:
        ValueError: the estimate exceeds the free memory.
    """
    if num_bytes < _ALWAYS_THERE:
        return
    free = free_bytes()
    if num_bytes > free:
        needed, there = (f"{size / 2**30:.3g} GiB" for size in (num_bytes, free))
        raise ValueError(f"{what} would take about {needed} of memory, and {there} are free; {remedy}")


def _meminfo() -> float | None:
    try:
        lines = pathlib.Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return float(next(line for line in lines if line.startswith("MemAvailable")).split()[1]) * 1024
    except (OSError, StopIteration, ValueError):
        return None


def _control_group() -> float | None:
    """Memory that a container may still take, caches of files counted as free; None where nothing limits it."""
    folder = pathlib.Path("/sys/fs/cgroup")
    try:
        limit, used = (float((folder / name).read_text(encoding="ascii")) for name in ("memory.max", "memory.current"))
        lines = (folder / "memory.stat").read_text(encoding="ascii").splitlines()
        cached = sum(float(line.split()[1]) for line in lines if line.startswith("file "))
    except (OSError, ValueError):  # no such group, or the word "max"
        return None
    return max(limit - used + cached, 0.0)


def _physical() -> float:
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, OSError, ValueError):  # not known on this system: nothing is refused
        return float("inf")
