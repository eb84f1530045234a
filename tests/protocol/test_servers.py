"""Methods of a server and its clients: NumPy loops of the papers, equalities, what is conserved, fixed points."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial
from problems import CURVATURE, TARGETS, X0, D, N, exact_quadratic

from gossipjax import (
    fedadagrad,
    fedadam,
    fedavg,
    feddyn,
    fednova,
    fedopt,
    fedprox,
    fedyogi,
    replicate,
    scaffold,
    simulate,
)
from gossipjax.timeline import client_sampling
from gossipjax.timeline._events import event_of

KEY, RATE, T, H, SAMPLED = jax.random.key(1), 0.1, 6, 3, 4
SGD, TASK = Partial(optax.sgd, RATE), exact_quadratic()
SIZES = np.arange(1.0, N + 1)
STEPS = 1 + np.arange(N) % 3
EQUAL, WEIGHTED = (client_sampling(N, SAMPLED, T, seed=2, shard_sizes=sizes) for sizes in (None, SIZES))
OPTIMUM = (CURVATURE * TARGETS).sum(0) / CURVATURE.sum(0)
LONG = 600
STEP = jax.jit(lambda protocol, state, event: protocol.step(KEY, state, event)[0])


def gradient(nodes, x):
    return CURVATURE[nodes] * (x - TARGETS[nodes])


def rounds_of(plan):
    """Sampled clients and their weights, a column."""
    return [(nodes, weights[:, None]) for nodes, weights in zip(plan.xs["nodes"], plan.xs["weights"], strict=True)]


def everyone(num_rounds):
    """All clients in every round, with equal weights."""
    return [(np.arange(N), np.full((N, 1), 1 / N))] * num_rounds


def final(protocol, plan):
    """Take the rounds one by one: a step compiles faster than a run, which the contract of all protocols covers."""
    state = protocol.init(KEY, replicate(jnp.asarray(X0[0]), SAMPLED))
    for t in range(T):
        state = STEP(
            protocol, state, event_of(KEY, plan, jax.tree.map(lambda leaf, t=t: jnp.asarray(leaf[t]), plan.xs))
        )
    return state


def close(found, expected):
    """Both are float64; they add in another order."""
    np.testing.assert_allclose(found, np.broadcast_to(expected, np.shape(found)), rtol=1e-12, atol=1e-13)


def trained(nodes, x, added=lambda y: 0.0, steps=H, rate=RATE):
    y = np.repeat(x[None], len(nodes), axis=0)
    for _ in range(steps):
        y = y - rate * (gradient(nodes, y) + added(y))
    return y


# --- loops of the papers ----------------------------------------------------------------------------------------------


def scaffold_in_numpy(plan, server_rate=0.8, variate="average"):
    """Karimireddy et al. 2020, algorithm 1."""
    x, c, own = X0[0], np.zeros(D), np.zeros((N, D))
    for nodes, weights in plan:
        y = trained(nodes, x, lambda y, own=own, nodes=nodes, c=c: c - own[nodes])
        new = gradient(nodes, x) if variate == "gradient" else own[nodes] - c + (x - y) / (H * RATE)
        x = x + server_rate * (weights * (y - x)).sum(0)
        c = c + len(nodes) / N * (weights * (new - own[nodes])).sum(0)
        own = own.copy()
        own[nodes] = new
    return x, c, own


@pytest.mark.parametrize("variate", ["average", "gradient"])
def test_scaffold_equals_its_loop(variate):
    for plan in (EQUAL, WEIGHTED):
        found = final(scaffold(TASK, RATE, local_steps=H, server_step_size=0.8, variate=variate), plan)
        for part, expected in zip(found, scaffold_in_numpy(rounds_of(plan), variate=variate), strict=True):
            close(part, expected)
        mean = np.mean(found.clients, axis=0)
        assert (np.abs(found.server[0] - mean).max() < 1e-13) == (plan is EQUAL)


def feddyn_in_numpy(plan, alpha=0.5):
    """Acar et al. 2021, algorithm 1, with H steps for the inner problem."""
    x, h, own = X0[0], np.zeros(D), np.zeros((N, D))
    for nodes, weights in plan:
        y = trained(nodes, x, lambda y, own=own, nodes=nodes, x=x: -own[nodes] + alpha * (y - x))
        own = own.copy()
        own[nodes] -= alpha * (y - x)
        h = h - alpha * len(nodes) / N * (weights * (y - x)).sum(0)
        x = (weights * y).sum(0) - h / alpha
    return x, h, own


def test_feddyn_equals_its_loop():
    for plan in (EQUAL, WEIGHTED):
        found = final(feddyn(TASK, SGD, local_steps=H, alpha=0.5), plan)
        for part, expected in zip(found, feddyn_in_numpy(rounds_of(plan)), strict=True):
            close(part, expected)
        mean = np.mean(found.clients, axis=0)
        assert (np.abs(found.server[0] - mean).max() < 1e-13) == (plan is EQUAL)


def fedprox_in_numpy(plan, mu=0.7, rate=RATE):
    """Li et al. 2020, algorithm 2, with H steps for the inner problem."""
    x = X0[0]
    for nodes, weights in plan:
        x = (weights * trained(nodes, x, lambda y, x=x: mu * (y - x), rate=rate)).sum(0)
    return x


def test_fedprox_equals_its_loop():
    close(final(fedprox(TASK, SGD, local_steps=H, mu=0.7), WEIGHTED).x, fedprox_in_numpy(rounds_of(WEIGHTED)))


def fednova_in_numpy(plan, momentum=0.5, rate=RATE):
    """Wang et al. 2020: the a_i of their equation for SGD with momentum, in closed form."""
    x = X0[0]
    powers = [np.sum((1 - momentum ** np.arange(1, tau + 1)) / (1 - momentum)) for tau in STEPS]
    norms = np.array(powers)[:, None]
    for nodes, weights in plan:
        y = np.repeat(x[None], len(nodes), axis=0)
        for k, node in enumerate(nodes):
            v = np.zeros(D)
            for _ in range(STEPS[node]):
                v = momentum * v + gradient(node, y[k])
                y[k] -= rate * v
        a = norms[nodes]
        x = x + (weights * a).sum() * (weights * (y - x) / a).sum(0)
    return x


def test_fednova_equals_its_loop():
    """Other numbers of steps and another momentum are arguments of the same program."""
    for momentum in (0.5, 0.0):
        method = fednova(TASK, RATE, local_steps=STEPS, momentum=momentum)
        close(final(method, WEIGHTED).x, fednova_in_numpy(rounds_of(WEIGHTED), momentum))


def adaptive_in_numpy(plan, second_moment, beta1, rate=0.3, tau=0.01):
    """Reddi et al. 2021, algorithm 2, from v = τ²."""
    x, m, v = X0[0], np.zeros(D), np.full(D, tau**2)
    for nodes, weights in plan:
        change = (weights * (trained(nodes, x) - x)).sum(0)
        m = beta1 * m + (1 - beta1) * change
        v = second_moment(v, change**2)
        x = x + rate * m / (np.sqrt(v) + tau)
    return x


ADAPTIVE = {
    "adam": (functools.partial(fedadam, beta1=0.8, beta2=0.7), lambda v, d: 0.7 * v + 0.3 * d, 0.8),
    "yogi": (functools.partial(fedyogi, beta1=0.8, beta2=0.7), lambda v, d: v - 0.3 * d * np.sign(v - d), 0.8),
    "adagrad": (functools.partial(fedadagrad, beta1=0.4), lambda v, d: v + d, 0.4),
}


@pytest.mark.parametrize("name", ADAPTIVE)
def test_adaptive_servers_equal_their_loop(name):
    build, second_moment, beta1 = ADAPTIVE[name]
    found = final(build(TASK, SGD, local_steps=H, server_step_size=0.3, tau=0.01), WEIGHTED)
    close(found.x, adaptive_in_numpy(rounds_of(WEIGHTED), second_moment, beta1))


def test_a_server_takes_any_optax_transformation():
    """FedAvg with momentum at the server, by hand."""
    found = final(fedopt(TASK, SGD, optax.sgd(0.9, momentum=0.5), local_steps=H), WEIGHTED).x
    x, v = X0[0], np.zeros(D)
    for nodes, weights in rounds_of(WEIGHTED):
        v = 0.5 * v + (weights * (trained(nodes, x) - x)).sum(0)
        x = x + 0.9 * v
    close(found, x)
    assert np.ptp(found, axis=0).max() == 0  # rows do not drift apart by rounding


# --- equalities -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "method",
    [
        fedprox(TASK, SGD, local_steps=H, mu=0.0),
        fedopt(TASK, SGD, Partial(optax.sgd, 1.0), local_steps=H),
        fednova(TASK, RATE, local_steps=np.full(N, H)),
    ],
    ids=["fedprox", "fedopt", "fednova"],
)
def test_they_contain_fedavg(method):
    close(final(method, WEIGHTED).x, final(fedavg(TASK, SGD, local_steps=H), WEIGHTED).x)


# --- fixed points: of the loops, which equal the protocols ------------------------------------------------------------


@pytest.mark.parametrize(
    "loop",
    [scaffold_in_numpy, functools.partial(scaffold_in_numpy, variate="gradient"), feddyn_in_numpy],
    ids=["scaffold", "scaffold, gradient", "feddyn"],
)
def test_scaffold_and_feddyn_are_exact(loop):
    """On quadratics that differ, with several local steps and all clients; each c_i or λ_i is the gradient there."""
    x, server, own = loop(everyone(LONG))
    np.testing.assert_allclose(x, OPTIMUM, rtol=0, atol=1e-12)  # contracted to rounding
    np.testing.assert_allclose(server, 0, rtol=0, atol=1e-12)
    np.testing.assert_allclose(own, gradient(np.arange(N), x), rtol=0, atol=1e-11)


@pytest.mark.slow
@pytest.mark.parametrize(
    "method",
    [
        scaffold(TASK, RATE, local_steps=H),
        feddyn(TASK, SGD, local_steps=H, alpha=0.5),
    ],
    ids=["scaffold", "feddyn"],
)
def test_exact_protocols_reach_the_optimum(method):
    found = simulate(KEY, method, client_sampling(N, N, 1000, seed=0), replicate(jnp.asarray(X0[0]), N)).x
    np.testing.assert_allclose(found, np.broadcast_to(OPTIMUM, (N, D)), rtol=0, atol=1e-11)


def stop_of(kept):
    """Solve Σ_i (1 − kept_i) (x − b_i) = 0, if training keeps a share of each client's distance to its optimum b_i."""
    return ((1 - kept) * TARGETS).sum(0) / (1 - kept).sum(0)


