"""Asynchronous plans: against plain simulations, against exact laws of staleness and age, and in the engine."""

import heapq
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from gossipjax import gossip_averaging, pack, simulate
from gossipjax.mixing import to_dense
from gossipjax.timeline import (
    clocks,
    opportunistic,
    pairwise,
    push_gossip,
    push_rounds,
    version_age,
)
from gossipjax.topology import barabasi_albert, from_networkx, ring, star
from gossipjax.types import NOBODY
from theory import age, staleness

COMPUTE = clocks.shifted_exponential(0.4, 0.6)  # rate 1
KEY = jax.random.key(0)


def fields(plan):
    """All fields of a planned timeline, with the event axis in front."""
    shared = {name: np.broadcast_to(array, (len(plan), *array.shape)) for name, array in plan.shared.items()}
    return {name: np.asarray(array) for name, array in (plan.xs | shared).items()}


def event_at(timeline, t):
    return timeline.event(KEY, timeline.shared, jax.tree.map(lambda leaf: jnp.asarray(leaf[t]), timeline.xs))


def replayed(plan, x, act=lambda value, node, step: value):
    """Run a plan on an array of rows, event by event: act, then all transfers at once."""
    xs, facts = fields(plan), plan.properties
    rows, steps = np.concatenate([x, np.zeros((facts.num_slots, *x.shape[1:]))]), 0
    for t in range(len(plan)):
        node = xs["nodes"][t, 0]
        if node != NOBODY:
            rows[node], steps = act(rows[node], node, steps), steps + 1
        to = xs["receivers"][t]
        live = (to < len(rows)) & (xs["senders"][t] < len(rows))
        own, other = rows[to[live]], rows[xs["senders"][t][live]]
        keep, weights = (xs[name][t][live].reshape(-1, *(1,) * (x.ndim - 1)) for name in ("keep", "weights"))
        rows[to[live]] = keep * own + weights * other
    return rows[: facts.num_rows]


def version_tables(plan, times):
    """Version counters (rows, sources) of a plan at the given times."""
    xs, facts = fields(plan), plan.properties
    held = np.zeros((facts.num_rows + facts.num_slots, facts.num_nodes), np.int64)
    at = np.searchsorted(xs["time"][:, 0], times)
    sources = xs.get("sources")
    names = ("nodes", "senders", "receivers", "keep")
    nodes, senders, receivers, keep = (xs[name].tolist() for name in names)
    tables, done = [], 0
    for stop in at:
        for t in range(done, stop):
            if nodes[t][0] < facts.num_nodes:
                held[nodes[t][0], nodes[t][0]] += 1
            for k, old in enumerate([held[s].copy() if s < len(held) else None for s in senders[t]]):
                if old is None or receivers[t][k] >= len(held):
                    continue
                if sources is not None:
                    only = sources[t, k]
                    held[receivers[t][k], only] = max(held[receivers[t][k], only], old[only])
                elif keep[t][k] == 0:
                    held[receivers[t][k]] = old
                else:
                    np.maximum(held[receivers[t][k]], old, out=held[receivers[t][k]])
        done = stop
        tables.append(held[: facts.num_nodes].copy())
    return np.stack(tables)


def mean_staleness(tables):
    """Mean over time, sources and other holders of S_i^j = N_i^i − N_i^j."""
    own = np.diagonal(tables, axis1=1, axis2=2)
    n = tables.shape[1]
    return (own[:, None] - tables).sum() / (len(tables) * n * (n - 1))


def z_score(samples, expected):
    """Of independent replicas."""
    samples = np.asarray(samples, float)
    return (samples.mean() - expected) / (samples.std(ddof=1) / np.sqrt(samples.size))


def replicas(build, statistic, count=80, burn=15.0, duration=55.0):
    times = np.arange(burn, duration, 1.0)
    return [statistic(version_tables(build(duration, seed), times)) for seed in range(count)]


# --- push gossip ------------------------------------------------------------------------------------------------------


