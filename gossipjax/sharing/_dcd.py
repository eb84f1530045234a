"""DCD-PSGD: nodes hold exact replicas of their neighbours' models, and models move by compressed differences."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Key, UInt

from gossipjax._base.calls import recorded
from gossipjax._base.placement import by_rows
from gossipjax.compress._compressor import Compressor, as_compressor, compress_rows
from gossipjax.facts import Requires
from gossipjax.mixing._apply import mix
from gossipjax.types import Event, Params, Sharing


class DCDState(NamedTuple):
    """The replica of a node's model that the node and all its neighbours hold."""

    replica: Params
    """The models after the last round, before any local step, leaves ``(n, ...)``."""


def check_unbiased(compressor: Compressor, scheme: str) -> None:
    """Raise ValueError if a compressor is biased, TypeError if it is not a compressor."""
    if not as_compressor(compressor).unbiased:
        raise ValueError(
            f"{compressor.name} is biased: {scheme} needs E Q(x) = x, since errors are never corrected; pass qsgd or "
            "random_k(unbiased=True), or use choco, which only needs a quality"
        )


def _init(x0: Params) -> DCDState:
    return DCDState(x0)


@by_rows
def _encode(
    compressor: Compressor, key: Key[Array, ""], state: DCDState, x_start: Params, x: Params, event: Event
) -> tuple[DCDState, tuple[Params, int | UInt[Array, " n"]]]:
    del x_start

    def difference(mixed: Array, trained: Array, replica: Array) -> Array:
        return (mixed - replica) + (trained - replica)

    change = jax.tree.map(difference, mix(event.mixing, state.replica), x, state.replica)
    return state, compress_rows(key, compressor, change, event)


@by_rows
def _merge(key: Key[Array, ""], state: DCDState, arrived: tuple[Params, Params, Event]) -> tuple[DCDState, Params]:
    del key
    _, message, _ = arrived
    x = jax.tree.map(jnp.add, state.replica, message)
    return DCDState(x), x


@recorded("tang2018compression")
def dcd(compressor: Compressor) -> Sharing:
    """Build DCD-PSGD, difference compression: nodes mix exact replicas, and apply only the compressed differences::

        h_i = Σ_j W_ij x_j + u_i                    u_i = −η g_i(x_i), the local steps
        z_i = h_i − x_i;   q_i = Q(z_i)             the message, to all neighbours
        x_i ← x_i + q_i                             by node i, and by its neighbours on their replicas

    If W is doubly stochastic, the mean is conserved in expectation, ``E x̄ ← x̄ + ū``, but not in each round. With ω =
    1 it is D-PSGD in the form of 2017, which takes gradients at the unmixed models. At a fixed point of D-PSGD, z and
    with it the noise vanish. Only mild compression is stable: without gradients, the mean square disagreement shrinks
    at least by the factor ``ρ² + v ‖I − W‖²`` per round if this is below 1.

    Replicas always equal the models, so one per node is stored. Neighbours are assumed to know the start models, even
    if these differ; their bits are not counted. The published algorithm is :func:`~gossipjax.dpsgd` with
    adapt-then-combine; with combine-then-adapt every local step reaches the replicas one round late.

    Args:
        compressor: Q, unbiased with a small variance v (:mod:`gossipjax.compress`).

    Raises:
        ValueError: if the compressor is biased; during a run, if the timeline is not synchronous rounds on one doubly
            stochastic matrix.

    Reference: Tang, Gan, Zhang, Zhang, Liu 2018, arXiv 1803.06443, algorithm 1.
    """
    check_unbiased(compressor, "DCD-PSGD")
    requires = Requires({"fixed", "synchronous", "doubly_stochastic"}, mixing=True, builder="timeline.rounds")
    return Sharing(Partial(_init), Partial(_encode, compressor), Partial(_merge), requires)
