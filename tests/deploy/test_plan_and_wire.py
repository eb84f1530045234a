"""What nodes are told and what they say, without processes: projection, bytes, clocks, blame, refusals."""

import inspect
import re
import struct
import subprocess
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import zmq
from jax.tree_util import Partial

import gossipjax as gj
from gossipjax.deploy import _execute, _node, _sockets, _steps, _supervisor
from gossipjax.deploy._clocks import round_ends
from gossipjax.deploy._job import Waiting, write_job
from gossipjax.deploy._programs import plan_of
from gossipjax.deploy._watch import START_S, Life, note_beat, verdict
from gossipjax.deploy._wire import HELLO, Codec, Header, decode_body, encode_body, read_header, write_header
from gossipjax.types import NOBODY

KEY, SGD = jax.random.key(0), Partial(optax.sgd, 0.1)
N = 8
CUBE = gj.topology.hypercube(3)
CLOCK = gj.timeline.clocks.poisson(1.0)
TASK = gj.tasks.quadratic(np.random.default_rng(0).standard_normal((N, 3)))
execute = inspect.unwrap(gj.deploy.execute)


def by_hand(senders, receivers, num_slots=0):
    """Transfers in which nobody trains, with weights of a half; those out of a slot are no new messages."""
    shape, facts = np.shape(senders), gj.Properties(N, N, "by hand", num_slots=num_slots)
    events = {"time": np.arange(1.0, 1 + shape[0]), "nodes": np.full((shape[0], 1), N)}
    halves = {"weights": np.full(shape[1], 0.5), "keep": np.full(shape[1], 0.5)}
    events |= {"senders": senders, "receivers": receivers, "messages": np.less(senders, N).astype(int)}
    return gj.timeline.from_events(events, facts, shared=halves)


PLANS = {
    "rounds": gj.timeline.rounds(gj.mixing.metropolis(CUBE), 5),
    "cycle": gj.timeline.rounds([gj.mixing.metropolis(g) for g in (CUBE, gj.topology.star(N))], 5),
    "barriers": gj.systems.synchronous(
        gj.devices.uniform(N), CUBE, 5, round_seconds=None, local_steps=1, model_bytes=16
    ).timeline,
    "epidemic": gj.systems.epidemic(
        gj.devices.uniform(N), 2, 5, round_seconds=None, local_steps=1, model_bytes=16, seed=0
    ).timeline,
    "matchings": gj.timeline.matching_rounds(N, 5, seed=0),
    "pairs": gj.timeline.pairwise(CUBE, 6.0, compute=CLOCK, communicate=1.0, seed=0),
    "handshakes": gj.timeline.pairwise(CUBE, 6.0, compute=CLOCK, communicate=1.0, atomic=False, latency=0.3, seed=0),
    "pushes": gj.timeline.push_gossip(CUBE, 6.0, compute=CLOCK, gossip=1.0, drop=0.2, seed=0),
    "two ways": gj.timeline.push_gossip(CUBE, 6.0, compute=CLOCK, gossip=1.0, drop=0.2, two_way=True, seed=0),
    "flights": gj.timeline.push_gossip(CUBE, 6.0, compute=CLOCK, gossip=2.0, latency=0.5, drop=0.2, seed=0),
    "inboxes": gj.timeline.push_gossip(CUBE, 6.0, compute=CLOCK, gossip=2.0, latency=0.5, inbox="newest", seed=0),
    "an unused lane": by_hand([[0, 1, NOBODY]], [[1, 0, NOBODY]]),
    "a slot before a pair": by_hand([[0, NOBODY], [N, 2]], [[N, NOBODY], [1, 3]], num_slots=1),
}


@pytest.mark.parametrize("name", PLANS)
def test_every_message_of_a_plan_has_one_sender_and_its_receivers(name):
    plan = plan_of(KEY, PLANS[name])
    sent, heard, counted = set(), set(), 0
    for node, turns in enumerate(plan.turns):
        assert [turn.event for turn in turns] == sorted({turn.event for turn in turns})
        for turn in turns:
            counted += sum(max(len(send.receivers), 1) for send in turn.sends)
            sent |= {(send.message, node, peer) for send in turn.sends for peer in send.receivers}
            heard |= {(receipt.message, receipt.sender, node) for receipt in turn.receipts}
    assert sent == heard
    run = gj.simulate(KEY, gj.gossip_averaging(), PLANS[name], jnp.zeros((N, 2)))
    assert counted == int(run["messages_sent"][-1])
    assert plan.messages.sum() == len(sent)
    if (traffic := PLANS[name].properties.traffic) is not None:
        assert (plan.messages.sum(), plan.unread) == (traffic.delivered, traffic.sent - traffic.delivered)