def test_events_are_updates_and_pushes():
    plan = push_gossip(6, 50.0, compute=COMPUTE, gossip=2.0, weight=0.3, seed=1)
    xs = fields(plan)
    acts, gives = xs["nodes"][:, 0] != NOBODY, xs["receivers"][:, 0] != NOBODY
    assert (acts ^ gives).all()
    assert (xs["senders"][gives] != xs["receivers"][gives]).all()
    assert set(xs["receivers"][gives, 0].tolist()) == set(range(6))
    i, j = xs["senders"][gives, 0][0], xs["receivers"][gives, 0][0]
    W = np.eye(6)
    W[j, [i, j]] = 0.3, 0.7
    np.testing.assert_allclose(to_dense(event_at(plan, int(np.argmax(gives))).mixing, 6), W, rtol=1e-15)
    np.testing.assert_array_equal(to_dense(event_at(plan, int(np.argmax(acts))).mixing, 6), np.eye(6))
    assert "messages" not in xs
    facts = plan.properties
    assert facts.traffic.sent == facts.traffic.delivered == gives.sum()
    assert ("doubly_stochastic" in facts, "symmetric" in facts, facts.num_slots) == (False, False, 0)


def test_rates_and_targets():
    """Counts of pushes are Poisson; those of updates vary less; targets are uniform over out-neighbours."""
    plan = push_gossip(5, 800.0, compute=COMPUTE, gossip=np.array([1.0, 2, 3, 4, 5]), seed=2)
    xs = fields(plan)
    pushes = xs["receivers"][:, 0] != NOBODY
    counts = np.zeros((5, 5))
    np.add.at(counts, (xs["senders"][pushes, 0], xs["receivers"][pushes, 0]), 1)
    expected = 800 * np.arange(1.0, 6)[:, None] / 4
    assert (np.diag(counts) == 0).all()
    assert (np.abs(counts - expected)[~np.eye(5, dtype=bool)] < 4.5 * np.sqrt(expected.max())).all()
    updates = np.bincount(xs["nodes"][~pushes, 0], minlength=5)
    # Asymptotic variance of a renewal count: t · (variance / mean³) of an interval.
    assert (np.abs(updates - 800) < 4 * np.sqrt(800 * 0.36)).all()


def test_pushes_follow_the_arrows():
    import networkx as nx

    arrows = from_networkx(nx.cycle_graph(4, create_using=nx.DiGraph))
    xs = fields(push_gossip(arrows, 20.0, compute=None, gossip=1.0, seed=3))
    np.testing.assert_array_equal(xs["receivers"], (xs["senders"] + 1) % 4)
    assert (xs["nodes"] == NOBODY).all()


def test_each_part_of_a_plan_has_its_own_stream():
    """More pushes or a slower network leave the updates as they are."""
    plans = [
        push_gossip(4, 30.0, compute=COMPUTE, gossip=rate, latency=latency, seed=4)
        for rate, latency in ((1.0, None), (3.0, None), (1.0, 0.5))
    ]
    acts = []
    for plan in plans:
        xs = fields(plan)
        own = xs["nodes"][:, 0] != NOBODY
        acts.append((xs["time"][own, 0], xs["nodes"][own, 0]))
    for other in acts[1:]:
        np.testing.assert_array_equal(acts[0][0], other[0])
        np.testing.assert_array_equal(acts[0][1], other[1])


def test_a_million_nodes_are_planned_without_their_edges():
    plan = push_gossip(10**6, 0.2, compute=COMPUTE, gossip=1.0, seed=5)
    assert abs(len(plan) - 400_000) < 4 * np.sqrt(400_000)


def test_exchanges_are_symmetric():
    plan = push_gossip(star(5), 20.0, compute=COMPUTE, gossip=1.0, weight=0.3, two_way=True, drop=0.4, seed=6)
    xs, facts = fields(plan), plan.properties
    assert "symmetric" in facts
    assert "doubly_stochastic" in facts
    failed = (xs["receivers"][:, 0] == NOBODY) & (xs["nodes"][:, 0] == NOBODY)
    assert failed.any()
    for t in [int(np.argmax(failed)), *np.flatnonzero(xs["receivers"][:, 0] != NOBODY)[:3]]:
        W = np.asarray(to_dense(event_at(plan, int(t)).mixing, 5))
        np.testing.assert_array_equal(W, W.T)
        np.testing.assert_allclose(W.sum(0), 1.0, rtol=1e-15)
        assert (W == np.eye(5)).all() == failed[t]
    assert xs["messages"].sum() == facts.traffic.sent
    assert facts.traffic.dropped == failed.sum()
    assert facts.traffic.delivered == facts.traffic.sent - failed.sum()


