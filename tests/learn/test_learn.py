"""Gradients through runs against closed forms, adjoints and differences; learned weights against exact optima."""

import dataclasses

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gossipjax as gj
from gossipjax import learn, mixing, timeline, topology
from gossipjax._base.calls import recorded

KEY = jax.random.key(0)
RING = topology.ring(16)
TRIANGLES = topology.from_networkx(nx.Graph([(0, 1), (1, 2), (0, 2), (2, 3), (3, 4), (4, 5), (3, 5)]))
GRAPHS = [topology.ring(5), topology.star(6), topology.barabasi_albert(9, 2, seed=1), TRIANGLES]


def rounds(graph, num_rounds, cycle=None):
    W = mixing.metropolis(graph)
    return timeline.rounds(W if cycle is None else [W] * cycle, num_rounds)


def error_of(graph, num_rounds, cycle=None, **more):
    plan = rounds(graph, num_rounds, cycle)

    def error(weights):
        return learn.consensus_error(timeline.with_mixing(plan, learn.edge_weights(graph, weights)), **more)

    return error


# --- weights ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("graph", GRAPHS, ids=lambda graph: graph.name)
@pytest.mark.parametrize("form", ["dense", "table"])
def test_edge_weights_are_the_sum_over_edges(graph, form):
    rng, n = np.random.default_rng(0), graph.num_nodes
    weights = rng.normal(size=(3, graph.num_edges))
    stacked = learn.edge_weights(graph, weights, form=form)
    for number, row in enumerate(weights):
        W = np.eye(n)
        for w, i, j in zip(row, *learn._weights.edge_ends(graph), strict=True):
            W[np.ix_([i, j], [i, j])] += w * np.array([[-1, 1], [1, -1]])
        for found in (learn.edge_weights(graph, row, form=form), jax.tree.map(lambda leaf, k=number: leaf[k], stacked)):
            np.testing.assert_allclose(mixing.to_dense(found, n), W, rtol=1e-12, atol=1e-12)  # float64 sums


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(GRAPHS), st.integers(0, 2**32 - 1), st.sampled_from([0.1, 1.0, 5.0]))
def test_positive_weights_leave_a_share_at_home(graph, seed, scale):
    free = scale * np.random.default_rng(seed).normal(size=graph.num_edges)
    weights = learn.positive_weights(graph, free)
    W = np.asarray(mixing.to_dense(learn.edge_weights(graph, weights), graph.num_nodes))
    assert (W >= 0).all()
    assert (np.diag(W) > 0).all()
    np.testing.assert_allclose(W.sum(0), 1, rtol=1e-12)
    np.testing.assert_array_equal(W, W.T)


def test_zeros_are_the_metropolis_weights():
    weights = learn.positive_weights(TRIANGLES, np.zeros(TRIANGLES.num_edges))
    found = mixing.to_dense(learn.edge_weights(TRIANGLES, weights), 6)
    np.testing.assert_allclose(found, mixing.metropolis(TRIANGLES).toarray(), rtol=1e-12)


@pytest.mark.parametrize(
    ("graph", "weights", "words"),
    [
        (topology.exponential(6), np.zeros(6), "is directed"),
        (RING, np.zeros(15), r"shape \(15,\): ring\(16\) has 16 edges"),
        (RING, np.zeros((2, 15)), r"shape \(2, 15\): ring\(16\) has 16 edges"),
    ],
)
def test_weights_that_do_not_fit_are_refused(graph, weights, words):
    with pytest.raises(ValueError, match=words):
        learn.edge_weights(graph, jnp.asarray(weights))


# --- gradients --------------------------------------------------------------------------------------------------------


def test_two_nodes():
    """E_T = ½ (1 − 2α)^{2T}; at α = ¼ and T = 2 the derivative is −½."""
    error = error_of(topology.path(2), 2)
    value, slope = jax.value_and_grad(lambda weight: error(weight[None]))(jnp.asarray(0.25))
    assert (float(value), float(slope)) == (0.03125, -0.5)  # exact in binary


