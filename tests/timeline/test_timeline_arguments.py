"""Builders of timelines refuse what they cannot mean, by name, before any work."""

import inspect
import time
from functools import partial

import jax
import numpy as np
import pytest
from plans import CLOCK

import gossipjax as gj
from gossipjax import timeline as tl
from gossipjax.mixing import metropolis
from gossipjax.topology import exponential, ring

R = ring(6)
SERVED = {"stop": True, "latency": 0.1, "seed": 0}
BUILDERS = {
    "rounds": (tl.rounds, {"weights": metropolis(R), "num_rounds": 5}),
    "matching_rounds": (tl.matching_rounds, {"num_nodes": 6, "num_rounds": 5, "seed": 0}),
    "drawn_matchings": (tl.drawn_matchings, {"num_nodes": 6, "num_rounds": 5}),
    "changing_rounds": (
        tl.changing_rounds,
        {"overlay": R, "num_rounds": 5, "weights": "uniform", "activity": None, "loss": None},
    ),
    "client_sampling": (tl.client_sampling, {"num_nodes": 6, "num_sampled": 2, "num_rounds": 5, "seed": 0}),
    "teleportation": (tl.teleportation, {"weights": metropolis(ring(3)), "num_nodes": 6, "num_rounds": 5, "seed": 0}),
    "shatter": (tl.shatter, {"num_nodes": 6, "num_rounds": 3, "virtual_nodes": 2, "degree": 2, "seed": 0}),
    "push_rounds": (tl.push_rounds, {"peers": 6, "num_rounds": 5, "compute": 1.0, "gossip_rate": 1.0, "seed": 0}),
    "poisson_pairs": (tl.poisson_pairs, {"topology": R, "num_events": 5, "rate": 1.0, "seed": 0}),
    "poisson_edges": (tl.poisson_edges, {"topology": R, "duration": 5.0, "rate": 1.0, "seed": 0}),
    "poisson_push": (tl.poisson_push, {"topology": R, "num_events": 5, "weight": 0.5, "seed": 0}),
    "drawn_pairs": (tl.drawn_pairs, {"peers": 8, "num_events": 5, "rate": 1.0}),
    "drawn_gossip": (tl.drawn_gossip, {"peers": 8, "num_events": 5, "update_rate": 1.0, "gossip_rate": 1.0}),
    "push_gossip": (
        tl.push_gossip,
        {
            "peers": 6,
            "duration": 5.0,
            "compute": CLOCK,
            "gossip": 1.0,
            "weight": 0.5,
            "two_way": False,
            "latency": 0.1,
            "drop": 0.1,
            "inbox": "queue",
            "capacity": 2,
            "busy_receives": True,
            "dead_time": 0.1,
            "seed": 0,
        },
    ),
    "pairwise": (
        tl.pairwise,
        {"peers": 6, "duration": 5.0, "compute": CLOCK, "communicate": 1.0, "atomic": False, "latency": 0.1, "seed": 0},
    ),
    "directed_push": (tl.directed_push, {"topology": R, "duration": 5.0, "compute": CLOCK, "send": 1.0, "seed": 0}),
    "divshare": (
        tl.divshare,
        {
            "num_nodes": 6,
            "duration": 5.0,
            "compute": CLOCK,
            "num_fragments": 2,
            "recipients": 2,
            "uplink_messages_per_second": 3.0,
            "drop": 0.1,
            "seed": 0,
        },
    ),
    "fedbuff": (
        tl.fedbuff,
        {
            "num_nodes": 6,
            "duration": 5.0,
            "concurrency": 2,
            "train_time": CLOCK,
            "buffer_size": 2,
            "max_staleness": 3,
            "seed": 0,
        },
    ),
    "ringmaster": (
        tl.ringmaster,
        {"num_nodes": 6, "duration": 5.0, "compute": CLOCK, "max_delay": 3, "stop": True, "latency": 0.1, "seed": 0},
    ),
    "rennala": (tl.rennala, {"num_nodes": 6, "duration": 5.0, "compute": CLOCK, "batch_size": 3, **SERVED}),
    "malenia": (tl.malenia, {"num_nodes": 6, "duration": 5.0, "compute": CLOCK, "batch_size": 3, **SERVED}),
    "m_synchronous": (
        tl.m_synchronous,
        {"num_nodes": 6, "duration": 5.0, "compute": CLOCK, "wait_for": 3, "latency": 0.1, "seed": 0},
    ),
    "gossip_learning": (tl.gossip_learning, {"peers": 6, "duration": 5.0, "period": 1.0, "tokens": 3, "seed": 0}),
    "opportunistic": (
        tl.opportunistic,
        {"num_nodes": 6, "duration": 5.0, "update_rate": 1.0, "capacity": 1.0, "relay": "none", "seed": 0},
    ),
    "random_walks": (
        tl.random_walks,
        {"topology": R, "num_events": 5, "num_walks": 2, "service": 1.0, "mix_on_arrival": True, "seed": 0},
    ),
    "swift": (tl.swift, {"topology": R, "duration": 5.0, "compute": CLOCK, "period": 2, "seed": 0}),
    "version_age": (
        tl.version_age,
        {"peers": 6, "duration": 5.0, "version_rate": 1.0, "source_rate": 1.0, "gossip_rate": 1.0, "seed": 0},
    ),
}
WHOLE = {"num_events", "num_rounds", "num_nodes", "peers", "period", "capacity", "seed", "num_walks", "concurrency"}
WHOLE |= {"max_delay", "batch_size", "wait_for"}
WHOLE |= {"buffer_size", "max_staleness", "num_fragments", "recipients", "virtual_nodes", "degree", "num_sampled"}
CASES = [(name, argument) for name, (_, given) in BUILDERS.items() for argument in given]