@pytest.mark.parametrize("two_way", [False, True])
def test_busy_nodes_hear_nothing(two_way):
    """Poisson pushes see time averages: a share c/(c + e) is lost; an exchange needs two free nodes."""
    plan = push_gossip(50, 100.0, compute=COMPUTE, gossip=1.0, two_way=two_way, busy_receives=False, seed=7)
    xs = fields(plan)
    pushes = np.sum(xs["nodes"][:, 0] == NOBODY)
    lost = plan.properties.traffic.dropped / pushes
    expected = 1 - 0.6 ** (2 if two_way else 1)
    # Pushes to one node in one interval share its fate: about two pushes an interval at most double the variance.
    assert abs(lost - expected) < 4 * np.sqrt(2 * expected * (1 - expected) / pushes)
    assert plan.properties.traffic.dropped == np.sum((xs["nodes"][:, 0] == NOBODY) & (xs["receivers"][:, 0] == NOBODY))


def test_a_metronome_is_always_busy():
    plan = push_gossip(5, 20.0, compute=clocks.deterministic(1.0), gossip=1.0, busy_receives=False, seed=8)
    assert plan.properties.traffic.delivered == 0
    assert plan.properties.traffic.dropped == plan.properties.traffic.sent > 0


def test_what_is_in_flight():
    """Little's law: n λ d messages are on their way in the mean, Poisson many; as many rows are needed at most."""
    counts = [
        push_gossip(10, 20.0, compute=COMPUTE, gossip=2.0, latency=0.5, seed=seed).properties.traffic.in_flight
        for seed in range(100)
    ]
    assert abs(np.mean(counts) - 10.0) < 4 * np.sqrt(10.0 / 100)
    plan = push_gossip(10, 20.0, compute=COMPUTE, gossip=2.0, latency=0.5, seed=0)
    sent = fields(plan)["messages"][:, 0] == 1
    times = fields(plan)["time"][sent, 0]
    most = max(np.searchsorted(times, t, side="right") - np.searchsorted(times, t - 0.5, side="left") for t in times)
    assert plan.properties.num_slots <= most  # float32 times may add one


def test_inbox_sizes():
    """Messages that arrive in one interval c + Exp(e): mean λ(c + e), variance λ(c + e) + (λe)²; a queue caps them."""
    sizes = {}
    for capacity in (None, 2):
        plan = push_gossip(40, 100.0, compute=COMPUTE, gossip=1.5, inbox="queue", capacity=capacity, seed=9)
        xs, facts = fields(plan), plan.properties
        reads = (xs["senders"][:, 0] >= 40) & (xs["receivers"][:, 0] < 40)
        ticks = np.searchsorted(np.flatnonzero(xs["nodes"][:, 0] != NOBODY), np.flatnonzero(reads))
        sizes[capacity] = np.bincount(ticks, minlength=np.sum(xs["nodes"][:, 0] != NOBODY))
        facts = facts.traffic
        assert facts.sent == facts.delivered + facts.overflow + facts.in_flight
        assert facts.delivered == reads.sum()
    rate, c, e = 1.5, 0.4, 0.6
    mean, variance = rate * (c + e), rate * (c + e) + (rate * e) ** 2
    free = sizes[None]
    assert abs(free.mean() - mean) < 4 * np.sqrt(variance / free.size) + 0.02 * mean  # the start cuts an interval
    assert free.var() == pytest.approx(variance, rel=0.12)  # s.d. of the estimate: about 3 %
    assert sizes[2].max() == 2
    # P(N > B) with N = Poisson(λc) + Geometric.
    g = 1 / (1 + rate * e)
    within = sum(stats.poisson.pmf(a, rate * c) * g * (1 - g) ** b for a in range(3) for b in range(3 - a))
    over = np.mean(free > 2)
    assert abs(over - (1 - within)) < 4 * np.sqrt(within * (1 - within) / free.size) + 0.01


