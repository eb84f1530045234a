"""What the parent tells its nodes, and what they answer. Both travel over pipes between processes of one user."""

from __future__ import annotations

import dataclasses
import io
import pickle
import pickletools
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, PyTree

from gossipjax._base.arguments import shown
from gossipjax.deploy._programs import Plan
from gossipjax.deploy._wire import Codec
from gossipjax.types import Protocol, Timeline


@dataclasses.dataclass(frozen=True)
class Job:
    """A run of n nodes; every node gets the whole of it, and takes its part."""

    key_data: np.ndarray
    key_kind: str
    protocol: Protocol
    timeline: Timeline
    """Without its events, which are in the plan."""
    x0: PyTree[np.ndarray]
    """Stacked models of all nodes."""
    plan: Plan
    codec: Codec
    token: bytes
    addresses: tuple[str, ...]
    bytes_per_second: Float[np.ndarray, " n"]
    latency_seconds: Float[np.ndarray, " n"]
    compute_seconds: Float[np.ndarray, " n"] | None
    overlap: bool
    time_scale: float

    @property
    def num_nodes(self) -> int:
        """Number of nodes."""
        return len(self.addresses)


class Waiting(NamedTuple):
    """A message for which a node waits."""

    message: int
    sender: int


class Beat(NamedTuple):
    """A sign of life: turns that a node has done, and what it waits for."""

    done: int
    waiting: Waiting | None


class Result(NamedTuple):
    """What a node has done.

    Attributes:
        x: its model, the leaves in order.
        end_s: simulated seconds at which each of its turns ended.
        born_s: at which each was ready to send.
        loss: of each turn; NaN where it did not train.
        bits: bits of all messages that left in each turn.
        sent: messages that it has sent to each node.
        received: messages that it has received from each node.
        wire_bytes: bytes of the bodies that it has sent.
        refused: messages that were none of this run's, or that it did not expect.
    """

    x: list[np.ndarray]
    end_s: np.ndarray
    born_s: np.ndarray
    loss: np.ndarray
    bits: np.ndarray
    sent: np.ndarray
    received: np.ndarray
    wire_bytes: int
    refused: int


_CONFIG = (
    "jax_enable_x64",
    "jax_default_prng_impl",
    "jax_threefry_partitionable",
    "jax_default_matmul_precision",
    "jax_numpy_dtype_promotion",
    "jax_numpy_rank_promotion",
)


def config() -> dict[str, Any]:
    """Return the settings of JAX on which numbers depend."""
    return {name: getattr(jax.config, name) for name in _CONFIG}


def read_job(written: bytes) -> Job:
    """Read a job in a process that has started no computation; set JAX up first, since arrays need it."""
    stream = io.BytesIO(written)
    for name, value in pickle.load(stream).items():
        jax.config.update(name, value)
    return pickle.load(stream)


def write_job(job: Job) -> bytes:
    """Pickle the settings of JAX, and a job, for processes that this one starts.

    Raises:
        ValueError: if a part cannot be sent to another process.
    """
    remedy = (
        "define functions in a module that can be imported, and pass optimizers as Partial(optax.sgd, 0.1) rather than "
        "optax.sgd(0.1)"
    )
    try:
        written = pickle.dumps(job, protocol=4)  # genops reads it fast: arrays are one operation
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ValueError(f"protocol={shown(job.protocol)}: cannot be sent to a process ({error}); {remedy}") from error
    if any(argument == "__main__" for _, argument, _ in pickletools.genops(written)):
        raise ValueError(f"protocol={shown(job.protocol)}: uses functions of a script or notebook; {remedy}")
    return pickle.dumps(config()) + written
