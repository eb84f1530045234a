"""Process-wide settings: CPU devices, threads, the width of floats, and the cache of compiled programs."""

from __future__ import annotations

import hashlib
import os
import pathlib
import platform
from typing import Any

import jax
import jaxlib
from jax.experimental.compilation_cache import compilation_cache

from gossipjax._base.arguments import flag, instance, optional_whole
from gossipjax._base.paths import cache_folder


def configure(
    *,
    host_devices: int | None = None,
    intra_op_threads: int | None = None,
    x64: bool | None = None,
    cache: bool | str | os.PathLike[str] | None = None,
) -> None:
    """Set the number of CPU devices, the threads of one operation, 64-bit floats, and a cache of compiled programs.

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
            switched at any time. JAX never empties the folder: delete it yourself. Off by default: with JAX 0.10.2 on
            a CPU, writing a program once crashed the process.

    Raises:
        ValueError: if a number is below 1, or the parent folder of the cache does not exist.
        TypeError: if the cache is not a path.
        RuntimeError: if JAX has already started with other numbers.
    """
    host_devices = optional_whole("host_devices", host_devices, least=1)
    intra_op_threads = optional_whole("intra_op_threads", intra_op_threads, least=1)
    if x64 is not None:
        flag("x64", x64)
    if cache is not None:
        _set_cache(cache)
    started = _has_started()
    if host_devices is not None or not started:
        _set_devices(usable_cores() if host_devices is None else host_devices, started)
    if intra_op_threads is not None:
        _set_threads(intra_op_threads, started)
    if x64 is not None:
        jax.config.update("jax_enable_x64", x64)


def programs_folder() -> pathlib.Path:
    """Return the folder that ``cache=True`` uses, inside the cache folder that ``GOSSIPJAX_CACHE`` sets.

    Its name holds the versions of JAX and a hash of the processor's features, because programs are machine code and
    JAX's own key lacks them: a home folder may be shared by different machines.
    """
    name = f"jax-{jax.__version__}-jaxlib-{jaxlib.__version__}-{_processor()}"
    return cache_folder() / "programs" / name


def _processor() -> str:
    """Return the architecture, and a hash of the processor's model and features."""
    known = [platform.machine(), platform.processor()]
    facts = pathlib.Path("/proc/cpuinfo")
    if facts.exists():
        names = ("model name", "flags", "Features", "CPU part")
        lines = facts.read_text(encoding="utf-8", errors="replace").splitlines()
        known += sorted({line for line in lines if line.startswith(names)})
    return f"{known[0]}-{hashlib.sha256(repr(known).encode()).hexdigest()[:12]}"


def _set_cache(cache: Any) -> None:
    folder: pathlib.Path | None = None
    if isinstance(cache, bool):
        folder = programs_folder() if cache else None
    else:
        instance("cache", cache, (str, os.PathLike), "pass True, False or a folder")
        folder = pathlib.Path(cache).expanduser().absolute()
        if not folder.parent.is_dir() or (folder.exists() and not folder.is_dir()):
            raise ValueError(f"cache={str(cache)!r}: must be a folder whose parent exists; make {folder.parent} first")
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        # Most of a run's many programs compile in less than JAX's threshold of a second.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    jax.config.update("jax_compilation_cache_dir", None if folder is None else str(folder))
    compilation_cache.reset_cache()  # JAX reads the setting only once


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
