"""Methods on a fresh random graph in every round, with losses, against NumPy loops over the matrices of the plan.

Both messages of a pair are lost together, so that matrices stay doubly stochastic; RelaySum loses single ones.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial
from problems import CURVATURE, TARGETS, X0, N, exact_quadratic
from test_dual_methods import arrivals
from test_exact_methods import decentlam_in_numpy, k_gt_in_numpy, quasi_global_in_numpy
from test_protocols import TRACKING, tracked
from test_variance_reduced import CASES, START, TASK
from test_variance_reduced import KEY as SAMPLING
from test_variance_reduced import N as FEW
from test_variance_reduced import T as LONG

from gossipjax import (
    decentlam,
    dinno,
    gradient_tracking,
    k_gt,
    quasi_global_momentum,
    relay_sgd,
    simulate,
)
from gossipjax.mixing import to_dense
from gossipjax.observe import models
from gossipjax.timeline import changing_rounds, losses, overlays
from gossipjax.topology import random_tree

KEY, RATE, T = jax.random.key(1), 0.1, 10
EXACT, SGD = exact_quadratic(), Partial(optax.sgd, RATE)
TREE = random_tree(N, seed=3)


def fresh(num_nodes, degree, num_rounds):
    pairs = losses.independent(0.3, seed=2, both_ways=True)
    return changing_rounds(overlays.regular(num_nodes, degree, seed=5), num_rounds, loss=pairs)


def matrices_of(plan):
    """The matrix of each round."""

    def of(x):
        return to_dense(plan.event(KEY, plan.shared, x).mixing, plan.properties.num_rows)

    found = np.asarray(jax.vmap(of)(jax.tree.map(jnp.asarray, plan.xs)))
    assert len({matrix.tobytes() for matrix in found}) > len(plan) / 2  # few nodes have few graphs
    np.testing.assert_allclose(found.sum(1), 1, rtol=0, atol=1e-14)
    np.testing.assert_allclose(found.sum(2), 1, rtol=0, atol=1e-14)
    return found


PLAN = fresh(N, 4, T)


def gradient(x):
    return CURVATURE * (x - TARGETS)


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-12)


def run(protocol, plan=PLAN):
    return simulate(KEY, protocol, plan, jnp.asarray(X0))


@pytest.mark.parametrize("order", [pytest.param(name, marks=pytest.mark.slow) for name in TRACKING])
def test_gradient_tracking(order):
    x, y = tracked(order, matrices_of(PLAN), X0, RATE, gradient)
    found = run(gradient_tracking(EXACT, SGD, order=order))
    close(found.x, x)
    close(found.state.tracker, y)
    close(found.state.tracker.mean(0), found.state.gradient.mean(0))


METHODS = {
    "k_gt": (k_gt(EXACT, RATE, local_steps=3, communication_step_size=0.7), k_gt_in_numpy, {"steps": 3, "server": 0.7}),
    "quasi_global_momentum": (quasi_global_momentum(EXACT, SGD, momentum=0.8), quasi_global_in_numpy, {"beta": 0.8}),
    "decentlam": (decentlam(EXACT, SGD, momentum=0.8), decentlam_in_numpy, {"beta": 0.8}),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "k_gt" else [pytest.mark.slow]) for name in METHODS]
)
def test_corrections_and_momenta(name):
    method, loop, settings = METHODS[name]
    close(run(method).x, loop(matrices_of(PLAN), rate=RATE, **settings)[0])


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_variance_reduced_tracking(name):
    build, replayed = CASES[name]
    plan = fresh(FEW, 2, LONG)
    found = simulate(SAMPLING, build(TASK), plan, jnp.asarray(START), observers=[models()], record_every=1)
    np.testing.assert_allclose(found["model"][1:], list(replayed(matrices_of(plan))), rtol=0, atol=1e-12)
    means = (np.mean(leaf, axis=0) for leaf in (found.state.tracker, found.state.estimate))
    np.testing.assert_allclose(*means, rtol=0, atol=1e-12)


@pytest.mark.slow
def test_dinno():
    """Of the links of each round only whether they carry a message is used."""
    x, p, rho = X0, np.zeros_like(X0), 0.3
    for matrix in matrices_of(PLAN):
        links = (matrix != 0) & ~np.eye(N, dtype=bool)
        degrees = links.sum(1, keepdims=True)
        p = p + rho * (degrees * x - links @ x)
        psi = x
        for _ in range(4):
            psi = psi - RATE * (gradient(psi) + p + 2 * rho * degrees * psi - rho * (degrees * x + links @ x))
        x = psi
    found = run(dinno(EXACT, SGD, local_steps=4, penalty=rho))
    close(found.x, x)
    close(found.state.dual, p)
    assert np.abs(p.sum(0)).max() < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("normalize", ["sum", "mean"])
def test_relay_sgd_with_lost_messages(normalize):
    """A message that does not arrive counts as zero models."""
    plan = changing_rounds(TREE, T, loss=losses.independent(0.3, seed=4))
    neighbors = [TREE.neighbors(i).tolist() for i in range(N)]
    edges = [(i, j) for i in range(N) for j in neighbors[i]]
    x, sums, counts = X0, {edge: np.zeros(3) for edge in edges}, dict.fromkeys(edges, 0)
    for arrived, _ in arrivals(plan):
        assert len(arrived) < len(edges)
        z = x - RATE * gradient(x)
        sent = {
            (i, j): (
                z[i] + sum(sums[k, i] for k in neighbors[i] if k != j),
                1 + sum(counts[k, i] for k in neighbors[i] if k != j),
            )
            for i, j in edges
        }
        sums, counts = ({edge: sent[edge][k] * (edge in arrived) for edge in edges} for k in (0, 1))
        total = np.array([z[i] + sum(sums[k, i] for k in neighbors[i]) for i in range(N)])
        known = np.array([1 + sum(counts[k, i] for k in neighbors[i]) for i in range(N)])[:, None]
        x = (total + (N - known) * X0) / N if normalize == "sum" else total / known
    close(run(relay_sgd(EXACT, SGD, TREE, normalize=normalize), plan).x, x)