def test_acting_nodes_of_a_plan_are_those_of_the_simulation():
    plan = plan_of(KEY, PLANS["flights"])
    acts = sum(turn.acts for turns in plan.turns for turn in turns)
    assert acts == np.count_nonzero(PLANS["flights"].xs["nodes"] < N)


CODEC = Codec(((3, 2), (5,)), (np.dtype("<f4"), np.dtype("<f8")), False)
LEAVES = [np.arange(6, dtype="<f4").reshape(3, 2), np.linspace(0, 1, 5)]


def test_a_message_is_the_raw_bytes_of_the_leaves():
    body = encode_body(CODEC, LEAVES, None)
    assert body == LEAVES[0].tobytes() + LEAVES[1].tobytes()
    read, mask = decode_body(CODEC, body)
    assert mask is None
    assert all((a == b).all() for a, b in zip(read, LEAVES, strict=True))
    assert len(body) == CODEC.most_bytes


def test_a_masked_message_holds_its_mask_and_what_is_under_it():
    codec, mask = CODEC._replace(masked=True), np.arange(11) % 3 == 0
    body = encode_body(codec, LEAVES, mask)
    assert len(body) == 2 + 2 * 4 + 2 * 8
    read, found = decode_body(codec, body)
    assert (found == mask).all()
    assert (np.concatenate([leaf.ravel() for leaf in read]) == np.where(mask, [*range(6), *LEAVES[1]], 0)).all()
    assert len(encode_body(codec, LEAVES, np.ones(11, bool))) == codec.most_bytes


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("body", [b"", b"\xff", b"\xff" * 63, b"\xff" * 65, b"\xff" * 200])
def test_bodies_of_another_size_are_refused(masked, body):
    with pytest.raises(ValueError, match="a message of"):
        decode_body(CODEC._replace(masked=masked), body)


def test_headers_of_strangers_are_none():
    token, header = b"t" * 16, Header(3, 7, 0.5, 4)
    good = [write_header(token, header), b"body"]
    assert read_header(token, good) == header
    other = bytes([good[0][0] ^ 1]) + good[0][1:]
    longer = write_header(token, header._replace(length=5))
    for frames in ([], good[:1], [*good, b""], [b"", b"body"], [b"x" * len(good[0]), b"body"], [other, b"body"]):
        assert read_header(token, frames) is None
    assert read_header(b"u" * 16, good) is None
    assert read_header(token, [longer, b"body"]) is None
    assert len(good[0]) == struct.calcsize("<4s16sIQdQ")


@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize("name", ["rounds", "cycle", "matchings"])
def test_clocks_are_those_of_metered(name, overlap):
    rng = np.random.default_rng(1)
    compute, rate, latency = rng.uniform(0.1, 0.5, N), rng.uniform(100, 1000, N), rng.uniform(0.0, 0.3, N)
    numbers = {"compute_seconds": compute, "bytes_per_second": rate, "latency_seconds": latency, "overlap": overlap}
    protocol = gj.metered(gj.gossip_averaging(), **numbers)
    run = gj.simulate(KEY, protocol, PLANS[name], jnp.zeros((N, 4), jnp.float32))
    plan = plan_of(KEY, PLANS[name])
    bits = np.array([[sum(len(s.receivers) for s in turns[t].sends) for turns in plan.turns] for t in range(5)])
    ends = round_ends(plan, 128.0 * bits, compute, rate, latency, overlap)
    np.testing.assert_allclose(ends[-1], run.state.meter.clock, rtol=1e-6)  # float32 clocks


def lives(*waits, now=0.0):
    """Nodes that all gave a sign of life now, and what they wait for: (message, sender) or None."""
    found = [Life(now, pid=100 + node, running=True) for node in range(len(waits))]
    for life, wait in zip(found, waits, strict=True):
        note_beat(life, now, 5, None if wait is None else Waiting(*wait))
    return found


def test_all_is_well_while_nobody_waits_too_long():
    assert verdict(lives((1, 1), None), 2.9, 3.0) is None


def test_a_silent_node_is_named():
    found = lives((1, 1), None, None)
    for life in found[:2]:
        note_beat(life, 3.0, 5, life.waiting)
    assert verdict(found, 3.5, 3.0)[:2] == (2, "silent")
    assert re.search("no sign of life for 3.5 s.*; raise patience if", verdict(found, 3.5, 3.0)[2])


def test_a_node_that_compiles_has_more_time():
    found = lives(None)
    found[0].running = False
    assert verdict(found, START_S - 1, 3.0) is None
    assert verdict(found, START_S + 1, 3.0)[1] == "silent"
    assert verdict(found, START_S + 1, START_S + 2) is None


