"""What must hold for the protocol, whatever the network."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.tree_util import Partial
from optax import sgd

import gossipjax as gj
from gossipjax import testing
from careful_dpsgd import careful_dpsgd

NODES = 8


def make_task() -> gj.Task:
    """Return quadratics with minima of their own, a task with exact gradients."""
    return gj.tasks.quadratic(np.arange(2.0 * NODES).reshape(NODES, 2))


def test_with_gamma_one_it_is_dpsgd():
    """Up to the rounding of half + (mixed − half): a few units in the last place of numbers below 16, per round."""
    task = make_task()
    timeline = gj.timeline.rounds(gj.mixing.metropolis(gj.topology.ring(NODES)), 20)
    ours, theirs = (
        gj.simulate(jax.random.key(0), protocol, timeline, task).x
        for protocol in (careful_dpsgd(task, 0.1, 1.0), gj.dpsgd(task, Partial(sgd, 0.1)))
    )
    np.testing.assert_allclose(ours, theirs, atol=20 * 4 * 16 * np.finfo(np.float32).eps)


@settings(max_examples=20, deadline=None)
@given(testing.timelines(("rounds",), sizes=(NODES,)), st.sampled_from([0.0, 0.3, 1.0]), st.data())
def test_without_gradients_the_mean_is_conserved(timeline, gamma, data):
    start = data.draw(testing.starts(NODES, dimension=2))
    testing.check_conserves_mean(careful_dpsgd(make_task(), 0.0, gamma), timeline, start)


@pytest.mark.parametrize("gamma", [-0.1, 1.5, float("nan")])
def test_gammas_outside_are_refused(gamma):
    with pytest.raises(ValueError, match="from 0 to 1"):
        careful_dpsgd(make_task(), 0.1, gamma)