# --- exact laws -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("two_way", [False, True])
def test_staleness_of_push_gossip(two_way):
    """E S = m H_{n−1}/λ, half of it for exchanges, whatever the shift of the update clock."""
    samples = replicas(
        lambda duration, seed: push_gossip(6, duration, compute=COMPUTE, gossip=1.5, two_way=two_way, seed=seed),
        mean_staleness,
    )
    assert abs(z_score(samples, staleness.mean_staleness(6, gossip_rate=1.5, update_rate=1.0, two_way=two_way))) < 4


def test_staleness_of_two_nodes_in_flight():
    """From j to i there is one hop: the next push of rate λ, then d seconds on the way: E S = m (1/λ + d)."""
    samples = replicas(
        lambda duration, seed: push_gossip(2, duration, compute=COMPUTE, gossip=1.5, latency=0.7, seed=seed),
        mean_staleness,
    )
    assert abs(z_score(samples, 1 / 1.5 + 0.7)) < 4


def test_dead_time():
    """Two nodes, pushes every g + Exp(1/λ): the age of the last one has mean E X²/(2 E X)."""
    g, rate = 0.5, 2.0
    samples = replicas(
        lambda duration, seed: push_gossip(2, duration, compute=COMPUTE, gossip=rate, dead_time=g, seed=seed),
        mean_staleness,
    )
    mean = g + 1 / rate
    assert abs(z_score(samples, (1 / rate**2 + mean**2) / (2 * mean))) < 4


@pytest.mark.parametrize("relay", ["everything", "newest", "none"])
def test_staleness_of_opportunistic_gossip(relay):
    samples = replicas(
        lambda duration, seed: opportunistic(5, duration, update_rate=1.0, capacity=3.0, relay=relay, seed=seed),
        mean_staleness,
    )
    law = staleness.opportunistic_staleness(5, gossip_rate=3.0, update_rate=1.0, relay=relay == "everything")
    assert abs(z_score(samples, law)) < 4


@pytest.mark.parametrize("graph", ["complete", "ring"])
def test_version_age(graph):
    rates = {"version_rate": 1.5, "source_rate": 2.0, "gossip_rate": 1.0}
    peers, law = {
        "complete": (6, age.version_age_complete),
        "ring": (ring(6), age.version_age_ring),
    }[graph]

    def mean_age(tables):
        return (tables[:, -1:, -1] - tables[:, :-1, -1]).mean()

    samples = replicas(lambda duration, seed: version_age(peers, duration, seed=seed, **rates), mean_age)
    assert abs(z_score(samples, law(6, **rates))) < 4


def test_version_age_without_gossip():
    """Each node hears the source at rate λ_s/n: its age is n λ_e/λ_s."""
    plan = version_age(4, 60.0, version_rate=2.0, source_rate=4.0, gossip_rate=0.0, seed=1)
    xs = fields(plan)
    assert set(xs["nodes"][:, 0].tolist()) == {4, NOBODY}
    assert set(xs["senders"][xs["receivers"] != NOBODY].tolist()) == {4}
    told = np.bincount(xs["receivers"][xs["receivers"] != NOBODY], minlength=4)
    assert (np.abs(told - 60) < 4 * np.sqrt(60)).all()
    assert plan.properties.num_nodes == 5


# --- opportunistic gossip ---------------------------------------------------------------------------------------------


def test_only_the_last_updater_pushes():
    xs = fields(opportunistic(6, 30.0, update_rate=1.0, capacity=4.0, relay="everything", seed=2))
    last = None
    for node, sender, receiver in zip(xs["nodes"][:, 0], xs["senders"][:, 0], xs["receivers"][:, 0], strict=True):
        if node != NOBODY:
            last = node
        elif last is not None:
            assert sender == last
            assert receiver != sender
    assert "sources" not in xs


