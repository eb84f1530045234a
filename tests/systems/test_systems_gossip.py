"""Gossip learning and AD-PSGD on devices: against a replay with objects, laws of traffic, and the devices' numbers."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from plexus_runs import network, uneven
from plexus_runs import run as run_plexus
from problems import CURVATURE, TARGETS, X0, N, exact_quadratic

from gossipjax import ad_psgd as ad_psgd_protocol
from gossipjax import gossip_learning as gossip_protocol
from gossipjax import simulate, systems
from gossipjax.systems import activity, gossip_learning, traffic_series, training_series
from gossipjax.systems._activity import COMPLETED, CUT, UNDER_WAY
from gossipjax.systems._ad_psgd import transfer_seconds
from gossipjax.testing import check_staleness_rules
from gossipjax.topology import ring

KEY, RATE, STEPS = jax.random.key(5), 0.1, 3
MODEL = 10_000
LEARN: dict[str, Any] = {"local_steps": STEPS, "model_bytes": MODEL, "seed": 2}
CLOSE = {"rtol": 0, "atol": 1e-12}  # some hundred sums of numbers near 1, in another order


def learned(plan):
    protocol = gossip_protocol(exact_quadratic(), optax.sgd(RATE), merge="age", local_steps=STEPS)
    return simulate(KEY, protocol, systems.stand_in(plan), jnp.asarray(X0), record_every=len(plan), progress=False)


class Replay:
    """Nodes with a model, an age and a list of what waits; transfers as the plan has them."""

    def __init__(self, plan, train_seconds, inbox):
        self.train_seconds, self.inbox = train_seconds, inbox
        self.models, self.ages, self.copies = [*X0], [0] * N, {}
        self.waiting, self.busy = [[] for _ in range(N)], [False] * N
        self.merges, self.fates = [], {"superseded": 0, "overflow": 0}
        found = activity(plan)
        self.sender, self.receiver = found.sender, found.receiver
        self.steps = [(t, 2, k) for k, t in enumerate(found.asked_s)]
        self.steps += [(t, 0, k) for k, t in enumerate(found.ended_s) if found.state[k] == COMPLETED]
        do = (self.arrive, self.train, self.send)
        while self.steps:
            t, kind, k = self.steps.pop(self.steps.index(min(self.steps)))
            if t < plan.end_s:
                do[kind](t, k)

    def send(self, t, k):
        self.copies[k] = self.models[self.sender[k]], self.ages[self.sender[k]]

    def merge(self, t, j, k):
        other, age = self.copies[k]
        share = age / (age + self.ages[j]) if age + self.ages[j] else 0.5
        self.models[j], self.ages[j] = (1 - share) * self.models[j] + share * other, max(age, self.ages[j])
        self.busy[j] = True
        self.steps.append((t + self.train_seconds[j], 1, j))
        self.merges.append((t, j))

    def arrive(self, t, k):
        j = self.receiver[k]
        if not self.busy[j]:
            self.merge(t, j, k)
            return
        if self.inbox == "drop" or (self.inbox == "newest" and self.waiting[j]):
            self.fates["overflow" if self.inbox == "drop" else "superseded"] += 1
            self.waiting[j].clear()
        self.waiting[j] += [] if self.inbox == "drop" else [k]

    def train(self, t, j):
        for _ in range(STEPS):
            self.models[j] = self.models[j] - RATE * CURVATURE[j] * (self.models[j] - TARGETS[j])
        self.ages[j], self.busy[j] = self.ages[j] + STEPS, False
        if self.waiting[j]:
            self.merge(t, j, self.waiting[j].pop(0))


@pytest.mark.parametrize("inbox", ["queue", "newest", "drop"])
def test_against_a_replay_with_objects(inbox):
    """Slow devices, so that messages wait, and transfers that compete."""
    devices = uneven(N, seconds=np.linspace(0.05, 0.6, N))
    plan = gossip_learning(devices, 40.0, period_s=2.0, inbox=inbox, **LEARN)
    replay = Replay(plan, 3 * STEPS * devices.seconds_per_sample, inbox)
    merges, fates = replay.merges, replay.fates
    found, facts = activity(plan), plan.timeline.properties.traffic
    order = np.argsort(found.mean_s, kind="stable")
    np.testing.assert_allclose(found.mean_s[order], [t for t, _ in merges], rtol=1e-12)
    np.testing.assert_array_equal(found.mean_node[order], [node for _, node in merges])
    if inbox != "drop":  # which is learned like the others
        np.testing.assert_allclose(np.asarray(learned(plan.timeline).x), np.array(replay.models), **CLOSE)
    assert {name: getattr(facts, name) for name in fates} == fates
    assert (fates["superseded"] > 0) == (inbox == "newest")
    assert (fates["overflow"] > 0) == (inbox == "drop")
    check_ledger(plan)


def check_ledger(plan):
    """Messages and bytes are neither invented nor lost; a node trains one model at a time."""
    found, facts = activity(plan), plan.timeline.properties.traffic
    fates = facts.delivered + facts.dropped + facts.overflow + facts.superseded + facts.in_flight
    assert facts.sent == found.sender.size == fates
    assert facts.delivered == found.mean_node.size == found.training_node.size
    assert (found.sent_bytes[found.state == COMPLETED] == MODEL).all()
    assert (found.sent_bytes <= MODEL).all()
    assert (found.sender != found.receiver).all()
    np.testing.assert_allclose(plan.total_bytes(plan.end_s), found.sent_bytes.sum(), rtol=1e-12)
    np.testing.assert_allclose(plan.training_seconds(plan.end_s), plan.node_training_seconds.sum(), rtol=1e-12)
    order = np.lexsort((found.training_start_s, found.training_node))
    same = np.diff(found.training_node[order]) == 0
    assert (found.training_start_s[order][1:][same] >= found.training_end_s[order][:-1][same]).all()
    assert plan.timeline.xs["messages"].sum() == facts.sent


def test_equal_devices_send_once_a_period():
    """Each node sends ten models in ten periods, at its own phase; they take M/r seconds where nobody competes."""
    plan = gossip_learning(network(N), 100.0, period_s=10.0, bandwidth="unlimited", **LEARN)
    found = activity(plan)
    np.testing.assert_array_equal(np.bincount(found.sender), 10)
    for node in range(N):
        np.testing.assert_allclose(np.diff(np.sort(found.asked_s[found.sender == node])), 10.0, rtol=1e-12)
    done = found.state == COMPLETED
    np.testing.assert_allclose((found.ended_s - found.asked_s)[done], MODEL / 1e5, rtol=1e-9)  # differences of seconds


def test_receivers_are_uniform():
    plan = gossip_learning(network(5), 1500.0, period_s=1.0, bandwidth="unlimited", **LEARN)
    found = activity(plan)
    counts = np.zeros((5, 5))
    np.add.at(counts, (found.sender, found.receiver), 1)
    sent, p = counts.sum(1, keepdims=True), 1 / 4
    z = (counts - p * sent) / np.sqrt(sent * p * (1 - p))
    assert (np.abs(z[~np.eye(5, dtype=bool)]) < 4).all()
    assert (np.diag(counts) == 0).all()


def test_who_is_offline_takes_no_part():
    """Nobody sends, receives or trains while offline; what was under way is cut at that very time."""
    changes = [(7.3, 0, False), (19.0, 0, True), (10.2, 3, False), (25.4, 5, False), (26.0, 5, True)]
    devices = uneven(N, seconds=0.15, bandwidth=2e4, changes=changes)
    plan = gossip_learning(devices, 40.0, period_s=1.0, **LEARN)
    found = activity(plan)
    for node, begin, end in ((0, 7.3, 19.0), (3, 10.2, 40.0), (5, 25.4, 26.0)):
        touches = (found.sender == node) | (found.receiver == node)
        assert not ((found.asked_s[touches] < end) & (found.ended_s[touches] > begin)).any()
        cut = touches & (found.ended_s == begin)
        assert cut.any()
        assert (found.state[cut] == CUT).all()
        mine = found.training_node == node
        assert not ((found.training_start_s[mine] < end) & (found.training_end_s[mine] > begin)).any()
        assert not ((found.mean_s > begin) & (found.mean_s < end))[found.mean_node == node].any()
    stopped = ~found.training_completed & (found.training_end_s < plan.end_s)
    assert stopped.any()
    assert set(found.training_end_s[stopped].tolist()) <= {7.3, 10.2, 25.4}
    assert plan.timeline.properties.traffic.dropped >= np.count_nonzero(found.state == CUT)
    check_ledger(plan)


def test_ad_psgd():
    """Gradients every 3 b s_i seconds, messages M / min(u, d) seconds, three to a meeting at most."""
    devices = uneven(N)
    plan = systems.ad_psgd(devices, ring(N), 60.0, model_bytes=MODEL, time_batch=4, seed=0)
    found, facts = activity(plan), plan.timeline.properties.traffic
    train = 12 * devices.seconds_per_sample
    float32 = {"rtol": 0, "atol": 60 * 2.0**-22}  # two ends, seconds below 60 in float32
    for node in range(N):
        mine = (found.training_node == node) & found.training_completed
        assert abs(mine.sum() - 60 / train[node]) <= 1
        whole = mine & (found.training_start_s > 0)
        np.testing.assert_allclose((found.training_end_s - found.training_start_s)[whole], train[node], rtol=1e-9)
    done = found.state == COMPLETED
    way = transfer_seconds(devices, MODEL)[found.sender[done], found.receiver[done]]
    np.testing.assert_allclose((found.ended_s - found.asked_s)[done], way, **float32)
    assert facts.sent == found.sender.size
    assert facts.in_flight == np.count_nonzero(found.state == UNDER_WAY) == np.count_nonzero(found.receiver < 0)
    assert found.mean_node.size == facts.delivered
    gap = np.abs(found.sender - found.receiver)[done]
    assert set(gap.tolist()) == {1, N - 1}  # neighbours on the ring
    # Of a message under way as much is sent as its sender can: to whom it goes is not known.
    so_far = np.minimum(devices.upload_bytes_per_second[found.sender] * (60.0 - found.asked_s), MODEL)[~done]
    assert 0 < so_far.min() < so_far.max()
    expected = facts.delivered * MODEL + so_far.sum()
    np.testing.assert_allclose(traffic_series(plan, np.array([60.0])), expected, rtol=1e-12)
    protocol = ad_psgd_protocol(exact_quadratic(), optax.sgd(RATE))
    made = systems.stand_in(plan.timeline)
    run = simulate(KEY, protocol, made, jnp.asarray(X0), record_every=len(made), progress=False)
    assert run["messages_sent"][-1] == facts.sent


PLANS = {
    "gossip learning": lambda: gossip_learning(uneven(6), 12.0, period_s=2.0, **LEARN),
    "AD-PSGD": lambda: systems.ad_psgd(uneven(6), 6, 3.0, model_bytes=MODEL, time_batch=4, seed=0),
    "losses": lambda: systems.epidemic(uneven(6), 3, 5, round_seconds=0.7, **LEARN),
    "barriers": lambda: systems.epidemic(uneven(6), 3, 5, round_seconds=None, **LEARN),
}


@pytest.mark.parametrize("name", PLANS)
def test_versions_obey_their_rules(name):
    """No version comes from nowhere, none is older than what its holder heard."""
    check_staleness_rules(PLANS[name]().timeline)


def test_series_of_plexus():
    plan = run_plexus(uneven(20), num_rounds=10)
    end = np.array([plan.end_s])
    np.testing.assert_allclose(traffic_series(plan, end), plan.history.transfer_sent.sum(), rtol=1e-12)
    np.testing.assert_allclose(
        training_series(plan, end), (plan.history.training_end_s - plan.history.training_start_s).sum(), rtol=1e-9
    )
    half, start = plan.end_s / 2, plan.history.training_start_s
    expected = np.clip(half - start, 0, plan.history.training_end_s - start).sum()
    np.testing.assert_allclose(training_series(plan, np.array([half])), expected, rtol=1e-9)


@pytest.mark.parametrize(
    "setting",
    [
        {"devices": network(3, online=[True, False, False])},
        {"period_s": 1e9},
        {"devices": network(3, online=[False] * 3)},
    ],
)
def test_nobody_sends(setting):
    """A legal plan in which nothing happens, whatever the phases of the timers."""
    for seed in range(3):
        plan = gossip_learning(**({"devices": network(4), "duration_s": 5.0} | LEARN | setting | {"seed": seed}))
        assert len(plan.timeline) == 0
        assert plan.timeline.properties.traffic.sent == plan.total_bytes(5.0) == plan.training_seconds(5.0) == 0
        assert activity(plan).sender.size == plan.node_training_seconds.sum() == 0
        assert "transfers: 0, 0 cut" in plan.summary()


BAD = [
    ({"duration_s": 0.0}, "duration_s=0.0"),
    ({"period_s": np.inf}, "period_s=inf"),
    ({"local_steps": 0}, "local_steps=0"),
    ({"devices": network(1)}, "1 node"),
]


@pytest.mark.parametrize(("change", "words"), BAD)
def test_bad_settings(change, words):
    good = {"devices": network(4), "duration_s": 5.0, "period_s": 1.0, **LEARN} | change
    with pytest.raises(ValueError, match=words):
        gossip_learning(**good)


def test_bad_settings_of_ad_psgd():
    with pytest.raises(ValueError, match="peers of 5 nodes for 4 devices"):
        systems.ad_psgd(network(4), 5, 10.0, model_bytes=MODEL, seed=0)
    with pytest.raises(ValueError, match="offline at times"):
        systems.ad_psgd(network(4, changes=[(1.0, 2, False)]), 4, 10.0, model_bytes=MODEL, seed=0)
    with pytest.raises(ValueError, match="duration_s=-1"):
        systems.ad_psgd(network(4), 4, -1.0, model_bytes=MODEL, seed=0)
