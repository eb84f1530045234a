"""Robust rules on inboxes: the newest model of each neighbour, as old as it is, against a loop that knows no slots."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

import gossipjax as gj
from gossipjax import robust as R

T, tl, KEY = gj.topology, gj.timeline, jax.random.key(0)
GRAPH = T.random_regular(8, 5, seed=1, tries=20)
X0 = np.random.default_rng(0).standard_normal((8, 3))
LIARS = (2, 6)


def plan(latency=None, duration=8.0, graph=GRAPH):
    weights = gj.mixing.metropolis(graph)
    return tl.swift(graph, duration, compute=tl.clocks.poisson(1.0), latency=latency, weights=weights, seed=3)


def simulated(rule, attackers=(), attack=None, latency=None, topology=GRAPH, x0=X0, **words):
    protocol = gj.gossip_averaging(gj.sharing.robust(rule, attackers, attack, topology=topology))
    return gj.simulate(KEY, protocol, plan(latency), jnp.asarray(x0), observers=[], **words)


# A loop over ticks in float64: who ticks when is read off the plan, what lies in which inbox is not.


def trimmed(own, heard, weights):
    V = np.sort(np.vstack([own, heard]), axis=0)
    return V[1:-1].mean(0)


def nna(own, heard, weights):
    near = np.argsort(np.linalg.norm(heard - own, axis=1), kind="stable")[: len(heard) - 1]
    return np.vstack([own, heard[near]]).mean(0)


def ios(own, heard, weights):
    left, w0 = list(range(len(heard))), 1 - weights.sum()
    mean = w0 * own + weights @ heard
    left.pop(int(np.argmax(np.linalg.norm(heard - mean, axis=1))))
    return (w0 * own + weights[left] @ heard[left]) / (w0 + weights[left].sum())


def gts(own, heard, weights):
    left, total = 0.2, np.zeros_like(own)
    for j in np.argsort(-np.linalg.norm(heard - own, axis=1), kind="stable"):
        dropped = min(weights[j], left)
        left -= dropped
        total += (weights[j] - dropped) * (heard[j] - own)
    return own + total


def clipped(own, heard, weights):
    length = np.linalg.norm(heard - own, axis=1)
    return own + (weights * np.minimum(1, 0.5 / np.maximum(length, 1e-9))) @ (heard - own)


RULES = {
    "trimmed": (R.trimmed_mean(1), trimmed, 3),
    "nna": (R.nna(1), nna, 2),
    "ios": (R.ios(1), ios, 2),
    "gts": (R.gts(0.2), gts, 1),
    "clipped": (R.clipped_gossip(0.5), clipped, 1),
}


def sign_flip(own, honest, weights, liar_weight, before):
    return -np.vstack([own, honest]).mean(0)


def dissensus(own, honest, weights, liar_weight, before):
    return own - 2 * weights @ (honest - own) / liar_weight


def targeted_echo(own, honest, weights, liar_weight, before):
    return 2 * (own - before)


ATTACKS = {
    "sign flip": (R.sign_flip(), sign_flip),
    "dissensus": (R.dissensus(2.0), dissensus),
    "targeted echo": (R.targeted_echo(), targeted_echo),
}


def loop(rule, least, lie, latency, graph=GRAPH, x0=X0):
    """Run the ticks one by one; node i reads the newest model of each neighbour that has arrived."""
    timeline = plan(latency, graph=graph)
    times, nodes = timeline.xs["time"], timeline.xs["nodes"][:, 0]
    W = gj.mixing.metropolis(graph).toarray()
    x, sent = np.array(x0), {j: [] for j in range(len(x0))}
    last = x.copy()  # the model of each node at its last tick
    waited = 0
    for t, i in zip(times, nodes, strict=True):
        inbox = {}
        for j in np.flatnonzero(W[i] * (np.arange(len(W)) != i)):
            there = [model for at, model in sent[j] if at + (latency or 0.0) <= t]
            if there:
                inbox[j] = there[-1]
        sent[i].append((t, x[i].copy()))
        before, last[i] = last[i].copy(), x[i]
        names = list(inbox)
        weights = W[i, names]
        if not names:
            continue
        heard = np.array([inbox[j] for j in names])
        if i in LIARS and lie is not None:
            x[i] = x[i] + weights @ (heard - x[i])
            continue
        if lie is not None and any(j in LIARS for j in names):
            lying = np.isin(names, LIARS)
            told = lie(x[i], heard[~lying].reshape(-1, x.shape[1]), weights[~lying], weights[lying].sum(), before)
            heard = np.where(lying[:, None], told, heard)
        if len(names) + 1 < least:
            waited += 1
            continue
        x[i] = rule(x[i], heard, weights)
    return x, waited


@pytest.mark.parametrize("latency", [None, 1.3])
@pytest.mark.parametrize("name", ["trimmed", "gts"])
def test_rules_on_inboxes_are_the_plain_loop(name, latency):
    rule, own, least = RULES[name]
    expected, waited = loop(own, least, None, latency)
    np.testing.assert_allclose(simulated(rule, latency=latency).x[:8], expected, rtol=0, atol=1e-12)
    assert least < 3 or waited


@pytest.mark.slow  # each compiles a run
@pytest.mark.parametrize("lie", ATTACKS)
@pytest.mark.parametrize("name", RULES)
def test_lies_are_told_where_messages_arrive(name, lie):
    """Of all rules, with ages of about a tick; liars and honest nodes read old models, and lies are made of these."""
    (rule, own, least), (attack, told) = RULES[name], ATTACKS[lie]
    expected, _ = loop(own, least, told, 0.9)
    found = simulated(rule, LIARS, attack, latency=0.9)
    np.testing.assert_allclose(found.x[:8], expected, rtol=0, atol=1e-11)


def _broken(victim, common):
    del common
    return jnp.full_like(victim.others, jnp.nan)


@pytest.mark.slow
def test_a_message_that_is_not_finite_is_the_farthest():
    """One liar whose messages hold NaN: NNA with b = 1 averages the others."""
    honest = [j for j in range(8) if j != 2]
    found = simulated(R.nna(1), (2,), R.Attack(Partial(_broken)), latency=0.9).x[:8]
    assert np.isfinite(np.asarray(found)[honest]).all()
    with pytest.raises(gj.Diverged, match="not finite than the rule tolerates"):
        simulated(R.nna(0), (2,), R.Attack(Partial(_broken)), latency=0.9)


@pytest.mark.slow
def test_the_own_model_counts_once_and_padding_never():
    """Without liars the rules that then mean are the mean of own and heard, whatever the padded lanes hold."""
    x0 = X0 + 5  # rows of messages start at 0, which a padded lane would pull to
    expected, _ = loop(lambda own, heard, weights: np.vstack([own, heard]).mean(0), 1, None, 0.9, x0=x0)
    for rule in (R.nna(0), R.trimmed_mean(0)):
        found = simulated(rule, latency=0.9, topology=None, x0=x0).x[:8]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    mixed, _ = loop(lambda own, heard, weights: own + weights @ (heard - own), 1, None, 0.9, x0=x0)
    for rule in (R.gts(0.0), R.ios(0), R.clipped_gossip(np.inf)):
        np.testing.assert_allclose(simulated(rule, latency=0.9, topology=None, x0=x0).x[:8], mixed, rtol=0, atol=1e-12)
    plain = gj.simulate(KEY, gj.gossip_averaging(), plan(0.9), jnp.asarray(x0), observers=[]).x[:8]
    np.testing.assert_allclose(plain, mixed, rtol=0, atol=1e-12)


@pytest.mark.slow
def test_inboxes_that_are_not_full_end_the_run_unless_the_graph_is_known():
    with pytest.raises(gj.Diverged, match="too few neighbours"):
        simulated(R.trimmed_mean(1), topology=None)
    with pytest.raises(ValueError, match="node 0"):
        simulated(R.trimmed_mean(3))


OTHERS = (T.complete(8), [T.ring(8), T.complete(8)], T.random_regular(8, 5, seed=2, tries=20))


@pytest.mark.parametrize("topology", OTHERS, ids=["complete", "two in turns", "another regular one"])
def test_a_graph_that_is_not_the_plans_is_refused(topology):
    """On the ring no inbox ever holds what the rule needs: all nodes would keep their models for ever."""
    protocol = gj.gossip_averaging(gj.sharing.robust(R.trimmed_mean(1), topology=topology))
    for shape in (T.ring(8), GRAPH):
        with pytest.raises(ValueError, match="another topology than swift"):
            gj.simulate(KEY, protocol, plan(graph=shape), jnp.asarray(X0), observers=[])


def test_the_graph_of_a_plan_has_the_edges_with_weight():
    """Swift's graph is that of the topology by whatever name; an edge of weight 0 is none."""
    W = gj.mixing.metropolis(GRAPH).toarray()
    same = gj.sharing.robust(R.trimmed_mean(1), topology=[T.from_adjacency(W - np.diag(np.diag(W)) > 0)])
    words = {"compute": tl.clocks.poisson(1.0), "seed": 3}
    gj.facts.check_requires(same.requires, tl.swift(GRAPH, 1.0, weights=W, **words).properties)
    i, j = int(GRAPH.receivers[0]), int(GRAPH.senders[0])
    for k, l in ((i, j), (j, i)):
        W[k, k] += W[k, l]
        W[k, l] = 0
    with pytest.raises(ValueError, match="another topology"):
        gj.facts.check_requires(same.requires, tl.swift(GRAPH, 1.0, weights=W, **words).properties)


