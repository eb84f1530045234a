"""Peak memory of this process."""

from __future__ import annotations

import pathlib
import re
import resource
import sys


def peak_memory_bytes() -> int:
    """Return the largest resident set of this process since its program started.

    On Linux this is ``VmHWM``, not ``ru_maxrss``: the latter survives ``exec``, so that the child of a large process
    begins with the peak of its parent.
    """
    status = pathlib.Path("/proc/self/status")
    found = re.search(r"^VmHWM:\s+(\d+) kB", status.read_text(), re.MULTILINE) if status.exists() else None
    if found:
        return 1024 * int(found[1])
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else 1024 * used  # macOS counts bytes
