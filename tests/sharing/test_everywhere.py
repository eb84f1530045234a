"""Promises of sharings at meetings and in flight, on a model of two leaves of different shapes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from problems import N, exact_quadratic
from two_leaves import START, joined, split, two_leaves

import gossipjax as gj
from gossipjax import protocol, timeline
from gossipjax._engine import loop
from gossipjax.compress import identity, qsgd
from gossipjax.sharing import compressed, fragments, full, random_subset, top_k
from gossipjax.testing import relabel_timeline
from gossipjax.topology import barabasi_albert
from gossipjax.types import Sharing

KEY, SGD, TASK = jax.random.key(5), optax.sgd(0.1), two_leaves(exact_quadratic())
GRAPH = barabasi_albert(N, 2, seed=1)
CLOCK = timeline.clocks.shifted_exponential(0.2, 0.6)

PLANS = {
    "flights": lambda: timeline.push_gossip(GRAPH, 6.0, compute=CLOCK, gossip=1.0, latency=0.3, seed=0),
    "learning": lambda: timeline.gossip_learning(GRAPH, 6.0, period=1.0, latency=0.3, seed=0),
    "mailboxes": lambda: timeline.swift(GRAPH, 4.0, compute=CLOCK, latency=0.2, seed=0),
    "masses": lambda: timeline.directed_push(GRAPH, 6.0, compute=CLOCK, send=1.0, latency=0.3, seed=0),
    "pushes": lambda: timeline.poisson_push(GRAPH, 40, seed=0),
}
LEARNERS = {
    "flights": lambda sharing: protocol.ad_psgd(TASK, SGD, sharing=sharing),
    "learning": lambda sharing: protocol.gossip_learning(TASK, SGD, merge="age", sharing=sharing),
    "mailboxes": lambda sharing: protocol.swift(TASK, SGD, sharing=sharing),
    "masses": lambda sharing: protocol.sgp(TASK, SGD, sharing=sharing),
}


@functools.cache
def planned(name):
    return PLANS[name]()


@jax.jit
def final(key, method, plan, x0):
    """The state after all events, and the models."""
    facts = plan.properties
    (state, _), _ = loop.run(key, method, plan, method.init(key, loop.with_slots(x0, facts)))
    return state, loop.models(method, state, facts.num_rows)


@functools.cache
def of_whole_models(name):
    return joined(final(KEY, LEARNERS[name](full()), planned(name), START)[1])


@pytest.mark.parametrize(
    ("name", "sharing"),
    [
        *((name, random_subset(1.0)) for name in LEARNERS),
        *((name, compressed(identity())) for name in LEARNERS),
        ("flights", top_k(1.0)),
        ("masses", top_k(1.0)),
        ("flights", fragments(1)),
        ("masses", fragments(1)),
    ],
)
def test_all_coordinates_are_the_model(name, sharing):
    found = joined(final(KEY, LEARNERS[name](sharing), planned(name), START)[1])
    # Sums in another order.
    np.testing.assert_allclose(found, of_whole_models(name), rtol=1e-12, atol=1e-13)
    assert np.abs(found - joined(START)).max() > 0.1


@pytest.mark.parametrize(
    "name", ["flights", *(pytest.param(each, marks=pytest.mark.slow) for each in ("learning", "mailboxes"))]
)
@pytest.mark.parametrize("sharing", [random_subset(0.5), compressed(qsgd(3))], ids=["subset", "qsgd"])
def test_packed_events_say_the_same(name, sharing):
    method, plan = LEARNERS[name](sharing), planned(name)
    wide = gj.pack(plan, width=8)
    assert wide.properties.packing.mean_width > 1.2
    found, expected = (joined(final(KEY, method, each, START)[1]) for each in (wide, plan))
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", LEARNERS)
def test_equal_models_at_the_optimum_stay(name):
    """Every node's optimum is the start of node 0: parts of equal models change nothing."""
    point = np.repeat(joined(START)[:1], N, axis=0)
    task = two_leaves(exact_quadratic(targets=point))
    method = {
        "flights": lambda: protocol.ad_psgd(task, SGD, sharing=random_subset(0.5)),
        "learning": lambda: protocol.gossip_learning(task, SGD, sharing=fragments(2)),
        "mailboxes": lambda: protocol.swift(task, SGD, sharing=top_k(0.4)),
        "masses": lambda: protocol.sgp(task, SGD, sharing=random_subset(0.5)),
    }[name]()
    found = joined(final(KEY, method, planned(name), split(point))[1])
    np.testing.assert_allclose(found, point, rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    "sharing", [random_subset(0.5), top_k(0.4), fragments(2), compressed(qsgd(3))], ids=lambda s: str(s)[:30]
)
def test_mass_is_conserved_coordinate_by_coordinate(sharing):
    """Messages in flight included; with weights of coordinates the models also come to agree on the mean."""
    plan = timeline.directed_push(GRAPH, 60.0, compute=None, send=1.0, latency=0.3, seed=0)
    state, models = final(KEY, protocol.push_sum(sharing), plan, START)
    held = [*range(N), *in_flight(plan)]
    assert len(held) > N
    # 500 sends of shares of numbers of order 1.
    np.testing.assert_allclose(joined(state.x)[held].sum(0), joined(START).sum(0), rtol=0, atol=1e-12)
    np.testing.assert_allclose(joined(state.w)[held].sum(0), N, rtol=1e-13)
    if isinstance(state.w, dict) and "top_k" not in str(sharing):  # which never says what does not change
        assert np.ptp(joined(models), axis=0).max() < 0.05 * np.ptp(joined(START), axis=0).max()


