"""How far honest nodes are from their mean, and from that of their start."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int

from gossipjax._base.arguments import shown, wholes
from gossipjax._base.calls import recorded
from gossipjax._base.rows import check_stacked, mean_row, num_rows, take
from gossipjax.observe._models import Observer, Snapshot, Variable, squared_deviations
from gossipjax.types import Params


def _measure(honest: Int[Array, " h"], target: Params, snapshot: Snapshot) -> dict[str, Array]:
    x = take(snapshot.x, honest)
    return {"honest_consensus_distance": jnp.mean(squared_deviations(x)), "honest_error": _error(x, target)}


def _error(x: Params, target: Params) -> Float[Array, ""]:
    def gap(leaf: Array, goal: Array) -> Array:
        return jnp.sum(jnp.square(leaf - goal[None])).astype(jnp.result_type(float)) / leaf.shape[0]

    return sum(jax.tree.leaves(jax.tree.map(gap, x, target)), start=jnp.zeros(()))


@recorded()
def honest_consensus(attackers: Sequence[int], x0: Params) -> Observer:
    """Measure the mean squared distance of honest nodes to their present mean, and to the mean of their start values.

    ``(1/h) Σ_i ‖x_i − x̄‖²`` and ``(1/h) Σ_i ‖x_i − x̄(0)‖²``, sums and means over the h honest nodes. Attackers can keep
    the first one small while they move everybody, which the second one shows.

    Args:
        attackers: nodes that are left out.
        x0: stacked start models, leaves ``(n, ...)``.

    Returns:
        Observer of ``honest_consensus_distance`` and ``honest_error``.

    Raises:
        TypeError: if x0 is not stacked models.
        ValueError: if an attacker is not a row, or nobody is honest.
    """
    if not jax.tree.leaves(x0):
        raise TypeError(f"x0={shown(x0)}: holds no arrays; pass the stacked start models")
    check_stacked("x0", x0)
    rows = num_rows(x0)
    if not rows:
        raise ValueError(f"x0={shown(x0)}: holds no rows; pass the stacked start models")
    lying = wholes("attackers", attackers, shape=(None,), least=0, most=rows - 1).astype(np.int32)
    honest = np.setdiff1d(np.arange(rows, dtype=np.int32), lying)
    if not len(honest):
        raise ValueError("attackers: nobody is left who is honest; name fewer")
    index = jnp.asarray(honest)
    variables = (
        Variable("honest_consensus_distance", "mean squared distance of honest nodes to their mean"),
        Variable("honest_error", "mean squared distance of honest nodes to the mean of their start values"),
    )
    return Observer(Partial(_measure, index, mean_row(take(jax.tree.map(jnp.asarray, x0), index))), variables)
