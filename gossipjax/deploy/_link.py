"""The links of the nodes: how fast a node sends, and how long its messages are on the way."""

from __future__ import annotations

import dataclasses

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float

from gossipjax._base.arguments import reals


@dataclasses.dataclass(frozen=True, eq=False)
class Link:
    """The uplinks of the nodes.

    A node sends one burst after another: the messages of one event share its uplink equally and leave together, when
    their bytes have passed at ``bytes_per_second``. They arrive ``latency_seconds`` later.

    Attributes:
        bytes_per_second: rate of each node, > 0; a number, or one per node ``(n,)``; infinite: no limit.
        latency_seconds: of each sender's messages, ≥ 0; a number, or one per node.

    Raises:
        ValueError: a number out of range, or an array that is not a vector.
    """

    bytes_per_second: ArrayLike = np.inf
    latency_seconds: ArrayLike = 0.0

    def __post_init__(self) -> None:
        """Check the numbers."""
        rate = reals("bytes_per_second", self.bytes_per_second, above=0, unit="bytes per second", infinite=True)
        latency = reals("latency_seconds", self.latency_seconds, least=0, unit="seconds")
        for name, numbers in (("bytes_per_second", rate), ("latency_seconds", latency)):
            if numbers.ndim > 1 or not numbers.size:
                raise ValueError(f"{name} of shape {numbers.shape}: pass one number, or one per node")
            object.__setattr__(self, name, numbers)


def each_node(name: str, numbers: Float[np.ndarray, "..."], num_nodes: int) -> Float[np.ndarray, " n"]:
    """Return one number per node.

    Raises:
        ValueError: if there is neither one number nor one for each node.
    """
    if numbers.shape not in ((), (1,), (num_nodes,)):
        raise ValueError(f"{name} of shape {numbers.shape}: pass one number, or {num_nodes}, one per node")
    return np.broadcast_to(numbers, (num_nodes,)).astype(np.float64)
