"""Views of Plexus: each operation against a table of all views, whatever the order, and the memory that they take."""

import tracemalloc
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossipjax.systems._plexus import views as beliefs
from gossipjax.systems._plexus.counts import active_counts, make_counts
from gossipjax.systems._plexus.line import dense
from gossipjax.systems._plexus.sampler import make_order

NODES, ROUNDS = 7, 12


class Table:
    """The oracle: two n × n tables, merged elementwise."""

    def __init__(self, online):
        n = online.size
        self.last = np.full((n, n), -1)
        self.status = np.tile(np.where(online, 0, 1), (n, 1))

    def note(self, i, j, round_, status):
        self.last[i, j] = max(self.last[i, j], round_)
        self.status[i, j] = max(self.status[i, j], status)

    def force_left(self, i, j, round_):
        self.last[i, j], self.status[i, j] = round_, 1

    def copy_of(self, i):
        return self.last[i].copy(), self.status[i].copy()

    def take_in(self, i, view):
        self.last[i], self.status[i] = np.maximum(self.last[i], view[0]), np.maximum(self.status[i], view[1])

    def active(self, i, round_, window):
        """Round 0 knows no window; without one all that have not left; whether i counts itself is another question."""
        recent = window is None or round_ == 0 or self.last[i] >= round_ - window
        return (self.status[i] % 2 == 0) & recent

    def counts(self, online, round_, window):
        counts = np.array([self.active(i, round_, window).sum() for i in np.flatnonzero(online)])
        return (counts.min(), counts.mean(), np.median(counts), counts.max()) if counts.size else (0.0,) * 4


class Pair:
    """The same changes to both; messages are copies of views that arrive later, or more than once."""

    def __init__(self, rng):
        self.rng, self.online = rng, rng.random(NODES) < 0.7
        self.table, self.views = Table(self.online), beliefs.initial_views(self.online)
        self.counts, self.messages, self.answers = make_counts(self.views), [], []

    def number(self, end):
        return int(self.rng.integers(end))

    def change(self):
        i, j, round_ = self.number(NODES), self.number(NODES), self.number(ROUNDS)
        match self.number(6):
            case 0:
                status = self.number(6)
                self.table.note(i, j, round_, status)
                beliefs.note(self.views, i, j, round_, status)
            case 1:
                self.table.force_left(i, j, round_)
                beliefs.force_left(self.views, i, j, round_)
            case 2:
                beliefs.publish(self.views, i)
                self.messages.append((self.table.copy_of(i), beliefs.copy_of(self.views, i)))
            case 3 | 4 if self.messages:
                plain, view = self.messages[self.number(len(self.messages))]
                self.table.take_in(i, plain)
                beliefs.take_in(self.views, i, view)
            case 5:
                self.online[i] ^= True
                self.views.changed.add(i)

    def compare(self):
        for i in range(NODES):
            last, status = dense(self.views.line, self.views.version[i], self.views.apart[i])
            np.testing.assert_array_equal(last, self.table.last[i])
            np.testing.assert_array_equal(status, self.table.status[i])
            assert [beliefs.entry(self.views, i, j) for j in range(NODES)] == list(zip(last, status, strict=True))
            assert self.views.latest[i] == last.max()
        round_, window = self.number(ROUNDS), [None, 2, 6][self.number(3)]
        expected = self.table.counts(self.online, round_, window)
        assert active_counts(self.views, self.counts, self.online.tolist(), round_, window) == expected

    def ask(self):
        """Whoever asks gets the answer of now, also later."""
        i, round_, window = self.number(NODES), self.number(ROUNDS), [None, 2, 6][self.number(3)]
        expected = self.table.active(i, round_, window)
        expected[i] = True
        assert beliefs.active_nodes(self.views, i, round_, window).tolist() == np.flatnonzero(expected).tolist()
        found = beliefs.believed_active(self.views, i, round_, window, range(NODES))
        seen = [next(found)] if self.number(2) else []
        self.answers.append((seen, found, np.flatnonzero(expected).tolist()))


def both(seed, changes=80):
    pair = Pair(np.random.default_rng(seed))
    for _ in range(changes):
        pair.change()
        if pair.number(3) == 0:
            pair.compare()
            pair.ask()
    pair.compare()
    for seen, rest, expected in pair.answers:
        assert [*seen, *rest] == expected
    return pair


@given(st.integers(0, 2**32 - 1), st.sampled_from([-20, 0, 16]))
@settings(max_examples=25, deadline=None)
def test_views_are_the_tables_of_all_views(seed, fork):
    with mock.patch.object(beliefs, "FORK", fork):
        both(seed)


def test_the_line_grows_and_branches():
    """The property above would hold, too, if nothing was ever shared."""
    with mock.patch.object(beliefs, "FORK", -20):
        lines = [both(seed).views.line for seed in range(4)]
    assert all(line.count > 3 for line in lines)
    assert any(line.taken_back for line in lines)
    with mock.patch.object(beliefs, "FORK", 10**6):
        assert not any(both(seed).views.line.taken_back for seed in range(4))


ENTRIES = st.lists(st.tuples(st.integers(0, 2), st.integers(-1, 5), st.integers(0, 7)), max_size=4)


@given(ENTRIES, ENTRIES, ENTRIES)
def test_merging_is_a_join(a, b, c):
    """Associative, commutative, idempotent."""

    def merged(*orders):
        views = beliefs.initial_views(np.ones(3, bool))
        for i, entries in enumerate((a, b, c)):
            for entry in entries:
                beliefs.note(views, i, *entry)
        for i, j in orders:
            beliefs.take_in(views, i, beliefs.copy_of(views, j))
        return [[beliefs.entry(views, i, j) for j in range(3)] for i in range(3)]

    assert merged((0, 1), (0, 2))[0] == merged((1, 2), (0, 1))[0] == merged((0, 1), (2, 0))[2]
    assert merged((0, 1))[0] == merged((1, 0))[1] == merged((0, 1), (0, 1), (0, 0))[0]


@pytest.mark.parametrize("hashing", ["mix", "md5"])
def test_nodes_that_nobody_held_active_are_passed_over(hashing):
    """The candidates are those of the whole view, in their order, also far behind the first."""
    n, window = 900, 5
    rng, views = np.random.default_rng(0), beliefs.initial_views(np.ones(n, bool))
    for round_ in range(30):
        for node in rng.choice(n, 12, replace=False).tolist():
            beliefs.note(views, 3, node, round_)
    beliefs.force_left(views, 3, 4, 29)
    order = make_order(n, 1, hashing)(30)
    active = set(beliefs.active_nodes(views, 3, 30, window).tolist())
    assert 20 < len(active) < 80
    assert list(beliefs.believed_active(views, 3, 30, window, order)) == [node for node in order if node in active]


def test_memory_grows_with_what_happens():
    """Ten thousand nodes, of which each round concerns ten: a table of all views has 800 MB, these less than 8 MB."""
    n = 10_000
    rng = np.random.default_rng(0)
    tracemalloc.start()
    views = beliefs.initial_views(np.ones(n, bool))
    for round_ in range(40):
        first, *others = rng.choice(n, 11, replace=False).tolist()
        for other in others:
            beliefs.note(views, first, other, round_)
        beliefs.publish(views, first)
        view = beliefs.copy_of(views, first)
        for other in range(round_, n, n // 20):
            beliefs.take_in(views, other, view)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8e6
