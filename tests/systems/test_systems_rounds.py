"""Rounds on devices: against closed forms, brute-force simulation, replays of the learning, and plain rounds."""

import numpy as np
import pytest
from plexus_runs import network, uneven
from problems import X0, N
from system_runs import (
    CLOSE,
    FLOAT32,
    KEY,
    LEARN,
    MODEL,
    STEPS,
    SUMS,
    check_ledger,
    learned,
    matrices,
    rows_of,
    trained,
)

from gossipjax import timeline as timelines
from gossipjax.mixing import is_doubly_stochastic, metropolis, uniform
from gossipjax.systems import activity, synchronous, traffic_series, training_series
from gossipjax.systems._activity import COMPLETED, CUT
from gossipjax.systems._kernel.bandwidth import max_min_rates
from gossipjax.topology import Topology, barabasi_albert, one_peer_exponential, random_regular, ring, star
from gossipjax.types import NOBODY

# Equal devices: plain rounds.


def test_on_equal_devices_rounds_are_plain_rounds():
    """Bit for bit: weights, models, times, messages."""
    weights = metropolis(barabasi_albert(N, 2, seed=0))
    plan = synchronous(network(N), weights, 6, round_seconds=60, **LEARN)
    plain = timelines.rounds(weights, 6, seconds_per_round=60.0, form="table")
    found, expected = learned(plan.timeline), learned(plain)
    np.testing.assert_array_equal(np.asarray(found.x), np.asarray(expected.x))
    np.testing.assert_array_equal(found["time"], expected["time"])
    np.testing.assert_array_equal(found["messages_sent"], expected["messages_sent"])


@pytest.mark.parametrize("weights", [[metropolis(ring(N))], [metropolis(ring(N)), uniform(star(N))], ring(N)])
def test_facts_and_weights_are_those_of_plain_rounds(weights):
    plan = synchronous(network(N), weights, 4, **LEARN)
    given = [uniform(weights)] if isinstance(weights, Topology) else weights
    facts, plain = plan.timeline.properties, timelines.rounds(given, 4).properties
    assert facts.tags == plain.tags
    assert facts.min_eigenvalue == plain.min_eigenvalue
    for r, W in enumerate(matrices(plan)[0]):
        np.testing.assert_allclose(W, given[r % len(given)].toarray(), rtol=1e-15, atol=1e-16)  # 1 - 2/3 against 1/3


def test_barriers_on_equal_devices():
    """c + M/r seconds a round, for everybody."""
    plan = synchronous(network(N), ring(N), 6, round_seconds=None, bandwidth="unlimited", **LEARN)
    seconds = 3 * STEPS * 0.1 + MODEL / 1e5
    np.testing.assert_allclose(plan.round_seconds, seconds, **SUMS)
    np.testing.assert_allclose(plan.node_round_end_s, seconds * np.arange(1, 7)[:, None] * np.ones(N), **SUMS)
    plain = timelines.rounds(uniform(ring(N)), 6, seconds_per_round=seconds)
    times = [float(plain.event(KEY, plain.shared, x).time[0]) for x in rows_of(plain.xs)]
    np.testing.assert_allclose(plan.timeline.xs["time"], times, **FLOAT32)


def test_one_peer_exponential_takes_offsets_in_turn():
    plan = synchronous(network(N), one_peer_exponential(N), 5, **LEARN)
    assert len(plan.activities) == 3
    for r in range(5):
        found = activity(plan, 60 * r + 1e-3, 60 * r + 59)
        np.testing.assert_array_equal((found.receiver - found.sender) % N, [1, 2, 4, 1, 2][r])
        assert found.sender.size == N
    assert "doubly_stochastic" in plan.timeline.properties


# Barriers, by brute force.


def brute_force_ends(graphs, train, num_rounds, seconds):
    """Recursion on (round, node), one edge at a time; nobody competes."""
    ends = np.zeros((num_rounds + 1, len(train)))
    for r in range(num_rounds):
        graph = graphs[r % len(graphs)]
        for i in range(len(train)):
            arrivals = [ends[r, j] + train[j] + seconds(j, i) for j in graph.neighbors(i).tolist()]
            ends[r + 1, i] = max([ends[r, i] + train[i], *arrivals])
    return ends[1:]


