"""Noise of DECOR and ZIP-DL: its covariance, what it hides from whom, and the mean that it keeps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import X0, N
from two_leaves import split

from gossipjax import audit, gossip_averaging, privacy, simulate
from gossipjax.mixing import lazy, metropolis
from gossipjax.sharing import decor, zip_dl
from gossipjax.timeline import rounds
from gossipjax.topology import barabasi_albert, path, ring
from theory import privacy as formulas

GRAPH = barabasi_albert(N, 2, seed=1)
ADJACENCY = GRAPH.adjacency().toarray()
MIX = metropolis(GRAPH)
W = MIX.toarray()
KEY = jax.random.key(0)
DRAWS = 2000


def run(sharing, num_rounds, x0, mixing=MIX, key=KEY):
    return simulate(key, gossip_averaging(sharing), rounds(mixing, num_rounds), x0).x


def near(found, expected):
    """Each entry of the covariance of 2,000 draws lies within 5 standard errors of √(c_ii c_jj + c_ij²)/√2000."""
    variances = expected.diagonal()
    error = np.sqrt(np.outer(variances, variances) + expected**2) / np.sqrt(DRAWS)
    return np.abs(found - expected) <= 5 * error + 1e-12  # rounding, where the covariance is exactly 0


def test_decor_has_the_covariance_of_its_formula():
    """Σ = σ² I + σ_p² L, fresh in every round and leaf, and the mean moves by σ z̄ alone."""
    mixing = lazy(W)
    x = run(decor(GRAPH, 0.5, 2.0), 1, jnp.zeros((N, DRAWS)), mixing)
    noise = np.linalg.solve(mixing.toarray(), np.asarray(x))
    laplacian = np.diag(ADJACENCY.sum(axis=1)) - ADJACENCY
    covariance = 0.25 * np.eye(N) + 4 * laplacian
    assert near(noise @ noise.T / DRAWS, covariance).all()
    own = run(decor(GRAPH, 0.5, 0.0), 1, jnp.zeros((N, DRAWS)), mixing)
    np.testing.assert_allclose(np.asarray(x).mean(0), np.asarray(own).mean(0), rtol=0, atol=1e-13)
    np.testing.assert_allclose(
        1 / np.linalg.inv(covariance).diagonal(), 1 / formulas.pairwise_mu_squared(ADJACENCY, 0.5, 2.0), rtol=1e-12
    )
    for pair_std, expected in ((2.0, covariance), (0.0, 0.25 * np.eye(N))):
        once, two = (np.asarray(run(decor(GRAPH, 0.5, pair_std), T, jnp.zeros((N, DRAWS)), np.eye(N))) for T in (1, 2))
        second = two - once
        assert near(second @ second.T / DRAWS, expected).all()
        assert near(second @ once.T / DRAWS + expected, expected).all()


def test_audit_of_decor_gives_the_formula():
    """Wires over ring of 4, σ = σ_p = 1, T = 4: 28/15 fresh, 4 reused."""
    graph = ring(4)
    plan = rounds(metropolis(graph), 4)
    for fresh, expected in ((True, 28 / 15), (False, 4.0)):
        noise = privacy.pairwise_noise(graph, 1.0, 1.0, fresh=fresh)
        found = audit(plan, privacy.steps(), observers=[privacy.Wire()], noise=noise).mu ** 2
        np.testing.assert_allclose(found, expected, rtol=1e-7)  # certificates


def event_of(t):
    timeline = rounds(MIX, t + 1)
    return timeline.event(KEY, timeline.shared, jax.tree.map(lambda leaf: jnp.asarray(leaf[t]), timeline.xs))


def messages(sharing, x, t=0):
    """What each node sends to each neighbour in one round, and to itself."""
    return np.asarray(jax.jit(sharing.encode)(KEY, (), x, x, event_of(t))[1][0])


def loop(sent):
    """x_i ← W_ii (x_i + n_ii) + Σ_j W_ij (x_j + n_ji), edge by edge."""
    return np.stack(
        [W[i, i] * sent(i, i) + sum(W[i, j] * sent(j, i) for j in np.flatnonzero(ADJACENCY[i])) for i in range(N)]
    )


@pytest.mark.parametrize("own", [False, True])
def test_zip_dl_sends_noise_that_sums_to_zero_over_the_receivers(own):
    sharing, x = zip_dl(GRAPH, 0.7, own=own), np.asarray(X0)
    said = messages(sharing, jnp.asarray(X0))
    places = [list(np.flatnonzero(row)) for row in ADJACENCY]

    def sent(j, k):
        return said[j, -1 if j == k else places[j].index(k)]

    for j in range(N):
        total = sum(W[k, j] * (sent(j, k) - x[j]) for k in places[j]) + W[j, j] * (sent(j, j) - x[j])
        np.testing.assert_allclose(total, 0, atol=1e-14)
        assert (np.abs(sent(j, j) - x[j]).max() > 1e-3) == own
    merged = np.asarray(sharing.merge(KEY, (), (jnp.asarray(X0), jnp.asarray(said), event_of(0)))[1])
    np.testing.assert_allclose(merged, loop(sent), rtol=0, atol=1e-14)
    np.testing.assert_allclose(merged.mean(0), x.mean(0), rtol=0, atol=1e-14)
    assert np.abs(merged - W @ x).max() > 0.05


def test_zip_dl_has_the_covariance_and_the_loss_of_its_formulas():
    """c receivers hear x + D n; the loss follows from the covariance that was measured, and from the formula."""
    said = messages(zip_dl(GRAPH, 1.0), jnp.zeros((N, DRAWS)))
    for j in range(N):
        receivers = np.flatnonzero(ADJACENCY[j])
        m, weights = len(receivers), W[receivers, j]
        scale = np.diag(weights.mean() / weights)
        covariance = m / (m - 1) * scale @ (np.eye(m) - 1 / m) @ scale
        found = said[j, :m] @ said[j, :m].T / DRAWS
        assert near(found, covariance).all()
        for c in range(1, m):
            exact = np.linalg.inv(covariance[:c, :c]).sum()
            np.testing.assert_allclose(formulas.zero_sum_weighted_mu_squared(weights, np.arange(c)), exact, rtol=1e-10)
        assert formulas.zero_sum_weighted_mu_squared(weights, np.arange(m)) == np.inf


def test_zip_dl_draws_other_noise_in_every_round():
    """Between rounds the noise to each receiver, of 2,000 draws, has a correlation within 5/√2000 of 0."""
    first, second = (messages(zip_dl(GRAPH, 1.0), jnp.zeros((N, DRAWS)), t) for t in (0, 1))
    for j in range(N):
        for k in range(int(ADJACENCY[j].sum())):
            assert abs(np.corrcoef(first[j, k], second[j, k])[0, 1]) < 5 / np.sqrt(DRAWS)


def test_zip_dl_without_noise_is_full_sharing_and_leaves_draw_other_noise():
    quiet, loud, x = zip_dl(GRAPH, 0.0), zip_dl(GRAPH, 1.0), jnp.asarray(X0)
    merged = quiet.merge(KEY, (), (x, jnp.asarray(messages(quiet, x)), event_of(0)))[1]
    np.testing.assert_allclose(merged, W @ X0, rtol=0, atol=1e-14)  # sums in another order
    zeros = jax.tree.map(jnp.zeros_like, split(X0))
    left, right = jax.tree.leaves(jax.jit(loud.encode)(KEY, (), zeros, zeros, event_of(0))[1][0])
    assert left.shape[:2] == right.shape[:2] == (N, ADJACENCY.sum(axis=1).max() + 1)
    assert not np.isin(np.ravel(left)[np.ravel(left) != 0], np.ravel(right)).any()


def test_bad_input_is_refused():
    for build in (lambda s: decor(GRAPH, s, 1.0), lambda s: decor(GRAPH, 1.0, s), lambda s: zip_dl(GRAPH, s)):
        with pytest.raises(ValueError, match="std=-1"):
            build(-1.0)
    with pytest.raises(ValueError, match=r"node\(s\) 0, 4 have fewer than two receivers.*own=True"):
        zip_dl(path(5), 1.0)
    with pytest.raises(ValueError, match="build decor for the graph"):
        run(decor(ring(5), 1.0, 1.0), 1, jnp.asarray(X0))
    with pytest.raises(ValueError, match="build zip_dl for the graph"):
        run(zip_dl(ring(5), 1.0), 1, jnp.asarray(X0))
