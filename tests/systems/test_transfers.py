"""Bandwidth: who gets how much, held against slow restatements of the rules and against conservation of bytes."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossipjax.systems._kernel.bandwidth import FASTEST, fair, greedy, max_min_rates, unlimited

NODES = 4
CAPACITIES = st.lists(st.integers(1, 20), min_size=NODES, max_size=NODES)
ENDS = st.tuples(st.integers(0, NODES - 1), st.integers(0, NODES - 1)).filter(lambda ends: ends[0] != ends[1])
ARRIVALS = st.lists(st.tuples(st.integers(0, 6), ENDS, st.integers(1, 60), st.booleans()), min_size=1, max_size=14)
# Times and bytes are numbers below 1e4; a few hundred roundings of 1e-16 each add up.
CLOSE = 1e-9


class Meter:
    """Drive a network and integrate its rates on the way."""

    def __init__(self, network, check):
        self.network, self.check, self.now = network, check, 0.0
        self.size, self.got, self.ends, self.ended = {}, {}, {}, []

    def advance(self, until):
        while self.network.next_time() <= until:
            seconds = self.network.next_time()
            self.flow(seconds)
            number = self.network.finish()
            assert self.got[number] == pytest.approx(self.size[number], abs=CLOSE)
            self.ended.append((number, seconds))
            self.look()
        self.flow(until)

    def flow(self, until):
        for number, rate in self.network.rates().items():
            self.got[number] += rate * (until - self.now)
        self.now = until

    def look(self):
        sent = self.network.sent(self.now)
        assert all(abs(sent[number] - self.got[number]) < CLOSE for number in sent)
        self.check({number: (*self.ends[number], rate) for number, rate in self.network.rates().items()})

    def run(self, arrivals):
        at = 0.0
        for gap, ends, size, cut in arrivals:
            at += gap
            self.advance(at)
            number = self.network.start(at, *ends, float(size))
            self.size[number], self.got[number], self.ends[number] = size, 0.0, ends
            self.look()
            running = sorted(self.network.rates())
            if cut and len(running) > 1:
                sent = self.network.cancel(at, running[0])
                assert sent == pytest.approx(self.got[running[0]], abs=CLOSE)
                assert running[0] not in self.network.rates()
                self.look()
        self.advance(1e6)
        assert not self.network.rates()
        assert self.network.next_time() == float("inf")
        return self.ended


def used(running):
    up, down = np.zeros(NODES), np.zeros(NODES)
    for i, j, rate in running.values():
        up[i] += rate
        down[j] += rate
    return up, down


def check_greedy(upload, download):
    def check(running):
        up, down = used(running)
        assert (up <= upload).all()  # whole numbers: exact
        assert (down <= download).all()
        for i, j, rate in running.values():  # nobody waits while both sides have something left
            assert rate > 0 or up[i] == upload[i] or down[j] == download[j]

    return check


def check_fair(upload, download):
    def check(running):
        up, down = used(running)
        assert (up <= np.array(upload) + CLOSE).all()
        assert (down <= np.array(download) + CLOSE).all()
        for i, j, rate in running.values():  # a full side on which no rate is larger: the definition of max-min
            sides = [(up[i], upload[i], [r for k, _, r in running.values() if k == i])]
            sides += [(down[j], download[j], [r for _, k, r in running.values() if k == j])]
            assert any(flow > full - CLOSE and rate > max(rates) - CLOSE for flow, full, rates in sides)

    return check


@given(CAPACITIES, CAPACITIES, ARRIVALS)
@settings(max_examples=60, deadline=None)
def test_bytes_are_conserved_and_capacities_kept(upload, download, arrivals):
    Meter(greedy(upload, download), check_greedy(upload, download)).run(arrivals)
    Meter(fair(upload, download), check_fair(upload, download)).run(arrivals)
    Meter(unlimited(upload, download), lambda running: None).run(arrivals)


class Restated:
    """The greedy rules word by word: free bandwidth is summed up anew each time, and nothing is indexed."""

    def __init__(self, upload, download):
        self.upload, self.download = upload, download
        self.queue = [[] for _ in upload]
        self.notes = [[] for _ in upload]
        self.running = []
        self.left, self.rate, self.ends, self.now = {}, {}, {}, 0.0

    def free(self, i, j):
        up = self.upload[i] - sum(self.rate[t] for t in self.running if self.ends[t][0] == i)
        return up, self.download[j] - sum(self.rate[t] for t in self.running if self.ends[t][1] == j)

    def begin(self, t, rate):
        i, j = self.ends[t]
        self.rate[t] = rate
        self.running.append(t)
        self.queue[i].remove(t)
        if t in self.notes[j]:
            self.notes[j].remove(t)

    def scan(self, i):
        for t in list(self.queue[i]):
            up, down = self.free(*self.ends[t])
            if up == 0:
                return
            if min(up, down) > 0:
                self.begin(t, min(up, down))
            elif t not in self.notes[self.ends[t][1]]:
                self.notes[self.ends[t][1]].append(t)

    def end(self, t):
        i, j = self.ends[t]
        if t in self.queue[i]:
            self.queue[i].remove(t)
            if t in self.notes[j]:
                self.notes[j].remove(t)
            return
        self.running.remove(t)
        for other in [r for r in self.running if self.ends[r][1] == j]:
            self.rate[other] += min(self.free(*self.ends[other]))
        for other in list(self.notes[j]):
            if min(self.free(*self.ends[other])) > 0:
                self.begin(other, min(self.free(*self.ends[other])))
        self.scan(i)

    def advance(self, until, ended):
        while self.running:
            seconds, t = min((self.now + self.left[t] / self.rate[t], t) for t in self.running)
            if seconds > until:
                break
            self.flow(seconds)
            ended.append((t, seconds))
            self.end(t)
        self.flow(until)

    def flow(self, until):
        for t in self.running:
            self.left[t] -= self.rate[t] * (until - self.now)
        self.now = until

    def run(self, arrivals):
        ended, at = [], Fraction(0)
        for number, (gap, ends, size, cut) in enumerate(arrivals):
            at += gap
            self.advance(at, ended)
            self.ends[number], self.left[number], self.rate[number] = ends, Fraction(size), 0
            self.queue[ends[0]].append(number)
            self.scan(ends[0])
            alive = sorted({*self.running, *(t for queue in self.queue for t in queue)})
            if cut and len(alive) > 1:
                self.end(alive[0])
        self.advance(Fraction(10**6), ended)
        return ended


@given(CAPACITIES, CAPACITIES, ARRIVALS)
@settings(max_examples=150, deadline=None)
def test_greedy_is_the_rule_word_by_word(upload, download, arrivals):
    """In exact fractions: the same transfers end, each at the same time."""
    exact = Restated([Fraction(c) for c in upload], [Fraction(c) for c in download]).run(arrivals)
    found = Meter(greedy(upload, download), lambda running: None).run(arrivals)
    assert sorted(t for t, _ in exact) == sorted(t for t, _ in found)
    seconds = dict(found)
    for t, expected in exact:
        assert seconds[t] == pytest.approx(float(expected), abs=CLOSE)


def test_one_fast_pair_takes_all():
    """0 → 2 takes all of the receiver; 1 → 2 waits for its end although its sender is idle."""
    network = greedy([10, 10, 1], [1, 1, 10])
    first, second = network.start(0.0, 0, 2, 100.0), network.start(0.0, 1, 2, 50.0)
    assert network.rates() == {first: 10, second: 0}
    assert (network.next_time(), network.finish()) == (10.0, first)
    assert (network.next_time(), network.finish()) == (15.0, second)


def test_running_transfers_are_offered_first():
    """When 0 → 2 ends, 1 → 2, which runs at 4, is raised before 3 → 2, which waits, gets what is left."""
    network = greedy([6, 9, 1, 9], [1, 1, 10, 1])
    a, b, c = (network.start(0.0, i, 2, size) for i, size in ((0, 6.0), (1, 100.0), (3, 100.0)))
    assert network.rates() == {a: 6, b: 4, c: 0}
    assert network.finish() == a
    assert network.rates() == {b: 9, c: 1}


def water_level(senders, receivers, upload, download):
    """Raise all rates together in exact arithmetic; freeze those whose side is full."""
    rates, frozen = [Fraction(0)] * len(senders), [False] * len(senders)
    sides = [(Fraction(c), [t for t, i in enumerate(senders) if i == k]) for k, c in enumerate(upload)]
    sides += [(Fraction(c), [t for t, j in enumerate(receivers) if j == k]) for k, c in enumerate(download)]
    while not all(frozen):
        steps = [
            (cap - sum(rates[t] for t in members)) / sum(not frozen[t] for t in members)
            for cap, members in sides
            if not all(frozen[t] for t in members)
        ]
        rates = [rate + (0 if stop else min(steps)) for rate, stop in zip(rates, frozen, strict=True)]
        for cap, members in sides:
            if sum(rates[t] for t in members) == cap:
                for t in members:
                    frozen[t] = True
    return rates


@given(CAPACITIES, CAPACITIES, st.lists(ENDS, min_size=1, max_size=8))
@settings(max_examples=60, deadline=None)
def test_fair_is_the_water_level(upload, download, ends):
    senders, receivers = map(list, zip(*ends, strict=True))
    expected = water_level(senders, receivers, upload, download)
    np.testing.assert_allclose(max_min_rates(senders, receivers, upload, download), [float(e) for e in expected], 1e-12)


def test_cancelling_frees_both_sides():
    for make in (greedy, fair):
        network = make([10, 10, 10], [10, 10, 10])
        first, second, third = (network.start(0.0, *ends, 100.0) for ends in ((0, 1), (0, 2), (2, 1)))
        assert network.cancel(2.0, first) == 2.0 * (10 if make is greedy else 5)
        assert network.rates() == {second: 10, third: 10}


def test_unlimited_runs_as_if_alone():
    network = unlimited([10, 4], [3, float("inf")])
    for _ in range(3):
        network.start(1.0, 0, 1, 30.0)
        network.start(1.0, 1, 0, 30.0)
    assert sorted(network.rates().values()) == [3, 3, 3, 10, 10, 10]
    assert network.next_time() == 4.0
    assert unlimited([float("inf")] * 2, [float("inf")] * 2).start(0.0, 0, 1, FASTEST) == 0


@pytest.mark.parametrize("make", [greedy, fair, unlimited])
@pytest.mark.parametrize(
    ("upload", "download", "says"),
    [
        ([1.0, 0.5], [1.0, 1.0], r"upload\[1\]=0.5"),
        ([1.0], [1.0, 1.0], r"upload of shape \(1,\)"),
        ([1.0, 1.0], [float("nan"), 1.0], r"download\[0\]=nan"),
    ],
)
def test_bad_capacities(make, upload, download, says):
    with pytest.raises(ValueError, match=says):
        make(upload, download)
