"""Secure aggregation in neighbourhoods: bytes of messages, of keys and shares, and of recovery.

A receiver with d neighbours gets from each a masked message of 32-bit words. A key, a seed and a share have 32 bytes.
With ``"seeds"`` keys are exchanged once and the seeds of lost nodes are revealed; with ``"shares"`` (Bonawitz et al.)
keys are new in every round, and masks are removed with shares that any t of d members reveal. Each neighbour drops out
of a round with probability p, independently, and so does the receiver.

Reference: Bonawitz et al. 2017, Practical Secure Aggregation for Privacy-Preserving Machine Learning, CCS. Its formula
for the bytes of a member, ``2da + (5d − 4)a + 4P`` with a-byte keys and shares, is recalled; the sums here give it.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
import scipy.stats

from .arguments import choice, real, whole

Number: TypeAlias = int | float
Recovery: TypeAlias = Literal["seeds", "shares"]
KEY_BYTES = 32
HEADER_BYTES = 8
_NAME_BYTES = 4


def message_bytes(words: int) -> int:
    """Give ``4 P + 8``: P masked words, the round and the receiver.

    Kind: exact. Source: the format of the message.
    """
    return 4 * whole("words", words, least=1) + HEADER_BYTES


def setup_bytes(degree: int, recovery: Recovery) -> int:
    """Give the bytes of keys and shares in the neighbourhood of one receiver: once with seeds, else in every round.

    With seeds every neighbour sends its key, and the receiver passes it on to the d − 1 others: ``32 d²``. With shares
    every neighbour sends two keys, and two shares to each other neighbour, and the receiver passes both on:
    ``32 d (2 + 6 (d − 1))``.

    Kind: exact. Source: counted message by message.
    """
    d, _ = whole("degree", degree, least=2), choice("recovery", recovery, ("seeds", "shares"))
    return KEY_BYTES * d * d if recovery == "seeds" else KEY_BYTES * d * (2 + 6 * (d - 1))


def threshold(degree: int, colluders: int = 0) -> int:
    """Give the least t above half of the neighbours and c colluders: ``⌊(d + c)/2⌋ + 1``.

    Kind: exact. Source: two lists of absences, told to disjoint groups of members with the colluders in both, would
    need 2 t ≤ d + c to give both secrets of a node.
    """
    return (whole("degree", degree, least=2) + whole("colluders", colluders, least=0)) // 2 + 1


def expected_recovery_bytes(degree: int, dropout: Number, recovery: Recovery, colluders: int = 0) -> float:
    """Give the mean bytes of recovery at one receiver and round.

    With l of d neighbours lost and h = d − l left, at a receiver that is there: with seeds, if l ≥ 1 and h ≥ c + 2,
    each of those left gets ``8 + 4 l`` bytes and answers with ``8 + 32 l``; with shares, if h ≥ max(t, c + 2), each
    gets a list of ``4 ⌈d/32⌉`` bytes and reveals d shares of 32 bytes, also where nobody is lost.

    Kind: exact, in mean, for independent absences. Source: the binomial law of l.
    """
    d, p = whole("degree", degree, least=2), real("dropout", dropout, least=0, most=1)
    colluders = whole("colluders", colluders, least=0)
    choice("recovery", recovery, ("seeds", "shares"))
    least = colluders + 2
    lost = np.arange(d + 1)
    left, chance = d - lost, scipy.stats.binom.pmf(lost, d, p)
    if recovery == "seeds":
        each = np.where((lost >= 1) & (left >= least), 2 * HEADER_BYTES + (_NAME_BYTES + KEY_BYTES) * lost, 0)
    else:
        listed = _NAME_BYTES * -(-d // 32) + KEY_BYTES * d
        each = np.where(left >= max(least, threshold(d, colluders)), listed, 0)
    return float((1 - p) * np.sum(chance * left * each))
