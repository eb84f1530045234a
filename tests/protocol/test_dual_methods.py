"""ADMM and its relatives, and RelaySum on trees: NumPy loops edge by edge, losses, fixed points, what is refused."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial
from problems import CURVATURE, TARGETS, X0, N, exact_quadratic, quadratic_prox

from gossipjax import Diverged, admm, admm_tracking, dinno, dlm, lt_admm, relay_averaging, relay_sgd, simulate
from gossipjax.mixing import metropolis
from gossipjax.observe import models
from gossipjax.timeline import activity, changing_rounds, losses, rounds
from gossipjax.topology import balanced_tree, barabasi_albert, from_adjacency, path, random_tree, ring, star

KEY, RATE, T = jax.random.key(1), 0.1, 10
GRAPH, TREE = barabasi_albert(N, 2, seed=1), random_tree(N, seed=3)
SGD, TASK = Partial(optax.sgd, RATE), exact_quadratic()
EDGES = list(zip(GRAPH.senders.tolist(), GRAPH.receivers.tolist(), strict=True))
DEGREES = GRAPH.degrees[:, None].astype(float)
LAPLACIAN = np.diag(DEGREES[:, 0]) - GRAPH.adjacency().toarray()
PROX = Partial(quadratic_prox, CURVATURE, TARGETS)
OPTIMUM = (CURVATURE * TARGETS).sum(0) / CURVATURE.sum(0)


def gradient(x):
    return CURVATURE * (x - TARGETS)


def run(protocol, plan=None, num_rounds=T, **settings):
    plan = rounds(metropolis(GRAPH), num_rounds) if plan is None else plan
    return simulate(KEY, protocol, plan, jnp.asarray(X0), **settings)


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-12)


def sums(z):
    total = np.zeros_like(X0)
    for i, j in EDGES:
        total[i] += z[i, j]
    return total


def arrivals(plan):
    """Which messages of each round arrive, and who acts, from the tables of the plan."""
    for t in range(len(plan)):
        links = plan.xs["links"][t].astype(int)
        arrived = {(j, i) for i, senders in enumerate(links) for j in senders if j < N and j != i}
        yield arrived, np.isin(np.arange(N), plan.xs["nodes"][t]) if "nodes" in plan.xs else np.ones(N, bool)


ORDER = np.random.default_rng(0).permutation(N)
LOSSY = changing_rounds(GRAPH, 30, activity=activity.bernoulli(0.7, seed=0), loss=losses.independent(0.3, seed=1))


def whole(num_rounds):
    return ((set(EDGES), np.ones(N, bool)) for _ in range(num_rounds))


def admm_in_numpy(penalty, relaxation, schedule):
    x, z = X0, {(i, j): penalty * X0[i] for i, j in EDGES}
    for arrived, acts in schedule:
        reach = 1 / (penalty * DEGREES)
        solved = (reach * sums(z) + reach * CURVATURE * TARGETS) / (1 + reach * CURVATURE)
        x = np.where(acts[:, None], solved, x)
        said = {(i, j): z[i, j] - 2 * penalty * x[i] for i, j in EDGES}
        z = {
            (i, j): (1 - relaxation) * z[i, j] - relaxation * said[j, i] if (j, i) in arrived else z[i, j]
            for i, j in EDGES
        }
    return x


@pytest.mark.parametrize("relaxation", [pytest.param(0.5, marks=pytest.mark.slow), 0.9])
def test_admm_equals_its_loop(relaxation):
    found = run(admm(GRAPH, PROX, penalty=0.7, relaxation=relaxation))
    close(found.x, admm_in_numpy(0.7, relaxation, whole(T)))


def test_admm_with_absent_nodes_and_lost_messages_equals_its_loop():
    arrived, acts = zip(*arrivals(LOSSY), strict=True)
    assert min(map(len, arrived)) < len(EDGES) / 2
    assert not np.all(acts)
    close(run(admm(GRAPH, PROX, penalty=0.7, relaxation=0.6), LOSSY).x, admm_in_numpy(0.7, 0.6, arrivals(LOSSY)))


def lt_admm_in_numpy(penalty, beta, relaxation, schedule):
    x, z = X0, {(i, j): penalty * X0[i] for i, j in EDGES}
    for arrived, acts in schedule:
        phi, pull = x, beta * (penalty * DEGREES * x - sums(z))
        for _ in range(3):
            phi = phi - RATE * gradient(phi) - pull
        x = np.where(acts[:, None], phi, x)
        said = {(i, j): z[i, j] - 2 * penalty * x[i] for i, j in EDGES}
        z = {
            (i, j): (1 - relaxation) * z[i, j] - relaxation * said[j, i] if (j, i) in arrived else z[i, j]
            for i, j in EDGES
        }
    return x


@pytest.mark.parametrize("plan", [None, LOSSY], ids=["all", "lossy"])
def test_lt_admm_equals_its_loop(plan):
    method = lt_admm(TASK, SGD, GRAPH, local_steps=3, penalty=0.7, beta=0.1, relaxation=0.6)
    schedule = whole(T) if plan is None else arrivals(plan)
    close(run(method, plan).x, lt_admm_in_numpy(0.7, 0.1, 0.6, schedule))


def admm_tracking_in_numpy(step_size, gamma, penalty, relaxation, schedule):
    x, z, w = X0, {(i, j): penalty * X0[i] for i, j in EDGES}, dict.fromkeys(EDGES, np.zeros(3))
    for arrived, acts in schedule:
        y, s = (x + sums(z)) / (1 + penalty * DEGREES), (gradient(x) + sums(w)) / (1 + penalty * DEGREES)
        x = np.where(acts[:, None], (1 - gamma) * x + gamma * (y - step_size * s), x)
        z, w = (
            {
                (i, j): (1 - relaxation) * old[i, j] - relaxation * (old[j, i] - 2 * penalty * mean[j])
                if (j, i) in arrived
                else old[i, j]
                for i, j in EDGES
            }
            for old, mean in ((z, y), (w, s))
        )
    return x


@pytest.mark.parametrize("plan", [pytest.param(None, marks=pytest.mark.slow), LOSSY], ids=["all", "lossy"])
def test_admm_tracking_equals_its_loop(plan):
    numbers = {"gamma": 0.6, "penalty": 0.7, "relaxation": 0.8}
    schedule = whole(T) if plan is None else arrivals(plan)
    found = run(admm_tracking(TASK, 0.3, GRAPH, **numbers), plan)
    close(found.x, admm_tracking_in_numpy(0.3, schedule=schedule, **numbers))


@pytest.mark.slow
def test_admm_tracking_without_gradients_conserves_what_its_page_says():
    flat = exact_quadratic(curvature=np.full_like(CURVATURE, 1e-300))
    x = run(admm_tracking(flat, 0.3, GRAPH, gamma=0.6, penalty=0.7, relaxation=0.8), num_rounds=600).x
    weights = 2 * 0.8 + 0.6 * 0.7 * DEGREES
    np.testing.assert_allclose(x, np.broadcast_to((weights * X0).sum(0) / weights.sum(), x.shape), rtol=0, atol=1e-10)


def test_dlm_equals_its_loop():
    x, y = X0, np.zeros_like(X0)
    for _ in range(T):
        x = x - RATE * (gradient(x) + 0.4 * LAPLACIAN @ x + y)
        y = y + 0.4 * LAPLACIAN @ x
    found = run(dlm(TASK, RATE, penalty=0.4))
    close(found.x, x)
    close(found.state.dual + 0.4 * LAPLACIAN @ x, y)
    assert np.abs(found.state.dual.sum(0)).max() < 1e-12


@pytest.mark.parametrize("form", [pytest.param("dense", marks=pytest.mark.slow), "table"])
def test_dinno_equals_its_loop(form):
    x, p, rho, adjacency = X0, np.zeros_like(X0), 0.3, GRAPH.adjacency().toarray()
    for _ in range(T):
        p = p + rho * LAPLACIAN @ x
        psi = x
        for _ in range(4):
            psi = psi - RATE * (gradient(psi) + p + 2 * rho * DEGREES * psi - rho * (DEGREES * x + adjacency @ x))
        x = psi
    found = run(dinno(TASK, SGD, local_steps=4, penalty=rho), rounds(metropolis(GRAPH), T, form=form))
    close(found.x, x)
    close(found.state.dual, p)
    assert np.abs(p.sum(0)).max() < 1e-12


def relay_in_numpy(tree, rounds_, value, normalize):
    """The authors' loop, with a dictionary of messages; ``value(x)`` is what a node adds to its messages."""
    neighbors = [tree.neighbors(i).tolist() for i in range(N)]
    x = X0
    messages = {(i, j): np.zeros(3) for i in range(N) for j in neighbors[i]}
    counts = dict.fromkeys(messages, 0)
    for _ in range(rounds_):
        z = value(x)
        messages, counts = (
            {(i, j): own(i) + sum(old[k, i] for k in neighbors[i] if k != j) for i, j in old}
            for own, old in ((lambda i, z=z: z[i], messages), (lambda i: 1, counts))
        )
        total = np.array([z[i] + sum(messages[k, i] for k in neighbors[i]) for i in range(N)])
        known = np.array([1 + sum(counts[k, i] for k in neighbors[i]) for i in range(N)])[:, None]
        x = (total + (N - known) * X0) / N if normalize == "sum" else total / known
    return x