def test_fedprox_is_not_exact():
    """With many local steps a client keeps μ / (a + μ) of its distance: nearer to the optimum the larger μ is."""
    for mu in (0.0, 5.0):
        y = np.ones((N, D))  # a distance of 1 from the optimum of the client
        for _ in range(H):
            y = y - RATE * (CURVATURE * y + mu * (y - 1))
        x = fedprox_in_numpy(everyone(LONG), mu)
        np.testing.assert_allclose(x, stop_of(y), rtol=0, atol=1e-12)  # contracted to rounding
        assert np.linalg.norm(x - OPTIMUM) > 1e-2
    distances = [np.linalg.norm(stop_of(mu / (CURVATURE + mu)) - OPTIMUM) for mu in (0.0, 0.7, 5.0, 50.0)]
    assert distances == sorted(distances, reverse=True)
    assert distances[0] > 10 * distances[-1]


def test_fednova_has_the_optimum_of_equal_weights():
    """For small steps FedAvg counts clients as often as they step; the bias of FedNova is in the order of η."""
    counts = STEPS[:, None]

    def fednova_stop(rate):
        return stop_of(1 - (1 - (1 - rate * CURVATURE) ** counts) / counts)

    found = fednova_in_numpy(everyone(LONG), 0.0)
    np.testing.assert_allclose(found, fednova_stop(RATE), rtol=0, atol=1e-12)  # contracted to rounding
    mismatched = stop_of((1 - 1e-6 * CURVATURE) ** counts)
    assert np.linalg.norm(mismatched - OPTIMUM) > 0.1
    biases = [np.linalg.norm(fednova_stop(rate) - OPTIMUM) for rate in (1e-3, 1e-4)]
    assert biases[0] == pytest.approx(10 * biases[1], rel=1e-2)  # the next order is η² / η = 1e-3
    assert biases[0] < 1e-3


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: fednova(TASK, 0.1, local_steps=[1, 2]), r"local_steps of shape \(2,\): .* one number of steps per"),
        (lambda: fednova(TASK, 0.1, local_steps=np.arange(N)), r"local_steps\[0\]=0: must be whole numbers"),
        (lambda: fednova(TASK, 0.1, local_steps=STEPS, momentum=1.0), "momentum=1.0: .* 0 is plain SGD"),
        (lambda: fedprox(TASK, SGD, local_steps=1, mu=-1.0), "mu=-1.0: .* 0 is FedAvg"),
        (lambda: feddyn(TASK, SGD, local_steps=1, alpha=0.0), "alpha=0.0: .* the weight of the distance"),
        (lambda: fedadam(TASK, SGD, local_steps=1, server_step_size=0.1, beta2=1.0), "beta2=1.0: .* a share"),
        (lambda: fedyogi(TASK, SGD, local_steps=1, server_step_size=0.1, beta1=-0.1), "beta1=-0.1"),
        (lambda: fedadagrad(TASK, SGD, local_steps=1, server_step_size=0.1, tau=0.0), "tau=0.0: .* such as 1e-3"),
        (lambda: fedadam(TASK, SGD, local_steps=1, server_step_size=0.0), "server_step_size=0.0"),
    ],
)
def test_bad_numbers_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
