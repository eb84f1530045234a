"""Messages on their way: slots, delays, losses, inboxes, against a plain simulation with a queue of events."""

import heapq
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from gossipjax.timeline._push_gossip import message_events
from gossipjax.timeline.clocks import Ticks
from gossipjax.timeline.flights import (
    DELIVERED,
    DROPPED,
    IN_FLIGHT,
    OVERFLOW,
    SUPERSEDED,
    assign_slots,
    delays,
    fly,
    interleave,
    num_peers,
    traffic,
    uniform_peers,
)
from gossipjax.topology import from_networkx, path, star
from gossipjax.types import NOBODY


def rng(seed=1):
    return np.random.default_rng(seed)


# --- slots ------------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 12)), max_size=40))
def test_slots_are_never_shared_and_as_few_as_possible(lives):
    lives = sorted(lives)
    sent = np.array([at for at, _ in lives], np.int64)
    released = sent + np.array([length for _, length in lives], np.int64)
    slots, count = assign_slots(sent, released)
    alive = [int(np.sum((sent <= at) & (released >= at))) for at in range(45)]
    assert count == max(alive)
    assert slots.shape == sent.shape
    assert set(slots.tolist()) <= set(range(count))
    for m in range(len(lives)):
        overlapping = (sent <= released[m]) & (released >= sent[m])
        assert np.sum(slots[overlapping] == slots[m]) == 1


def test_slots_of_a_long_plan():
    """A chain of 200,000 inheritances is resolved, and each slot is free before it is used again."""
    sent = np.arange(0, 400_000, 2)
    released = sent + rng().integers(1, 40, sent.size)
    slots, count = assign_slots(sent, released)
    assert count <= 20
    for slot in range(count):
        own = slots == slot
        assert (sent[own][1:] > released[own][:-1]).all()


def test_slots_need_order():
    with pytest.raises(ValueError, match="order of sending"):
        assign_slots(np.array([3, 1]), np.array([4, 4]))
    with pytest.raises(ValueError, match="message 1 is released at position 2"):
        assign_slots(np.array([1, 3]), np.array([4, 2]))


# --- one network against a plain simulation ---------------------------------------------------------------------------


class Tape(NamedTuple):
    """What happens: sends, delays, losses and ticks; times are multiples of 1/4, so that many coincide."""

    n: int
    sent: np.ndarray
    senders: np.ndarray
    receivers: np.ndarray
    delays: np.ndarray
    ticks: Ticks
    busy: np.ndarray
    duration: float


@st.composite
def tapes(draw, busy=False):
    n = draw(st.integers(2, 4))
    m = draw(st.integers(0, 25))
    quarter = st.integers(0, 39)
    sent = np.sort(np.array(draw(st.lists(quarter, min_size=m, max_size=m)), float)) / 4
    senders = np.array(draw(st.lists(st.integers(0, n - 1), min_size=m, max_size=m)), np.int32)
    jumps = np.array(draw(st.lists(st.integers(1, n - 1), min_size=m, max_size=m)), np.int32)
    waits = np.array(draw(st.lists(st.integers(0, 12), min_size=m, max_size=m)), float) / 4
    acts = sorted(draw(st.sets(st.tuples(quarter, st.integers(0, n - 1)), max_size=15)))
    times, nodes = np.array([t for t, _ in acts], float) / 4, np.array([i for _, i in acts], np.int32)
    spans = st.lists(st.integers(0, 6), min_size=n, max_size=n)
    long, until = (np.array(draw(spans), float) / 4 if busy else np.zeros(n) for _ in range(2))
    return Tape(n, sent, senders, (senders + jumps) % n, waits, Ticks(times, nodes, until), long, 10.0)


SEND, ARRIVE, TICK = range(3)


def train(value, node, step):
    return 0.75 * value + 0.01 * (node + 1) + 0.1 * step


