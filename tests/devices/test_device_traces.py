"""The generators of devices against the published traces, where these are at hand."""

import os
from pathlib import Path

import numpy as np
import pytest
from device_cases import DAY, devices_of
from scipy import stats

from gossipjax import devices as dev
from gossipjax.devices import _laws

ROOT = os.environ.get("GOSSIPJAX_DATA")
TRACES = Path(ROOT, "traces") if ROOT else None
with_traces = pytest.mark.skipif(
    TRACES is None or not (TRACES / "latency_ms.npz").is_file(),
    reason="set GOSSIPJAX_DATA to a folder with traces/latency_ms.npz and the other trace files",
)


def table(name):
    return np.genfromtxt(TRACES / name, delimiter=",", skip_header=1).T


def distance(sample, values, probabilities):
    """Kolmogorov's distance of a sample from a distribution function given at some values."""
    below = np.searchsorted(np.sort(sample), values) / sample.size
    upto = np.searchsorted(np.sort(sample), values, side="right") / sample.size
    return np.maximum(below - probabilities, probabilities - upto).max()


@with_traces
def test_fitted_compute_is_the_published_one():
    values, weights = table("fedscale_compute_pmf.csv")
    assert _laws.COMPUTE_MS == tuple(values)
    assert _laws.COMPUTE_WEIGHTS == tuple(weights)


@with_traces
def test_fitted_bandwidth_is_near_the_published_one():
    p, kbps = table("fedscale_bandwidth_quantiles.csv")
    knots, values = _laws.BANDWIDTH_KBPS
    error = np.abs(np.exp(np.interp(p, knots, np.log(values))) / kbps - 1)
    assert error.max() < 0.09
    assert np.median(error) < 0.01  # both as the docstring of fitted says
    n = 20_000
    sample = dev.fitted(n, 0).download_bytes_per_second / 128
    assert distance(sample, kbps, p) < 0.02 + 1.63 / np.sqrt(n)  # what is stated, and the 1 % point of sampling


@with_traces
def test_fitted_latency_is_near_the_measured_one():
    measured = np.load(TRACES / "latency_ms.npz")["latency_ms"].astype(float)
    apart = ~np.eye(len(measured), dtype=bool)
    values = np.sort(np.clip(measured[apart], 0, 400))
    p = np.arange(1, values.size + 1) / values.size
    drawn = [1e3 * dev.fitted(1, seed).city_latency_seconds[apart] for seed in range(8)]
    assert max(distance(one, values, p) for one in drawn) < 0.07  # as the docstring says
    assert max(abs(one.mean() - values.mean()) for one in drawn) < 4 * 1.6  # four standard deviations as stated
    pooled = np.concatenate(drawn)
    # 5 ms: four standard errors of a mean over 8 seeds whose quantiles vary by 1 to 4 ms.
    np.testing.assert_allclose(np.percentile(pooled, [50, 75, 95]), np.percentile(values, [50, 75, 95]), atol=5)


@with_traces
def test_charging_follows_the_published_curves():
    n = 20_000
    times = dev.charging(n, 0)
    _, share = table("fedscale_online_fraction.csv")
    daily = ((share[:-1] + share[1:]) / 2).reshape(4, 48).mean(0)  # the middle of each half hour, averaged over days
    machines = devices_of(times)
    middles = np.arange(192) * 1800.0 + 900
    drawn = np.array([dev.online(machines, t).mean() for t in middles]).reshape(4, 48).mean(0)
    assert 100 * np.sqrt(((drawn - daily) ** 2).mean()) < 0.6  # points, as the docstring says
    p, hours = table("fedscale_total_online_hours_quantiles.csv")
    hours = hours * 96 * daily.mean() / hours.mean()
    assert distance(96 * dev.share_online(times), hours, p) < 0.02


@with_traces
def test_strict_follows_the_phones():
    machines = dev.from_traces(1000, 0, folder=TRACES, availability="strict")  # every phone once
    measured = dev.share_online(machines.availability)
    assert (measured == 0).sum() >= 290
    drawn = dev.strict(20_000, 0)
    never = np.diff(drawn.offsets) == 0
    z = (never.mean() - 0.29) / np.sqrt(0.29 * 0.71 / 20_000)
    assert abs(z) < 4
    share = stats.ks_2samp(dev.share_online(drawn)[~never], measured[np.diff(machines.availability.offsets) > 0])
    assert share.statistic < 0.03  # this and the next as the docstring says
    daily = np.diff(drawn.offsets)[~never] / 6
    assert stats.ks_2samp(daily, merged_sessions_a_day()).statistic < 0.05
    by_hour = [np.mean([dev.online(devices_of(drawn), d * DAY + 3600.0 * h).mean() for d in range(6)]) for h in (4, 13)]
    assert by_hour[0] > 1.5 * by_hour[1]  # measured: 13.7 % at four, 6.6 % at thirteen


def merged_sessions_a_day():
    """Sessions a day of each phone, where gaps below a minute do not count."""
    file = np.load(TRACES / "availability_strict.npz")
    days = (file["trace_end_s"] - file["trace_start_s"]) / DAY
    bounds = list(zip(file["offsets"][:-1], file["offsets"][1:], strict=True))
    counts = [1 + np.sum(file["on_s"][a + 1 : b] - file["off_s"][a : b - 1] >= 60) for a, b in bounds]
    return np.array(counts) / days


@with_traces
def test_published_traces_are_taken_whole():
    machines = dev.from_traces(710, 1, folder=TRACES, availability="charging", bandwidth_order="random")
    assert any("51 below 0 ms were raised to 0 and 2 above 400 ms" in note for note in machines.notes)
    assert len(machines.city_latency_seconds) == 227
    times = dev.read_availability(TRACES / "availability_strict.npz")
    file = np.load(TRACES / "availability_strict.npz")
    lengths = (file["off_s"] - file["on_s"]).astype(float)
    owner = np.repeat(np.arange(710), np.diff(file["offsets"]))
    np.testing.assert_array_equal(  # whole seconds: nothing is lost at the borders
        np.bincount(times.nodes, times.off_s - times.on_s, 710), np.bincount(owner, lengths, 710)
    )
