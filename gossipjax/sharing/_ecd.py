"""ECD-PSGD: compressed extrapolations, with which the noise of the neighbours' estimates decreases as 1/t."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float, Key, UInt

from gossipjax._base.calls import recorded
from gossipjax._base.placement import by_rows
from gossipjax._base.rows import scale_rows
from gossipjax.compress._compressor import Compressor, compress_rows
from gossipjax.facts import Requires
from gossipjax.mixing._apply import mix
from gossipjax.sharing._dcd import check_unbiased
from gossipjax.types import Event, Params, Sharing


class ECDState(NamedTuple):
    """The neighbours' estimates of the models, and the models themselves."""

    estimate: Params
    """y, leaves ``(n, ...)`` like the models."""
    model: Params
    """x of the last round, before any local step; between encoding and merging, that of this round."""


def _round(event: Event) -> Float[Array, ""]:
    """Count the rounds from 1."""
    return event.index[0].astype(jnp.result_type(float)) + 1.0


def _init(x0: Params) -> ECDState:
    return ECDState(x0, x0)


def _combine(a: Float[Array, ""], x: Params, y: Params) -> Params:
    """Compute ``(1 − a) x + a y``, also for a > 1."""
    return jax.tree.map(jnp.add, scale_rows(1.0 - a, x), scale_rows(a, y))


@by_rows
def _encode(
    compressor: Compressor, key: Key[Array, ""], state: ECDState, x_start: Params, x: Params, event: Event
) -> tuple[ECDState, tuple[Params, int | UInt[Array, " n"]]]:
    del x_start
    mixed = mix(event.mixing, state.estimate)
    new = jax.tree.map(lambda mixed, trained, old: mixed + (trained - old), mixed, x, state.model)
    message = compress_rows(key, compressor, _combine(_round(event) / 2.0, state.model, new), event)
    return ECDState(state.estimate, new), message


@by_rows
def _merge(key: Key[Array, ""], state: ECDState, arrived: tuple[Params, Params, Event]) -> tuple[ECDState, Params]:
    del key
    _, message, event = arrived
    return ECDState(_combine(2.0 / _round(event), state.estimate, message), state.model), state.model


@recorded("tang2018compression")
def ecd(compressor: Compressor) -> Sharing:
    """Build ECD-PSGD, extrapolation compression: nodes mix estimates y, including their own, in round t = 1, 2, …::

        x⁺_i = Σ_j W_ij y_j + u_i                   u_i = −η g_i(x_i), the local steps; y_i = x_i at the start
        z_i = (1 − t/2) x_i + (t/2) x⁺_i            q_i = Q(z_i) the message, to all neighbours
        y_i ← (1 − 2/t) y_i + (2/t) q_i             by node i and by each of its neighbours
        x_i ← x⁺_i

    ``E y = x``. In round t a message contributes 2/t times its error to y, so the mean square error of y decreases as
    1/t if the errors of Q are bounded. The compressors here bound them only relative to ‖z‖, in which the change of a
    round has the factor t/2, so only mild compression is stable. If W is doubly stochastic, the mean is conserved in
    expectation, ``E x̄ ← x̄ + ū``, but not in each round. With ω = 1 it is D-PSGD in the form of 2017, which takes
    gradients at the unmixed models.

    On a fixed graph all neighbours have equal copies y_j, so one per node is stored. Neighbours are assumed to know the
    start models, even if these differ; their bits are not counted. t is the number of the event, from 1. The published
    algorithm is :func:`~gossipjax.dpsgd` with adapt-then-combine; with combine-then-adapt every local step reaches the
    estimates one round late.

    Args:
        compressor: Q, unbiased with a small variance (:mod:`gossipjax.compress`).

    Raises:
        ValueError: if the compressor is biased; during a run, if the timeline is not synchronous rounds on one doubly
            stochastic matrix.

    Reference: Tang, Gan, Zhang, Zhang, Liu 2018, arXiv 1803.06443, algorithm 2.
    """
    check_unbiased(compressor, "ECD-PSGD")
    requires = Requires({"fixed", "synchronous", "doubly_stochastic"}, mixing=True, builder="timeline.rounds")
    return Sharing(Partial(_init), Partial(_encode, compressor), Partial(_merge), requires)
