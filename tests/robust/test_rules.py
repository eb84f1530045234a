"""Robust rules: vectors worked out by another program, plain loops in NumPy, and what no lie may do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gossipjax import robust as R
from gossipjax.robust._sorting import FEW, comparisons, sort_rows

X = np.asarray([1.0, 0.0])
Y = np.asarray([[1.2, 0.1], [0.8, -0.2], [1.1, 0.3], [0.9, 0.1], [5, -4]])
W, B = np.full(5, 1 / 6), 1 / 6
PRINTED = {"rtol": 0, "atol": 1e-6}
VECTORS = {
    "median": (R.coordinate_median(), (1.05, 0.05)),
    "trimmed": (R.trimmed_mean(1), (1.05, 0)),
    "bridge": (R.trimmed_mean(1, bridge=True), (1.05, 0)),
    "geometric median": (R.geometric_median(), (1, 0)),
    "smoothed": (R.geometric_median(smoothed=True), (1.034049, 0.030452)),
    "Krum": (R.krum(1), (1, 0)),
    "3-Krum": (R.krum(1, m=3), (1.033333, 0.066667)),
    "clipped": (R.clipped_gossip(0.3), (1.034500, 0.012079)),
    "he": (R.clipped_gossip(beta=B), (1.058926, -0.008926)),
    "CS+": (R.cs_plus(B), (1.037268, 0.012732)),
    "released": (R.cs_plus(B, released=True), (1.031574, 0.011388)),
    "GTS": (R.gts(B), (1, 0.05)),
    "NNA": (R.nna(1), (1, 0.06)),
    "IOS": (R.ios(1), (1, 0.06)),
    "FABA": (R.faba(1), (1, 0.06)),
    "NNM and trimmed": (R.nnm(1, R.trimmed_mean(1)), (1, 0.06)),
    "NNM and median": (R.nnm(1, R.coordinate_median()), (1, 0.06)),
    "NNM and Krum": (R.nnm(1, R.krum(1)), (1, 0.06)),
}


@jax.jit
def applied(rule, own, others, weights):
    return rule.apply(own, others, weights, None)


def result(rule, own=X, others=Y, weights=W):
    return np.asarray(applied(rule, *(jnp.asarray(a) for a in (own, others, weights))))


@pytest.mark.parametrize("name", VECTORS)
def test_vectors(name):
    rule, expected = VECTORS[name]
    np.testing.assert_allclose(result(rule), expected, **PRINTED)


@pytest.mark.parametrize("name", VECTORS)
def test_padding_and_the_order_of_lanes_change_nothing(name):
    rule, _ = VECTORS[name]
    order = np.asarray([3, 0, 4, 2, 1])
    padded = np.concatenate([[[7.0, 7.0]], Y[order], [X], [[np.nan, 0.0]]])
    weights = np.concatenate([[0.0], W[order], [0.0, 0.0]])
    np.testing.assert_allclose(result(rule, others=padded, weights=weights), result(rule), rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", VECTORS)
def test_a_lane_that_is_not_finite_is_the_farthest(name):
    rule, _ = VECTORS[name]
    broken = [result(rule, others=np.where(Y == 5, bad, Y)) for bad in (np.nan, np.inf, -np.inf)]
    assert np.isfinite(broken).all()
    np.testing.assert_array_equal(broken[0], broken[1])
    np.testing.assert_array_equal(broken[0], broken[2])
    far = result(rule, others=np.where(np.abs(Y) > 3, np.sign(Y) * 1e7, Y))
    if name in ("clipped", "he", "CS+", "released", "geometric median", "smoothed"):
        # A far model pulls with a bounded force; one that is not finite does not pull at all.
        assert np.linalg.norm(broken[0] - far) <= 0.6
    elif name not in ("median", "trimmed", "bridge"):  # which order the sides of a coordinate
        np.testing.assert_allclose(broken[0], far, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["trimmed", "bridge", "Krum", "CS+", "GTS", "NNA", "IOS", "FABA", "he"])
def test_too_many_lanes_that_are_not_finite(name):
    others = Y.copy()
    others[[0, 1, 4]] = np.nan
    assert np.isnan(result(VECTORS[name][0], others=others)).all()


def test_scores_of_krum():
    V = np.concatenate([X[None], Y])
    squared = np.sort(((V[:, None] - V[None]) ** 2).sum(2), axis=1)
    np.testing.assert_allclose(squared[:, 1 : 6 - 1 - 2 + 1].sum(1), (0.15, 0.19, 0.43, 0.23, 0.19, 95.33), atol=1e-9)


# Plain loops


def drop_farthest(own, others, weights, b, weighted):
    left = list(range(len(others)))
    w0 = 1 - weights.sum()
    for _ in range(b):
        if weighted:
            mean = (w0 * own + weights[left] @ others[left]) / (w0 + weights[left].sum())
        else:
            mean = others[left].mean(0)
        left.pop(int(np.argmax([np.linalg.norm(others[j] - mean) for j in left])))
    if weighted:
        return (w0 * own + weights[left] @ others[left]) / (w0 + weights[left].sum())
    return (others[left].sum(0) + own) / (len(left) + 1)


def nearest_means(V, b):
    means = [V[np.argsort(np.linalg.norm(V - v, axis=1), kind="stable")[: len(V) - b]].mean(0) for v in V]
    return np.asarray(means)


def split(own, others, weights, total):
    """Weights of the nearest, the last one split."""
    taken, left = np.zeros(len(weights)), total
    for j in np.argsort(np.linalg.norm(others - own, axis=1), kind="stable"):
        taken[j] = min(weights[j], max(left, 0))
        left -= weights[j]
    return taken


def clip(own, others, weights, tau):
    length = np.linalg.norm(others - own, axis=1)
    return own + (weights * np.minimum(1, tau / length)) @ (others - own)


def cs_threshold(own, others, weights, beta):
    length = np.linalg.norm(others - own, axis=1)
    return max([t for t in length if weights[length >= t].sum() >= 2 * beta - 1e-12], default=0.0)


def he_threshold(own, others, weights, beta):
    near = split(own, others, weights, weights.sum() - beta)
    return np.sqrt(near @ np.linalg.norm(others - own, axis=1) ** 2 / beta)


def trimmed(V, b):
    return np.sort(V, axis=0)[b : len(V) - b].mean(0)


LOOPS = {
    "median": (R.coordinate_median(), lambda x, y, w: np.median(np.vstack([x, y]), axis=0)),
    "trimmed": (R.trimmed_mean(2), lambda x, y, w: trimmed(np.vstack([x, y]), 2)),
    "bridge": (
        R.trimmed_mean(2, bridge=True),
        lambda x, y, w: (np.sort(y, axis=0)[2:-2].sum(0) + x) / (len(y) - 3),
    ),
    "nna": (
        R.nna(2),
        lambda x, y, w: np.vstack([x, y[np.argsort(np.linalg.norm(y - x, axis=1))[: len(y) - 2]]]).mean(0),
    ),
    "nnm": (R.nnm(2, R.trimmed_mean(2)), lambda x, y, w: trimmed(nearest_means(np.vstack([x, y]), 2), 2)),
    "ios": (R.ios(2), lambda x, y, w: drop_farthest(x, y, w, 2, True)),
    "faba": (R.faba(2), lambda x, y, w: drop_farthest(x, y, w, 2, False)),
    "clipped": (R.clipped_gossip(0.7), lambda x, y, w: clip(x, y, w, 0.7)),
    "he": (R.clipped_gossip(beta=0.2), lambda x, y, w: clip(x, y, w, he_threshold(x, y, w, 0.2))),
    "cs": (R.cs_plus(0.13), lambda x, y, w: clip(x, y, w, cs_threshold(x, y, w, 0.13))),
    "gts": (R.gts(0.2), lambda x, y, w: x + split(x, y, w, w.sum() - 0.2) @ (y - x)),
}  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(LOOPS)), st.integers(0, 10**6), st.integers(6, 7))
def test_rules_are_their_plain_loops(name, seed, k):
    rng = np.random.default_rng(seed)
    own, others = rng.standard_normal(3), rng.standard_normal((k, 3)) * rng.choice([0.3, 1, 4], (k, 1))
    weights = rng.dirichlet(np.ones(k + 1))[1:]
    rule, loop = LOOPS[name]
    room = np.concatenate([others, np.zeros((7 - k, 3))]), np.concatenate([weights, np.zeros(7 - k)])
    # Sums of a few numbers near 1.
    np.testing.assert_allclose(result(rule, own, *room), loop(own, others, weights), rtol=0, atol=1e-10)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
@example(503)  # a model is all but the median
def test_the_geometric_median_is_the_least_sum_of_distances(seed):
    rng = np.random.default_rng(seed)
    V = rng.standard_normal((6, 3))
    V[3:] += 0.01 * rng.standard_normal((3, 3)) if seed % 2 else 0

    def total(z):
        return np.linalg.norm(V - z, axis=1).sum()

    found = result(R.geometric_median(), V[0], V[1:], np.full(5, 0.1))
    best = min(
        scipy.optimize.minimize(total, start, method="Nelder-Mead", tol=1e-10).fun for start in (V[0], V.mean(0))
    )
    assert total(found) <= min(best, *map(total, V)) + 1e-9
    apart = found - V
    length = np.linalg.norm(apart, axis=1)
    there = length < 1e-9
    slope = np.linalg.norm((apart[~there] / length[~there, None]).sum(0)) - there.sum()
    assert slope < 1e-8  # Weiszfeld's steps alone end 1e-3 from it near a model


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("shift", [8.0, 1e6])
def test_the_geometric_median_leaves_a_model_at_the_mean(kind, shift):
    """The iteration begins where a model lies that is not the median; three others lie together, which are."""
    V = np.asarray([[0.0, 0], [9, 0], [-3, 1], [-3, 0], [-3, -1]]) + shift
    found = result(R.geometric_median(), V[0].astype(kind), V[1:].astype(kind), np.full(4, 0.2, kind))

    def total(z):
        return np.linalg.norm(V - z, axis=1).sum()

    best = scipy.optimize.minimize(total, V[3], method="Nelder-Mead", tol=1e-10).fun
    # The sum is flat at its minimum, so that its error is that of five distances between numbers near the shift.
    assert total(found.astype(np.float64)) <= best + 10 * max(np.finfo(kind).eps * shift, 1e-10)


def test_no_liars_expected_is_plain_mixing():
    mean = (1 - W.sum()) * X + W @ Y
    for rule in (R.clipped_gossip(np.inf), R.clipped_gossip(beta=0.0), R.cs_plus(0.0), R.gts(0.0), R.ios(0)):
        np.testing.assert_allclose(result(rule), mean, rtol=0, atol=1e-12)


def test_single_precision():
    for name, (rule, expected) in VECTORS.items():
        found = result(rule, *(a.astype(np.float32) for a in (X, Y, W)))
        assert found.dtype == np.float32, name
        np.testing.assert_allclose(found, expected, rtol=0, atol=3e-6, err_msg=name)


# What no lie may do: the largest errors that 60,000 random adversaries reached were 1.5 (CS+) and 4.0 (GTS).

RHO = {"cs": (R.cs_plus, 2.0), "gts": (R.gts, 4.0)}


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(RHO)), st.integers(0, 10**6), st.floats(0.01, 100))
def test_robust_sums(name, seed, size):
    build, rho = RHO[name]
    rng = np.random.default_rng(seed)
    honest = rng.standard_normal((4, 2)) * rng.choice([0, 0.5, 1, 2], (4, 1))
    lie = rng.standard_normal((1, 2))
    lie *= size / np.linalg.norm(lie) * (rng.choice(np.linalg.norm(honest, axis=1)) + 1e-3 if size < 1 else 1)
    b = weight = 0.15
    found = result(build(b), np.zeros(2), np.vstack([honest, lie]), np.full(5, weight))
    error = np.sum((found - weight * honest.sum(0)) ** 2)
    assert error <= rho * b * weight * np.sum(honest**2) * (1 + 1e-6) + 1e-12


def test_gts_reaches_its_constant():
    honest, lie = np.asarray([[1.0], [0], [0]]), [[-0.999]]
    found = result(R.gts(1 / 8), np.zeros(1), np.vstack([honest, lie]), np.full(4, 1 / 8))
    np.testing.assert_allclose((8 * found - 1) ** 2, 3.996001, rtol=0, atol=1e-9)


def test_what_builders_refuse():
    for call, words in (
        (lambda: R.trimmed_mean(-1), "b=-1"),
        (lambda: R.cs_plus(1.0), "beta"),
        (lambda: R.clipped_gossip(), "exactly one"),
        (lambda: R.clipped_gossip(1.0, beta=0.1), "exactly one"),
        (lambda: R.krum(1, m=0), "m=0"),
        (lambda: R.alie(0.0), "no attack"),
        (lambda: R.alie(R.alie_z(6, 1)), "no attack"),
        (lambda: R.rpel(20, 9, 3, 100), "half or more"),
    ):
        with pytest.raises(ValueError, match=words):
            call()


def test_numbers_of_liars():
    np.testing.assert_allclose([R.alie_z(50, 24), R.alie_z(12, 2), R.alie_z(6, 1)], (1.426077, 0, -0.253347), **PRINTED)
    assert R.rpel_b(100, 10, 15, 200) == 7


@pytest.mark.parametrize("number", [*range(1, 14), FEW, FEW + 1])
def test_rows_are_sorted_as_numpy_sorts(number):
    rng = np.random.default_rng(number)
    values = rng.integers(0, 4, (number, 50)) * rng.standard_normal((number, 50))
    values[rng.random((number, 50)) < 0.2] = np.inf
    np.testing.assert_array_equal(sort_rows(jnp.asarray(values)), np.sort(values, axis=0))


@pytest.mark.parametrize(("backend", "number", "sorts"), [("cpu", 9, False), ("gpu", 9, True), ("cpu", FEW + 1, True)])
def test_a_network_of_comparisons_is_used_on_a_cpu_and_for_few_rows(backend, number, sorts, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    program = str(jax.make_jaxpr(lambda values: sort_rows(values))(jnp.zeros((number, 3))))
    assert (" sort[" in program) == sorts


@pytest.mark.parametrize("number", range(1, 12))
def test_the_network_sorts_every_order_of_two_values(number):
    """By the 0-1 principle it then sorts everything."""
    bits = (np.arange(2**number)[None] >> np.arange(number)[:, None]) & 1
    for low, high in comparisons(number):
        bits[[low, high]] = np.sort(bits[[low, high]], axis=0)
    assert (np.diff(bits, axis=0) >= 0).all()


@pytest.mark.parametrize(("dtype", "power"), [(np.float32, -24), (np.float32, 20), (np.float64, -40), (np.float64, 60)])
def test_the_geometric_median_does_not_depend_on_the_unit(dtype, power):
    """Powers of two only change exponents, so that not even a rounding differs."""
    corners = np.asarray([[0, 0], [1, 0], [0, 1], [1, 1]], dtype)
    cloud = np.random.default_rng(0).standard_normal((7, 3)).astype(dtype)
    for models in (corners, cloud):
        one, other = (
            np.asarray(R.geometric_median().apply(x[0], x[1:], jnp.ones(len(x) - 1, dtype), None))
            for x in map(jnp.asarray, (models, np.ldexp(models, power)))
        )
        np.testing.assert_array_equal(other, np.ldexp(one, power))
    middle = R.geometric_median().apply(*map(jnp.asarray, (corners[0], corners[1:], np.ones(3, dtype))), None)
    np.testing.assert_allclose(middle, 0.5, rtol=0, atol=32 * np.finfo(dtype).eps)
