"""Several processes that do one run together: who they are, and what they must agree on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np

from gossipjax._base.arguments import shown, whole

T = TypeVar("T")
HEARTBEAT_SECONDS = 30
"""Seconds after which a process that stopped answering ends the run of all."""


def join(hosts: Any, started: bool) -> None:
    """Connect this process with the others.

    Args:
        hosts: True, where the cluster says who is there; or the address of process 0, the number of processes, and the
            number of this one.
        started: whether JAX has started.

    Raises:
        ValueError: something else.
        RuntimeError: JAX has started, or the others do not answer.
    """
    settings = {} if hosts is True else _settings(hosts)
    if jax.distributed.is_initialized():
        return
    if started:
        raise RuntimeError(
            "JAX has started: call gossipjax.configure(hosts=...) before the first JAX computation or array"
        )
    try:
        jax.distributed.initialize(**settings, heartbeat_timeout_seconds=HEARTBEAT_SECONDS)
    except ValueError as error:  # JAX found no cluster
        raise ValueError(
            "hosts=True: nothing here says which processes there are (Slurm, Kubernetes and TPU pods do); pass "
            "hosts=('address of process 0:port', number of processes, number of this process)"
        ) from error


def _settings(hosts: Any) -> dict[str, Any]:
    rule = "True, or ('address of process 0:port', number of processes, number of this process)"
    if not isinstance(hosts, tuple | list) or len(hosts) != 3 or not isinstance(hosts[0], str) or ":" not in hosts[0]:
        raise ValueError(f"hosts={shown(hosts)}: must be {rule}")
    number = whole("hosts[1]", hosts[1], least=1, remedy="the number of processes")
    own = whole("hosts[2]", hosts[2], least=0, most=number - 1, remedy="the number of this process")
    return {"coordinator_address": hosts[0], "num_processes": number, "process_id": own}


def several() -> bool:
    """Whether this process is one of several."""
    return process_count() > 1


def process_count() -> int:
    """Return the number of processes."""
    return jax.process_count() if jax.distributed.is_initialized() else 1


def is_first() -> bool:
    """Whether this process writes files: the only one, or process 0."""
    return not jax.distributed.is_initialized() or jax.process_index() == 0


def require_same(what: str, text: str) -> None:
    """Check that all processes were given the same.

    Raises:
        ValueError: on every process, if they were not.
    """
    if not several():
        return
    from jax.experimental import multihost_utils

    own = np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint32)
    each = np.asarray(multihost_utils.process_allgather(own)).reshape(-1, len(own))
    if len(different := np.flatnonzero((each != each[0]).any(axis=1))):
        raise ValueError(
            f"process {different[0]} was given another {what} than process 0: start the same program with the same "
            "arguments and data everywhere"
        )


def first_alone(work: Callable[[], T]) -> T | None:
    """Do something on process 0 while the others wait; None on the others.

    Raises:
        RuntimeError: on the others, if it failed on process 0, which raises the reason.
    """
    if not several():
        return work()
    from jax.experimental import multihost_utils

    result, error = None, None
    if is_first():
        try:
            result = work()
        except BaseException as failure:
            error = failure
    failed = bool(multihost_utils.broadcast_one_to_all(np.asarray(error is not None)))
    if error is not None:
        raise error
    if failed:
        raise RuntimeError("process 0 stopped before the run: its message says why")
    return result
