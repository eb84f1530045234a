"""Packed equals sequential, levels are the longest chains, and the report says what was packed."""

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import optax
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from jax.tree_util import Partial
from problems import CURVATURE, TARGETS, X0, N

from gossipjax import Properties, dpsgd, gossip_averaging, pack, simulate, track_versions
from gossipjax._engine import loop
from gossipjax._engine.packing import choose
from gossipjax.mixing import metropolis
from gossipjax.mixing._apply import GroupMixing
from gossipjax.observe import consensus_distance
from gossipjax.tasks import quadratic
from gossipjax.timeline import (
    clocks,
    drawn_pairs,
    from_events,
    poisson_edges,
    poisson_pairs,
    poisson_push,
    push_gossip,
    rounds,
)
from gossipjax.timeline._events import first_event
from gossipjax.topology import complete, ring, star
from gossipjax.types import NOBODY
from gossipjax.wrappers import age_weighted

KEY = jax.random.key(5)
T = 24


@jax.jit
def final(key, protocol, timeline, x0):
    (state, status), records = loop.run(key, protocol, timeline, protocol.init(key, x0))
    return state, status.bits, records._replace(values={})


def random_plan(seed: int, groups: bool):
    """Any narrow events: who acts, who begins, and transfers or groups, each of them maybe nobody."""
    rng = np.random.default_rng(seed)
    acts = np.where(rng.random((T, 1)) < 0.6, rng.integers(0, N, (T, 1)), N)
    xs = {"time": np.sort(rng.random(T)), "nodes": acts}
    picked = rng.permuted(np.tile(np.arange(N), (T, 1)), axis=1)
    shares = rng.random((T, 2))
    if groups:
        xs |= {"members": picked[:, None, :2], "weights": np.stack([shares[:, 0], 1 - shares[:, 0]], -1)[:, None]}
        xs |= {"targets": np.where(rng.random((T, 1, 1)) < 0.7, picked[:, None, 1:2], NOBODY)}
    else:
        mutual = rng.random(T) < 0.5
        first, second = picked[:, 0], picked[:, 1]
        happens = rng.random(T) < 0.7
        xs |= {"senders": np.stack([first, second], 1), "weights": shares, "keep": 1 - shares}
        xs |= {"receivers": np.stack([np.where(happens, second, N), np.where(happens & mutual, first, N)], 1)}
    return from_events(xs, Properties(num_nodes=N, num_rows=N, name="random plan"))


PROTOCOLS = {
    "gossip": gossip_averaging(),
    "dpsgd": dpsgd(quadratic(TARGETS, curvature=CURVATURE, noise_std=0.3), Partial(optax.sgd, 0.1)),
    "versions": track_versions(gossip_averaging(), hops=True),
}


@settings(max_examples=8, deadline=None, phases=[Phase.generate])  # every example compiles: too slow to shrink
@given(
    st.integers(0, 2**31),
    st.booleans(),
    st.sampled_from([None, 1, 3, 8]),
    st.sampled_from([None, 6, 12]),
    st.sampled_from(sorted(PROTOCOLS)),
)
@pytest.mark.slow
def test_packed_equals_sequential(seed, groups, width, barrier_every, name):
    plan, protocol = random_plan(seed, groups), PROTOCOLS[name]
    wide = pack(plan, width, barrier_every=barrier_every)
    state, bits, records = final(KEY, protocol, plan, jnp.asarray(X0))
    other, other_bits, other_records = final(KEY, protocol, wide, jnp.asarray(X0))
    # Wide events multiply and add in vector instructions, with or without fusing: the last digit may differ.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-14, atol=1e-15), state, other)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), records, other_records)
    assert bits == other_bits == 0


def chains(touched) -> list[int]:
    """Level of each event by the longest path in the graph of conflicts, from networkx."""
    graph = nx.DiGraph()
    graph.add_nodes_from(range(len(touched)))
    graph.add_edges_from((a, b) for b in range(len(touched)) for a in range(b) if touched[a] & touched[b])
    level = dict.fromkeys(graph, 1)
    for b in nx.topological_sort(graph):
        level[b] = 1 + max((level[a] for a in graph.predecessors(b)), default=0)
    return [level[b] for b in range(len(touched))]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([4, 16, 64]))
def test_levels_are_longest_chains_and_share_no_row(seed, width):
    plan = poisson_pairs(ring(N), T, seed=seed)
    wide = pack(plan, width)
    ends = list(zip(plan.xs["first"].tolist(), plan.xs["second"].tolist(), strict=True))
    assert wide.properties.packing.levels == max(chains([set(pair) for pair in ends]))
    seen = {node: -1 for node in range(N)}
    done = []
    for senders, receivers, index in zip(
        wide.xs["senders"], wide.xs["receivers"], wide.xs["index"][:, :-1], strict=True
    ):
        live = receivers < N
        touched = np.sort(receivers[live])
        assert len(np.unique(touched)) == len(touched)  # every row once: no conflict
        numbers = index[wide.xs["nodes"][len(done), :-1] < N]
        done.append(len(numbers))
        for number in numbers.tolist():
            for node in ends[number]:
                assert seen[node] < number  # and every row meets its events in their order
                seen[node] = number
        assert set(senders[live]) == set(receivers[live])
    assert sum(done) == T == wide.properties.packing.events
    room = wide.properties.packing.wide_events * wide.properties.packing.width
    assert wide.properties.packing.waste == 1 - T / room