def test_holders_of_the_newest_version_push_it():
    """A holder is the last updater or was a target since; each is as likely, and so is each target."""
    xs = fields(opportunistic(4, 1500.0, update_rate=0.4, capacity=1.5, relay="newest", seed=3))
    holders, last, chosen, told = None, None, Counter(), Counter()
    for t in range(len(xs["time"])):
        node, sender, receiver = (int(xs[name][t, 0]) for name in ("nodes", "senders", "receivers"))
        if node != NOBODY:
            holders, last = [node], node
        elif last is not None:
            assert sender in holders
            assert receiver != sender
            assert xs["sources"][t, 0] == last
            chosen[len(holders), holders.index(sender)] += 1
            told[(receiver - sender) % 4] += 1
            if receiver not in holders:
                holders.append(receiver)
    for count in (2, 3, 4):
        observed = [chosen[count, k] for k in range(count)]
        assert stats.chisquare(observed).pvalue > 1e-4
    assert stats.chisquare([told[k] for k in (1, 2, 3)]).pvalue > 1e-4
    pushes = sum(told.values())
    assert abs(pushes - 4 * 1.5 * 1500) < 4 * np.sqrt(4 * 1.5 * 1500) + 10  # those before the first update are left out


def test_pushes_without_relay_carry_their_own_version():
    xs = fields(opportunistic(4, 30.0, update_rate=1.0, capacity=2.0, relay="none", seed=4))
    pushes = xs["nodes"] == NOBODY
    np.testing.assert_array_equal(xs["sources"][pushes], xs["senders"][pushes])
    assert set(xs["senders"][pushes].tolist()) == {0, 1, 2, 3}


# --- pairwise averaging -----------------------------------------------------------------------------------------------


def test_atomic_averaging():
    graph = barabasi_albert(8, 2, seed=1)
    plan = pairwise(graph, 40.0, compute=COMPUTE, communicate=1.0, seed=5)
    xs, facts = fields(plan), plan.properties
    assert "symmetric" in facts
    assert "doubly_stochastic" in facts
    meet = xs["nodes"][:, 0] == NOBODY
    np.testing.assert_array_equal(xs["senders"][meet], xs["receivers"][meet][:, ::-1])
    edges = set(zip(graph.senders.tolist(), graph.receivers.tolist(), strict=True))
    assert {tuple(pair) for pair in xs["senders"][meet].tolist()} <= edges
    assert abs(meet.sum() - 320) < 4 * np.sqrt(320)
    x = np.random.default_rng(6).standard_normal((8, 3))
    # A few hundred halvings of numbers around one.
    np.testing.assert_allclose(replayed(plan, x).mean(0), x.mean(0), rtol=0, atol=1e-14)


def train(value, node, step):
    return 0.9 * value + 0.01 * (node + 1) + 0.1 * step


def handshakes(n, duration, acts, meetings, waits, x):
    """Requests and replies with a queue of events: (time, kind, number); ties go request, answer, reply, update."""
    x, copies, arrived, steps = list(x), {}, 0, 0
    events = [(t, 0, k) for k, (t, _, _) in enumerate(meetings)] + [(t, 3, k) for k, (t, _) in enumerate(acts)]
    heapq.heapify(events)
    while events and events[0][0] < duration:
        now, kind, k = heapq.heappop(events)
        if kind == 3:
            i = acts[k][1]
            x[i], steps = train(x[i], i, steps), steps + 1
            continue
        _, i, j = meetings[k]
        if kind == 0:
            copies[k] = x[i]
            heapq.heappush(events, (now + waits[i, j], 1, k))
        elif kind == 1:
            request, copies[k] = copies[k], x[j]
            x[j] = 0.5 * x[j] + 0.5 * request
            heapq.heappush(events, (now + waits[j, i], 2, k))
        else:
            x[i] = 0.5 * x[i] + 0.5 * copies[k]
            arrived += 1
    return np.array(x), arrived


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 5), st.integers(0, 1000), st.floats(0.0, 3.0))
def test_handshakes_are_what_a_simulation_does(n, seed, scale):
    waits = scale * np.random.default_rng(seed).random((n, n))
    plan = pairwise(n, 8.0, compute=COMPUTE, communicate=1.0, atomic=False, latency=waits, seed=seed)
    of_updates, of_meetings, of_partners, _ = np.random.default_rng(seed).spawn(4)
    acts = list(zip(*clocks.ticks(COMPUTE, n, 8.0, of_updates), strict=True))
    times, first = clocks.ticks(clocks.poisson(1.0), n, 8.0, of_meetings)
    second = of_partners.integers(0, n - 1, first.size, dtype=np.int32)
    meetings = list(zip(times, first, second + (second >= first), strict=True))
    x = 1.0 + np.arange(n)
    expected, arrived = handshakes(n, 8.0, acts, meetings, waits, x)
    # The same operations in the same order: bit for bit.
    np.testing.assert_array_equal(replayed(plan, x, train), expected)
    facts = plan.properties.traffic
    assert facts.sent == fields(plan)["messages"].sum() == facts.delivered + facts.in_flight
    assert facts.delivered >= arrived