@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_gradient_of_a_cycle_is_the_adjoint(kind):
    """dE/dW_t = Λ_t X_{t−1}ᵀ with Λ_{t−1} = W_tᵀ Λ_t, Λ_T = X_T − J, for E = ½ ‖X_T − J‖²."""
    T, n = 4, 5
    precision = 1e-5 if kind == "float32" else 1e-10
    matrices = np.random.default_rng(1).normal(size=(T, n, n))
    plan = timeline.rounds([np.full((n, n), 1 / n)] * T, T, form="dense")

    def error(W):
        return n / 2 * learn.consensus_error(timeline.with_mixing(plan, mixing.DenseMixing(W)))

    states = [np.eye(n)]
    for W in matrices:
        states.append(W @ states[-1])
    adjoint, expected = states[-1] - 1 / n, []
    for W, before in zip(matrices[::-1], states[-2::-1], strict=True):
        expected.append(adjoint @ before.T)
        adjoint = W.T @ adjoint
    with jax.enable_x64(kind == "float64"):
        found = jax.grad(error)(jnp.asarray(matrices, kind))
        assert found.dtype == kind
    scale = np.abs(expected).max()  # sums of some hundred products
    np.testing.assert_allclose(np.asarray(found, np.float64), expected[::-1], rtol=0, atol=precision * scale)


@pytest.mark.parametrize("chunk", [None, 1, 3, 4, 9, 100])
def test_chunks_change_neither_values_nor_gradients(chunk):
    graph, weights = TRIANGLES, jnp.linspace(0.1, 0.4, 7)
    whole = jax.value_and_grad(error_of(graph, 9, chunk=100))(weights)
    parts = jax.value_and_grad(error_of(graph, 9, chunk=chunk))(weights)
    np.testing.assert_allclose(parts[0], whole[0], rtol=1e-12)
    np.testing.assert_allclose(parts[1], whole[1], rtol=1e-10)  # sums in another order, in float64


def test_chunks_store_fewer_states():
    graph = topology.ring(64)

    def bytes_of(chunk):
        compiled = jax.jit(jax.grad(error_of(graph, 256, chunk=chunk))).lower(jnp.full(64, 0.3)).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert bytes_of(None) < bytes_of(256) / 4  # 16 + 16 states against 256


TICKS = timeline.clocks.poisson(1.0)
MORE_EVENTS = [
    timeline.poisson_push(topology.ring(6), 40, seed=0),
    timeline.pairwise(6, 6.0, compute=TICKS, communicate=1.0, atomic=False, latency=0.2, seed=0),
    gj.pack(timeline.poisson_pairs(topology.ring(6), 40, seed=0)),
    timeline.gossip_learning(6, 8.0, period=1.0, latency=0.1, seed=0),
    timeline.push_gossip(6, 6.0, compute=TICKS, gossip=1.0, two_way=True, seed=0),
]


@pytest.mark.parametrize(
    "plan",
    [
        timeline.poisson_pairs(topology.ring(6), 40, seed=0),
        timeline.drawn_gossip(6, 40, update_rate=0.0, gossip_rate=1.0),
        timeline.push_gossip(
            6, 6.0, compute=timeline.clocks.poisson(0.5), gossip=timeline.clocks.poisson(1.0), latency=0.3, seed=0
        ),
        *(pytest.param(plan, marks=pytest.mark.slow) for plan in MORE_EVENTS),
    ],
    ids=lambda plan: plan.properties.name.partition("(")[0],
)
def test_receiving_weights_of_events_have_gradients(plan):
    """Against central differences: meetings (drawn, packed, with handshakes), pushes, messages in flight, exchanges."""
    x0, protocol = jnp.linspace(-1.0, 1.0, 6)[:, None], gj.gossip_averaging()
    arrays = {name: leaf for name, leaf in (plan.shared | plan.xs).items() if name in ("weight", "keep", "weights")}
    assert arrays

    def outcome(weight):
        def scaled(name, leaf):
            share = weight if name.startswith("weight") else 1 - weight
            return jnp.where(jnp.isclose(leaf, 0.5), share, leaf)

        xs = {name: scaled(name, leaf) if name in arrays else leaf for name, leaf in plan.xs.items()}
        shared = {name: scaled(name, leaf) if name in arrays else leaf for name, leaf in plan.shared.items()}
        changed = dataclasses.replace(plan, xs=xs, shared=shared)
        state = protocol.init(KEY, gj.with_slots(x0, plan.properties))
        x = protocol.model(learn.final_state(KEY, protocol, changed, state))[:6]
        return jnp.sum(jnp.square(x - x.mean()))

    h, run = 1e-5, jax.jit(jax.value_and_grad(outcome))
    (_, slope), (above, _), (below, _) = (run(jnp.asarray(0.4 + by)) for by in (0.0, h, -h))
    assert float(slope) == pytest.approx(float((above - below) / (2 * h)), rel=1e-6)  # of order h², in float64
    assert slope != 0