def refused(build, given, argument, value):
    with pytest.raises((ValueError, TypeError)) as caught:
        inspect.unwrap(build)(**(given | {argument: value}))
    assert argument in str(caught.value)
    assert type(caught.value) in (ValueError, TypeError)


@pytest.mark.parametrize(("name", "argument"), CASES)
def test_wrong_sorts_and_impossible_numbers_are_named(name, argument):
    build, given = BUILDERS[name]
    fractions = [2.5, 2.0] if argument in WHOLE and (name, argument) not in FRACTIONS else []
    for value in ["a", object(), np.nan, -np.inf, -1, np.ones((2, 3)), np.array([]), 1 + 2j, *fractions]:
        refused(build, given, argument, value)


FRACTIONS = {("gossip_learning", "period"), ("opportunistic", "capacity")}
"""Seconds and rates under the names of counts."""


@pytest.mark.parametrize("name", [name for name, (_, given) in BUILDERS.items() if "seed" in given])
def test_seeds_are_whole_and_never_none(name):
    build, given = BUILDERS[name]
    for value in (None, 1.5, -1, "a", True):
        refused(build, given, "seed", value)


HUGE = [
    (partial(tl.push_gossip, 6, 5.0, compute=CLOCK, seed=0), {"gossip": 1e12}),
    (partial(tl.push_gossip, 6, compute=CLOCK, gossip=1.0, seed=0), {"duration": 1e15}),
    (partial(tl.pairwise, 6, 5.0, compute=CLOCK, seed=0), {"communicate": 1e12}),
    (partial(tl.directed_push, R, 5.0, compute=None, seed=0), {"send": 1e12}),
    (partial(tl.divshare, 6, 5.0, num_fragments=2, recipients=2, uplink_messages_per_second=1e9, seed=0), "compute"),
    (partial(tl.fedbuff, 6, 5.0, concurrency=2, buffer_size=2, seed=0), "train_time"),
    (partial(tl.ringmaster, 6, 5.0, max_delay=2, seed=0), "compute"),
    (partial(tl.rennala, 6, 5.0, batch_size=2, seed=0), "compute"),
    (partial(tl.malenia, 6, 5.0, batch_size=2, seed=0), "compute"),
    (partial(tl.m_synchronous, 6, 5.0, wait_for=2, seed=0), "compute"),
    (partial(tl.gossip_learning, 6, 5.0, seed=0), {"period": 1e-12}),
    (partial(tl.opportunistic, 6, 5.0, update_rate=1.0, relay="none", seed=0), {"capacity": 1e12}),
    (partial(tl.opportunistic_windows, 6, update_rate=1.0, capacity=1.0, relay="none", seed=0), {"num_events": 10**10}),
    (partial(tl.random_walks, R, num_walks=2, service=1.0, seed=0), {"duration": 1e15}),
    (partial(tl.swift, R, 5.0, seed=0), "compute"),
    (partial(tl.version_age, 6, 5.0, version_rate=1.0, source_rate=1.0, seed=0), {"gossip_rate": 1e12}),
    (partial(tl.poisson_pairs, R, seed=0), {"num_events": 10**10}),
    (partial(tl.poisson_push, R, duration=1e3, seed=0), {"rate": 1e12}),
    (partial(tl.drawn_pairs, 8), {"num_events": 10**10}),
    (partial(tl.rounds, metropolis(R)), {"num_rounds": 10**12}),
    (partial(tl.matching_rounds, 10**6, seed=0), {"num_rounds": 10**6}),
    (partial(tl.changing_rounds, R), {"num_rounds": 10**10}),
    (partial(tl.client_sampling, 10**6, 10**5, seed=0), {"num_rounds": 10**7}),
    (partial(tl.shatter, 1000, virtual_nodes=8, degree=8, seed=0), {"num_rounds": 10**8}),
    (partial(tl.push_rounds, 6, 5, compute=None, seed=0), {"gossip_rate": 1e12}),
]


@pytest.mark.parametrize("case", range(len(HUGE)))
def test_plans_that_no_memory_holds_are_refused_at_once(case):
    build, given = HUGE[case]
    given = {given: tl.clocks.poisson(1e12)} if isinstance(given, str) else given
    begun = time.monotonic()
    with pytest.raises(ValueError, match=next(iter(given))):
        build(**given)
    assert time.monotonic() - begun < 5.0  # drawing them would take hours