def test_handshakes_do_not_conserve_the_mean():
    plan = pairwise(6, 30.0, compute=COMPUTE, communicate=1.0, atomic=False, latency=0.5, seed=7)
    assert ("symmetric" in plan.properties, "doubly_stochastic" in plan.properties) == (False, False)
    x = np.random.default_rng(8).standard_normal(6)
    change = np.abs(replayed(plan, x).mean() - x.mean())
    assert 1e-3 < change < 1.0
    # Convex combinations of the past.
    assert np.ptp(replayed(plan, x)) < 0.1 * np.ptp(x)


# --- rounds of pushes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{"pushes": "one"}, {"gossip_rate": 1.5}], ids=["one", "poisson"])
def test_arrivals_are_averaged_in_turn(settings):
    """The matrix of a round, whose models all are as when it began, against one average after another."""
    plan = push_rounds(6, 8, step=0.8, compute=2.0, weight=0.3, seed=9, **settings)
    per_round = len(plan) // 8
    assert len(plan) == 8 * per_round
    seen = 0
    for r in range(8):
        event = event_at(plan, r * per_round)
        W = np.eye(6)
        pushes = zip(plan.xs["senders"][r * per_round], plan.xs["receivers"][r * per_round], strict=True)
        sent = np.zeros(6, int)
        for sender, receiver in pushes:
            if receiver != NOBODY:
                assert sender != receiver
                W[receiver] = 0.7 * W[receiver] + 0.3 * np.eye(6)[sender]
                sent[sender] += 1
                seen += 1
        # Products of up to a dozen weights.
        np.testing.assert_allclose(to_dense(event.mixing, 6), W, rtol=1e-13, atol=1e-15)
        np.testing.assert_array_equal(event.messages, sent)
        assert (np.asarray(event.nodes) == NOBODY).all()
        if "pushes" in settings:
            np.testing.assert_array_equal(sent, np.ones(6))
        for level in range(1, per_round):
            later = event_at(plan, r * per_round + level)
            np.testing.assert_array_equal(to_dense(later.mixing, 6), np.eye(6))
            assert later.messages.sum() == 0
            assert float(later.time[0]) == pytest.approx(0.8 * (r + 1), rel=1e-6)  # float32
    assert seen > 20


def test_arrivals_come_in_random_order():
    """Two that arrive in turn at one node: the first has the smaller number in half of the cases."""
    plan = push_rounds(8, 400, compute=None, pushes="one", seed=14)
    smaller = []
    for r in range(400):
        senders, receivers, place = (plan.xs[name][r] for name in ("senders", "receivers", "place"))
        for receiver in range(8):
            first, second = (senders[(receivers == receiver) & (place == k)] for k in (0, 1))
            if second.size:
                smaller.append(first[0] < second[0])
    assert len(smaller) > 500
    assert abs(np.mean(smaller) - 0.5) < 4 * 0.5 / np.sqrt(len(smaller))


