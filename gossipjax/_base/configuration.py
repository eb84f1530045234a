"""Process-wide settings: CPU devices, threads, the width of floats, the cache of compiled programs, and hosts."""

from __future__ import annotations

import os

import jax

from gossipjax._base.arguments import flag, optional_whole
from gossipjax._base.hosts import join
from gossipjax._base.program_cache import set_cache


def configure(
    *,
    host_devices: int | None = None,
    intra_op_threads: int | None = None,
    x64: bool | None = None,
    cache: bool | str | os.PathLike[str] | None = None,
    hosts: bool | tuple[str, int, int] = False,
) -> None:
    """Set CPU devices, the threads of one operation, 64-bit floats, the cache of compiled programs, and other hosts.

    Nodes are sharded over CPU devices, so local training uses all cores with one device per core. Event scans are
    fastest with one device and one thread per operation: with more, XLA splits the small bodies of long loops over the
    threads, which is 7 times slower at 10⁶ scalar nodes.

    Devices and threads are fixed once JAX has started; a call with the same numbers then does nothing.

    Args:
        host_devices: number of CPU devices; None: one per core that this process may use, or unchanged once JAX has
            started.
        intra_op_threads: threads of XLA's CPU thread pool, shared by all CPU devices; None: unchanged.
        x64: whether JAX's default float is float64; None: unchanged.
        cache: folder of compiled programs, which later processes read instead of compiling again. True: the default
            folder of the user, one per version of JAX and kind of processor; False: no cache; None: unchanged. May be
            switched at any time. Without this call, the first run uses the default folder, unless JAX's own settings
            name another (``JAX_COMPILATION_CACHE_DIR``) or forbid it (``JAX_ENABLE_COMPILATION_CACHE=0``), or it
            cannot be written and locked. At 1 GiB, the least recently used programs are removed.
        hosts: connect this process with others, which do one run together on :func:`gossipjax.mesh`. True: on Slurm,
            Kubernetes and TPU pods, which say who is there. Elsewhere the address of process 0, the number of
            processes, and the number of this one: ``("127.0.0.1:1234", 2, 0)``. Call it before any array is made.

    Raises:
        ValueError: if a number is below 1, the folder of the cache cannot be used, or hosts are not known.
        TypeError: if the cache is neither a bool nor a path.
        RuntimeError: if JAX has already started with other numbers.
    """
    host_devices = optional_whole("host_devices", host_devices, least=1)
    intra_op_threads = optional_whole("intra_op_threads", intra_op_threads, least=1)
    if x64 is not None:
        flag("x64", x64)
    if hosts is not False:
        hosts = flag("hosts", hosts) if isinstance(hosts, bool) else hosts
    if cache is not None:
        set_cache(cache)
    started = _has_started()
    if host_devices is not None or not started:
        _set_devices(usable_cores() if host_devices is None else host_devices, started)
    if intra_op_threads is not None:
        _set_threads(intra_op_threads, started)
    if x64 is not None:
        jax.config.update("jax_enable_x64", x64)
    if hosts is not False:
        join(hosts, started)


def usable_cores() -> int:
    """Count the cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _has_started() -> bool:
    # JAX has no public function for this, but it rejects a new number of devices once it has started.
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
    # XLA's CPU client reads NPROC once, when it starts; jax.config has no option for its thread pool.
    if not started:
        os.environ["NPROC"] = str(count)
    elif int(os.environ.get("NPROC", usable_cores())) != count:
        running = os.environ.get("NPROC", f"{usable_cores()} (one per core)")
        raise RuntimeError(_too_late(f"{running} thread(s), intra_op_threads={count} was asked for"))


def _too_late(facts: str) -> str:
    return f"JAX has started with {facts}: call gossipjax.configure before the first JAX computation"
