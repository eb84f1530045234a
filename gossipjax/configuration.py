"""What must be decided before JAX starts: the number of CPU devices, of threads, and the width of floats."""

from __future__ import annotations

import os

import jax


def configure(*, host_devices: int | None = None, intra_op_threads: int | None = None, x64: bool | None = None) -> None:
    """Set the number of CPU devices, the threads within one operation, and 64-bit floats.

    Nodes are spread over CPU devices (:mod:`gossipjax.spread`), so local training needs one device per core to use
    them all. Event scans want one device and one thread per operation: otherwise XLA splits the small bodies of long
    loops over the threads, 7 times slower at 10⁶ scalar nodes.

    Once JAX has started, devices and threads are fixed: a call that asks for what is already there does nothing.

    Args:
        host_devices: number of CPU devices; None: one for each core that this process may use, or those that run.
        intra_op_threads: threads of XLA's CPU thread pool, shared by all CPU devices; None: leave as it is.
        x64: whether JAX's default float is float64; None: leave as it is.

    Raises:
        ValueError: a number below 1.
        RuntimeError: JAX has already started with other numbers.
    """
    for name, value in (("host_devices", host_devices), ("intra_op_threads", intra_op_threads)):
        if value is not None and value < 1:
            raise ValueError(f"{name}={value} must be at least 1")
    started = _has_started()
    if host_devices is not None or not started:
        _set_devices(usable_cores() if host_devices is None else host_devices, started)
    if intra_op_threads is not None:
        _set_threads(intra_op_threads, started)
    if x64 is not None:
        jax.config.update("jax_enable_x64", x64)


def usable_cores() -> int:
    """Count the cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _has_started() -> bool:
    # JAX has no public word for it, but it refuses another number of devices from then on.
    devices = jax.config.jax_num_cpu_devices  # type: ignore[attr-defined]
    try:
        jax.config.update("jax_num_cpu_devices", devices + 1)
    except RuntimeError:
        return True
    jax.config.update("jax_num_cpu_devices", devices)
    return False


def _set_devices(count: int, started: bool) -> None:
    if not started:
        jax.config.update("jax_num_cpu_devices", count)
    elif (running := len(jax.local_devices(backend="cpu"))) != count:
        raise RuntimeError(_too_late(f"{running} CPU device(s), host_devices={count} was asked for"))


def _set_threads(count: int, started: bool) -> None:
    # XLA's CPU client reads NPROC once, when it starts; no option of jax.config sets its thread pool.
    if not started:
        os.environ["NPROC"] = str(count)
    elif int(os.environ.get("NPROC", usable_cores())) != count:
        running = os.environ.get("NPROC", f"{usable_cores()} (one per core)")
        raise RuntimeError(_too_late(f"{running} thread(s), intra_op_threads={count} was asked for"))


def _too_late(facts: str) -> str:
    return f"JAX has started with {facts}: call gossipjax.configure before the first JAX computation"
