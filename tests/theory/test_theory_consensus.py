"""theory.consensus: modal sums, Lyapunov solves, the moment recursion and simulation agree; edges and errors."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theory import consensus as theory
from theory.spectral import contraction_factor

ORDERS = theory.ORDERS
# Two float64 routes through different solvers, all matrices well conditioned.
SAME = 1e-9


def ring(n: int) -> np.ndarray:
    eye = np.eye(n)
    return (eye + np.roll(eye, 1, axis=0) + np.roll(eye, -1, axis=0)) / 3.0


def random_mixing(seed: int, n: int) -> np.ndarray:
    """Metropolis weights of a random connected graph (a path plus random edges)."""
    rng = np.random.default_rng(seed)
    adjacency = np.triu(rng.random((n, n)) < 0.3, 1) | np.eye(n, k=1, dtype=bool)
    adjacency = adjacency | adjacency.T
    degree = adjacency.sum(axis=1)
    W = np.where(adjacency, 1.0 / (1.0 + np.maximum(degree[:, None], degree)), 0.0)
    return W + np.diag(1.0 - W.sum(axis=1))


def simulate(W, a, b, x0, rounds, *, step_size, noise_std, order, local_steps=1, replicas=4000, seed=0):
    """Run the algorithm itself on replicas in parallel; consensus distance of each replica at the end."""
    rng = np.random.default_rng(seed)
    x = np.tile(x0, (replicas, 1))
    for _ in range(rounds):
        local = x
        for _ in range(local_steps):
            local = local - step_size * (a * (local - b) + noise_std * rng.standard_normal(x.shape))
        x = local @ W.T if order == "adapt_then_combine" else x @ W.T + (local - x)
    return np.mean((x - x.mean(axis=1, keepdims=True)) ** 2, axis=1)


def z_score(samples: np.ndarray, predicted: float) -> float:
    return float((samples.mean() - predicted) / (samples.std(ddof=1) / np.sqrt(len(samples))))


@pytest.mark.parametrize(
    ("order", "value"), [("combine_then_adapt", 0.011799921), ("adapt_then_combine", 0.0039115534)]
)
def test_ring_of_eight_has_the_published_values(order, value):
    settings_ = {"step_size": 0.1, "noise_std": 1.0, "order": order}
    assert theory.stationary_consensus(ring(8), np.zeros(8), **settings_) == pytest.approx(value, abs=1e-8)
    assert theory.lyapunov_consensus(ring(8), np.ones(8), np.zeros(8), **settings_) == pytest.approx(value, abs=1e-8)


def test_formulas_are_those_of_the_specification():
    """The three stationary sums, typed out once more with plain eigenpairs."""
    W, b = random_mixing(3, 7), np.random.default_rng(3).normal(size=7)
    eta, a, sigma, h = 0.15, 1.3, 0.7, 0.15 * 1.3
    w, u = np.linalg.eigh(W)
    w, bk = w[:-1], (u.T @ b)[:-1]
    awc = np.sum((h * bk / (1 - w + h)) ** 2 + eta**2 * sigma**2 / (1 - (w - h) ** 2)) / 7
    g = (1 - h) ** 4
    q = eta**2 * sigma**2 * (1 - g**2) / (1 - (1 - h) ** 2)
    four = np.sum((w * (1 - g) * bk / (1 - w * g)) ** 2 + w**2 * q / (1 - w**2 * g**2)) / 7
    common = {"step_size": eta, "noise_std": sigma, "curvature": a}
    assert theory.stationary_consensus(W, b, order="combine_then_adapt", **common) == pytest.approx(awc, rel=SAME)
    assert theory.stationary_consensus(W, b, local_steps=4, **common) == pytest.approx(four, rel=SAME)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("local_steps", [1, 2, 5])
@pytest.mark.parametrize("curvature", [0.0, 0.4, 1.5])
def test_modal_sum_equals_lyapunov(order, local_steps, curvature):
    W, b = random_mixing(1, 9), np.random.default_rng(1).normal(size=(9, 3))
    common = {"step_size": 0.1, "noise_std": 0.8, "order": order, "local_steps": local_steps}
    modal = theory.stationary_consensus(W, b, curvature=curvature, **common)
    assert theory.lyapunov_consensus(W, np.full(9, curvature), b, **common) == pytest.approx(modal, rel=SAME)


@pytest.mark.parametrize("order", ORDERS)
def test_lyapunov_with_nearly_equal_curvatures_joins_the_equal_case(order):
    """The full-space solve and the disagreement-space solve are two programs for one number."""
    W, b = random_mixing(2, 6), np.random.default_rng(2).normal(size=6)
    common = {"step_size": 0.1, "noise_std": 1.0, "order": order}
    nearly = np.ones(6) + 1e-12 * np.arange(6)
    equal = theory.lyapunov_consensus(W, np.ones(6), b, **common)
    assert theory.lyapunov_consensus(W, nearly, b, **common) == pytest.approx(equal, rel=SAME)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("local_steps", [1, 4])
def test_local_steps_equal_the_algorithm_without_noise(order, local_steps):
    """One round on a basis of inputs is the matrix itself: M and c by direct linear algebra."""
    W, rng = random_mixing(5, 6), np.random.default_rng(5)
    a, b = rng.uniform(0.5, 2.0, 6), rng.normal(size=6)
    bias = theory.dpsgd_bias(W, a, b, step_size=0.1, order=order, local_steps=local_steps)
    fixed = bias.fixed_point[:, 0]
    x = np.zeros(6)
    for _ in range(2000):
        local = x
        for _ in range(local_steps):
            local = local - 0.1 * a * (local - b)
        x = W @ local if order == "adapt_then_combine" else W @ x + local - x
    np.testing.assert_allclose(x, fixed, rtol=1e-10, atol=1e-12)  # 2000 rounds at rate < 0.97: below rounding
    optimum = np.sum(a * b) / np.sum(a)
    assert bias.squared_error == pytest.approx(np.mean((x - optimum) ** 2), rel=SAME)
    assert bias.consensus_distance == pytest.approx(np.var(x), rel=SAME)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("local_steps", [1, 3])
def test_simulation_agrees_with_unequal_curvatures(order, local_steps):
    """4000 replicas after 80 rounds (slowest rate about 0.9); standard error from the replicas, |z| < 4."""
    W, rng = ring(8), np.random.default_rng(7)
    a, b = rng.uniform(0.5, 2.0, 8), rng.normal(size=8)
    common = {"step_size": 0.1, "noise_std": 1.0, "order": order, "local_steps": local_steps}
    predicted = theory.lyapunov_consensus(W, a, b, **common)
    samples = simulate(W, a, b, np.zeros(8), 80, **common)
    assert abs(z_score(samples, predicted)) < 4
    assert samples.mean() == pytest.approx(predicted, rel=0.05)  # and the test has the power to see 5 %


@pytest.mark.parametrize("order", ORDERS)
def test_simulation_agrees_at_a_transient_time(order):
    """σ = 0.7, random start, t = 6, as in the specification's record; |z| < 4."""
    W, rng = ring(8), np.random.default_rng(11)
    b, x0 = rng.normal(size=8), rng.normal(size=8)
    common = {"step_size": 0.1, "noise_std": 0.7, "order": order}
    predicted = theory.transient_consensus(W, b, x0, np.array([6]), **common)[0]
    samples = simulate(W, np.ones(8), b, x0, 6, seed=3, **common)
    assert abs(z_score(samples, predicted)) < 4
    # Deterministic start, so 4000 replicas resolve one per cent.
    assert samples.mean() == pytest.approx(predicted, rel=0.02)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("curvature", [0.0, 1.0, 25.0])  # 25 · 0.1 > 2: an unstable round is described too
