"""Who is charged for a message: by hand, and one ledger for run, meter and plan."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from plexus_runs import uneven
from problems import X0, D, N
from system_runs import MODEL, SUMS

import gossipjax as gj
from gossipjax import Event, Info, systems
from gossipjax._base import counter
from gossipjax._base.binding import Frozen
from gossipjax.mixing import GroupMixing, PairMixing, _ledger, from_matrix, metropolis
from gossipjax.mixing._ledger import start_book
from gossipjax.sharing import fragments, random_subset
from gossipjax.systems._activity import COMPLETED
from gossipjax.topology import barabasi_albert
from gossipjax.types import NOBODY

enter = jax.jit(_ledger.enter)
KEY, SIZE = jax.random.key(3), 8 * D
"""Bytes of a model in float64."""
GRAPH = barabasi_albert(N, 2, seed=1)


def event(mixing, *, models=None, nodes=(NOBODY,), **fields):
    at = jnp.zeros(1, jnp.uint32), jnp.zeros(1)
    nodes = None if nodes is None else jnp.asarray(nodes, jnp.int32)
    return Event(*at, nodes=nodes, mixing=mixing, models=None if models is None else Frozen(models), **fields)


def pairs(*transfers):
    senders, receivers = np.asarray(transfers, np.int32).T
    half = jnp.full(len(transfers), 0.5)
    return PairMixing(jnp.asarray(senders), jnp.asarray(receivers), half, half)


def numbers(*values):
    return jnp.asarray(values, jnp.uint32)


def accounts(book):
    return tuple(counter.value(each).tolist() for each in book.ledger)


def test_a_node_may_say_two_things_in_one_event():
    said = Info(numbers(5, 7, 11), numbers(1, 1, 1))
    book = enter(start_book(4), said, event(pairs((0, 1), (0, 2), (3, 0))))
    assert accounts(book) == ([12, 0, 0, 11], [11, 5, 7, 0])


def test_a_message_is_received_when_it_arrives_and_keeps_its_size():
    book = enter(start_book(4), Info(numbers(9, 4), numbers(1, 1)), event(pairs((0, 2), (1, 3)), models=2))
    assert accounts(book) == ([9, 4, 0, 0], [0, 0, 0, 0])
    book = enter(book, Info(numbers(6, 0), numbers(1, 0)), event(pairs((0, 3), (2, 1)), models=2))
    assert accounts(book) == ([15, 4, 0, 0], [0, 9, 0, 0])  # the message of node 1 was overwritten, and is lost
    book = enter(book, Info(numbers(0), numbers(0)), event(pairs((3, 1)), models=2))
    assert accounts(book) == ([15, 4, 0, 0], [0, 15, 0, 0])


def test_a_group_receives_from_all_its_members_but_itself():
    groups = GroupMixing(jnp.asarray([[1, 3, 4], [1, NOBODY, NOBODY]]), jnp.asarray([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]]),
                         jnp.asarray([[1], [4]]))  # fmt: skip
    book = start_book(5)._replace(said=numbers(0, 0, 0, 8, 2))
    tick = event(groups, models=3, messages=numbers(2), speakers=jnp.asarray([1], jnp.int32))
    book = enter(book, Info(numbers(10), numbers(2)), tick)
    assert accounts(book) == ([0, 20, 0, 0, 0], [0, 8, 0, 0, 0])
    assert book.said.tolist() == [0, 10, 0, 8, 10]


@pytest.mark.parametrize("form", ["dense", "table"])
def test_rounds_in_which_each_neighbour_is_sent_something_else(form):
    W = np.zeros((4, 4))
    for i, j in ((0, 1), (0, 3), (2, 3)):
        W[i, j] = W[j, i] = 0.25
    np.fill_diagonal(W, 1 - W.sum(1))
    mixing, sizes = from_matrix(W, form=form), numbers((3, 5), (7, 0), (11, 0), (13, 17))
    tick = event(mixing, nodes=None)
    book = enter(start_book(4), Info(sizes, (sizes > 0).astype(jnp.uint32)), tick)
    assert accounts(book) == ([8, 7, 11, 30], [7 + 13, 3, 17, 5 + 11])
    alike = enter(start_book(4), Info(numbers(1, 2, 3, 4), numbers(2, 1, 1, 2)), tick)
    assert accounts(alike) == ([2, 2, 3, 8], [2 + 4, 1, 4, 1 + 3])


def test_one_size_and_counted_messages_are_no_ring():
    """The hub of a star speaks to its three leaves, and hears nobody."""
    W = np.eye(4)
    W[1:, 0] = W[1:, 1:].sum(0) / 2
    np.fill_diagonal(W[1:, 1:], 0.5)
    book = _ledger.enter(start_book(4), Info(32, numbers(3, 0, 0, 0)), event(from_matrix(W, form="dense"), nodes=None))
    assert accounts(book) == ([96, 0, 0, 0], [0, 32, 32, 32])


def test_who_does_not_say_who_sends_is_refused():
    groups = GroupMixing(jnp.asarray([[0, 1]]), jnp.full((1, 2), 0.5), jnp.asarray([[0, 1]]))
    with pytest.raises(ValueError, match="does not say who sends"):
        _ledger.enter(start_book(3), Info(64), event(groups, nodes=None))


def metered(plan, sharing=None):
    protocol, plan = gj.metered(gj.gossip_averaging(sharing)), systems.stand_in(plan)
    watch = [gj.observe.traffic_by_node()]
    return gj.simulate(KEY, protocol, plan, jnp.asarray(X0), observers=watch, record_every=len(plan), progress=False)


PLANS = {
    "rounds": lambda: systems.synchronous(uneven(N), metropolis(GRAPH), 4, local_steps=2, model_bytes=SIZE),
    "rounds with losses": lambda: systems.epidemic(
        uneven(N), 3, 5, local_steps=3, model_bytes=MODEL, round_seconds=3.0, seed=0
    ),
    "all-reduce": lambda: systems.allreduce(uneven(N), 4, local_steps=1, model_bytes=SIZE),
    "gossip learning": lambda: systems.gossip_learning(
        uneven(N), 40.0, local_steps=2, model_bytes=MODEL, period_s=2.0, inbox="newest", seed=0
    ),
    "AD-PSGD": lambda: systems.ad_psgd(uneven(N), N, 3.0, model_bytes=MODEL, time_batch=4, seed=0),
}


@pytest.mark.parametrize("name", PLANS)
def test_one_ledger_for_run_meter_and_plan(name):
    plan = PLANS[name]()
    found, done, balance = metered(plan), systems.activity(plan), plan.timeline.properties.traffic
    sent, received = found["bytes_sent_by_node"][-1], found["bytes_received_by_node"][-1]
    assert sent.sum() == found["bytes_sent"][-1]
    if name == "all-reduce":
        by_plan = systems.node_traffic(plan)
        np.testing.assert_allclose(sent, by_plan.sent, **SUMS)
        np.testing.assert_allclose(received, by_plan.received, **SUMS)
        return
    np.testing.assert_array_equal(sent, SIZE * np.bincount(done.sender, minlength=N))
    assert sent.sum() == SIZE * balance.sent
    assert received.sum() == SIZE * balance.delivered
    assert (balance.delivered < balance.sent) == (name != "rounds")
    if name != "gossip learning":  # where a message may wait in an inbox
        np.testing.assert_array_equal(received, SIZE * np.bincount(done.receiver[done.state == COMPLETED], minlength=N))


@pytest.mark.parametrize(
    ("timeline", "sharing"),
    [
        (lambda: gj.timeline.push_gossip(GRAPH, 9.0, compute=None, gossip=1.0, latency=0.2, seed=0), fragments(2)),
        (lambda: gj.timeline.poisson_pairs(GRAPH, 9, seed=0), random_subset(0.5)),
        (lambda: gj.timeline.shatter(N, 5, virtual_nodes=2, degree=3, seed=0), fragments(2)),
    ],
    ids=["in flight", "meetings", "fragments that the timeline names"],
)
def test_run_and_meter_agree_where_sizes_vary(timeline, sharing):
    plan = timeline()
    found = metered(plan, sharing)
    sent, received = float(found["bytes_sent_by_node"][-1].sum()), float(found["bytes_received_by_node"][-1].sum())
    assert sent == found["bytes_sent"][-1]
    assert 0 < received <= sent
    assert (received == sent) == (plan.properties.num_slots == 0)


@pytest.mark.parametrize(
    "plan",
    [
        lambda: systems.plexus(uneven(N), num_rounds=6, sample_size=4, model_bytes=SIZE, seed=0),
        lambda: systems.hadfl(uneven(N), 12.0, local_steps=2, model_bytes=SIZE, seed=0),
        lambda: systems.synchronous(uneven(N), GRAPH, 7, local_steps=2, model_bytes=10**6, round_seconds=3.0),
        lambda: systems.ad_psgd(uneven(N), N, 3.0, model_bytes=10**5, seed=0),
    ],
    ids=["Plexus", "HADFL", "rounds", "AD-PSGD"],
)
def test_the_ledger_of_a_plan_is_that_of_its_transfers_at_any_time(plan):
    made = plan()
    with pytest.raises(ValueError, match="until_s=-1"):
        systems.node_traffic(made, -1.0)
    for until in (0.0, *np.linspace(0.1, 1.0, 5) * made.end_s, np.inf):
        sent, received = systems.node_traffic(made, until)
        assert sent.sum() == pytest.approx(made.total_bytes(until), rel=1e-9, abs=1e-6)
        assert received.sum() <= sent.sum() * (1 + 1e-12)
    done = systems.activity(made)
    np.testing.assert_allclose(sent, np.bincount(done.sender, done.sent_bytes, sent.size), **SUMS)
    known = done.receiver >= 0
    np.testing.assert_allclose(received, np.bincount(done.receiver[known], done.sent_bytes[known], sent.size), **SUMS)
