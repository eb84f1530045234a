"""Seconds that parallel SGD needs if gradients take unequal times: bounds of theorems, and exact times of collecting.

Worker i takes h_i seconds for a stochastic gradient, and needs τ_i seconds to reach the server and be reached by it.
The objective is L-smooth and starts Δ above its infimum; a gradient has variance σ². Bounds are on the time until a
point with ``E ‖∇f‖² ≤ ε`` is found, in units of LΔ/ε, up to constants that depend on nothing. ``noise_ratio`` is s =
σ²/ε: about how many gradients at one point have to be averaged.

Compare exponents and ratios of these times, not the times: no constant is claimed.

Reference: Tyurin and Richtárik 2023, arXiv 2305.12387 (Rennala and Malenia SGD); Tyurin and Richtárik 2024, arXiv
2405.16218 (equilibrium time, Fragile and Amelie SGD); Maranjyan, Tyurin and Richtárik 2025, arXiv 2501.16168
(Ringmaster ASGD).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Num

from .arguments import Number, real, reals, whole

Seconds = Num[np.ndarray, " n"]


def _workers(compute: np.ndarray, reach: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    h = reals("compute", compute, above=0, shape=(None,))
    tau = np.zeros(h.size) if reach is None else reals("reach", reach, least=0, shape=(None,))
    if tau.size != h.size:
        raise ValueError(f"reach of shape {tau.shape}: must be seconds of the {h.size} workers of compute")
    return h, tau


def equilibrium_time(noise_ratio: Number, compute: Seconds, reach: Seconds | None = None) -> float:
    """Compute ``t* = min_k max(max(h_k, τ_k), s / Σ_{i≤k} 1/h_i)``, workers sorted by max(h, τ).

    Up to a factor of two without ways, and of three with them, it is the time in which s gradients are collected (see
    :func:`collection_time`). ``LΔ/ε · t*`` is the time of Fragile SGD, and of Rennala SGD for τ = 0.

    Kind: exact, by definition.

    Args:
        noise_ratio: s ≥ 0.
        compute: h, seconds of a gradient, ``(n,)``.
        reach: τ, seconds to and from the server; None: none.

    Raises:
        ValueError: numbers out of range, or shapes that do not match.

    Reference: Tyurin and Richtárik 2024, arXiv 2405.16218, definition of the equilibrium time.
    """
    h, tau = _workers(compute, reach)
    return _equilibrium(real("noise_ratio", noise_ratio, least=0), h, tau)


def _equilibrium(s: float, h: np.ndarray, tau: np.ndarray) -> float:
    alone = np.maximum(h, tau)
    order = np.argsort(alone, kind="stable")
    return float(np.maximum(alone[order], s / np.cumsum(1.0 / h[order])).min())


def collection_time(count: int, compute: Seconds, reach: Seconds | None = None) -> float:
    """Compute when the S-th gradient is there: the S-th smallest of ``τ_i + r h_i``, r = 1, 2, ….

    All workers begin at time 0 and compute one gradient after another; computation does not wait for messages.

    It is at least the equilibrium time t* of s = S, at most 3 t*, and at most 2 t* if all τ are 0. Proof: let k be the
    number at which t* is attained, so ``max(h_i, τ_i) ≤ t*`` for the first k workers, and ``Σ_{i≤k} t*/h_i ≥ S``. By
    3 t*, worker i has given ``⌊(3t* − τ_i)/h_i⌋ ≥ ⌊2t*/h_i⌋ ≥ t*/h_i`` gradients, since ⌊2y⌋ ≥ y for y ≥ 1; without
    ways it has given as many by 2 t*. Neither factor can be smaller: n workers with h = 1 and τ = 1 + 1/n (or 0) have
    t* = 1 + 1/n for S = n + 1, and need 3 + 1/n (or 2) seconds.

    Kind: exact.

    Args:
        count: S gradients, from 1 to 10⁷.
        compute, reach: as in :func:`equilibrium_time`.

    Raises:
        ValueError: as :func:`equilibrium_time`.
    """
    h, tau = _workers(compute, reach)
    count = whole("count", count, least=1, most=10**7, remedy="for more, equilibrium_time is within a factor of three")
    # No worker gives more than S gradients, nor more than fit into three times the equilibrium time.
    latest = 3.0 * _equilibrium(float(count), h, tau) * (1 + 1e-9)
    each = np.clip(np.floor((latest - tau) / h), 0, count).astype(np.int64)
    arrivals = np.concatenate([t + step * np.arange(1, k + 1) for t, step, k in zip(tau, h, each, strict=True)])
    return float(np.partition(arrivals, count - 1)[count - 1])


def fragile_time(noise_ratio: Number, compute: Seconds, ways: Num[np.ndarray, "n n"]) -> tuple[float, int]:
    """Compute ``min_j t*(s, h, τ_{i→j} + τ_{j→i})`` of Fragile SGD, and the pivot j at which it is attained.

    Kind: bound, up to a constant; optimal up to a factor log n, where τ counts in one direction.

    Args:
        noise_ratio: s ≥ 0.
        compute: h, ``(n,)``.
        ways: ``ways[i, j]`` seconds of the fastest way of a model from j to i, ``(n, n)``.

    Raises:
        ValueError: as :func:`equilibrium_time`.

    Reference: Tyurin and Richtárik 2024, arXiv 2405.16218.
    """
    h, _ = _workers(compute, None)
    s, tau = real("noise_ratio", noise_ratio, least=0), reals("ways", ways, least=0, shape=(None, None))
    if tau.shape != (h.size, h.size):
        raise ValueError(f"ways of shape {tau.shape}: must be (n, n) for the n = {h.size} workers of compute")
    times = [_equilibrium(s, h, row + column) for row, column in zip(tau, tau.T, strict=True)]
    pivot = int(np.argmin(times))
    return times[pivot], pivot


def amelie_time(noise_ratio: Number, compute: Seconds, reach: Seconds | None = None) -> float:
    """Compute ``max(max τ, max h, (s/n) · mean h)`` of Amelie SGD, and of Malenia SGD for τ = 0.

    Every worker has data of its own, so that all must be heard. Kind: bound, optimal up to a constant.

    Args:
        noise_ratio, compute: as in :func:`equilibrium_time`.
        reach: τ of each worker, to all others; None: none.

    Raises:
        ValueError: as :func:`equilibrium_time`.

    Reference: Tyurin and Richtárik 2024, arXiv 2405.16218.
    """
    h, tau = _workers(compute, reach)
    return float(max(tau.max(), h.max(), real("noise_ratio", noise_ratio, least=0) / h.size * h.mean()))


def minibatch_time(noise_ratio: Number, compute: Seconds, reach: Seconds | None = None) -> float:
    """Compute ``max(max τ, max h) (1 + s/n)`` of synchronous minibatch SGD, one gradient of each worker a step.

    Kind: bound, up to a constant. Arguments and errors: as :func:`amelie_time`.
    """
    h, tau = _workers(compute, reach)
    return float(max(tau.max(), h.max()) * (1 + real("noise_ratio", noise_ratio, least=0) / h.size))


def rennala_time(noise_ratio: Number, compute: Seconds) -> float:
    """Compute ``min_m (1 + s/m) / mean_{i≤m}(1/h_i)`` of Rennala SGD, workers sorted by h; Ringmaster has the same.

    Kind: bound, optimal up to a constant. Arguments and errors: as :func:`equilibrium_time`.

    Reference: Tyurin and Richtárik 2023, arXiv 2305.12387.
    """
    h, s = np.sort(_workers(compute, None)[0]), real("noise_ratio", noise_ratio, least=0)
    m = np.arange(1, h.size + 1)
    return float(((1 + s / m) / (np.cumsum(1.0 / h) / m)).min())


def updates_time(delay: int, compute: Seconds) -> float:
    """Bound the seconds of R consecutive updates of Ringmaster ASGD: ``2 min_m (1 + R/m) / mean_{i≤m}(1/h_i)``.

    Kind: bound, for fixed h, with or without stops.

    Args:
        delay: R ≥ 1, the delay from which gradients are ignored.
        compute: h, ``(n,)``.

    Raises:
        ValueError: as :func:`equilibrium_time`.

    Reference: Maranjyan, Tyurin and Richtárik 2025, arXiv 2501.16168, the lemma on R consecutive updates.
    """
    return 2.0 * rennala_time(whole("delay", delay, least=1), compute)


def m_synchronous_time(noise_ratio: Number, compute: Seconds) -> tuple[float, int]:
    """Compute ``min_m h_m (1 + s/m)`` of m-synchronous SGD, workers sorted by h, and the m at which it is attained.

    A step waits for the first m of n workers, which takes the m-th smallest h. Kind: bound, up to a constant.
    Arguments and errors: as :func:`equilibrium_time`.

    Reference: Begunov and Tyurin 2026, arXiv 2602.03802; the constants are ours.
    """
    h, s = np.sort(_workers(compute, None)[0]), real("noise_ratio", noise_ratio, least=0)
    times = h * (1 + s / np.arange(1, h.size + 1))
    best = int(np.argmin(times))
    return float(times[best]), best + 1


def exponential_step(n: int, m: int) -> float:
    """Compute the mean time until the first m of n workers are done, ``H_n − H_{n−m}``, times being exponential.

    In units of the mean time of a gradient. With m = 1 it is 1/n: stopping the others loses nothing, since what is
    left of an exponential time is distributed as a new one. Kind: exact.

    Args:
        n: workers.
        m: from 1 to n.

    Raises:
        ValueError: numbers out of range.
    """
    n = whole("n", n, least=1)
    m = whole("m", m, least=1, most=n)
    return float((1.0 / np.arange(n - m + 1, n + 1)).sum())


def harmonic_size(counts: Num[np.ndarray, " n"]) -> float:
    """Compute ``n² / Σ_i 1/B_i``: how many gradients of one worker have the noise of the mean over workers of means.

    Malenia and Amelie SGD collect until it is S; worker i gives B_i gradients. Kind: exact.

    Args:
        counts: B_i > 0, ``(n,)``.

    Raises:
        ValueError: a worker without gradients.
    """
    b = reals("counts", counts, above=0, shape=(None,))
    return float(b.size**2 / (1.0 / b).sum())