def brute_force_fair(graphs, train, num_rounds, up, down):
    """Fluid simulation with max-min rates computed anew at every event, of whatever is on its way."""
    n = len(train)
    ends, at, now = np.zeros((num_rounds, n)), [0] * n, 0.0
    done_at = {i: train[i] for i in range(n)}
    moving, got = [], {(r, i): 0 for r in range(num_rounds) for i in range(n)}
    while min(at) < num_rounds:
        rates = max_min_rates([m[1] for m in moving], [m[2] for m in moving], up, down)
        due = [m[3] / rate for m, rate in zip(moving, rates, strict=True)]
        step = min([*due, *(t - now for t in done_at.values())])
        for m, rate in zip(moving, rates, strict=True):
            m[3] -= rate * step
        now += step
        for m in [m for m in moving if m[3] <= 1e-6]:
            moving.remove(m)
            got[m[0], m[2]] += 1
        for i in [i for i, t in done_at.items() if t <= now + 1e-12]:
            del done_at[i]
            graph = graphs[at[i] % len(graphs)]
            moving += [[at[i], i, j, float(MODEL)] for j in graph.receivers[graph.senders == i].tolist()]
        for i in range(n):
            r = at[i]
            if r < num_rounds and i not in done_at and got[r, i] == graphs[r % len(graphs)].in_degrees[i]:
                ends[r, i] = now
                at[i] += 1
                if at[i] < num_rounds:
                    done_at[i] = now + train[i]
    return ends


GRAPHS = [ring(5), star(5), Topology(5, np.array([0, 1, 4]), np.array([1, 2, 2]), True, "three edges")]


def test_barriers_without_competition():
    devices = uneven(5, bandwidth=[2e4, 5e4, 1e5, 3e4, 8e4])
    plan = synchronous(devices, GRAPHS, 7, round_seconds=None, bandwidth="unlimited", **LEARN)
    rate = devices.upload_bytes_per_second
    train = 3 * STEPS * devices.seconds_per_sample
    ends = brute_force_ends(GRAPHS, train, 7, lambda j, i: MODEL / min(rate[i], rate[j]))
    np.testing.assert_allclose(plan.node_round_end_s, ends, **SUMS)
    np.testing.assert_allclose(plan.round_end_s, ends.max(1), **SUMS)
    np.testing.assert_allclose(plan.node_training_seconds, 7 * train, **SUMS)
    assert (np.diff(plan.node_round_end_s.max(0) - plan.node_round_end_s.min(0)) != 0).any()  # nodes drift


@pytest.mark.parametrize("seed", range(3))
def test_barriers_with_fair_sharing(seed):
    devices = uneven(5, seed)
    plan = synchronous(devices, GRAPHS, 6, round_seconds=None, bandwidth="fair", **LEARN)
    rate = np.floor(devices.upload_bytes_per_second)
    ends = brute_force_fair(GRAPHS, 3 * STEPS * devices.seconds_per_sample, 6, rate, rate)
    np.testing.assert_allclose(plan.node_round_end_s, ends, rtol=1e-9)  # remainders below 1e-6 bytes are rounded off
    check_ledger(plan)


def test_the_recursion_and_the_simulation_agree():
    """Where bandwidth suffices for all, barriers are a recursion on arrays; one byte a second less, and they are not.

    On a star whose leaves are slow the hub can serve all of them at their own speed.
    """
    n, slow = 5, 1e4
    enough = np.full(n, slow)
    enough[0] = (n - 1) * slow
    seconds = np.linspace(0.05, 0.2, n)
    spare = synchronous(network(n, seconds=seconds, bandwidth=enough), star(n), 4, round_seconds=None, **LEARN)
    enough[0] -= 1
    scarce = synchronous(network(n, seconds=seconds, bandwidth=enough), star(n), 4, round_seconds=None, **LEARN)
    np.testing.assert_allclose(
        spare.node_round_end_s, brute_force_ends([star(n)], 3 * STEPS * seconds, 4, lambda j, i: MODEL / slow), **SUMS
    )
    # The last of the hub's transfers begins at a rate of slow - 1, and only then gets the missing byte.
    assert scarce.end_s > spare.end_s
    np.testing.assert_allclose(scarce.node_round_end_s, spare.node_round_end_s, rtol=2 / slow)


