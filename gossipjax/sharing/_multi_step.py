"""Several mixings in one round, plain or accelerated by Chebyshev polynomials."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float, Key

from gossipjax._base.arguments import real, whole
from gossipjax._base.binding import Frozen
from gossipjax._base.calls import recorded
from gossipjax._base.placement import by_rows
from gossipjax._base.rows import bits_per_row
from gossipjax.facts import FIXED_GRAPH
from gossipjax.mixing._apply import mix
from gossipjax.mixing._counting import EVERYONE, no_state
from gossipjax.types import Event, Params, Sharing


@by_rows
def _encode(steps: Frozen[int], key: Key[Array, ""], state: tuple[()], x_start: Params, x: Params, event: Event):
    del key, x_start, event
    return state, (x, steps.value * bits_per_row(x))


@by_rows
def _merge(
    steps: Frozen[int], rho: Any, key: Key[Array, ""], state: tuple[()], arrived: tuple[Params, Params, Event]
) -> tuple[tuple[()], Params]:
    del key
    x, _, event = arrived
    if rho is None:
        for _ in range(steps.value):
            x = mix(event.mixing, x)
        return state, x
    before, x = x, mix(event.mixing, x)
    square = jnp.square(jnp.asarray(rho))
    omega = 2 / (2 - square)
    for _ in range(steps.value - 1):
        mixed = mix(event.mixing, x)
        before, x = x, jax.tree.map(Partial(_blend, omega), mixed, before)
        omega = 4 / (4 - square * omega)
    return state, x


def _blend(omega: Array, mixed: Array, before: Array) -> Array:
    return before + omega.astype(mixed.dtype) * (mixed - before)


@recorded("scaman2017optimal")
def multi_step(steps: int, rho: float | Float[np.ndarray | Array, ""] | None = None) -> Sharing:
    """Build K mixings a round: ``x ← W^K x``, or with ρ the Chebyshev polynomial of degree K, which contracts more::

        y_0 = x,   y_1 = W x,   ω_1 = 2 / (2 − ρ²)
        y_{k+1} = y_{k−1} + ω_k (W y_k − y_{k−1}),     ω_{k+1} = 4 / (4 − ρ² ω_k)
        x ← y_K

    which is ``T_K(W/ρ) / T_K(1/ρ)``. If all eigenvalues of W but the 1 of the mean are in [−ρ, ρ], a round multiplies
    differences by at most ``1 / T_K(1/ρ)``, the best of all polynomials; that is about ``2 exp(−K √(2 (1 − ρ)))``,
    where W^K has ``exp(−K (1 − ρ))``. Both conserve the mean if W is doubly stochastic. A message counts as K models,
    one after another.

    >>> import jax, jax.numpy as jnp, gossipjax as gj
    >>> W = gj.mixing.metropolis(gj.topology.ring(16))
    >>> plan, x0 = gj.timeline.rounds(W, 1), jnp.arange(16.0)
    >>> steps = {"plain": gj.sharing.multi_step(8), "chebyshev": gj.sharing.multi_step(8, 0.9493)}
    >>> runs = [gj.simulate(jax.random.key(0), gj.gossip_averaging(each), plan, x0) for each in steps.values()]
    >>> [round(float(jnp.ptp(run.x)), 1) for run in runs]
    [6.9, 1.9]

    Args:
        steps: K ≥ 1 mixings a round.
        rho: ρ in (0, 1), the largest absolute eigenvalue of W besides the 1 of the mean
            (``theory.spectral.contraction_factor``), or a bound of it; None: no acceleration. A new value does not
            recompile the run.

    Raises:
        ValueError: if a number is out of range; during a run, if the timeline is not synchronous rounds, or, with ρ,
            not on one symmetric doubly stochastic matrix.

    Reference: Scaman, Bach, Bubeck, Lee, Massoulié 2017, arXiv 1702.08704, algorithm 2 (accelerated gossip; recalled).
    """
    number = whole("steps", steps, least=1, remedy="1 is full sharing")
    if rho is not None:
        real("rho", rho, above=0, below=1, remedy="bound the eigenvalues of W besides 1; None: no acceleration")
    kept = Frozen(number)
    requires = EVERYONE if rho is None else FIXED_GRAPH
    return Sharing(Partial(no_state), Partial(_encode, kept), Partial(_merge, kept, rho), requires)
