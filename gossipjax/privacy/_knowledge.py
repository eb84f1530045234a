"""What an observer knows of the contributions of others: a factor of a projector."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int

from gossipjax.privacy._noise import PairwiseNoise, factor_of
from gossipjax.privacy._observers import Wire, heard_by, members
from gossipjax.privacy._sensitivity import Range
from gossipjax.privacy._tape import Tape

CLEAR_GAP = 1e3
"""Ratio of neighbouring singular values from which a rank is no matter of rounding."""
_LOST, _PRESENT = 1e-12, 1e-8
"""Singular values of all models, over the largest, that are near rounding, and that one mixing can only make 0."""
_CERTAIN = 1e-9
"""Distance from one within which a contribution counts as reconstructed."""


class Knowledge(NamedTuple):
    """What an observer knows of the contributions made in a prefix of a plan, by node."""

    columns: Int[np.ndarray, " k"]
    """Contributions of others that enter what it hears."""
    factor: Float64[np.ndarray, "r k"]
    """G with ``M = Gᵀ G``."""
    reconstructed: Bool[np.ndarray, " k"]
    """Whether it knows the contribution exactly, noise included."""
    heard: int
    """Number of messages or sums that it hears."""
    gap: float
    """Ratio of the smallest singular value that counts and the largest that does not."""


def knowledge(
    tape: Tape,
    observer: tuple[int, ...] | Wire,
    cut: int,
    noise: float | PairwiseNoise,
    rounding: float,
    published: Float64[np.ndarray, "k n"] | None,
) -> Knowledge:
    """Collect what an observer hears in the first ``cut`` events, and project.

    Args:
        tape: of the plan.
        observer: nodes or a wire.
        cut: number of events.
        noise: standard deviation, or noise of pairs.
        rounding: standard deviation of noise on what is heard, relative to that of contributions.
        published: weights of the final models in sums that everyone sees.
    """
    entries, when = heard_by(observer, tape)
    own, known = members(observer), tape.made < cut
    columns = np.flatnonzero(known & ~np.isin(tape.node, own))
    entries = entries[when < cut]
    rows = tape.rows(entries, columns)
    terms = np.abs(rows).max(axis=1, initial=0.0)
    if published is not None:
        rows = np.concatenate([rows, published @ tape.final[:, columns]])
        summed = np.abs(published) @ np.abs(tape.final[:, columns])
        terms = np.append(terms, summed.max(axis=1, initial=0.0))
    live = np.any(rows != 0, axis=0)
    columns, rows = columns[live], rows[:, live]
    error = np.finfo(float).eps * (cut + len(tape.final)) * terms
    error[: len(entries)] = 0.0  # nothing cancels in a model
    clear = np.inf
    if not rounding:  # the length of a row says nothing then, and must not decide the rank
        largest = np.abs(rows).max(axis=1, initial=0.0)
        there = error > 0
        clear = float(np.min(largest[there] / error[there], initial=np.inf))
        scale = np.where(largest > CLEAR_GAP * error, largest, terms)  # a row of rounding keeps its size
        scale = np.where(scale > 0, scale, 1)
        rows, error = rows / scale[:, None], error / scale
    values, right, gap = _row_space(rows, float(np.linalg.norm(error)))
    gap = min(gap, clear)
    if published is not None and len(values) < len(columns) and _fades(tape, columns):
        gap = 1.0
    sure = np.sum(right**2, axis=0) >= 1 - _CERTAIN
    return Knowledge(
        columns, _factor(tape, columns, rows, values, right, own, noise, rounding), sure, len(entries), gap
    )


def _fades(tape: Tape, columns: Int[np.ndarray, " k"]) -> bool:
    """Return whether a direction of the start values is lost in rounding before the end, not by one mixing.

    What is left of it is published, and an observer in exact arithmetic reads it.
    """
    if np.any(tape.made >= 0):
        return False
    n = len(tape.final)
    known, least = len(columns), 1.0
    for models in [*(block for block in tape.blocks if len(block) == n), tape.final]:
        values = np.linalg.svd(models[:, columns], compute_uv=False)
        counted = values[values > _LOST * values[0]]
        if len(counted) < known and least < _PRESENT:
            return True
        known, least = len(counted), min(1.0, counted[-1] / values[0])
    return False


def _row_space(rows: np.ndarray, error: float) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the singular values that count, their right vectors, and the gap to those that do not.

    Args:
        rows: of the matrix.
        error: bound on the rounding of all rows.
    """
    if not rows.size:
        return np.zeros(0), np.zeros((0, rows.shape[1])), np.inf
    tall, triangle = np.linalg.qr(rows.T)  # twice as fast as a factorization of the wide matrix
    _, values, right = np.linalg.svd(triangle.T, full_matrices=False)
    rank = int(np.sum(values > max(values[0] * max(rows.shape) * np.finfo(float).eps, error)))
    if not rank:
        return np.zeros(0), np.zeros((0, rows.shape[1])), 1.0
    last = max(values[rank] if rank < len(values) else 0.0, error)
    right = right[:rank] @ tall.T
    return values[:rank], right, float(values[rank - 1] / last) if last > 0 else np.inf


def _factor(tape, columns, rows, values, right, own, noise, rounding) -> Float64[np.ndarray, "r k"]:
    if not isinstance(noise, PairwiseNoise):
        return right * (values / np.hypot(values, rounding))[:, None] / noise
    written = factor_of(noise, tape.node, _numbers(tape.node))
    mixed = rows @ written.F[columns][:, written.unknown_to(own)]
    left, spread, _ = np.linalg.svd(mixed, full_matrices=False)
    rank = len(values)  # every contribution has noise of its own
    scale = np.hypot(spread[:rank], rounding * noise.sigma)
    return (left[:, :rank].T @ rows) / scale[:, None]


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