@pytest.mark.parametrize("normalize", ["sum", "mean"])
def test_relay_sgd_equals_the_loop_of_its_authors(normalize):
    expected = relay_in_numpy(TREE, T, lambda x: x - RATE * gradient(x), normalize)
    close(run(relay_sgd(TASK, SGD, TREE, normalize=normalize), rounds(metropolis(TREE), T)).x, expected)


TREES = {"path": path(N), "star": star(N), "random": TREE, "balanced": balanced_tree(2, 2)}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "random" else [pytest.mark.slow]) for name in TREES]
)
def test_relayed_averages_are_exact_after_diameter_rounds_and_not_before(name):
    tree = TREES[name]
    n, x0 = tree.num_nodes, np.random.default_rng(5).standard_normal((tree.num_nodes, 2))
    diameter = max(map(max, distances(tree)))
    plan = rounds(metropolis(tree), diameter + 2)
    found = simulate(KEY, relay_averaging(tree), plan, jnp.asarray(x0), record_every=1, observers=[models()])
    error = np.abs(found["model"].values - x0.mean(0)).max((1, 2))
    assert (error[diameter:] < 1e-14).all()  # a sum of a few numbers
    assert (error[:diameter] > 1e-3).all()
    # After t rounds: the mean over all nodes within t.
    near = np.asarray(distances(tree)) <= 2
    two = simulate(KEY, relay_averaging(tree), plan[:2], jnp.asarray(x0)).x
    np.testing.assert_allclose(two, near @ x0 / near.sum(1, keepdims=True), rtol=0, atol=1e-14)
    assert near.shape == (n, n)


