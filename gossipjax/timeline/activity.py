"""Who takes part in which round, for :func:`gossipjax.timeline.changing_rounds`.

A node that is not active in a round neither trains nor sends nor receives, and keeps its model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from jax.tree_util import Partial
from jaxtyping import Bool, Num

from gossipjax._base.arguments import callable_, instance, real, reals, shown, whole, wholes
from gossipjax._base.arguments import seed as checked_seed
from gossipjax._base.calls import recorded
from gossipjax._base.display import displayed
from gossipjax._base.memory import check_memory

__all__ = ["Activity", "bernoulli", "cyclic", "listed", "markov", "poisson_gaps", "presence"]

AN_ACTIVITY = "make one with gossipjax.timeline.activity, such as bernoulli(0.9, seed=0)"


@displayed
@dataclasses.dataclass(frozen=True, eq=False)
class Activity:
    """A rule that says which nodes are active in which rounds.

    Attributes:
        draw: ``draw(num_rounds, num_nodes)`` returns ``(num_rounds, num_nodes)`` bools.
        name: for reports.

    Raises:
        TypeError: if ``draw`` is not a function, or the name is not a string.
    """

    draw: Callable[[int, int], Bool[np.ndarray, "T n"]]
    name: str

    def _facts(self) -> tuple[str, dict[str, Any]]:
        return self.name, {}

    def __post_init__(self) -> None:
        """Check the fields."""
        callable_("draw", self.draw, "draw(num_rounds, num_nodes) -> bools (num_rounds, num_nodes)")
        instance("name", self.name, str, "name the rule for reports")


@recorded()
def bernoulli(probability: float | Num[np.ndarray, " n"], *, seed: int) -> Activity:
    """Let every node be active in every round with the same probability, independently.

    Args:
        probability: in (0, 1], scalar or ``(n,)``.
        seed: of the NumPy generator.
    """
    remedy = "the chance to be active in a round, or one per node"
    chances = reals("probability", probability, above=0, most=1, remedy=remedy)
    if chances.ndim > 1 or not chances.size:
        raise ValueError(f"probability of shape {chances.shape}: must be {remedy}")
    return Activity(Partial(_bernoulli, chances, checked_seed(seed)), f"bernoulli({_words(chances)}, seed={seed})")


def _bernoulli(chances: np.ndarray, seed: int, num_rounds: int, num_nodes: int) -> np.ndarray:
    _fits("probability", chances, num_nodes)
    rng = np.random.default_rng(seed)
    return np.stack([rng.random(num_nodes) < chances for _ in range(num_rounds)])


@recorded()
def markov(mean_on: int | float, mean_off: int | float, *, seed: int) -> Activity:
    """Let every node alternate between stretches of active and of inactive rounds, independently.

    The lengths of the stretches are geometric. The start is stationary: a share ``mean_on / (mean_on + mean_off)`` of
    the nodes is active in every round.

    Args:
        mean_on: mean length of an active stretch, at least 1 round.
        mean_off: mean length of an inactive stretch, at least 1 round.
        seed: of the NumPy generator.
    """
    mean_on = real("mean_on", mean_on, least=1, unit="rounds")
    mean_off = real("mean_off", mean_off, least=1, unit="rounds")
    draw = Partial(_markov, mean_on, mean_off, checked_seed(seed))
    return Activity(draw, f"markov(on {mean_on:g}, off {mean_off:g} rounds, seed={seed})")


def _markov(mean_on: float, mean_off: float, seed: int, num_rounds: int, num_nodes: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    active = np.zeros((num_rounds, num_nodes), bool)
    now = rng.random(num_nodes) * (mean_on + mean_off) < mean_on
    for row in active:
        row[:] = now
        now = np.where(now, rng.random(num_nodes) >= 1 / mean_on, rng.random(num_nodes) < 1 / mean_off)
    return active


@recorded()
def poisson_gaps(mean_gap: int | float, *, seed: int) -> Activity:
    """Let every node be active in single rounds, with Poisson numbers of inactive rounds between them, independently.

    The start is stationary: a share ``1 / (1 + mean_gap)`` of the nodes is active in every round. The gaps are more
    regular than those of :func:`bernoulli`, which are geometric: their variance is ``mean_gap``, not
    ``mean_gap (1 + mean_gap)``.

    Args:
        mean_gap: mean number of inactive rounds from one active round to the next, above 0.
        seed: of the NumPy generator.
    """
    mean_gap = real("mean_gap", mean_gap, above=0, most=2**31 - 1, unit="rounds", remedy="bernoulli(1.0) has no gaps")
    return Activity(Partial(_poisson_gaps, mean_gap, checked_seed(seed)), f"poisson_gaps({mean_gap:g}, seed={seed})")


def _poisson_gaps(mean_gap: float, seed: int, num_rounds: int, num_nodes: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    # The gap around the start is drawn by its length, with the active round at its end: N + 1 rounds with N Poisson, or
    # N + 2. The start is anywhere in it.
    longer = rng.random(num_nodes) * (1 + mean_gap) >= 1
    length = 1 + longer + rng.poisson(mean_gap, num_nodes)
    left = rng.integers(0, length)
    active = np.zeros((num_rounds, num_nodes), bool)
    for row in active:
        row[:] = left == 0
        left = np.where(row, rng.poisson(mean_gap, num_nodes), left - 1)
    return active


@recorded()
def cyclic(num_groups: int) -> Activity:
    """Let groups of nodes take turns: node i is active in round t if ``i mod num_groups = t mod num_groups``.

    Args:
        num_groups: at least 1. If it is larger than n, nobody is active in some rounds.
    """
    num_groups = whole("num_groups", num_groups, least=1)
    return Activity(Partial(_cyclic, num_groups), f"cyclic({num_groups} groups)")


def _cyclic(num_groups: int, num_rounds: int, num_nodes: int) -> np.ndarray:
    return np.arange(num_rounds)[:, None] % num_groups == np.arange(num_nodes) % num_groups


@recorded()
def presence(joins: Num[np.ndarray, " n"], leaves: Num[np.ndarray, " n"] | None = None) -> Activity:
    """Let nodes join and leave: node i is active in the rounds ``joins[i] ≤ t < leaves[i]``.

    Args:
        joins: ``(n,)`` rounds, at least 0; 0: there from the start.
        leaves: ``(n,)`` rounds, not before the node joins; None: nobody leaves.

    Raises:
        ValueError: if the rounds are not whole numbers, or a node leaves before it joins.
    """
    joins = wholes("joins", joins, shape=(None,), least=0, remedy="the first round of each node")
    if leaves is not None:
        leaves = wholes("leaves", leaves, shape=joins.shape, least=0, remedy="one round for each of joins")
        early = np.flatnonzero(leaves < joins)
        if early.size:
            i = early[0]
            raise ValueError(f"leaves[{i}]={leaves[i]}: node {i} leaves before it joins in round {joins[i]}; swap them")
    return Activity(Partial(_presence, joins, leaves), f"presence of {joins.size} nodes")


def _presence(joins: np.ndarray, leaves: np.ndarray | None, num_rounds: int, num_nodes: int) -> np.ndarray:
    _fits("joins", joins, num_nodes)
    t = np.arange(num_rounds)[:, None]
    return (joins <= t) & (True if leaves is None else t < leaves)


@recorded()
def listed(active: Bool[np.ndarray, "T n"]) -> Activity:
    """Use a table of who is active, such as a trace: row t is round t, and the rows repeat.

    Args:
        active: ``(period, n)`` bools.

    Raises:
        ValueError: if the table is empty or is not one of bools.
    """
    table = np.asarray(active)
    if table.ndim != 2 or table.dtype != bool or not table.size:
        raise ValueError(f"active={shown(active)}: must be bools of shape (rounds, nodes), at least one of each")
    return Activity(Partial(_listed, table), f"listed for {len(table)} rounds")


def _listed(table: np.ndarray, num_rounds: int, num_nodes: int) -> np.ndarray:
    _fits("active", table[0], num_nodes)
    return table[np.arange(num_rounds) % len(table)]


def active_rounds(activity: Any, num_rounds: int, num_nodes: int) -> Bool[np.ndarray, "T n"]:
    """Draw who is active, and check what a rule of one's own returns."""
    activity = instance("activity", activity, Activity, AN_ACTIVITY)
    check_memory(
        f"num_rounds={num_rounds}: the activity of {num_nodes} nodes", 10.0 * num_rounds * num_nodes, "lower it"
    )
    found = np.asarray(activity.draw(num_rounds, num_nodes))
    if found.shape != (num_rounds, num_nodes) or found.dtype != bool:
        raise ValueError(
            f"activity={activity.name}: draw returned {shown(found)}, and must return bools of shape "
            f"({num_rounds}, {num_nodes})"
        )
    return found


def _fits(name: str, per_node: np.ndarray, num_nodes: int) -> None:
    if per_node.ndim and per_node.shape != (num_nodes,):
        raise ValueError(f"{name} of shape {per_node.shape} for {num_nodes} nodes: give one number per node")


def _words(chances: np.ndarray) -> str:
    return f"{chances:g}" if not chances.ndim else f"{chances.min():g} to {chances.max():g}"
