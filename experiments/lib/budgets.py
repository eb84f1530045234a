"""Sparse schemes that meet a budget of bytes, what a curve has cost when it reaches a target, and words for both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.optimize
from jaxtyping import Float

from gossipjax.sharing._jwins import CUT_OFFS
from theory.check.policy import Band, above, decide, in_part
from theory.compression import bernoulli_gap_bits

PARTIAL = tuple(share for share in CUT_OFFS if share < 1)
"""The released cut-offs without the whole model: the shape of the lists for low budgets."""
VALUE_BITS = 32
WITHIN = 0.15
"""Share of a claimed factor that may be missing where it still counts as reached."""


class CutOffs(NamedTuple):
    """A list of shares of the model, and how often each is drawn."""

    shares: tuple[float, ...]
    probabilities: tuple[float, ...]


def message_share(alpha: float) -> float:
    """Compute the mean bits of a message of αd float32 values and their Elias gamma gaps, over those of the model.

    ``α (32 + E bits per gap)/32`` for positions at random (:func:`theory.compression.bernoulli_gap_bits`); clustered
    ones cost less. The 128 bits in front are left out.
    """
    return alpha * (VALUE_BITS + bernoulli_gap_bits(alpha)) / VALUE_BITS


def expected_share(
    shares: Sequence[float], probabilities: Sequence[float] | None = None, *, whole: float = 0.5
) -> float:
    """Compute the mean of :func:`message_share` over a list of cut-offs.

    Args:
        shares: the cut-offs.
        probabilities: of each; None: equally likely.
        whole: cut-offs from this one on send the whole model, without indices.
    """
    spent = [1.0 if share >= whole else message_share(share) for share in shares]
    return float(np.average(spent, weights=probabilities))


def top_k_share(budget: float) -> float:
    """Solve ``message_share(α) = budget``: the share of a top-k whose messages meet a budget.

    Args:
        budget: mean bits of a message over those of the model.

    Raises:
        ValueError: a budget outside (0, 0.9].
    """
    _check_budget(budget)
    return float(scipy.optimize.brentq(lambda alpha: message_share(alpha) - budget, 1e-6, 1.0))


def low_budget(budget: float, whole: float) -> CutOffs:
    """Scale the released cut-offs down to a budget, with a part of it spent on messages of the whole model.

    The whole model is drawn with probability ``p = whole · budget``; the six partial cut-offs, all scaled by the s that
    solves ``(1 − p)/6 Σ_i message_share(s α_i) = (1 − whole) budget``, share the rest of the draws.

    Args:
        budget: mean bits of a message over those of the model.
        whole: part of the bytes that whole models take, in [0, 1).

    Raises:
        ValueError: numbers out of range, or a budget that would need cut-offs above 1.
    """
    _check_budget(budget)
    if not 0 <= whole < 1:
        raise ValueError(f"whole={whole}: must lie in [0, 1), 0 sending no whole models")
    p = whole * budget

    def excess(scale: float) -> float:
        mean = sum(message_share(scale * alpha) for alpha in PARTIAL) / len(PARTIAL)
        return (1 - p) * mean - (1 - whole) * budget

    largest = 1 / max(PARTIAL)
    if excess(largest) < 0:
        raise ValueError(f"budget={budget}, whole={whole}: needs cut-offs above 1; lower the budget, or raise whole")
    scale = scipy.optimize.brentq(excess, 1e-6, largest)
    shares = (*(float(scale * alpha) for alpha in PARTIAL), 1.0)
    return CutOffs(shares, (*([(1 - p) / len(PARTIAL)] * len(PARTIAL)), p))


def _check_budget(budget: float) -> None:
    if not 0 < budget <= 0.9:
        raise ValueError(
            f"budget={budget}: must lie in (0, 0.9]; from there on the whole model costs less than indices"
        )


def ratio_in_words(ratio: Float[np.ndarray, " seeds"], claimed: float, ours: str, theirs: str) -> str:
    """Judge whether ``ours`` does with fewer than ``theirs`` by the factor that was claimed, or at least with fewer.

    Args:
        ratio: what theirs needs over what ours needs, seed by seed; NaN where one of them misses the target.
        claimed: the factor; :data:`WITHIN` below it still counts.
        ours: name of the scheme in the denominator.
        theirs: of the one in the numerator.
    """
    whole, ahead = decide(ratio, Band(low=claimed * (1 - WITHIN))), decide(ratio, above(1.0))
    word = in_part(whole.word, ahead.word)
    if word == "in part":
        return f"in part: {ours} ahead, by less than {claimed:g} times"
    if word == whole.word:
        return f"{whole}; {theirs} ahead" if word == "contradicted" else str(whole)
    return f"{ahead}; less than {claimed:g} times"