def distances(tree):
    apart = np.where(np.eye(tree.num_nodes), 0, np.where(tree.adjacency().toarray(), 1, 99)).astype(int)
    for k in range(tree.num_nodes):
        apart = np.minimum(apart, apart[:, [k]] + apart[[k]])
    return apart.tolist()


def test_a_lost_relay_is_missing_in_the_sums_that_would_have_carried_it():
    """All messages lost: every node is alone. One-way losses: averages of fewer nodes, never NaN."""
    alone = changing_rounds(TREE, 3, loss=losses.independent(1.0, seed=0))
    np.testing.assert_array_equal(run(relay_averaging(TREE), alone).x, X0)
    some = run(relay_averaging(TREE), changing_rounds(TREE, 9, loss=losses.independent(0.3, seed=0))).x
    assert np.isfinite(some).all()
    assert np.abs(np.asarray(some) - X0.mean(0)).max() > 1e-3


# --- fixed points -----------------------------------------------------------------------------------------------------

FAILING = changing_rounds(ring(N), 3000, activity=activity.bernoulli(0.8, seed=2), loss=losses.independent(0.2, seed=3))
EXACT = {
    "admm": (admm(ring(N), PROX, penalty=0.5), rounds(metropolis(ring(N)), 600)),
    "admm, relaxation 1": (admm(ring(N), PROX, penalty=0.5, relaxation=1.0), rounds(metropolis(ring(N)), 600)),
    "admm, losses": (admm(ring(N), PROX, penalty=0.5), FAILING),
    "lt_admm": (lt_admm(TASK, SGD, ring(N), local_steps=3, penalty=0.5, beta=0.1), rounds(metropolis(ring(N)), 3000)),
    "lt_admm, losses": (lt_admm(TASK, SGD, ring(N), local_steps=3, penalty=0.5, beta=0.1), FAILING),
    "admm_tracking": (admm_tracking(TASK, 0.3, ring(N), gamma=0.2, penalty=0.5), rounds(metropolis(ring(N)), 3000)),
    "admm_tracking, losses": (admm_tracking(TASK, 0.3, ring(N), gamma=0.2, penalty=0.5), FAILING),
    "dlm": (dlm(TASK, RATE, penalty=1.0), rounds(metropolis(ring(N)), 3000)),
    "dinno": (dinno(TASK, SGD, local_steps=3, penalty=0.5), rounds(metropolis(ring(N)), 3000)),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name != "admm, losses" else []) for name in EXACT]
)
def test_dual_methods_reach_the_optimum(name):
    protocol, plan = EXACT[name]
    x = run(protocol, plan).x
    np.testing.assert_allclose(x, np.broadcast_to(OPTIMUM, np.shape(x)), rtol=0, atol=1e-10)


