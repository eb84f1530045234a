"""How large a message is, exactly, by protocol and by sharing: worked out by hand for a model of two leaves."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial

import gossipjax as gj
from gossipjax import protocol, sharing, timeline
from gossipjax.compress import codes, identity, qsgd, random_gossip, random_k, scaled_sign, sign_top_k, top_k
from gossipjax.tasks import quadratic
from gossipjax.timeline._events import first_event

N = 4
GRAPH = gj.topology.ring(N)
W = gj.mixing.metropolis(GRAPH)
KEY, SGD = jax.random.key(0), optax.sgd(0.1)
MODEL = 8 * 32
"""A matrix of 3 x 2 and a vector of 2, in float32."""


def start(rows=N):
    rng = np.random.default_rng(0)
    return {
        "a": jnp.asarray(rng.random((rows, 3, 2)), jnp.float32),
        "b": jnp.asarray(rng.random((rows, 2)), jnp.float32),
    }


def _loss(key, params, batch):
    del key, batch
    return sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(params))


def _one_model(key):
    del key
    return jax.tree.map(lambda leaf: leaf[0], start())


def _test(params, data):
    del data
    return {"size": _loss(None, params, None)}


SAMPLES = quadratic(np.zeros((N, 1)))
TASK = gj.Task(Partial(_one_model), SAMPLES.batch, Partial(_loss), Partial(_test), SAMPLES.data, (), N)


def learned(build, **settings):
    return lambda: build(TASK, SGD, **settings)


def said(build, *settings, **named):
    return lambda: gj.gossip_averaging(build(*settings, **named))


CLOCK = timeline.clocks.poisson(1.0)
ROUNDS = timeline.rounds(W, 3)
PAIRS = timeline.poisson_pairs(GRAPH, 9, seed=0)
PUSHED = timeline.directed_push(GRAPH, 9.0, compute=CLOCK, send=1.0, latency=0.1, seed=0)
FLIGHTS = timeline.push_gossip(GRAPH, 9.0, compute=CLOCK, gossip=1.0, latency=0.1, drop=0.3, seed=0)
MAILBOXES = timeline.swift(GRAPH, 9.0, compute=CLOCK, latency=0.1, seed=0)
CUT = {"recipients": 2, "uplink_messages_per_second": 9.0, "seed": 0}
HALVES = timeline.divshare(N, 9.0, compute=CLOCK, num_fragments=2, **CUT)
THIRDS = timeline.divshare(N, 9.0, compute=CLOCK, num_fragments=3, **CUT)
INTEGERS = codes.Wire(indices=codes.int32_indices)
FLOAT = 64
"""Bits of JAX's default float here: that of push-sum's weights."""

CASES = {
    "gossip": (gj.gossip_averaging, ROUNDS, MODEL),
    "dpsgd": (learned(protocol.dpsgd), ROUNDS, MODEL),
    "dpsgd, 2017": (learned(protocol.dpsgd, order="combine_then_adapt"), PAIRS, MODEL),
    "local_sgd": (learned(protocol.local_sgd, local_steps=3), ROUNDS, MODEL),
    "ad_psgd": (learned(protocol.ad_psgd), PAIRS, MODEL),
    "gossip_learning": (learned(protocol.gossip_learning), PAIRS, MODEL),
    "gradient tracking, two vectors": (learned(protocol.gradient_tracking), ROUNDS, 2 * MODEL),
    "beer, two vectors": (learned(protocol.beer, compressor=top_k(2), gamma=0.5), ROUNDS, 2 * 2 * (32 + 32)),
    "d2, one vector": (learned(protocol.d2), timeline.rounds(gj.mixing.lazy(W), 3), MODEL),
    "exact diffusion, one vector": (learned(protocol.exact_diffusion), ROUNDS, MODEL),
    "led, one vector": (learned(protocol.led, local_steps=3), timeline.rounds(gj.mixing.lazy(W), 3), MODEL),
    "extra, one vector": (learned(protocol.extra), ROUNDS, MODEL),
    "k-gt, two vectors": (lambda: protocol.k_gt(TASK, 0.1, local_steps=2), ROUNDS, 2 * MODEL),
    "prox-skip, always, one vector": (learned(protocol.prox_skip, probability=1.0), ROUNDS, MODEL),
    "quasi-global momentum": (learned(protocol.quasi_global_momentum), ROUNDS, MODEL),
    "dlm, one vector": (lambda: protocol.dlm(TASK, 0.1, penalty=0.1), ROUNDS, MODEL),
    "nids, one vector": (lambda: protocol.nids(TASK, 0.1), ROUNDS, MODEL),
    "lead, one compressed vector": (lambda: protocol.lead(TASK, 0.1, qsgd(3)), ROUNDS, 32 + 8 * (1 + 2)),
    "push-sum, a weight": (gj.push_sum, PUSHED, MODEL + FLOAT),
    "sgp, a weight": (learned(protocol.sgp), PUSHED, MODEL + FLOAT),
    "swift": (learned(protocol.swift), MAILBOXES, MODEL),
    "halves": (learned(protocol.dpsgd, sharing=sharing.fragments(2)), HALVES, (3 + 1) * 32),
    "thirds": (learned(protocol.dpsgd, sharing=sharing.fragments(3)), THIRDS, (2 + 1) * 32),
    "fedavg": (learned(protocol.fedavg, local_steps=2), timeline.client_sampling(N, 2, 3, seed=0), MODEL),
    "fedbuff": (
        learned(protocol.fedbuff),
        timeline.fedbuff(N, 9.0, concurrency=2, train_time=CLOCK, buffer_size=1, seed=0),
        MODEL,
    ),
    "fedprox": (
        learned(protocol.fedprox, local_steps=2, mu=0.5),
        timeline.client_sampling(N, 2, 3, seed=0),
        MODEL,
    ),
    "fedopt": (
        learned(protocol.fedadam, local_steps=2, server_step_size=0.1),
        timeline.client_sampling(N, 2, 3, seed=0),
        MODEL,
    ),
    "fednova": (
        lambda: protocol.fednova(TASK, 0.1, local_steps=[2] * N),
        timeline.client_sampling(N, 2, 3, seed=0),
        MODEL,
    ),
    "feddyn": (
        learned(protocol.feddyn, local_steps=2, alpha=0.5),
        timeline.client_sampling(N, 2, 3, seed=0),
        MODEL,
    ),
    "scaffold, two vectors": (
        lambda: protocol.scaffold(TASK, 0.1, local_steps=2),
        timeline.client_sampling(N, 2, 3, seed=0),
        2 * MODEL,
    ),
    "walks": (
        learned(protocol.random_walk),
        timeline.random_walks(GRAPH, 9, num_walks=2, service=1.0, seed=0),
        MODEL,
    ),
    "all-reduce": (learned(protocol.allreduce_sgd), ROUNDS, 2 * (N - 1) / N * MODEL),
    "random subset, a seed": (said(sharing.random_subset, 1.0), ROUNDS, MODEL + 64),
    "top-k, integers": (said(sharing.top_k, 0.25, wire=INTEGERS), ROUNDS, 2 * (32 + 32)),
    "top-k, an envelope": (said(sharing.top_k, 1.0, wire=codes.Wire(envelope_bytes=5)), ROUNDS, MODEL + 40),
    "jwins, all": (said(sharing.jwins, (1.0,), transform=gj.compress.transforms.identity()), ROUNDS, MODEL),
    "choco": (said(sharing.choco, top_k(3), 0.5), ROUNDS, 3 * (32 + 32)),
    "choco, coins": (said(sharing.choco, random_gossip(1.0), 0.5), ROUNDS, MODEL),
    "sparq, moved": (said(sharing.sparq, sign_top_k(2), 0.5, 0.0), ROUNDS, 32 + 2 * (1 + 32)),
    "sparq, silent": (said(sharing.sparq, sign_top_k(2), 0.5, 1e9), ROUNDS, 0),
    "qsgd": (said(sharing.compressed, qsgd(3)), ROUNDS, 32 + 8 * (1 + 2)),
    "qsgd, 5 levels": (said(sharing.compressed, qsgd(4)), ROUNDS, 32 + 8 * (1 + 3)),
    "signs": (said(sharing.deep_squeeze, scaled_sign(), 0.5), ROUNDS, 32 + 8),
    "random-k, a seed": (said(sharing.compressed, random_k(3)), ROUNDS, 3 * 32 + 64),
    "feedback": (said(sharing.error_feedback, sharing.full()), ROUNDS, MODEL),
    "dcd": (said(sharing.dcd, identity()), ROUNDS, MODEL),
    "ecd": (said(sharing.ecd, identity()), ROUNDS, MODEL),
    "noise": (said(sharing.noisy, 0.1), ROUNDS, MODEL),
    "noise of pairs": (said(sharing.decor, GRAPH, 0.1, 0.1), ROUNDS, MODEL),
    "noise of receivers": (said(sharing.zip_dl, GRAPH, 0.1), ROUNDS, MODEL),
    "three steps": (said(sharing.multi_step, 3), ROUNDS, 3 * MODEL),
    "moniqua": (said(sharing.moniqua, 3, 9.0), ROUNDS, 3 * 8),
    "power gossip, left": (said(sharing.power_gossip, GRAPH), ROUNDS, 2 * 32 + 3 * 32),
    "power gossip, both": (said(sharing.power_gossip, GRAPH, iterations=2), ROUNDS, 2 * 32 + (3 + 2) * 32),
    "secure, with two keys": (said(sharing.secure_aggregation, GRAPH), ROUNDS, MODEL + 64 + 2 * 256),
    "secure, shares of a set": (
        said(sharing.secure_aggregation, GRAPH, recovery="shares", share=0.5),
        ROUNDS,
        4 * 32 + 64 + 256 * (2 + 2 + 4 + 2) + 32,
    ),
    "fragments": (said(sharing.fragments, 2), HALVES, (3 + 1) * 32),
    "halves, drawn by the sender": (learned(protocol.ad_psgd, sharing=sharing.fragments(2)), FLIGHTS, (3 + 1) * 32),
    "top-k in flight": (learned(protocol.ad_psgd, sharing=sharing.top_k(0.25, wire=INTEGERS)), FLIGHTS, 2 * (32 + 32)),
    "a subset at meetings": (learned(protocol.gossip_learning, sharing=sharing.random_subset(1.0)), PAIRS, MODEL + 64),
    "qsgd in mailboxes": (learned(protocol.swift, sharing=sharing.compressed(qsgd(3))), MAILBOXES, 32 + 8 * (1 + 2)),
    "push-sum of halves, a weight": (lambda: gj.push_sum(sharing.fragments(2)), PUSHED, (3 + 1) * 32 + 32),
    "push-sum of top-k, weights": (
        lambda: gj.push_sum(sharing.top_k(0.25, wire=INTEGERS)),
        PUSHED,
        2 * (32 + 32 + 32),
    ),
    "sgp of qsgd, a weight": (learned(protocol.sgp, sharing=sharing.compressed(qsgd(3))), PUSHED, 32 + 8 * 3 + FLOAT),
    "runs": (said(sharing.fragments, 3, layout="contiguous"), THIRDS, 3 * 32),
}


def first_info(method, plan):
    """What the first step reports; a plain int would not pass through jit."""
    facts, found = plan.properties, []
    x0 = gj.with_slots(start(facts.num_rows), facts)

    def step(state):
        _, info = method.step(KEY, state, first_event(KEY, plan))
        found.append(info.bits if isinstance(info.bits, int) else None)
        return None if isinstance(info.bits, int) else info.bits

    bits = jax.jit(step)(method.init(KEY, x0))
    return found[0] if bits is None else np.asarray(bits)


@pytest.mark.parametrize("name", CASES)
def test_bits_of_a_message(name):
    build, plan, expected = CASES[name]
    np.testing.assert_array_equal(first_info(build(), plan), expected)


@pytest.mark.parametrize(("learns", "wide"), [(False, False), (False, True), (True, True)])
def test_bytes_of_push_sum_hold_the_weight_of_every_message(learns, wide):
    """A mass is a model and one number, in the precision in which each is kept."""
    with jax.enable_x64(wide):
        method = gj.sgp(TASK, SGD) if learns else gj.push_sum()
        run = gj.simulate(KEY, method, PUSHED, start(), record_every=len(PUSHED))
    each = MODEL // 8 + (8 if wide else 4)
    assert run["messages_sent"][-1] == PUSHED.properties.traffic.sent
    assert run["bytes_sent"][-1] == each * PUSHED.properties.traffic.sent


RUNS = ["gossip", "gradient tracking, two vectors", "sparq, silent", "halves", "fedbuff", "halves, drawn by the sender"]
RUNS += ["top-k in flight", "qsgd in mailboxes", "push-sum of top-k, weights"]


@pytest.mark.parametrize("name", RUNS)
def test_bytes_of_a_run(name):
    """Messages by the timeline, each of the size above."""
    build, plan, bits = CASES[name]
    run = gj.simulate(KEY, build(), plan, start(plan.properties.num_rows), record_every=len(plan))
    sent = 3 * 2 * N if plan is ROUNDS else int(np.asarray(plan.xs["messages"]).sum())
    assert run["messages_sent"][-1] == sent
    assert run["bytes_sent"][-1] == sent * bits / 8


def test_bytes_of_all_reduce_round_to_whole_bits():
    run = gj.simulate(KEY, protocol.allreduce_sgd(TASK, SGD), ROUNDS, start(), record_every=3)
    assert run["bytes_sent"][-1] == 3 * N * 2 * (N - 1) / N * MODEL / 8
    assert run["messages_sent"][-1] == 3 * N
