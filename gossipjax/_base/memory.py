"""Estimates of memory before the work, so that what cannot fit is refused with advice, not killed."""

from __future__ import annotations

import os


def machine_bytes() -> int:
    """Return the main memory of this machine in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def check_memory(what: str, num_bytes: int | float, remedy: str) -> None:
    """Refuse work whose estimated memory exceeds that of the machine.

    Args:
        what: what takes the memory, with the arguments that decide it, such as ``"n=10⁶: the views of all nodes"``.
        num_bytes: estimate; infinity is legal.
        remedy: how to need less, ending the message.

    Raises:
        ValueError: the estimate exceeds the machine's memory.
    """
    available = machine_bytes()
    if num_bytes > available:
        raise ValueError(
            f"{what} would take about {num_bytes / 2**30:.3g} GiB of memory, and this machine has "
            f"{available / 2**30:.3g} GiB; {remedy}"
        )
