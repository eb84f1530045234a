"""Rates of exact methods against plain loops, and failing rounds against all outcomes."""

import itertools

import numpy as np
import pytest

from theory import exact

RING = np.roll(np.eye(6), 1, 0) + np.roll(np.eye(6), -1, 0)
W = (np.eye(6) + RING) / 3
A, B = np.array([1.0, 0.5, 2.0, 1.0, 0.7, 1.5]), np.array([1.0, -1.0, 0.5, 0.0, 2.0, -0.5])
OPTIMUM, STEP = (A * B).sum() / A.sum(), 0.45


def exact_diffusion(rounds):
    x, psi = np.zeros(6), np.zeros(6)
    for _ in range(rounds):
        adapted = x - STEP * A * (x - B)
        x, psi = (np.eye(6) + W) / 2 @ (adapted + x - psi), adapted
        yield x


def extra(rounds):
    before = np.zeros(6)
    x = W @ before + STEP * A * B
    for _ in range(rounds):
        before, x = x, x + W @ x - (np.eye(6) + W) / 2 @ before - STEP * A * (x - before)
        yield x


def admm(rounds, rho=0.6, alpha=0.5):
    z = np.zeros((6, 6))
    for _ in range(rounds):
        x = (z.sum(1) + A * B) / (2 * rho + A)
        z = RING * ((1 - alpha) * z - alpha * (z.T - 2 * rho * x[None]))
        yield x


def tracking(order):
    def loop(rounds):
        x = y = before = np.zeros(6)
        for number in range(rounds):
            new = A * (x - B)
            change = new - before
            y = W @ y + change if order in ("combine_then_adapt", "next") else W @ (y + change)
            if order == "aug_dgm" and number == 0:
                y = new
            x = W @ x - STEP / 4 * y if order == "combine_then_adapt" else W @ (x - STEP / 4 * y)
            before = new
            yield x

    return loop


def d2(rounds):
    x, c = np.zeros(6), np.zeros(6)
    for _ in range(rounds):
        moved = x - STEP * A * (x - B) + c
        x = LAZY @ moved
        c = x - moved + c
        yield x


def simple_gt(rounds):
    x, s = np.zeros(6), np.zeros(6)
    for _ in range(rounds):
        s = s + W @ x - x
        x = x + s - STEP * A * (x - B)
        yield x


def wang_elia(rounds):
    x, z = np.zeros(6), np.zeros(6)
    for _ in range(rounds):
        x, z = x - (x + z - W @ (x + z)) / 2 - STEP * A * (x - B), z + (x - W @ x) / 2
        yield x


def dlm(rounds, rho=0.3):
    x, y = np.zeros(6), np.zeros(6)
    for _ in range(rounds):
        x = x - STEP * (A * (x - B) + rho * (2 * x - RING @ x) + y)
        y = y + rho * (2 * x - RING @ x)
        yield x


LAZY = (np.eye(6) + W) / 2
ORDERS = ("combine_then_adapt", "next", "aug_dgm", "adapt_then_combine")
RATES = {
    **{order: (tracking(order), exact.gradient_tracking_rate(W, A, STEP / 4, order=order)) for order in ORDERS},
    "d2": (d2, exact.exact_diffusion_rate(2 * LAZY - np.eye(6), A, STEP)),
    "simple_gt": (simple_gt, exact.simple_gt_rate(W, A, STEP)),
    "wang_elia": (wang_elia, exact.wang_elia_rate(W, A, STEP)),
    "dlm": (dlm, exact.dlm_rate(RING, A, STEP, penalty=0.3)),
    "exact_diffusion": (exact_diffusion, exact.exact_diffusion_rate(W, A, STEP)),
    "extra": (extra, exact.extra_rate(W, A, STEP)),
    "admm": (admm, exact.admm_rate(RING, A, penalty=0.6)),
}


@pytest.mark.parametrize("name", RATES)
def test_loops_converge_at_the_predicted_rate(name):
    """From 1e-4 to 1e-12 in the predicted number of rounds; a pair of modes makes single errors oscillate."""
    loop, rate = RATES[name]
    errors = np.array([np.linalg.norm(x - OPTIMUM) for x in loop(1000)])
    begin, end = (int(np.argmax(errors < size)) for size in (1e-4, 1e-12))
    np.testing.assert_allclose(np.log(1e-8) / (end - begin), np.log(rate), rtol=0.06)


