"""Mixing: every form against its matrix, its definition in NumPy loops, and the laws it obeys."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from jax.test_util import check_grads
from scipy import sparse

from gossipjax import mixing as mx
from gossipjax import mixing as wt
from gossipjax import topology as tp
from gossipjax.mixing import mix, to_dense
from gossipjax.mixing._apply import DenseMixing, GroupMixing, PairMixing, TableMixing
from gossipjax.testing import connected_graphs, mixing_matrices, permutations, stacked_params

# Sums of at most a few dozen products of numbers up to 100: rounding of float64 stays below 1e-12.
ROUNDING = {"rtol": 1e-12, "atol": 1e-11}
FORMS = ["dense", "table"]
few = settings(max_examples=15, deadline=None)  # the first example of each shape compiles


neighbor_sum = jax.jit(mx.neighbor_sum, static_argnums=1)
compiled_mix = jax.jit(mix)
messages = jax.jit(mx.messages, static_argnums=1)
take = jax.jit(mx.take_mixing)
mix_many = jax.jit(jax.vmap(mix, in_axes=(None, 0)))
mix_with_many = jax.jit(jax.vmap(mix, in_axes=(0, None)))
transpose = jax.jit(lambda mixing, x, cotangent: jax.vjp(lambda x: mix(mixing, x), x)[1](cotangent)[0])


def assert_close(actual, expected, **tolerance):
    actual, expected = jax.tree.map(np.asarray, (actual, expected))
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **(tolerance or ROUNDING)), actual, expected)


def apply(W, x):
    return jax.tree.map(lambda leaf: np.tensordot(np.asarray(W), leaf, axes=1), x)


def params(n):
    """Parameters of fixed shapes, so that few programs are compiled."""
    arrays = (
        hnp.arrays(np.float64, (n, *shape), elements=st.floats(-100, 100, width=32)) for shape in ((2, 3), (2,), ())
    )
    return st.tuples(*arrays).map(lambda x: {"dense": {"kernel": x[0], "bias": x[1]}, "scale": [x[2]]})


@st.composite
def pairs(draw, n):
    """Distinct receivers, any senders, some entries naming nobody on either side."""
    receivers = draw(st.lists(st.integers(0, n - 1), unique=True, max_size=n))
    senders = [draw(st.integers(0, n + 1)) for _ in receivers]
    receivers += [n, n + 5]
    senders += [draw(st.integers(0, n - 1)), n]
    numbers = np.array(draw(st.lists(st.floats(-1, 1), min_size=2 * len(senders), max_size=2 * len(senders))))
    weights, keep = jnp.asarray(numbers.reshape(2, -1))
    return PairMixing(jnp.array(senders, jnp.int32), jnp.array(receivers, jnp.int32), weights, keep)


@st.composite
def groups(draw, n):
    """Two groups of three members and two targets each, some of them absent."""
    members = np.array(draw(st.lists(st.integers(0, n), min_size=6, max_size=6)), np.int32).reshape(2, 3)
    weights = np.array(draw(st.lists(st.floats(-1, 1), min_size=6, max_size=6))).reshape(2, 3)
    targets = np.resize(draw(permutations(n)), 4) if n >= 4 else np.r_[draw(permutations(n)), [n] * (4 - n)]
    weights = np.where(members < n, weights, 0)
    return GroupMixing(jnp.asarray(members), jnp.asarray(weights), jnp.asarray(targets.reshape(2, 2), jnp.int32))


def loop(mixing, x):
    """The definitions of the four forms, one row and one number at a time."""
    n, out = len(x), np.array(x)
    match mixing:
        case DenseMixing(W=W):
            return np.array([sum(W[i, j] * x[j] for j in range(n)) for i in range(n)])
        case TableMixing(neighbors=nbr, weights=w, self_weight=own):
            return np.array(
                [own[i] * x[i] + sum(w[i, k] * x[nbr[i, k]] for k in range(nbr.shape[1])) for i in range(n)]
            )
        case PairMixing():
            for s, r, w, keep in zip(*mixing, strict=True):
                if s < n and r < n:
                    out[r] = keep * x[r] + w * x[s]
        case GroupMixing(members=members, weights=weights, targets=targets):
            for g in range(len(members)):
                mean = sum(w * x[m] for m, w in zip(members[g], weights[g], strict=True) if m < n)
                for t in targets[g]:
                    if t < n:
                        out[t] = mean
    return out


@st.composite
def any_mixing(draw):
    kind = draw(st.sampled_from(["dense", "table", "pairs", "groups"]))
    if kind in FORMS:
        n = draw(st.sampled_from([1, 5]))  # few sizes, few programs to compile
        W = draw(mixing_matrices(draw(st.sampled_from(["row", "column", "doubly", "symmetric"])), n, n))
        return mx.from_matrix(W, form=kind), n
    n = draw(st.sampled_from([1, 5]))
    return draw((pairs if kind == "pairs" else groups)(n)), n


@few
@given(st.data())
def test_mix_is_its_matrix_and_its_definition(data):
    mixing, n = data.draw(any_mixing())
    x = data.draw(stacked_params(n, dtype=np.float64, varied=False))
    assert_close(mix(mixing, x), apply(to_dense(mixing, n), x))
    flat = np.asarray(x["dense"]["bias"]).reshape(n, -1)
    assert_close(mix(mixing, flat), loop(jax.tree.map(np.asarray, mixing), flat))


@few
@given(st.data())
@pytest.mark.slow
def test_compiled_and_vmapped(data):
    mixing, n = data.draw(any_mixing())
    x = data.draw(params(n))
    expected = apply(to_dense(mixing, n), x)
    assert_close(compiled_mix(mixing, x), expected)
    stacked = jax.tree.map(lambda leaf: np.stack([leaf, 2 * leaf]), x)
    both = mix_many(mixing, stacked)
    assert_close(jax.tree.map(lambda leaf: leaf[1], both), jax.tree.map(lambda leaf: 2 * leaf, expected))
    many = mx.stack_mixings([mixing, mixing])
    assert_close(mix_with_many(many, x), jax.tree.map(lambda leaf: np.stack([leaf] * 2), expected))


@few
@given(st.data())
@pytest.mark.slow
def test_gradient_is_the_transposed_matrix(data):
    mixing, n = data.draw(any_mixing())
    x, y = data.draw(params(n)), data.draw(st.integers(0, 99))
    cotangent = jax.tree.map(lambda leaf: np.random.default_rng(y).standard_normal(leaf.shape), x)
    assert_close(transpose(mixing, x, cotangent), apply(to_dense(mixing, n).T, cotangent))


@pytest.mark.parametrize("form", FORMS)
def test_gradient_with_respect_to_weights(form):
    mixing = mx.from_matrix(wt.metropolis(tp.ring(5)), form=form)
    x = np.random.default_rng(0).standard_normal((5, 3))

    def loss(weights):
        leaves = [weights[k] if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf for k, leaf in enumerate(mixing)]
        return jnp.sum(mix(type(mixing)(*leaves), x) ** 2)

    start = {k: leaf for k, leaf in enumerate(mixing) if jnp.issubdtype(leaf.dtype, jnp.floating)}
    check_grads(loss, (start,), order=1, modes=["fwd", "rev"])


@few
@given(mixing_matrices("row", max_nodes=6), st.data())
def test_dense_equals_table(W, data):
    x = data.draw(params(W.shape[0]))
    dense, table = (mx.from_matrix(W, form=form) for form in FORMS)
    assert_close(to_dense(table, W.shape[0]), W.toarray(), rtol=0, atol=0)
    assert_close(to_dense(dense, W.shape[0]), W.toarray(), rtol=0, atol=0)
    assert_close(compiled_mix(dense, x), compiled_mix(table, x))


@pytest.mark.parametrize("degree", [15, 16, 17, 31, 32, 33, 50])
def test_blocks_of_neighbours(degree):
    n = 52
    W = wt.uniform(tp.random_regular(n, degree, seed=0))
    x = np.random.default_rng(0).standard_normal((n, 3))
    assert_close(jax.jit(mix)(mx.from_matrix(W, form="table"), x), W @ x)


@few
@given(mixing_matrices("doubly", max_nodes=6), st.data())
def test_doubly_stochastic_conserves_the_mean(W, data):
    x = data.draw(params(W.shape[0]))
    for form in FORMS:
        after = compiled_mix(mx.from_matrix(W, form=form), x)
        assert_close(jax.tree.map(lambda a: a.mean(0), after), jax.tree.map(lambda a: a.mean(0), x))


@few
@given(mixing_matrices("row", max_nodes=6), st.data())
def test_convex_mixing_stays_within_the_extremes(W, data):
    x = data.draw(params(W.shape[0]))["dense"]["kernel"]
    after = np.asarray(compiled_mix(mx.from_matrix(W), x))
    assert np.all(after.max(0) <= x.max(0) + 1e-12 * 100)  # rounding of sums of numbers up to 100
    assert np.all(after.min(0) >= x.min(0) - 1e-12 * 100)


@few
@given(connected_graphs(max_nodes=6), st.data())
def test_permutation_equivariance(topology, data):
    n = topology.num_nodes
    order = data.draw(permutations(n))
    x = data.draw(params(n))
    for form in FORMS:
        before = mx.from_matrix(wt.metropolis(topology), form=form)
        after = mx.from_matrix(wt.metropolis(topology.relabel(order)), form=form)
        moved = jax.tree.map(lambda leaf: leaf[np.argsort(order)], x)
        assert_close(
            compiled_mix(after, moved), jax.tree.map(lambda leaf: leaf[np.argsort(order)], compiled_mix(before, x))
        )


@few
@given(st.data())
def test_exchange_conserves_the_mean_and_shrinks_the_variance(data):
    n = data.draw(st.integers(2, 8))
    order = data.draw(permutations(n))
    k = data.draw(st.integers(1, n // 2))
    x = data.draw(params(n))["dense"]["bias"]
    after = np.asarray(compiled_mix(mx.exchange(order[:k], order[k : 2 * k]), x))
    assert_close(after.mean(0), x.mean(0))
    assert_close(after[order[:k]], (x[order[:k]] + x[order[k : 2 * k]]) / 2)
    assert np.all(after.var(0) <= x.var(0) + 1e-10)  # rounding of squares of numbers up to 100


def test_exchange_and_push_of_scalars():
    x = jnp.array([0.0, 4.0, 9.0])
    assert_close(mix(mx.exchange(0, 1), x), [2, 2, 9] * np.ones(3))
    assert_close(mix(mx.exchange(0, 1, 0.25), x), [1, 3, 9] * np.ones(3))
    assert_close(mix(mx.push(2, 1, 0.2), x), [0, 5, 9] * np.ones(3))
    assert_close(jax.jit(lambda i, j, w, x: mix(mx.push(i, j, w), x))(2, 1, 0.2, x), [0, 5, 9] * np.ones(3))
    several = mx.exchange(np.array([0]), np.array([2]), np.array([1.0]))
    assert_close(mix(several, x), [9, 4, 0] * np.ones(3))


def test_all_reads_come_before_any_write():
    rotate = PairMixing(jnp.array([0, 1, 2]), jnp.array([1, 2, 0]), jnp.ones(3), jnp.zeros(3))
    assert_close(mix(rotate, jnp.array([1.0, 2.0, 3.0])), np.array([3.0, 1.0, 2.0]))


def test_nobody_changes_nothing():
    x = jnp.arange(4.0)
    for i, j in ((1, 4), (4, 1), (4, 4), (7, 9)):
        assert_close(mix(mx.exchange(i, j), x), x, rtol=0, atol=0)
        assert_close(mix(mx.push(i, j, 0.3), x), x, rtol=0, atol=0)
    absent = GroupMixing(jnp.array([[0, 4]]), jnp.array([[1.0, 0.0]]), jnp.array([[2, 4]]))
    assert_close(mix(absent, x.at[3].set(jnp.nan))[:3], np.array([0.0, 1.0, 0.0]))


def energy(own, other):
    difference = other["dense"]["bias"] - own["dense"]["bias"]
    return {"square": difference**2, "sum": (own["dense"]["kernel"] * other["dense"]["kernel"]).sum()}


def difference(own, other):
    return jax.tree.map(lambda a, b: b - a, own, other)


@few
@given(st.data())
def test_neighbor_sum_is_its_definition(data):
    mixing, n = data.draw(any_mixing())
    x = data.draw(params(n))

    W, live = np.array(to_dense(mixing, n)), np.ones(n, bool)
    if isinstance(mixing, GroupMixing | PairMixing):
        written = (
            mixing.targets if isinstance(mixing, GroupMixing) else jnp.where(mixing.senders < n, mixing.receivers, n)
        )
        live = np.isin(np.arange(n), written)
    rows = [jax.tree.map(lambda leaf, i=i: leaf[i], x) for i in range(n)]
    zero = jax.tree.map(np.zeros_like, energy(rows[0], rows[0]))
    expected = []
    for i in range(n):
        total = zero
        for j in range(n):
            if i != j and live[i]:
                total = jax.tree.map(lambda t, v, w=W[i, j]: t + w * v, total, energy(rows[i], rows[j]))
        expected.append(total)
    expected = jax.tree.map(lambda *leaves: np.stack(leaves), *expected)
    # Products of numbers up to 100 with up to nine entries: 1e5 · 1e-16 · a few dozen operations.
    assert_close(neighbor_sum(mixing, energy, x), expected, rtol=1e-11, atol=1e-9)


@few
@given(mixing_matrices("row", max_nodes=6), st.data())
def test_mix_is_the_neighbor_sum_of_differences(W, data):
    x = data.draw(params(W.shape[0]))
    for form in FORMS:
        mixing = mx.from_matrix(W, form=form)
        pull = neighbor_sum(mixing, difference, x)
        assert_close(compiled_mix(mixing, x), jax.tree.map(np.add, x, pull))


def test_neighbor_sum_ignores_values_without_weight():
    mixing, x = mx.from_matrix(wt.metropolis(tp.star(4)), form="table"), jnp.arange(4.0)
    for form in (mixing, mx.from_matrix(wt.metropolis(tp.star(4)), form="dense")):
        # The reciprocal difference is infinite where own and other are the same row.
        assert np.all(np.isfinite(neighbor_sum(form, lambda own, other: 1 / (own - other), x)))


@few
@given(mixing_matrices("row", max_nodes=6))
def test_messages_are_the_columns_of_the_matrix(W):
    n = W.shape[0]
    off = W.toarray()
    np.fill_diagonal(off, 0)
    for form in FORMS:
        count = messages(mx.from_matrix(W, form=form), n)
        assert count.dtype == jnp.uint32
        np.testing.assert_array_equal(count, np.count_nonzero(off, axis=0))


def test_messages_leave_out_padding():
    transfers = PairMixing(jnp.array([0, 1, 5, 2, 3]), jnp.array([1, 0, 2, 5, 3]), jnp.ones(5), jnp.ones(5))
    np.testing.assert_array_equal(mx.messages(transfers, 5), [1, 1, 0, 0, 0])
    weights = jnp.array([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])
    sampled = GroupMixing(jnp.array([[0, 1, 5], [2, 3, 5]]), weights, jnp.array([[0, 1], [2, 5]]))
    np.testing.assert_array_equal(mx.messages(sampled, 5), [1, 1, 0, 1, 0, 0, 1, 1, 1, 0])
    assert messages(mx.exchange(0, 1), 10**9).shape == (2,)


@few
@given(st.lists(mixing_matrices("row", 5, 5), min_size=1, max_size=4), st.data())
def test_stack_and_take(matrices, data):
    x = data.draw(params(5))
    for form in FORMS:
        mixings = [mx.from_matrix(W, form=form) for W in matrices]
        stacked = mx.stack_mixings(mixings)
        for r, mixing in enumerate(mixings):
            taken = take(stacked, r)
            assert_close(to_dense(taken, 5), to_dense(mixing, 5), rtol=0, atol=0)
            assert_close(compiled_mix(taken, x), compiled_mix(mixing, x))
            np.testing.assert_array_equal(messages(taken, 5), messages(mixing, 5))


@pytest.mark.parametrize(("n", "degree", "form"), [(8, 2, DenseMixing), (32, 4, DenseMixing), (34, 4, TableMixing)])
def test_automatic_form(n, degree, form):
    assert isinstance(mx.from_matrix(wt.metropolis(tp.random_regular(n, degree, seed=0))), form)


def test_automatic_form_of_nearly_complete_networks():
    assert isinstance(mx.from_matrix(wt.metropolis(tp.complete(100))), DenseMixing)
    assert isinstance(mx.from_matrix(wt.metropolis(tp.star(100))), DenseMixing)


def test_describe():
    table = mx.from_matrix(wt.metropolis(tp.ring(1024)))
    assert mx.describe(table).startswith("table: 2 neighbours of 1024 nodes (dense pays up to ")
    assert mx.describe(mx.from_matrix(wt.averaging(4))).startswith("dense: 4 nodes")
    assert mx.describe(mx.exchange(0, 1)) == "pairs: 2 transfers"
    group = GroupMixing(jnp.zeros((1, 3), int), jnp.zeros((1, 3)), jnp.zeros((1, 2), int))
    assert mx.describe(group) == "groups: 1 of 3 members and 2 targets"


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16])
def test_leaves_keep_their_dtype(dtype):
    W = wt.metropolis(tp.ring(40))
    x = np.random.default_rng(0).standard_normal((40, 3)).astype(dtype)
    exact = W @ np.asarray(x, np.float64)
    for mixing in (*(mx.from_matrix(W, form=form) for form in FORMS), mx.exchange(0, 1)):
        assert mix(mixing, jnp.asarray(x)).dtype == dtype
        if len(mixing) < 4:
            # Three products of numbers of order one: a few units in the last place.
            error = np.abs(np.asarray(mix(mixing, jnp.asarray(x)), np.float64) - exact).max()
            assert error < 20 * float(jnp.finfo(dtype).eps)


def test_dtype_of_the_weights():
    assert mx.from_matrix(wt.averaging(3)).W.dtype == jnp.float64
    assert mx.from_matrix(wt.averaging(3), dtype=jnp.float32).W.dtype == jnp.float32
    assert mx.from_matrix(np.eye(3)).W.dtype == jnp.float64


def test_single_node():
    for form in FORMS:
        mixing = mx.from_matrix(wt.metropolis(tp.ring(1)), form=form)
        assert_close(mix(mixing, jnp.ones((1, 2))), np.ones((1, 2)))
        assert_close(neighbor_sum(mixing, lambda a, b: a + b, jnp.ones((1, 2))), np.zeros((1, 2)))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: mx.from_matrix(np.ones((2, 3))), ValueError, "square"),
        (lambda: mx.from_matrix(np.full((2, 2), np.nan)), ValueError, r"W\[0, 0\] = nan"),
        (lambda: mx.from_matrix(np.eye(2), form="sparse"), ValueError, "form='sparse': must be one of 'auto'"),
        (lambda: mix(mx.from_matrix(np.eye(2)), jnp.ones((3, 2))), ValueError, "2 rows"),
        (lambda: mix(mx.exchange(0, 1), jnp.ones(())), ValueError, "row axis"),
        (lambda: mix(mx.exchange(0, 1), {"age": jnp.ones(3, int)}), TypeError, r"\['age'\].*int64"),
        (lambda: mx.exchange(np.arange(2), np.arange(3)), ValueError, "vectors of one length"),
        (lambda: mx.stack_mixings([]), ValueError, "0 forms"),
        (lambda: mx.stack_mixings([mx.exchange(0, 1), mx.from_matrix(np.eye(2))]), ValueError, "2 forms"),
        (lambda: mx.stack_mixings([mx.exchange(0, 1), mx.push(0, 1, 0.5)]), ValueError, "different sizes"),
        (lambda: mx.stack_mixings([mx.from_matrix(np.eye(k)) for k in (2, 3)]), ValueError, "different sizes"),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_explicit_zeros_are_no_neighbours():
    W = sparse.csr_array((np.array([1.0, 0.0, 1.0]), (np.array([0, 0, 1]), np.array([0, 1, 1]))), shape=(2, 2))
    assert mx.from_matrix(W, form="table").neighbors.shape == (2, 0)


def fragments(parts):
    return GroupMixing(jnp.asarray([[0, 1]]), jnp.asarray([[0.5, 0.5]]), jnp.asarray([[0]]), parts)


@pytest.mark.parametrize("parts", [[[-1, -1]], [[-1, 0]], [[2, 3]]])
def test_fragments_are_no_whole_models(parts):
    x, mixing = jnp.ones((3, 2)), fragments(jnp.asarray(parts))
    for call in (
        lambda: mix(mixing, x),
        lambda: compiled_mix(mixing, x),
        lambda: mx.neighbor_sum(mixing, jnp.subtract, x),
        lambda: to_dense(mixing, 3),
    ):
        with pytest.raises(ValueError, match=r"mixing: its groups send fragments .*dpsgd\(sharing=fragments"):
            call()
    np.testing.assert_array_equal(mx.messages(mixing, 3), [1, 1, 1])
    assert_close(mix(fragments(None), x), x, rtol=0, atol=0)


X = jnp.ones((3, 2))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: mix(DenseMixing(np.ones((2, 3))), X),
            ValueError,
            r"DenseMixing.W of shape \(2, 3\): must be of shape",
        ),
        (
            lambda: mix(DenseMixing(np.full((3, 3), np.nan)), X),
            ValueError,
            "DenseMixing.W holds a weight that is not f",
        ),
        (
            lambda: mix(TableMixing(np.array([[1], [2], [3]]), np.ones((3, 1)), np.ones(3)), X),
            ValueError,
            r"TableMixing.neighbors holds 3: must be a row, in 0\.\.2",
        ),
        (
            lambda: mix(TableMixing(np.zeros((3, 2), int), np.ones((3, 1)), np.ones(3)), X),
            ValueError,
            r"TableMixing.weights of shape \(3, 1\): must be of shape \(3, 2\)",
        ),
        (
            lambda: mix(PairMixing(np.array([-1]), np.array([0]), np.ones(1), np.ones(1)), X),
            ValueError,
            "PairMixing.senders holds -1",
        ),
        (
            lambda: mix(PairMixing(np.array([0, 2]), np.array([1, 1]), np.ones(2), np.ones(2)), X),
            ValueError,
            "PairMixing.receivers: row 1 is written twice",
        ),
        (
            lambda: mix(PairMixing(np.array([0]), np.array([2**33 + 1]), np.ones(1), np.ones(1)), X),
            ValueError,
            "PairMixing.receivers=.*must fit into 32 bits",
        ),
        (
            lambda: mix(GroupMixing(np.array([[0, 1]]), np.ones((1, 2)), np.array([[2, 2]])), X),
            ValueError,
            "GroupMixing.targets: row 2 is written twice",
        ),
        (
            lambda: mix(GroupMixing(np.array([[0, 3]]), np.ones((1, 2)), np.array([[2]])), X),
            ValueError,
            "GroupMixing.weights: a member past row 2 is absent",
        ),
        (lambda: mix(mx.exchange(1, 1), X), ValueError, "PairMixing.receivers: row 1 is written twice"),
        (lambda: mix(mx.exchange(0, 1), {"a": X, "b": X[:2]}), ValueError, r"x\['b'\] has shape \(2, 2\)"),
        (lambda: mix(mx.exchange(0, 1), {}), ValueError, "holds no array"),
        (lambda: mix(mx.exchange(0, 1), "abc"), TypeError, "x='abc': must be an array"),
        (lambda: mix(np.eye(3), X), TypeError, "mixing=.*must be a DenseMixing or .*use from_matrix"),
        (lambda: mx.messages(mx.from_matrix(np.eye(2)), 3), ValueError, "num_rows=3: the mixing has 2 rows"),
        (lambda: to_dense(mx.from_matrix(np.eye(2)), 3), ValueError, "num_rows=3: the mixing has 2 rows"),
        (lambda: mx.exchange(1.5, 0), ValueError, "i=1.5: must be whole numbers"),
        (lambda: mx.push(0, -1, 0.5), ValueError, "j=-1"),
        (lambda: mx.exchange([0, 1], [2, 3], [0.5, np.nan]), ValueError, r"weight\[1\]=nan"),
        (lambda: mx.exchange([0, 1], [2, 3], [0.5, 0.5, 0.5]), ValueError, r"weight of shape \(3,\)"),
        (lambda: mx.take_mixing(mx.from_matrix(np.eye(2)), 0), ValueError, "one DenseMixing, not several"),
        (lambda: mx.take_mixing(mx.stack_mixings([mx.exchange(0, 1)] * 2), 2), ValueError, "r=2.*0 … 1"),
        (lambda: mx.stack_mixings(mx.exchange(0, 1)), TypeError, "mixings=.*must be a list of mixings"),
        (lambda: mx.from_matrix(np.eye(2), dtype=int), ValueError, "dtype=.*must be a floating-point type"),
        (lambda: mx.from_matrix(tp.ring(3)), TypeError, "W=.*must be a matrix of NumPy or SciPy"),
    ],
)
def test_mixings_that_cannot_be(call, error, message, monkeypatch):
    # Behind the checked annotations, which would refuse some of it before the checks of this package do.
    for name in ("mix", "to_dense"):
        monkeypatch.setitem(globals(), name, inspect.unwrap(globals()[name]))
    for name in ("exchange", "push", "stack_mixings", "from_matrix", "messages", "take_mixing"):
        monkeypatch.setattr(mx, name, inspect.unwrap(getattr(mx, name)))
    with pytest.raises(error, match=message):
        call()


def test_traced_nodes_and_weights_pass():
    def pushed(i, weight):
        return mix(mx.push(i, 1, weight), jnp.arange(3.0))

    assert_close(jax.jit(pushed)(2, 0.5), np.array([0.0, 1.5, 2.0]))
    stacked = mx.stack_mixings([mx.exchange(0, 1)] * 2)
    assert_close(jax.jit(mx.take_mixing)(stacked, 7).keep, np.full(2, 0.5))


def test_mixings_that_do_not_fit_are_refused(monkeypatch):
    monkeypatch.setattr("gossipjax._base.memory.free_bytes", lambda: 2.0**30)
    hub = wt.metropolis(tp.star(100_000))
    for form in ("auto", "dense", "table"):
        with pytest.raises(
            ValueError, match=r"W, form='.*would take about .*busiest of 100000 nodes has 99999 neighbours"
        ):
            mx.from_matrix(hub, form=form)
    assert isinstance(mx.from_matrix(wt.metropolis(tp.ring(100_000))), TableMixing)
    with pytest.raises(ValueError, match="num_rows=100000: a dense matrix would take"):
        to_dense(mx.exchange(0, 1), 100_000)
