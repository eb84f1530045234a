"""One node: a process that follows its part of the plan, and tells its parent how far it is."""

from __future__ import annotations

import dataclasses
import functools
import time
import traceback
from multiprocessing.connection import Connection
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import zmq

from gossipjax._base import placement
from gossipjax._base.binding import Frozen
from gossipjax._base.streams import STEPS
from gossipjax._engine.loop import with_slots
from gossipjax.deploy import _steps
from gossipjax.deploy._job import Beat, Job, Result, Waiting, read_job
from gossipjax.deploy._programs import Receipt, Turn
from gossipjax.deploy._sockets import Burst, Inbox, Uplink
from gossipjax.deploy._steps import Said
from gossipjax.deploy._wire import HELLO, decode_body, encode_body
from gossipjax.facts import Properties
from gossipjax.types import NOBODY

BEAT_S = 0.2
"""Time between two signs of life of a node that waits or sleeps."""


def run_node(pipe: Connection, node: int, written: bytes) -> int:
    """Run a node to its end, and return the exit code of its process.

    Args:
        pipe: to the parent.
        node: its number.
        written: the job.
    """
    try:
        _follow(Node(read_job(written), node, pipe))
    except (BrokenPipeError, ConnectionResetError, EOFError):  # the parent is gone
        return 1
    except Exception:
        pipe.send(traceback.format_exc())
        return 1
    return 0


def _follow(node: Node) -> None:
    """Connect, compile, wait for the start, do all turns, report."""
    node.pipe.send(node.inbox.endpoint)
    endpoints = node.pipe.recv()
    node.connect({peer: endpoints[peer] for peer in node.hearers})
    began = time.monotonic()
    with placement.using("map"):
        node.prepare()
        node.pipe.send(time.monotonic() - began)
        node.start = node.pipe.recv()
        node.sleep_until(0.0)
        for turn in node.turns:
            node.do(turn)
        node.pipe.send(node.result())
    node.inbox.close()
    node.context.term()


