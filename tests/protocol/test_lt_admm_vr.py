"""LT-ADMM-VR against a NumPy loop that draws the same samples, its exact optimum, and LT-ADMM."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial
from problems import X0, exact_quadratic, identical_samples

from gossipjax import lt_admm, lt_admm_vr, simulate
from gossipjax._engine import loop
from gossipjax.mixing import metropolis
from gossipjax.tasks import finite_sum, linear_regression
from gossipjax.timeline import activity, changing_rounds, losses, rounds
from gossipjax.topology import path, ring

KEY, N, M, D, T = jax.random.key(1), 5, 4, 2, 11
RATE, STEPS, PENALTY, BETA, RELAXATION = 0.1, 3, 0.7, 0.1, 0.6
REGRESSION = linear_regression(N, M, D, heterogeneity=1.0, seed=0)
FEATURES, RESPONSES = (np.asarray(REGRESSION.data[name]) for name in ("features", "responses"))
START = np.random.default_rng(2).standard_normal((N, D))
LINE = path(N)
EDGES = list(zip(LINE.senders.tolist(), LINE.receivers.tolist(), strict=True))
DEGREES = LINE.degrees[:, None].astype(float)
LOSSY = changing_rounds(LINE, T, activity=activity.bernoulli(0.6, seed=0), loss=losses.independent(0.3, seed=1))
WHOLE = rounds(metropolis(LINE), T)


def drawn(size):
    """The samples of every round, node and local step."""

    def of(number, node, step):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(KEY, loop.STEPS), node), number)
        return jax.random.randint(jax.random.split(jax.random.fold_in(key, step))[0], (size,), 0, M, jnp.int32)

    every = [jnp.arange(count, dtype=jnp.uint32) for count in (T, N, STEPS)]
    over = jax.vmap(jax.vmap(jax.vmap(of, (None, None, 0)), (None, 0, None)), (0, None, None))
    return np.asarray(jax.jit(over)(*every))


def one(i, s, x):
    return FEATURES[i, s] * (FEATURES[i, s] @ x - RESPONSES[i, s])


def whole_table(x):
    return np.array([[one(i, s, x[i]) for s in range(M)] for i in range(N)])


def arrivals(plan):
    """Which messages of each round arrive, and who acts, from the tables of the plan."""
    for t in range(T):
        if plan is WHOLE:
            yield set(EDGES), np.ones(N, bool)
            continue
        links = plan.xs["links"][t].astype(int)
        arrived = {(j, i) for i, senders in enumerate(links) for j in senders if j < N and j != i}
        yield arrived, np.isin(np.arange(N), plan.xs["nodes"][t])


def in_numpy(plan, size, keep):
    x, z, table = START.copy(), {(i, j): PENALTY * START[i] for i, j in EDGES}, whole_table(START)
    for (arrived, acts), numbers in zip(arrivals(plan), drawn(size), strict=True):
        x = x.copy()
        for i in np.flatnonzero(acts):
            if not keep:
                table[i] = [one(i, s, x[i]) for s in range(M)]
            pull = BETA * (PENALTY * DEGREES[i] * x[i] - sum(z[edge] for edge in EDGES if edge[0] == i))
            phi = x[i]
            for batch in numbers[i]:
                correction = np.mean([one(i, s, phi) - table[i, s] for s in batch], axis=0)
                phi = phi - RATE * (correction + table[i].mean(0)) - pull
                for s in batch:
                    table[i, s] = one(i, s, phi)
            x[i] = phi
        said = {(i, j): z[i, j] - 2 * PENALTY * x[i] for i, j in EDGES}
        z = {
            (i, j): (1 - RELAXATION) * z[i, j] - RELAXATION * said[j, i] if (j, i) in arrived else z[i, j]
            for i, j in EDGES
        }
    return x


def method(size=1, keep=False, graph=LINE, relaxation=RELAXATION, task=None):
    numbers = {"local_steps": STEPS, "penalty": PENALTY, "beta": BETA, "relaxation": relaxation}
    task = finite_sum(REGRESSION) if task is None else task
    return lt_admm_vr(task, RATE, graph, batch_size=size, keep_table=keep, **numbers)


@pytest.mark.parametrize(
    ("plan", "size", "keep"), [(WHOLE, 1, False), (LOSSY, 3, True), (LOSSY, 1, False)], ids=["all", "kept", "lossy"]
)
def test_it_equals_its_loop(plan, size, keep):
    numbers = drawn(size)
    assert size == 1 or any(len(set(batch)) < size for batch in numbers.reshape(-1, size).tolist())
    found = simulate(KEY, method(size, keep), plan, jnp.asarray(START))
    np.testing.assert_allclose(found.x, in_numpy(plan, size, keep), rtol=1e-11, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("keep", [False, True])
def test_it_is_exact_with_single_samples_absent_nodes_and_lost_messages(keep):
    """Plain gradients of single samples stop at errors above 1e-3 here; the variance of these ones vanishes."""
    plan = changing_rounds(LINE, 6000, activity=activity.bernoulli(0.8, seed=0), loss=losses.independent(0.2, seed=1))
    x = simulate(KEY, method(keep=keep), plan, jnp.asarray(START)).x
    np.testing.assert_allclose(x, np.broadcast_to(REGRESSION.test["optimum"], x.shape), rtol=0, atol=1e-10)


def test_with_one_sample_it_is_lt_admm():
    task, graph, start = exact_quadratic(), ring(8), jnp.asarray(X0)
    numbers = {"local_steps": STEPS, "penalty": PENALTY, "beta": BETA, "relaxation": RELAXATION}
    plain = lt_admm(task, Partial(optax.sgd, RATE), graph, **numbers)
    other = method(2, graph=graph, task=identical_samples(task, 1))
    ours, theirs = (simulate(KEY, each, rounds(metropolis(graph), T), start).x for each in (other, plain))
    np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-12)


def test_pulls_sum_to_zero():
    """With α = 1/2, everybody there and no gradients; the bound is rounding of numbers of size one."""
    flat = dataclasses.replace(REGRESSION, data=REGRESSION.data | {"features": REGRESSION.data["features"] * 0})
    x = simulate(KEY, method(M, relaxation=0.5, task=finite_sum(flat)), WHOLE, jnp.asarray(START)).x
    np.testing.assert_allclose(x.mean(axis=0), START.mean(axis=0), rtol=0, atol=1e-12)
    assert np.abs(x - START).max() > 0.1
