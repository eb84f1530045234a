"""Servers of single gradients against the published algorithms, step by step, and against theorems on their times."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial

import gossipjax as gj
from gossipjax.timeline import _gradient_servers, clocks, m_synchronous, malenia, rennala, ringmaster
from theory import time_complexity as times

N, D, STEP = 5, 3, 0.1
PERIODS = np.array([1.0, np.sqrt(3), np.pi, 4 * np.sqrt(2), 9 + np.sqrt(0.5)])
"""No two sums of them are equal, so that the order of events is not a matter of rounding."""
WAYS = np.array([0.31, 0.07, 0.0, 2.03, 0.57])
TARGETS = np.random.default_rng(0).normal(size=(N, D))
CURVATURE = np.array([[0.5], [1.0], [1.5], [0.8], [0.3]])
START = np.ones(D)


def gradient(i, x):
    return CURVATURE[i] * (x - TARGETS[i])


def updates(plan):
    """Times and models at which the server's model moves: events of FedBuff, one after another."""
    x, moves = np.zeros((1 + plan.properties.num_slots, D)), []
    x[0] = START
    columns = (np.asarray(plan.xs[name]) for name in ("time", "nodes", "rows", "members", "weights", "targets"))
    for time, nodes, rows, members, weights, targets in zip(*columns, strict=True):
        if nodes[0] < N:
            x[rows[0]] = x[rows[0]] - STEP * gradient(nodes[0], x[rows[0]])
        results = [share @ x[np.minimum(of, len(x) - 1)] for share, of in zip(weights, members, strict=True)]
        before = x[0].copy()
        for result, rows_written in zip(results, targets, strict=True):
            x[rows_written[rows_written < len(x)]] = result
        if (x[0] != before).any():
            moves.append((time[0], x[0].copy()))
    return moves


def compare(plan, moves):
    found = updates(plan)
    np.testing.assert_allclose([time for time, _ in found], [time for time, _ in moves], rtol=1e-12)
    np.testing.assert_allclose([x for _, x in found], [x for _, x in moves], rtol=1e-12, atol=1e-13)
    assert np.asarray(plan.xs["messages"]).sum() == plan.properties.traffic.sent


def compare_traffic(plan, sent, ignored):
    """Messages until the last update: models, gradients that count, and gradients that do not."""
    traffic = plan.properties.traffic
    assert (traffic.sent, traffic.dropped) == (sent, ignored)
    assert traffic.delivered == sent - ignored


def by_hand_arrivals(duration, limit, stop, ways):
    """Asynchronous SGD: each worker has the model that it fetched; the next to arrive is looked up.

    Returns times and models of the updates, and the messages until the last of them: all, and gradients in vain.
    """
    x, k, moves, models, late, counted = START, 0, [], N, 0, (N, 0)
    fetched, version = [START] * N, [0] * N
    due = [2 * ways[i] + PERIODS[i] for i in range(N)]
    while min(due) < duration:
        i = int(np.argmin(due))
        now = due[i]
        used = limit is None or k - version[i] < limit
        if used:
            x, k = x - STEP * gradient(i, fetched[i]), k + 1
            moves.append((now, x))
        anew = [i] + [j for j in range(N) if j != i and stop and limit is not None and k - version[j] >= limit]
        late += (not used) + sum(due[j] - ways[j] <= now + ways[j] for j in anew[1:])
        models += len(anew)
        counted = (models + k + late, late) if used else counted
        for j in anew:
            fetched[j], version[j], due[j] = x, k, now + 2 * ways[j] + PERIODS[j]
    return moves, *counted


def by_hand_batches(duration, ways, *, done, share, stop, one_each=False):
    """Batches at one model: every worker's times of completion are listed, and the earliest arrivals are taken.

    Returns times and models of the updates, and the messages until the last of them: all, and gradients in vain.
    """
    x, moves, begin, sent, ignored = START, [], [ways[i] for i in range(N)], N, 0
    while True:
        ready = [[begin[i] + r * PERIODS[i] for r in range(1, 2 if one_each else 60)] for i in range(N)]
        arrivals = sorted((end + ways[i], i) for i in range(N) for end in ready[i])
        for count in range(1, len(arrivals) + 1):
            who = [i for _, i in arrivals[:count]]
            if done(np.bincount(who, minlength=N)):
                break
        now, counts = arrivals[count - 1][0], np.bincount(who, minlength=N)
        if now >= duration:
            return moves, sent, ignored
        x = x - STEP * sum(share(counts)[i] * gradient(i, x) for i in who)
        moves.append((now, x))
        for i in range(N):
            comes = now + ways[i]
            later = min(end for end in [begin[i], *ready[i], np.inf] if end >= comes)
            begin[i] = comes if later == np.inf or (stop and later != begin[i] and later != comes) else later
            finished = sum(end <= begin[i] for end in ready[i])
            sent, ignored = sent + 1 + finished, ignored + finished - counts[i]


