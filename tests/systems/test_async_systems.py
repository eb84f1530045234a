"""Walks, SWIFT, DivShare and FedBuff against the published algorithms, run with plain objects and a heap."""

import collections
import heapq

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import X0, D, N
from replay import CLOCK, CLOSE, GRAPH, KEY, SGD, TASK, models, step

from gossipjax import protocol, replicate, sharing, simulate, topology, with_slots
from gossipjax.mixing._apply import GroupMixing
from gossipjax.sharing._fragments import cut_at_random, mix_parts
from gossipjax.timeline import (
    clocks,
    divshare,
    fedbuff,
    random_walks,
    swift,
    swift_weights,
)
from gossipjax.types import NOBODY

# Random walks


@pytest.mark.parametrize("transition", ["metropolis", "uniform"])
@pytest.mark.parametrize("mixing", [False, True])
def test_random_walks(transition, mixing):
    walks = 3
    plan = random_walks(
        GRAPH, 150, num_walks=walks, service=CLOCK, transition=transition, mix_on_arrival=mixing, seed=4
    )
    moves, times = np.random.default_rng(4).spawn(2)
    degrees = GRAPH.degrees
    queues, left = collections.defaultdict(collections.deque), {}
    y, heap, messages = dict(enumerate(X0[:walks])), [], 0

    def serve(node, now):
        heapq.heappush(heap, (now + CLOCK.shift[node] + CLOCK.mean_extra[node] * times.exponential(), node))

    for walk, node in enumerate(moves.integers(N, size=walks).tolist()):
        queues[node].append(walk)
        if len(queues[node]) == 1:
            serve(node, 0.0)
    for _ in range(150):
        now, v = heapq.heappop(heap)
        u = int(GRAPH.neighbors(v)[moves.integers(degrees[v])])
        if transition == "metropolis" and moves.random() >= degrees[v] / degrees[u]:
            u = v
        r = queues[v].popleft()
        y[r] = step(v, y[r])
        left[v] = r, y[r]
        messages += u != v
        if queues[v]:
            serve(v, now)
        queues[u].append(r)
        if len(queues[u]) == 1:
            serve(u, now)
        if mixing and u != v and u in left and left[u][0] != r:
            y[r] = (y[r] + left[u][1]) / 2
    found = models(protocol.random_walk(TASK, SGD), plan, X0[:walks])
    np.testing.assert_allclose(found, [y[r] for r in range(walks)], **CLOSE)
    assert plan.xs["messages"].sum() == messages


def test_metropolis_walks_stay_uniform():
    """Started uniformly, the sixth visit is uniform too; by plain transitions it is not."""
    for transition, fits in (("metropolis", True), ("uniform", False)):
        plan = random_walks(GRAPH, 32_000, num_walks=2000, service=1.0, transition=transition, seed=9)
        nodes, rows = plan.xs["nodes"][:, 0], plan.xs["rows"][:, 0]
        order = np.argsort(rows, kind="stable")
        counts = np.bincount(rows, minlength=2000)
        assert counts.min() >= 6
        sixth = nodes[order[np.cumsum(counts) - counts + 5]]
        chi2 = np.sum((np.bincount(sixth, minlength=N) - 250.0) ** 2 / 250.0)
        z = (chi2 - (N - 1)) / np.sqrt(2 * (N - 1))
        assert (abs(z) < 4) == fits


# SWIFT


def undirected(n, edges):
    ends = np.array(edges)
    senders, receivers = np.concatenate([ends, ends[:, ::-1]]).T
    return topology.Topology(n, senders, receivers, directed=False, name="by hand")


@pytest.mark.parametrize("period", [1, 3])
@pytest.mark.parametrize("delayed", [False, True])
def test_swift(period, delayed):
    latency = np.random.default_rng(0).uniform(0.1, 2.0, (N, N)) if delayed else None
    plan = swift(GRAPH, 12.0, compute=CLOCK, period=period, latency=latency, seed=6)
    W = swift_weights(GRAPH).toarray()
    ticks = clocks.ticks(CLOCK, N, 12.0, np.random.default_rng(6).spawn(2)[0])
    heap = [(t, 1, k, int(i), None, None) for k, (t, i) in enumerate(zip(*ticks, strict=True))]
    heapq.heapify(heap)
    x, count, sent = dict(enumerate(X0)), collections.Counter(), 0
    mailbox = collections.defaultdict(dict)
    while heap:
        now, kind, number, i, sender, model = heapq.heappop(heap)
        if kind == 0:
            if number > mailbox[i].get(sender, (-1, None))[0]:  # an older one that comes late is not newer
                mailbox[i][sender] = number, model
            continue
        x[i] = step(i, x[i])
        for j in GRAPH.neighbors(i).tolist():
            sent += 1
            heapq.heappush(heap, (now + (latency[i, j] if delayed else 0.0), 0, number, j, i, x[i]))
        count[i] += 1
        if count[i] % period == 0:
            own = 1.0 - sum(W[i, j] for j in mailbox[i])
            x[i] = own * x[i] + sum(W[i, j] * model for j, (_, model) in mailbox[i].items())
    np.testing.assert_allclose(models(protocol.swift(TASK, SGD), plan), [x[i] for i in range(N)], **CLOSE)
    assert plan.xs["messages"].sum() == sent


