"""The frozen-update formula against the modal sum, and against brute-force iteration."""

import numpy as np
import pytest

from theory.consensus import stationary_consensus
from theory.drift import consensus_from_updates


def ring(n):
    return (np.eye(n) + np.roll(np.eye(n), 1, 0) + np.roll(np.eye(n), -1, 0)) / 3


def test_equals_the_modal_sum_in_the_limit_of_flat_quadratics():
    n, step = 8, 0.1
    targets = np.random.default_rng(0).standard_normal((n, 3))
    curvature = 1e-7
    frozen = consensus_from_updates(
        ring(n), step * curvature * targets, np.full(n, 3 * (step * 1e-7) ** 2), mean_error=0.0
    )
    exact = stationary_consensus(ring(n), targets, step_size=step, noise_std=1e-7, curvature=curvature)
    np.testing.assert_allclose(frozen, exact, rtol=1e-5)  # they differ by a relative step · curvature / gap


def test_drift_equals_iteration_on_a_directed_matrix():
    n = 6
    W = (np.eye(n) + np.roll(np.eye(n), 1, 0) + np.roll(np.eye(n), 2, 0)) / 3
    updates = np.random.default_rng(1).standard_normal((n, 2))
    x = np.zeros((n, 2))
    for _ in range(400):
        x = W @ (x + updates - updates.mean(0))
    expected = np.sum((x - x.mean(0)) ** 2) / n
    np.testing.assert_allclose(consensus_from_updates(W, updates, np.zeros(n)), expected, rtol=1e-10)


def test_mean_error_takes_off_what_estimation_noise_adds():
    rng = np.random.default_rng(2)
    n, draws, std = 6, 4000, 0.3
    updates = rng.standard_normal((n, 1))
    exact = consensus_from_updates(ring(n), updates, np.zeros(n))
    noisy = [
        consensus_from_updates(
            ring(n), updates + std * rng.standard_normal((n, 1)), np.zeros(n), mean_error=np.full(n, std**2)
        )
        for _ in range(draws)
    ]
    z = (np.mean(noisy) - exact) / (np.std(noisy, ddof=1) / np.sqrt(draws))
    assert abs(z) < 4


def test_a_disconnected_matrix_is_refused():
    with pytest.raises(ValueError, match="never shrinks"):
        consensus_from_updates(np.eye(3), np.zeros((3, 1)), np.zeros(3))
