"""What tests of devices share: availability by hand, and what makes nodes the same."""

import numpy as np

from gossipjax import devices as dev

INF = np.inf
DAY = 86_400
PREFIX = {"n": 40, "more": 300}


def availability(rows, periods):
    """Build from a list of (on, off) pairs per device."""
    offsets = np.cumsum([0, *map(len, rows)])
    on, off = np.array([pair for row in rows for pair in row], float).reshape(-1, 2).T
    return dev.Availability(offsets, on, off, np.array(periods, float))


def rows_of(times):
    """Read the intervals back as lists of pairs."""
    pairs = list(zip(times.on_s.tolist(), times.off_s.tolist(), strict=True))
    return [pairs[a:b] for a, b in zip(times.offsets[:-1], times.offsets[1:], strict=True)]


def devices_of(times):
    return dev.with_availability(dev.uniform(times.num_nodes), times)


def assert_same(some, whole, nodes):
    """Nodes of one network are devices of another in every respect."""
    for name in ("seconds_per_sample", "upload_bytes_per_second", "download_bytes_per_second", "city"):
        np.testing.assert_array_equal(getattr(some, name), getattr(whole, name)[nodes])
    np.testing.assert_array_equal(some.city_latency_seconds, whole.city_latency_seconds)
    assert (some.availability is None) == (whole.availability is None)
    if some.availability is not None:
        rows = rows_of(whole.availability)
        assert rows_of(some.availability) == [rows[i] for i in nodes]
        np.testing.assert_array_equal(some.availability.period_s, whole.availability.period_s[nodes])
