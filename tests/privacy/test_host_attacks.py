"""Attacks on the host: printed vectors, definitions, and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossipjax import privacy

LOSSES = st.lists(st.integers(0, 6).map(float), min_size=1, max_size=12)


def test_printed_area():
    assert privacy.membership_auc([0.1, 0.2, 0.4], [0.3, 0.5, 0.2]) == pytest.approx(6.5 / 9, rel=1e-15)


@settings(max_examples=60, deadline=None)
@given(LOSSES, LOSSES, st.floats(0.05, 0.95))
def test_areas_and_rates_are_those_of_a_loop(inside, outside, fpr):
    """Over all pairs, and over all thresholds that few enough non-members pass."""
    wins = sum((a < b) + (a == b) / 2 for a in inside for b in outside)
    assert privacy.membership_auc(inside, outside) == pytest.approx(wins / len(inside) / len(outside), rel=1e-12)
    if int(fpr * len(outside) + 1e-9) < 1:
        with pytest.raises(ValueError, match="too few for a rate"):
            privacy.membership_tpr(inside, outside, fpr)
        return
    best = max(
        np.mean(np.asarray(inside) < level)
        for level in [*outside, -1.0]
        if np.mean(np.asarray(outside) < level) <= fpr + 1e-9
    )
    assert privacy.membership_tpr(inside, outside, fpr) == pytest.approx(best, rel=1e-12)


def test_a_sample_is_read_off_its_gradient():
    """W = ((.1, −.2, .3), (0, .5, −.1)), b = (.2, −.1), x = (1, 2, 3), y = 0: p = (.549834, .450166)."""
    W, b = jnp.asarray([[0.1, -0.2, 0.3], [0.0, 0.5, -0.1]]), jnp.asarray([0.2, -0.1])

    def loss(W, b, x, y):
        return -jax.nn.log_softmax(W @ x + b)[y]

    slopes = jax.grad(loss, argnums=(0, 1))(W, b, jnp.asarray([1.0, 2.0, 3.0]), 0)
    np.testing.assert_allclose(slopes[1], (0.549834 - 1, 0.450166), atol=5e-7)
    found = privacy.gradient_inversion(*slopes)
    np.testing.assert_allclose(found.inputs, (1, 2, 3), rtol=1e-14)
    assert found.label == 0
    assert found.residual < 1e-14
    # With three classes, the mean gradient of two samples is no multiple of one.
    gaps, x = np.asarray([[-0.7, 0.4, 0.3], [0.2, -0.5, 0.3]]), np.asarray([[1.0, 2.0], [3.0, -1.0]])
    assert privacy.gradient_inversion(gaps.T @ x, gaps.sum(0)).residual > 0.1
    assert privacy.gradient_inversion(gaps[:1].T @ x[:1], gaps[0]).residual < 1e-15


def test_bad_input_is_refused():
    for bad in ([], [np.nan], "a"):
        with pytest.raises(ValueError, match="members"):
            privacy.membership_auc(bad, [1.0])
        with pytest.raises(ValueError, match="non_members"):
            privacy.membership_auc([1.0], bad)
    with pytest.raises(ValueError, match="fpr=0"):
        privacy.membership_tpr([1.0], [1.0], 0.0)
    with pytest.raises(ValueError, match="no gradient"):
        privacy.gradient_inversion(np.ones((2, 3)), np.zeros(2))
    with pytest.raises(ValueError, match="weights"):
        privacy.gradient_inversion(np.ones((3, 3)), np.ones(2))
    with pytest.raises(ValueError, match="column for each input"):
        privacy.gradient_inversion(np.ones((2, 0)), np.ones(2))
    with pytest.raises(ValueError, match="no gradient"):
        privacy.gradient_inversion(np.ones((2, 3)), [1e-320, -1e-320])


def test_a_rate_of_almost_one_allows_all_but_one():
    assert privacy.membership_tpr([0.1, 0.2, 0.9], [0.1, 0.3], 1 - 1e-10) == pytest.approx(2 / 3)


def test_a_bias_that_no_single_sample_has():
    """The bias is p − y; nearest to (1, 1) is p = y, so that all of it is too far."""
    assert privacy.gradient_inversion(np.ones((2, 3)), np.ones(2)).residual == pytest.approx(1)
    for slope in ([-0.5, -0.2, 0.7], [50, 20, -70], [0.5, 0.2, 0.7], [0.5, 0.2, -0.6]):
        told = [
            privacy.gradient_inversion(np.outer(slope, unit * np.asarray([1, 2])), slope).residual for unit in (1, 1e6)
        ]
        assert told[0] == pytest.approx(told[1], rel=1e-12)
        assert told[0] > 0.05
    for slope in ([0.5, 0.2, -0.7], [1e-20, 1e-20, -2e-20], [0.0, 1.0, -1.0]):
        assert privacy.gradient_inversion(np.outer(slope, [1, 2]), slope).residual < 1e-14
    large = privacy.gradient_inversion(np.full((2, 3), 1e300), [1e300, -1e300])
    assert large.residual == pytest.approx(2 * np.sqrt(3 / 6))  # the second row is 1, not −1
