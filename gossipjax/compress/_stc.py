"""Sparse ternary compression: sign-top-k whose positions are sent in a Golomb code."""

from __future__ import annotations

import dataclasses

from gossipjax._base.calls import recorded
from gossipjax.compress._compressor import Compressor
from gossipjax.compress._sparsify import sign_top_k
from gossipjax.compress.codes import Golomb


@recorded("sattler2020stc")
def stc(share: float) -> Compressor:
    """Build STC: of a share of the entries, those of largest magnitude, send positions, signs and the mean magnitude.

    The values are those of :func:`~gossipjax.compress.sign_top_k`, and so is ω = min(1/k, k/d)::

        Q(x)_c = μ sign(x_c) on the k largest, else 0,   μ = (1/k) Σ |x_c| over them,   k = max(1, round(share d))

    Bits: μ (32 in float32), a sign for each of the k, and the gaps between their positions in the Golomb code of the
    share (:class:`~gossipjax.compress.codes.Golomb`), about 8.1 bits each at share 1/100. Biased.

    The paper rounds ``share d`` down and sends all entries that tie with the k-th; here the lowest index wins a tie,
    and sign(0) = 1 since one bit has two values. It compresses ``x + e`` with the error e of the last message: see
    :func:`~gossipjax.sharing.error_feedback`.

    >>> stc(0.25).omega(8)
    0.25

    Args:
        share: p in (0, 1], of all entries.

    Raises:
        ValueError: if the share is out of range.

    Reference: Sattler, Wiedemann, Müller, Samek 2020, arXiv 1903.02891, algorithms 1 and 3 (recalled, not looked up).
    """
    compressor = sign_top_k(share=share, indices=Golomb(share))
    return dataclasses.replace(compressor, name=f"stc({share:g})")