SETTLING = {
    "never, one node is curved": ([1.0, 0, 0, 0], 1, True),
    "never, no node is curved": ([0.0, 0, 0, 0], 1, True),
    "never, relaxed": ([0.0, 0, 0, 0], 0.5, True),
    "relaxed": ([1.0, 0, 0, 0], 0.5, False),
    "half relaxed": ([1.0, 0, 0, 0], 0.9, False),
    "all are curved": ([1.0, 1, 2, 3], 1, False),
}


@pytest.mark.parametrize("name", SETTLING)
def test_the_rate_of_admm_is_of_all_that_models_see(name):
    """From the powers of M, as the models see them, without eigenvalues."""
    a, relaxation, never = SETTLING[name]
    ring = np.array([[0.0, 1, 0, 1], [1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0]])
    M = exact.admm_matrix(ring, np.array(a), penalty=1.0, relaxation=relaxation)
    models = np.arange(4)[:, None] == np.nonzero(ring)[0]

    def left(rounds):
        return np.linalg.norm(models @ np.linalg.matrix_power(M, rounds), 2)

    found = exact.admm_rate(ring, np.array(a), penalty=1.0, relaxation=relaxation)
    if never:
        assert found == 1
        assert left(2000) > 0.5 * left(20)
    else:
        # The norm is the rate's power up to a constant: below 10 for these matrices of 8 rows.
        assert found < 1
        rounds = round(np.log(1e-10) / np.log(found))
        assert 0.1 < left(rounds) / found**rounds < 10


def test_failing_rounds_average_over_all_outcomes():
    """Three nodes in a row: all 2³ active sets, and all outcomes of the up to four messages of each."""
    line, x0, active, loss = np.array([[0.0, 1, 0], [1, 0, 1], [0, 1, 0]]), np.array([1.0, -2.0, 4.0]), 0.6, 0.3
    outcomes = []
    for present in itertools.product((0, 1), repeat=3):
        among = line * np.outer(present, present)
        degrees, edges = among.sum(1), np.argwhere(among)
        for arrived in itertools.product((0, 1), repeat=len(edges)):
            M, chance = np.zeros((3, 3)), np.prod(np.where(present, active, 1 - active))
            for (i, j), comes in zip(edges, arrived, strict=True):
                M[i, j] = comes / (1 + max(degrees[i], degrees[j]))
                chance *= 1 - loss if comes else loss
            outcomes.append((chance, M + np.diag(1 - M.sum(1))))
    assert sum(chance for chance, _ in outcomes) == pytest.approx(1)
    expected = [np.sum((x0 - x0.mean()) ** 2), 0.0, 0.0]
    for p, M in outcomes:
        once = M @ x0
        expected[1] += p * np.sum((once - once.mean()) ** 2)
        for q, N in outcomes:
            twice = N @ once
            expected[2] += p * q * np.sum((twice - twice.mean()) ** 2)
    found = exact.failing_rounds(line, x0, 2, active=active, loss=loss)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    whole = exact.failing_rounds(RING, A, 3, active=1.0, loss=0.0)
    path = [np.linalg.matrix_power(W, t) @ A for t in range(4)]
    np.testing.assert_allclose(whole, [np.sum((x - x.mean()) ** 2) for x in path], rtol=1e-12)


def test_a_rate_needs_its_conserved_quantities():
    with pytest.raises(ValueError, match="M has 0 eigenvalues that are 1"):
        exact.rate(np.eye(2) / 2, 1)
    with pytest.raises(ValueError, match="at most 12"):
        exact.failing_rounds(np.zeros((13, 13)), np.zeros(13), 1, active=0.5, loss=0.0)


def test_an_order_is_one_of_the_four():
    with pytest.raises(ValueError, match="must be one of 'combine_then_adapt'"):
        exact.gradient_tracking_rate(W, A, STEP, order="atc")


def test_only_the_pattern_of_an_adjacency_matrix_counts():
    assert exact.dlm_rate(-2.5 * RING, A, STEP, penalty=0.3) == exact.dlm_rate(RING, A, STEP, penalty=0.3)
    assert exact.admm_rate(2.5 * RING, A, penalty=0.6) == exact.admm_rate(RING, A, penalty=0.6)
