"""The linear rate of a recorded curve, with an interval."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float

from gossipjax._base.arguments import instance, real, whole

if TYPE_CHECKING:  # only its type is needed, and xarray takes 40 MB
    from xarray import DataArray


class LinearRate(NamedTuple):
    """A factor per event by which a curve shrinks, with its 95 % interval."""

    rate: float
    low: float
    high: float
    records: int
    """Records of the fit; the smallest number over the seeds."""


def linear_rate(curve: DataArray, *, skip: float = 0.2, floor: float = 0.0, blocks: int = 5) -> LinearRate:
    """Fit ``v_t = C ρ^t`` to a recorded curve v over events t, such as ``run["squared_error"]``.

    Each seed's records from the end of the transient to the floor are cut into blocks of equally many records (±1). The
    slope of ``ln v`` in a block is a least-squares fit. With several seeds, ln ρ is the mean over seeds of their mean
    slopes, and the interval is Student's over seeds; with one, it is Student's over the blocks, which says how straight
    the curve is, and assumes that blocks do not depend on each other.

    The rate of a squared error is the square of the rate of the error.

    >>> import numpy as np, xarray as xr
    >>> from gossipjax.results import linear_rate
    >>> events = np.arange(101)
    >>> curve = xr.DataArray(3 * 0.9**events, {"event": ("record", events)}, "record")
    >>> round(linear_rate(curve).rate, 12)
    0.9

    Args:
        curve: positive values over ``record``, with the coordinate ``event``, and possibly ``seed``.
        skip: share in [0, 1) of the records before the floor that belong to the transient.
        floor: least value that counts, such as the level at which rounding or noise takes over: the first record at or
            below it ends the fit.
        blocks: B ≥ 2, of at least two records each.

    Returns:
        ρ and its interval.

    Raises:
        TypeError: if curve is no DataArray.
        ValueError: if it has other dimensions or no events, a number is out of range, too few records are left, or all
            records of a block are of one event.
    """
    from scipy import special
    from xarray import DataArray

    instance("curve", curve, DataArray, "pass one variable of a run, such as run['squared_error']")
    if set(curve.dims) - {"seed"} != {"record"} or "event" not in curve.coords:
        raise ValueError(f"curve over {curve.dims}: must be one number per record (and seed), with its events")
    skip, floor = real("skip", skip, least=0, below=1), real("floor", floor, least=0)
    blocks = whole("blocks", blocks, least=2, remedy="the interval needs two slopes")
    values = curve.transpose("seed", "record").values if "seed" in curve.dims else curve.values[None]
    fitted = [_used(one, curve["event"].values, skip, floor, blocks) for one in values.astype(np.float64)]
    slopes = np.stack([_slopes(*one, blocks) for one in fitted])
    slopes = slopes.mean(axis=1) if len(slopes) > 1 else slopes[0]
    error = slopes.std(ddof=1) / np.sqrt(len(slopes)) * special.stdtrit(len(slopes) - 1, 0.975)
    rate, low, high = np.exp(slopes.mean() + np.array([0.0, -error, error])).tolist()
    return LinearRate(rate, low, high, min(len(events) for events, _ in fitted))


def _used(
    values: Float[np.ndarray, " record"], events: np.ndarray, skip: float, floor: float, blocks: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return events and logarithms between the transient and the floor."""
    low = ~(values > floor)
    end = int(np.argmax(low)) if low.any() else len(values)
    first = int(np.ceil(skip * end))
    if not np.isfinite(values[first:end]).all():
        raise ValueError("curve: has infinite values before the floor; it cannot be fitted")
    if end - first < 2 * blocks:
        raise ValueError(
            f"curve: {end - first} values lie above floor={floor:g} after skip={skip:g} of the records, fewer "
            f"than two for each of blocks={blocks}; record more often, or lower one of these numbers"
        )
    return events[first:end].astype(np.float64), np.log(values[first:end])


def _slopes(events: np.ndarray, logs: np.ndarray, blocks: int) -> np.ndarray:
    """Return the slope of each block."""
    parts = zip(np.array_split(events, blocks), np.array_split(logs, blocks), strict=True)
    centred = [(t - t.mean(), v - v.mean()) for t, v in parts]
    if not all(t.any() for t, _ in centred):
        raise ValueError(
            f"curve: all records of a block are of one event; pass fewer than blocks={blocks}, or record at events"
        )
    return np.array([t @ v / (t @ t) for t, v in centred])
