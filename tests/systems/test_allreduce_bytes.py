"""One rule for the bytes of an all-reduce: around a ring every node sends 2 (n − 1)/n models, whoever counts them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial
from plexus_runs import network
from problems import X0, D, exact_quadratic

import gossipjax as gj
from gossipjax import Info, Protocol, systems
from gossipjax.mixing import averaging, lazy, metropolis
from gossipjax.mixing._counting import ring_bits
from gossipjax.mixing._weights import is_averaging
from gossipjax.observe import traffic_by_node
from gossipjax.sharing import random_subset
from gossipjax.topology import complete, ring

KEY, SGD, N, T = jax.random.key(0), optax.sgd(0.1), len(X0), 3
TASK = exact_quadratic()
RING = T * 2 * (N - 1) * 8 * D
"""Bytes of all nodes in T rounds, models in float64; n divides them."""
COMPLETE = T * N * (N - 1) * 8 * D


def sent(protocol, timeline, x0=None):
    """Bytes of the whole network by the run, and by each node's meter, sent and received."""
    x0 = jnp.asarray(X0) if x0 is None else x0
    watch = [traffic_by_node()]
    found = gj.simulate(KEY, gj.metered(protocol), timeline, x0, observers=watch, record_every=len(timeline))
    for way in ("bytes_sent_by_node", "bytes_received_by_node"):
        assert float(found[way][-1].sum()) == found["bytes_sent"][-1]
    return float(found["bytes_sent"][-1])


def own_step(key, state, event):
    """A protocol of a user's own, which says what a model has and no more."""
    del key
    return gj.mixing.mix(event.mixing, state), Info(64 * D)


OWN = Protocol(Partial(lambda key, x0: x0), own_step, Partial(lambda x: x))
PROTOCOLS = {
    "gossip averaging": gj.gossip_averaging(),
    "D-PSGD": gj.dpsgd(TASK, SGD),
    "FedAvg": gj.fedavg(TASK, SGD, local_steps=1),
    "all-reduce SGD": gj.allreduce_sgd(TASK, SGD),
    "one's own": OWN,
}


def device_plan():
    return systems.allreduce(network(N), T, local_steps=1, model_bytes=8 * D)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_who_counts_does_not_matter(name):
    plan = device_plan()
    assert plan.total_bytes(plan.end_s) == pytest.approx(RING, rel=1e-12)  # the same terms in another order
    assert sent(PROTOCOLS[name], plan.timeline) == RING
    if name != "FedAvg":  # which needs a timeline that leaves one average
        assert sent(PROTOCOLS[name], gj.timeline.rounds(averaging(N), T)) == RING
        cycle = gj.timeline.rounds([averaging(N), averaging(N)], T, form="table")
        assert sent(PROTOCOLS[name], cycle) == RING


def test_four_nodes_of_7800_parameters():
    plan, x0 = gj.timeline.rounds(averaging(4), 1), jnp.zeros((4, 7800), jnp.float32)
    found = gj.simulate(KEY, gj.metered(gj.gossip_averaging()), plan, x0, observers=[traffic_by_node()])
    for way in ("bytes_sent_by_node", "bytes_received_by_node"):
        np.testing.assert_array_equal(found[way][-1], 46_800.0)


def test_neighbours_in_a_complete_graph_are_sent_a_model_each():
    """The same matrix by another name is gossip; and one gradient's all-reduce does not depend on the matrix."""
    for W in (metropolis(complete(N)), averaging(N).toarray(), [averaging(N), metropolis(complete(N))]):
        assert sent(gj.dpsgd(TASK, SGD), gj.timeline.rounds(W, T)) == COMPLETE
        assert sent(gj.allreduce_sgd(TASK, SGD), gj.timeline.rounds(W, T)) == RING


def test_messages_that_cannot_be_summed_go_to_all_others():
    compressed = gj.gossip_averaging(random_subset(0.5))
    found = gj.simulate(KEY, compressed, gj.timeline.rounds(averaging(N), T), jnp.asarray(X0), record_every=T)
    assert found["messages_sent"][-1] == T * N * (N - 1)


def test_what_is_computed_from_the_mean_is_a_matrix_like_others():
    J = averaging(4)
    assert is_averaging(J)
    assert not any(map(is_averaging, (lazy(J), J.toarray(), 2 * J, J.T + J, metropolis(complete(4)))))


@pytest.mark.parametrize("overlap", [False, True])
def test_everybody_waits_for_everybody(overlap):
    """Clocks of an all-reduce: all end a round when the last is done, its own uplink included."""
    compute = np.linspace(0.1, 1.0, N)
    for timeline in (gj.timeline.rounds(averaging(N), T), device_plan().timeline):
        protocol = gj.metered(gj.gossip_averaging(), compute_seconds=compute, bytes_per_second=1000.0, overlap=overlap)
        found = gj.simulate(KEY, protocol, timeline, jnp.asarray(X0), record_every=T)
        # Float32 clocks, T additions.
        np.testing.assert_allclose(found.state.meter.clock, T * (1.0 + RING / T / N / 1000.0), rtol=1e-6)


@pytest.mark.parametrize(("n", "bits", "found"), [(2, 64, 64), (4, 249_600, 374_400), (1, 99, 0), (3, 1 << 40, 0)])
def test_bits_of_the_ring(n, bits, found):
    expected = round(2 * (n - 1) / n * bits)  # exact up to 2⁵³
    assert ring_bits(bits, n) == expected
    assert not found or expected == found


@pytest.mark.parametrize("W", [metropolis(ring(N)), averaging(N)], ids=["other rounds", "an exact mean"])
def test_all_reduce_sgd_is_a_ring_on_any_rounds(W):
    """Each node passes on as much as it is passed, and waits for the slowest."""
    protocol = gj.metered(gj.allreduce_sgd(TASK, SGD), compute_seconds=np.arange(1.0, N + 1))
    plan, watch = gj.timeline.rounds(W, T), [traffic_by_node(), gj.observe.clock_by_node()]
    found = gj.simulate(KEY, protocol, plan, jnp.asarray(X0), observers=watch, record_every=T)
    for way in ("bytes_sent_by_node", "bytes_received_by_node"):
        np.testing.assert_array_equal(found[way][-1], RING / N)
    np.testing.assert_array_equal(found["clock_by_node"][-1], float(T * N))
