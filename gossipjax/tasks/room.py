"""An estimate of memory before arrays are made: the kernel's killer says nothing."""

from __future__ import annotations

import os


def check_room(what: str, numbers: int, remedy: str) -> None:
    """Refuse arrays of 8-byte numbers that are larger than the memory of this machine.

    Args:
        what: is made, for the message.
        numbers: how many numbers lie in memory at once.
        remedy: what to make smaller.

    Raises:
        ValueError: they do not fit.
    """
    wanted, present = 8 * numbers, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if wanted > present:
        gib = f"{wanted / 2**30:.3g} GiB, more than the {present / 2**30:.3g} GiB of this machine"
        raise ValueError(f"{what} takes {gib}; {remedy}")
