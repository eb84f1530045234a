"""What nodes have sent and what their clocks say, against a sequential restatement."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from problems import X0, D, N, exact_quadratic

from gossipjax import Event, dpsgd, gossip_averaging, metered, simulate, track_versions
from gossipjax._base import counter
from gossipjax.deploy import execute
from gossipjax.facts import check_requires
from gossipjax.mixing import exchange, from_matrix, metropolis
from gossipjax.observe import meter_summary, staleness_summary
from gossipjax.sharing import random_subset
from gossipjax.systems import synchronous
from gossipjax.timeline import client_sampling, poisson_pairs, rounds
from gossipjax.topology import barabasi_albert
from gossipjax.wrappers._meter import latest

KEY = jax.random.key(7)
GRAPH = barabasi_albert(N, 2, seed=1)
W = metropolis(GRAPH).toarray()
NEIGHBORS = [np.flatnonzero((W[i] != 0) & (np.arange(N) != i)) for i in range(N)]
RNG = np.random.default_rng(1)
COMPUTE, RATE, DELAY = RNG.uniform(0.1, 1.0, N), RNG.uniform(10.0, 50.0, N), RNG.uniform(0.0, 0.2, N)
T = 9


def clocks_by_hand(bits):
    """Clocks after rounds in which node i sends each neighbour ``bits[round][i]``."""
    clock = np.zeros(N)
    for sizes in bits:
        ready = clock + COMPUTE + np.asarray([sizes[i] * len(NEIGHBORS[i]) / 8 for i in range(N)]) / RATE
        clock = np.asarray([max(ready[i], *(ready[j] + DELAY[j] for j in NEIGHBORS[i])) for i in range(N)])
    return clock


def overlapping_clocks_by_hand(bits):
    """The same, where a node goes on while its messages queue at its uplink."""
    clock, queue = np.zeros(N), [[] for _ in range(N)]
    for sizes in bits:
        trained = clock + COMPUTE
        for i in range(N):
            begin = max([trained[i], *queue[i][-1:]])
            queue[i].append(begin + sizes[i] * len(NEIGHBORS[i]) / 8 / RATE[i])
        clock = np.asarray([max(trained[i], *(queue[j][-1] + DELAY[j] for j in NEIGHBORS[i])) for i in range(N)])
    return clock


def run(sharing, form="auto", **more):
    protocol = dpsgd(exact_quadratic(), optax.sgd(0.1), sharing=sharing)
    link = {"compute_seconds": COMPUTE, "bytes_per_second": RATE, "latency_seconds": DELAY, "overlap": False} | more
    plan = rounds(W, T, form=form)
    return simulate(KEY, metered(protocol, **link), plan, jnp.asarray(X0), observers=[meter_summary()], record_every=3)


@pytest.mark.parametrize("form", ["dense", "table"])
def test_clocks_of_messages_of_one_size(form):
    found = run(None, form)
    # Float32 clocks, nine additions.
    np.testing.assert_allclose(found.state.meter.clock, clocks_by_hand([[64 * D] * N] * T), rtol=1e-6)
    sent = counter.value(found.state.meter.traffic.sent)
    np.testing.assert_array_equal(sent, [T * 64 * D * len(NEIGHBORS[i]) for i in range(N)])
    assert sent.sum() / 8 == found["bytes_sent"][-1]


@pytest.mark.parametrize("form", ["dense", "table"])
def test_clocks_of_nodes_that_go_on_while_they_send(form):
    found = run(None, form, overlap=True)
    bits = [[64 * D] * N] * T
    expected = overlapping_clocks_by_hand(bits)
    np.testing.assert_allclose(found.state.meter.clock, expected, rtol=1e-6)  # float32 clocks
    assert (expected < clocks_by_hand(bits)).any()
    np.testing.assert_array_equal(found.x, run(None, form).x)


def test_uplinks_overlap_unless_told_otherwise():
    """One default for the model, the planner and the processes."""
    for function in (metered, synchronous, execute):
        assert inspect.signature(inspect.unwrap(function)).parameters["overlap"].default is True
    link = {"bytes_per_second": RATE}
    runs = [simulate(KEY, metered(gossip_averaging(), **link, **more), rounds(W, T), jnp.asarray(X0))
            for more in ({}, {"overlap": True}, {"overlap": False})]  # fmt: skip
    default, true, false = (np.asarray(found.state.meter.clock) for found in runs)
    np.testing.assert_array_equal(default, true)
    assert (default < false).any()


def test_clocks_and_counts_of_messages_of_random_sizes():
    sharing, x = random_subset(0.5), jnp.asarray(X0)
    found = run(sharing)
    from gossipjax._base.streams import STEPS

    key, sizes = jax.random.fold_in(KEY, STEPS), []
    for number in range(T):
        event = Event(jnp.full(1, number, jnp.uint32), jnp.zeros(1), mixing=from_matrix(W))
        sizes.append(np.asarray(sharing.encode(key, sharing.init(x), x, x, event)[1][1]))
    assert np.ptp(sizes) > 0
    degree = np.asarray([len(at) for at in NEIGHBORS])
    np.testing.assert_array_equal(counter.value(found.state.meter.traffic.sent), np.sum(sizes, 0) * degree)
    np.testing.assert_allclose(found.state.meter.clock, clocks_by_hand(sizes), rtol=1e-6)
    summary = found["node_bytes_sent"].isel(record=-1)
    assert float(summary.sel(statistic="max")) == (np.sum(sizes, 0) * degree).max() / 8


def test_counts_pass_32_bits():
    start = counter.Counter(jnp.zeros(3, jnp.uint32), jnp.full(3, 2**32 - 1, jnp.uint32))
    a, b = np.asarray([2**32 - 1, 5, 0], np.uint32), np.asarray([2**32 - 1, 7, 9], np.uint32)
    found = counter.value(counter.add_product(start, jnp.asarray(a), jnp.asarray(b)))
    expected = [(2**32 - 1 + int(p) * int(q)) % 2**64 for p, q in zip(a, b, strict=True)]
    assert [int(v) for v in found] == expected


def test_the_run_inside_is_unchanged():
    plan, x0 = rounds(W, T), jnp.asarray(X0)
    protocol = gossip_averaging(random_subset(0.4))
    np.testing.assert_array_equal(simulate(KEY, metered(protocol), plan, x0).x, simulate(KEY, protocol, plan, x0).x)


def test_versions_and_meter_go_together():
    plan, x0 = rounds(W, T), jnp.asarray(X0)
    watch = [meter_summary(), staleness_summary()]
    link = {"compute_seconds": 1.0}
    outer = simulate(
        KEY, track_versions(metered(gossip_averaging(), **link)), plan, x0, observers=watch, record_every=T
    )
    inner = simulate(
        KEY, metered(track_versions(gossip_averaging()), **link), plan, x0, observers=watch, record_every=T
    )
    for name in ("node_bytes_sent", "staleness", "node_clock"):
        np.testing.assert_array_equal(outer[name], inner[name])


def test_who_hears_nobody_waits_for_nobody():
    lonely = np.diag([1.0, 0.5, 0.5])
    lonely[1, 2] = lonely[2, 1] = 0.5
    ready = jnp.asarray([5.0, 1.0, 2.0])
    for form in ("dense", "table"):
        last, _ = latest(from_matrix(lonely, form=form), ready, jnp.zeros(3))
        np.testing.assert_array_equal(last, [-np.inf, 2.0, 1.0])
    with pytest.raises(TypeError, match="not a round"):
        latest(exchange(0, 1), ready, jnp.zeros(3))


def test_what_rounding_leaves_out_decides_who_is_later():
    W3 = np.full((3, 3), 1 / 3)
    clock, rest = jnp.asarray([7.0, 7.0, 6.0], jnp.float32), jnp.asarray([1e-8, 3e-8, 9e-8], jnp.float32)
    last, rests = latest(from_matrix(W3), clock, rest)
    np.testing.assert_array_equal(last, [7, 7, 7])
    np.testing.assert_array_equal(rests, rest[np.asarray([1, 0, 1])])


def test_clocks_do_not_stall_in_single_precision():
    """100,000 rounds of 10 ms: a plain float32 sum is off by a second, and days later rounds would vanish."""
    with jax.enable_x64(False):
        plan, x0 = rounds(np.full((2, 2), 0.5), 100_000), jnp.zeros((2, 1))
        found = simulate(KEY, metered(gossip_averaging(), compute_seconds=0.01), plan, x0)
    expected = 100_000 * float(np.float32(0.01))
    np.testing.assert_allclose(found.state.meter.clock, expected, rtol=1e-6)  # of which float32 itself takes 6e-8


def test_links_of_another_number_of_nodes():
    with pytest.raises(ValueError, match=r"bytes_per_second of shape \(3,\) for 8 nodes"):
        simulate(KEY, metered(gossip_averaging(), bytes_per_second=np.ones(3)), rounds(W, T), jnp.asarray(X0))


@pytest.mark.parametrize(
    "link", [{"compute_seconds": -1.0}, {"bytes_per_second": 0.0}, {"latency_seconds": np.inf}], ids=str
)
def test_bad_links(link):
    (name,) = link
    with pytest.raises(ValueError, match=f"{name}=.*: must be .*number"):
        metered(gossip_averaging(), **link)


def test_what_is_not_synchronous_or_not_metered_is_refused():
    plan = poisson_pairs(GRAPH, 5, seed=0)
    with pytest.raises(ValueError, match="synchronous"):
        check_requires(metered(gossip_averaging(), latency_seconds=0.0).requires, plan.properties)
    check_requires(metered(gossip_averaging()).requires, plan.properties)  # without clocks
    with pytest.raises(ValueError, match="their own model row"):
        check_requires(metered(gossip_averaging()).requires, client_sampling(N, 3, 2, seed=0).properties)
    with pytest.raises(ValueError, match="needs clocks: give metered"):
        simulate(KEY, metered(gossip_averaging()), rounds(W, T), jnp.asarray(X0), observers=[meter_summary()])
    with pytest.raises(ValueError, match="wrap the protocol in metered"):
        simulate(KEY, gossip_averaging(), rounds(W, T), jnp.asarray(X0), observers=[meter_summary()])