def test_without_overlap_a_round_ends_when_the_own_transfers_do():
    """By hand on a star: without competition, and one byte a second below it, which is simulated message by message."""
    n, slow = 5, 1e4
    seconds = np.linspace(0.05, 0.2, n)
    train, clock, ends = 3 * STEPS * seconds, np.zeros(n), []
    for _ in range(4):
        sent = clock + train + MODEL / slow  # every transfer takes as long
        clock = np.maximum(sent, np.append(sent[1:].max(), np.full(n - 1, sent[0])))
        ends.append(clock)
    for missing, rtol in ((0, 1e-12), (1, 2 / slow)):
        devices = network(n, seconds=seconds, bandwidth=[(n - 1) * slow - missing] + [slow] * (n - 1))
        plan = synchronous(devices, star(n), 4, round_seconds=None, overlap=False, **LEARN)
        np.testing.assert_allclose(plan.node_round_end_s, ends, rtol=rtol)
        eager = synchronous(devices, star(n), 4, round_seconds=None, **LEARN)
        assert (eager.node_round_end_s <= plan.node_round_end_s * (1 + rtol)).all()
        assert eager.end_s < plan.end_s


def test_barriers_wait_for_those_who_are_away():
    changes = [(1.0, 2, False), (50.0, 2, True)]
    plan = synchronous(network(5, changes=changes), ring(5), 4, round_seconds=None, bandwidth="unlimited", **LEARN)
    seconds = 3 * STEPS * 0.1 + MODEL / 1e5
    began = np.array([seconds, seconds, 50.0, seconds, seconds])  # at 1 s node 2 was sending its first model
    ends = began + seconds
    ends[2] = 50.0 + 3 * STEPS * 0.1  # what its neighbours sent meanwhile is in
    ends[[1, 3]] = 50.0 + seconds
    np.testing.assert_allclose(plan.node_round_end_s[1], ends, **SUMS)
    np.testing.assert_allclose(plan.end_s, 50.0 + 3 * seconds, **SUMS)  # all wait for one another
    with pytest.raises(ValueError, match="node 3 never comes online"):
        synchronous(network(5, changes=[(1.0, 3, False)]), ring(5), 4, round_seconds=None, **LEARN)


# Clocked rounds.


def test_fixed_rounds_drop_what_takes_longer_than_what_is_left():
    devices, length = uneven(12, seconds=np.linspace(0.02, 0.24, 12)), 1.5
    graph = random_regular(12, 3, seed=0)
    plan = synchronous(devices, graph, 3, round_seconds=length, bandwidth="unlimited", **LEARN)
    train, rate = 3 * STEPS * devices.seconds_per_sample, devices.upload_bytes_per_second
    expected, sent = {}, 0.0
    for i, j in zip(graph.senders.tolist(), graph.receivers.tolist(), strict=True):
        if train[i] <= length:
            speed = min(rate[i], rate[j])
            expected[i, j] = train[i] + MODEL / speed <= length
            sent += min(MODEL, speed * (length - train[i]))
    assert 0 < sum(expected.values()) < len(expected) < graph.senders.size
    found = plan.activities[0]
    state = dict(zip(zip(found.sender.tolist(), found.receiver.tolist(), strict=True), found.state, strict=True))
    assert {pair: kind == COMPLETED for pair, kind in state.items()} == expected
    np.testing.assert_allclose(plan.round_bytes, sent, **SUMS)
    np.testing.assert_array_equal(plan.round_dropped, len(expected) - sum(expected.values()))
    W = matrices(plan)[0][0]
    for i in range(12):
        heard = [i, *(j for j in graph.neighbors(i).tolist() if expected.get((j, i)))]
        np.testing.assert_allclose(W[i], np.isin(np.arange(12), heard) / len(heard), **SUMS)
    check_ledger(plan)


