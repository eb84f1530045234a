"""What every builder of a rule repeats."""

from __future__ import annotations

from typing import Any, Literal

from jax.tree_util import Partial

from gossipjax._base.arguments import real, whole
from gossipjax._base.binding import Frozen
from gossipjax.robust._lanes import Rule


def tolerated_number(b: Any, least: int = 0) -> int:
    """Check b, the number of liars among the neighbours of a node."""
    return whole("b", b, least=least, remedy="the number of liars among the neighbours that the rule must tolerate")


def tolerated_weight(beta: Any) -> float:
    """Check β, the weight of the liars among the neighbours of a node."""
    remedy = "the weight of the liars among the neighbours; b times the weight of an edge"
    return real("beta", beta, least=0, below=1, remedy=remedy)


def rule_of(
    apply: Partial,
    least: int,
    tolerated: int | float,
    by: Literal["number", "weight", "nothing"] = "number",
    pairs: bool = False,
    num_nodes: int | None = None,
) -> Rule:
    """Build a rule; words and flags are compile-time constants."""
    return Rule(apply, least, tolerated, Frozen(by), Frozen(pairs), Frozen(num_nodes))
