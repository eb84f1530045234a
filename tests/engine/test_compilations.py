"""One main program per run, and none for other lengths, intervals, graphs, learning rates and seeds."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compilations import compiled
from jax.tree_util import Partial

from gossipjax import dpsgd, gossip_averaging, simulate
from gossipjax._base.placement import SMALL_ROW
from gossipjax.mixing import metropolis
from gossipjax.observe import consensus_distance, node_metrics
from gossipjax.tasks import quadratic
from gossipjax.timeline import poisson_pairs, rounds
from gossipjax.topology import random_regular, ring

N = 6
MAIN = "jit(_advance_call)"


def learn(task, *, optimizer=None, total=30, seed=0, graph_seed=0, **settings):
    """Train by D-PSGD and observe as the README's first example does, on a smaller problem."""
    plan = rounds(metropolis(random_regular(N, 3, seed=graph_seed)), total)
    protocol = dpsgd(task, Partial(optax.sgd, 0.1) if optimizer is None else optimizer)
    watch = [node_metrics(task), consensus_distance()]
    return simulate(jax.random.key(seed), protocol, plan, task, observers=watch, **settings)


def problem(size):
    return quadratic(np.random.default_rng(0).normal(size=(N, size)))


CHANGES = {
    "another learning rate": {"optimizer": Partial(optax.sgd, 0.3)},
    "another number of rounds": {"total": 47},
    "another interval": {"record_every": 4},
    "irregular records": {"record_at": [1, 2, 17]},
    "another seed": {"seed": 1},
    "another graph": {"graph_seed": 1},
    "a callback": {"callback": lambda record: None},
    "a progress bar": {"progress": True},
}


def test_one_main_program_for_all_lengths_intervals_graphs_rates_and_seeds():
    task = problem(7)
    with compiled() as names:
        learn(task)
    assert names.count(MAIN) == 1
    for what, change in CHANGES.items():
        with compiled() as names:
            learn(task, **change)
        assert names == [], what


# An event's arguments together are above the threshold from about half of it on.
@pytest.mark.parametrize("row", [SMALL_ROW * 3 // 4, 2 * SMALL_ROW])
def test_one_main_program_for_rows_of_any_size_on_two_devices(row):
    with compiled() as names:
        run = learn(problem(row // 8))
    assert names.count(MAIN) == 1
    assert run.manifest["configuration"]["strategy"].startswith("vmap" if row < SMALL_ROW else "shard")


def test_one_main_program_for_meetings():
    def meet(total, **settings):
        plan = poisson_pairs(ring(N), total, seed=0)
        x0 = jnp.arange(5.0 * N).reshape(N, 5)
        return simulate(jax.random.key(0), gossip_averaging(), plan, x0, **settings)

    with compiled() as names:
        meet(40, record_every=5)
    assert names.count(MAIN) == 1
    with compiled() as names:
        meet(37, record_every=3)
        meet(40, record_at=[7], callback=lambda record: None)
    assert names == []


def test_one_main_program_for_meetings_that_are_packed():
    plan = poisson_pairs(ring(N), 400, seed=0)
    with compiled() as names:
        simulate(jax.random.key(0), gossip_averaging(), plan, jnp.ones((N, 3)), packing="packed", record_every=40)
    assert names.count(MAIN) == 1
