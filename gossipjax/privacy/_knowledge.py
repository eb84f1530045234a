"""What an observer knows of the contributions of others: a factor of a projector.

Which contributions are known exactly, and the dimension of what is known, are decided in exact arithmetic, modulo a
prime. Directions are those of float64, with a bound on how far rounding turns them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float64, Int, Int64

from gossipjax.privacy._combinations import TINY, lengths
from gossipjax.privacy._events import fraction_of
from gossipjax.privacy._noise import PairwiseNoise, factor_of
from gossipjax.privacy._observers import Wire, heard_by, members
from gossipjax.privacy._residues import determined, product, rank, residues_of
from gossipjax.privacy._sensitivity import Range
from gossipjax.privacy._tape import Tape

CLEAR_GAP = 1e6
"""Ratio of a singular value and of the rounding of the matrix from which its direction is clear: to 1e-6."""
_NEAR = 1e-5
"""Distance from one within which it is decided in exact arithmetic whether a contribution is known exactly."""
_EPS = float(np.finfo(float).eps)


class Knowledge(NamedTuple):
    """What an observer knows of the contributions made in a prefix of a plan, by node."""

    columns: Int[np.ndarray, " k"]
    """Contributions of others that enter what it hears, however little."""
    factor: Float64[np.ndarray, "r k"]
    """G with ``M = Gᵀ G``; where the gap is not clear, of the directions that are clear."""
    reconstructed: Bool[np.ndarray, " k"]
    """Whether it knows the contribution exactly, noise included."""
    heard: int
    """Number of messages or sums that it hears."""
    gap: float
    """Ratio of the smallest singular value of all that it knows and of the rounding of what it hears; for noise of
    pairs, less by as much as it amplifies rounding."""
    turned: float
    """How far rounding may change M, in the spectral norm."""


class _Heard(NamedTuple):
    """The matrix of what an observer hears: a row for each message."""

    columns: Int[np.ndarray, " k"]
    rows: Float64[np.ndarray, "r k"]
    error: Float64[np.ndarray, " r"]
    """Bound on the error of each entry of a row; 0: it has none."""
    exact: Callable[[], Int64[np.ndarray, "r k"]]
    """The same matrix modulo a prime."""
    messages: int


class _Space(NamedTuple):
    """An orthonormal basis of a row space, and whether unit vectors lie in it."""

    basis: Float64[np.ndarray, "r k"]
    sure: Bool[np.ndarray, " k"]
    gap: float
    turned: float


def knowledge(
    tape: Tape,
    exact: Callable[[], Tape],
    observer: tuple[int, ...] | Wire,
    cut: int,
    noise: float | PairwiseNoise,
    rounding: float,
    published: Float64[np.ndarray, "k n"] | None,
) -> Knowledge:
    """Collect what an observer hears in the first ``cut`` events, and project.

    Args:
        tape: of the plan.
        exact: returns the same tape modulo a prime.
        observer: nodes or a wire.
        cut: number of events.
        noise: standard deviation, or noise of pairs.
        rounding: standard deviation of noise on what is heard, relative to that of contributions.
        published: weights of the final models in sums that everyone sees.
    """
    heard = _heard(tape, exact, observer, cut, published, scaled=not rounding)
    mixed = None
    if isinstance(noise, PairwiseNoise):
        written = factor_of(noise, tape.node, _numbers(tape.node))
        mixed = written.F[heard.columns][:, written.unknown_to(members(observer))]
    if rounding:
        factor, space = _blurred(heard, mixed, rounding, 1.0 if isinstance(noise, PairwiseNoise) else noise)
    else:
        space = _row_space(heard)
        factor = space.basis / noise if mixed is None else _under(space.basis, mixed)
    reach = 1.0 if mixed is None else 2 * (1 + _norm(mixed))
    return Knowledge(heard.columns, factor, space.sure, heard.messages, space.gap / reach, space.turned * reach)


def _scaled(published: Float64[np.ndarray, "k n"]) -> Float64[np.ndarray, "k n"]:
    """Let the largest weight of each sum be one: its length says nothing."""
    largest = np.abs(published).max(axis=1, keepdims=True, initial=0.0)
    return published / np.where(largest > 0, largest, 1.0)


def _heard(tape: Tape, exact: Callable[[], Tape], observer, cut: int, published, *, scaled: bool) -> _Heard:
    entries, when = heard_by(observer, tape)
    columns = np.flatnonzero((tape.made < cut) & ~np.isin(tape.node, members(observer)))
    entries = entries[when < cut]
    rows, error = tape.rows(entries, columns), tape.errors(entries)
    if published is not None:
        final = tape.final[:, columns]
        weights = _scaled(published) if scaled else published
        rows = np.concatenate([rows, weights @ final])
        size = tape.final_rounding + _EPS * (len(final) + 10) * lengths(final)
        told = np.any((published != 0) & (lengths(final) + tape.final_rounding > 0), axis=1)
        error = np.append(error, np.where(told, np.maximum(np.abs(weights) @ size, TINY), 0.0))

    @functools.cache
    def modular() -> Int64[np.ndarray, "r k"]:
        other = exact()
        found = other.rows(entries, columns).astype(np.int64)
        if published is None:
            return found
        fractions = {value: fraction_of(value) for value in np.unique(published).tolist()}
        final = other.final[:, columns].astype(np.int64)
        return np.concatenate([found, product(residues_of(published, fractions), final)])

    live = np.any(rows != 0, axis=0)
    if not live.all() and error.any():  # what is zero in float64 may have cancelled, or be too small
        live = np.any(modular() != 0, axis=0)
    return _Heard(columns[live], rows[:, live], error, lambda: modular()[:, live], len(entries))


def _row_space(heard: _Heard) -> _Space:
    """Find the row space: its dimension in exact arithmetic, unless it is clear that no row depends on others."""
    k = len(heard.columns)
    scale = np.maximum(heard.error, _EPS * lengths(heard.rows))
    kept = scale > 0
    rows = heard.rows[kept] / scale[kept, None]  # every entry with an error of at most one
    inexact = int(np.sum(heard.error > 0))
    if not rows.size:
        return _Space(np.zeros((0, k)), np.zeros(k, bool), np.inf, 0.0)
    values, right = _singular(rows)
    floor = _floor(rows, inexact, values)
    near = np.sum(right**2, axis=0) >= 1 - _NEAR
    if len(values) == len(rows) and values[-1] >= CLEAR_GAP * floor and not near.any():
        return _Space(right, near, float(values[-1] / floor), float(floor / values[-1]))
    residues = heard.exact()[kept]
    known = rank(residues)
    if (gap := _gap(values, known, floor)) >= CLEAR_GAP:
        right = right[:known]
        near = np.sum(right**2, axis=0) >= 1 - _NEAR
        if near.any() and rank(residues[:, ~near]) != known - near.sum():
            near &= determined(residues)[1]
        return _Space(right, near, gap, 1 / gap)
    return _split(rows, inexact, residues)


def _split(rows: Float64[np.ndarray, "r k"], inexact: int, residues: Int64[np.ndarray, "r k"]) -> _Space:
    """Find the row space as unit vectors that are known exactly, and the rest."""
    known, sure = determined(residues)
    units, rest = np.eye(len(sure))[sure], rows[:, ~sure]
    left = known - len(units)
    if not left:
        return _Space(units, sure, np.inf, 0.0)
    values, right = _singular(rest)
    floor = _floor(rest, inexact, values)
    gap = _gap(values, left, floor)
    kept = min(left, int(np.sum(values >= CLEAR_GAP * floor)))
    basis = np.zeros((kept, len(sure)))
    basis[:, ~sure] = right[:kept]
    turned = floor / values[kept - 1] if kept else 0.0
    return _Space(np.concatenate([units, basis]), sure, gap, float(turned))


def _singular(rows: Float64[np.ndarray, "r k"]) -> tuple[np.ndarray, np.ndarray]:
    """Return singular values and right vectors."""
    tall, triangle = np.linalg.qr(rows.T)  # twice as fast as a factorization of the wide matrix
    _, values, right = np.linalg.svd(triangle.T, full_matrices=False)
    return values, right @ tall.T


def _floor(rows: Float64[np.ndarray, "r k"], inexact: int, values: Float64[np.ndarray, " s"]) -> float:
    """Bound the rounding of rows and of their factorization; entries of inexact rows have errors of at most one."""
    return float(np.sqrt(inexact * rows.shape[1]) + _EPS * max(rows.shape) * values[0])


def _gap(values: Float64[np.ndarray, " s"], known: int, floor: float) -> float:
    """Compare the smallest singular value that counts with rounding, and with the next one, which is rounding, too."""
    if not known:
        return np.inf
    if known > len(values):
        return 0.0
    next_one = values[known] if known < len(values) else 0.0
    return float(values[known - 1] / max(floor, next_one))


def _norm(mixed: sp.csc_array) -> float:
    """Bound the spectral norm of a matrix, by those of its largest row and column."""
    absolute = abs(mixed)
    rows, columns = (absolute.sum(axis=axis).max(initial=0.0) for axis in (0, 1))
    return float(np.sqrt(rows * columns))


def _under(basis: Float64[np.ndarray, "r k"], mixed: sp.csc_array) -> Float64[np.ndarray, "r k"]:
    """Return G with ``Gᵀ G = Qᵀ (Q F Fᵀ Qᵀ)⁻¹ Q`` for noise ``F z`` on the contributions."""
    if not len(basis):
        return basis
    left, spread, _ = np.linalg.svd(np.asarray((mixed.T @ basis.T).T), full_matrices=False)
    return (left.T @ basis) / spread[:, None]


def _blurred(
    heard: _Heard, mixed: sp.csc_array | None, rounding: float, noise: float
) -> tuple[Float64[np.ndarray, "r k"], _Space]:
    """Return G and what is known of messages with noise: rows that rounding makes differ do not count, then."""
    rows, k = heard.rows, len(heard.columns)
    if not rows.size:
        return np.zeros((0, k)), _Space(np.zeros((0, k)), np.zeros(k, bool), np.inf, 0.0)
    if mixed is None:
        values, right = _singular(rows)
        factor = right * (values / np.hypot(values, rounding))[:, None] / noise
    else:
        left, spread, _ = np.linalg.svd(np.asarray((mixed.T @ rows.T).T), full_matrices=False)
        factor = (left.T @ rows) / np.hypot(spread, rounding)[:, None]
        values = np.linalg.svd(rows, compute_uv=False)
    error = float(np.sqrt(k * np.sum(heard.error**2)) + _EPS * max(rows.shape) * values[0])
    gap = rounding / error if error > 0 else np.inf
    return factor, _Space(factor, determined(heard.exact())[1], gap, 2 / gap)


def _numbers(node: Int[np.ndarray, " c"]) -> Int[np.ndarray, " c"]:
    """Number the contributions of each node."""
    order = np.argsort(node, kind="stable")
    number = np.empty(len(node), np.int64)
    number[order] = np.arange(len(node)) - np.searchsorted(node[order], node[order])
    return number


def grams(found: Knowledge, node: Int[np.ndarray, " c"], n: int) -> Float64[np.ndarray, "n T T"]:
    """Return the matrix M_j of each node, padded with zeros to one size."""
    owner = node[found.columns]
    place = _numbers(owner)
    size = int(place.max(initial=-1)) + 1
    blocks = np.zeros((n, found.factor.shape[0], size))
    blocks[owner, :, place] = found.factor.T
    return np.matmul(blocks.transpose(0, 2, 1), blocks)


def joint_bracket(found: list[Knowledge], node: Int[np.ndarray, " c"], n: int) -> Range:
    """Bracket s over classes of coordinates, which share the norm of a contribution: ``Σ_t max_c Σ_s |M^c_ts|`` above.

    The largest s of one class is no bound: with ``M^1 = diag(1, 0)`` and ``M^2 = diag(0, 1)`` the joint s is 2.
    """
    largest, lower = np.zeros(len(node)), np.zeros(n)
    for view in found:
        M = grams(view, node, n)
        owner = node[view.columns]
        reach = np.abs(M).sum(axis=2)[owner, _numbers(owner)]
        largest[view.columns] = np.maximum(largest[view.columns], reach)
        lower = np.maximum(lower, M.sum(axis=(1, 2)))
    return Range(lower, np.bincount(node, largest, minlength=n))
