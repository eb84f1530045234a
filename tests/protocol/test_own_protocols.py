"""Protocols of one's own: gradients of the acting nodes, and what is reported of messages."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial
from problems import CURVATURE, TARGETS, X0, N, exact_quadratic

import gossipjax as gj
from gossipjax import Event
from gossipjax._base import counter
from gossipjax._base.rows import increase, put
from gossipjax.mixing import mix
from gossipjax.protocol._local import acting_gradients

KEY, TASK, RATE = jax.random.key(0), exact_quadratic(), 0.1
GRAPH = gj.topology.barabasi_albert(N, 2, seed=1)
W = gj.mixing.metropolis(GRAPH)
CLOSE = {"rtol": 1e-12, "atol": 1e-14}  # float64, sums in another order


def _start(key, x0):
    del key
    return x0


def _same(x):
    return x


def sgd_step(report, key, x, event):
    loss, gradients = gj.node_gradients(key, TASK, x, event)
    x = jax.tree.map(lambda leaf, grad: leaf - RATE * grad, x, gradients)
    bits = gj.bits_per_row(x) if report else None
    return mix(event.mixing, x), gj.Info(bits=bits, loss=loss)


def own_sgd(report=True):
    return gj.Protocol(_start, partial(sgd_step, report), _same)


PLANS = {
    "rounds": gj.timeline.rounds(W, 5),
    "pairs": gj.timeline.poisson_pairs(GRAPH, 40, seed=0),
    "edges": gj.timeline.poisson_edges(GRAPH, 40, seed=0),
    "pushes": gj.timeline.poisson_push(GRAPH, 40, seed=0),
    "drawn": gj.timeline.drawn_gossip(GRAPH, 40, update_rate=1.0, gossip_rate=1.0),
    "steps": gj.timeline.push_rounds(GRAPH, 4, compute=1.0, gossip_rate=1.0, seed=0),
    "packed": gj.pack(gj.timeline.poisson_pairs(GRAPH, 40, seed=0), 8),
    "flights": gj.timeline.push_gossip(
        GRAPH, 9.0, compute=gj.timeline.clocks.poisson(1.0), gossip=1.0, latency=0.2, seed=0
    ),
}


@pytest.mark.parametrize("name", PLANS)
def test_a_step_along_the_gradients_is_dpsgd(name):
    """Rows of nodes that do not act stay where they are."""
    plan, x0 = PLANS[name], jnp.asarray(X0)
    expected = gj.simulate(KEY, gj.dpsgd(TASK, optax.sgd(RATE)), plan, x0, packing="sequential")
    found = gj.simulate(KEY, own_sgd(), plan, x0, packing="sequential")
    np.testing.assert_allclose(found.x, expected.x, **CLOSE)
    for variable in ("train_loss", "bytes_sent", "messages_sent"):
        np.testing.assert_allclose(found[variable], expected[variable], rtol=1e-6)  # losses are summed in float32


def test_gradients_of_rows_that_are_no_nodes():
    event = Event(jnp.zeros(3, jnp.uint32), jnp.zeros(3), nodes=jnp.asarray([4, 99, 1]), rows=jnp.asarray([0, 99, 2]))
    x = jnp.asarray(X0[:3])
    loss, found = gj.node_gradients(KEY, TASK, x, event)
    expected = np.zeros_like(X0[:3])
    expected[0] = (CURVATURE * (X0[0] - TARGETS))[4]
    expected[2] = (CURVATURE * (X0[2] - TARGETS))[1]
    assert loss.shape == (3,)
    np.testing.assert_allclose(found, expected, **CLOSE)
    acting = acting_gradients(KEY, TASK, x, event)[1]
    np.testing.assert_allclose(acting[jnp.asarray([0, 2])], expected[[0, 2]], **CLOSE)


@pytest.mark.parametrize("write", [put, increase])
@pytest.mark.parametrize("rows", [2, 6], ids=["few", "many"])
def test_one_value_is_not_spread_over_rows(write, rows):
    x = {"w": jnp.zeros((8, 3))}
    with pytest.raises(ValueError, match=rf"values of shape \(1, 3\) for {rows} rows"):
        write(x, jnp.arange(rows), {"w": jnp.ones((1, 3))})
    with pytest.raises(ValueError, match="one value a row"):
        write(x, jnp.arange(rows), {"w": jnp.ones((rows, 1))})


@pytest.mark.parametrize("name", ["rounds", "pairs"])
@pytest.mark.parametrize("seeds", [None, 2])
def test_what_is_not_reported_is_not_a_number(name, seeds):
    key = KEY if seeds is None else jax.random.split(KEY, seeds)
    run = gj.simulate(key, own_sgd(report=False), PLANS[name], jnp.asarray(X0))
    for variable in ("bytes_sent", "messages_sent"):
        assert np.isnan(run[variable]).all()
        assert run[variable].dims == run["train_loss"].dims


def test_zero_bits_are_a_report():
    silent = gj.Protocol(_start, lambda key, x, event: (x, gj.Info(bits=0)), _same)
    run = gj.simulate(KEY, silent, PLANS["rounds"], jnp.asarray(X0))
    assert (run["bytes_sent"] == 0).all()
    assert run["messages_sent"][-1] > 0


def test_what_is_not_reported_cannot_be_metered():
    with pytest.raises(ValueError, match=r"does not report what it sends.*bits_per_row"):
        gj.simulate(KEY, gj.metered(own_sgd(report=False)), PLANS["rounds"], jnp.asarray(X0))
    metered = gj.simulate(KEY, gj.metered(own_sgd()), PLANS["rounds"], jnp.asarray(X0))
    assert counter.value(metered.state.meter.traffic.sent).sum() == 8 * metered["bytes_sent"][-1]


# --- what a schedule counts -------------------------------------------------------------------------------------------


def _sum(key, params, batch):
    del key, batch
    return jnp.sum(params)


def _one_number(key):
    del key
    return jnp.zeros(1)


LINEAR = dataclasses.replace(TASK, init=Partial(_one_number), loss=Partial(_sum))
COUNTING = optax.scale_by_schedule(lambda count: -count.astype(float))
"""Step c of an optimizer state moves a model by −c where the gradient is one."""


def moved(steps):
    """Where c = 0, 1 … steps − 1 add up to."""
    return -(steps * (steps - 1) / 2)


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("name", ["pairs", "edges", "rounds"])
def test_a_schedule_counts_a_nodes_own_local_steps(name, steps):
    """Averaging of pairs keeps the sum of all models, so that the steps of all nodes add up in it."""
    plan = PLANS[name]
    acts = np.full(N, len(plan)) if name == "rounds" else np.bincount(np.ravel(acting_nodes(plan)), minlength=N)
    run = gj.simulate(KEY, gj.dpsgd(LINEAR, COUNTING, local_steps=steps), plan, jnp.zeros((N, 1)))
    np.testing.assert_allclose(run.x.sum(), moved(steps * acts).sum(), rtol=1e-12)
    if name == "pairs" and steps == 1:
        other = gj.simulate(KEY, gj.ad_psgd(LINEAR, COUNTING), plan, jnp.zeros((N, 1)))
        np.testing.assert_allclose(other.x, run.x, rtol=1e-12)


def acting_nodes(plan):
    return plan.xs["first"] if plan is PLANS["pairs"] else np.stack([plan.xs["first"], plan.xs["second"]])


def test_a_schedule_counts_a_walks_steps_and_starts_anew_with_a_fresh_optimizer():
    walk = gj.timeline.random_walks(GRAPH, 9, num_walks=2, service=1.0, seed=0)
    visits = np.bincount(walk.xs["rows"][:, 0])
    run = gj.simulate(KEY, gj.random_walk(LINEAR, COUNTING, local_steps=2), walk, jnp.zeros((2, 1)))
    np.testing.assert_allclose(run.x[:, 0], moved(2 * visits), rtol=1e-12)
    clients = gj.timeline.client_sampling(N, 3, 5, seed=0)
    run = gj.simulate(KEY, gj.fedavg(LINEAR, COUNTING, local_steps=3), clients, jnp.zeros((3, 1)))
    np.testing.assert_allclose(run.x, np.full((3, 1), 5 * moved(3)), rtol=1e-12)
    run = gj.simulate(KEY, gj.allreduce_sgd(LINEAR, COUNTING), PLANS["rounds"], jnp.zeros((N, 1)))
    np.testing.assert_allclose(run.x, np.full((N, 1), moved(5)), rtol=1e-12)