def in_flight(plan):
    """Rows of messages that are still on their way at the end."""
    rows = set()
    for senders, receivers in zip(plan.xs["senders"], plan.xs["receivers"], strict=True):
        rows -= set(senders.tolist())
        rows |= {int(row) for row in receivers if N <= row < N + plan.properties.num_slots}
    return sorted(rows)


def test_a_random_subset_in_the_mean():
    """Masks of different messages are independent: in the mean over keys, the run of the plan with weights α a."""
    share, x0 = 0.5, jnp.asarray(joined(START))
    settings = {"compute": None, "gossip": 1.0, "latency": 0.3, "seed": 0}
    plan, thinner = (timeline.push_gossip(GRAPH, 3.0, weight=weight, **settings) for weight in (0.6, 0.3))
    method = gj.gossip_averaging(random_subset(share))
    runs = np.asarray(jax.vmap(lambda key: final(key, method, plan, x0)[1])(jax.random.split(KEY, 2000)))
    expected = np.asarray(final(KEY, gj.gossip_averaging(), thinner, x0)[1])
    error = runs.std(0, ddof=1) / np.sqrt(len(runs))
    moved = error > 1e-9  # the others were never pushed to, or are sums of equal numbers
    assert moved.mean() > 0.5
    assert (np.abs(runs.mean(0) - expected)[moved] < 4.5 * error[moved]).all()  # the largest of 24
    np.testing.assert_allclose(runs.mean(0)[~moved], expected[~moved], rtol=0, atol=1e-12)


def test_names_of_nodes_do_not_matter():
    order = np.random.default_rng(2).permutation(N)
    new, plan = np.argsort(order), planned("flights")
    method = gj.gossip_averaging(top_k(0.4))
    plain = joined(final(KEY, method, plan, START)[1])
    renamed = relabel_timeline(plan, new)
    other = joined(final(KEY, method, renamed, split(joined(START)[order]))[1])
    np.testing.assert_allclose(other, plain[order], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("build", [gj.push_sum, lambda sharing: gj.sgp(TASK, SGD, sharing=sharing)])
def test_messages_without_mass_are_refused(build):
    for sharing in (gj.sharing.jwins(), gj.sharing.choco(gj.compress.top_k(1), 0.5)):
        with pytest.raises(ValueError, match=r"models or parts of one.*random_subset"):
            build(sharing)


def test_groups_that_do_not_say_who_sends_are_refused():
    plan = planned("learning")
    silent = {name: array for name, array in plan.xs.items() if name != "speakers"}
    bare = gj.Timeline(silent, plan.shared, plan.event, plan.properties)
    assert isinstance(random_subset(0.5), Sharing)
    with pytest.raises(ValueError, match=r"does not say who sends.*speakers"):
        jax.eval_shape(final, KEY, gj.gossip_averaging(random_subset(0.5)), bare, START)


def test_a_sharing_that_speaks_for_all_rows_at_a_meeting_is_refused():
    """Entries are matched with speakers by their place, so that another number of them would be mixed up in silence."""
    right = random_subset(0.5)

    def encode(key, state, x_start, x, event):
        state, (message, bits) = right.encode(key, state, x_start, x, event)
        return state, (message._replace(values=x), bits)

    wrong = Sharing(right.init, encode, right.merge, right.requires)
    x0 = jnp.zeros((N, 3))
    with pytest.raises(ValueError, match=rf"encodes {N} messages in an event with 2 speakers: encode one entry"):
        gj.simulate(KEY, gj.gossip_averaging(wrong), timeline.poisson_pairs(GRAPH, 5, seed=0), x0)
