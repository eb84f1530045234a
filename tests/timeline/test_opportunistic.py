"""Opportunistic gossip without an end: windows join exactly, and single sources keep the law of the whole network."""

import itertools

import jax
import numpy as np
import pytest

from experiments.lib import stationary
from experiments.lib.store import mean_and_interval
from gossipjax.observe import staleness_by_source
from gossipjax.timeline import opportunistic_windows
from gossipjax.types import NOBODY
from theory import staleness

RATES = {"update_rate": 0.8, "capacity": 2.0}


def joined(windows):
    """The fields of several windows, one after another."""
    parts = [window.xs for window in windows]
    return {name: np.concatenate([part[name] for part in parts])[:, 0] for name in parts[0]}


def first(count, *args, **settings):
    return list(itertools.islice(opportunistic_windows(*args, **settings), count))


@pytest.mark.parametrize("relay", ["everything", "newest", "none"])
def test_windows_have_the_length_asked_for_and_go_on_in_time(relay):
    windows = first(5, 6, 64, relay=relay, seed=1, **RATES)
    assert [len(window) for window in windows] == [64] * 5
    assert (np.diff(joined(windows)["time"]) >= 0).all()


def test_the_last_updater_keeps_the_channel_across_windows():
    xs = joined(first(40, 6, 16, relay="everything", seed=2, **RATES))
    last = xs["nodes"][0]
    assert last != NOBODY
    for node, sender in zip(xs["nodes"], xs["senders"], strict=True):
        last = last if node == NOBODY else node
        assert node != NOBODY or sender == last


@pytest.mark.parametrize(
    ("relay", "sources"), [("everything", None), ("newest", None), ("none", None), ("none", [1, 4])]
)
def test_updates_and_pushes_come_at_their_rates(relay, sources):
    xs = joined(first(20, 6, 500, relay=relay, seed=3, sources=sources, **RATES))
    seconds, tracked = float(xs["time"][-1]), 6 if sources is None else 2
    for found, rate in ((xs["nodes"] != NOBODY, 0.8), (xs["receivers"] != NOBODY, 2.0)):
        expected = tracked * rate * seconds
        assert abs(found.sum() - expected) < 4 * np.sqrt(expected)  # a Poisson count


def test_single_sources_of_the_newest_version_have_the_share_of_pushes_that_is_theirs():
    """Of the time a share s/n has a tracked version as the newest; a segment's mean pushes are λ/m."""
    xs = joined(first(20, 6, 500, relay="newest", seed=4, sources=[0, 5], **RATES))
    updates = np.flatnonzero(xs["nodes"] != NOBODY)
    pushes = np.diff(updates) - 1
    # Pushes of a segment of Exp(n m) seconds at rate n λ are geometric: mean λ/m, variance λ/m (1 + λ/m); those of one
    # sender to itself were drawn and left out. Segments end with the plan's next update of any node.
    mean, variance = 2.5, 2.5 * 3.5
    assert abs(pushes.mean() - mean) < 4 * np.sqrt(variance / pushes.size)
    assert set(xs["nodes"][updates].tolist()) == {0, 5}
    assert set(xs["sources"][xs["sources"] != NOBODY].tolist()) == {0, 5}


@pytest.mark.parametrize(
    ("relay", "sources"), [("everything", None), ("newest", None), ("newest", [0, 3, 7]), ("none", [2, 9])]
)
def test_staleness_in_windows(relay, sources):
    n, m, rate = 10, 1.0, 3.0
    windows = opportunistic_windows(n, 1 << 13, update_rate=m, capacity=rate, relay=relay, seed=5, sources=sources)
    tracked = [0, 3, 7] if sources is None else sources
    plan = stationary.Schedule(record_every=64, burn_in=40, block=20, blocks=60, sources=len(tracked))
    needed = -(-plan.records * 64 // (1 << 13))
    found = stationary.records(jax.random.key(0), itertools.islice(windows, needed), tracked, staleness_by_source(), 64)
    law = {
        "staleness_of_source": staleness.opportunistic_staleness,
        "max_staleness_of_source": staleness.opportunistic_max_staleness,
    }
    for name, exact in law.items():
        mean, half = mean_and_interval(stationary.batches(stationary.blocks(found[name], plan)))
        predicted = exact(n, gossip_rate=rate, update_rate=m, relay=relay == "everything")
        assert abs(float(mean) - predicted) < 2 * float(half)  # four standard errors


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"relay": "everything", "sources": [1]}, "leave sources out"),
        ({"sources": [1, 1]}, "different nodes"),
        ({"sources": [6]}, "0 … 5"),
        ({"sources": []}, "at least one"),
        ({"num_events": 0}, "num_events=0"),
        ({"capacity": -1.0}, "capacity=-1.0"),
    ],
)
def test_bad_input(change, message):
    settings = {"num_events": 10, "relay": "none", "seed": 0, **RATES} | change
    with pytest.raises(ValueError, match=message):
        next(opportunistic_windows(6, **settings))


def mean_time_to_all(scheme, n, rate, update_rate):
    """Solve the chain (informed k, is the channel with them) from a source's update until all are informed."""
    index = {(k, on): 2 * (k - 1) + on for k in range(1, n) for on in (0, 1)}
    generator, exits = np.zeros((len(index), len(index))), np.zeros(len(index))
    for (k, on), row in index.items():
        begins = update_rate * (k if scheme == "everything" else 1)
        ends = update_rate * (n - k if scheme == "everything" else n - 1)
        push = on * n * rate * (n - k) / (n - 1)
        generator[row, index[k, 1 - on]] += ends if on else begins
        if k + 1 < n:
            generator[row, index[k + 1, on]] += push
        exits[row] = push * (k + 1 == n)
    generator -= np.diag(generator.sum(axis=1) + exits)
    return np.linalg.solve(generator, -np.ones(len(index)))[index[1, 1]]


@pytest.mark.parametrize("scheme", ["everything", "newest"])
@pytest.mark.parametrize(("n", "rate", "update_rate"), [(2, 1.0, 1.0), (5, 3.0, 0.5), (12, 12.0, 1.0)])
def test_maximum_is_the_update_rate_times_the_time_until_all_know(scheme, n, rate, update_rate):
    relay = scheme == "everything"
    found = staleness.opportunistic_max_staleness(n, gossip_rate=rate, update_rate=update_rate, relay=relay)
    # A linear solve in float64 of at most 22 unknowns.
    assert found == pytest.approx(update_rate * mean_time_to_all(scheme, n, rate, update_rate), rel=1e-9)


def test_maximum_without_relay_is_the_coupon_collector():
    n, rate, m = 6, 2.0, 1.5
    waits = sum((n - 1) / (rate * k) for k in range(1, n))  # k nodes left to be told
    assert staleness.opportunistic_max_staleness(n, gossip_rate=rate, update_rate=m, relay=False) == pytest.approx(
        m * waits, rel=1e-12
    )