@pytest.mark.slow
def test_the_liars_must_be_fewer_than_half_of_the_nodes_not_of_the_rows():
    with pytest.raises(ValueError, match="half or more"):
        simulated(R.gts(0.1), (0, 1, 2, 3), R.echo(), latency=0.9, topology=None)


@pytest.mark.slow
def test_packed_and_sequential_runs_agree():
    words = R.cs_plus(0.2), LIARS, R.sign_flip(of="own")
    one = simulated(*words, latency=0.9, packing="sequential").x[:8]
    np.testing.assert_allclose(simulated(*words, latency=0.9, packing="packed").x[:8], one, rtol=0, atol=1e-12)


@pytest.mark.slow
def test_single_messages_with_lies_are_the_plain_loop():
    """Pushes in flight: clipping with a fixed radius, and the negative of what was sent."""
    pushes = tl.push_gossip(T.ring(8), 9.0, compute=None, gossip=1.0, latency=0.3, seed=0)
    protocol = gj.gossip_averaging(gj.sharing.robust(R.clipped_gossip(0.5), (2,), R.sign_flip(of="own")))
    found = np.asarray(gj.simulate(KEY, protocol, pushes, jnp.asarray(X0), observers=[]).x)[:8]
    x, slots = np.array(X0), {}
    for s, r, w in zip(*(pushes.xs[name][:, 0] for name in ("senders", "receivers", "weights")), strict=True):
        if r >= 8:
            slots[r] = (s, x[s].copy()) if r < 2**31 - 1 else None
        elif s >= 8 and s in slots:
            author, model = slots[s]
            heard = -model if author == 2 and r != 2 else model
            gap = heard - x[r]
            length = np.linalg.norm(gap)
            x[r] = x[r] + w * gap * (1 if r == 2 else min(1, 0.5 / length))
    np.testing.assert_allclose(found, x, rtol=0, atol=1e-12)


@pytest.mark.slow
def test_fragments_stay_refused():
    divshare = tl.divshare(
        8, 6.0, compute=tl.clocks.poisson(1.0), num_fragments=2, recipients=2, uplink_messages_per_second=9.0, seed=0
    )
    with pytest.raises(ValueError, match="fragments"):
        gj.simulate(KEY, gj.gossip_averaging(gj.sharing.robust(R.gts(0.1))), divshare, jnp.asarray(X0), observers=[])
