"""What tests of systems of rounds share: the learning, its local steps, the mixing matrices, and the ledger."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from problems import CURVATURE, TARGETS, X0, exact_quadratic

from gossipjax import dpsgd, simulate
from gossipjax.mixing import to_dense
from gossipjax.systems import activity, stand_in, traffic_series, training_series
from gossipjax.systems._activity import COMPLETED

KEY, RATE, STEPS = jax.random.key(5), 0.1, 3
MODEL = 10_000
FLOAT32 = {"rtol": 1e-6}  # times of events are kept in float32
SUMS = {"rtol": 1e-12}  # the same float64 terms, added in another order
CLOSE = {"rtol": 0, "atol": 1e-12}  # some hundred sums of numbers near 1, in another order
LEARN: dict[str, Any] = {"local_steps": STEPS, "model_bytes": MODEL}


def learned(plan):
    protocol = dpsgd(exact_quadratic(), optax.sgd(RATE), local_steps=STEPS)
    return simulate(KEY, protocol, stand_in(plan), jnp.asarray(X0), record_every=len(plan), progress=False)


def trained(x):
    """Local steps of all nodes."""
    for _ in range(STEPS):
        x = x - RATE * CURVATURE * (x - TARGETS)
    return x


def matrices(plan):
    """Mixing matrices of all rounds."""
    made = [plan.timeline.event(KEY, plan.timeline.shared, x) for x in rows_of(plan.timeline.xs)]
    return [np.asarray(to_dense(event.mixing, plan.num_nodes)) for event in made], made


def rows_of(xs):
    return [{name: jnp.asarray(column[t]) for name, column in xs.items()} for t in range(len(xs["index"]))]


def check_ledger(plan):
    """Bytes and seconds in the log, its series and its totals are the same; no transfer exceeds its size."""
    whole = activity(plan)
    ends = plan.round_end_s if not plan.node_round_end_s.size else plan.round_end_s[-1:]
    bytes_so_far = np.cumsum(plan.round_bytes)[-ends.size :]
    np.testing.assert_allclose(traffic_series(plan, ends), bytes_so_far, rtol=1e-9)
    np.testing.assert_allclose(whole.sent_bytes.sum(), plan.round_bytes.sum(), **SUMS)
    seconds = (whole.training_end_s - whole.training_start_s).sum()
    np.testing.assert_allclose(training_series(plan, ends)[-1], seconds, rtol=1e-9)
    np.testing.assert_allclose(plan.node_training_seconds.sum(), seconds, rtol=1e-9)
    assert (whole.sent_bytes <= MODEL).all()
    assert (whole.sent_bytes[whole.state == COMPLETED] == MODEL).all()
    assert (whole.ended_s >= whole.asked_s).all()
    assert plan.timeline.properties.traffic.sent == whole.sender.size
    assert plan.timeline.properties.traffic.dropped == plan.round_dropped.sum()
    grid = np.linspace(0, plan.end_s, 50)
    assert (np.diff(traffic_series(plan, grid)) >= -1e-6).all()
    assert (np.diff(training_series(plan, grid)) >= -1e-9).all()