@pytest.mark.parametrize("ways", [np.zeros(N), WAYS], ids=["no latency", "latency"])
@pytest.mark.parametrize(("limit", "stop"), [(None, False), (1, False), (1, True), (3, False), (3, True)])
def test_ringmaster(limit, stop, ways):
    plan = ringmaster(N, 40.0, compute=clocks.deterministic(PERIODS), max_delay=limit, stop=stop, latency=ways, seed=0)
    moves, sent, ignored = by_hand_arrivals(40.0, limit, stop, ways)
    compare(plan, moves)
    compare_traffic(plan, sent, ignored)
    assert limit is None or stop or ignored > 0


SIZE = 7


def all_heard(counts):
    return counts.min() > 0 and times.harmonic_size(counts) >= SIZE


BATCHES = {
    "rennala": (rennala, {"batch_size": SIZE}, lambda c: c.sum() >= SIZE, lambda c: np.full(N, 1 / c.sum()), False),
    "malenia": (malenia, {"batch_size": SIZE}, all_heard, lambda c: 1 / (N * np.maximum(c, 1)), False),
    "one": (m_synchronous, {"wait_for": 1}, lambda c: c.sum() >= 1, lambda c: np.ones(N), True),
    "three": (m_synchronous, {"wait_for": 3}, lambda c: c.sum() >= 3, lambda c: np.full(N, 1 / 3), True),
    "all": (m_synchronous, {"wait_for": N}, lambda c: c.sum() >= N, lambda c: np.full(N, 1 / N), True),
}


@pytest.mark.parametrize("ways", [np.zeros(N), WAYS], ids=["no latency", "latency"])
@pytest.mark.parametrize("stop", [False, True])
@pytest.mark.parametrize("name", BATCHES)
def test_batches(name, stop, ways):
    build, settings, done, share, one_each = BATCHES[name]
    settings = settings | ({} if one_each else {"stop": stop})
    plan = build(N, 60.0, compute=clocks.deterministic(PERIODS), latency=ways, seed=0, **settings)
    by_hand = by_hand_batches(60.0, ways, done=done, share=share, stop=stop or one_each, one_each=one_each)
    moves, sent, ignored = by_hand
    assert len(moves) >= 3
    compare(plan, moves)
    compare_traffic(plan, sent, ignored)


def test_a_worker_whose_gradient_comes_too_late_waits_for_the_next_model():
    """At each of 3 steps the server sends 2 models, and gets the gradient that counts and one in vain."""
    clock = clocks.deterministic(np.array([1.0, 1.5]))
    plan = m_synchronous(2, 64.0, compute=clock, wait_for=1, latency=10.0, seed=0)
    np.testing.assert_allclose(gj.timeline.event_times(plan), [0, 21, 42, 63], rtol=1e-12)
    assert np.asarray(plan.xs["messages"]).ravel().tolist() == [2, 4, 4, 4]
    compare_traffic(plan, 2 + 3 * 4, 3)


def test_the_engine_runs_them():
    plan = ringmaster(N, 40.0, compute=clocks.deterministic(PERIODS), max_delay=3, latency=WAYS, seed=0)
    task = gj.tasks.quadratic(TARGETS, curvature=CURVATURE)
    protocol = gj.fedbuff(task, Partial(optax.sgd, STEP))
    run = gj.simulate(jax.random.key(0), protocol, plan, jnp.asarray(START[None]), observers=[gj.observe.models()])
    np.testing.assert_allclose(np.asarray(run["model"])[-1, 0], updates(plan)[-1][1], rtol=1e-12)
    assert int(run["messages_sent"][-1]) == plan.properties.traffic.sent


def test_steps_last_as_long_as_the_theory_says():
    clock = clocks.deterministic(PERIODS)
    for m in (1, 3, N):
        now = np.asarray(gj.timeline.event_times(m_synchronous(N, 60.0, compute=clock, wait_for=m, seed=0)))
        np.testing.assert_allclose(np.unique(np.diff(now[m::m])), PERIODS[m - 1], rtol=1e-9)
    for size in (1, 4, 9):
        now = gj.timeline.event_times(rennala(N, 60.0, compute=clock, batch_size=size, stop=True, latency=WAYS, seed=0))
        np.testing.assert_allclose(now[size], times.collection_time(size, PERIODS, 2 * WAYS), rtol=1e-12)


def test_a_gradient_that_is_as_old_as_the_fleet_is_large_never_happens_without_stragglers():
    """Equal workers take turns: delays are n − 1, so R = n ignores nothing, and R = n − 1 ignores most."""
    clock = clocks.deterministic(1.0)
    kept = ringmaster(N, 20.0, compute=clock, max_delay=N, seed=0)
    assert kept.properties.traffic.dropped == 0
    assert ringmaster(N, 20.0, compute=clock, max_delay=N - 1, seed=0).properties.traffic.dropped > 0
    compare(kept, updates(ringmaster(N, 20.0, compute=clock, max_delay=None, seed=0)))


