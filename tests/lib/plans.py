"""One small plan of every builder that plans by the clock, for what holds of all of them."""

import numpy as np
from jax.tree_util import Partial

from gossipjax import Info, Protocol, Requires
from gossipjax import timeline as tl
from gossipjax.topology import exponential, ring

N = 6
CLOCK = tl.clocks.shifted_exponential(0.3, 0.5)


def _init(key, x0):
    del key
    return x0


def _stay(key, x, event):
    del key, event
    return x, Info(bits=32)


def _model(x):
    return x


def still(plan):
    """A protocol under which nothing changes and every message counts: it runs on any timeline."""
    requires = Requires(num_fragments=plan.properties.num_fragments)
    return Protocol(Partial(_init), Partial(_stay), Partial(_model), requires)


def draw(rng, size):
    return rng.exponential(0.2, size)


PLANS = {
    "pushes": lambda d: tl.push_gossip(N, d, compute=CLOCK, gossip=1.0, seed=0),
    "pushes in flight": lambda d: tl.push_gossip(N, d, compute=CLOCK, gossip=1.0, latency=draw, drop=0.2, seed=0),
    "a queue": lambda d: tl.push_gossip(
        N, d, compute=CLOCK, gossip=3.0, latency=0.3, inbox="queue", capacity=2, busy_receives=False, seed=0
    ),
    "newest": lambda d: tl.push_gossip(N, d, compute=CLOCK, gossip=3.0, inbox="newest", seed=0),
    "exchanges": lambda d: tl.push_gossip(
        N, d, compute=CLOCK, gossip=1.0, two_way=True, drop=0.3, busy_receives=False, seed=0
    ),
    "halves": lambda d: tl.directed_push(exponential(N), d, compute=CLOCK, send=1.0, seed=0),
    "halves in flight": lambda d: tl.directed_push(ring(N), d, compute=None, send=1.0, latency=0.4, drop=0.3, seed=0),
    "fragments": lambda d: tl.divshare(
        N,
        d,
        compute=CLOCK,
        num_fragments=3,
        recipients=2,
        uplink_messages_per_second=4.0,
        latency=0.1,
        drop=0.1,
        seed=0,
    ),
    "a buffer": lambda d: tl.fedbuff(N, d, concurrency=3, train_time=CLOCK, buffer_size=2, max_staleness=1, seed=0),
    "fresh gradients": lambda d: tl.ringmaster(N, d, compute=CLOCK, max_delay=3, stop=True, latency=0.1, seed=0),
    "batches": lambda d: tl.rennala(N, d, compute=CLOCK, batch_size=4, latency=0.1, seed=0),
    "batches of all": lambda d: tl.malenia(N, d, compute=CLOCK, batch_size=4, latency=0.1, seed=0),
    "the first": lambda d: tl.m_synchronous(N, d, compute=CLOCK, wait_for=3, latency=0.1, seed=0),
    "averaging": lambda d: tl.pairwise(N, d, compute=CLOCK, communicate=1.0, seed=0),
    "handshakes": lambda d: tl.pairwise(N, d, compute=CLOCK, communicate=1.0, atomic=False, latency=0.2, seed=0),
    "a source": lambda d: tl.version_age(N, d, version_rate=1.0, source_rate=1.0, gossip_rate=1.0, seed=0),
    "opportunistic": lambda d: tl.opportunistic(N, d, update_rate=1.0, capacity=1.0, relay="newest", seed=0),
    "mailboxes": lambda d: tl.swift(ring(N), d, compute=CLOCK, period=2, latency=0.1, seed=0),
    "walks": lambda d: tl.random_walks(ring(N), duration=d, num_walks=2, service=1.0, mix_on_arrival=True, seed=0),
    "pairs": lambda d: tl.poisson_pairs(ring(N), duration=d, seed=0),
    "edges": lambda d: tl.poisson_edges(ring(N), duration=d, seed=0),
    "one way": lambda d: tl.poisson_push(ring(N), duration=d, seed=0),
    "gossip learning": lambda d: tl.gossip_learning(N, d, period=1.0, latency=0.1, drop=0.1, seed=0),
    "push-pull": lambda d: tl.gossip_learning(
        N, d, period=1.0, mode="push_pull", create="update_merge", merge="last_received", seed=0
    ),
    "tokens": lambda d: tl.gossip_learning(N, d, period=1.0, tokens=tl.RandomizedTokens(2, 4), seed=0),
}
"""``build(duration)``."""
ROUNDS = {
    "fixed": lambda s: tl.rounds(np.full((4, 4), 0.25), 40, seconds_per_round=s),
    "cycle": lambda s: tl.rounds([np.full((4, 4), 0.25), np.eye(4)], 40, seconds_per_round=s),
    "matchings": lambda s: tl.matching_rounds(4, 40, seed=0, seconds_per_round=s),
    "drawn matchings": lambda s: tl.drawn_matchings(4, 40, seconds_per_round=s),
    "changing": lambda s: tl.changing_rounds(ring(4), 40, activity=tl.activity.cyclic(2), seconds_per_round=s),
    "clients": lambda s: tl.client_sampling(8, 4, 40, seed=0, seconds_per_round=s),
    "teleportation": lambda s: tl.teleportation(np.full((2, 2), 0.5), 4, 40, seed=0, seconds_per_round=s),
    "shatter": lambda s: tl.shatter(4, 40, virtual_nodes=2, degree=3, seed=0, seconds_per_round=s),
    "push rounds": lambda s: tl.push_rounds(4, 40, step=s, compute=None, gossip_rate=1.0, seed=0),
}
"""``build(seconds)``: 40 rounds of so many seconds, on four rows."""
