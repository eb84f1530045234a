"""Sparse schemes that meet a budget of bytes, and verdicts on ratios of costs."""

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
"""The released cut-offs without the whole model; lists for low budgets are scaled from them."""
VALUE_BITS = 32
WITHIN = 0.15
"""Share of a claimed factor that may be missing if the factor is still to count as reached."""


class CutOffs(NamedTuple):
    """Shares of the model, and the probability of each."""

    shares: tuple[float, ...]
    probabilities: tuple[float, ...]


def message_share(alpha: float) -> float:
    """Compute the mean size of a message of αd float32 values with Elias gamma gaps, relative to the model's.

    It is ``α (32 + E bits per gap)/32`` for random positions (:func:`theory.compression.bernoulli_gap_bits`); clustered
    positions cost less. The header of 128 bits is not counted.
    """
    return alpha * (VALUE_BITS + bernoulli_gap_bits(alpha)) / VALUE_BITS


def expected_share(
    shares: Sequence[float], probabilities: Sequence[float] | None = None, *, whole: float = 0.5
) -> float:
    """Compute the mean of :func:`message_share` over a list of cut-offs.

    Args:
        shares: the cut-offs.
        probabilities: probability of each cut-off; None: all equal.
        whole: cut-offs of at least this value send the whole model, without indices.
    """
    spent = [1.0 if share >= whole else message_share(share) for share in shares]
    return float(np.average(spent, weights=probabilities))


def top_k_share(budget: float) -> float:
    """Return the share α of a top-k whose messages meet a budget, from ``message_share(α) = budget``.

    Args:
        budget: mean bits of a message over those of the model.

    Raises:
        ValueError: a budget outside (0, 0.9].
    """
    _check_budget(budget)
    return float(scipy.optimize.brentq(lambda alpha: message_share(alpha) - budget, 1e-6, 1.0))


def low_budget(budget: float, whole: float) -> CutOffs:
    """Scale the released cut-offs down to a budget, part of which pays for messages of the whole model.

    The whole model is drawn with probability ``p = whole · budget``. The six partial cut-offs share the remaining draws
    equally; all are scaled by the s that solves ``(1 − p)/6 Σ_i message_share(s α_i) = (1 − whole) budget``.

    Args:
        budget: mean bits of a message over those of the model.
        whole: share of the bytes for messages of the whole model, in [0, 1).

    Raises:
        ValueError: numbers out of range, or a budget that would need cut-offs above 1.
    """
    _check_budget(budget)
    if not 0 <= whole < 1:
        raise ValueError(f"whole={whole}: must lie in [0, 1); 0 sends no whole models")
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
            f"budget={budget}: must lie in (0, 0.9]; above, the whole model costs less than values with indices"
        )


def ratio_in_words(ratio: Float[np.ndarray, " seeds"], claimed: float, ours: str, theirs: str) -> str:
    """Judge whether ``ours`` costs less than ``theirs``, by the claimed factor or at all.

    Args:
        ratio: cost of ``theirs`` over that of ``ours``, seed by seed; NaN if one of them misses the target.
        claimed: the claimed factor; ratios of at least 1 − :data:`WITHIN` times it still count.
        ours: name of the scheme in the denominator.
        theirs: name of the scheme in the numerator.
    """
    whole, ahead = decide(ratio, Band(low=claimed * (1 - WITHIN))), decide(ratio, above(1.0))
    word = in_part(whole.word, ahead.word)
    if word == "in part":
        return f"in part: {ours} ahead, by less than {claimed:g} times"
    if word == whole.word:
        return f"{whole}; {theirs} ahead" if word == "contradicted" else str(whole)
    return f"{ahead}; less than {claimed:g} times"