def test_transient_equals_moment_recursion(order, curvature):
    W, rng = random_mixing(4, 7), np.random.default_rng(4)
    b, x0, times = rng.normal(size=(7, 2)), rng.normal(size=(7, 2)), np.array([0, 1, 2, 7, 30])
    common = {"step_size": 0.1, "noise_std": 0.7, "order": order, "local_steps": 2}
    modal = theory.transient_consensus(W, b, x0, times, curvature=curvature, **common)
    weights = np.full(7, curvature) if curvature else np.array([0.0] * 6 + [1e-14])
    path = theory.expected_path(W, weights, b, x0, 30, **common)
    np.testing.assert_allclose(path.consensus_distance[times], modal, rtol=1e-8)  # 30 rounds of rounding


@pytest.mark.parametrize("order", ORDERS)
def test_path_ends_at_the_stationary_value(order):
    W, rng = random_mixing(6, 6), np.random.default_rng(6)
    a, b = rng.uniform(0.5, 2.0, 6), rng.normal(size=6)
    common = {"step_size": 0.1, "order": order}
    path = theory.expected_path(W, a, b, np.zeros(6), 400, noise_std=1.0, **common)
    stationary = theory.lyapunov_consensus(W, a, b, noise_std=1.0, **common)
    assert path.consensus_distance[-1] == pytest.approx(stationary, rel=SAME)
    quiet = theory.expected_path(W, a, b, np.zeros(6), 400, noise_std=0.0, **common)
    assert quiet.squared_error[-1] == pytest.approx(theory.dpsgd_bias(W, a, b, **common).squared_error, rel=SAME)