class Simulation:
    """A queue of events, models as plain numbers and inboxes as lists; ties go send, arrive, tick."""

    def __init__(self, tape, lost, inbox, capacity, weight):
        self.tape, self.lost, self.inbox, self.capacity, self.weight = tape, lost, inbox, capacity, weight
        self.x, self.last = [1.0 + i for i in range(tape.n)], [None] * tape.n
        self.waiting, self.fates, self.inside = [[] for _ in range(tape.n)], [IN_FLIGHT] * tape.sent.size, {}
        self.log, self.steps = [], 0
        self.events = [(t, SEND, m) for m, t in enumerate(tape.sent)]
        self.events += [(t, TICK, k) for k, t in enumerate(tape.ticks.times)]
        heapq.heapify(self.events)

    def run(self):
        happen = {SEND: self.send, ARRIVE: self.arrive, TICK: self.tick}
        while self.events and self.events[0][0] < self.tape.duration:
            now, kind, number = heapq.heappop(self.events)
            happen[kind](number, now)
        return self.x, self.fates, self.log

    def send(self, m, now):
        self.inside[m] = self.x[self.tape.senders[m]]
        if self.lost[m]:
            self.fates[m] = DROPPED
        else:
            heapq.heappush(self.events, (now + self.tape.delays[m], ARRIVE, m))

    def arrive(self, m, now):
        j, tape = self.tape.receivers[m], self.tape
        hears_from = tape.ticks.busy_until[j] if self.last[j] is None else self.last[j] + tape.busy[j]
        same = [k for k in self.waiting[j] if tape.senders[k] == tape.senders[m]]
        if now < hears_from:
            self.fates[m] = DROPPED
        elif self.inbox == "immediate":
            self.deliver(m, now)
        elif self.capacity is not None and len(self.waiting[j]) == self.capacity:
            self.fates[m] = OVERFLOW
        elif self.inbox == "newest" and same and same[0] > m:
            self.fates[m] = SUPERSEDED
        else:
            self.waiting[j].append(m)
            if self.inbox == "newest" and same:
                self.waiting[j].remove(same[0])
                self.fates[same[0]] = SUPERSEDED

    def deliver(self, m, now):
        j = self.tape.receivers[m]
        self.x[j] = (1 - self.weight) * self.x[j] + self.weight * self.inside[m]
        self.fates[m] = DELIVERED
        self.log.append((m, now))

    def tick(self, number, now):
        j = self.tape.ticks.nodes[number]
        for m in self.waiting[j]:
            self.deliver(m, now)
        self.waiting[j] = []
        self.x[j], self.last[j], self.steps = train(self.x[j], j, self.steps), now, self.steps + 1


def replayed(tape, flights, weight):
    """Run the plan on an array of rows."""
    xs, num_slots = message_events(tape.ticks[:2], tape.sent, tape.senders, tape.receivers, flights, tape.n, weight)
    rows = np.concatenate([1.0 + np.arange(tape.n), np.full(num_slots, np.pi)])
    live, steps = set(), 0
    assert (np.diff(xs["time"]) >= 0).all()
    for t in range(xs["time"].size):
        node, sender, receiver = (int(xs[name][t, 0]) for name in ("nodes", "senders", "receivers"))
        weights, keep, sends = (float(xs[name][t, 0]) for name in ("weights", "keep", "messages"))
        if node != NOBODY:
            rows[node], steps = train(rows[node], node, steps), steps + 1
        elif sends and receiver != NOBODY:
            assert receiver >= tape.n
            assert receiver not in live  # nobody's message is overwritten
            live.add(receiver)
        elif receiver != NOBODY:
            live.remove(sender)
        if receiver != NOBODY:
            rows[receiver] = keep * rows[receiver] + weights * rows[sender]
    assert len(live) == np.sum(flights.fates == IN_FLIGHT)
    assert xs["messages"].sum() == tape.sent.size
    return rows[: tape.n]


def flown(tape, inbox, capacity, drop, seed, **settings):
    return fly(
        tape.sent,
        tape.senders,
        tape.receivers,
        duration=tape.duration,
        rng=rng(seed),
        latency=lambda rng, size: tape.delays,
        drop=drop,
        inbox=inbox,
        capacity=capacity,
        ticks=tape.ticks,
        **settings,
    )


@settings(deadline=None)
@given(
    st.booleans().flatmap(lambda busy: tapes(busy=busy)),
    st.sampled_from([("immediate", None), ("newest", None), ("queue", None), ("queue", 1), ("queue", 2)]),
    st.sampled_from([0.0, 0.3, 1.0]),
    st.integers(0, 1000),
    st.sampled_from([0.5, 0.3, 1.0]),
)
def test_plans_do_what_a_simulation_does(tape, inbox, drop, seed, weight):
    flights = flown(tape, *inbox, drop, seed, busy=tape.busy)
    lost = rng(seed).random(tape.sent.size) < drop
    x, fates, log = Simulation(tape, lost, *inbox, weight).run()
    assert flights.fates.tolist() == fates
    assert sorted(log) == sorted(zip(flights.delivered.tolist(), flights.times.tolist(), strict=True))
    # The same operations in the same order: bit for bit.
    np.testing.assert_array_equal(replayed(tape, flights, weight), x)


@settings(deadline=None)
@given(tapes(), st.sampled_from(["immediate", "newest", "queue"]), st.sampled_from([0.0, 0.3]), st.integers(0, 99))
def test_messages_are_conserved_and_never_early(tape, inbox, drop, seed):
    flights = flown(tape, inbox, None, drop, seed)
    facts = traffic(flights)
    assert facts.sent == tape.sent.size
    assert facts.sent == (facts.delivered + facts.dropped + facts.overflow + facts.superseded + facts.in_flight)
    assert facts.delivered == flights.delivered.size == flights.times.size
    assert (flights.times >= tape.sent[flights.delivered] + tape.delays[flights.delivered]).all()
    assert (np.diff(flights.times) >= 0).all()
    assert (flights.times < tape.duration).all()


