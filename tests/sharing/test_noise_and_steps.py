"""Noise on shared models, and several mixings a round."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial
from problems import X0, N, exact_quadratic
from two_leaves import joined, split

from gossipjax import dpsgd, gossip_averaging, simulate
from gossipjax.mixing import lazy, metropolis
from gossipjax.sharing import decor, multi_step, noisy
from gossipjax.timeline import rounds
from gossipjax.topology import barabasi_albert

GRAPH = barabasi_albert(N, 2, seed=1)
W = metropolis(GRAPH).toarray()
RHO = np.linalg.norm(W - 1 / N, 2)
KEY = jax.random.key(0)


def run(sharing, num_rounds, key=KEY, x0=X0):
    return simulate(key, gossip_averaging(sharing), rounds(W, num_rounds), jnp.asarray(x0)).x


def chebyshev(W, rho, steps, x):
    """T_K(W/ρ) x / T_K(1/ρ), by the eigenvalues of W and the cosine formula."""
    values, vectors = np.linalg.eigh(W)
    T = np.polynomial.chebyshev.Chebyshev.basis(steps)
    return vectors @ np.diag(T(values / rho) / T(1 / rho)) @ vectors.T @ x


@pytest.mark.parametrize("steps", [1, 2, 3, 6])
def test_steps_are_powers_and_chebyshev_polynomials(steps):
    np.testing.assert_allclose(run(multi_step(steps), 2), np.linalg.matrix_power(W, 2 * steps) @ X0, rtol=0, atol=1e-13)
    expected = chebyshev(W, RHO, steps, chebyshev(W, RHO, steps, X0))
    np.testing.assert_allclose(run(multi_step(steps, RHO), 2), expected, rtol=0, atol=1e-12)


def test_acceleration_contracts_as_promised():
    """By 1 / T_K(1/ρ) a round, which the slowest mode reaches."""
    steps = 6
    factor = 1 / np.polynomial.chebyshev.Chebyshev.basis(steps)(1 / RHO)
    slowest = np.linalg.eigh(W)[1][:, [-2]]
    np.testing.assert_allclose(np.linalg.norm(run(multi_step(steps, RHO), 1, x0=slowest)), factor, rtol=1e-9)
    assert factor < RHO**steps


def test_steps_in_dpsgd_mix_what_was_trained():
    task = exact_quadratic()
    method = dpsgd(task, Partial(optax.sgd, 0.1), sharing=multi_step(3))
    plain = dpsgd(task, Partial(optax.sgd, 0.1))
    three, whole = (simulate(KEY, p, rounds(w, 5), jnp.asarray(X0)).x for p, w in ((method, W), (plain, W @ W @ W)))
    np.testing.assert_allclose(three, whole, rtol=0, atol=1e-12)


def noise_of(sharing, key=KEY, x0=None, num_rounds=1):
    """The noise of one round: its mixing undone."""
    x0 = jnp.asarray(X0) if x0 is None else x0
    mixing = lazy(W).toarray()
    x = simulate(key, gossip_averaging(sharing), rounds(mixing, num_rounds), x0).x
    return np.linalg.solve(mixing, joined(x)) - joined(x0)


def test_noise_has_its_covariance():
    """300 seeds of 3 coordinates: 900 samples, each entry within 5 standard errors of √(c_ii c_jj + c_ij²) / 30."""
    samples = {"independent": [], "zero sum": []}
    wide = jnp.zeros((N, 900))
    for name, topology in (("independent", None), ("zero sum", GRAPH)):
        samples[name] = noise_of(noisy(0.5) if topology is None else decor(topology, 0.0, 0.5), x0=wide)
    degrees = np.diag(GRAPH.degrees.astype(float))
    for name, expected in (("independent", np.eye(N)), ("zero sum", degrees - GRAPH.adjacency().toarray())):
        found = samples[name] @ samples[name].T / 900 / 0.25
        error = np.sqrt(np.outer(expected.diagonal(), expected.diagonal()) + expected**2) / 30
        assert (np.abs(found - expected) < 5 * error).all(), name
    assert np.abs(samples["zero sum"].sum(0)).max() < 1e-12
    assert np.abs(samples["independent"].sum(0)).max() > 0.1


def test_noise_is_fresh_in_every_round_seed_and_leaf():
    first, other = noise_of(noisy(1.0)), noise_of(noisy(1.0), key=jax.random.key(1))
    assert np.abs(first - other).max() > 0.1
    two = simulate(KEY, gossip_averaging(noisy(1.0)), rounds(np.eye(N), 2), jnp.asarray(X0)).x
    assert np.abs(np.asarray(two) - X0 - 2 * first).max() > 0.1
    leaves = noise_of(decor(GRAPH, 0.0, 1.0), x0=split(X0))
    assert np.abs(np.diff(leaves, axis=1)).max() > 0.1
    assert np.abs(leaves.sum(0)).max() < 1e-12


def test_without_noise_it_is_full_sharing():
    np.testing.assert_array_equal(run(decor(GRAPH, 0.0, 0.0), 3), run(None, 3))