def test_swift_weights_by_hand():
    star = swift_weights(topology.star(5)).toarray()
    np.testing.assert_allclose(star[0], 0.2, **CLOSE)  # the centre gives 1/(deg + 1) to all
    np.testing.assert_allclose(np.diag(star)[1:], 0.8, **CLOSE)
    np.testing.assert_allclose(swift_weights(topology.ring(7)).toarray()[0, [0, 1, 6]], 1 / 3, **CLOSE)
    # A path of four with one more leaf at node 1, which gives 1/4 to all: 2 gives (1 − 1/4)/2 to itself and to 3.
    tree = undirected(5, [(0, 1), (1, 2), (2, 3), (1, 4)])
    W = swift_weights(tree).toarray()
    np.testing.assert_allclose(W[2], [0, 0.25, 0.375, 0.375, 0], **CLOSE)
    np.testing.assert_allclose(W[3], [0, 0, 0.375, 0.625, 0], **CLOSE)


@given(n=st.integers(4, 40), degree=st.integers(1, 3), seed=st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_swift_weights_are_doubly_stochastic(n, degree, seed):
    graph = topology.barabasi_albert(n, degree, seed=seed)
    try:
        W = swift_weights(graph).toarray()
    except ValueError as error:
        assert "weights above 1 in sum" in str(error)  # noqa: PT017
        return
    np.testing.assert_array_equal(W, W.T)
    np.testing.assert_allclose(W.sum(1), 1.0, rtol=0, atol=1e-12)
    assert (W >= 0).all()
    assert ((W > 0) | np.eye(n, dtype=bool)).sum() == 2 * graph.num_edges + n


# DivShare


def uplinks(times, nodes, chances, order, speed):
    """What leaves in 12 seconds: when, at which tick it was cut, its fragment and its receiver."""
    leaving, (F, J) = [], (2, 3)
    for k, (now, i) in enumerate(zip(times, nodes, strict=True)):
        own = [t for t in times[nodes == i] if t > now]
        pairs, others = [], [j for j in range(N) if j != i]
        for f in range(F):
            pairs += [(f, others[c]) for c in np.argpartition(chances[k, f], J - 1)[:J]]
        for place, pair in enumerate(order[k]):
            done = now + (place + 1) / speed[i]
            if done <= (own[0] if own else 12.0):
                leaving.append((done, k, *pairs[pair]))
    return sorted(leaving)


@pytest.mark.parametrize(("latency", "drop"), [(None, 0.0), (0.7, 0.2)])
def test_divshare(latency, drop):
    F, J, speed = 2, 3, np.linspace(3.0, 9.0, N)
    plan = divshare(
        N,
        12.0,
        compute=CLOCK,
        num_fragments=F,
        recipients=J,
        uplink_messages_per_second=speed,
        latency=latency,
        drop=drop,
        seed=8,
    )
    method = protocol.dpsgd(TASK, SGD, local_steps=2, sharing=sharing.fragments(F, seed=1))
    fragment = cut_at_random(jax.ShapeDtypeStruct((3,), jnp.float32), F, 1)
    assert sorted(np.bincount(fragment)) == [1, 2]  # three coordinates
    of_ticks, of_recipients, of_network = np.random.default_rng(8).spawn(3)
    times, nodes = clocks.ticks(CLOCK, N, 12.0, of_ticks)
    chances = of_recipients.random((times.size, F, N - 1))
    order = of_recipients.permuted(np.broadcast_to(np.arange(F * J), (times.size, F * J)), axis=1)
    leaving = uplinks(times, nodes, chances, order, speed)
    total = len(leaving)
    lost = of_network.random(total) < drop
    heap = [(t, 1, k, None) for k, t in enumerate(times)]
    for number, (done, k, f, j) in enumerate(leaving):
        if not lost[number]:
            heap.append((done + (latency or 0.0), 0, number, (k, f, j)))
    heapq.heapify(heap)
    x, cut, inbox = dict(enumerate(X0)), {}, collections.defaultdict(dict)
    while heap:
        now, kind, k, what = heapq.heappop(heap)
        if kind == 0 and now < 12.0:
            tick, f, j = what
            inbox[j][nodes[tick], f] = cut[tick]
        elif kind == 1:
            i = nodes[k]
            x[i] = cut[k] = step(i, x[i], steps=2)
            new = x[i].copy()
            for c in range(D):
                heard = [y[c] for (_, f), y in inbox[i].items() if f == fragment[c]]
                new[c] = (x[i][c] + sum(heard)) / (1 + len(heard))
            x[i] = new
            inbox[i].clear()
    np.testing.assert_allclose(models(method, plan), [x[i] for i in range(N)], **CLOSE)
    traffic = plan.properties.traffic
    assert plan.xs["messages"].sum() == traffic.sent == total < times.size * F * J
    assert traffic.dropped == lost.sum()
    assert traffic.delivered > 20


def test_mix_parts_by_hand():
    x = {"a": jnp.arange(6.0).reshape(3, 2), "b": jnp.array([[10.0], [20.0], [30.0]])}
    fragment = {"a": jnp.array([0, 1]), "b": jnp.array([1])}
    mixing = GroupMixing(
        members=jnp.array([[0, 1, 2, NOBODY]]),
        weights=jnp.array([[1.0, 1.0, 1.0, 0.0]]),
        targets=jnp.array([[0]]),
        parts=jnp.array([[-1, 0, 0, -1]]),
    )
    mixed = mix_parts(mixing, x, fragment)
    np.testing.assert_allclose(mixed["a"], [[2.0, 1.0], [2.0, 3.0], [4.0, 5.0]])
    np.testing.assert_allclose(mixed["b"], x["b"])  # nobody gave fragment 1
    with pytest.raises(ValueError, match="GroupMixing parts"):
        mix_parts(mixing._replace(parts=None), x, fragment)


# FedBuff


@pytest.mark.parametrize(("concurrency", "size", "limit"), [(4, 3, None), (6, 1, None), (8, 2, 3), (1, 1, None)])
def test_fedbuff(concurrency, size, limit):
    eta, duration = 0.7, 25.0
    plan = fedbuff(
        N,
        duration,
        concurrency=concurrency,
        train_time=CLOCK,
        buffer_size=size,
        server_lr=eta,
        max_staleness=limit,
        seed=7,
    )
    clients, times = np.random.default_rng(7).spawn(2)
    idle, heap = clients.permutation(N).tolist(), []
    x, version, buffer, stale = X0[0], 0, [], 0

    def fetch(now, place):
        at = int(clients.integers(len(idle)))
        idle[at], idle[-1] = idle[-1], idle[at]
        i = idle.pop()
        seconds = CLOCK.shift[i] + CLOCK.mean_extra[i] * times.exponential()
        heapq.heappush(heap, (now + seconds, place, i, version, x))

    for place in range(concurrency):
        fetch(0.0, place)
    returned = 0
    while heap[0][0] < duration:
        now, place, i, start, fetched = heapq.heappop(heap)
        returned += 1
        change = fetched - step(i, fetched, steps=2)
        if limit is None or version - start <= limit:
            buffer.append((1 + version - start) ** -0.5 * change)
        else:
            stale += 1
        if len(buffer) == size:
            x, version, buffer = x - eta * sum(buffer) / size, version + 1, []
        idle.append(i)
        fetch(now, place)
    found = models(protocol.fedbuff(TASK, SGD, local_steps=2), plan, X0[:1], idle=0.0)  # the buffer is empty
    np.testing.assert_allclose(found[0], x, **CLOSE)
    assert plan.properties.traffic.dropped == stale
    assert (stale > 0) == (limit is not None)
    assert plan.xs["messages"].sum() == 2 * returned + concurrency


def test_observers_see_the_server_alone():
    """Through simulate: one model row, and the messages that the plan counts."""
    plan = fedbuff(N, 5.0, concurrency=3, train_time=CLOCK, buffer_size=2, seed=1)
    run = simulate(KEY, protocol.fedbuff(TASK, SGD), plan, replicate(jnp.asarray(X0[0]), 1))
    assert run.dataset.messages_sent.values[-1] == plan.xs["messages"].sum()
    assert with_slots(jnp.asarray(X0[:1]), plan.properties).shape == (6, D)


def test_metronomes_send_what_fits():
    """Rounds of 2 s at 4.6 fragments a second: 9 of the 12 that queue leave; 8 clients of 2 s return 8 times each."""
    clock = clocks.deterministic(2.0)
    settings = {"compute": clock, "num_fragments": 4, "recipients": 3, "seed": 0}
    plan = divshare(N, 40.0, uplink_messages_per_second=4.6, **settings)
    messages = [plan.xs["messages"][plan.xs["nodes"] == i] for i in range(N)]
    assert all((sent[:-1] == 9).all() for sent in messages)  # the last round is cut short by the end
    fast = divshare(N, 40.0, uplink_messages_per_second=100.0, **settings)
    assert all((fast.xs["messages"][fast.xs["nodes"] == i][:-1] == 12).all() for i in range(N))
    returns = fedbuff(N, 17.0, concurrency=N, train_time=clock, buffer_size=3, seed=0).xs["nodes"]
    assert (np.bincount(returns[returns < N], minlength=N) == 8).all()
