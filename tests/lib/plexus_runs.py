"""Small simulated networks for tests of Plexus, and what every plan must obey."""

import dataclasses

import numpy as np

from gossipjax.systems import Machines, Membership, Timers, plexus
from gossipjax.systems._activity import COMPLETED, CUT, UNDER_WAY
from gossipjax.systems._plexus.history import AVERAGED, FATES, GONE, INTERRUPTED, RUNNING
from gossipjax.systems._plexus.sizes import AGGREGATED, BYTES, TRAINED

MODEL = 10_000


def network(n, *, seconds=0.1, bandwidth=1e5, latency=0.05, online=None, changes=()):
    """n machines; ``changes`` are (time, node, goes online)."""
    changes = sorted(changes)

    def transitions(until):
        kept = [change for change in changes if 0 < change[0] <= until]
        return tuple(np.array(column) for column in zip(*kept, strict=True)) if kept else (np.zeros(0),) * 3

    rate = np.broadcast_to(np.asarray(bandwidth, np.float64), n).copy()
    delay = np.broadcast_to(latency, (n, n))
    return Machines(
        np.broadcast_to(np.asarray(seconds, np.float64), n).copy(),
        rate,
        rate,
        lambda i, j: delay[i, j],
        np.ones(n, bool) if online is None else np.asarray(online),
        transitions,
    )


def uneven(n, seed=0, **settings):
    """Machines that differ in everything."""
    rng = np.random.default_rng(seed)
    given = {
        "seconds": rng.uniform(0.01, 0.2, n),
        "bandwidth": rng.uniform(2e4, 2e5, n).round(),
        "latency": rng.uniform(0.01, 0.3, (n, n)),
    }
    return network(n, **(given | settings))


def run(devices, **settings):
    """Plan with small models; the plan must obey the laws. Fields of membership and timers may stand apart."""
    given = {"model_bytes": MODEL, "seed": 1, "sample_size": 4} | settings
    for name, group in (("membership", Membership), ("timers", Timers)):
        fields = {field.name: given.pop(field.name) for field in dataclasses.fields(group) if field.name in given}
        given[name] = group(**fields)
    plan = plexus(devices, **given)
    check_laws(plan.history)
    return plan


def check_laws(plan):
    """Nothing is lost without an account in a history: messages, bytes, trainings, members."""
    in_flight = plan.messages_in_flight
    np.testing.assert_array_equal(plan.messages_sent, plan.messages_delivered + plan.messages_lost + in_flight)
    for kind, size in BYTES.items():
        assert plan.message_bytes[kind] == size * plan.messages_sent[kind]
    for kind in (TRAINED, AGGREGATED):
        states = plan.transfer_state[plan.transfer_kind == kind]
        counts = [np.count_nonzero(states == state) for state in (COMPLETED, CUT, UNDER_WAY)]
        assert counts == [plan.messages_delivered[kind], plan.messages_lost[kind], in_flight[kind]]
        sent = plan.transfer_sent[plan.transfer_kind == kind].sum()
        np.testing.assert_allclose(plan.message_bytes[kind], sent, rtol=1e-12)  # the same sum in another order
    done = plan.transfer_state == COMPLETED
    np.testing.assert_array_equal(plan.transfer_sent[done], plan.transfer_size[done])
    assert (plan.transfer_sent <= plan.transfer_size).all()
    assert (plan.transfer_sender != plan.transfer_receiver).all()
    assert (plan.transfer_end_s >= plan.transfer_start_s).all()
    check_trainings(plan)


def check_trainings(plan):
    total = plan.training_node.size
    averaged = np.zeros(total, bool)
    averaged[plan.members] = True
    np.testing.assert_array_equal(averaged, plan.training_fate == AVERAGED)
    assert np.bincount(plan.training_fate, minlength=len(FATES)).sum() == total
    began = np.append(plan.aggregation_s, 0.0)[plan.training_source]
    source_round = np.append(plan.aggregation_round, 0)[plan.training_source]
    np.testing.assert_array_equal(plan.training_round, source_round + 1)
    assert (plan.training_start_s >= began).all()
    assert (np.diff(plan.aggregation_s) >= 0).all()
    for number, seconds in enumerate(plan.aggregation_s):
        members = plan.members_of(number)
        assert (plan.training_round[members] == plan.aggregation_round[number]).all()
        assert (plan.training_end_s[members] <= seconds).all()
        assert np.unique(plan.training_node[members]).size == members.size
    by_node = np.lexsort((plan.training_start_s, plan.training_node))
    same = np.diff(plan.training_node[by_node]) == 0  # a node trains one model at a time
    assert (plan.training_start_s[by_node][1:][same] >= plan.training_end_s[by_node][:-1][same]).all()
    assert (np.diff(plan.training_round[by_node])[same] >= 0).all()


def finished(plan):
    """Trainings that were carried out to their end."""
    return ~np.isin(plan.history.training_fate, [RUNNING, INTERRUPTED, GONE])


def same(a, b):
    """Assert that two plans hold the same events."""
    assert a.end_s == b.end_s
    for field in dataclasses.fields(a.history):
        left, right = getattr(a.history, field.name), getattr(b.history, field.name)
        np.testing.assert_array_equal(left, right, err_msg=field.name)
