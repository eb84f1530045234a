"""The kernel that all systems run on: the order of what happens, presence, transfers that end or are cut."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from plexus_runs import network

from gossipjax.systems._activity import COMPLETED, CUT, UNDER_WAY
from gossipjax.systems._kernel.bandwidth import greedy, unlimited
from gossipjax.systems._kernel.loop import DAY, cut, cut_all, follow_presence, make_kernel, run, transfer
from gossipjax.systems._kernel.queue import at, cancel, follow, waiting
from gossipjax.systems._kernel.record import activity_of, training_ends, training_starts


def kernel_of(n=3, rate=10.0, model=unlimited):
    return make_kernel(model(np.full(n, rate), np.full(n, rate)), [True] * n)


TIMES = st.integers(0, 5).map(float)


@given(st.lists(st.tuples(TIMES, st.integers(-1, 2), st.booleans()), max_size=20), st.lists(TIMES, max_size=8), TIMES)
def test_what_happens_is_in_order(timers, clock, until):
    """By time, rank, and planning; what is cancelled or later does not happen; the oracle sorts."""
    kernel, seen = kernel_of(), []
    entries = [at(kernel.queue, t, seen.append, (t, rank, k), rank=rank) for k, (t, rank, _) in enumerate(timers)]
    for entry, (*_, gone) in zip(entries, timers, strict=True):
        if gone:
            cancel(entry)
    clock = sorted(clock)
    follow(kernel.queue, zip(clock, range(len(clock)), strict=True), lambda t, k: seen.append((t, 9, k)), rank=9)
    run(kernel, until=until)
    planned = [(t, rank, k) for k, (t, rank, gone) in enumerate(timers) if not gone]
    planned += [(t, 9, k) for k, t in enumerate(clock)]
    assert seen == sorted(each for each in planned if each[0] <= until)
    left = [each for each in planned if each[0] > until and each[1] < 9]
    assert len(list(waiting(kernel.queue))) == len(left) + any(t > until for t in clock)


def test_a_transfer_that_is_in_comes_before_timers_of_its_time():
    kernel, seen = kernel_of(), []
    at(kernel.queue, 2.0, seen.append, "timer", rank=-5)
    transfer(kernel, 0, 1, 20.0, lambda *words: seen.append(words), "model")
    run(kernel)
    assert seen == [(0, True, "model"), "timer"]


def test_a_handler_stops_the_run():
    kernel, seen = kernel_of(), []

    def stop():
        kernel.stopped = "enough"

    for t in (1.0, 3.0):
        at(kernel.queue, t, seen.append, t)
    at(kernel.queue, 2.0, stop)
    run(kernel)
    assert (seen, kernel.now, kernel.stopped) == ([1.0], 2.0, "enough")


def test_presence_over_many_days():
    """Each transition once, though they are looked up for ever longer spans of time."""
    changes = [(0.3 * DAY * k, k % 4, k % 8 >= 4) for k in range(1, 40)]
    devices, kernel, seen, spans = network(4, changes=changes), kernel_of(4), [], []
    follow_presence(
        kernel,
        devices,
        10 * DAY,
        lambda node, joins: seen.append((kernel.now, node, joins)),
        expected=lambda nodes: spans.append(nodes.size),
    )
    run(kernel, until=10 * DAY)
    assert seen == [change for change in changes if change[0] <= 10 * DAY]
    assert spans == [3, 3, 7, 13, 7]  # up to 1, 2, 4, 8 and 10 days


def test_the_transfers_of_a_node_that_fails_are_cut():
    """By hand: 10 bytes a second; node 1 fails after 3 s, when 0 → 1 has sent 30 bytes, and 0 → 2 goes on alone."""
    kernel, ended = kernel_of(3, model=greedy), []
    for receiver, size in ((1, 100.0), (2, 100.0)):
        transfer(kernel, 0, receiver, size, lambda number, completed: ended.append((number, completed, kernel.now)))
    at(kernel.queue, 3.0, cut_all, kernel, 1)
    run(kernel)
    assert ended == [(0, False, 3.0), (1, True, 13.0)]
    assert not any(kernel.moving.values())
    assert not kernel.deliveries


def test_handlers_may_start_and_cut_transfers_while_those_of_a_node_are_cut():
    """By hand: 10 bytes a second; at 3 s the end of 0 → 1 cuts 2 → 1, and asks for 1 → 0, which goes on."""
    kernel, ended = kernel_of(3), []

    def note(number, completed):
        ended.append((number, completed, kernel.now))

    def react(number, completed):
        note(number, completed)
        cut(kernel, 2)
        transfer(kernel, 1, 0, 20.0, note)

    transfer(kernel, 0, 1, 100.0, react)
    transfer(kernel, 1, 2, 100.0, note)
    transfer(kernel, 2, 1, 100.0, note)
    at(kernel.queue, 3.0, cut_all, kernel, 1)
    run(kernel)
    assert ended == [(0, False, 3.0), (2, False, 3.0), (1, False, 3.0), (3, True, 5.0)]
    assert not any(kernel.moving.values())
    assert not kernel.deliveries


def test_the_record_becomes_an_activity():
    kernel = kernel_of(3)
    first, second = (training_starts(kernel.record, t, node) for t, node in ((1.0, 2), (2.0, 0)))
    training_ends(kernel.record, 4.0, first, completed=True)
    for receiver, size in ((1, 20.0), (2, 80.0), (1, 1000.0)):
        transfer(kernel, 0, receiver, size, lambda number, completed: None)
    at(kernel.queue, 5.0, cut_all, kernel, 2)
    run(kernel, until=6.0)
    found = activity_of(kernel.record, 6.0, kernel.network.sent(6.0))
    assert (first, second) == (0, 1)
    np.testing.assert_array_equal(found.training_end_s, [4.0, 6.0])
    np.testing.assert_array_equal(found.training_completed, [True, False])
    np.testing.assert_array_equal(found.state, [COMPLETED, CUT, UNDER_WAY])
    np.testing.assert_array_equal(found.ended_s, [2.0, 5.0, 6.0])
    np.testing.assert_array_equal(found.sent_bytes, [20.0, 50.0, 60.0])
