"""Validation of square matrices, dense or sparse."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from scipy import sparse

from gossipjax._base.arguments import shown


def square(name: str, value: Any, remedy: str = "", *, entry: str = "number") -> sparse.csr_array:
    """Return a square matrix of finite numbers as a float64 CSR matrix, one row and column per node.

    Args:
        name: name of the argument.
        value: matrix of NumPy, JAX or SciPy, or nested lists; never modified.
        remedy: what to pass instead, as the end of the message.
        entry: name of an entry, for the message.

    Raises:
        TypeError: if value is not a matrix.
        ValueError: if it does not have two axes, is not square, is empty, or an entry is not a finite real number.
    """
    matrix = as_csr(name, value, remedy)
    if matrix.shape[0] != matrix.shape[1] or matrix.shape[0] == 0:
        raise ValueError(f"{name} of shape {matrix.shape}: must be square, one row and one column per node")
    reject(matrix, ~np.isfinite(matrix.data), f"every {entry} must be a finite number; look for a division by 0", name)
    return matrix


def as_csr(name: str, value: Any, remedy: str = "") -> sparse.csr_array:
    """Return a matrix of real numbers, of any shape, as a float64 CSR matrix without duplicates.

    Raises:
        TypeError: if value is not a matrix.
        ValueError: if it does not have two axes, or does not hold real numbers.
    """
    ending = f"; {remedy}" if remedy else ""
    if not isinstance(value, np.ndarray | jax.Array | list | tuple) and not sparse.issparse(value):
        kind = type(value).__name__
        raise TypeError(f"{name}={shown(value)}: must be a matrix of NumPy or SciPy, not of type {kind}{ending}")
    if not sparse.issparse(value):
        try:
            value = np.asarray(value)
        except (TypeError, ValueError) as error:
            raise TypeError(f"{name}={shown(value)}: must be a matrix of numbers{ending}") from error
    if value.dtype.kind not in "biuf":
        raise ValueError(f"{name} of type {value.dtype}: must hold real numbers{ending}")
    if value.ndim != 2:
        raise ValueError(f"{name} of shape {value.shape}: must be a matrix, with two axes")
    matrix = sparse.csr_array(value, dtype=np.float64)
    if not matrix.has_canonical_format:
        matrix = matrix.copy()  # the caller's arrays may be shared
        matrix.sum_duplicates()
    return matrix


def reject(matrix: sparse.csr_array, wrong: np.ndarray, rule: str, name: str) -> None:
    """Raise ``ValueError`` if a stored entry is wrong; the message gives the first."""
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        row = int(np.searchsorted(matrix.indptr, first, side="right")) - 1
        raise ValueError(f"{name}[{row}, {matrix.indices[first]}] = {matrix.data[first]:.6g}: {rule}")
