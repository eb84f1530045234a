"""How far each user of asynchronous push-gossip SGD is from the optimum of all, if users have different data: exactly.

Complete graph; user i has ``f_i(x) = ½ a (x − b_i)²`` and sees gradients with noise N(0, σ²). It takes steps of size η
at the ticks of a Poisson clock of rate μ, and pushes at the ticks of a Poisson clock of rate λ to a uniform other user,
who averages, ``x_j ← (1 − w) x_j + w x_i``. The optimum of all is b̄, the mean target. With h = ηa, the events are
linear, and ``E x_i``, ``E x_i²`` and ``E x_i X``, ``X = Σ x_k``, obey a closed linear equation. Users of one target are
a group with equal moments, so the equation has three entries per group, for any number of users.

Coordinates do not interact. Targets and models are measured from any origin, times in the unit of the rates. Everything
is exact.

Reference: Mitra and Ulukus 2024, arXiv 2404.19749 (the algorithm); derived here.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
import scipy.linalg
from jaxtyping import Float, Int, Num

from .arguments import real, reals, wholes
from .staleness import Counts, Result, Values, _harmonic, _nodes

Number: TypeAlias = int | float


class Users(NamedTuple):
    """Moments of a user of each group, with leading axes of time if there are any."""

    bias: Float[np.ndarray, "*t groups"]
    """``E x_i − b̄``."""
    squared_distance: Float[np.ndarray, "*t groups"]
    """``E (x_i − b̄)²``."""
    consensus: Float[np.ndarray, "*t"]
    """``E (1/n) Σ_i (x_i − x̄)²``, over all users."""


def stationary_users(
    sizes: Int[np.ndarray, " groups"],
    targets: Num[np.ndarray, " groups"],
    *,
    push_rate: Number,
    gradient_rate: Number,
    curvature: Number,
    step: Number,
    noise_std: Number,
    weight: Number = 0.5,
) -> Users:
    """Compute bias and mean squared distance to b̄ after a long time. Kind: exact.

    The bias is ``κ (b_i − b̄)``, ``κ = μh/(μh + λwn/(n−1))``: it is bounded by ``max_i |b_i − b̄|`` for every n, tends to
    ``μh/(μh + λw)`` for constant λ, and vanishes as n grows if and only if λ tends to infinity.

    Args:
        sizes: users in each group, at least one, at least two in all.
        targets: b of each group.
        push_rate, gradient_rate: λ ≥ 0 and μ > 0 per user.
        curvature, step, noise_std, weight: a > 0, η > 0, σ ≥ 0, w in (0, 1].

    Raises:
        ValueError: numbers out of range, shapes that differ, or a step that does not settle; h < 2 does.
    """
    flow, source, targets = _flow(sizes, targets, push_rate, gradient_rate, curvature, step, noise_std, weight)
    if not np.linalg.eigvals(flow).real.max() < 0:
        raise ValueError(f"step={step}, curvature={curvature}: does not settle; step · curvature below 2 does")
    return _moments(np.linalg.solve(flow, -source), np.asarray(sizes))


def users_at(
    times: Num[np.ndarray, " t"],
    sizes: Int[np.ndarray, " groups"],
    targets: Num[np.ndarray, " groups"],
    *,
    start: Number,
    push_rate: Number,
    gradient_rate: Number,
    curvature: Number,
    step: Number,
    noise_std: Number,
    weight: Number = 0.5,
) -> Users:
    """Compute bias and mean squared distance to b̄ at given times, from a common start. Kind: exact.

    The bias is ``(x_0 − b̄) e^{−μht} + κ (b_i − b̄)(1 − e^{−(μh + λwn/(n−1))t})``.

    Args:
        times: t ≥ 0, in any order.
        sizes, targets, push_rate, gradient_rate, curvature, step, noise_std, weight: as :func:`stationary_users`.
        start: x_0, the model of all users at time 0.

    Raises:
        ValueError: numbers out of range, shapes that differ, or negative times.
    """
    times, start = reals("times", times, shape=(None,), least=0), real("start", start)
    flow, source, targets = _flow(sizes, targets, push_rate, gradient_rate, curvature, step, noise_std, weight)
    n, count, x0 = np.sum(sizes, dtype=np.float64), len(targets), start - float(np.average(targets, weights=sizes))
    state = np.concatenate([np.full(count, x0), np.full(count, x0**2), np.full(count, n * x0**2), [1.0]])
    size = len(source)
    affine = np.zeros((size + 1, size + 1))
    affine[:size, :size], affine[:size, size] = flow, source
    z = np.reshape([(scipy.linalg.expm(t * affine) @ state)[:size] for t in times], (-1, size))
    return _moments(z, np.asarray(sizes))


def longest_silence(n: Counts, *, gossip_rate: Values) -> Result:
    """Compute the mean time ``H_n/λ`` for which the user who has heard nobody for longest has heard nobody.

    Pushes arrive at each user at the ticks of independent Poisson clocks of rate λ. Until the next one a user trains
    alone, and goes to its own target. So the user that is worst at one instant stays near the optimum of all as n grows
    only if λ grows at least like ln n. Assumes: complete graph, push. Kind: exact.

    Args:
        n: users, at least two.
        gossip_rate: λ, broadcast with n.

    Raises:
        ValueError: fewer than two users, rates that are not positive.
    """
    return (_harmonic(_nodes(n)) / reals("gossip_rate", gossip_rate, above=0))[()]


def _flow(sizes, targets, push_rate, gradient_rate, curvature, step, noise_std, weight):
    """Build ``d z/dt = F z + s`` of z = (E y_g, E y_g², E y_g Y), y = x − b̄, Y = Σ y, for a user of every group g."""
    sizes = wholes("sizes", sizes, shape=(None,), least=1, remedy="users in each group").astype(np.float64)
    targets = reals("targets", targets, shape=sizes.shape, remedy="one for each of sizes")
    n = sizes.sum()
    if n < 2:
        raise ValueError(f"sizes={sizes.astype(int)}: must be at least two users in all, or nobody gossips")
    lam, mu = real("push_rate", push_rate, least=0), real("gradient_rate", gradient_rate, above=0)
    step, curvature = real("step", step, above=0), real("curvature", curvature, above=0)
    h, noise = step * curvature, (step * real("noise_std", noise_std, least=0)) ** 2
    w = real("weight", weight, above=0, most=1, remedy="½ averages")
    b, one, count = targets - float(np.average(targets, weights=sizes)), np.eye(len(sizes)), len(sizes)
    every = np.broadcast_to(sizes, (count, count))  # row g: Σ over all users
    pair = lam / (n - 1)  # rate of pushes from one user to another
    zero = np.zeros((count, count))
    # E y_i: gradients, and pushes from all others.
    first = np.hstack([-(mu * h + pair * w * n) * one + pair * w * every, zero, zero])
    # E y_i²: (1 − w)² y_i² + 2w(1 − w) y_i y_k + w² y_k² − y_i² over k ≠ i, where Σ_{k≠i} y_i y_k = y_i Y − y_i².
    squares = ((1 - w) ** 2 - 1) * (n - 1) * one - 2 * w * (1 - w) * one + w**2 * (every - one)
    own = mu * ((1 - h) ** 2 - 1) * one
    second = np.hstack([2 * mu * h * (1 - h) * np.diag(b), own + pair * squares, pair * 2 * w * (1 - w) * one])
    third = _with_sum(sizes, b, h, mu, pair, w)
    source = np.concatenate([mu * h * b, mu * (h**2 * b**2 + noise), mu * (h**2 * b**2 + noise)])
    return np.vstack([first, second, third]), source, targets


def _with_sum(sizes, b, h, mu, pair, w) -> np.ndarray:
    """Build the rows of E y_i Y.

    A gradient of i adds δ = −h(y_i − b_i) + noise to both factors: y_i δ + δY + δ². One of k ≠ i adds −h(y_k − b_k) to
    Y; as targets sum to zero about b̄, these add −h y_i (Y − y_i + b_i) in sum. A push k → i adds w(y_k − y_i) to both,
    and one k → j adds w(y_k − y_j) to Y. Over all ordered pairs these differences cancel, which leaves w(y_k − y_i) Y
    and w²(y_k − y_i)², summed over k.
    """
    n, count, one = sizes.sum(), len(sizes), np.eye(len(sizes))
    every = np.broadcast_to(sizes, (count, count))
    mean = mu * (h * b[:, None] * every - 2 * h**2 * np.diag(b))
    square = mu * h**2 * one + pair * w**2 * (every + n * one)
    product = -2 * mu * h * one + pair * (w * every - w * n * one - 2 * w**2 * one)
    return np.hstack([mean, square, product])


def _moments(z: np.ndarray, sizes: np.ndarray) -> Users:
    mean, square, product = np.split(z, 3, axis=-1)
    n = np.sum(sizes, dtype=np.float64)  # n² of whole numbers overflows from 3·10⁹ users on
    return Users(mean, square, square @ sizes / n - product @ sizes / n**2)
