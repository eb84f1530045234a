"""Compiled programs on disk: JAX's own cache, in a folder of the user, with a lock and a limit of its size."""

from __future__ import annotations

import hashlib
import os
import pathlib
import platform
from typing import Any

import filelock
import jax
import jaxlib
from jax.experimental.compilation_cache import compilation_cache

from gossipjax._base.arguments import instance
from gossipjax._base.paths import cache_folder

LIMIT_BYTES = 2**30
"""Above this size of a folder, JAX removes the least recently used programs."""
SHORTEST_SECONDS = 0.1
"""Programs that compile faster are not kept. JAX's own threshold is a second, and few of ours take that long."""
SETTINGS = {
    "jax_compilation_cache_max_size": (-1, LIMIT_BYTES),
    "jax_persistent_cache_min_compile_time_secs": (1.0, SHORTEST_SECONDS),
}
"""JAX's own default of a setting, and ours in its place. A user's other value is kept."""
PATIENCE_SECONDS = 1.0
"""How long to wait for the lock of a folder; where locks do not work, there is no cache."""

_decided = False


def programs_folder() -> pathlib.Path:
    """Return the default folder, inside the cache folder that ``GOSSIPJAX_CACHE`` sets.

    Its name holds the versions of JAX and a hash of the processor's features, because programs are machine code and
    JAX's own key lacks them: a home folder may be shared by different machines.
    """
    name = f"jax-{jax.__version__}-jaxlib-{jaxlib.__version__}-{_processor()}"
    return cache_folder().absolute() / "programs" / name


def _processor() -> str:
    """Return the architecture, and a hash of the processor's model and features."""
    known = [platform.machine(), platform.processor()]
    facts = pathlib.Path("/proc/cpuinfo")
    if facts.exists():
        names = ("model name", "flags", "Features", "CPU part")
        lines = facts.read_text(encoding="utf-8", errors="replace").splitlines()
        known += sorted({line for line in lines if line.startswith(names)})
    return f"{known[0]}-{hashlib.sha256(repr(known).encode()).hexdigest()[:12]}"


def set_cache(cache: Any) -> None:
    """Use the default folder (True), another one, or no cache (False).

    Raises:
        TypeError: if the cache is neither a bool nor a path.
        ValueError: if the parent folder of the cache does not exist, or the folder cannot be written and locked.
    """
    global _decided
    folder: pathlib.Path | None = None
    if isinstance(cache, bool):
        folder = programs_folder() if cache else None
    else:
        instance("cache", cache, (str, os.PathLike), "pass True, False or a folder")
        folder = pathlib.Path(cache).expanduser().absolute()
        if not folder.parent.is_dir() or (folder.exists() and not folder.is_dir()):
            raise ValueError(f"cache={str(cache)!r}: must be a folder whose parent exists; make {folder.parent} first")
    try:
        _use(folder)
    except (OSError, filelock.Timeout) as error:
        raise ValueError(
            f"cache={cache!r}: {folder} cannot be written and locked ({error}); pass another folder, or False"
        ) from error
    _decided = True


def use_default_cache() -> None:
    """Use the default folder, once, unless a cache was chosen before or the folder cannot be written and locked."""
    global _decided
    if _decided:
        return
    _decided = True
    chosen = jax.config.jax_compilation_cache_dir is not None  # type: ignore[attr-defined]
    if chosen or not jax.config.jax_enable_compilation_cache:  # type: ignore[attr-defined]
        return
    try:
        _use(programs_folder())
    except (OSError, filelock.Timeout):
        return


def _use(folder: pathlib.Path | None) -> None:
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_unfinished(folder)
        for name, (of_jax, ours) in SETTINGS.items():
            if getattr(jax.config, name) == of_jax:
                jax.config.update(name, ours)
    jax.config.update("jax_compilation_cache_dir", None if folder is None else str(folder))
    compilation_cache.reset_cache()  # JAX reads the setting only once


def _remove_unfinished(folder: pathlib.Path) -> None:
    """Remove programs whose writer was killed. JAX writes the time of use of a program after it, under the lock."""
    with filelock.FileLock(folder / ".lockfile", timeout=PATIENCE_SECONDS):
        for program in folder.glob("*-cache"):
            if not program.with_name(program.name.removesuffix("-cache") + "-atime").exists():
                program.unlink()