def test_the_hub_of_a_star_sends_one_after_another():
    """Greedy: the first transfer takes all of the hub's bandwidth; the tick cuts the third half way."""
    devices = network(5, seconds=[0.01, 9, 9, 9, 9], bandwidth=[1e4] + [1e5] * 4)
    plan = synchronous(devices, star(5), 2, round_seconds=2.59, **LEARN)
    found = plan.activities[0]
    np.testing.assert_array_equal(found.sender, 0)
    np.testing.assert_allclose(found.ended_s[:2], [1.09, 2.09], **SUMS)
    np.testing.assert_array_equal(found.state, [COMPLETED, COMPLETED, CUT, CUT])
    np.testing.assert_allclose(found.sent_bytes, [MODEL, MODEL, MODEL / 2, 0], rtol=1e-12, atol=1e-6)
    assert not found.training_completed[1:].any()  # 81 s of training do not fit
    np.testing.assert_array_equal(plan.timeline.properties.traffic.dropped, 4)


def churn(n, seed, until):
    """Each node goes and comes in turn."""
    rng = np.random.default_rng(seed)
    changes = []
    for node in range(n):
        times = np.sort(rng.uniform(0, until, 6))
        changes += [(float(t), node, k % 2 == 1) for k, t in enumerate(times)]
    return changes


def state_at(changes, node, t):
    return ([True] + [joins for time, i, joins in sorted(changes) if i == node and time <= t])[-1]


def replayed_clock(devices, changes, graph, num_rounds, length):
    """Every round by its rules, node by node; nobody competes for bandwidth. Models, trainings, messages and bytes."""
    n, x = len(devices.online), X0.copy()
    train, rate = 3 * STEPS * devices.seconds_per_sample, devices.upload_bytes_per_second
    trainings, messages, sent = 0, 0, 0.0
    for r in range(num_rounds):
        begin, end = r * length, (r + 1) * length
        online = [state_at(changes, node, begin) for node in range(n)]
        gone = [
            min([t - begin for t, i, joins in changes if i == node and begin < t < end and not joins], default=np.inf)
            for node in range(n)
        ]
        done = [online[i] and train[i] <= min(length, gone[i]) for i in range(n)]
        after = np.where(np.array(done)[:, None], trained(x), x)
        x = after.copy()
        for i in range(n):
            heard = [after[i]]
            for j in graph.neighbors(i).tolist():
                if done[j] and online[i] and gone[i] > train[j]:
                    messages += 1
                    speed, left = min(rate[i], rate[j]), min(length, gone[i], gone[j]) - train[j]
                    heard += [after[j]] if MODEL / speed <= left else []
                    sent += min(MODEL, speed * left)
            if gone[i] == np.inf:
                x[i] = np.mean(heard, axis=0)
        trainings += sum(done)
    return x, trainings, (messages, sent)


def test_churn():
    """Who is away, leaves, is slow or unheard: the plan's timeline learns what the rules say."""
    seed = 1
    changes, length = churn(N, seed, 20.0), 1.6
    devices = uneven(N, seed, seconds=np.linspace(0.02, 0.17, N), changes=changes)
    graph = random_regular(N, 4, seed=1)
    plan = synchronous(devices, graph, 12, round_seconds=length, bandwidth="unlimited", **LEARN)
    x, trainings, (messages, sent) = replayed_clock(devices, changes, graph, 12, length)
    found = learned(plan.timeline)
    np.testing.assert_allclose(np.asarray(found.x), x, **CLOSE)
    assert np.count_nonzero(activity(plan).training_completed) == trainings
    assert found["messages_sent"][-1] == messages
    np.testing.assert_allclose(plan.round_bytes.sum(), sent, **SUMS)
    assert "synchronous" not in plan.timeline.properties
    assert (~activity(plan).training_completed).any()
    check_ledger(plan)


