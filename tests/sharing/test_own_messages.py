"""Sharings of one's own whose messages are not the speaker's model: receivers keep and fill in their own values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

import gossipjax as gj
from gossipjax.mixing import speakers
from gossipjax.sharing import OWN_MODELS, Message, count_speech, merge_masked, rows_that_speak, start_masks

N = 6
X0 = np.random.default_rng(0).standard_normal((N, 4)).astype(np.float32)
MASK = np.array([True, True, False, False])
GRAPH = gj.topology.ring(N)
W = gj.mixing.metropolis(GRAPH).toarray()


def _encode(payload, key, state, x_start, x, event):
    del key, x_start
    rows = speakers(event, state.counts.size)
    values = rows_that_speak(event, x, rows)
    return state._replace(counts=count_speech(state.counts, rows)), (payload(values), 32)


def _sharing(payload):
    return gj.Sharing(Partial(start_masks), Partial(_encode, Partial(payload)), Partial(merge_masked), OWN_MODELS)


def _rounded(values):
    return Message(jnp.round(values))


def _cut(values):
    """Set what is not sent to zero."""
    mask = jnp.broadcast_to(jnp.asarray(MASK), values.shape)
    return Message(jnp.where(mask, values, 0), mask)


def _expected(weights, x, payload):
    """``x_i + Σ_{j≠i} W_ij M (v_j − x_i)``, node by node."""
    message = payload(jnp.asarray(x))
    sent, mask = (
        np.asarray(message.values),
        np.ones(x.shape, bool) if message.mask is None else np.asarray(message.mask),
    )
    new = x.astype(np.float64)
    for i in range(len(x)):
        for j in set(range(len(x))) - {i}:
            new[i] += weights[i, j] * np.where(mask[j], sent[j].astype(np.float64) - x[i], 0)
    return new


@pytest.mark.parametrize("payload", [_rounded, _cut])
@pytest.mark.parametrize("form", ["dense", "table"])
def test_a_round_keeps_the_own_model(payload, form):
    plan = gj.timeline.rounds(gj.mixing.metropolis(GRAPH), 1, form=form)
    run = gj.simulate(jax.random.key(0), gj.gossip_averaging(_sharing(payload)), plan, jnp.asarray(X0))
    # float32 sums of a few terms of size one
    np.testing.assert_allclose(run.x, _expected(W, X0, payload), atol=2e-6)


@pytest.mark.parametrize("payload", [_rounded, _cut])
def test_a_meeting_keeps_the_own_model(payload):
    plan = gj.timeline.poisson_pairs(GRAPH, 1, seed=0)
    met = gj.simulate(jax.random.key(0), gj.gossip_averaging(), plan, jnp.asarray(X0))
    pair = np.flatnonzero((np.asarray(met.x) != X0).any(1))
    assert pair.size == 2
    weights = np.eye(N)
    weights[np.ix_(pair, pair)] = 0.5
    run = gj.simulate(jax.random.key(0), gj.gossip_averaging(_sharing(payload)), plan, jnp.asarray(X0))
    np.testing.assert_allclose(run.x, _expected(weights, X0, payload), atol=2e-6)


@pytest.mark.parametrize(
    ("payload", "kind", "words"),
    [
        (lambda values: values, TypeError, r"encode must return Message\(values, mask\)"),
        (lambda values: Message(values, jnp.ones((1, 4), bool)), ValueError, r"bool\[1, 4\]: must be bool\[6, 4\]"),
        (lambda values: Message(values, jnp.ones(values.shape)), ValueError, r"float\d+\[6, 4\]: must be bool"),
    ],
)
def test_a_payload_of_another_sort_is_refused(payload, kind, words):
    plan = gj.timeline.rounds(gj.mixing.metropolis(GRAPH), 1)
    with pytest.raises(kind, match=words):
        gj.simulate(jax.random.key(0), gj.gossip_averaging(_sharing(payload)), plan, jnp.asarray(X0))