def test_a_late_message_replaces_nothing_newer():
    """Sent at 0 and 1, arriving at 5 and 2, read at 6: the second is newer, whatever arrives first."""
    ticks = Ticks(np.array([6.0]), np.array([1], np.int32), np.zeros(2))
    sent, senders, receivers = np.array([0.0, 1.0]), np.zeros(2, np.int32), np.ones(2, np.int32)
    flights = fly(
        sent, senders, receivers, duration=9.0, rng=rng(), inbox="newest", ticks=ticks,
        latency=lambda rng, size: np.array([5.0, 1.0]),
    )  # fmt: skip
    assert flights.fates.tolist() == [SUPERSEDED, DELIVERED]
    assert flights.times.tolist() == [6.0]


def test_what_arrives_after_the_end_is_in_flight():
    """The receiver computes from 4 to 7; the plan ends at 5; the messages arrive at 4.5 and 6."""
    ticks = Ticks(np.array([4.0]), np.array([1], np.int32), np.zeros(2))
    flights = fly(
        np.array([2.5, 4.0]), np.zeros(2, np.int32), np.ones(2, np.int32), duration=5.0, rng=rng(), latency=2.0,
        ticks=ticks, busy=np.full(2, 3.0),
    )  # fmt: skip
    assert flights.fates.tolist() == [DROPPED, IN_FLIGHT]


def test_a_full_queue_overflows():
    """Three arrive before the tick at 4, two after it; room for two."""
    ticks = Ticks(np.array([4.0]), np.array([1], np.int32), np.zeros(2))
    sent = np.array([1.0, 2.0, 3.0, 5.0, 6.0])
    flights = fly(
        sent, np.zeros(5, np.int32), np.ones(5, np.int32), duration=9.0, rng=rng(), inbox="queue", capacity=2,
        ticks=ticks,
    )  # fmt: skip
    assert flights.fates.tolist() == [DELIVERED, DELIVERED, OVERFLOW, IN_FLIGHT, IN_FLIGHT]
    assert flights.delivered.tolist() == [0, 1]


# --- the network ------------------------------------------------------------------------------------------------------


def test_latency_takes_four_forms():
    senders, receivers = np.array([0, 2], np.int32), np.array([1, 0], np.int32)
    matrix = np.arange(9.0).reshape(3, 3)
    assert delays(None, rng(), senders, receivers).tolist() == [0, 0]
    assert delays(2, rng(), senders, receivers).tolist() == [2, 2]
    assert delays(matrix, rng(), senders, receivers).tolist() == [matrix[0, 1], matrix[2, 0]]
    assert delays(lambda rng, size: np.arange(size), rng(), senders, receivers).tolist() == [0, 1]


def test_losses_have_their_probability():
    m = 20_000
    nodes = np.zeros(m, np.int32)
    facts = traffic(fly(np.arange(m) / m, nodes, nodes + 1, duration=1.0, rng=rng(2), drop=0.3))
    assert abs(facts.dropped - 0.3 * m) < 4 * np.sqrt(m * 0.3 * 0.7)
    assert facts.delivered == m - facts.dropped


def test_equal_times_go_by_stream():
    first, second = interleave(np.array([0.0, 2.0, 2.0]), np.array([0.0, 1.0, 2.0]))
    assert first.tolist() == [0, 3, 4]
    assert second.tolist() == [1, 2, 5]


def test_peers_are_uniform_and_never_oneself():
    nodes = np.repeat(np.arange(5, dtype=np.int32), 4000)
    chosen = uniform_peers(5, rng(3), nodes)
    counts = np.zeros((5, 5))
    np.add.at(counts, (nodes, chosen), 1)
    assert (np.diag(counts) == 0).all()
    assert stats.chisquare(counts[~np.eye(5, dtype=bool)]).pvalue > 1e-4
    leaves = uniform_peers(star(4), rng(4), np.array([1, 2, 3], np.int32))
    assert leaves.tolist() == [0, 0, 0]
    assert num_peers(path(3)) == 3


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: num_peers(1), "peers=1"),
        (lambda: num_peers(path(1)), "two connected nodes"),
        (lambda: fly_few(drop=1.5), "drop=1.5"),
        (lambda: fly_few(capacity=2), "capacity=2 of inbox 'immediate'"),
        (lambda: fly_few(inbox="queue", capacity=0), "capacity=0"),
        (lambda: fly_few(inbox="queue"), "needs the ticks"),
        (lambda: fly_few(latency=-1.0), "latency.0.=-1: .* at least 0"),
        (lambda: fly_few(latency=np.zeros((1, 1))), r"pass \(n, n\) seconds"),
        (lambda: fly_few(latency=lambda rng, size: np.zeros(size + 1)), "sampler latency.*of shape"),
    ],
)
def test_bad_networks_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def fly_few(**settings):
    nodes = np.zeros(3, np.int32)
    return fly(np.arange(3.0), nodes, nodes + 1, duration=9.0, rng=rng(), **settings)


def test_a_silent_node_is_refused():
    import networkx as nx

    arrow = from_networkx(nx.DiGraph([(0, 1)]), allow_disconnected=True)
    with pytest.raises(ValueError, match="has no out-neighbour"):
        uniform_peers(arrow, rng(), np.array([1], np.int32))
