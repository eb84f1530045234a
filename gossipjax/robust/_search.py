"""The strongest lie along a direction, under the defence in use."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array

from gossipjax._base.arguments import instance
from gossipjax.robust._attacks import Attack, Victim
from gossipjax.robust._lanes import norms

_INSIDE, _FAR = 1 - 1e-6, 1e3


def _lie(lie: Partial, victim: Victim, common: Any) -> Array:
    proposed = lie(victim, common)
    apart = proposed - victim.own[None]
    length = norms(apart)[:, None]
    unit = apart / jnp.where(length > 0, length, 1)
    live = victim.honest & (victim.weights > 0)
    distances = jnp.where(live, norms(victim.others - victim.own[None]) * _INSIDE, 0)
    candidates = jnp.append(distances, jnp.asarray(_FAR, distances.dtype))
    lying = ~victim.honest & (victim.weights > 0)
    mean = jnp.sum(jnp.where(lying[:, None], unit, 0), axis=0)

    def displacement(strength: Array) -> Array:
        lies = victim.own[None] + strength * unit
        heard = jnp.where(victim.honest[:, None], victim.others, lies)
        moved = victim.rule.apply(victim.own, heard, victim.weights, victim.context)
        return jnp.nan_to_num(jnp.sum((moved - victim.own) * mean), nan=-jnp.inf)

    best = candidates[jnp.argmax(jax.lax.map(displacement, candidates))]
    return victim.own[None] + best * unit


class _Started:
    """Prepares the attack within, which may need the attackers before the run."""

    def __init__(self, start: Any):
        self.start, self.num_nodes = start, start.num_nodes

    def __call__(self, attackers: Any, num_nodes: int) -> Attack:
        """Return the search around the prepared attack."""
        return strongest(self.start(attackers, num_nodes))


def strongest(attack: Attack) -> Attack:
    """Choose the strength of an attack anew for every victim and event: the lie moves from its model in the direction.

    Candidates are a millionth less than each distance to an honest neighbour, where clipping and trimming let most
    pass, and 10³. The one that moves the victim farthest in the direction, under the rule in use, is sent. A node of k
    neighbours applies its rule k + 2 times.

    Args:
        attack: whose direction is taken, such as ``dissensus()`` or ``spectral(graph)``.

    Raises:
        TypeError: if attack is not an attack.
    """
    instance("attack", attack, Attack, "build one with gossipjax.robust, such as dissensus()")
    start = None if attack.start is None else _Started(attack.start)
    return attack._replace(lie=Partial(_lie, attack.lie), start=start)
