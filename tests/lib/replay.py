"""Running plans of different lengths in one compiled call, and the gradient step of the shared problem in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from problems import CURVATURE, TARGETS, X0, D, N, exact_quadratic

from gossipjax import Properties, Timeline, run, topology
from gossipjax.timeline import clocks
from gossipjax.timeline._events import pad
from gossipjax.timeline._from_events import planned_event

KEY = jax.random.key(5)
RATE = 0.1
SGD = optax.sgd(RATE)
TASK = exact_quadratic()
GRAPH = topology.barabasi_albert(N, 2, seed=1)
DIGRAPH = topology.exponential(N)
CLOCK = clocks.slowed(clocks.shifted_exponential(0.3, 0.5), np.linspace(1.0, 2.0, N))
EVENTS, ROWS = 512, 64
# Sums run in another order, some hundred times over, on numbers near 1.
CLOSE = {"rtol": 0, "atol": 1e-12}


def gradient(node, x):
    return CURVATURE[node] * (x - TARGETS[node])


def step(node, x, steps=1):
    for _ in range(steps):
        x = x - RATE * gradient(node, x)
    return x


@jax.jit
def run_all(protocol, timeline, x0):
    (state, _), _ = run(KEY, protocol, timeline, protocol.init(KEY, x0))
    return state


def final_state(protocol, timeline, x0=X0, idle=7.0):
    """The state after a planned timeline, padded with empty events and rows so that few shapes are compiled."""
    facts = timeline.properties
    shared = {name: np.broadcast_to(value, (len(timeline), *value.shape)) for name, value in timeline.shared.items()}
    xs = dict(timeline.xs) | shared
    assert len(timeline) <= EVENTS
    assert facts.num_rows + facts.num_slots <= ROWS
    assert len(timeline) > 20
    xs = {name: pad(name, np.asarray(array), EVENTS) for name, array in xs.items()}
    rows = np.concatenate([x0, np.full((ROWS - len(x0), D), idle)])  # what idle rows hold must not matter
    padded = Timeline(xs, {}, planned_event, Properties(facts.num_nodes, ROWS, ""))
    return run_all(protocol, padded, jnp.asarray(rows))


def models(protocol, timeline, x0=X0, idle=7.0):
    return np.asarray(protocol.model(final_state(protocol, timeline, x0, idle))[: len(x0)])