def test_admm_without_losses_to_minimize_conserves_the_mean_weighted_by_degrees():
    plain = admm(GRAPH, Partial(quadratic_prox, np.zeros((N, 3)), TARGETS), penalty=0.7)
    x = run(plain, num_rounds=300).x
    expected = (DEGREES * X0).sum(0) / DEGREES.sum()
    np.testing.assert_allclose(x, np.broadcast_to(expected, np.shape(x)), rtol=0, atol=1e-10)


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method",
    [
        admm(ring(N), PROX, penalty=0.5),
        lt_admm(TASK, SGD, ring(N), local_steps=1, penalty=0.5, beta=0.1),
        admm_tracking(TASK, 0.1, ring(N), gamma=0.1, penalty=0.5),
        relay_averaging(path(N)),
        relay_sgd(TASK, SGD, path(N)),
    ],
    ids=["admm", "lt_admm", "admm_tracking", "relay_averaging", "relay_sgd"],
)
def test_edges_that_the_topology_lacks_stop_the_run(method):
    """Before the work if the first round has some, otherwise when models become NaN."""
    with pytest.raises(ValueError, match=r"another graph than the protocol: node 0 hears node \d, which is no edge"):
        run(method, rounds(metropolis(GRAPH), 4))
    if "synchronous" in method.requires:
        return  # the first round has all edges
    other = from_adjacency(path(N).adjacency().toarray()[np.ix_(ORDER, ORDER)])
    later = activity.listed(np.arange(3)[:, None] + np.zeros((1, N)) >= 2)
    with pytest.raises(Diverged, match=r"at event [23] .* hears node \d, which is no edge of the topology"):
        run(method, changing_rounds(other, 6, activity=later))


@pytest.mark.parametrize(("build", "size"), list(itertools.product([ring], [3, N])))
def test_a_cycle_is_no_tree(build, size):
    with pytest.raises(ValueError, match=f"has {size} edges in 1 components; a tree of {size} nodes"):
        relay_averaging(build(size))