def test_a_star_cannot_be_packed_and_a_matching_packs_whole():
    hub = pack(poisson_edges(star(9), 50, seed=0)).properties.packing
    assert (hub.levels, hub.mean_width) == (50, 1.0)
    pairs = np.arange(N).reshape(-1, 2)
    xs = {"time": np.zeros(4), "nodes": pairs[:, :1], "senders": pairs, "receivers": pairs[:, ::-1]}
    xs |= {"weights": np.full((4, 2), 0.5), "keep": np.full((4, 2), 0.5)}
    matching = pack(from_events(xs, Properties(num_nodes=N, num_rows=N, name="matching")), 4)
    assert matching.properties.packing.levels == 1
    assert matching.properties.packing.waste == 0


@pytest.mark.parametrize("builder", [poisson_pairs, poisson_push, poisson_edges])
def test_records_are_the_same(builder):
    plan = builder(complete(N), 60, seed=1)
    protocol = dpsgd(quadratic(TARGETS, noise_std=0.2), Partial(optax.sgd, 0.1))
    one, wide = (
        simulate(KEY, protocol, plan, jnp.asarray(X0), observers=[consensus_distance()], record_every=15, packing=how)
        for how in ("sequential", "packed")
    )
    assert "packed" in wide.manifest["configuration"]["packing"]
    for name in one.dataset.variables:  # sums over lanes run in another order
        np.testing.assert_allclose(wide[name], one[name], rtol=1e-6, err_msg=str(name))
    np.testing.assert_array_equal(one["event"], wide["event"])


@pytest.mark.slow
def test_messages_in_flight_and_seeds_pack_too():
    plan = push_gossip(N, 6.0, compute=clocks.poisson(1.0), gossip=2.0, latency=0.2, seed=3)
    protocol = track_versions(gossip_averaging(), num_nodes=N)
    keys = jax.random.split(KEY, 2)
    one, wide = (simulate(keys, protocol, plan, jnp.asarray(X0), packing=how) for how in ("sequential", "packed"))
    np.testing.assert_allclose(one.x, wide.x, rtol=1e-14)
    held = [jax.vmap(protocol.versions)(run.state).held[:, :N] for run in (one, wide)]
    np.testing.assert_array_equal(*held)
    np.testing.assert_array_equal(one["messages_sent"], wide["messages_sent"])


def test_events_drawn_inside_pack_with_the_runs_key():
    plan = drawn_pairs(N, 40)
    one, wide = (simulate(KEY, gossip_averaging(), plan, jnp.asarray(X0), packing=h) for h in ("sequential", "packed"))
    np.testing.assert_allclose(one.x, wide.x, rtol=1e-14)
    with pytest.raises(ValueError, match="pass the run's key"):
        pack(plan)
    with pytest.raises(ValueError, match="each seed draws its own"):
        simulate(jax.random.split(KEY, 2), gossip_averaging(), plan, jnp.asarray(X0), packing="packed")


def test_age_weights_pack_too():
    plan = poisson_push(complete(N), 60, seed=1)
    protocol = track_versions(gossip_averaging(), reweight=age_weighted)
    one, wide = (simulate(KEY, protocol, plan, jnp.asarray(X0), packing=h) for h in ("sequential", "packed"))
    np.testing.assert_allclose(one.x, wide.x, rtol=1e-13)


def test_what_cannot_be_packed_says_why():
    synchronous = rounds(metropolis(ring(N)), 4)
    plan = poisson_pairs(ring(N), 20, seed=0)
    with pytest.raises(ValueError, match="every node acts"):
        pack(synchronous)
    with pytest.raises(ValueError, match="packed already"):
        pack(pack(plan))
    with pytest.raises(ValueError, match="barrier_every=3 must divide the 20 events"):
        pack(plan, barrier_every=3)
    with pytest.raises(ValueError, match="width=0"):
        pack(plan, 0)
    with pytest.raises(ValueError, match="packing='wide': must be one of"):
        choose(plan, "wide", many_seeds=False)
    with pytest.raises(ValueError, match="cannot be packed: every node acts"):
        choose(synchronous, "packed", many_seeds=False)
    assert not choose(synchronous, "auto", many_seeds=False).packed


def test_group_plans_have_group_mixings():
    plan = random_plan(0, groups=True)
    event = first_event(KEY, pack(plan))
    assert isinstance(event.mixing, GroupMixing)
