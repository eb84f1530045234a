"""Messages that are not whole models, at meetings and in flight: against a replay in NumPy, event by event."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gossipjax import Properties, gossip_averaging, push_sum, simulate, timeline, track_versions
from gossipjax._base.streams import STEPS
from gossipjax.compress import codes, qsgd
from gossipjax.compress._compressor import STREAM
from gossipjax.sharing import compressed, fragments, random_subset, top_k
from gossipjax.sharing._fragments import cut_at_random
from gossipjax.topology import barabasi_albert
from gossipjax.types import NOBODY

N, D = 6, 5
KEY, GRAPH = jax.random.key(4), barabasi_albert(N, 2, seed=1)
CLOCK = timeline.clocks.shifted_exponential(0.2, 0.6)
X0 = np.random.default_rng(3).standard_normal((N, D))

PLANS = {
    "flights, some lost": lambda: timeline.push_gossip(
        GRAPH, 9.0, compute=CLOCK, gossip=1.0, latency=0.3, drop=0.2, seed=0
    ),
    "pushes, some lost": lambda: timeline.push_gossip(GRAPH, 9.0, compute=CLOCK, gossip=1.0, drop=0.3, seed=0),
    "exchanges": lambda: timeline.push_gossip(GRAPH, 9.0, compute=CLOCK, gossip=1.0, two_way=True, seed=0),
    "requests and replies": lambda: timeline.pairwise(
        GRAPH, 9.0, compute=CLOCK, communicate=1.0, atomic=False, latency=0.2, seed=0
    ),
    "gossip learning": lambda: timeline.gossip_learning(
        GRAPH, 9.0, period=1.0, latency=0.3, drop=0.2, merge="last_received", seed=0
    ),
    "gossip learning at once": lambda: timeline.gossip_learning(GRAPH, 9.0, period=1.0, drop=0.2, seed=0),
    "mailboxes": lambda: timeline.swift(GRAPH, 5.0, compute=CLOCK, latency=0.2, seed=0),
}
SHARE, GAMMA, K, F = 0.5, 0.7, 2, 2
QUICK = ("flights, some lost", "requests and replies", "mailboxes")
EACH_PLAN = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in PLANS]


@functools.cache
def planned(name):
    return PLANS[name]()


class Subset:
    """Random coordinates, drawn with the row's number and its count of messages."""

    sharing = random_subset(SHARE)

    def __init__(self, key):
        self.key, self.count = jax.random.fold_in(key, STREAM), np.zeros(N, np.int64)

    def stream(self, row):
        return jax.random.fold_in(jax.random.fold_in(self.key, row), int(self.count[row]))

    def say(self, row, x):
        return x, np.asarray(jax.random.bernoulli(self.stream(row), jnp.float32(SHARE), (D,)))

    def bits(self, mask):
        return 64 * mask.sum() + 64

    def read(self, row, own, values, mask):
        return np.where(mask, values, own)

    def end(self, speakers, receivers, x):
        self.count[speakers] += 1


class Fragment(Subset):
    sharing = fragments(F, seed=2)
    of = cut_at_random(jax.ShapeDtypeStruct((D,), jnp.float64), F, 2)

    def say(self, row, x):
        return x, self.of == int(jax.random.randint(self.stream(row), (), 0, F, jnp.int32))

    def bits(self, mask):
        return 64 * mask.sum()


class Quantized(Subset):
    sharing = compressed(qsgd(3), GAMMA)

    def say(self, row, x):
        return np.asarray(qsgd(3).apply(self.stream(row), jnp.asarray(x))[0]), np.ones(D, bool)

    def bits(self, mask):
        return 64 + D * (1 + 2)

    def read(self, row, own, values, mask):
        return own + GAMMA * (values - self.say(row, own)[0])

    def end(self, speakers, receivers, x):
        self.count[sorted({*speakers, *receivers})] += 1


class Largest(Subset):
    """The coordinates whose change since the last message is largest, as in JWINS."""

    sharing = top_k(K / D, wire=codes.Wire(indices=codes.int32_indices))

    def __init__(self, key):
        super().__init__(key)
        self.start, self.scores = X0.copy(), np.zeros((N, D))

    def say(self, row, x):
        score = np.abs(self.scores[row] + x - self.start[row])
        mask = np.zeros(D, bool)
        mask[np.argsort(-score, kind="stable")[:K]] = True
        self.scores[row] = np.where(mask, 0, self.scores[row])
        return x, mask

    def bits(self, mask):
        return K * (64 + 32)

    def end(self, speakers, receivers, x):
        for row in speakers:
            self.scores[row] += x[row] - self.start[row]
            self.start[row] = x[row]


SAYINGS = [Subset, Fragment, Quantized, Largest]


def transfers(field, rows):
    """Of each written row: what it keeps, and its members with their weights."""
    if "members" in field:
        for members, weights, targets in zip(field["members"], field["weights"], field["targets"], strict=True):
            given = [(int(m), w) for m, w in zip(members, weights, strict=True) if m < rows and w]
            yield from ((int(target), 0.0, given) for target in targets if target < rows)
        return
    lanes = (field[name] for name in ("senders", "receivers", "weights", "keep"))
    for sender, receiver, weight, keep in zip(*lanes, strict=True):
        if sender < rows and receiver < rows:
            yield int(receiver), keep, [(int(sender), weight)]


def who_speaks(field, rows):
    """The rows that send, and how many messages each."""
    if "messages" not in field:
        return [(int(s), 1) for s, r in zip(field["senders"], field["receivers"], strict=True) if s < rows and r < rows]
    lanes = field.get("speakers", field.get("senders"))
    return [(int(row), int(count)) for row, count in zip(lanes, field["messages"], strict=True) if count]