def test_the_sorts_of_things_that_were_mistaken():
    for build, words in (
        (lambda: inspect.unwrap(tl.rounds)(R, 5), "weights=ring.*build one with mixing.metropolis"),
        (lambda: inspect.unwrap(tl.poisson_pairs)(8, 5, seed=0), "topology=8: must be a Topology"),
        (lambda: inspect.unwrap(tl.push_gossip)(6, 5.0, compute=1.0, gossip=1.0, seed=0), "compute=1.0.*poisson"),
        (lambda: inspect.unwrap(tl.swift)(R, 5.0, compute=2.0, seed=0), "compute=2.0.*must be a Clock"),
        (lambda: inspect.unwrap(tl.swift)(R, 5.0, compute=CLOCK, weights=R, seed=0), "weights=ring"),
        (lambda: inspect.unwrap(gj.pack)([1, 2]), "timeline=.*must be a Timeline"),
        (lambda: inspect.unwrap(gj.pack)(tl.drawn_pairs(8, 20), key=3), "key=3"),
        (lambda: inspect.unwrap(tl.save)("plan", "x.npz"), "timeline='plan'"),
        (lambda: inspect.unwrap(tl.event_times)([0.0, 1.0]), "timeline="),
    ):
        with pytest.raises(TypeError, match=words):
            build()
    with pytest.raises(ValueError, match="is directed"):
        tl.swift(exponential(8), 5.0, compute=CLOCK, seed=0)


@pytest.mark.parametrize("window", [slice(None, None, -1), slice(0, 8, 2), slice(None, None, 3)])
def test_events_are_neither_skipped_nor_turned_around(window):
    for plan in (tl.poisson_pairs(R, 10, seed=0), tl.rounds(metropolis(R), 10)):
        with pytest.raises(ValueError, match="leave the step out"):
            plan[window]
        assert len(plan[2:8:1]) == 6


@pytest.mark.parametrize("window", [slice(0.5, 3), slice("a", None), slice(True, None), 3, "a", None])
def test_windows_have_whole_bounds(window):
    with pytest.raises(TypeError, match="timeline"):
        inspect.unwrap(gj.Timeline.__getitem__)(tl.rounds(metropolis(R), 10), window)


def test_clocks_check_their_numbers():
    for given in ({"shift": -1.0}, {"mean_extra": np.nan}, {"shift": 0.0, "mean_extra": np.zeros(3)}):
        with pytest.raises(ValueError, match=r"shift|mean_extra"):
            tl.Clock(**({"shift": 1.0, "mean_extra": np.ones(3)} | given))
    with pytest.raises(ValueError, match=r"rate=1e-320: 1/rate, the mean interval in seconds, must be finite"):
        tl.clocks.poisson(1e-320)
    with pytest.raises(ValueError, match=r"capacity=2: .* no less than spend"):
        tl.RandomizedTokens(3, 2)
    with pytest.raises(ValueError, match="sampler returns"):
        tl.push_gossip(4, 5.0, compute=None, gossip=tl.clocks.renewal(lambda rng, shape: ["a"], 1.0), seed=0)


def test_replaced_weights_have_facts_of_their_own():
    plan = tl.rounds(metropolis(R), 10)
    uniform = tl.with_mixing(plan, gj.mixing.DenseMixing(np.full((6, 6), 1 / 6))).properties
    assert {"doubly_stochastic", "symmetric", "fixed"} <= uniform.tags
    rows = np.eye(6)
    rows[0, :2] = 0.3, 0.7
    learned = tl.with_mixing(plan, gj.mixing.from_matrix(rows))
    facts = learned.properties
    assert ("doubly_stochastic" in facts, "symmetric" in facts, "row_stochastic" in facts) == (False, False, True)
    assert facts.min_eigenvalue is None
    lossy = tl.with_mixing(plan, gj.mixing.from_matrix(0.5 * rows))
    with pytest.raises(ValueError, match="rows sum to one"):
        gj.simulate(jax.random.key(0), gj.gossip_averaging(), lossy, jax.numpy.zeros(6), progress=False)
    with pytest.raises(ValueError, match="6 nodes"):
        tl.with_mixing(plan, gj.mixing.from_matrix(np.eye(5)))
    with pytest.raises(ValueError, match="no plan of rounds on given matrices"):
        tl.with_mixing(tl.matching_rounds(6, 4, seed=0), gj.mixing.from_matrix(np.eye(6)))

    def loss(W):
        learning = tl.with_mixing(plan, gj.mixing.DenseMixing(W))
        facts = learning.properties
        assert facts.tags == {"synchronous", "own_rows", "fixed", "one_graph"}
        protocol = gj.gossip_averaging()
        state = protocol.init(jax.random.key(0), jax.numpy.arange(6.0))
        return gj.run(jax.random.key(0), protocol, learning, state)[0][0].x.sum()

    gradient = jax.grad(loss)(jax.numpy.asarray(metropolis(R).toarray()))
    assert np.isfinite(gradient).all()
    assert (gradient != 0).any()