class Node:
    """State of a node. All times are simulated seconds since the start of the run."""

    def __init__(self, job: Job, node: int, pipe: Connection):
        """Open the inbox."""
        self.job, self.node, self.pipe = job, node, pipe
        self.turns = job.plan.turns[node]
        self.hearers = sorted({peer for turn in self.turns for send in turn.sends for peer in send.receivers})
        receipts = [receipt for turn in self.turns for receipt in turn.receipts]
        self.heard = sorted({receipt.sender for receipt in receipts})
        expected = {(receipt.message, receipt.sender) for receipt in receipts} | {(HELLO, peer) for peer in self.heard}
        self.context = zmq.Context()
        most, n = job.codec.most_bytes, job.num_nodes
        self.inbox = Inbox(self.context, job.addresses[node], job.token, expected, most, n)
        self.start, self.free, self.done, self.told = 0.0, 0.0, 0, time.monotonic()
        self.log: list[tuple[float, float, float, int]] = []

    def connect(self, endpoints: dict[int, str]) -> None:
        """Open the uplink and wait until all that this node hears of are connected."""
        self.uplink = Uplink(self.context, self.job.token, self.node, endpoints)
        self.uplink.start()
        for peer in self.heard:
            self.wait(HELLO, peer)
        self.pipe.send(Beat(self.done, None))  # it waits no longer, and compiles without a sign of life

    def prepare(self) -> None:
        """Make the state, and compile what will be called, on copies of it."""
        job = self.job
        self.key = jax.random.wrap_key_data(jnp.asarray(job.key_data), impl=job.key_kind)
        facts = Properties(job.num_nodes, job.num_nodes, "a node", num_slots=0 if job.plan.rounds else 1)
        x0 = with_slots(jax.tree.map(jnp.asarray, job.x0), facts)
        self.state = jax.jit(job.protocol.init)(jax.random.fold_in(self.key, STEPS), x0)
        self.run = Rounds(self) if job.plan.rounds else Events(self)
        self.run.warm()

    def now(self) -> float:
        """Return the time since the start."""
        return (time.monotonic() - self.start) / self.job.time_scale

    def beat(self, waiting: Waiting | None = None) -> None:
        """Tell the parent from time to time that this node lives, unless its uplink has failed."""
        self.uplink.check()
        if time.monotonic() - self.told > BEAT_S:
            self.told = time.monotonic()
            self.pipe.send(Beat(self.done, waiting))

    def sleep_until(self, moment: float) -> None:
        """Sleep, with signs of life."""
        while (left := self.start + moment * self.job.time_scale - time.monotonic()) > 0:
            time.sleep(min(left, BEAT_S))
            self.beat()

    def wait(self, message: int, sender: int) -> bytes:
        """Return the body of a message when it has arrived."""
        while (arrived := self.inbox.take(message, sender, BEAT_S)) is None:
            self.beat(Waiting(message, sender))
        self.sleep_until(arrived.due)
        return arrived.body

    def send(self, messages: list[tuple[int, int, bytes]], bits: int) -> float:
        """Hand a burst of messages to the uplink, and return the time at which it was ready."""
        job, born = self.job, self.now()
        seconds = len(messages) * bits / 8 / job.bytes_per_second[self.node]
        self.free = max(self.free, born) + seconds
        if messages:
            leaves = self.start + self.free * job.time_scale
            self.uplink.send(Burst(leaves, self.free + job.latency_seconds[self.node], messages))
        return born

    def do(self, turn: Turn) -> None:
        """Do one turn, and note its times."""
        born, loss, bits = self.run.do(turn)
        self.log.append((self.now(), born, loss, bits))
        self.run.settle(turn)
        self.done += 1
        self.beat()

    def result(self) -> Result:
        """Wait for the uplink, and report."""
        self.uplink.finish()
        n = self.job.num_nodes
        end, born, loss, bits = np.array(self.log, np.float64).reshape(-1, 4).T
        sent = np.zeros(n, np.int64)
        sent[: len(self.uplink.sent)] = self.uplink.sent
        x = [np.asarray(leaf)[self.node] for leaf in jax.tree.leaves(self.job.protocol.model(self.state))]
        came, refused = self.inbox.received, self.inbox.refused
        return Result(x, end, born, loss, bits.astype(np.int64), sent, came, self.uplink.wire_bytes, refused)

    def body(self, said: Said) -> bytes:
        """Write a message."""
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(said.values)]
        return encode_body(self.job.codec, leaves, None if said.mask is None else np.asarray(said.mask))

    def read(self, body: bytes) -> tuple[Any, np.ndarray | None]:
        """Read a message."""
        leaves, mask = decode_body(self.job.codec, body)
        return jax.tree.unflatten(jax.tree.structure(self.job.x0), leaves), mask


class Rounds:
    """Rounds of all nodes: a node goes on when its neighbours' messages are in, whatever the others do."""

    def __init__(self, node: Node):
        """Take a node."""
        self.node, self.number = node, jnp.int32(node.node)
        self.lanes = max((len(turn.receipts) for turns in node.job.plan.turns for turn in turns), default=0)
        self.bodies: dict[int, bytes] = {}
        self.payload: Any = None

    def warm(self) -> None:
        """Compile both halves of a round."""
        node, before = self.node, self.node.state
        for turn in node.turns[:1]:
            arguments = (node.job.protocol, self.entry(turn.event), before, self.number)
            node.state, self.payload, said, _ = _steps.speak(node.key, *arguments)
            node.body(said)
            self.settle(turn)
        node.state = before

    def entry(self, event: int) -> Any:
        """Return the timeline with the entry of one round."""
        timeline, xs = self.node.job.timeline, self.node.job.plan.xs
        return dataclasses.replace(timeline, xs=jax.tree.map(lambda leaf: leaf[event], xs))

    def do(self, turn: Turn) -> tuple[float, float, int]:
        """Train, send, and wait for the messages of the round; its computation counts from the end of the last."""
        node, job = self.node, self.node.job
        begin = node.log[-1][0] if node.log else 0.0
        timeline = self.entry(turn.event)
        node.state, self.payload, said, loss = _steps.speak(node.key, job.protocol, timeline, node.state, self.number)
        (send,), body, bits = turn.sends, node.body(said), int(said.bits)
        node.sleep_until(begin + (0.0 if job.compute_seconds is None else job.compute_seconds[node.node]))
        born = node.send([(peer, send.message, body) for peer in send.receivers], bits)
        self.bodies = {receipt.sender: node.wait(*receipt[:2]) for receipt in turn.receipts}
        node.sleep_until(0.0 if job.overlap else node.free)
        return born, float(loss), bits * len(send.receivers)

    def settle(self, turn: Turn) -> None:
        """Merge what has come in."""
        node, codec = self.node, self.node.job.codec
        rows = np.full(self.lanes, NOBODY, np.int32)
        values = [np.zeros((self.lanes, *shape), kind) for shape, kind in zip(codec.shapes, codec.dtypes, strict=True)]
        masks = np.zeros((self.lanes, sum(codec.sizes)), bool) if codec.masked else None
        for lane, (sender, body) in enumerate(self.bodies.items()):
            leaves, mask = decode_body(codec, body)
            rows[lane] = sender
            for column, leaf in zip(values, leaves, strict=True):
                column[lane] = leaf
            if masks is not None:
                masks[lane] = mask
        tree = jax.tree.unflatten(jax.tree.structure(self.form()), values)
        node.state = _steps.hear(
            node.key, node.job.protocol, self.entry(turn.event), node.state, self.payload, rows, tree, masks,
            self.number,
        )  # fmt: skip
        jax.block_until_ready(node.state)

    def form(self) -> Any:
        """Return the part of the payload that holds values."""
        return self.payload.values if hasattr(self.payload, "mask") else self.payload