def test_times_have_no_gradient_and_say_so():
    def outcome(rate):
        return learn.consensus_error(_planner(rate))

    with pytest.raises(TypeError, match=r"_planner: an argument is traced.*Times and partners.*rate_gradient"):
        jax.grad(outcome)(1.0)


@recorded()
def _planner(rate):
    """Plan as all builders of timelines do, but without annotations, which tests check first."""
    return timeline.poisson_pairs(RING, 10, rate=float(rate), seed=0)


def test_learning_has_a_gradient_with_respect_to_step_sizes():
    """D-PSGD on quadratics with a step size for each round, against central differences."""
    task = gj.tasks.quadratic(np.linspace(-1, 1, 5)[:, None])
    plan = rounds(topology.ring(5), 4)

    def outcome(steps):
        protocol = gj.dpsgd(task, jax.tree_util.Partial(optax.sgd, jax.tree_util.Partial(_at, steps)))
        state = protocol.init(KEY, jnp.full((5, 1), 2.0))
        return jnp.mean(jnp.square(protocol.model(learn.final_state(KEY, protocol, plan, state))))

    steps, h, run = np.array([0.1, 0.2, 0.3, 0.4]), 1e-5, jax.jit(jax.value_and_grad(outcome))
    found = run(jnp.asarray(steps))[1]
    for k, unit in enumerate(np.eye(4)):
        above, below = (float(run(jnp.asarray(steps + by * unit))[0]) for by in (h, -h))
        assert float(found[k]) == pytest.approx((above - below) / (2 * h), rel=1e-6)


def _at(steps, count):
    return steps[count]


# --- learned weights --------------------------------------------------------------------------------------------------


def best(graph, num_rounds, spread):
    """Learn constant weights, one for each edge, from a start near those of the spectral optimum."""
    start = 0.4 + spread * np.random.default_rng(0).normal(size=graph.num_edges)
    error = error_of(graph, num_rounds)
    return learn.fit(lambda weights: jnp.log(error(weights)), start)


@pytest.mark.slow
@pytest.mark.parametrize(("T", "weight", "least"), [(2, 0.373439, 0.165515), (8, 0.442674, 0.0433795)])
def test_the_ring_learns_its_best_weight(T, weight, least):
    """min_α Σ_{λ≠0} (1 − αλ)^{2T} / n; by symmetry the best of all symmetric weights is constant."""
    eigenvalues = 2 - 2 * np.cos(2 * np.pi * np.arange(1, 16) / 16)
    assert np.sum((1 - weight * eigenvalues) ** (2 * T)) / 16 == pytest.approx(least, rel=1e-5)
    found = best(RING, T, 0.02)
    assert found.converged
    assert np.exp(found.value) == pytest.approx(least, rel=1e-5)
    np.testing.assert_allclose(found.parameters, weight, atol=3e-5)


@pytest.mark.slow
def test_eight_rounds_on_a_ring_learn_to_agree_exactly():
    """One weight for each round: the inverse eigenvalues of the Laplacian, in any order."""
    error = error_of(RING, 8, cycle=8)

    def outcome(weights):
        return jnp.log(error(jnp.broadcast_to(weights[:, None], (8, 16))))

    found = learn.fit(outcome, np.linspace(0.25, 0.6, 8))
    assert np.exp(found.value) < 1e-6
    exact = 1 / (2 - 2 * np.cos(2 * np.pi * np.arange(8, 0, -1) / 16))
    np.testing.assert_allclose(np.sort(found.parameters), exact, rtol=0.03)  # the error is flat near its minimum


