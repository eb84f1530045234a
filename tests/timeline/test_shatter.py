"""Fragments and Shatter against averages taken chunk by chunk, and its graphs against what makes them regular."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import CURVATURE, TARGETS, exact_quadratic

from gossipjax import dpsgd, gossip_averaging, simulate
from gossipjax._engine import loop
from gossipjax.sharing import fragments
from gossipjax.sharing._fragments import cut_at_random, cut_in_order
from gossipjax.timeline import _shatter, shatter
from gossipjax.timeline._events import first_event

KEY = jax.random.key(2)
N, K, R, T = 6, 4, 3, 5
PLAN = shatter(N, T, virtual_nodes=K, degree=R, seed=7)
SHAPES = {"bias": (5,), "kernel": (3, 4)}
X0 = {name: np.random.default_rng(1).standard_normal((N, *shape)) for name, shape in SHAPES.items()}
LIKE = {name: jax.ShapeDtypeStruct(shape, jnp.float64) for name, shape in SHAPES.items()}


@jax.jit
def run(protocol, plan, x0):
    (state, _), records = loop.run(KEY, protocol, plan, protocol.init(KEY, x0))
    return protocol.model(state), records


def inboxes(plan, virtual):
    """Of each round and node: what its virtual nodes heard, as (sender, chunk)."""
    members, parts = plan.xs["members"], plan.xs["parts"]
    assert (members[..., 0] == np.arange(members.shape[1])).all()
    assert (parts[..., 0] == -1).all()
    assert members.shape[2] == 1 + virtual * R
    return [
        [list(zip(m[1:].tolist(), p[1:].tolist(), strict=True)) for m, p in zip(ms, ps, strict=True)]
        for ms, ps in zip(members, parts, strict=True)
    ]


# Averages


@pytest.mark.parametrize("layout", ["random", "contiguous"])
def test_fragments_are_averaged_chunk_by_chunk(layout):
    cut = cut_at_random(LIKE, K, 3) if layout == "random" else cut_in_order(LIKE, K)
    fragment = np.concatenate([cut[name].ravel() for name in SHAPES])
    x = np.concatenate([X0[name].reshape(N, -1) for name in SHAPES], axis=1)
    for heard in inboxes(PLAN, K):
        new = x.copy()
        for i, inbox in enumerate(heard):
            for c, f in enumerate(fragment):
                values = [x[i, c]] + [x[j, c] for j, part in inbox if part == f]
                new[i, c] = sum(values) / len(values)
        x = new
    found, _ = run(gossip_averaging(fragments(K, layout=layout, seed=3)), PLAN, X0)
    found = np.concatenate([found[name].reshape(N, -1) for name in SHAPES], axis=1)
    # Sums of some dozen numbers in another order, five times over.
    np.testing.assert_allclose(found, x, rtol=0, atol=1e-14)


def test_one_virtual_node_is_epidemic_learning():
    """Fresh regular graphs, and the mean of the own model and those received: symmetric, so that it is conserved."""
    plan = shatter(N, T, virtual_nodes=1, degree=R, seed=4)
    x = X0["kernel"]
    for heard in inboxes(plan, 1):
        W = np.eye(N)
        for i, inbox in enumerate(heard):
            W[i, [j for j, _ in inbox]] += 1
        np.testing.assert_array_equal(W, W.T)
        x = np.tensordot(W / (1 + R), x, axes=1)
    found, _ = run(gossip_averaging(fragments(1)), plan, X0)
    np.testing.assert_allclose(found["kernel"], x, rtol=0, atol=1e-14)
    assert "doubly_stochastic" in plan.properties
    assert "doubly_stochastic" not in PLAN.properties


def test_equal_models_stay_equal():
    equal = {name: np.repeat(leaf[:1], N, axis=0) for name, leaf in X0.items()}
    found, _ = run(gossip_averaging(fragments(K)), PLAN, equal)
    for name, leaf in equal.items():
        np.testing.assert_allclose(found[name], leaf, rtol=0, atol=1e-14)


def test_a_chunk_that_comes_home_weighs_double():
    """Two nodes of two virtual nodes each, all of which meet: everyone hears its own chunks from their siblings."""
    plan = shatter(2, 1, virtual_nodes=2, degree=3, seed=0)
    found, _ = run(gossip_averaging(fragments(2)), plan, {name: leaf[:2] for name, leaf in X0.items()})
    for name, leaf in X0.items():
        # Virtual node c of a node is heard by its one sibling, and by both virtual nodes of the other node.
        own, other = leaf[:2], leaf[1::-1]
        np.testing.assert_allclose(found[name], (own + own + 2 * other) / 4, rtol=0, atol=1e-15)


def test_shatter_is_dpsgd_on_its_timeline():
    """Local steps first, then the chunks; quadratics of three coordinates in two chunks."""
    n, rate = len(TARGETS), 0.1
    plan = shatter(n, T, virtual_nodes=2, degree=R, seed=1)
    found, _ = run(dpsgd(exact_quadratic(), optax.sgd(rate), sharing=fragments(2, layout="contiguous")), plan, TARGETS)
    x, fragment = TARGETS, np.array([0, 0, 1])
    for heard in inboxes(plan, 2):
        x = x - rate * CURVATURE * (x - TARGETS)
        hears = np.array([[[inbox.count((j, f)) for j in range(n)] for inbox in heard] for f in fragment]) + np.eye(n)
        x = np.einsum("cij,jc->ic", hears / hears.sum(2, keepdims=True), x)
    np.testing.assert_allclose(found, x, rtol=0, atol=1e-13)


# Messages


@pytest.mark.parametrize("virtual", [1, 2, 4])
def test_volume_is_r_models_whatever_k_is(virtual):
    """Chunks of the same size: twelve coordinates in 1, 2 or 4."""
    plan = shatter(N, T, virtual_nodes=virtual, degree=R, seed=0)
    x0 = {"kernel": X0["kernel"].astype(np.float32)}
    _, records = run(gossip_averaging(fragments(virtual)), plan, x0)
    assert loop.counter.value(records.messages)[-1] == T * N * R * virtual
    assert loop.counter.value(records.bits)[-1] == T * N * R * 12 * 32
    np.testing.assert_array_equal(plan.shared["messages"], np.full(N, R * virtual))


def test_messages_have_the_size_of_the_largest_fragment():
    """17 coordinates in 4: at random 2 + 3 of each tensor, in order 5 of all."""
    event = first_event(KEY, PLAN)
    x = jax.tree.map(jnp.asarray, X0)
    for layout, largest in [("random", 2 + 3), ("contiguous", 5)]:
        sharing = fragments(K, layout=layout)
        assert sharing.encode(KEY, sharing.init(x), x, x, event)[1][1] == 64 * largest


@given(st.integers(1, 9), st.integers(0, 1000), st.integers(1, 20), st.integers(0, 20))
@settings(max_examples=50, deadline=None)
def test_fragments_are_an_even_partition(count, seed, first, second):
    like = [jax.ShapeDtypeStruct((first,), jnp.float32), jax.ShapeDtypeStruct((second, 2), jnp.float32)]
    at_random, in_order = cut_at_random(like, count, seed), cut_in_order(like, count)
    for of, leaf in zip(at_random, like, strict=True):
        sizes = np.bincount(of.ravel(), minlength=count)
        assert of.shape == leaf.shape
        assert sizes.size == count
        assert np.ptp(sizes) <= 1
    flat = np.concatenate([of.ravel() for of in in_order])
    assert (np.diff(flat) >= 0).all()
    assert np.ptp(np.bincount(flat, minlength=count)) <= 1


# Graphs


def adjacency(plan, virtual):
    """Who hears whom among virtual nodes, round by round."""
    members, parts = plan.xs["members"][..., 1:], plan.xs["parts"][..., 1:]
    rounds, nodes, heard = members.shape
    total = nodes * virtual
    linked = np.zeros((rounds, total, total), int)
    senders = (members * virtual + parts).reshape(rounds, total, heard // virtual)
    np.add.at(linked, (np.arange(rounds)[:, None, None], np.arange(total)[None, :, None], senders), 1)
    return linked


@given(st.integers(1, 7), st.integers(1, 4), st.integers(1, 9), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_graphs_are_simple_and_regular(nodes, virtual, degree, seed):
    total = nodes * virtual
    if degree >= total or total * degree % 2:
        with pytest.raises(ValueError, match=r"degree|virtual_nodes"):
            shatter(nodes, 4, virtual_nodes=virtual, degree=degree, seed=seed)
        return
    linked = adjacency(shatter(nodes, 4, virtual_nodes=virtual, degree=degree, seed=seed), virtual)
    assert linked.max() == 1
    np.testing.assert_array_equal(linked, linked.transpose(0, 2, 1))
    np.testing.assert_array_equal(linked.sum(2), np.full((4, total), degree))
    assert not linked[:, np.arange(total), np.arange(total)].any()


@pytest.mark.parametrize(("virtual", "degree"), [(2, 3), (2, 7)], ids=["sparse", "dense"])
def test_every_pair_is_as_likely(virtual, degree):
    """Names do not matter to the draw: a pair is linked with probability r / (n k − 1), siblings like others."""
    rounds, total = 4000, 5 * virtual
    linked = adjacency(shatter(5, rounds, virtual_nodes=virtual, degree=degree, seed=3), virtual)
    found, p = linked[:, *np.triu_indices(total, 1)].mean(0), degree / (total - 1)
    assert (np.abs(found - p) < 4.5 * np.sqrt(p * (1 - p) / rounds)).all()  # the largest of 45


def test_graphs_are_fresh_every_round_and_follow_the_seed():
    plan, other = (shatter(N, T, virtual_nodes=K, degree=R, seed=seed) for seed in (7, 8))
    np.testing.assert_array_equal(plan.xs["members"], PLAN.xs["members"])
    assert (plan.xs["members"] != other.xs["members"]).any()
    assert len(np.unique(adjacency(plan, K), axis=0)) == T


def test_long_plans_are_drawn_in_blocks(monkeypatch):
    monkeypatch.setattr(_shatter, "_BLOCK", 2 * N * K * R)
    linked = adjacency(shatter(N, T, virtual_nodes=K, degree=R, seed=1), K)
    np.testing.assert_array_equal(linked.sum(2), np.full((T, N * K), R))


# Where it may be used


def test_another_number_of_fragments_is_refused():
    plan = shatter(len(TARGETS), 1, virtual_nodes=K, degree=R, seed=7)
    protocol = dpsgd(exact_quadratic(), optax.sgd(0.1), sharing=fragments(K + 1))
    with pytest.raises(ValueError, match=f"num_fragments={K + 1}, but .* names {K} fragments"):
        simulate(KEY, protocol, plan, jnp.asarray(TARGETS), record_every=1)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: shatter(6, 0, virtual_nodes=2, degree=2, seed=0), "num_rounds=0"),
        (lambda: shatter(0, 1, virtual_nodes=2, degree=2, seed=0), "num_nodes=0"),
        (lambda: shatter(6, 1, virtual_nodes=0, degree=2, seed=0), "virtual_nodes=0"),
        (lambda: shatter(2, 1, virtual_nodes=2, degree=4, seed=0), "degree=4: .* of the 4 virtual nodes"),
        (lambda: shatter(3, 1, virtual_nodes=1, degree=1, seed=0), "3 virtual nodes of degree 1"),
        (lambda: shatter(4, 1, virtual_nodes=1, degree=1, seed=0, seconds_per_round=0.0), "seconds_per_round=0.0"),
        (lambda: fragments(0), "num_fragments=0"),
    ],
)
def test_settings_out_of_range_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