def test_a_node_that_waits_for_a_connection_is_judged_before_it_runs():
    found = lives((HELLO, 1), None)
    for life in found:
        life.running = False
        note_beat(life, START_S + 1, 0, life.waiting)
    assert verdict(found, START_S - 1, 3.0) is None
    node, reason, text = verdict(found, START_S + 1, 3.0)
    assert (node, reason) == (1, "late")
    assert f"node 0 has waited {START_S + 1:.1f} s for its connection" in text
    assert verdict(found, START_S + 1, START_S + 2) is None


def test_patience_reaches_the_nodes_that_start(monkeypatch):
    def gather(nodes, kind, patience):
        assert patience == 1000.0
        raise InterruptedError(kind.__name__)

    monkeypatch.setattr(_supervisor, "write_job", lambda job: b"")
    monkeypatch.setattr(_supervisor, "_launch", lambda job, written: None)
    monkeypatch.setattr(_supervisor, "_gather", gather)
    monkeypatch.setattr(_supervisor, "_end", lambda nodes: None)
    with pytest.raises(InterruptedError, match="str"):
        inspect.unwrap(_supervisor.run_nodes)(None, 1000.0, 0.0)


def test_an_uplink_that_fails_stops_its_node():
    context = zmq.Context()
    uplink = _sockets.Uplink(context, b"t" * 16, 0, {1: "tcp://nowhere"})
    uplink.start()
    uplink.join()
    context.term()
    beat, node, burst = inspect.unwrap(_node.Node.beat), SimpleNamespace(uplink=uplink), _sockets.Burst(0.0, 0.0, [])
    for act in (lambda: uplink.send(burst), uplink.finish, lambda: beat(node)):
        with pytest.raises(RuntimeError, match="node 0 cannot send any more") as found:
            act()
        assert isinstance(found.value.__cause__, zmq.ZMQError)


def test_what_a_stranger_sends_does_not_pile_up_in_an_inbox():
    with zmq.Context() as context, context.socket(zmq.PUSH) as stranger:
        inbox = _sockets.Inbox(context, "127.0.0.1", b"t" * 16, [], 100_000, 2)
        stranger.setsockopt(zmq.SNDHWM, 1)
        stranger.setsockopt(zmq.LINGER, 0)
        stranger.connect(inbox.endpoint)
        sent = 0
        while sent < 1000 and stranger.poll(300, zmq.POLLOUT):
            stranger.send(b"0" * 100_000)
            sent += 1
        inbox.close()
    assert sent < 1000  # 100 MB; buffers of the loopback interface hold some 10 MB


def test_blame_is_handed_on_to_the_node_that_waits_for_nobody():
    found = lives((4, 1), (3, 2), None)
    for life in found:
        note_beat(life, 3.5, 5, life.waiting)
    node, reason, text = verdict(found, 3.5, 3.0)
    assert (node, reason) == (2, "late")
    assert text == "is late: node 1 has waited 3.5 s for its message 3; raise patience if the machine is slow"


def test_a_wait_for_another_message_begins_anew():
    found = lives((4, 1), None)
    note_beat(found[0], 2.0, 6, Waiting(5, 1))
    note_beat(found[1], 4.0, 6, None)
    assert verdict(found, 4.5, 3.0) is None


def test_nodes_that_wait_in_a_circle_do_not_hang_the_parent():
    found = lives((4, 1), (3, 0))
    for life in found:
        note_beat(life, 3.5, 5, life.waiting)
    assert verdict(found, 3.5, 3.0)[1] == "late"


@pytest.fixture
def no_process(monkeypatch):
    monkeypatch.setattr(_execute, "run_nodes", lambda *arguments: pytest.fail("a process started"))


def dpsgd(**settings):
    return gj.dpsgd(TASK, SGD, **settings)