def test_fit_finds_the_minimum_of_a_quadratic_and_keeps_the_tree():
    target = {"a": np.array([1.0, -2.0]), "b": np.float64(3.0)}

    def outcome(x):
        return jnp.sum((x["a"] - target["a"]) ** 2.0) + (x["b"] - jnp.float64(3.0)) ** 4.0

    found = learn.fit(outcome, {"a": np.zeros(2), "b": 0.0})
    np.testing.assert_allclose(found.parameters["a"], target["a"], atol=1e-6)
    assert found.value == min(found.history) < 1e-8
    by_sgd = learn.fit(outcome, {"a": np.zeros(2), "b": np.zeros(())}, optimizer=optax.sgd(0.02), steps=300)
    np.testing.assert_allclose(by_sgd.parameters["a"], target["a"], atol=1e-4)  # 0.96^300 = 5e-6
    assert by_sgd.history.shape == (300,)
    assert not by_sgd.converged


@pytest.mark.parametrize("start", [0.1, 0.3, -3.0])
def test_a_search_steps_back_from_where_the_outcome_ends(start):
    """−ln(½ − w) − 6 w is not defined above ½, and smallest at ⅓."""
    found = learn.fit(lambda w: -jnp.log(0.5 - w) - 6 * w, start)
    assert found.converged
    assert float(found.parameters) == pytest.approx(1 / 3, abs=1e-5)


def test_large_numbers_are_weights_too():
    weights = learn.positive_weights(topology.ring(4), np.array([1000.0, 1000.0, -1000.0, 0.0]))
    np.testing.assert_allclose(weights, [0.5, 0.5, 0.0, 0.0], atol=1e-12)  # exp(-1000) is 0


def test_random_outcomes_draw_anew_at_each_step():
    def outcome(x, key):
        return jnp.sum((x - jax.random.normal(key)) ** 2.0)

    found = learn.fit(outcome, jnp.zeros(()), optimizer=optax.sgd(0.0), key=KEY, steps=5)
    assert len(set(found.history.tolist())) == 5


@pytest.mark.parametrize(
    ("outcome", "start", "error", "words"),
    [
        (lambda x: x, np.arange(3), TypeError, "floating-point"),
        (lambda x: x, {}, TypeError, "start={}: must be a pytree of floating-point"),
        (lambda x: jnp.sum(x), np.zeros(0), TypeError, "floating-point"),
        (lambda x: x, np.zeros(3), TypeError, "must be one real number"),
        (lambda x: jnp.log(x), 0.0, ValueError, "at the start is -inf"),
        (3, 0.0, TypeError, "outcome"),
    ],
)
def test_what_cannot_be_minimized_is_refused(outcome, start, error, words):
    with pytest.raises(error, match=words):
        learn.fit(outcome, start)