def test_updates_of_a_round_are_each_in_an_event():
    """A node that updates k times in a round is in its first k events, once in each."""
    clock = clocks.shifted_exponential(0.1, 0.3)
    plan = push_rounds(5, 40, step=0.9, compute=clock, gossip_rate=0.5, seed=10)
    nodes = plan.xs["nodes"].reshape(40, len(plan) // 40, -1)
    assert (nodes[:, 0] == NOBODY).all()
    of_updates = np.random.default_rng(10).spawn(2)[0]
    times, who = clocks.ticks(clock, 5, 36.0, of_updates)
    expected = np.zeros((40, 5), int)
    np.add.at(expected, ((times / 0.9).astype(int), who), 1)
    for r in range(40):
        for node in range(5):
            in_event = (nodes[r, 1:] == node).sum(1)
            assert in_event.tolist() == [1] * expected[r, node] + [0] * (in_event.size - expected[r, node])
    assert expected.max() == nodes.shape[1] - 1


def round_staleness(plan, num_rounds, burn):
    """Mean staleness at the ends of rounds."""
    per_round, n = len(plan) // num_rounds, plan.properties.num_nodes
    held, total = np.zeros((n, n), np.int64), []
    for r in range(num_rounds):
        start = held.copy()
        ends = (plan.xs[name][r * per_round].tolist() for name in ("senders", "receivers"))
        for sender, receiver in zip(*ends, strict=True):
            if receiver != NOBODY:
                np.maximum(held[receiver], start[sender], out=held[receiver])
        acting = plan.xs["nodes"][r * per_round + 1 : (r + 1) * per_round].ravel()
        np.add.at(held, (acting[acting != NOBODY],) * 2, 1)
        if r >= burn:
            total.append(held.copy())
    return mean_staleness(np.stack(total))


@pytest.mark.parametrize("pushes", ["poisson", "one"])
def test_staleness_of_rounds(pushes):
    """The law of the discretisation itself: m Δ E_1."""
    n, step = 6, 0.5
    gossip = {"gossip_rate": 1.2} if pushes == "poisson" else {}
    samples = [
        round_staleness(push_rounds(n, 80, step=step, compute=1.0, pushes=pushes, seed=seed, **gossip), 80, 25)
        for seed in range(80)
    ]
    if pushes == "poisson":
        law = staleness.fixed_step_staleness(n, gossip_rate=1.2, step=step, update_rate=1.0)
        continuous = staleness.mean_staleness(n, gossip_rate=1.2, update_rate=1.0)
        assert abs(z_score(samples, continuous)) > 4  # the bias of the steps shows
    else:
        law = step * staleness.one_push_rounds(n)
    assert abs(z_score(samples, law)) < 4


# --- in the engine ----------------------------------------------------------------------------------------------------

PLANS = {
    "push": lambda: push_gossip(7, 12.0, compute=COMPUTE, gossip=1.0, weight=0.3, drop=0.2, seed=11),
    "in_flight": lambda: push_gossip(7, 12.0, compute=COMPUTE, gossip=1.0, latency=0.8, drop=0.2, seed=11),
    "pairwise": lambda: pairwise(7, 12.0, compute=COMPUTE, communicate=1.0, seed=11),
    "handshakes": lambda: pairwise(7, 12.0, compute=COMPUTE, communicate=1.0, atomic=False, latency=0.6, seed=11),
    "newest_only": lambda: opportunistic(7, 12.0, update_rate=1.0, capacity=1.0, relay="newest", seed=11),
}


@pytest.mark.parametrize("name", PLANS)
def test_the_engine_runs_the_plan(name):
    """Models of gossip averaging, and messages counted, against the replay; the same when packed."""
    plan = PLANS[name]()
    x = np.random.default_rng(12).standard_normal((7, 2))
    run = simulate(KEY, gossip_averaging(), plan, jnp.asarray(x), packing="sequential")
    # Compiled code fuses multiply and add: the last digits differ.
    np.testing.assert_allclose(run.x, replayed(plan, x), rtol=1e-12, atol=1e-14)
    xs = fields(plan)
    rows = 7 + plan.properties.num_slots
    sent = xs["messages"].sum() if "messages" in xs else np.sum(xs["receivers"] < rows)
    assert int(run.dataset.messages_sent[-1]) == sent
    if plan.properties.traffic is not None:
        assert plan.properties.traffic.sent == sent
    packed = simulate(KEY, gossip_averaging(), pack(plan), jnp.asarray(x), packing="sequential")
    np.testing.assert_allclose(packed.x, run.x, rtol=1e-12, atol=1e-14)
    assert int(packed.dataset.messages_sent[-1]) == sent


def test_the_engine_runs_rounds_of_pushes():
    plan = push_rounds(7, 10, step=0.5, compute=1.0, gossip_rate=1.0, weight=0.4, seed=13)
    x = np.random.default_rng(12).standard_normal((7, 2))
    expected = x.copy()
    for t in range(len(plan)):
        expected = np.asarray(to_dense(event_at(plan, t).mixing, 7)) @ expected
    run = simulate(KEY, gossip_averaging(), plan, jnp.asarray(x), packing="sequential")
    np.testing.assert_allclose(run.x, expected, rtol=1e-12, atol=1e-14)
    assert int(run.dataset.messages_sent[-1]) == np.sum(plan.xs["receivers"] != NOBODY)


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: push_gossip(1, 1.0, compute=COMPUTE, gossip=1.0, seed=0), "peers=1"),
        (lambda: push_gossip(4, 1.0, compute=COMPUTE, gossip=1.0, weight=0.0, seed=0), "weight=0.0"),
        (lambda: push_gossip(4, 1.0, compute=COMPUTE, gossip=0.0, seed=0), "gossip=0:"),
        (lambda: push_gossip(4, 1.0, compute=COMPUTE, gossip=1.0, dead_time=-1.0, seed=0), "dead_time=-1:"),
        (lambda: push_gossip(4, 1.0, compute=COMPUTE, gossip=1.0, two_way=True, latency=1.0, seed=0), "two_way"),
        (lambda: push_gossip(4, 1.0, compute=None, gossip=1.0, inbox="queue", seed=0), "pass compute"),
        (lambda: push_gossip(4, 1.0, compute=None, gossip=1.0, busy_receives=False, seed=0), "pass compute"),
        (
            lambda: push_gossip(
                4, 1.0, compute=clocks.renewal(np.random.Generator.random, 0.5), gossip=1.0, busy_receives=False, seed=0
            ),
            "does not say how long",
        ),
        (lambda: pairwise(4, 1.0, compute=COMPUTE, communicate=1.0, latency=1.0, seed=0), "atomic=True"),
        (lambda: pairwise(4, 1.0, compute=COMPUTE, communicate=1.0, atomic=False, seed=0), "atomic=False"),
        (lambda: version_age(4, 1.0, version_rate=0.0, source_rate=1.0, gossip_rate=1.0, seed=0), "rate=0.0"),
        (lambda: version_age(4, 1.0, version_rate=1.0, source_rate=1.0, gossip_rate=-1.0, seed=0), "gossip_rate=-1:"),
        (lambda: opportunistic(4, 1.0, update_rate=1.0, capacity=0.0, relay="none", seed=0), "capacity=0.0:"),
        (lambda: push_rounds(4, 0, compute=1.0, pushes="one", seed=0), "num_rounds=0"),
        (lambda: push_rounds(4, 5, step=0.0, compute=1.0, pushes="one", seed=0), "step=0.0"),
        (lambda: push_rounds(4, 5, compute=1.0, seed=0), "'poisson' needs a rate"),
        (lambda: push_rounds(4, 5, compute=1.0, pushes="one", gossip_rate=1.0, seed=0), "'one' has none"),
        (lambda: push_rounds(4, 5, compute=1.0, gossip_rate=-1.0, seed=0), "gossip_rate=-1:"),
        (lambda: push_rounds(4, 5, compute=1.0, pushes="one", weight=2.0, seed=0), "weight=2.0"),
    ],
)
def test_bad_plans_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_mutual_averaging_needs_an_undirected_graph():
    import networkx as nx

    arrows = from_networkx(nx.cycle_graph(4, create_using=nx.DiGraph))
    with pytest.raises(ValueError, match="is directed"):
        pairwise(arrows, 5.0, compute=COMPUTE, communicate=1.0, seed=0)
