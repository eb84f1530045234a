"""Aligned plans share one program, with the numbers of the plans themselves."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from compilations import compiled
from jax.tree_util import Partial

import gossipjax as gj

TIMES = np.array([4.0, 9.0, 14.0])


def pushes(seed):
    graph, clock = gj.topology.ring(5), gj.timeline.clocks.shifted_exponential(0.2, 0.6)
    return gj.timeline.push_gossip(graph, 15.0, compute=clock, gossip=1.0, latency=0.5, seed=seed)


def test_plans_with_different_numbers_of_messages_in_flight_share_a_program():
    plans = [pushes(seed) for seed in range(4)]
    assert len({plan.properties.num_slots for plan in plans}) > 1
    aligned, every = gj.timeline.align(plans, TIMES)
    task = gj.tasks.quadratic(np.arange(10.0).reshape(5, 2))
    protocol, key, x0 = gj.ad_psgd(task, Partial(optax.sgd, 0.1)), jax.random.key(0), jnp.ones((5, 2))
    runs = []
    for number, plan in enumerate(aligned):
        with compiled() as names:
            runs.append(gj.simulate(key, protocol, plan, x0, record_every=every, packing="sequential"))
        assert bool(names) == (number == 0)
    for plan, run in zip(plans, runs, strict=True):
        upto = int((gj.timeline.event_times(plan) <= TIMES[-1]).sum())
        alone = gj.simulate(key, protocol, plan[:upto], x0, packing="sequential")
        np.testing.assert_array_equal(alone.x, run.x)
        assert alone["bytes_sent"].values[-1] == run["bytes_sent"].values[-1]
