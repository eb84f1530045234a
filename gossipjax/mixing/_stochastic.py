"""Sums of mixing matrices: whether rows and columns sum to one, and whether a matrix equals its transpose."""

from __future__ import annotations

from typing import Any, TypeAlias

import jax
import numpy as np
from jaxtyping import Float, Num
from scipy import sparse

from gossipjax._base import matrices
from gossipjax._base.arguments import choice, flag, real

Matrix: TypeAlias = sparse.sparray | sparse.spmatrix | Num[np.ndarray, "rows columns"] | Num[jax.Array, "rows columns"]

TOLERANCE = 1e-8
"""Largest error of a sum of weights: far above the rounding of a float64 sum of a million terms (2e-10), far below any
weight that matters."""
TOLERANCE_FLOAT32 = 1e-5
"""The same for float32 matrices: rounded entries make an error of 6e-8 in a row of exact shares, more after a sum."""

KINDS = ("row", "column", "doubly", "symmetric")
"""Properties of a mixing matrix that :func:`check_weights` checks."""
HOW_TO_WEIGH = "pass a NumPy or SciPy matrix, such as metropolis(topology)"


def is_row_stochastic(W: Matrix, *, tolerance: float | None = None) -> bool:
    """Return whether all rows sum to one, within a tolerance as in :func:`check_weights`. Signs are not checked."""
    tolerance, W = _tolerance(W, tolerance), matrices.as_csr("W", W, HOW_TO_WEIGH)
    return bool(np.all(np.abs(_row_sums(W) - 1) <= tolerance))


def is_column_stochastic(W: Matrix, *, tolerance: float | None = None) -> bool:
    """Return whether all columns sum to one, within a tolerance as in :func:`check_weights`. Signs are not checked."""
    tolerance, W = _tolerance(W, tolerance), matrices.as_csr("W", W, HOW_TO_WEIGH)
    return is_row_stochastic(W.T, tolerance=tolerance)


def is_doubly_stochastic(W: Matrix, *, tolerance: float | None = None) -> bool:
    """Return whether all rows and columns sum to one, as :func:`is_row_stochastic` and :func:`is_column_stochastic`."""
    return is_row_stochastic(W, tolerance=tolerance) and is_column_stochastic(W, tolerance=tolerance)


def is_symmetric(W: Matrix, *, tolerance: float | None = None) -> bool:
    """Return whether a matrix equals its transpose, within a tolerance as in :func:`check_weights`."""
    tolerance, W = _tolerance(W, tolerance), matrices.as_csr("W", W, HOW_TO_WEIGH)
    return W.shape[0] == W.shape[1] and bool(np.all(np.abs((W - W.T).data) <= tolerance))


def check_weights(
    W: Matrix, kind: str, *, allow_negative: bool = False, tolerance: float | None = None
) -> sparse.csr_array:
    """Check that a matrix is a mixing matrix of some kind.

    The sums of a float32 matrix are one only within :data:`TOLERANCE_FLOAT32`, so that a run would drift. Its rows
    (``kind="column"``: its columns) are therefore completed in float64: all weights are divided by the largest sum if
    it exceeds one, and each node keeps the rest. A symmetric matrix stays symmetric.

    Args:
        W: ``(n, n)`` weights, dense or sparse.
        kind: ``"row"``, ``"column"`` or ``"doubly"`` stochastic, or ``"symmetric"``: doubly stochastic and equal to its
            transpose.
        allow_negative: allow negative weights, as :func:`gossipjax.mixing.best_constant` may have on its diagonal.
        tolerance: largest error of a sum; None: :data:`TOLERANCE`, or :data:`TOLERANCE_FLOAT32` for float32.

    Returns:
        The same matrix, ``(n, n)`` float64.

    Raises:
        ValueError: if W breaks a rule; the message names the first row, column or entry that does.
        TypeError: if W is not a matrix.
    """
    kind, allow_negative = choice("kind", kind, KINDS), flag("allow_negative", allow_negative)
    single, tolerance = is_float32(W), _tolerance(W, tolerance)
    W = matrices.square("W", W, HOW_TO_WEIGH, entry="weight")
    if not allow_negative:
        rule = "weights must not be negative; pass allow_negative=True if they are meant to be"
        matrices.reject(W, W.data < 0, rule, "W")
    if kind != "column":
        _check_sums(W, "row", "divide each row by its sum", tolerance)
    if kind != "row":
        _check_sums(W.T, "column", "use metropolis, or column_stochastic with push-sum on a directed graph", tolerance)
    if kind == "symmetric":
        difference = sparse.csr_array(W - W.T)
        wrong = np.abs(difference.data) > tolerance
        rule = "W must equal its transpose; use metropolis or average W and W.T"
        matrices.reject(difference, wrong, rule, "W - W.T")
    if not single:
        return W
    return _complete_to_one(W) if kind != "column" else sparse.csr_array(_complete_to_one(sparse.csr_array(W.T)).T)


def _complete_to_one(W: sparse.csr_array) -> sparse.csr_array:
    """Complete rows that sum to one within a tolerance, so that they do up to float64 rounding."""
    W = W / max(1.0, _row_sums(W).max())
    return sparse.csr_array(W + sparse.diags_array(np.maximum(1 - _row_sums(W), 0)))


def is_float32(W: Any) -> bool:
    """Return whether a matrix is in float32, whose sums of rows miss one by more than those of float64."""
    return getattr(W, "dtype", None) == np.float32


def _tolerance(W: Any, tolerance: float | None) -> float:
    if tolerance is None:
        return TOLERANCE_FLOAT32 if is_float32(W) else TOLERANCE
    return real("tolerance", tolerance, least=0, below=1)


def _row_sums(W: sparse.sparray) -> Float[np.ndarray, " n"]:
    return np.asarray(W.sum(axis=1), np.float64)


def _check_sums(W: sparse.sparray, what: str, remedy: str, tolerance: float) -> None:
    sums = _row_sums(W)
    wrong = np.flatnonzero(~(np.abs(sums - 1) <= tolerance))
    if wrong.size:
        raise ValueError(
            f"{what} {wrong[0]} of W sums to {sums[wrong[0]]:.10g}, not to 1 within {tolerance:g} "
            f"({wrong.size} of {sums.size} {what}s are off): {remedy}"
        )
