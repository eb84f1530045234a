"""The sockets of a node: an inbox on the address that it was told, and an uplink to each node that hears it."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
import zmq

from gossipjax.deploy._wire import HELLO, Header, read_header, write_header

MOST_QUEUED = 64
"""Messages of one connection that wait in memory to be read; the others wait at their sender, which goes on."""
LINGER_MS = 60_000
"""How long a process stays for messages that have not left its socket; the supervisor ends it before where it must."""


class Arrived(NamedTuple):
    """A message that has arrived."""

    due: float
    body: bytes


class Inbox:
    """Messages that have come in. It listens on one address, and drops whatever is not expected.

    At most ``MOST_QUEUED`` messages of a connection wait to be read, and no frame is longer than the longest body. The
    number of frames of a message, and of connections, has no limit: whoever reaches the port can fill the memory of the
    node, which is why it listens on the loopback address unless told otherwise.
    """

    def __init__(
        self,
        context: zmq.Context,
        address: str,
        token: bytes,
        expected: Iterable[tuple[int, int]],
        most_bytes: int,
        num_nodes: int,
    ):
        """Bind to a free port of the address.

        Args:
            context: of the process.
            address: of one of this machine's interfaces.
            token: of the run.
            expected: messages that will come, ``(message, sender)``.
            most_bytes: size of the longest body.
            num_nodes: n.
        """
        self._token, self._most, self._expected = token, most_bytes, set(expected)
        self._here: dict[tuple[int, int], Arrived] = {}
        self.refused = 0
        self.received = np.zeros(num_nodes, np.int64)
        self._socket = context.socket(zmq.PULL)
        self._socket.setsockopt(zmq.RCVHWM, MOST_QUEUED)
        self._socket.setsockopt(zmq.MAXMSGSIZE, max(most_bytes, 1024))
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.IPV6, ":" in address)
        host = f"[{address}]" if ":" in address else address
        port = self._socket.bind_to_random_port(f"tcp://{host}", 20_000, 60_000)
        self.endpoint = f"tcp://{host}:{port}"

    def take(self, message: int, sender: int, seconds: float) -> Arrived | None:
        """Return a message, or None if it does not come within some seconds."""
        end = time.monotonic() + seconds
        while (message, sender) not in self._here:
            left = end - time.monotonic()
            if left <= 0 or not self._socket.poll(max(1, int(1000 * left))):
                return None
            self._read(self._socket.recv_multipart())
        return self._here.pop((message, sender))

    def _read(self, frames: list[bytes]) -> None:
        header = read_header(self._token, frames)
        if header is None or header.length > self._most or (header.message, header.sender) not in self._expected:
            self.refused += 1
            return
        self._expected.remove((header.message, header.sender))
        self._here[header.message, header.sender] = Arrived(header.due, frames[1])
        self.received[header.sender] += header.message != HELLO

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()


class Burst(NamedTuple):
    """Messages that leave together."""

    leaves: float
    """Value of ``time.monotonic()``."""
    due: float
    """Simulated seconds at which they arrive."""
    messages: list[tuple[int, int, bytes]]
    """Receiver, number and body of each."""


class Uplink(threading.Thread):
    """A thread that sends bursts at their times, so that nodes never wait in order to send."""

    def __init__(self, context: zmq.Context, token: bytes, node: int, endpoints: Mapping[int, str]):
        """Connect to the nodes that hear this one."""
        super().__init__(daemon=True)
        self._context, self._token, self._node, self._endpoints = context, token, node, endpoints
        self._bursts: queue.SimpleQueue[Burst | None] = queue.SimpleQueue()
        self.sent = np.zeros(max(endpoints, default=-1) + 1, np.int64)
        self.wire_bytes = 0
        self._error: Exception | None = None

    def run(self) -> None:
        """Send until :meth:`finish`; keep an error for :meth:`check`."""
        sockets: dict[int, zmq.Socket] = {}
        try:
            for peer, endpoint in self._endpoints.items():
                sockets[peer] = self._socket(endpoint)
            self._send_all(sockets)
        except Exception as error:
            self._error = error
        for socket in sockets.values():
            socket.close(LINGER_MS)

    def _send_all(self, sockets: dict[int, zmq.Socket]) -> None:
        for peer, socket in sockets.items():
            socket.connect(self._endpoints[peer])
            socket.send_multipart([write_header(self._token, Header(self._node, HELLO, 0.0, 0)), b""])
        while (burst := self._bursts.get()) is not None:
            time.sleep(max(0.0, burst.leaves - time.monotonic()))
            for peer, message, body in burst.messages:
                header = write_header(self._token, Header(self._node, message, burst.due, len(body)))
                sockets[peer].send_multipart([header, body])
                self.sent[peer] += 1
                self.wire_bytes += len(body)

    def _socket(self, endpoint: str) -> zmq.Socket:
        socket = self._context.socket(zmq.PUSH)
        socket.setsockopt(zmq.SNDHWM, 0)
        socket.setsockopt(zmq.IPV6, "[" in endpoint)
        return socket

    def send(self, burst: Burst) -> None:
        """Hand over a burst; returns at once.

        Raises:
            RuntimeError: see :meth:`check`.
        """
        self.check()
        self._bursts.put(burst)

    def check(self) -> None:
        """Raise what has ended the thread.

        Raises:
            RuntimeError: if an error has ended it.
        """
        if self._error is not None:
            raise RuntimeError(f"node {self._node} cannot send any more") from self._error

    def finish(self) -> None:
        """Wait until all bursts have left.

        Raises:
            RuntimeError: see :meth:`check`.
        """
        self._bursts.put(None)
        self.join()
        self.check()
