"""AD-PSGD, push-sum and SGP against the published algorithms, run with plain objects; bad input of all planners."""

import heapq

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import CURVATURE, TARGETS, X0, N
from replay import CLOCK, CLOSE, DIGRAPH, GRAPH, KEY, RATE, SGD, TASK, final_state, gradient, models

from gossipjax import Event, Properties, ad_psgd, protocol, sharing, topology
from gossipjax._engine import loop
from gossipjax.mixing import column_stochastic, uniform
from gossipjax.mixing._apply import GroupMixing
from gossipjax.timeline import (
    RandomizedTokens,
    clocks,
    directed_push,
    divshare,
    fedbuff,
    from_events,
    gossip_learning,
    push_gossip,
    random_walks,
    rounds,
    swift,
)
from gossipjax.timeline.flights import uniform_peers
from gossipjax.types import NOBODY

# AD-PSGD


def test_ad_psgd_steps_along_the_gradient_of_the_copy():
    plan = push_gossip(GRAPH, 20.0, compute=CLOCK, gossip=1.0, two_way=True, seed=1)
    x, begun = dict(enumerate(X0)), dict(enumerate(X0))
    delayed = 0
    for i, ends in zip(plan.xs["nodes"][:, 0], plan.xs["senders"], strict=True):
        if i < N:
            delayed += bool(np.abs(begun[i] - x[i]).max() > 1e-3)
            x[i] = x[i] - RATE * gradient(i, begun[i])
            begun[i] = x[i]
        else:
            a, b = ends
            x[a] = x[b] = (x[a] + x[b]) / 2
    assert delayed > 20
    np.testing.assert_allclose(models(ad_psgd(TASK, SGD), plan), [x[i] for i in range(N)], **CLOSE)


def test_ad_psgd_takes_copies_where_the_timeline_says():
    """Node 0 begins at event 0, nodes 1 and 2 average, and node 0 ends at event 2 with the gradient of the start."""
    nobody = [NOBODY, NOBODY]
    xs = {
        "time": np.arange(4.0),
        "nodes": np.array([[NOBODY], [NOBODY], [0], [0]]),
        "begin": np.array([[0], [NOBODY], [NOBODY], [NOBODY]]),
        "senders": np.array([nobody, [0, 1], nobody, nobody]),
        "receivers": np.array([nobody, [1, 0], nobody, nobody]),
        "weights": np.full((4, 2), 0.5),
        "keep": np.full((4, 2), 0.5),
    }
    method = ad_psgd(TASK, SGD)
    plan, state = from_events(xs, Properties(N, N, "by hand")), method.init(KEY, jnp.asarray(X0))
    state = jax.jit(loop.run)(KEY, method, plan, state)[0][0]
    expected = X0.copy()
    expected[:2] = X0[:2].mean(0)
    expected[0] -= 2 * RATE * gradient(0, X0[0])  # the copy is kept until the node begins anew
    np.testing.assert_allclose(state.x, expected, **CLOSE)
    np.testing.assert_array_equal(state.snapshot, X0)


def test_one_step_of_fedbuff_has_no_momentum():
    plan = fedbuff(N, 20.0, concurrency=3, train_time=CLOCK, buffer_size=2, seed=0)
    heavy = protocol.fedbuff(TASK, optax.sgd(RATE, momentum=0.9))
    np.testing.assert_allclose(models(heavy, plan, X0[:1]), models(protocol.fedbuff(TASK, SGD), plan, X0[:1]), **CLOSE)


def test_nobody_changes_nothing():
    event = Event(
        index=jnp.zeros(1, jnp.uint32), time=jnp.zeros(1), nodes=jnp.full(1, NOBODY), rows=jnp.full(1, NOBODY)
    )
    whole = GroupMixing(jnp.full((1, 2), NOBODY), jnp.zeros((1, 2)), jnp.full((1, 1), NOBODY))
    fragments = whole._replace(parts=jnp.full((1, 2), -1))
    methods = [
        (ad_psgd(TASK, SGD), whole),
        (protocol.sgp(TASK, SGD), whole),
        (protocol.dpsgd(TASK, SGD, sharing=sharing.fragments(2)), fragments),
        (protocol.fedbuff(TASK, SGD), whole),
    ]
    for method, group in methods:
        before = method.init(KEY, jnp.asarray(X0))
        after, info = jax.jit(method.step)(KEY, before, event._replace(mixing=group))
        jax.tree.map(np.testing.assert_array_equal, before, after)
        assert info.finite is not None
        assert bool(info.finite.all())