def test_path_takes_matrices_in_turn():
    """Two matchings of a 4-cycle average exactly after two rounds; a still step size leaves pure averaging."""
    pair = np.full((2, 2), 0.5)
    first = np.kron(np.eye(2), pair)
    second = np.kron(pair, np.eye(2))
    x0 = np.array([4.0, 1.0, -2.0, 5.0])
    path = theory.expected_path(
        np.stack([first, second]), np.full(4, 1e-15), np.zeros(4), x0, 2, step_size=1.0, noise_std=0.0
    )
    np.testing.assert_allclose(path.consensus_distance, [7.5, 0.25, 0.0], atol=1e-12)


def test_combine_then_adapt_bias_has_its_closed_form():
    """(I − W + ηA) x = ηA b."""
    W, rng = ring(8), np.random.default_rng(8)
    a, b = rng.uniform(0.5, 2.0, 8), rng.normal(size=8)
    expected = np.linalg.solve(np.eye(8) - W + 0.1 * np.diag(a), 0.1 * a * b)
    bias = theory.dpsgd_bias(W, a, b, step_size=0.1, order="combine_then_adapt")
    np.testing.assert_allclose(bias.fixed_point[:, 0], expected, rtol=1e-10)


@pytest.mark.parametrize("order", ORDERS)
def test_equal_targets_have_no_bias(order):
    bias = theory.dpsgd_bias(ring(5), np.arange(1.0, 6.0), np.full(5, 0.75), step_size=0.1, order=order)
    assert bias.squared_error == 0.0
    assert bias.optimum[0] == pytest.approx(0.75, abs=1e-15)


def test_averaging_error_and_bound():
    W, x0 = ring(9), np.random.default_rng(9).normal(size=(9, 2))
    errors = theory.averaging_error(W, x0, 12)
    expected = [np.linalg.norm(np.linalg.matrix_power(W, t) @ x0 - x0.mean(axis=0)) for t in range(13)]
    np.testing.assert_allclose(errors, expected, rtol=1e-10)
    rate = contraction_factor(W)
    assert rate == pytest.approx((1 + 2 * np.cos(2 * np.pi / 9)) / 3, abs=1e-12)
    assert np.all(errors <= rate ** np.arange(13) * errors[0] * (1 + 1e-12))
    wave = np.cos(2 * np.pi * np.arange(9) / 9)  # the slowest mode attains the bound
    np.testing.assert_allclose(theory.averaging_error(W, wave, 5)[-1], rate**5 * np.linalg.norm(wave), rtol=1e-12)


def test_complete_graph_agrees_after_each_combination():
    W = np.full((6, 6), 1 / 6)
    value = theory.stationary_consensus(W, np.arange(6.0), step_size=0.1, noise_std=1.0)
    assert value == pytest.approx(0.0, abs=1e-25)  # squares of rounding errors of eigenvalues that are zero


def test_single_node_has_no_disagreement():
    assert theory.stationary_consensus(np.ones((1, 1)), np.ones(1), step_size=0.1, noise_std=1.0) == 0.0
    assert theory.lyapunov_consensus(np.ones((1, 1)), np.ones(1), np.ones(1), step_size=0.1, noise_std=1.0) == 0.0


def test_bound_on_the_ring_of_eight():
    assert theory.consensus_bound(ring(8), step_size=0.1, noise_std=1.0) == pytest.approx(0.01838, abs=5e-6)


problems = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**31),
        "n": st.integers(2, 10),
        "step_size": st.floats(0.01, 0.2),
        "noise_std": st.floats(0.1, 3.0),
        "curvature": st.floats(0.1, 2.0),
        "order": st.sampled_from(ORDERS),
        "local_steps": st.integers(1, 4),
    }
)


def split(problem):
    rng = np.random.default_rng(problem["seed"])
    W = 0.5 * (np.eye(problem["n"]) + random_mixing(problem["seed"], problem["n"]))  # lazy: stable in both orders
    numbers = {name: problem[name] for name in ("step_size", "noise_std", "curvature", "order")}
    # Four full local steps beside the mixing may overshoot; one step never does here.
    numbers["local_steps"] = problem["local_steps"] if problem["order"] == "adapt_then_combine" else 1
    return W, rng.normal(size=problem["n"]), numbers


@settings(max_examples=40, deadline=None)
@given(problems)
def test_doubling_noise_multiplies_the_noise_part_by_four(problem):
    W, b, numbers = split(problem)
    louder = numbers | {"noise_std": 2 * numbers["noise_std"]}
    bias = theory.stationary_consensus(W, b, **numbers | {"noise_std": 0.0})
    noise = theory.stationary_consensus(W, np.zeros_like(b), **numbers)
    assert theory.stationary_consensus(W, b, **numbers) == pytest.approx(bias + noise, rel=SAME)
    assert theory.stationary_consensus(W, b, **louder) == pytest.approx(bias + 4 * noise, rel=SAME)


