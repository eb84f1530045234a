"""Gossip learning against the algorithms of 2013 and 2019, run with objects, a heap and the same random numbers."""

import copy
import heapq

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from problems import TARGETS, X0, D, N, exact_quadratic
from replay import CLOCK, CLOSE, GRAPH, KEY, SGD, TASK, final_state, step

from gossipjax import protocol, simulate
from gossipjax.mixing import uniform
from gossipjax.timeline import (
    RandomizedTokens,
    clocks,
    gossip_learning,
    push_gossip,
    rounds,
)


class Node:
    def __init__(self, x):
        self.model, self.last, self.tokens = (x, 0), None, 0


def merged(first, second, by_age):
    (w, t), (w_r, t_r) = first, second
    a = t_r / (t_r + t) if by_age and t_r + t else 0.5
    return (1 - a) * w + a * w_r, max(t, t_r)


def updated(node, model):
    return step(node, model[0]), model[1] + 1


def created(nodes, j, m, create, merge, by_age):
    """CREATEMODEL of the 2013 paper; the model merged with is the last received, or the local one."""
    node = nodes[j]
    other = node.last if merge == "last_received" and node.last is not None else node.model
    node.last = m
    if create == "random_walk":
        return updated(j, m)
    if create == "merge_update":
        return updated(j, merged(other, m, by_age))
    return merged(updated(j, other), updated(j, m), by_age)


class Network:
    """Gossip learning with objects: a heap of messages that carry models."""

    def __init__(self, mode, create, merge, latency, drop, tokens, by_age, seed):
        self.mode, self.create, self.merge, self.latency = mode, create, merge, latency
        self.drop, self.tokens, self.by_age = drop, tokens, by_age
        self.timers, self.targets, self.network, self.chance = np.random.default_rng(seed).spawn(4)
        self.nodes = [Node(x) for x in X0]
        self.heap, self.number, self.sent = [], 0, 0

    def peer(self, i):
        other = int(self.targets.integers(N - 1))
        return other + (other >= i)

    def send(self, now, kind, i, j, duration):
        self.number += 1
        self.sent += kind != "request"
        lost = self.drop > 0 and self.network.random() < self.drop
        way = 0.0 if self.latency is None else self.latency(self.network, 1)[0]
        if lost:
            return
        message = (now + way, self.number, kind, i, j, copy.copy(self.nodes[i].model))
        if self.latency is None and not self.tokens:
            self.receive(message, duration)
        elif now + way < duration:
            heapq.heappush(self.heap, message)

    def receive(self, message, duration):
        now, _, kind, i, j, model = message
        node = self.nodes[j]
        useful = model[1] >= node.model[1]
        if kind != "request":
            node.model = created(self.nodes, j, model, self.create, self.merge, self.by_age)
        if kind in ("request", "push_pull"):
            self.send(now, "reply", j, i, duration)
        elif self.tokens:
            count = int(self.reactive(node.tokens, useful) + self.chance.random())
            node.tokens -= count
            for _ in range(count):
                self.send(now, "push", j, self.peer(j), duration)

    def reactive(self, a, useful):
        A, _ = self.tokens
        return a / A if useful else a / (2 * A)

    def proactive(self, a):
        A, C = self.tokens
        return 0.0 if a < A - 1 else (a - A + 1) / (C - A + 1)

    def run(self, duration, period, jitter):
        clock = clocks.renewal(lambda rng, shape: np.maximum(1.0 + jitter * rng.standard_normal(shape), 1e-3), 1.0)
        for now, i in zip(*clocks.ticks(clocks.slowed(clock, period), N, duration, self.timers), strict=True):
            self.drain(now, duration)
            if self.tokens and self.chance.random() >= self.proactive(self.nodes[i].tokens):
                self.nodes[i].tokens += 1
                continue
            kind = "request" if self.mode == "pull" else self.mode
            self.send(now, kind, int(i), self.peer(i), duration)
        self.drain(duration, duration)

    def drain(self, now, duration):
        while self.heap and self.heap[0][0] <= now:
            self.receive(heapq.heappop(self.heap), duration)


def uniform_delay(rng, size):
    return rng.uniform(0.9, 1.1, size)