def test_a_batch_of_one_is_ringmaster_without_delay():
    for stop in (False, True):
        settings = {"compute": clocks.deterministic(PERIODS), "stop": stop, "seed": 3}
        one, two = (
            rennala(N, 40.0, batch_size=1, **settings),
            ringmaster(N, 40.0, max_delay=1, **settings),
        )
        compare(one, updates(two))
        assert one.properties.num_slots == two.properties.num_slots == 2


def test_slots_are_few():
    """A model that is still computed at takes one row, however many workers compute at it."""
    plan = ringmaster(30, 20.0, compute=clocks.deterministic(np.linspace(1, 9, 30)), max_delay=None, seed=0)
    assert plan.properties.num_slots <= 2 + 30
    assert rennala(30, 20.0, compute=clocks.poisson(1.0), batch_size=8, seed=0).properties.num_slots == 2


FIRST = {
    "ringmaster": (ringmaster, {}, 1.0),
    "rennala": (rennala, {"batch_size": SIZE}, 1.0 * 4),  # 1, √3, 2, 3, π, 2√3 and 4: the seventh comes last
    "malenia": (malenia, {"batch_size": 1}, PERIODS[-1]),
    "m_synchronous": (m_synchronous, {"wait_for": 3}, PERIODS[2]),
}


@pytest.mark.parametrize("name", FIRST)
def test_a_plan_without_an_update_is_refused(name):
    build, settings, first = FIRST[name]
    settings = settings | {"compute": clocks.deterministic(PERIODS), "seed": 0}
    with pytest.raises(ValueError, match=f"duration=0.75: .* first time after {first:.6g} seconds.* longer time"):
        build(N, 0.75, **settings)
    with pytest.raises(ValueError, match=f"after {first:.6g} seconds"):
        build(N, first, **settings)
    assert updates(build(N, first * 1.001, **settings))[0][0] == pytest.approx(first, rel=1e-12)


def test_a_first_update_in_the_far_future_is_not_waited_for():
    with pytest.raises(ValueError, match=r"duration=2: .* moves not before \S+ seconds"):
        rennala(N, 2.0, compute=clocks.deterministic(PERIODS), batch_size=10**12, seed=0)


def test_a_gradient_that_is_stopped_leaves_the_queue(monkeypatch):
    """Without a limit, every restart would leave an entry behind until its time has come."""
    longest, push = [0], _gradient_servers.heapq.heappush

    def watched(heap, item):
        push(heap, item)
        longest[0] = max(longest[0], len(heap))

    monkeypatch.setattr(_gradient_servers.heapq, "heappush", watched)
    slow = np.append(np.full(29, 1000.0), 1.0)
    plan = ringmaster(30, 200.0, compute=clocks.deterministic(slow), max_delay=1, stop=True, seed=0)
    assert len(plan) == 200
    assert longest[0] <= 3 * 30


@pytest.mark.parametrize(
    ("build", "settings"),
    [(ringmaster, {"max_delay": 3}), (rennala, {"batch_size": 5}), (malenia, {"batch_size": 5}),
     (m_synchronous, {"wait_for": 5})],
    ids=lambda value: getattr(value, "__name__", ""),
)  # fmt: skip
def test_a_plan_that_is_too_large_is_refused_before_a_time_is_drawn(build, settings):
    def sampler(rng, shape):
        raise AssertionError

    clock = clocks.Clock(0.0, 1.0, sampler)
    with pytest.raises(ValueError, match=r"num_nodes, duration, compute: about .* gradients of 1,000,000 nodes .* GiB"):
        build(10**6, 1e4, compute=clock, seed=0, **settings)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c: ringmaster(N, 5.0, compute=c, max_delay=0, seed=0), "max_delay=0"),
        (lambda c: rennala(N, 5.0, compute=c, batch_size=0, seed=0), "batch_size=0"),
        (lambda c: malenia(N, 5.0, compute=c, batch_size=0, seed=0), "batch_size=0"),
        (lambda c: m_synchronous(N, 5.0, compute=c, wait_for=N + 1, seed=0), "wait_for=6"),
        # Before clocks are built: this one is of three workers.
        (lambda c: m_synchronous(N, 5.0, compute=clocks.deterministic(PERIODS[:3]), wait_for=0, seed=0), "wait_for=0"),
        (lambda c: m_synchronous(0, 5.0, compute=c, wait_for=1, seed=0), "num_nodes=0"),
        (lambda c: m_synchronous(N, 5.0, compute=c, wait_for=1, latency=np.zeros(2), seed=0), "latency of shape"),
    ],
)
def test_wrong_settings_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(clocks.poisson(1.0))


@pytest.mark.parametrize(
    "build",
    [
        lambda c: m_synchronous(3, 9.5, compute=c, wait_for=2, seed=0),
        lambda c: rennala(3, 9.5, compute=c, batch_size=2, seed=0),
    ],
    ids=["m_synchronous", "rennala"],
)
def test_of_equal_times_the_lower_workers_come_first(build):
    """With one time for all, a step a second, and the third worker never counts."""
    nodes = np.asarray(build(clocks.deterministic(1.0)).xs["nodes"])
    assert np.bincount(nodes[nodes < 3], minlength=3).tolist() == [9, 9, 0]
