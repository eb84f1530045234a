"""The rate of a curve that is known, and the coverage of its interval."""

import numpy as np
import pytest
import xarray as xr

from gossipjax.results import linear_rate


def curve(values, every=1):
    values = np.asarray(values, float)
    dims = ("seed", "record")[-values.ndim :]
    return xr.DataArray(values, {"event": ("record", every * np.arange(values.shape[-1]))}, dims)


def test_an_exact_geometric_curve():
    found = linear_rate(curve(5 * 0.8 ** (3 * np.arange(60)), every=3))
    assert found.rate == pytest.approx(0.8, rel=1e-12)
    assert found.high - found.low < 1e-12
    assert found.records == 48  # without a fifth of them


def test_transient_and_floor_are_left_out():
    t = np.arange(100)
    values = 0.9**t + 10 * 0.5**t
    values[80:] = 1e-4
    found = linear_rate(curve(values), skip=0.3, floor=1e-3)
    first_below = int(np.argmax(values <= 1e-3))
    assert found.records == first_below - int(np.ceil(0.3 * first_below))
    assert found.rate == pytest.approx(0.9, abs=1e-4)
    with_both = linear_rate(curve(values), skip=0.0)
    assert with_both.high - with_both.low > 0.1


def test_the_interval_covers_the_rate_95_times_in_100():
    """Independent noise on the logarithm of each record; seeds, or blocks of one seed: 4 standard errors of 400."""
    rng, t = np.random.default_rng(0), np.arange(100)
    for seeds in ((), (4,)):
        hits = 0
        for _ in range(400):
            found = linear_rate(curve(np.exp(np.log(0.95) * t + 0.3 * rng.standard_normal((*seeds, t.size)))))
            hits += found.low <= 0.95 <= found.high
        assert abs(hits / 400 - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 400)


@pytest.mark.parametrize(
    ("values", "settings", "message"),
    [
        (np.ones(100), {"blocks": 1}, "blocks=1"),
        (np.ones(100), {"skip": 1.0}, "skip=1"),
        (np.ones(100), {"floor": -1.0}, "floor=-1"),
        (np.ones(100), {"floor": 2.0}, "0 values lie above floor=2"),
        (np.ones(9), {}, "record more often"),
        (np.full(100, np.nan), {}, "record more often"),
    ],
)
def test_what_cannot_be_fitted_is_refused(values, settings, message):
    with pytest.raises(ValueError, match=message):
        linear_rate(curve(values), **settings)


def test_other_curves_are_refused():
    with pytest.raises(ValueError, match="one number per record"):
        linear_rate(xr.DataArray(np.ones((9, 2)), dims=("record", "node")))


def test_a_block_within_one_event_is_refused():
    """Records at simulated times repeat an event while nothing happens."""
    quiet = curve(0.9 ** np.arange(50)).assign_coords(event=("record", np.minimum(np.arange(50), 20)))
    with pytest.raises(ValueError, match="all records of a block are of one event"):
        linear_rate(quiet)