@pytest.mark.parametrize(
    ("mode", "create", "merge", "latency", "drop", "tokens"),
    [
        ("push", "merge_update", "local", None, 0.0, None),
        ("push", "merge_update", "local", uniform_delay, 0.2, None),
        ("push", "merge_update", "last_received", None, 0.1, None),
        ("push", "merge_update", "last_received", uniform_delay, 0.0, None),
        ("push", "update_merge", "local", None, 0.0, None),
        ("push", "update_merge", "last_received", uniform_delay, 0.1, None),
        ("push", "random_walk", "local", uniform_delay, 0.0, None),
        ("push", "random_walk", "last_received", None, 0.0, None),
        ("pull", "merge_update", "local", None, 0.2, None),
        ("pull", "update_merge", "local", uniform_delay, 0.2, None),
        ("push_pull", "merge_update", "local", None, 0.0, None),
        ("push_pull", "merge_update", "last_received", uniform_delay, 0.1, None),
        ("push", "merge_update", "local", uniform_delay, 0.0, (2, 5)),
        ("push", "random_walk", "local", None, 0.0, (1, 3)),
    ],
)
@pytest.mark.parametrize("by_age", [False, True])
def test_gossip_learning(mode, create, merge, latency, drop, tokens, by_age):
    duration, period = 12.0, np.linspace(0.8, 1.4, N)
    plan = gossip_learning(
        N,
        duration,
        period=period,
        mode=mode,
        create=create,
        merge=merge,
        latency=latency,
        drop=drop,
        tokens=None if tokens is None else RandomizedTokens(*tokens),
        seed=11,
    )
    network = Network(mode, create, merge, latency, drop, tokens, by_age, seed=11)
    network.run(duration, period, 0.1)
    state = final_state(protocol.gossip_learning(TASK, SGD, merge="age" if by_age else "average"), plan)
    np.testing.assert_allclose(state.x[:N], [node.model[0] for node in network.nodes], **CLOSE)
    np.testing.assert_array_equal(state.age[:N], [node.model[1] for node in network.nodes])
    assert plan.xs["messages"].sum() == plan.properties.traffic.sent == network.sent > 20


def test_simple_tokens_and_updates_scaled_by_age():
    """A full account sends, a received message spends one token; Pegasos' steps 1/t make the walk a running mean."""
    plan = gossip_learning(N, 20.0, period=1.0, create="random_walk", latency=0.5, tokens=3, seed=2)
    # Every timer either sends or saves a token, and every other message costs one that was saved.
    timers = clocks.ticks(
        clocks.renewal(lambda rng, shape: np.maximum(1.0 + 0.1 * rng.standard_normal(shape), 1e-3), 1.0),
        N,
        20.0,
        np.random.default_rng(2).spawn(4)[0],
    )[0].size
    assert 0 <= timers - plan.properties.traffic.sent <= 3 * N
    task = exact_quadratic(curvature=np.ones((N, D)))
    method = protocol.gossip_learning(task, optax.sgd(1.0), scale=lambda age: 1 / age)
    state = final_state(method, plan)
    # A walk with steps 1/t over x − b is the mean of the b on its way: within their range, all from the first step on.
    visited = np.asarray(state.age[:N]) > 0
    assert visited.all()
    assert (np.asarray(state.x[:N]) <= TARGETS.max(0) + 1e-12).all()
    assert (np.asarray(state.x[:N]) >= TARGETS.min(0) - 1e-12).all()


def test_gossip_learning_works_on_pairs_but_not_on_rounds():
    method = protocol.gossip_learning(TASK, SGD, merge="age")
    plan = push_gossip(GRAPH, 12.0, compute=CLOCK, gossip=1.0, weight=0.3, seed=1)
    x, age = dict(enumerate(X0)), dict.fromkeys(range(N), 0)
    for i, (s,), (r,) in zip(plan.xs["nodes"][:, 0], plan.xs["senders"], plan.xs["receivers"], strict=True):
        if i < N:
            x[i], age[i] = step(i, x[i]), age[i] + 1
        else:
            a = age[s] / (age[s] + age[r]) if age[s] + age[r] else 0.3
            x[r], age[r] = (1 - a) * x[r] + a * x[s], max(age[s], age[r])
    state = final_state(method, plan)
    np.testing.assert_allclose(state.x[:N], [x[i] for i in range(N)], **CLOSE)
    with pytest.raises(ValueError, match="one received model at a time"):
        simulate(KEY, method, rounds(uniform(GRAPH), 3), jnp.asarray(X0))