def test_missing_weight():
    """Renormalised or kept: rows sum to one; kept weights of a symmetric loss stay doubly stochastic."""
    graph, W = ring(6), metropolis(ring(6)).toarray()
    bandwidth = [1e5, 1e5, 1e5, 1.0, 1e5, 1e5]  # node 3 is cut off
    for missing in ("renormalize", "keep"):
        plan = synchronous(network(6, bandwidth=bandwidth), W, 2, missing=missing, **LEARN)
        found = matrices(plan)[0][0]
        np.testing.assert_allclose(found.sum(1), 1.0, **SUMS)
        np.testing.assert_array_equal(found[3], np.eye(6)[3])
        lost = 1 / 3
        expected = np.array([0, W[2, 1], W[2, 2] + lost, 0, 0, 0]) if missing == "keep" else [0, 0.5, 0.5, 0, 0, 0]
        np.testing.assert_allclose(found[2], expected, **SUMS)
        assert is_doubly_stochastic(found) == (missing == "keep")
    assert graph.num_edges == 6


# Series and bad input.


def test_series_by_brute_force():
    plan = synchronous(uneven(8), random_regular(8, 3, seed=0), 5, round_seconds=2.0, **LEARN)
    whole, times = activity(plan), np.random.default_rng(0).uniform(-1, 12, 40)
    for t, sent, seconds in zip(times, traffic_series(plan, times), training_series(plan, times), strict=True):
        share = np.clip((t - whole.asked_s) / np.maximum(whole.ended_s - whole.asked_s, 1e-300), 0, 1)
        np.testing.assert_allclose(sent, (share * whole.sent_bytes).sum(), rtol=1e-9)
        trained = np.clip(t - whole.training_start_s, 0, whole.training_end_s - whole.training_start_s)
        np.testing.assert_allclose(seconds, trained.sum(), rtol=1e-9, atol=1e-12)
    assert plan.total_bytes(plan.end_s) == traffic_series(plan, np.array([plan.end_s]))[0]
    assert plan.training_seconds(1.0) == training_series(plan, np.array([1.0]))[0]
    assert "synchronous" in plan.summary()
    with pytest.raises(ValueError, match=r"times_s\[0\]=nan"):
        traffic_series(plan, np.array([np.nan]))


BAD = [
    ({"num_rounds": 0}, "num_rounds=0"),
    ({"local_steps": 0}, "local_steps=0"),
    ({"model_bytes": 0}, "model_bytes=0"),
    ({"round_seconds": -1.0}, "round_seconds=-1.0"),
    ({"bandwidth": "magic"}, "bandwidth='magic'"),
    ({"missing": "zero"}, "missing='zero'"),
    ({"overlap": False}, "pass round_seconds=None"),
    ({"weights": ring(5)}, "weights of 5 nodes for 4 devices"),
    ({"weights": []}, "empty sequence"),
    ({"weights": [ring(4), np.eye(4)]}, "topologies and matrices"),
    ({"weights": np.ones((4, 4))}, "row 0 of W sums to 4"),
    ({"devices": network(4, bandwidth=[1, 1, 0.5, 1])}, r"upload_bytes_per_second\[2\]=0.5"),
]


@pytest.mark.parametrize(("change", "words"), BAD)
def test_bad_settings(change, words):
    good = {"devices": network(4), "weights": ring(4), "num_rounds": 2, **LEARN} | change
    literal = {"bandwidth", "missing"} & change.keys()
    with pytest.raises(Exception if literal else ValueError, match=None if literal else words):
        synchronous(**good)


def test_who_trains_is_named():
    plan = synchronous(network(4, seconds=[0.1, 0.1, 99.0, 0.1]), ring(4), 3, round_seconds=5.0, **LEARN)
    for event in matrices(plan)[1]:
        np.testing.assert_array_equal(event.nodes, [0, 1, NOBODY, 3])