# Push-sum and SGP


@pytest.mark.parametrize("learns", [False, True])
def test_push_sum_rounds(learns):
    """Two directed matrices in turn: numerators and weights by NumPy, and the exact mean without gradients."""
    cycle = [column_stochastic(DIGRAPH).toarray(), column_stochastic(topology.one_peer_exponential(N)[0]).toarray()]
    plan = rounds(cycle, 60, stochastic="column")
    assert "column_stochastic" in plan.properties
    method = protocol.sgp(TASK, SGD) if learns else protocol.push_sum()
    state = loop.run(KEY, method, plan, method.init(KEY, jnp.asarray(X0)))[0][0]
    x, w = X0.copy(), np.ones(N)
    for t in range(60):
        if learns:
            x = x - RATE * CURVATURE * (x / w[:, None] - TARGETS)
        x, w = cycle[t % 2] @ x, cycle[t % 2] @ w
    np.testing.assert_allclose(state.x, x, **CLOSE)
    np.testing.assert_allclose(state.w, w, **CLOSE)
    np.testing.assert_allclose(method.model(state), x / w[:, None], **CLOSE)
    if not learns:  # contraction by the second eigenvalue, 0.7, sixty times
        np.testing.assert_allclose(method.model(state), np.broadcast_to(X0.mean(0), X0.shape), rtol=0, atol=1e-7)


def test_sgp_on_the_one_peer_exponential_graph():
    """The rounds of the paper: with n a power of two, log n rounds of push-sum are the exact mean."""
    cycle = [column_stochastic(graph).toarray() for graph in topology.one_peer_exponential(N)]
    plan = rounds(cycle, 3, stochastic="column")
    method = protocol.push_sum()
    state = loop.run(KEY, method, plan, method.init(KEY, jnp.asarray(X0)))[0][0]
    np.testing.assert_allclose(method.model(state), np.broadcast_to(X0.mean(0), X0.shape), **CLOSE)


@pytest.mark.parametrize("latency", [None, 0.4])
@pytest.mark.parametrize("drop", [0.0, 0.3])
def test_sgp_with_messages_in_flight(latency, drop):
    plan = directed_push(DIGRAPH, 12.0, compute=CLOCK, send=1.5, latency=latency, drop=drop, seed=3)
    updates, sends, targets, network = np.random.default_rng(3).spawn(4)
    heap = [(t, 2, k, int(i)) for k, (t, i) in enumerate(zip(*clocks.ticks(CLOCK, N, 12.0, updates), strict=True))]
    times, senders = clocks.ticks(clocks.poisson(1.5), N, 12.0, sends)
    receivers = uniform_peers(DIGRAPH, targets, senders)
    lost = network.random(times.size) < drop
    heap += [(t, 0, k, int(i)) for k, (t, i) in enumerate(zip(times, senders, strict=True))]
    heapq.heapify(heap)
    x, w = dict(enumerate(X0)), dict.fromkeys(range(N), 1.0)
    flying = {}
    while heap:
        now, kind, number, i = heapq.heappop(heap)
        if kind == 2:
            x[i] = x[i] - RATE * gradient(i, x[i] / w[i])
        elif kind == 0:
            x[i], w[i] = x[i] / 2, w[i] / 2
            if not lost[number]:
                flying[number] = x[i], w[i]
                heapq.heappush(heap, (now + (latency or 0.0), 1, number, int(receivers[number])))
        elif now < 12.0:
            mass, weight = flying.pop(number)
            x[i], w[i] = x[i] + mass, w[i] + weight
    state = final_state(protocol.sgp(TASK, SGD), plan)
    np.testing.assert_allclose(state.x[:N], [x[i] for i in range(N)], **CLOSE)
    np.testing.assert_allclose(state.w[:N], [w[i] for i in range(N)], **CLOSE)
    whole = sum(w.values()) + sum(weight for _, weight in flying.values())
    assert (abs(whole - N) < 1e-12) == (drop == 0.0)


