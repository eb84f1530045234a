"""Events that touch a few rows do not copy all rows: the compiled loop is searched for copies of whole leaves."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial

from gossipjax import ad_psgd, dpsgd, gossip_learning, run, sgp, swift, tasks, timeline, with_slots
from gossipjax.timeline import clocks
from gossipjax.topology import ring

N, D = 24, 5000
CLOCK = clocks.poisson(1.0)
TASK = tasks.quadratic(np.ones((N, D)))
PLANS = {
    "ad_psgd": (ad_psgd, timeline.pairwise(N, 4.0, compute=CLOCK, communicate=1.0, seed=0)),
    "ad_psgd in flight": (ad_psgd, timeline.push_gossip(N, 4.0, compute=CLOCK, gossip=1.0, latency=0.1, seed=0)),
    "sgp": (sgp, timeline.directed_push(ring(N), 4.0, compute=CLOCK, send=1.0, latency=0.1, seed=0)),
    "swift": (swift, timeline.swift(ring(N), 4.0, compute=CLOCK, latency=0.1, seed=0)),
    "gossip_learning": (gossip_learning, timeline.gossip_learning(N, 4.0, period=1.0, latency=0.1, seed=0)),
    "dpsgd": (dpsgd, timeline.poisson_pairs(ring(N), 96, seed=0)),
}


def copies(protocol, plan, x0):
    """The copies of all rows inside the loops of a run; those before the first event, outside the loops, are free."""
    state = protocol.init(jax.random.key(0), with_slots(x0, plan.properties))
    program = jax.jit(run).lower(jax.random.key(0), protocol, plan, state).compile().as_text()
    loops = [part for part in program.split("\n\n") if not part.startswith("ENTRY")]
    rows = plan.properties.num_rows + plan.properties.num_slots
    return re.findall(rf"\[(?:{N}|{rows}),{D}\]\S* copy\(.*", "\n".join(loops))


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the program of another backend names its copies otherwise")
@pytest.mark.parametrize("name", PLANS)
def test_no_event_copies_all_rows(name):
    builder, plan = PLANS[name]
    assert copies(builder(TASK, Partial(optax.sgd, 0.1)), plan, jnp.zeros((N, D))) == []


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the program of another backend names its copies otherwise")
def test_a_copy_is_seen():
    """A step that writes a row, and reads another of the rows as they were."""
    builder, plan = PLANS["ad_psgd"]
    protocol = builder(TASK, Partial(optax.sgd, 0.1))

    def step(key, state, event):
        after, info = protocol.step(key, state, event)
        return after._replace(snapshot=after.snapshot.at[event.nodes].set(state.x[event.nodes] + after.x[:1])), info

    assert copies(protocol._replace(step=Partial(step)), plan, jnp.zeros((N, D)))