class Events:
    """Events at planned times: a node acts at its time, or when the messages that the plan has then are in."""

    def __init__(self, node: Node):
        """Take a node."""
        self.node, self.n = node, node.job.num_nodes
        self.begins = NOBODY if node.job.plan.has_begin else None
        self.step = functools.partial(_steps.act, node.key, node.job.protocol)

    def warm(self) -> None:
        """Compile an event and the arrival of a message."""
        node, before = self.node, self.node.state
        _, said, _ = self.step(before, _steps.event_of_node(0, 0.0, self.n, begins=self.begins))
        values, mask = node.read(node.body(said))
        jax.block_until_ready(_steps.place(Frozen(self.n), before, values, mask))

    def do(self, turn: Turn) -> tuple[float, float, int]:
        """Act at the planned time, send, then take in the messages of the event."""
        node, plan = self.node, self.node.job.plan
        index, moment = int(plan.indices[turn.event]), float(plan.times[turn.event])
        at = functools.partial(_steps.event_of_node, index, moment, self.n, begins=self.begins)
        node.sleep_until(moment)
        started, loss = node.now(), np.nan
        if turn.acts or turn.begins:
            loss = self._train(turn, at)
        total = sum(self._send(send, at) for send in turn.sends)
        late = [self._take(receipt, at) for receipt in turn.receipts]
        node.sleep_until(0.0 if node.job.overlap else node.free)
        return max([started, *late]), loss, total

    def _train(self, turn: Turn, at: functools.partial) -> float:
        acts = self.node.node if turn.acts else NOBODY
        begins = {"begins": self.node.node} if turn.begins else {}
        self.node.state, _, loss = self.step(self.node.state, at(acts=acts, **begins))
        return float(loss)

    def _send(self, send: Any, at: functools.partial) -> int:
        """Copy the row of the node to the row of messages, and send that."""
        node = self.node
        copied = at(transfer=(node.node, self.n, 1.0, 0.0), sent=1)
        node.state, said, _ = self.step(node.state, copied)
        bits = int(said.bits)
        if send.receivers:
            body = node.body(said)
            node.send([(peer, send.message, body) for peer in send.receivers], bits)
        return bits

    def _take(self, receipt: Receipt, at: functools.partial) -> float:
        """Wait for a message, put it into the row of messages, and mix it in; return when it was there."""
        node = self.node
        values, mask = node.read(node.wait(receipt.message, receipt.sender))
        there = node.now()
        state = _steps.place(Frozen(self.n), node.state, values, mask)
        node.state, _, _ = self.step(state, at(transfer=(self.n, node.node, receipt.weight, receipt.keep)))
        return there

    def settle(self, turn: Turn) -> None:
        """Wait until the state is computed."""
        jax.block_until_ready(self.node.state)
