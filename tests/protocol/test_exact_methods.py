"""Methods that reach the exact optimum with a constant step: NumPy loops of the papers, equalities, fixed points."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial
from problems import CURVATURE, TARGETS, X0, N, exact_quadratic

from gossipjax import (
    d2,
    decentlam,
    dlm,
    dpsgd,
    exact_diffusion,
    extra,
    gradient_tracking,
    k_gt,
    led,
    nids,
    prox_skip,
    quasi_global_momentum,
    simple_gt,
    simulate,
    wang_elia,
)
from gossipjax._engine.growth import Diverging
from gossipjax.mixing import lazy, metropolis, uniform
from gossipjax.sharing import multi_step
from gossipjax.timeline import rounds
from gossipjax.topology import barabasi_albert, one_peer_exponential, ring

KEY, RATE, T = jax.random.key(1), 0.2, 10
W = metropolis(barabasi_albert(N, 2, seed=1)).toarray()
HALF = (np.eye(N) + W) / 2
SGD, TASK = Partial(optax.sgd, RATE), exact_quadratic()
STEPS = np.linspace(0.1, 0.4, N)
CURVATURES = np.linspace(0.5, 2.0, N)[:, None]
OPTIMUM = (CURVATURES * TARGETS).sum(0) / CURVATURES.sum()


def gradient(x):
    return CURVATURE * (x - TARGETS)


def run(protocol, matrix=W, num_rounds=T, record_every=None):
    return simulate(KEY, protocol, rounds(matrix, num_rounds), jnp.asarray(X0), record_every=record_every)


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-12)


def soft_threshold(weight, z, step_size):
    return jnp.sign(z) * jnp.maximum(jnp.abs(z) - weight * step_size, 0)


# --- loops of the papers ----------------------------------------------------------------------------------------------


def test_exact_diffusion_equals_its_loop():
    """Adapt, correct, combine, with ψ_0 = x_0: Yuan et al. 2019."""
    x, psi = X0, X0
    for _ in range(T):
        adapted = x - RATE * gradient(x)
        x, psi = HALF @ (adapted + x - psi), adapted
    found = run(exact_diffusion(TASK, SGD))
    close(found.x, x)
    close(found.state.correction, x - psi)
    assert np.abs(found.state.correction.sum(0)).max() < 1e-13


def nids_in_numpy(steps, num_rounds, prox=lambda z: z):
    """Li, Shi and Yan 2019, with the last two models and gradients."""
    mixing = np.eye(N) - np.diag(steps) @ (np.eye(N) - W) / (2 * steps.max())
    z = X0 - steps[:, None] * gradient(X0)
    before, x = X0, prox(z)
    for _ in range(num_rounds - 1):
        change = steps[:, None] * (gradient(x) - gradient(before))
        z = z - x + mixing @ (2 * x - before - change)
        before, x = x, prox(z)
    return x


@pytest.mark.parametrize("steps", [np.full(N, RATE), STEPS], ids=["equal", "per node"])
def test_nids_equals_its_loop(steps):
    close(run(nids(TASK, steps)).x, nids_in_numpy(steps, T))


def test_nids_takes_one_step_size_for_all():
    close(run(nids(TASK, RATE)).x, run(nids(TASK, np.full(N, RATE))).x)


def test_nids_with_a_regularizer_equals_its_loop():
    def prox(z):
        return np.sign(z) * np.maximum(np.abs(z) - 0.3 * STEPS[:, None], 0)

    found = run(nids(TASK, STEPS, prox=Partial(soft_threshold, 0.3))).x
    close(found, nids_in_numpy(STEPS, T, prox))
    assert np.any(found == 0)


@pytest.mark.parametrize("beta", [None, 0.15])
def test_led_equals_its_loop(beta):
    """Alghunaim 2024: y is minus the correction of the state."""
    x, y, mixing = X0, np.zeros_like(X0), lazy(W).toarray()
    for _ in range(T):
        phi = x
        for _ in range(3):
            phi = phi - RATE * gradient(phi) - (beta or 1 / 3) * y
        x = mixing @ phi
        y = y + phi - x
    found = run(led(TASK, SGD, local_steps=3, beta=beta), mixing)
    close(found.x, x)
    close(found.state.correction, -y)
    assert np.abs(y).max() > 0.1


def test_led_carries_the_optimizer_of_each_node():
    x, y, momentum, mixing = X0, np.zeros_like(X0), np.zeros_like(X0), lazy(W).toarray()
    for _ in range(T):
        phi = x
        for _ in range(2):
            momentum = gradient(phi) + 0.5 * momentum
            phi = phi - RATE * momentum - y / 2
        x = mixing @ phi
        y = y + phi - x
    close(run(led(TASK, Partial(optax.sgd, RATE, 0.5), local_steps=2), mixing).x, x)


def test_extra_equals_its_loop():
    """Shi et al. 2015, equation 2.13."""
    before, x = X0, W @ X0 - RATE * gradient(X0)
    for _ in range(T - 1):
        change = RATE * (gradient(x) - gradient(before))
        before, x = x, x + W @ x - HALF @ before - change
    found = run(extra(TASK, SGD))
    close(found.x, x)
    close(
        np.asarray(found.x).mean(0) - before.mean(0), -RATE * gradient(before).mean(0)
    )  # the mean moves along the mean gradient


def cycle():
    return [uniform(graph).toarray() for graph in one_peer_exponential(N)]


def k_gt_in_numpy(matrices, *, rate, steps, server):
    """Liu et al. 2024, algorithm 1, with c = 0 at the start."""
    x, c = X0, np.zeros_like(X0)
    for mixing in matrices:
        local = x
        for _ in range(steps):
            local = local - rate * (gradient(local) + c)
        z = (x - local) / (steps * rate)
        c = c - z + mixing @ z
        x = mixing @ (x - server * steps * rate * z)
    return x, c


def in_turn(matrices):
    """The matrices of ten rounds."""
    return [matrices[t % len(matrices)] for t in range(T)]


@pytest.mark.parametrize("matrices", [[W], cycle()], ids=["one matrix", "a cycle"])
def test_k_gt_equals_its_loop(matrices):
    x, c = k_gt_in_numpy(in_turn(matrices), rate=RATE, steps=3, server=0.7)
    found = run(k_gt(TASK, RATE, local_steps=3, communication_step_size=0.7), matrices)
    close(found.x, x)
    close(found.state.correction, c)
    assert np.abs(c.sum(0)).max() < 1e-12
    assert np.abs(c).max() > 0.1


def test_prox_skip_equals_its_loop():
    """Guo et al. 2023; the rounds of communication are read off the bytes of the run."""
    p, chi, num_rounds = 0.4, 2.0, 40
    found = run(prox_skip(TASK, SGD, probability=p, chi=chi), num_rounds=num_rounds, record_every=1)
    talks = np.diff(found["bytes_sent"].values) > 0
    assert 0 < talks.sum() < num_rounds
    x, y, mixing = X0, np.zeros_like(X0), np.eye(N) - (np.eye(N) - W) / (2 * chi)
    for talk in talks:
        z = x - RATE * gradient(x) - y
        x = mixing @ z if talk else z
        y = y + p * (z - x)
    close(found.x, x)
    close(found.state.y, y)
    assert np.abs(y.sum(0)).max() < 1e-12


def test_prox_skip_sends_with_the_stated_probability():
    """1,000 rounds: the messages are those of the rounds with communication, within 4 standard errors of p = 0.3."""
    num_rounds, p = 1000, 0.3
    found = run(prox_skip(TASK, SGD, probability=p), num_rounds=num_rounds, record_every=1)
    talks = np.diff(found["messages_sent"].values)
    edges = np.count_nonzero(W) - N
    assert set(talks) == {0, edges}
    assert abs(np.mean(talks > 0) - p) < 4 * np.sqrt(p * (1 - p) / num_rounds)
    np.testing.assert_array_equal(np.diff(found["bytes_sent"].values), talks * X0.shape[1] * 8)


def quasi_global_in_numpy(matrices, *, rate, beta):
    """Lin et al. 2021, algorithm 1, with the momentum in the unit of gradients."""
    x, hat = X0, np.zeros_like(X0)
    for mixing in matrices:
        new = mixing @ (x - rate * (beta * hat + gradient(x)))
        hat, x = beta * hat + (1 - beta) * (x - new) / rate, new
    return x, hat


def test_quasi_global_momentum_equals_its_loop():
    x, hat = quasi_global_in_numpy(in_turn([W]), rate=RATE, beta=0.8)
    found = run(quasi_global_momentum(TASK, SGD, momentum=0.8))
    close(found.x, x)
    close(found.state.momentum, RATE * hat)
    plain = run(quasi_global_momentum(TASK, SGD, momentum=0.0))
    close(plain.x, run(dpsgd(TASK, SGD)).x)


def test_wang_elia_equals_its_loop():
    """Both updates take the old x and z."""
    x, z, half_gap = X0, np.zeros_like(X0), (np.eye(N) - W) / 2
    for _ in range(T):
        x, z = x - half_gap @ (x + z) - RATE * gradient(x), z + half_gap @ x
    found = run(wang_elia(TASK, SGD))
    close(found.x, x)
    close(found.state.integral, z)
    assert np.abs(z.sum(0)).max() < 1e-12
    assert np.abs(z).max() > 0.1


def test_simple_gt_equals_its_loop():
    x, y = X0, X0
    for _ in range(T):
        adapted = x - RATE * gradient(x)
        x, y = adapted - y + W @ x, adapted
    found = run(simple_gt(TASK, SGD))
    close(found.x, x)
    close(found.state.correction, x - y)
    assert np.abs((x - y).sum(0)).max() < 1e-12


def decentlam_in_numpy(matrices, *, rate, beta):
    """Yuan et al. 2021, algorithm 2, with the momentum in the unit of gradients."""
    x, m = X0, np.zeros_like(X0)
    for mixing in matrices:
        m = beta * m + (x - mixing @ (x - rate * gradient(x))) / rate
        x = x - rate * m
    return x, m


@pytest.mark.parametrize(
    "matrices", [[W], pytest.param(cycle(), marks=pytest.mark.slow)], ids=["one matrix", "a cycle"]
)
def test_decentlam_equals_its_loop(matrices):
    x, m = decentlam_in_numpy(in_turn(matrices), rate=RATE, beta=0.8)
    found = run(decentlam(TASK, SGD, momentum=0.8), matrices)
    close(found.x, x)
    close(found.state.momentum, RATE * m)


# --- equalities -------------------------------------------------------------------------------------------------------


def test_exact_diffusion_is_d2_on_the_lazy_matrix():
    close(run(exact_diffusion(TASK, SGD)).x, run(d2(TASK, SGD), HALF).x)


@pytest.mark.slow
def test_decentlam_without_momentum_is_dpsgd_whatever_is_said():
    for said in (None, multi_step(2)):
        plain = run(dpsgd(TASK, SGD, sharing=said))
        close(run(decentlam(TASK, SGD, momentum=0.0, sharing=said)).x, plain.x)


def test_prox_skip_that_never_skips_is_exact_diffusion():
    close(run(prox_skip(TASK, SGD, probability=1.0)).x, run(exact_diffusion(TASK, SGD)).x)


def test_led_with_one_local_step_is_d2():
    mixing = lazy(W).toarray()
    close(run(led(TASK, SGD, local_steps=1), mixing).x, run(d2(TASK, SGD), mixing).x)


def test_k_gt_with_one_local_step_is_tracking_in_the_order_of_next():
    found, tracked = run(k_gt(TASK, RATE, local_steps=1)), run(gradient_tracking(TASK, SGD, order="next"))
    close(found.x, tracked.x)
    close(found.state.correction, np.asarray(W @ tracked.state.tracker) - np.asarray(tracked.state.gradient))


def test_nids_is_exact_diffusion_after_a_first_round_without_mixing():
    """From x_1 = x_0 − γ g_0 on, NIDS is exact diffusion that starts there."""
    first = jnp.asarray(X0 - RATE * gradient(X0))
    close(run(nids(TASK, RATE)).x, simulate(KEY, exact_diffusion(TASK, SGD), rounds(W, T - 1), first).x)


# --- what is conserved ------------------------------------------------------------------------------------------------


def test_nids_conserves_the_sum_of_models_over_steps():
    """Each round subtracts the sum of the gradients from Σ_i x_i / α_i."""
    before, after = run(nids(TASK, STEPS), num_rounds=T).x, run(nids(TASK, STEPS), num_rounds=T + 1).x
    scaled = (np.asarray(after) - np.asarray(before)) / STEPS[:, None]
    close(scaled.sum(0), -gradient(np.asarray(before)).sum(0))


# --- fixed points -----------------------------------------------------------------------------------------------------

HETEROGENEOUS = exact_quadratic(TARGETS, np.broadcast_to(CURVATURES, TARGETS.shape))
SLOW = Partial(optax.sgd, 0.1)
EXACT = {
    "exact_diffusion": lambda task: exact_diffusion(task, SLOW),
    "exact_diffusion, 0.95 of the largest step": lambda task: exact_diffusion(task, Partial(optax.sgd, 0.95)),
    "extra": lambda task: extra(task, SLOW),
    "k_gt": lambda task: k_gt(task, 0.02, local_steps=3),
    "simple_gt": lambda task: simple_gt(task, SLOW),
    "wang_elia": lambda task: wang_elia(task, SLOW),
    "prox_skip": lambda task: prox_skip(task, SLOW, probability=0.3),
    "led": lambda task: led(task, SLOW, local_steps=3),
    "nids": lambda task: nids(task, 0.1),
    "nids, 0.95 of the largest step of each node": lambda task: nids(task, 0.95 * 2 / CURVATURES[:, 0]),
}


@pytest.mark.parametrize("name", EXACT)
def test_exact_methods_reach_the_optimum(name):
    x = run(EXACT[name](HETEROGENEOUS), lazy(metropolis(ring(N))), 4000).x
    assert np.mean(np.sum((np.asarray(x) - OPTIMUM) ** 2, 1)) < 1e-20


def test_nids_reaches_the_optimum_of_a_regularized_problem():
    """argmin of (1/n) Σ_i f_i(x) + λ ‖x‖₁ in one coordinate: soft thresholding of the optimum."""
    mean = CURVATURES.mean()
    expected = np.sign(OPTIMUM) * np.maximum(np.abs(OPTIMUM) - 0.1 / mean, 0)
    x = run(nids(HETEROGENEOUS, 0.3, prox=Partial(soft_threshold, 0.1)), W, 4000).x
    np.testing.assert_allclose(x, np.broadcast_to(expected, x.shape), rtol=0, atol=1e-10)


LEAST = np.linalg.eigvalsh(W)[0]


@pytest.mark.parametrize(
    ("build", "largest"),
    [(wang_elia, (3 + (1 + LEAST) ** 2 / 4) / 2), (simple_gt, (3 + LEAST) / 2)],
    ids=["wang_elia", "simple_gt"],
)
def test_the_range_of_steps_for_one_curvature(build, largest):
    """Of curvature 2, five percent inside the range and two outside."""
    task = exact_quadratic(TARGETS, np.full_like(TARGETS, 2.0))
    x = np.asarray(run(build(task, Partial(optax.sgd, 0.95 * largest / 2)), num_rounds=6000).x)
    assert np.abs(x - TARGETS.mean(0)).max() < 1e-10
    with pytest.warns(Diverging):
        run(build(task, Partial(optax.sgd, 1.02 * largest / 2)), num_rounds=2000)


def tracks(order):
    return lambda task, step: gradient_tracking(task, Partial(optax.sgd, step), order=order)


def on_ring(least):
    """Weights of a ring with a given least eigenvalue."""
    own = (1 + least) / 2
    return own * np.eye(N) + (1 - own) / 2 * ring(N).adjacency().toarray()


LEAST_OF, POSITIVE = -0.6, 0.2
RANGES = {
    "combine_then_adapt": (tracks("combine_then_adapt"), LEAST_OF, (1 + LEAST_OF) ** 2 / 2),
    "combine_then_adapt, lazy": (tracks("combine_then_adapt"), POSITIVE, (1 + POSITIVE) ** 2 / 2),
    "next": (tracks("next"), LEAST_OF, (1 - LEAST_OF**2) / -LEAST_OF),
    "next, lazy": (tracks("next"), POSITIVE, 2),
    "aug_dgm": (tracks("aug_dgm"), LEAST_OF, (1 + LEAST_OF) ** 2 / (2 * LEAST_OF**2)),
    "aug_dgm, lazy": (tracks("aug_dgm"), POSITIVE, 2),
    "adapt_then_combine": (tracks("adapt_then_combine"), LEAST_OF, (1 + LEAST_OF) ** 2 / (2 * LEAST_OF**2)),
    "adapt_then_combine, lazy": (tracks("adapt_then_combine"), POSITIVE, 2),
    "dlm": (lambda task, step: dlm(task, step, penalty=0.5), LEAST_OF, 2 * 4 / (2 * 2.0 + 3 * 0.5 * 4)),
}
"""Builders, least eigenvalues of W, and largest γ h, of curvature h = 2. The Laplacian of the ring has the largest
eigenvalue 4."""


@pytest.mark.slow
@pytest.mark.parametrize("name", RANGES)
def test_the_range_of_steps_on_a_ring(name):
    build, least, largest = RANGES[name]
    weights = on_ring(least)
    assert np.linalg.eigvalsh(weights)[0] == pytest.approx(least)
    task = exact_quadratic(TARGETS, np.full_like(TARGETS, 2.0))
    x = np.asarray(run(build(task, 0.95 * largest / 2), weights, 4000).x)
    assert np.abs(x - TARGETS.mean(0)).max() < 1e-10
    with pytest.warns(Diverging):
        run(build(task, 1.02 * largest / 2), weights, 4000)


@pytest.mark.slow
def test_decentlam_has_the_bias_of_dpsgd():
    """With exact gradients and one step size."""
    slow, matrix = Partial(optax.sgd, 0.05), lazy(metropolis(ring(N)))
    plain = np.asarray(run(dpsgd(HETEROGENEOUS, slow), matrix, 4000).x)
    close(run(decentlam(HETEROGENEOUS, slow), matrix, 4000).x, plain)
    assert np.abs(plain - OPTIMUM).max() > 1e-2


@pytest.mark.slow
@pytest.mark.parametrize("build", [decentlam, quasi_global_momentum])
def test_a_momentum_of_the_optimizer_is_a_longer_step_in_the_end(build):
    """Of 0.5: twice the step of SGD, so the bias of D-PSGD with that."""
    matrix = lazy(metropolis(ring(N)))
    own = Partial(optax.sgd, 0.025, momentum=0.5)
    far = np.asarray(run(dpsgd(HETEROGENEOUS, Partial(optax.sgd, 0.05)), matrix, 4000).x)
    close(run(build(HETEROGENEOUS, own, momentum=0.3), matrix, 4000).x, far)


@pytest.mark.parametrize("total", [0.5, 1.0, 2.5])
def test_what_led_needs_of_the_matrix(total):
    """Without gradients, a disagreement of eigenvalue w in W grows below w = (βH − 2)/(βH + 2), and shrinks above."""
    least = led(TASK, SGD, local_steps=2, beta=total / 2).requires.min_eigenvalue
    assert least == pytest.approx((total - 2) / (total + 2))
    for w in (least - 0.02, least + 0.02):
        once = [[w, w * total], [w - 1, 1 + (w - 1) * total]]  # of the model and the correction, in one round
        assert (np.abs(np.linalg.eigvals(once)).max() < 1) == (w > least)
