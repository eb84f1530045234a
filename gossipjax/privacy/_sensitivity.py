"""How much several contributions of one node can move what an observer knows, at most."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

_WORK = 3e9
"""Multiplications that the ascents of one batch may take, some seconds."""
_SWEEPS, _MOST_SWEEPS, _CHECK_EVERY = 2000, 20_000, 20
_ENOUGH, _GOOD = 1e-9, 1e-6
"""Relative gap between the certificates at which an ascent ends: at once, and after _SWEEPS."""
_NEGATIVE = 1e-12
_BATCH_BYTES = 2**27


class Range(NamedTuple):
    """Certificates of ``s = max {Σ_st M_st ⟨δ_s, δ_t⟩ : ‖δ_t‖ ≤ 1}``."""

    lower: Float64[np.ndarray, " b"]
    upper: Float64[np.ndarray, " b"]


class Shifts:
    """Brackets s for many nodes; matrices with negative entries wait until they fill a batch."""

    def __init__(self) -> None:
        self._lower: list[np.ndarray] = []
        self._upper: list[np.ndarray] = []
        self._waiting: list[tuple[int, int, np.ndarray]] = []
        self._bytes = 0

    def add(self, M: Float64[np.ndarray, "b T T"]) -> None:
        """Add the Gram matrices of the columns of one node each, padded with zeros to one size."""
        total, absolute = M.sum(axis=(1, 2)), np.abs(M).sum(axis=(1, 2))
        self._lower.append(total)
        self._upper.append(absolute)
        negative = M.min(axis=(1, 2), initial=0.0) < -_NEGATIVE * np.maximum(absolute, 1e-300)
        for k in np.flatnonzero(negative).tolist():
            live = np.flatnonzero(np.diagonal(M[k]) > 0)
            self._waiting.append((len(self._lower) - 1, k, M[k][np.ix_(live, live)]))
            self._bytes += self._waiting[-1][2].nbytes
        if self._bytes > _BATCH_BYTES:
            self._ascend()

    def _ascend(self) -> None:
        if not self._waiting:
            return
        size = max(len(M) for *_, M in self._waiting)
        batch = np.zeros((len(self._waiting), size, size))
        for place, (*_, M) in enumerate(self._waiting):
            batch[place, : len(M), : len(M)] = M
        lower, upper = _ascend(batch)
        for (group, k, _), low, high in zip(self._waiting, lower, upper, strict=True):
            self._lower[group][k] = max(self._lower[group][k], low)
            self._upper[group][k] = min(self._upper[group][k], high)
        self._waiting, self._bytes = [], 0

    def ranges(self) -> list[Range]:
        """Return the certificates of all matrices, in the order in which they were added."""
        self._ascend()
        return [Range(low, np.maximum(low, high)) for low, high in zip(self._lower, self._upper, strict=True)]


def largest_shift(M: Float64[np.ndarray, "b T T"]) -> Range:
    """Bracket s for a batch of positive semidefinite matrices, padded with zeros.

    ``s = Σ_st M_st`` where no entry is negative. Else s lies between the value of any unit vectors δ_t, which are
    improved one after another (``δ_t ← Σ_{s≠t} M_ts δ_s``, normalised), and ``Σ_t y_t`` for any y with
    ``diag(y) ⪰ M``: ``y_t = ‖Σ_s M_ts δ_s‖``, shifted as far as needed. Vectors have more than √(2T) entries, so that
    no local maximum is spurious.
    """
    found = Shifts()
    found.add(M)
    return found.ranges()[0]


def _ascend(M: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Improve unit vectors until the certificates meet, or the work is done."""
    (b, T), work = M.shape[:2], _WORK
    vectors, others = _start(M), M * (1 - np.eye(T))
    lower, upper, active = np.zeros(b), np.full(b, np.inf), np.arange(b)
    for sweep in range(1, _MOST_SWEEPS + 1):
        work -= float(vectors.size) * T
        for t in range(T):
            moved = np.matmul(others[:, t, None, :], vectors)[:, 0]
            norm = np.sqrt(np.einsum("br,br->b", moved, moved))[:, None]
            vectors[:, t] = np.where(norm > 0, moved / np.where(norm > 0, norm, 1), vectors[:, t])
        if sweep % _CHECK_EVERY == 0 or work < 0:
            lower[active], upper[active] = _certify(M, vectors)
            enough = _ENOUGH if sweep < _SWEEPS else _GOOD
            going = upper[active] - lower[active] > enough * upper[active]
            active, M, others, vectors = active[going], M[going], others[going], vectors[going]
            if not len(active) or work < 0:
                break
    return lower, upper


def _start(M: np.ndarray) -> np.ndarray:
    """Take the rows of the leading factors, normalised, with a little noise against stationary points."""
    dimension = int(np.ceil(np.sqrt(2 * M.shape[1]))) + 1
    values, factors = np.linalg.eigh(M)
    leading = factors[:, :, -dimension:] * np.sqrt(np.maximum(values[:, None, -dimension:], 0))
    V = np.zeros((*M.shape[:2], dimension))
    V[:, :, : leading.shape[2]] = leading
    V += 1e-6 * np.random.default_rng(0).standard_normal(V.shape[1:])
    return V / np.linalg.norm(V, axis=2, keepdims=True)


def _certify(M: np.ndarray, V: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    moved = np.matmul(M, V)
    y = np.linalg.norm(moved, axis=2)
    gap = np.zeros_like(M)
    np.einsum("bii->bi", gap)[:] = y
    smallest = np.linalg.eigvalsh(gap - M)[:, 0]
    return np.sum(moved * V, axis=(1, 2)), y.sum(axis=1) + M.shape[1] * np.maximum(0.0, -smallest)