@given(
    latency=st.one_of(st.none(), st.floats(0.0, 5.0)),
    rate=st.floats(0.1, 3.0),
    drop=st.sampled_from([0.0, 0.2]),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=40, deadline=None)
def test_mass_is_conserved_by_the_plan(latency, rate, drop, seed):
    """Nodes and messages in flight weigh n together after every event; each lost message takes its own weight along."""
    try:
        plan = directed_push(DIGRAPH, 10.0, compute=None, send=rate, latency=latency, drop=drop, seed=seed)
    except ValueError as error:
        assert "no event" in str(error)  # noqa: PT017
        return
    facts = plan.properties
    w = np.concatenate([np.ones(N), np.full(facts.num_slots, np.nan)])
    live, arrived = set(), 0
    for event in range(len(plan)):
        senders, receivers, weights, keep = (
            plan.xs[name][event] for name in ("senders", "receivers", "weights", "keep")
        )
        happens = np.flatnonzero((senders < NOBODY) & (receivers < NOBODY))
        own = np.where(keep[happens] == 0.0, 0.0, keep[happens] * w[receivers[happens]])
        new = own + np.where(weights[happens] == 0.0, 0.0, weights[happens] * w[senders[happens]])
        for s, r in zip(senders[happens], receivers[happens], strict=True):
            assert (s < N) or s in live
            if r >= N:
                assert r not in live
                live.add(r)
            elif s >= N:
                live.remove(s)
            arrived += r < N and r != s
        w[receivers[happens]] = new
        if drop == 0.0:
            assert abs(w[:N].sum() + sum(w[r] for r in live) - N) < 1e-12
    assert len(live) == (0 if latency is None else facts.traffic.in_flight)
    assert arrived == facts.traffic.delivered
    assert facts.traffic.sent == facts.traffic.delivered + facts.traffic.in_flight + facts.traffic.dropped
    if facts.traffic.dropped:
        assert w[:N].sum() + sum(w[r] for r in live) < N - 1e-6


# Bad input


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: gossip_learning(N, 5.0, period=1.0, mode="shout", seed=0), "shout"),
        (lambda: gossip_learning(N, 5.0, period=1.0, mode="pull", tokens=3, seed=0), "with tokens"),
        (lambda: gossip_learning(N, 5.0, period=1.0, jitter=2.0, seed=0), "jitter=2.0"),
        (lambda: gossip_learning(N, 5.0, period=1.0, tokens=RandomizedTokens(4, 2), seed=0), "no less than spend"),
        (lambda: random_walks(DIGRAPH, 5, num_walks=1, service=1.0, seed=0), "which is directed: pass 'uniform'"),
        (lambda: random_walks(GRAPH, num_walks=1, service=1.0, seed=0), "exactly one of"),
        (lambda: swift(DIGRAPH, 5.0, compute=CLOCK, seed=0), "directed"),
        (lambda: swift(GRAPH, 5.0, compute=CLOCK, weights=np.full((N, N), 1 / N), seed=0), "off the edges"),
        (lambda: swift(GRAPH, 5.0, compute=CLOCK, period=0, seed=0), "period=0"),
        (lambda: fedbuff(N, 5.0, concurrency=N + 1, train_time=CLOCK, buffer_size=1, seed=0), "concurrency=9"),
        (lambda: fedbuff(N, 5.0, concurrency=2, train_time=CLOCK, buffer_size=0, seed=0), "buffer_size=0"),
        (
            lambda: divshare(
                N, 5.0, compute=CLOCK, num_fragments=2, recipients=N, uplink_messages_per_second=1.0, seed=0
            ),
            "recipients=8",
        ),
        (lambda: protocol.gossip_learning(TASK, SGD, merge="newest"), "newest"),
        (lambda: directed_push(topology.star(3), 5.0, compute=None, send=1.0, drop=1.5, seed=0), "drop=1.5"),
        (lambda: rounds(uniform(GRAPH), 3, stochastic="column"), "column"),
    ],
)
def test_bad_input_is_named(make, match):
    # An annotation may refuse a value before the function can say why.
    with pytest.raises(Exception, match=match):
        make()