def replay(plan, saying):
    """Models after all events, and the bits that were sent."""
    facts, shared = plan.properties, {name: np.asarray(array) for name, array in plan.shared.items()}
    rows, bits = facts.num_rows + facts.num_slots, 0
    x, masks = np.zeros((rows, D)), np.ones((rows, D), bool)
    x[:N] = X0
    for t in range(len(plan)):
        field = shared | {name: array[t] for name, array in plan.xs.items()}
        speakers = who_speaks(field, rows)
        said = {row: saying.say(row, x[row].copy()) for row, _ in speakers}
        bits += sum(count * saying.bits(said[row][1]) for row, count in speakers)
        written, listeners = {}, []
        for receiver, keep, members in transfers(field, rows):
            heard = [(said.get(m, (x[m], masks[m])), w, m) for m, w in members]
            if receiver >= N:
                written[receiver] = heard[0][0]
                continue
            own = x[receiver]
            read = [w * (own if m == receiver else saying.read(receiver, own, *what)) for what, w, m in heard]
            written[receiver] = keep * own + sum(read), np.ones(D, bool)
            listeners.append(receiver)
        for row, (values, mask) in written.items():
            x[row], masks[row] = values, mask
        saying.end([row for row, _ in speakers], listeners, x)
    return x[:N], bits


@pytest.mark.parametrize("name", EACH_PLAN)
@pytest.mark.parametrize("saying", SAYINGS, ids=lambda kind: kind.__name__)
def test_what_is_said_and_heard(name, saying):
    """Models to rounding, bytes and messages exactly, lost messages included."""
    plan = planned(name)
    run = simulate(KEY, gossip_averaging(saying.sharing), plan, jnp.asarray(X0), record_every=len(plan))
    expected, bits = replay(plan, saying(jax.random.fold_in(KEY, STEPS)))
    # A few hundred sums of numbers of order 1 in float64.
    np.testing.assert_allclose(run.x, expected, rtol=0, atol=1e-13)
    assert run["bytes_sent"][-1] == bits / 8
    if plan.properties.traffic is not None:
        assert run["messages_sent"][-1] == plan.properties.traffic.sent


# Versions


class Whole(Subset):
    def say(self, row, x):
        return x, np.ones(D, bool)


def coordinate_versions(plan, saying):
    """The version of every source (last axis) in every coordinate of every model."""
    rows, shared = N + plan.properties.num_slots, {name: np.asarray(array) for name, array in plan.shared.items()}
    held, own = np.zeros((rows, D, N), int), np.zeros(N, int)
    masks = np.ones((rows, D), bool)
    for t in range(len(plan)):
        field = shared | {name: array[t] for name, array in plan.xs.items()}
        for node in field["nodes"]:
            if node < N:
                own[node] += 1
                held[node, :, node] = own[node]
        speakers = [row for row, _ in who_speaks(field, rows)]
        said = {row: saying.say(row, None)[1] for row in speakers}
        before, masks_before = held.copy(), masks.copy()
        for receiver, keep, members in transfers(field, rows):
            newest = before[receiver] if keep or receiver in [m for m, _ in members] else np.full((D, N), -1)
            for m, _ in members:
                mask = said.get(m, masks_before[m]) if m != receiver else np.ones(D, bool)
                if receiver >= N:
                    newest, masks[receiver] = before[m], mask
                else:
                    newest = np.where(mask[:, None], np.maximum(newest, before[m]), newest)
            held[receiver] = newest
        saying.end(speakers, [], None)
    return held[:N]


@pytest.mark.parametrize("name", ["flights, some lost", "gossip learning"])
def test_versions_bound_those_of_coordinates(name):
    """Counted as of whole models: no coordinate is newer, and with whole models all are as new."""
    plan = planned(name)
    method = track_versions(gossip_averaging(Subset.sharing), num_nodes=N)
    run = simulate(KEY, method, plan, jnp.asarray(X0), record_every=len(plan))
    counted = np.asarray(method.versions(run.state).held)[:N, None]
    key = jax.random.fold_in(KEY, STEPS)
    whole, parts = (coordinate_versions(plan, kind(key)) for kind in (Whole, Subset))
    np.testing.assert_array_equal(whole, np.broadcast_to(counted, whole.shape))
    assert (parts <= counted).all()
    assert (parts.max(1) < counted[:, 0]).any()  # not even the newest coordinate, after several messages


@pytest.mark.parametrize("sharing", [random_subset(0.5), top_k(0.5), fragments(2), compressed(qsgd(3))])
@pytest.mark.parametrize("n", [7])
def test_a_row_that_speaks_in_many_lanes_keeps_the_rest_once(sharing, n):
    """One node gives every node an n-th of its mass in one event, in more lanes than are unrolled."""
    facts = Properties(n, n, "one to all", {"column_stochastic"})
    lanes = {"senders": [[0] * n], "receivers": [list(range(n))], "weights": [[1.0 / n] * n]}
    xs = {"time": [1.0], "nodes": [[NOBODY]], "keep": [[0.0] + [1.0] * (n - 1)]} | lanes
    plan = timeline.from_events({name: np.asarray(array) for name, array in xs.items()}, facts)
    x0 = jnp.asarray(np.random.default_rng(1).standard_normal((n, D)))
    end = simulate(KEY, push_sum(sharing), plan, x0).state
    # Sums of 7 numbers of size 1 in float64.
    np.testing.assert_allclose(np.asarray(end.x).sum(0), np.asarray(x0).sum(0), rtol=0, atol=1e-14)
    np.testing.assert_allclose(np.asarray(end.w).sum(0), n, rtol=0, atol=1e-14)