REFUSED = {
    "no form for processes": (gj.gradient_tracking(TASK, SGD), "rounds", {}),
    "without wrappers": (gj.metered(gj.gossip_averaging()), "rounds", {}),
    "sharing=.*copies that both ends keep": (
        dpsgd(sharing=gj.sharing.choco(gj.compress.top_k(1), 0.1)),
        "rounds",
        {},
    ),
    "use order='adapt_then_combine'": (dpsgd(order="combine_then_adapt"), "rounds", {}),
    "all-reduce": (gj.gossip_averaging(), gj.timeline.rounds(gj.mixing.averaging(N), 2), {}),
    "deploy the timeline before pack": (gj.gossip_averaging(), gj.pack(PLANS["pushes"]), {}),
    "loses messages of rounds": (
        gj.gossip_averaging(),
        gj.timeline.changing_rounds(gj.topology.ring(N), 4, loss=gj.timeline.losses.independent(0.5, seed=0)),
        {},
    ),
    "planned absences or groups": (gj.gossip_averaging(), gj.timeline.client_sampling(N, 4, 2, seed=0), {}),
    "compute_seconds=0.1.*has planned when": (dpsgd(), "pushes", {"compute_seconds": 0.1}),
    "compute_seconds of shape": (dpsgd(), "rounds", {"compute_seconds": np.ones(3)}),
    "bytes_per_second of shape": (dpsgd(), "rounds", {"link": gj.deploy.Link(np.ones(3))}),
    "time_scale=0": (dpsgd(), "rounds", {"time_scale": 0.0}),
    "patience=-1": (dpsgd(), "rounds", {"patience": -1.0}),
    "overlap=1": (dpsgd(), "rounds", {"overlap": 1}),
    "'192.0.2.1' is no address of this machine": (dpsgd(), "rounds", {"addresses": ("192.0.2.1",)}),
    "give one for all nodes, or 8": (dpsgd(), "rounds", {"addresses": ("127.0.0.1",) * 3}),
    "pass optimizers as": (gj.dpsgd(TASK, optax.sgd(0.1)), "rounds", {}),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_cannot_be_deployed_is_named_before_a_process_starts(message, monkeypatch):
    monkeypatch.setattr(_execute, "run_nodes", lambda job, *rest: write_job(job) and pytest.fail("a process started"))
    protocol, plan, settings = REFUSED[message]
    start = jnp.zeros((4 if "planned absences" in message else N, 3))
    with pytest.raises(ValueError, match=message):
        execute(KEY, protocol, PLANS[plan] if isinstance(plan, str) else plan, start, **settings)


def make_in_a_script(rate):
    return optax.sgd(rate)


def test_functions_of_a_script_are_refused(monkeypatch):
    monkeypatch.setattr(make_in_a_script, "__module__", "__main__")
    monkeypatch.setattr(sys.modules["__main__"], "make_in_a_script", make_in_a_script, raising=False)
    monkeypatch.setattr(_execute, "run_nodes", lambda job, *rest: write_job(job))
    with pytest.raises(ValueError, match="uses functions of a script or notebook; define functions in a module"):
        execute(KEY, gj.dpsgd(TASK, Partial(make_in_a_script, 0.1)), PLANS["rounds"], TASK)


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "0:0::0", "::ffff:0.0.0.0"])
def test_addresses_that_open_every_interface_are_refused(no_process, address):
    with pytest.raises(ValueError, match=f"'{address}' stands for every interface .* use '127.0.0.1'"):
        execute(KEY, dpsgd(), PLANS["rounds"], TASK, addresses=("127.0.0.1",) * 7 + (address,))


@pytest.mark.parametrize("address", ["", "0", "*", "localhost"])
def test_what_is_no_address_is_refused(no_process, address):
    with pytest.raises(ValueError, match=re.escape(f"{address!r} is no IPv4 or IPv6 address; use '127.0.0.1'")):
        execute(KEY, dpsgd(), PLANS["rounds"], TASK, addresses=(address,))


def test_windows_is_refused_by_name(no_process, monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(OSError, match="forks processes, which Windows cannot: use Linux, macOS or WSL"):
        execute(KEY, dpsgd(), PLANS["rounds"], TASK)


def test_several_seeds_are_refused(no_process):
    with pytest.raises(ValueError, match="processes run one seed"):
        execute(jax.random.split(KEY, 2), dpsgd(), PLANS["rounds"], TASK)


def test_without_pyzmq_the_extra_is_named(no_process, monkeypatch):
    monkeypatch.setattr(_execute.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"gossipjax\[deploy\]"):
        execute(KEY, dpsgd(), PLANS["rounds"], TASK)


def test_a_model_that_is_not_finite_is_an_error(monkeypatch):
    bad = gj.deploy.Report(jnp.zeros((N, 3)).at[5].set(jnp.nan), None)
    monkeypatch.setattr(_execute, "run_nodes", lambda *arguments: [])
    monkeypatch.setattr(_execute, "report_of", lambda *arguments: bad)
    with pytest.raises(FloatingPointError, match="parameters of node 5 became infinite or NaN"):
        execute(KEY, dpsgd(), PLANS["rounds"], TASK)


def test_the_transport_is_not_imported_before_it_is_used():
    program = "import gossipjax, sys; sys.exit('zmq' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_sharings_of_all_deployed_protocols_are_found():
    for protocol in (
        dpsgd(),
        gj.ad_psgd(TASK, SGD),
        gj.gossip_averaging(gj.sharing.top_k(0.5)),
        gj.local_sgd(TASK, SGD, local_steps=2),
    ):
        assert isinstance(_steps.sharing_of(protocol), gj.Sharing)
