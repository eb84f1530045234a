"""Memory estimates: reject work that does not fit, before the system kills the process."""

from __future__ import annotations

import os
import pathlib
from typing import Any, NamedTuple

import jax

_ALWAYS_THERE = 2**25
"""Bytes below which a check is not worth its cost."""


def free_bytes() -> float:
    """Return the bytes of memory that this process can still allocate, on the machine and within its control group."""
    limits = [_meminfo(), _control_group()]
    return min((limit for limit in limits if limit is not None), default=_physical())


def check_memory(what: str, num_bytes: int | float, remedy: str) -> None:
    """Check that an allocation fits into the free memory.

    Args:
        what: argument, value and object for the message, such as ``"num_nodes=200000: the complete graph"``.
        num_bytes: estimated peak; infinity is legal.
        remedy: what to do instead, as the end of the message.

    Raises:
        ValueError: if the estimate exceeds the free memory.
    """
    if is_large(num_bytes):
        _refuse(what, num_bytes, free_bytes(), remedy)


def is_large(num_bytes: int | float) -> bool:
    """Whether an array is so large that it is worth a check."""
    return bool(num_bytes >= _ALWAYS_THERE)


def free_device_bytes() -> float:
    """Return the free memory of JAX's default device; on a CPU, that of the process."""
    device = jax.local_devices()[0]
    if device.platform == "cpu":
        return free_bytes()
    stats = device.memory_stats() or {}
    return float(stats["bytes_limit"] - stats["bytes_in_use"]) if "bytes_limit" in stats else float("inf")


def check_device_memory(what: str, num_bytes: int | float, remedy: str) -> None:
    """Check that arrays fit into the free memory of JAX's default device; arguments as :func:`check_memory`.

    Raises:
        ValueError: if the estimate exceeds the free memory.
    """
    if is_large(num_bytes):
        _refuse(what, num_bytes, free_device_bytes(), remedy)


class Footprint(NamedTuple):
    """Bytes of a compiled program: on all CPU devices together, which share one memory; elsewhere on one device."""

    total: int
    """Arguments, results, temporaries and code."""
    new: int
    """What is not there before a call: all but the arguments and the results that take their place."""


def footprint(program: Any) -> Footprint:
    """Return the bytes that a compiled program, ``jax.jit(f).lower(...).compile()``, needs while it runs."""
    sizes = program.memory_analysis()
    if sizes is None:  # a backend that does not tell
        return Footprint(0, 0)
    copies = _devices_of_one_memory(program)
    results = sizes.output_size_in_bytes - sizes.alias_size_in_bytes
    new = copies * (results + sizes.temp_size_in_bytes) + sizes.generated_code_size_in_bytes
    return Footprint(new + copies * sizes.argument_size_in_bytes, new)


def _devices_of_one_memory(program: Any) -> int:
    """Count the devices of a program whose memory is that of this process: all its CPU devices, or one accelerator."""
    if jax.default_backend() != "cpu":
        return 1
    shardings = jax.tree.leaves((program.input_shardings, program.output_shardings))
    return max(
        (sum(device.process_index == jax.process_index() for device in each.device_set) for each in shardings),
        default=1,
    )


def _refuse(what: str, num_bytes: int | float, free: float, remedy: str) -> None:
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
    """Return the bytes that a container may still allocate, with file caches as free; None without a limit."""
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
    except (AttributeError, OSError, ValueError):  # unknown on this system: accept everything
        return float("inf")
