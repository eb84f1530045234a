"""Base-(k+1) graphs and EquiTopo: what their theorems say, exactly."""

import functools
import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gossipjax as gj
from gossipjax import mixing
from gossipjax.mixing._base_graph import _simple
from gossipjax.mixing._equi_topo import _mean_of_shifts, _one_peer, _paired
from theory import mixing as theory

LENGTHS = {
    1: (2, [1, 3, 2, 5, 4, 5, 3, 7, 6, 7, 5, 7, 6, 7, 4, 9, 8, 9, 7, 9, 8, 9, 6, 9, 8, 9, 7, 9, 8, 9, 5, 11]),
    2: (2, [1, 1, 2, 3, 2, 4, 3, 2, 4, 5, 3, 5, 5, 4, 4, 5, 3, 6, 5, 5, 6, 6, 4, 6, 6, 3, 6, 7, 5, 7, 5, 6]),
    3: (2, [1, 1, 1, 3, 2, 3, 2, 2, 4, 4, 2, 4, 4, 4, 2]),
}
"""For k: the first n, and the number of rounds for n, n + 1, …"""


def product(rounds):
    return functools.reduce(operator.matmul, [W.toarray() for W in rounds][::-1])


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_base_graphs_average_exactly(k):
    """For every n: after the last round each node has the mean, with at most k neighbours in each round."""
    for n in range(1, 49):
        rounds = mixing.base_graph(n, k)
        assert np.abs(product(rounds) - 1 / n).max() < 1e-15  # a product of a dozen matrices of weights up to 1
        for W in rounds:
            mixing.check_weights(W, "symmetric")
            assert (np.diff(W.indptr) - (W.diagonal() != 0)).max() <= k
        assert len(rounds) <= 2 * np.log(n) / np.log(k + 1) + 2


@pytest.mark.parametrize("k", LENGTHS)
def test_base_graphs_have_the_lengths_of_the_paper(k):
    first, lengths = LENGTHS[k]
    assert [len(mixing.base_graph(n, k)) for n in range(first, first + len(lengths))] == lengths


def test_rounds_of_small_base_graphs():
    """By hand: the rounds for 5 and 6 nodes, and the simple graph, which is longer for 6."""

    def edges(rounds):
        return [{(i, j): W[i, j] for i in range(n) for j in range(i) if W[i, j]} for W in rounds for n in W.shape[:1]]

    half = [{(1, 0): 0.5, (3, 2): 0.5}, {(2, 0): 0.5, (3, 1): 0.5}]
    assert edges(mixing.base_graph(5, 1)) == [*half, {(1, 0): 0.5, (4, 3): 0.8}, *half]
    pairs, third = {(1, 0): 0.5, (4, 3): 0.5}, {(2, 1): pytest.approx(2 / 3), (5, 4): pytest.approx(2 / 3)}
    assert edges(mixing.base_graph(6, 1)) == [pairs, third, pairs, {(3, 0): 0.5, (4, 1): 0.5, (5, 2): 0.5}]
    assert len(_simple(list(range(6)), 1)) == 5


def test_a_run_on_a_base_graph_ends_in_the_mean():
    rounds = mixing.base_graph(11, 2)
    plan = gj.timeline.rounds(rounds, len(rounds))
    x0 = jnp.asarray(np.random.default_rng(0).standard_normal((11, 3)))
    run = gj.simulate(jax.random.key(0), gj.gossip_averaging(), plan, x0, progress=False)
    np.testing.assert_allclose(run.x, np.broadcast_to(x0.mean(0), (11, 3)), atol=1e-15)
    assert plan.properties.tags >= {"symmetric", "doubly_stochastic"}


def test_static_equi_topo_by_hand():
    shifts = np.array([13, 16, 6, 1])
    for directed, rho in ((True, 0.750784), (False, 0.714363)):
        W = _mean_of_shifts(17, shifts, directed).toarray()
        assert np.linalg.norm(W - 1 / 17, 2) == pytest.approx(rho, abs=1e-6)
    for directed in (True, False):
        W = mixing.equi_static(1024, 113, seed=1, directed=directed)
        mixing.check_weights(W, "doubly" if directed else "symmetric")
        # 113 shifts promise a norm of 0.5 with probability 0.95; the largest of 200 draws is 0.3204.
        circulant = np.abs(np.fft.fft(W[:, [0]].toarray().ravel()))[1:].max()
        assert circulant < 0.35


