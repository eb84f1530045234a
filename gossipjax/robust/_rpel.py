"""RPEL: robust pull-based epidemic learning."""

from __future__ import annotations

import numpy as np

from gossipjax._base.arguments import real, whole
from gossipjax._base.calls import recorded
from gossipjax._base.lazy import stats
from gossipjax.robust._coordinatewise import trimmed_mean
from gossipjax.robust._lanes import Rule
from gossipjax.robust._nearest import nnm


def rpel_b(num_nodes: int, attackers: int, sample: int, num_rounds: int, *, failure: float = 0.05) -> int:
    """Return b̂, how many liars a node may find among its s random peers, but for a small probability in the whole run.

    The least integer with ``|H| T P(Hyp(n − 1, b, s) > b̂) ≤ p``, by the union bound over honest nodes and rounds.

    >>> from gossipjax import robust
    >>> robust.rpel_b(100, 10, 15, 200)
    7

    Args:
        num_nodes: n.
        attackers: b of them.
        sample: s, peers that a node pulls from in a round.
        num_rounds: T.
        failure: p in (0, 1).

    Raises:
        ValueError: if a number is out of range.

    Reference: El Mrini, Farhadkhani, Guerraoui 2025, arXiv 2510.08311 (the effective fraction, recalled; the
    union bound is ours).
    """
    n = whole("num_nodes", num_nodes, least=2)
    b = whole("attackers", attackers, least=0, most=(n - 1) // 2, remedy="less than half of the nodes")
    s = whole("sample", sample, least=1, most=n - 1)
    rounds, p = whole("num_rounds", num_rounds, least=1), real("failure", failure, above=0, below=1)
    beyond = stats.hypergeom(n - 1, b, s).sf(np.arange(s + 1))
    return int(np.argmax((n - b) * rounds * beyond <= p))


@recorded("elmrini2025rpel", "allouah2023fixing")
def rpel(num_nodes: int, attackers: int, sample: int, num_rounds: int, *, failure: float = 0.05) -> Rule:
    """Build the rule of RPEL for b̂ of :func:`rpel_b`: nearest-neighbour mixing, then the trimmed mean.

    Use it on rounds in which every node pulls from s random peers: ``timeline.changing_rounds`` on an overlay of
    directed graphs of in-degree s, with ``weights="uniform"``.

    Args:
        num_nodes: n.
        attackers: b of them.
        sample: s, peers that a node pulls from in a round.
        num_rounds: T.
        failure: probability that in the whole run any honest node ever finds more liars than b̂.

    Raises:
        ValueError: if a number is out of range, or 2 b̂ > s, so that a sample would not outvote its liars.

    Reference: El Mrini, Farhadkhani, Guerraoui 2025, arXiv 2510.08311 (the choice of the rule recalled).
    """
    b = rpel_b(num_nodes, attackers, sample, num_rounds, failure=failure)
    if 2 * b > sample:
        raise ValueError(
            f"sample={sample}: up to {b} of them may lie, half or more of what a node hears: pull from more peers, or "
            "allow a larger probability of failure"
        )
    return nnm(b, trimmed_mean(b))
