"""The process that starts the nodes: ``python -m gossipjax.deploy._launcher CONTROL PIPE…`` with numbers of open files.

It imports JAX once and forks, so that the nodes share its memory and start in milliseconds. It must not compute: JAX
cannot be forked after its first computation. It reads the job from its standard input, tells the parent how each node
ended, and ends them all if the parent is gone.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from multiprocessing.connection import Connection

from gossipjax.deploy._node import run_node

POLL_S = 0.02
"""Time between two looks for nodes that have ended."""


def main(control: int, pipes: list[int]) -> None:
    """Fork one node for each pipe, and watch them until all have ended."""
    written = sys.stdin.buffer.read()
    nodes: dict[int, int] = {}
    for node, pipe in enumerate(pipes):
        pid = os.fork()
        if not pid:
            for other in (control, *pipes[node + 1 :]):  # those before are closed
                os.close(other)
            os._exit(run_node(Connection(pipe), node, written))
        nodes[pid] = node
        os.close(pipe)
    del written
    parent = Connection(control)
    parent.send({node: pid for pid, node in nodes.items()})
    _watch(parent, nodes)


def _watch(parent: Connection, nodes: dict[int, int]) -> None:
    while nodes:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid:
            parent.send((nodes.pop(pid), os.waitstatus_to_exitcode(status)))
            continue
        if parent.poll():  # the parent never writes: its end is closed
            os.killpg(os.getpgrp(), signal.SIGKILL)
        time.sleep(POLL_S)


if __name__ == "__main__":
    main(int(sys.argv[1]), [int(pipe) for pipe in sys.argv[2:]])
    os._exit(0)  # taking all the imports down one by one would take seconds
