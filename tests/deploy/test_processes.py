"""Deployed runs: real processes, real sockets, and the models of the simulation."""

import signal
import socket
import struct

import jax
import jax.numpy as jnp
import numpy as np
import optax
import psutil
import pytest
import zmq
from deploy_faults import run_with_fault
from jax.tree_util import Partial

import gossipjax as gj
from gossipjax.deploy import _job, _supervisor

KEY, SGD = jax.random.key(0), Partial(optax.sgd, 0.1)
CLOCK = gj.timeline.clocks.poisson(1.0)
POWERS = np.array([[0.5, 0.25, 0, 0.25], [0.25, 0.5, 0.25, 0], [0, 0.25, 0.5, 0.25], [0.25, 0, 0.25, 0.5]])
HALVES = np.array([[0.5, 0, 0.5, 0], [0, 0.5, 0, 0.5], [0.5, 0, 0.5, 0], [0, 0.5, 0, 0.5]])


def quadratic(n):
    return gj.tasks.quadratic(np.random.default_rng(0).standard_normal((n, 3)), noise_std=0.1)


def assert_messages_are_those_of(report, run):
    data = report.dataset
    np.testing.assert_array_equal(data["messages_sent"], data["messages_planned"])
    np.testing.assert_array_equal(data["messages_received"], data["messages_planned"])
    assert int(data["messages_planned"].sum() + data["messages_unread"]) == int(run["messages_sent"][-1])
    assert float(data["bytes_counted"].sum()) == float(run["bytes_sent"][-1])
    assert not data["messages_refused"].any()


@pytest.mark.exact
def test_rounds_on_four_processes_are_the_simulation_bit_for_bit():
    plan = gj.timeline.rounds([POWERS, HALVES], 6)
    protocol = gj.dpsgd(quadratic(4), SGD, local_steps=2, sharing=gj.sharing.top_k(0.4))
    link = gj.deploy.Link(bytes_per_second=np.array([1e4, 1e3, 1e4, 1e4]), latency_seconds=0.02)
    report = gj.deploy.execute(KEY, protocol, plan, quadratic(4), link=link, compute_seconds=0.05)
    run = gj.simulate(KEY, protocol, plan, quadratic(4), strategy="map")
    np.testing.assert_array_equal(report.x, run.x)
    assert_messages_are_those_of(report, run)
    measured, predicted = report.dataset["measured_end_s"].values, report.dataset["predicted_end_s"].values
    assert (measured >= predicted - 1e-6).all()  # emulated clocks are never early
    np.testing.assert_allclose(np.nanmean(report.dataset["train_loss"]), float(run["train_loss"][1:].mean()), rtol=1e-6)
    assert "as planned" in repr(report)
    assert report.share_within(1e9) == 1.0


@pytest.mark.exact
def test_events_on_four_processes_are_the_simulation_bit_for_bit():
    peers = gj.topology.complete(4)
    plan = gj.timeline.push_gossip(peers, 6.0, compute=CLOCK, gossip=1.5, latency=0.5, drop=0.2, seed=0)
    protocol = gj.ad_psgd(quadratic(4), SGD, sharing=gj.sharing.random_subset(0.5))
    report = gj.deploy.execute(KEY, protocol, plan, quadratic(4), time_scale=0.1, link=gj.deploy.Link(1e6))
    run = gj.simulate(KEY, protocol, plan, quadratic(4), strategy="map")
    np.testing.assert_array_equal(report.x, run.x)
    assert_messages_are_those_of(report, run)
    assert int(report.dataset["messages_unread"]) > 0
    assert (report.dataset["measured_end_s"] >= report.dataset["predicted_end_s"] - 1e-6).all()


def leftovers():
    """List living processes of a deployment that this process began; other tests have children of their own."""
    alive = [child for child in psutil.Process().children(recursive=True) if child.status() != psutil.STATUS_ZOMBIE]
    return [child for child in alive if any("gossipjax.deploy" in word for word in child.cmdline())]


@pytest.mark.parametrize(("fault", "reason"), [(signal.SIGKILL, "died"), (signal.SIGSTOP, "silent")])
def test_a_node_that_dies_or_hangs_is_named_and_the_rest_ends(fault, reason):
    failure, pids, seconds = run_with_fault(2, fault, delay_s=0.3)
    assert isinstance(failure, gj.deploy.NodeFailed)
    assert (failure.node, failure.pid, failure.reason) == (2, pids[2], reason)
    assert f"node 2 (pid {pids[2]})" in str(failure)
    assert len(failure.done) == 4
    assert seconds < 20  # after the fault; patience is 2 s
    assert not leftovers()
    assert not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in pids)