def contraction(matrices):
    """Range over directions of the mean factor of the squared disagreement."""
    n = matrices[0].shape[0]
    mean = sum(np.asarray((W.T @ W).toarray()) for W in matrices) / len(matrices)
    basis = np.linalg.svd(np.eye(n) - 1 / n)[0][:, :-1]
    values = np.linalg.eigvalsh(basis.T @ mean @ basis)
    return values[0], values[-1]


@pytest.mark.parametrize(("n", "eta", "factor"), [(6, 0.5, 0.416667), (6, 1.0, 0.666667), (24, 0.5, 0.479167)])
def test_one_directed_peer_contracts_alike_in_every_direction(n, eta, factor):
    """Over all shifts: the factor is exact, does not depend on the direction, and is below ½ at η = ½ for every n."""
    every = [_one_peer((np.arange(n) - u) % n, eta) for u in range(1, n)]
    low, high = contraction(every)
    exact = 1 - 2 * eta + 2 * eta**2 * (n - 1) / n
    assert low == pytest.approx(exact, abs=1e-12)
    assert high == pytest.approx(exact, abs=1e-12)
    assert exact == pytest.approx(factor, abs=1e-6)
    assert exact == pytest.approx(theory.one_peer_shift_factor(n, eta * (n - 1) / n), abs=1e-12)


@pytest.mark.parametrize(
    ("n", "idle", "largest"), [(6, 0.1333, 0.513889), (8, 0.0714, 0.507812), (24, 0.1014, 0.554468)]
)
def test_one_undirected_peer_contracts_at_most_so(n, idle, largest):
    """Over all shifts and starts: the share of idle nodes, and the worst direction."""
    partners = [_paired(n, u, s) for u in range(1, n) for s in range(n)]
    assert np.mean([partner == np.arange(n) for partner in partners]) == pytest.approx(idle, abs=5e-5)
    matrices = [_one_peer(partner, 0.5) for partner in partners]
    assert contraction(matrices)[1] == pytest.approx(largest, abs=1e-6)
    assert all(abs(W - W.T).max() == 0 for W in matrices)


def test_runs_on_random_peers_contract_as_predicted():
    """The factor per round does not grow with n; its mean over 400 rounds, each from a fresh start."""
    for n in (32, 512):
        rng = np.random.default_rng(n)
        rounds = mixing.equi_dynamic(n, 400, seed=n)
        for W in rounds[:3]:
            mixing.check_weights(W, "doubly")
        x = rng.standard_normal((400, n))
        x -= x.mean(1, keepdims=True)
        ratio = np.array([np.sum((W @ each) ** 2) / np.sum(each**2) for W, each in zip(rounds, x, strict=True)])
        predicted = 1 - 1 + 0.5 * (n - 1) / n
        assert abs(ratio.mean() - predicted) < 4 * ratio.std(ddof=1) / 20
    for W in mixing.equi_dynamic(9, 3, seed=0, directed=False):
        mixing.check_weights(W, "symmetric")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: mixing.base_graph(0), "num_nodes=0"),
        (lambda: mixing.base_graph(5, 0), "max_degree=0"),
        (lambda: mixing.equi_static(1, 3, seed=0), "num_nodes=1: a shift needs"),
        (lambda: mixing.equi_static(5, 0, seed=0), "num_shifts=0"),
        (lambda: mixing.equi_dynamic(5, 3, seed=0, eta=1.5), "eta=1.5"),
        (lambda: mixing.equi_dynamic(5, 0, seed=0), "num_rounds=0"),
    ],
)
def test_what_cannot_be_built_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_more_neighbours_than_there_are_change_nothing() -> None:
    most, beyond = mixing.base_graph(6, 5), mixing.base_graph(6, 10**30)
    assert len(most) == len(beyond)
    assert all((a != b).nnz == 0 for a, b in zip(most, beyond, strict=True))