@settings(max_examples=40, deadline=None)
@given(problems, st.floats(-5, 5))
def test_relabelling_nodes_and_shifting_targets_change_nothing(problem, shift):
    W, b, numbers = split(problem)
    order = np.random.default_rng(problem["seed"] + 1).permutation(len(b))
    value = theory.stationary_consensus(W, b, **numbers)
    relabelled = theory.stationary_consensus(W[np.ix_(order, order)], b[order], **numbers)
    assert relabelled == pytest.approx(value, rel=SAME)
    # The shift cancels in Uᵀb up to rounding of numbers of size 5.
    assert theory.stationary_consensus(W, b + shift, **numbers) == pytest.approx(value, rel=1e-8, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(problems)
def test_bound_lies_above_the_exact_value(problem):
    W, b, numbers = split(problem)
    one = numbers | {"order": "adapt_then_combine", "local_steps": 1}
    bound = theory.consensus_bound(W, step_size=one["step_size"], noise_std=one["noise_std"])
    assert theory.stationary_consensus(W, np.zeros_like(b), **one) <= bound * (1 + 1e-12)


@settings(max_examples=20, deadline=None)
@given(problems)
def test_coordinates_add(problem):
    W, b, numbers = split(problem)
    both = theory.stationary_consensus(W, np.stack([b, 2 * b], axis=1), **numbers)
    parts = theory.stationary_consensus(W, b, **numbers) + theory.stationary_consensus(W, 2 * b, **numbers)
    assert both == pytest.approx(parts, rel=SAME)


def test_unstable_rounds_name_the_eigenvalue():
    common = {"noise_std": 1.0, "order": "combine_then_adapt"}
    # Ring of 8: smallest eigenvalue −1/3, so h = 0.7 gives the round eigenvalue −1.0333.
    with pytest.raises(ValueError, match=r"step_size=0\.7 is unstable: .* eigenvalue -1\.03333"):
        theory.stationary_consensus(ring(8), np.zeros(8), step_size=0.7, **common)
    with pytest.raises(ValueError, match=r"eigenvalue -1\.03333"):
        theory.lyapunov_consensus(ring(8), np.ones(8), np.zeros(8), step_size=0.7, **common)
    with pytest.raises(ValueError, match="unstable"):
        theory.dpsgd_bias(ring(8), np.ones(8), np.zeros(8), step_size=0.7, order="combine_then_adapt")
    assert theory.stationary_consensus(ring(8), np.zeros(8), step_size=0.66, **common) > 0


def test_disconnected_graph_needs_curvature():
    with pytest.raises(ValueError, match="eigenvalue 1,"):
        theory.stationary_consensus(np.eye(4), np.zeros(4), step_size=0.1, noise_std=1.0, curvature=0.0)
    # Four nodes alone: variance (n − 1)/n of one AR(1) process with rate 0.9.
    alone = theory.stationary_consensus(np.eye(4), np.zeros(4), step_size=0.1, noise_std=1.0)
    assert alone == pytest.approx(0.75 * 0.01 / (1 - 0.81), rel=SAME)
    with pytest.raises(ValueError, match="rho=1"):
        theory.consensus_bound(np.eye(4), step_size=0.1, noise_std=1.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"W": np.ones((3, 3))}, "must be one"),
        ({"W": np.ones((3, 2))}, "square"),
        ({"W": np.array([[0.5, 0.5, 0.0], [0.0, 0.5, 0.5], [0.5, 0.0, 0.5]])}, "symmetric"),
        ({"targets": np.zeros(4)}, "targets has shape"),
        ({"step_size": 0.0}, "step_size=0"),
        ({"noise_std": -1.0}, "noise_std=-1"),
        ({"curvature": -1.0}, "curvature=-1.0"),
        ({"order": "mix_first"}, "order='mix_first'"),
        ({"local_steps": 0}, "local_steps=0"),
    ],
)
def test_bad_input_is_named(change, message):
    good = {"W": ring(3), "targets": np.zeros(3), "step_size": 0.1, "noise_std": 1.0}
    # Unwrapped: the checked annotations of the tests would speak first about shapes and names.
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(theory.stationary_consensus)(**good | change)


def test_other_bad_input_is_named():
    common = {"step_size": 0.1, "noise_std": 1.0}
    with pytest.raises(ValueError, match="x0 has shape"):
        inspect.unwrap(theory.transient_consensus)(ring(3), np.zeros(3), np.zeros((3, 2)), np.array([1]), **common)
    with pytest.raises(ValueError, match="rounds=-1"):
        theory.averaging_error(ring(3), np.zeros(3), -1)
    with pytest.raises(ValueError, match="at least one must be positive"):
        theory.expected_path(ring(3), np.zeros(3), np.zeros(3), np.zeros(3), 1, **common)
