"""Linear combinations of rows, as mixings make them: in float64 with a bound on their rounding, or modulo a prime."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64, Int

from gossipjax.mixing._forms import DenseMixing, PairMixing, TableMixing
from gossipjax.privacy._contributions import Contributions
from gossipjax.privacy._events import fraction_of
from gossipjax.privacy._residues import PRIME, product, residue

_EPS = float(np.finfo(float).eps)
TINY = float(np.finfo(float).tiny)
"""Least error of what is no copy: smaller numbers vanish."""


class Arithmetic(NamedTuple):
    """Numbers that coefficients are made of, and what is computed with them."""

    residues: bool
    """Whether they are residues, which are exact."""
    kind: Any
    """The type of coefficients."""
    stored: Any
    """The type in which contents are kept."""
    combined: Callable[[np.ndarray, np.ndarray | None, np.ndarray], np.ndarray]
    """``combined(weights, rows, Y)``: ``Σ_d weights[:, d] Y[rows[:, d]]``; rows None: all rows, in order."""
    added: Callable[[np.ndarray, np.ndarray], np.ndarray]
    """``added(Y, change)``: the sum."""
    shares: Callable[[np.ndarray], np.ndarray]
    """``shares(weights)``: rows over their sums; rows of zeros stay."""
    steps: Callable[[Contributions, int], np.ndarray]
    """``steps(contributions, count)``: what the gradients of a node add to its model in step number count − 1."""


def _combined(weights: np.ndarray, rows: np.ndarray | None, Y: np.ndarray) -> np.ndarray:
    if rows is None:
        return weights @ Y
    new = weights[:, :1] * Y[rows[:, 0]]
    for lane in range(1, rows.shape[1]):
        new += weights[:, lane, None] * Y[rows[:, lane]]
    return new


def _shares(weights: np.ndarray) -> np.ndarray:
    total = weights.sum(axis=1, keepdims=True)
    return weights / np.where(total == 0, 1, total)


def _combined_residues(weights: np.ndarray, rows: np.ndarray | None, Y: np.ndarray) -> np.ndarray:
    if rows is None:
        return product(weights % PRIME, Y)
    new = np.zeros((len(rows), Y.shape[1]), np.int64)
    for lane in range(rows.shape[1]):
        live = np.flatnonzero(weights[:, lane])
        new[live] = (new[live] + weights[live, lane, None] * Y[rows[live, lane]]) % PRIME
    return new


def _added_residues(Y: np.ndarray, change: np.ndarray) -> np.ndarray:
    return (Y + change) % PRIME


def _shares_of_residues(weights: np.ndarray) -> np.ndarray:
    total = weights.sum(axis=1) % PRIME
    inverse = np.asarray([pow(int(each), -1, PRIME) if each else 1 for each in total], np.int64)
    return weights * inverse[:, None] % PRIME


def _steps_of_residues(contributions: Contributions, count: int) -> np.ndarray:
    rate, beta = (residue(fraction_of(float(value))) for value in (contributions.rate(count), contributions.momentum))
    powers, found = rate, np.empty(count, np.int64)
    for place in range(count - 1, -1, -1):
        found[place], powers = powers, powers * beta % PRIME
    return found


FLOATS = Arithmetic(False, np.float64, np.float64, _combined, np.add, _shares, Contributions.weights)
RESIDUES = Arithmetic(
    True, np.int64, np.uint32, _combined_residues, _added_residues, _shares_of_residues, _steps_of_residues
)
"""Fractions modulo a prime."""


class Combination(NamedTuple):
    """What a mixing does: who hears whom, and what is written."""

    senders: Int[np.ndarray, " m"]
    receivers: Int[np.ndarray, " m"]
    written: Any
    weights: np.ndarray
    rows: Int[np.ndarray, "k d"] | None
    """Rows that are combined with the weights; None: all rows, in order."""


def combination(mixing: Any, size: int, fragment: int | None, name: str, arithmetic: Arithmetic) -> Combination:
    """Read a mixing of ``size`` rows, with NumPy arrays."""
    kind = type(mixing)
    if kind is DenseMixing:
        receivers, senders = np.nonzero(mixing.W)
        return Combination(senders, receivers, slice(None), mixing.W, None)
    if kind is TableMixing:
        receivers, lanes = np.nonzero(mixing.weights)
        rows = np.concatenate([np.arange(size)[:, None], mixing.neighbors], axis=1)
        weights = np.concatenate([mixing.self_weight[:, None], mixing.weights], axis=1)
        return Combination(mixing.neighbors[receivers, lanes], receivers, slice(None), weights, rows)
    if kind is PairMixing:
        there = (mixing.senders < size) & (mixing.receivers < size)
        senders, receivers = mixing.senders[there], mixing.receivers[there]
        weights = np.stack([mixing.keep[there], mixing.weights[there]], axis=1)
        return Combination(senders, receivers, receivers, weights, np.stack([receivers, senders], axis=1))
    return _averages(mixing, size, fragment, name, arithmetic)


def _averages(mixing: Any, size: int, fragment: int | None, name: str, arithmetic: Arithmetic) -> Combination:
    """Average the members that send this class of coordinates; the only target of a group is who averages."""
    there = mixing.targets < size
    if np.any(there.sum(axis=1) > 1):
        raise ValueError(
            f"{name} has groups of which several rows take the average, and does not say who computes it and so hears "
            "all members: an audit needs groups with one target"
        )
    share = np.where(mixing.members < size, mixing.weights, 0)
    if mixing.parts is not None:
        share = arithmetic.shares(np.where((mixing.parts == fragment) | (mixing.parts < 0), share, 0))
    groups = np.flatnonzero(there.any(axis=1))
    targets = np.where(there, mixing.targets, 0).sum(axis=1)[groups]
    share, members = share[groups], np.minimum(mixing.members[groups], size - 1)
    g, lanes = np.nonzero(share)
    return Combination(members[g, lanes], targets[g], targets, share, members)


def sums(mixing: Any, n: int, name: str) -> np.ndarray:
    """Return the weights of all other rows in what each hears, where it hears sums only."""
    kind = type(mixing)
    if kind is TableMixing:
        W = np.zeros((n, n), mixing.weights.dtype)
        np.add.at(W, (np.arange(n)[:, None], mixing.neighbors), mixing.weights)
    elif kind is DenseMixing:
        W = mixing.W.copy()
    else:
        raise ValueError(
            f"hears='sums' on {name}: an event of {kind.__name__} has no sum over a neighbourhood; secure sums "
            "need rounds, such as timeline.rounds"
        )
    np.fill_diagonal(W, 0)
    return W


def lengths(Y: np.ndarray) -> Float64[np.ndarray, " r"]:
    """Return the largest entry of each row, in absolute value."""
    return np.maximum(Y.max(axis=1, initial=0.0), -Y.min(axis=1, initial=0.0))


def rounding(
    weights: np.ndarray, rows: Int[np.ndarray, "k d"] | None, error: Float64[np.ndarray, " r"], Y: np.ndarray
) -> Float64[np.ndarray, " k"]:
    """Bound the error of each entry of combined rows, given that of the entries of the rows.

    Weights have an error of a few roundings, relative to the largest weight of their row at most. What is not a copy
    has an error above zero, however small it is.
    """
    size, used = np.zeros(len(Y)), slice(None) if rows is None else np.unique(rows)
    size[used] = lengths(Y[used])
    share, there = np.abs(weights), weights != 0
    peak = np.where(there, size[None] if rows is None else size[rows], 0.0).max(axis=1, initial=0.0)
    known = error[None] if rows is None else error[rows]
    terms, total = there.sum(axis=1), share.sum(axis=1)
    copied = (terms == 1) & (total == 1)
    fresh = np.where(copied, 0.0, _EPS * (terms + 2) * np.maximum(total, 1.0) * peak)
    error = (share * known).sum(axis=1) + fresh
    inexact = np.any(there & (known > 0), axis=1) | ((peak > 0) & ~copied)
    return np.where(inexact, np.maximum(error, TINY), error)
