"""PowerGossip against edges that iterate one after another, and against the gossip that it approximates."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossipjax import gossip_averaging, run
from gossipjax.facts import check_requires
from gossipjax.mixing import metropolis, uniform
from gossipjax.mixing._counting import count
from gossipjax.sharing import power_gossip
from gossipjax.sharing._power_gossip import PowerGossipState
from gossipjax.timeline import client_sampling, matching_rounds, poisson_pairs, rounds
from gossipjax.timeline._events import first_event
from gossipjax.topology import barabasi_albert, complete, exponential, path, ring

KEY = jax.random.key(1)
N, T = 7, 12
GRAPH = barabasi_albert(N, 2, seed=1)
W = metropolis(GRAPH).toarray()
EDGES = sorted({(min(i, j), max(i, j)) for i, j in zip(GRAPH.senders.tolist(), GRAPH.receivers.tolist(), strict=True)})
ROUNDS, TABLE = rounds(W, T, form="dense"), rounds(W, T, form="table")
ONE = power_gossip(GRAPH, seed=5)
TWO = power_gossip(GRAPH, rank=2, iterations=3, seed=5)
# On a graph with more edges than the matrix has: those have weight 0.
ALL = power_gossip(complete(N), rank=9, iterations=2)
SHAPES = {"bias": (3,), "convolution": (2, 2, 4), "dense": (5, 3), "scale": ()}
MATRICES = {"convolution": (4, 4), "dense": (5, 3)}


def drawn(seed, *lead):
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal((*lead, N, *shape)) for name, shape in SHAPES.items()}


X0, MOVES = drawn(0), drawn(1, T)
STILL = {name: np.zeros_like(leaf) for name, leaf in MOVES.items()}


@jax.jit
def merged(sharing, timeline, x0, moves):
    """The models after every round of moving by themselves and merging, the bits, and the states."""

    def one(carry, inputs):
        state, x = carry
        move, planned = inputs
        event = timeline.event(KEY, timeline.shared, planned)
        moved = jax.tree.map(jnp.add, x, move)
        state, (payload, bits) = sharing.encode(KEY, state, x, moved, event)
        state, x = sharing.merge(KEY, state, (moved, payload, event))
        return (state, x), (x, jnp.asarray(bits), state)

    return jax.lax.scan(one, (sharing.init(x0), x0), (moves, timeline.xs))[1]


# One edge after another


def basis(directions):
    return np.linalg.qr(directions)[0]


def edge_estimate(difference, memory, steps):
    """Power iteration to and fro, from and to the memory of one edge."""
    for step in steps:
        if step % 2 == 0:
            directions = basis(memory["right"])
            memory["left"] = difference @ directions
            estimate = memory["left"] @ directions.T
        else:
            directions = basis(memory["left"])
            memory["right"] = difference.T @ directions
            estimate = directions @ memory["right"].T
    return estimate


def places(i, j):
    """Where the edge to j stands among those of i."""
    return GRAPH.neighbors(i).tolist().index(j)


def replayed(start, iterations):
    memories = {
        (i, j, name): {
            "left": np.asarray(start.left[number][i, places(i, j)]),
            "right": np.asarray(start.right[number][i, places(i, j)]),
        }
        for i, j in EDGES
        for number, name in enumerate(MATRICES)
    }
    x = {name: leaf.copy() for name, leaf in X0.items()}
    for t in range(T):
        x = {name: x[name] + MOVES[name][t] for name in x}
        new = {name: leaf.copy() for name, leaf in x.items()}
        for i, j in EDGES:
            for name in x:
                difference = x[name][i] - x[name][j]
                if name in MATRICES:
                    steps = range(t * iterations, (t + 1) * iterations)
                    flat = difference.reshape(MATRICES[name])
                    difference = edge_estimate(flat, memories[i, j, name], steps).reshape(difference.shape)
                new[name][i] -= W[i, j] * difference
                new[name][j] += W[i, j] * difference
        x = new
    return x


@pytest.mark.parametrize(
    ("sharing", "rank", "iterations", "timeline"), [(ONE, 1, 1, ROUNDS), (TWO, 2, 3, TABLE)], ids=["one", "two"]
)
def test_power_gossip_equals_edges_one_after_another(sharing, rank, iterations, timeline):
    found, _, states = merged(sharing, timeline, X0, MOVES)
    expected = replayed(sharing.init(jax.tree.map(jnp.asarray, X0)), iterations)
    for name, leaf in expected.items():
        # Warm starts that span the same directions in other bases; rounding errors grow over twelve rounds.
        np.testing.assert_allclose(found[name][-1], leaf, rtol=0, atol=1e-10, err_msg=name)
    for factor in (*states.left, *states.right):
        assert factor.shape[-1] == rank
        for i, j in EDGES:  # both ends hold the same copy, bit for bit
            np.testing.assert_array_equal(factor[:, i, places(i, j)], factor[:, j, places(j, i)])


# What it reduces to


def plain(x0, moves):
    x = {name: leaf.copy() for name, leaf in x0.items()}
    for t in range(T):
        x = {name: np.tensordot(W, leaf + moves[name][t], axes=1) for name, leaf in x.items()}
    return x


def test_full_rank_is_gossip():
    """Two steps with as many directions as the smaller side has find the difference itself."""
    found, _, _ = merged(ALL, TABLE, X0, MOVES)
    for name, leaf in plain(X0, MOVES).items():
        # Warm starts of nearly dependent directions lose some digits.
        np.testing.assert_allclose(found[name][-1], leaf, rtol=0, atol=1e-12, err_msg=name)


def test_more_directions_than_the_difference_has_do_no_harm():
    """Differences of rank one, and of none: further directions are rounding errors, and must not count twice."""
    rng = np.random.default_rng(3)
    scale = rng.standard_normal(N)
    scale[1] = scale[0]
    x0 = {}
    for name, shape in SHAPES.items():
        rows, columns = MATRICES.get(name, (1, int(np.prod(shape))))
        outer = np.outer(rng.standard_normal(rows), rng.standard_normal(columns)).reshape(shape)
        x0[name] = rng.standard_normal(shape) + scale.reshape(-1, *(1,) * len(shape)) * outer
    found, _, _ = merged(TWO, TABLE, x0, STILL)
    for name, leaf in plain(x0, STILL).items():
        np.testing.assert_allclose(found[name][-1], leaf, rtol=0, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("rank", [8, 32])
def test_many_directions_too_many(kind, rank):
    """The estimate is a projection however few directions the difference has: what remains is what gossip leaves."""
    rng, n = np.random.default_rng(4), 4
    graph = complete(n)
    for true in (1, 3):
        x0 = np.einsum("nmk,kq->nmq", rng.standard_normal((n, 32, true)), rng.standard_normal((true, 32))).astype(kind)
        plan = rounds(metropolis(graph), 2)
        found, _, _ = merged(
            power_gossip(graph, rank=rank, iterations=2), plan, {"w": x0}, {"w": np.zeros((2, *x0.shape), kind)}
        )
        left = np.asarray(found["w"]).var(axis=1).sum(axis=(1, 2)) / x0.var(axis=0).sum()
        assert (left < 1e3 * np.finfo(kind).eps).all()  # a complete graph agrees at once


def test_an_edge_that_the_topology_lacks_spoils_the_models():
    for form in ("dense", "table"):
        plan = rounds(metropolis(complete(5)), 1, form=form)
        zero = {"w": np.zeros((1, 5, 3, 3))}
        if form == "table":
            with pytest.raises(ValueError, match="build both on"):
                merged(power_gossip(ring(5)), plan, {"w": np.ones((5, 3, 3))}, zero)
            continue
        found, _, _ = merged(power_gossip(ring(5)), plan, {"w": np.ones((5, 3, 3))}, zero)
        assert np.isnan(found["w"]).all()


def test_edges_that_agreed_find_differences_again():
    """Models that are equal for three rounds, as at a common start, leave no edge without a direction."""
    equal = {name: np.repeat(leaf[:1], N, axis=0) for name, leaf in X0.items()}
    moves = {name: leaf.copy() for name, leaf in STILL.items()}
    moves["dense"][3] = MOVES["dense"][3]
    found, _, states = merged(ONE, ROUNDS, equal, moves)
    # Products with equal matrices are taken in one batch, whose rows need not round alike: three rounds of it.
    atol = 32 * np.finfo(equal["dense"].dtype).eps * np.abs(equal["dense"]).max()
    np.testing.assert_allclose(found["dense"][:3], np.repeat(equal["dense"][None], 3, axis=0), rtol=0, atol=atol)
    spread = np.asarray(found["dense"][3:]).var(axis=1).sum(axis=(1, 2))
    assert (np.diff(spread) < 0).all()
    assert spread[-1] < spread[0] / 4
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(states))


# What it keeps


@jax.jit
def gossiped(sharing, timeline, x0):
    protocol = gossip_averaging(sharing)
    return protocol.model(run(KEY, protocol, timeline, protocol.init(KEY, x0))[0][0])


def test_models_agree_on_the_mean():
    start = X0["dense"]
    found = gossiped(power_gossip(GRAPH), rounds(W, 600), start)
    assert np.ptp(found, axis=0).max() < 1e-12
    # Rounding of 600 sums.
    np.testing.assert_allclose(np.mean(found, axis=0), start.mean(0), rtol=0, atol=1e-13)


@given(st.integers(0, 10_000), st.floats(-5, 5))
@settings(max_examples=15, deadline=None)
def test_the_mean_is_conserved_and_disagreement_never_grows(seed, log_scale):
    """Each round is I minus a positive operator that is at most I − W."""
    scale = 10.0**log_scale
    x0 = {name: scale * leaf for name, leaf in drawn(seed).items()}
    found, _, _ = merged(ONE, ROUNDS, x0, STILL)
    for name, leaf in found.items():
        both = np.concatenate([x0[name][None], leaf])
        np.testing.assert_allclose(both.mean(1) - both[0].mean(0), 0, rtol=0, atol=1e-13 * scale)
        spread = ((both - both.mean(1, keepdims=True)) ** 2).reshape(T + 1, -1).sum(1)
        assert (np.diff(spread) <= 1e-13 * spread[0]).all(), name


# Bits, and where it may be used


@pytest.mark.parametrize(
    ("sharing", "timeline", "even", "odd"),
    [
        (ONE, ROUNDS, 4 + 5, 4 + 3),
        (TWO, TABLE, 2 * (2 * (4 + 5) + (4 + 3)), 2 * ((4 + 5) + 2 * (4 + 3))),
        (ALL, TABLE, 4 * (4 + 4) + 3 * (5 + 3), 4 * (4 + 4) + 3 * (5 + 3)),
    ],
    ids=["one", "two", "all"],
)
def test_bits_are_those_of_the_vectors_sent(sharing, timeline, even, odd):
    """Vectors and scalars in full; p and q of matrices (4, 4) and (5, 3), by turns."""
    _, bits, _ = merged(sharing, timeline, X0, MOVES)
    np.testing.assert_array_equal(bits, np.tile([64 * (3 + 1 + even), 64 * (3 + 1 + odd)], T // 2))


def test_bits_follow_the_precision():
    single = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), X0)
    event = first_event(KEY, ROUNDS)
    _, (payload, bits) = ALL.encode(KEY, PowerGossipState((), ()), single, single, event)
    assert payload == ()
    assert bits == 32 * (3 + 1 + 4 * (4 + 4) + 3 * (5 + 3))
    np.testing.assert_array_equal(count(event, N), GRAPH.degrees)


@pytest.mark.parametrize(
    ("timeline", "message"),
    [
        (rounds([W, np.eye(N)], T), "one fixed mixing matrix"),
        (matching_rounds(N, T, seed=0), "one fixed mixing matrix"),
        (poisson_pairs(GRAPH, T, seed=0), "one fixed mixing matrix"),
        (rounds(uniform(GRAPH), T), "symmetric mixing matrices"),
    ],
    ids=["two matrices", "matchings", "pairs", "not symmetric"],
)
def test_timelines_without_one_weight_an_edge_are_refused(timeline, message):
    with pytest.raises(ValueError, match=message):
        check_requires(gossip_averaging(power_gossip(GRAPH)).requires, timeline.properties)


def test_other_graphs_are_refused():
    with pytest.raises(ValueError, match="is directed: both ends"):
        power_gossip(exponential(N))
    with pytest.raises(ValueError, match="7 models on a topology of 8 nodes"):
        power_gossip(ring(8)).init(jax.tree.map(jnp.asarray, X0))
    sharing, (x0, still) = power_gossip(path(N)), (X0, {name: leaf[:1] for name, leaf in MOVES.items()})
    for timeline, message in [
        (rounds(metropolis(complete(N)), 1, form="table"), "6 neighbours on a topology with at most 2"),
        (client_sampling(N, N, 1, seed=0), "GroupMixing has no weight for each edge"),
    ]:
        with pytest.raises(ValueError, match=message):
            jax.eval_shape(merged, sharing, timeline, x0, still)


def test_settings_out_of_range_are_refused():
    with pytest.raises(ValueError, match="rank=0"):
        power_gossip(GRAPH, rank=0)
    with pytest.raises(ValueError, match="iterations=0"):
        power_gossip(GRAPH, iterations=0)