# --- rates ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("graph", "connectivity"),
    [
        *((topology.path(n), 12 / (n * (n + 1))) for n in (2, 4, 5, 8)),
        (topology.star(9), 1.0),
        (TRIANGLES, 14 / 19),
        (topology.from_networkx(nx.barbell_graph(4, 0)), 13 / 14),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_best_rates_have_the_known_connectivity(graph, connectivity):
    found = learn.best_rates(graph)
    assert found.connectivity == pytest.approx(connectivity, rel=2e-6)
    assert found.connectivity <= found.bound * (1 + 1e-12)
    assert found.rates.mean() == pytest.approx(1.0, rel=1e-9)
    assert (found.rates >= 0).all()


def test_best_rates_of_a_path_rise_to_its_middle():
    k = np.arange(1, 8)
    rates = k * (8 - k)
    np.testing.assert_allclose(learn.best_rates(topology.path(8)).rates, rates / rates.mean(), rtol=2e-3)


def test_a_gap_that_stays_open_is_an_error():
    with pytest.raises(RuntimeError, match=r"between .* and .*tolerance"):
        learn.best_rates(topology.path(8), most_cuts=2)


def test_edges_fire_at_their_rates():
    rates = np.array([0.0, 1.0, 2.0, 0.5])
    plan = timeline.poisson_edges(topology.path(5), duration=4000.0, rate=rates, seed=1)
    counts = learn._rates._meetings(topology.path(5), plan)
    expected = 4000 * rates
    assert counts[0] == 0
    assert (np.abs(counts - expected)[1:] < 5 * np.sqrt(expected[1:])).all()  # Poisson
    with pytest.raises(ValueError, match="all rates are 0"):
        timeline.poisson_edges(topology.path(3), 5, rate=np.zeros(2), seed=0)


@pytest.mark.parametrize("samples", [2000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_the_score_function_finds_the_slope_of_an_exponential(samples):
    """One edge of rate r: V is 0 after the first meeting, so E V = V_0 exp(−r T), with slope −T exp(−r T)."""
    x0 = jnp.array([1.0, -1.0]) / np.sqrt(2)

    def spread(x):
        return jnp.sum(jnp.square(x - x.mean()))

    found = learn.rate_gradient(spread, topology.path(2), 1.0, 1.0, x0, samples=samples, seed=0)
    assert abs(found.value - np.exp(-1)) < 4 * found.value_error
    assert abs(found.gradient[0] + np.exp(-1)) < 4 * found.gradient_error[0]
    assert found.gradient_error[0] < 1.3 / np.sqrt(samples)


def test_numbers_far_apart_have_weights():
    """Far from an edge whose number is large, the others are as they would be without it."""
    free = jnp.array([90.0, 0, 0, 0, 0, 0])
    found = np.asarray(learn.positive_weights(topology.ring(6), free), np.float64)
    graph = topology.ring(6)
    s = np.exp(np.asarray(free, np.float64))
    first, second = learn._weights.edge_ends(graph)
    total = np.bincount(first, s, 6) + np.bincount(second, s, 6)
    np.testing.assert_allclose(found, s / (1 + np.maximum(total[first], total[second])), rtol=1e-5)  # float32 exp


def test_other_rows_outcomes_and_graphs_in_parts_are_refused():
    ring, settings_ = topology.ring(6), {"samples": 4, "seed": 0}
    with pytest.raises(ValueError, match=r"x0: has \[5\] rows, and .* has 6 nodes"):
        learn.rate_gradient(lambda x: x.sum(), ring, 1.0, 1.0, jnp.arange(5.0), **settings_)
    with pytest.raises(TypeError, match="must be one real number"):
        learn.rate_gradient(lambda x: jax.lax.complex(x.sum(), x.sum()), ring, 1.0, 1.0, jnp.arange(6.0), **settings_)
    halves = np.kron(np.eye(2), np.ones((3, 3)) - np.eye(3))
    parts = topology.from_adjacency(halves, allow_disconnected=True)
    with pytest.raises(ValueError, match="2 components"):
        learn.best_rates(parts)
    with pytest.raises(ValueError, match="2 components"):
        learn.rate_gradient(lambda x: x.sum(), parts, 1.0, 1.0, jnp.arange(6.0), **settings_)
    with pytest.raises(ValueError, match="tolerance=1e-18"):
        learn.best_rates(ring, tolerance=1e-18)


def test_whole_numbers_and_graphs_without_edges_have_no_weights():
    with pytest.raises(TypeError, match="weights"):
        learn.edge_weights(topology.ring(6), np.ones(6, int))
    alone = topology.from_adjacency(np.zeros((1, 1)), allow_disconnected=True)
    for build in (learn.edge_weights, learn.positive_weights):
        with pytest.raises(ValueError, match="has no edge"):
            build(alone, np.ones(0))


def test_an_outcome_without_a_minimum_gives_a_finite_one():
    found = learn.fit(lambda x: jnp.log(x), 1.0)
    assert np.isfinite(found.value)
    assert not found.converged
    with pytest.raises(ValueError, match="after the last step"):
        learn.fit(lambda x: jnp.log(x), 1.0, optimizer=optax.sgd(1.0), steps=1)
