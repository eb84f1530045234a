"""Estimates of memory, so that what cannot fit is refused before the work instead of being killed in the middle."""

from __future__ import annotations

import pathlib

import jax

_CGROUP = pathlib.Path("/sys/fs/cgroup")


def check(needed: int, what: str, remedy: str) -> None:
    """Refuse what needs more memory than the device has left.

    Args:
        needed: bytes, a lower bound.
        what: needs them, beginning the message.
        remedy: ending it.

    Raises:
        ValueError: it cannot fit.
    """
    left = available()
    if left is not None and needed > left:
        raise ValueError(
            f"{what} needs at least {needed:,} bytes ({needed / 1e9:.1f} GB) but {left:,} ({left / 1e9:.1f} GB) are "
            f"available; {remedy}"
        )


def available() -> int | None:
    """Return the bytes that the default device, or for a CPU the machine, still has; None where nothing says it."""
    device = jax.local_devices()[0]
    if device.platform != "cpu":
        stats = device.memory_stats() or {}
        return stats["bytes_limit"] - stats["bytes_in_use"] if "bytes_limit" in stats else None
    found = [left for left in (_machine(), _container()) if left is not None]
    return min(found) if found else None


def _machine() -> int | None:
    try:
        lines = pathlib.Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None  # not Linux
    kilobytes = [int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    return 1024 * kilobytes[0] if kilobytes else None


def _container() -> int | None:
    """What a container's limit leaves. Files that the system keeps in memory count as free: they go when needed."""
    try:
        limit = int((_CGROUP / "memory.max").read_text())
        used = int((_CGROUP / "memory.current").read_text())
        kept = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None  # no limit, or none that is told
    return max(0, limit - used + int(kept.get("inactive_file", 0)) + int(kept.get("active_file", 0)))
