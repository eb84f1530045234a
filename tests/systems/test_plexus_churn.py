"""Plexus with nodes that come, go and crash: views, searches, second aggregators, timeouts, stalls, laws."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plexus_runs import network, run, same, uneven

from gossipjax import devices
from gossipjax.systems._activity import CUT
from gossipjax.systems._kernel.loop import run as run_kernel
from gossipjax.systems._kernel.queue import at
from gossipjax.systems._kernel.record import training_starts
from gossipjax.systems._plexus import handlers, state
from gossipjax.systems._plexus.find import find_live
from gossipjax.systems._plexus.handlers import begin_round
from gossipjax.systems._plexus.history import AVERAGED, CANCELLED, DROPPED, GONE, TRAINED_ONLY, UNSENT
from gossipjax.systems._plexus.membership import go_offline
from gossipjax.systems._plexus.sampler import make_order
from gossipjax.systems._plexus.settings import Membership, PlexusSettings, Timers
from gossipjax.systems._plexus.simulation import make_simulation
from gossipjax.systems._plexus.sizes import AGG_ACK, AGGREGATED, JOIN, LEAVE, PING, PONG, TRAINED
from gossipjax.systems._plexus.views import entry

CLOSE = {"rtol": 0, "atol": 1e-9}  # seconds below 1e3, some hundred roundings of 1e-13 each

# Searches

SETTINGS = PlexusSettings(
    num_nodes=6,
    num_rounds=np.inf,
    duration_s=np.inf,
    sample_size=2,
    needed=2,
    message_bytes=1000,
    next_aggregator=True,
    server=None,
    num_aggregators=None,
    min_models=3,
    membership=Membership(activity_window=None),
    timers=Timers(),
)
L = 0.05


def search(ids, want, offline=(), leaves=None):
    """Search from node 0; return what is found and when, and the simulation."""
    online = np.ones(6, bool)
    online[list(offline)] = False
    sim = make_simulation(SETTINGS, network(6, latency=L, online=online), np.ones(6), "greedy", "mix", 0, True)
    results = []
    if leaves is not None:
        at(sim.kernel.queue, leaves, go_offline, sim, 0)
    find_live(sim, 0, ids, want, lambda found: results.append((sim.kernel.now, found)))
    run_kernel(sim.kernel)
    return results, sim


@pytest.mark.parametrize(
    ("ids", "want", "offline", "seconds", "found", "pings"),
    [
        ((3, 4, 5), 2, (), 2 * L, [3, 4], 2),
        ((3, 0, 5), 2, (), 2 * L, [0, 3], 1),  # the searcher counts unasked
        ((0, 3), 1, (), 0.0, [0], 0),
        ((3, 4, 5), 2, (3,), 5 + 2 * L, [4, 5], 4),  # 3 is asked twice, and 5 after it is given up
        ((3, 4), 2, (3,), 5.0, [4], 3),  # the list is used up
        ((3, 4, 0), 2, (3,), 5.0, [4, 0], 3),
        ((3, 4), 5, (), 2 * L, [3, 4], 2),  # no more than the list holds
        ((3, 4, 5), 1, (3, 4), 10 + 2 * L, [5], 5),
        ((3, 4, 5), 1, (3, 4, 5), 15.0, [], 6),
        ((), 2, (), 0.0, [], 0),
    ],
)
def test_finding_live_nodes(ids, want, offline, seconds, found, pings):
    results, sim = search(ids, want, offline)
    assert len(results) == 1
    np.testing.assert_allclose(results[0][0], seconds, **CLOSE)
    assert results[0][1] == found
    assert (sim.record.sent[PING], sim.record.sent[PONG]) == (pings, len(set(found) - {0}))
    assert sim.record.lost[PING] == 2 * len({i for i in offline if i in ids})


def test_a_search_ends_with_its_node():
    results, sim = search((3, 4), 2, (3,), leaves=2.0)
    assert results == []
    assert not sim.searches[0]


def test_pings_spread_news():
    """Whoever answers is known active in the latest round that both know."""
    results, sim = search((3,), 1)
    assert results
    assert entry(sim.views, 0, 3)[0] == entry(sim.views, 3, 0)[0] == 0
    sim.train_round[3], sim.counters[3] = 9, 5
    find_live(sim, 0, (3,), 1, lambda found: None)
    run_kernel(sim.kernel)
    assert entry(sim.views, 0, 3) == (9, 2 * 4)  # it announced 4, and has joined


# Departures: n = s = 5 equal machines, 4 models needed, training takes 1.5 s

BASE = {"sample_size": 5, "num_rounds": 6}


def test_everybody_gone_is_a_stall():
    plan = run(network(5, changes=[(1.0, i, False) for i in range(5)]), **BASE)
    assert (plan.history.outcome, plan.end_s) == ("stalled", 601.0)
    assert (plan.history.training_fate == GONE).all()
    assert "stalled after round 0" in plan.history.report
    assert "0 of 5 nodes online" in plan.history.report
    assert plan.history.online_count.tolist() == [5, 4, 3, 2, 1, 0]


def test_a_stall_is_noticed_among_comings_and_goings():
    changes = [(1.0, i, False) for i in range(4)] + [(100.0 * k, 4, bool(k % 2)) for k in range(1, 500)]
    plan = run(network(5, online=[True] * 4 + [False], changes=changes), **BASE)
    assert (plan.history.outcome, plan.end_s) == ("stalled", 601.0)


def test_fewer_models_after_the_timeout():
    """Two of five crash while they train: 3 models after 300 s are enough, 2 are not."""
    for crashed, options, size in ((2, {}, 3), (3, {}, None), (3, {"min_models": 2}, 2)):
        changes = [(1.0, i, False) for i in range(crashed)]
        plan = run(network(5, changes=changes), departures="crash", aggregation_timeout_s=300, **BASE, **options)
        if size is None:
            assert plan.history.outcome == "stalled"
            assert plan.history.aggregation_s.size == 0
            assert np.count_nonzero(plan.history.training_fate == DROPPED) == 2
        else:
            assert plan.history.members_of(0).size == size
            opened = plan.history.aggregation_s[0] - 300  # with the first model
            arrivals = plan.history.transfer_end_s[plan.history.transfer_kind == TRAINED]
            assert 1.5 <= opened <= arrivals[0] + 1e-9


SLOW = {"bandwidth": 2500.0, "latency": L}  # a model takes 5 s


def first_aggregator():
    plan = run(network(5, **SLOW), **BASE)
    return int(plan.history.transfer_receiver[0]), plan


def test_a_second_aggregator_is_found():
    """The aggregator leaves amid the first upload: bytes up to then are spent, and all send to another one."""
    gone, undisturbed = first_aggregator()
    begin = undisturbed.history.transfer_start_s[0]
    plan = run(network(5, **SLOW, changes=[(begin + 2.0, gone, False)]), **BASE)
    first = np.flatnonzero(plan.history.transfer_receiver[:4] == gone)
    assert first.size == 4
    assert (plan.history.transfer_state[first] == CUT).all()
    np.testing.assert_allclose(sorted(plan.history.transfer_sent[first]), [0, 0, 0, 2.0 * 2500], **CLOSE)
    assert gone not in plan.history.aggregation_node
    assert plan.history.members_of(0).size == 4
    # Told after one latency, they ping the next one and send the same models there.
    again = np.flatnonzero((plan.history.transfer_kind == TRAINED) & (plan.history.transfer_receiver != gone))[:3]
    np.testing.assert_allclose(plan.history.transfer_start_s[again], begin + 2.0 + 3 * L, **CLOSE)
    assert plan.history.outcome == "rounds"
    assert plan.history.messages_sent[LEAVE] == 4


def test_an_aggregator_that_crashes_is_not_replaced():
    gone, undisturbed = first_aggregator()
    begin = undisturbed.history.transfer_start_s[0]
    plan = run(network(5, **SLOW, changes=[(begin + 2.0, gone, False)]), departures="crash", **BASE)
    assert plan.history.outcome == "stalled"
    assert plan.history.messages_sent[[AGG_ACK, LEAVE]].sum() == 0
    assert np.count_nonzero(plan.history.training_fate == CANCELLED) == 4
    np.testing.assert_allclose(plan.end_s, begin + 2.0 + 600.0, **CLOSE)


def test_an_aggregator_that_leaves_while_it_hands_out_is_replaced():
    gone, undisturbed = first_aggregator()
    moment = undisturbed.history.transfer_start_s[undisturbed.history.transfer_kind == AGGREGATED][0] + 1.0
    plan = run(network(5, **SLOW, changes=[(moment, gone, False)]), **BASE)
    assert plan.history.aggregation_round[:2].tolist() == [1, 1]
    assert plan.history.aggregation_node[0] == gone
    assert plan.history.aggregation_node[1] != gone
    assert plan.history.outcome == "rounds"


def test_the_server_never_goes():
    undisturbed = run(network(5), aggregators="server", **BASE)
    server = int(undisturbed.history.aggregation_node[0])
    changes = [(1.0, server, False), (2.0, server, True)]
    same(undisturbed, run(network(5, changes=changes), aggregators="server", **BASE))
    plan = run(network(5, changes=[(1.0, (server + 1) % 5, False)]), aggregators="server", **BASE)
    assert (plan.history.aggregation_node == server).all()
    assert plan.history.online_count[-1] == 4


def test_trainers_without_an_aggregator_keep_their_models():
    """The server is offline: it is pinged twice, and given up."""
    sim = make_simulation(SETTINGS._replace(server=5), network(6), np.ones(6), "greedy", "mix", 0, True)
    sim.kernel.online[5] = False
    begin_round(sim, 1, 1, -1)
    run_kernel(sim.kernel, until=100.0)
    assert sim.record.fates[0] == UNSENT
    assert sim.jobs[1].phase == state.WAITING
    assert sim.kernel.now == 1.0 + 5.0


def test_all_who_count_on_an_aggregator_are_told():
    """It leaves while one uploads and three still train: all four belong to the sample, and none is forgotten."""
    gone, *_, quick = make_order(5, 1)(2)  # of equal machines the first aggregates
    assert gone == first_aggregator()[0]
    seconds = np.full(5, 10.0)
    seconds[quick] = 0.1
    plan = run(
        network(5, seconds=seconds, changes=[(2.0, gone, False)], **SLOW), sample_size=5, num_rounds=1, duration_s=5.0
    )
    assert plan.history.transfer_receiver[0] == gone
    assert plan.history.messages_sent[AGG_ACK] == plan.history.messages_delivered[AGG_ACK] == 4
    assert plan.history.messages_sent[TRAINED] == 2  # the one that had finished sends again


def trained_in_round_4(sim, node):
    sim.record.training_round.append(4)
    sim.record.training_source.append(-1)
    sim.record.fates.append(TRAINED_ONLY)
    return training_starts(sim.kernel.record, 0.0, node)


def test_a_late_timeout_does_nothing():
    """An aggregation whose time is up after a later round was finished here is left as it is, and is no work."""
    sim = make_simulation(SETTINGS, network(6), np.ones(6), "greedy", "mix", 0, True)
    for finished, means in ((7, 0), (3, 1)):
        sim.finished[0] = {finished}
        handlers._on_trained(sim, 0, 1, 5, trained_in_round_4(sim, 1), None)
        aggregation = sim.aggregations[0][5]
        aggregation.models |= {node: trained_in_round_4(sim, node) for node in (2, 3)}
        assert sim.busy == 1
        run_kernel(sim.kernel, until=sim.kernel.now + SETTINGS.timers.aggregation_timeout_s)
        assert len(sim.record.aggregations) == means
        assert sim.busy == 0
        sim.aggregations[0].clear()


def test_a_node_that_left_may_come_back():
    plan = run(network(6, changes=[(15.0, 2, False), (30.0, 2, True)]), sample_size=3, num_rounds=60)
    back = (plan.history.training_node == 2) & (plan.history.training_start_s > 30.0)
    assert back.sum() > 3
    away = (plan.history.aggregation_s > 20.0) & (plan.history.aggregation_s < 30.0)
    assert plan.history.view_active[away, 3].max() == 5
    assert plan.history.view_active[-1].tolist() == [6.0] * 4


def test_interruption_cuts_an_upload():
    """Four fast nodes of five are enough; the slow link is cut by the next round, and what it sent is counted."""
    bandwidth = np.array([1e5, 1e5, 500.0, 1e5, 1e5])
    plan = run(network(5, bandwidth=bandwidth), **BASE)
    cut = (plan.history.transfer_kind == TRAINED) & (plan.history.transfer_state == CUT)
    assert (plan.history.transfer_sender[cut] == 2).all()
    seconds = (plan.history.transfer_end_s - plan.history.transfer_start_s)[cut]
    np.testing.assert_allclose(plan.history.transfer_sent[cut], 500.0 * seconds, rtol=1e-9)
    assert cut.sum() >= 1


def test_joins_are_announced_and_believed():
    n = 12
    changes = [(20.0 + 3 * i, 6 + i, True) for i in range(6)]
    plan = run(network(n, online=np.arange(n) < 6, changes=changes), sample_size=3, num_rounds=80)
    assert plan.history.messages_sent[JOIN] == 6 * (n - 1)
    assert plan.history.online_count.tolist() == list(range(6, 13))
    assert plan.history.view_active[0].tolist() == [6.0] * 4
    assert (plan.history.view_active[-1] == 12).all()
    joined = np.isin(plan.history.training_node, np.arange(6, 12))
    assert joined.sum() > 20
    assert plan.history.training_start_s[joined].min() > 20.0
    assert set(plan.history.training_node[plan.history.training_start_s < 20.0]) <= set(range(6))


@pytest.mark.parametrize(
    "system", [{"departures": "crash", "aggregators": 2, "success_fraction": 0.4}, {"departures": "graceful"}]
)
def test_four_of_five_nodes_stop(system):
    """100 nodes, five stop each minute until 20 are left; the rest goes on, and every loss has an account.

    An aggregator that crashes is not replaced, so that only several aggregators survive crashes.
    """
    rng = np.random.default_rng(1)
    order = rng.permutation(100)[:80]
    changes = [(300.0 + 60.0 * (i // 5), int(node), False) for i, node in enumerate(order)]
    plan = run(
        uneven(100, seconds=rng.uniform(0.3, 1.2, 100), changes=changes),
        sample_size=10,
        activity_window=20,
        ping_timeout_s=2,
        duration_s=1600.0,
        **system,
    )
    assert plan.history.outcome == "duration"
    assert plan.history.online_count[-1] == 20
    assert (plan.history.aggregation_s > 1500.0).sum() >= 5
    late = plan.history.training_start_s > 1300.0
    assert late.sum() > 20
    assert not np.isin(plan.history.training_node[late], order).any()
    assert (plan.history.messages_lost[PING] > 0) == (system["departures"] == "crash")  # a leave is told to all 99
    assert np.count_nonzero(plan.history.training_fate == GONE) > 0


def test_availability_of_devices():
    made = devices.fitted(60, 2, availability="charging")
    plan = run(made, num_rounds=150, sample_size=5, success_fraction=0.6)
    assert plan.history.online_count[0] == devices.online(made, 0.0).sum()
    began = plan.history.training_start_s
    for number in np.flatnonzero(plan.history.training_fate == AVERAGED)[::20]:
        assert devices.online(made, float(began[number]))[plan.history.training_node[number]]
    same(plan, run(made, num_rounds=150, sample_size=5, success_fraction=0.6))


CHANGES = st.lists(st.tuples(st.floats(0.1, 20.0), st.integers(0, 7), st.booleans()), max_size=30)


@given(
    CHANGES,
    st.sampled_from(["greedy", "fair", "unlimited"]),
    st.sampled_from(["graceful", "crash"]),
    st.sampled_from([{}, {"aggregators": "server"}, {"aggregators": 2}, {"aggregators": "current"}]),
    st.sampled_from([3, 1000, None]),
    st.integers(0, 3),
)
@settings(max_examples=30, deadline=None)
def test_the_laws_hold_whatever_happens(changes, sharing, departures, system, window, seed):
    """``run`` checks the laws: messages, bytes, trainings and members are all accounted for; runs end."""
    plan = run(
        uneven(8, seed, changes=changes),
        bandwidth=sharing,
        departures=departures,
        activity_window=window,
        seed=seed,
        duration_s=30.0,
        stall_s=15.0,
        aggregation_timeout_s=8.0,
        **system,
    )
    assert plan.history.outcome in ("duration", "stalled")
    assert plan.end_s <= 30.0
    up = np.zeros(8)
    for sender, sent in zip(plan.history.transfer_sender, plan.history.transfer_sent, strict=True):
        up[sender] += sent
    if sharing != "unlimited" and system != {"aggregators": "server"}:
        rate = uneven(8, seed).upload_bytes_per_second
        assert (up <= rate * plan.end_s * (1 + 1e-12)).all()
    if not changes:
        assert not np.isin(plan.history.training_fate, [GONE, DROPPED, UNSENT]).any()
        assert not plan.history.messages_lost[:TRAINED].any()