@pytest.mark.slow
def test_a_node_that_falls_behind_is_named_by_those_who_wait():
    compute = np.array([0.01, 0.01, 0.01, 60.0])
    plan, x0 = gj.timeline.rounds(POWERS, 3), jnp.ones((4, 2))
    with pytest.raises(
        gj.deploy.NodeFailed, match=r"node 3 .* is late: node \d has waited .* for its message 0"
    ) as found:
        gj.deploy.execute(KEY, gj.gossip_averaging(), plan, x0, compute_seconds=compute, patience=1.5)
    assert (found.value.node, found.value.reason, found.value.done[3]) == (3, "late", 0)


def test_strangers_are_refused_and_change_nothing(monkeypatch):
    """A stranger who speaks the transport, and one who sends noise; nodes listen on the loopback address only."""
    seen: list[str] = []
    tell = _supervisor._tell

    def listen(pipe, what):
        if isinstance(what, dict) and not seen:
            seen.extend(what.values())
            _disturb(seen)
        tell(pipe, what)

    monkeypatch.setattr(_supervisor, "_tell", listen)
    plan = gj.timeline.rounds(POWERS, 2)
    report = gj.deploy.execute(KEY, gj.gossip_averaging(), plan, jnp.arange(8.0).reshape(4, 2))
    run = gj.simulate(KEY, gj.gossip_averaging(), plan, jnp.arange(8.0).reshape(4, 2))
    np.testing.assert_array_equal(report.x, run.x)
    assert int(report.dataset["messages_refused"].sum()) == 3
    assert all(endpoint.startswith("tcp://127.0.0.1:") for endpoint in seen)
    with pytest.raises(ValueError, match="pass compute_seconds"):
        report.share_within(0.05)
    for endpoint in seen:  # nobody listens any more
        with socket.socket() as probe, pytest.raises(ConnectionRefusedError):
            probe.connect(("127.0.0.1", int(endpoint.rpartition(":")[2])))


def _disturb(endpoints):
    forged = struct.pack("<4s16sIQdQ", b"gjd1", b"0" * 16, 1, 0, 0.0, 16)
    context = zmq.Context()
    sender = context.socket(zmq.PUSH)
    sender.connect(endpoints[0])
    for frames in ([b"pickle"], [forged, b"0" * 16], [forged]):
        sender.send_multipart(frames)
    sender.close(5000)
    with socket.socket() as noise:
        noise.connect(("127.0.0.1", int(endpoints[1].rpartition(":")[2])))
        noise.sendall(b"GET / HTTP/1.1\r\n\r\n" * 100)
    context.term()


def test_a_node_that_raises_hands_on_its_traceback(monkeypatch):
    monkeypatch.setattr(_job, "config", lambda: {"jax_no_such_setting": True})
    with pytest.raises(gj.deploy.NodeFailed, match=r"(?s)node \d \(pid \d+\) raised an error.*jax_no_such_setting"):
        gj.deploy.execute(KEY, gj.gossip_averaging(), gj.timeline.rounds(POWERS, 2), jnp.ones((4, 2)))


@pytest.mark.slow
@pytest.mark.exact
def test_sixteen_processes_in_rounds_and_at_events():
    """Every message is counted; without overlap no round ends before the uplinks are idle."""
    cube, x0 = gj.topology.hypercube(4), jnp.asarray(np.random.default_rng(1).standard_normal((16, 50)))
    weights = np.eye(16) / 2 + adjacency(cube) / 8
    protocol, plan = gj.gossip_averaging(), gj.timeline.rounds(weights, 5)
    link = gj.deploy.Link(bytes_per_second=np.where(np.arange(16) == 3, 4e3, 4e4), latency_seconds=0.05)
    report = gj.deploy.execute(KEY, protocol, plan, x0, link=link, compute_seconds=0.5, overlap=False)
    assert (report.dataset["measured_end_s"] >= report.dataset["predicted_end_s"] - 1e-6).all()
    run = gj.simulate(KEY, protocol, plan, x0, strategy="map")
    np.testing.assert_array_equal(report.x, run.x)
    assert_messages_are_those_of(report, run)
    events = gj.timeline.pairwise(cube, 4.0, compute=CLOCK, communicate=1.0, seed=0)
    learner = gj.dpsgd(quadratic(16), SGD)
    report = gj.deploy.execute(KEY, learner, events, quadratic(16))
    run = gj.simulate(KEY, learner, events, quadratic(16), strategy="map")
    np.testing.assert_array_equal(report.x, run.x)
    assert_messages_are_those_of(report, run)


def adjacency(graph):
    A = np.zeros((graph.num_nodes, graph.num_nodes))
    A[graph.receivers, graph.senders] = 1
    return A


@pytest.mark.slow
def test_no_run_hangs_if_a_node_is_killed_at_a_random_moment():
    rng = np.random.default_rng(0)
    for _ in range(4):
        failure, _, seconds = run_with_fault(
            int(rng.integers(4)), signal.SIGKILL, delay_s=rng.uniform(0, 2), start=False
        )
        assert failure is None or failure.reason == "died"
        assert seconds < 20
        assert not leftovers()
