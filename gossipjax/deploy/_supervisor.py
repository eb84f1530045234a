"""Start the nodes, connect them, start their clocks, and end them all: with their results, or if one of them fails."""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import Any

from gossipjax.deploy._job import Beat, Job, Result, write_job
from gossipjax.deploy._watch import Life, NodeFailed, note_beat, verdict

LEAD_S = 0.2
"""Time between the order to start and the start."""
LOOK_S = 0.1
"""Longest time between two looks at the clock."""
THREADS = {name: "1" for name in ("NPROC", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
"""One thread a node: many nodes share the cores of a machine. This does not change numbers, as flags of XLA would."""


@dataclasses.dataclass
class Nodes:
    """The processes of a run, as their parent sees them."""

    job: Job
    launcher: subprocess.Popen
    control: Connection
    pipes: list[Connection]
    lives: list[Life]
    codes: dict[int, int] = dataclasses.field(default_factory=dict)
    """Exit codes of the nodes that have ended."""


def run_nodes(job: Job, patience: float | None, longest_s: float) -> list[Result]:
    """Run a job on one process per node.

    Args:
        job: the run.
        patience: seconds; None: 10 times the longest planned wait and the longest compilation, and 5 more.
        longest_s: real seconds of the longest planned wait.

    Raises:
        NodeFailed: if a node dies, hangs or falls behind. No process is left.
    """
    nodes = _launch(job, write_job(job))
    try:
        endpoints = _gather(nodes, str, patience or 0.0)
        for pipe in nodes.pipes:
            _tell(pipe, dict(enumerate(endpoints)))
        compile_s = max(_gather(nodes, float, patience or 0.0))
        patience = 10 * (longest_s + compile_s) + 5.0 if patience is None else patience
        begin = time.monotonic() + LEAD_S
        for life, pipe in zip(nodes.lives, nodes.pipes, strict=True):
            life.running = True
            note_beat(life, begin, 0, None)
            _tell(pipe, begin)
        return _gather(nodes, Result, patience)
    finally:
        _end(nodes)


def _tell(pipe: Connection, what: Any) -> None:
    try:
        pipe.send(what)
    except (BrokenPipeError, ConnectionResetError):  # it has died; the next look finds out
        return


def _launch(job: Job, written: bytes) -> Nodes:
    pairs = [socket.socketpair() for _ in range(job.num_nodes + 1)]
    theirs = [pair[1].fileno() for pair in pairs]
    paths = os.pathsep.join(path for path in sys.path if path)
    launcher = subprocess.Popen(
        [sys.executable, "-m", "gossipjax.deploy._launcher", *map(str, theirs)],
        stdin=subprocess.PIPE,
        pass_fds=theirs,
        start_new_session=True,  # a group of its own, which is ended as a whole
        env=os.environ | THREADS | {"PYTHONPATH": paths, "JAX_PLATFORMS": "cpu"},
    )
    for _, end in pairs:
        end.close()
    control, *pipes = (Connection(mine.detach()) for mine, _ in pairs)
    now = time.monotonic()
    nodes = Nodes(job, launcher, control, pipes, [Life(now) for _ in pipes])
    assert launcher.stdin is not None
    try:
        launcher.stdin.write(written)
        launcher.stdin.close()
    except BrokenPipeError:  # it has died; the next look finds out
        pass
    return nodes


def _gather(nodes: Nodes, kind: type, patience: float) -> list[Any]:
    """Wait until every node has sent an answer of one kind, and return the answers.

    Raises:
        NodeFailed: if a node fails before.
    """
    answers: dict[int, Any] = {}
    number = {pipe: node for node, pipe in enumerate(nodes.pipes)}
    while len(answers) < len(nodes.pipes):
        for pipe in wait([nodes.control, *(pipe for pipe, node in number.items() if node not in answers)], LOOK_S):
            if pipe is nodes.control:
                _hear_launcher(nodes)
            elif (said := _hear(nodes, number[pipe])) is not None:  # type: ignore[index]
                answers[number[pipe]] = said  # type: ignore[index]
                assert isinstance(said, kind)
        now = time.monotonic()
        for node in answers:  # it waits for the others now, and has nothing to say
            nodes.lives[node].heard_s = now
        if (blamed := verdict(nodes.lives, now, patience)) is not None:
            raise _failed(nodes, *blamed)
    return [answers[node] for node in range(len(nodes.pipes))]


def _hear(nodes: Nodes, node: int) -> Any:
    """Read what a node says: None for a sign of life, else an answer."""
    life, now = nodes.lives[node], time.monotonic()
    try:
        said = nodes.pipes[node].recv()
    except (EOFError, ConnectionResetError):
        raise _failed(nodes, node, "died", f"died{_code(nodes, node)}") from None
    if isinstance(said, Beat):
        note_beat(life, now, *said)
        return None
    if isinstance(said, str) and said.startswith("Traceback"):
        raise _failed(nodes, node, "error", f"raised an error:\n{said.rstrip()}\n")
    note_beat(life, now, life.done, None)
    if isinstance(said, Result):
        life.result, life.done = said, len(said.end_s)
    return said


def _hear_launcher(nodes: Nodes) -> None:
    """Read the pids of the nodes, and how they end."""
    try:
        said = nodes.control.recv()
    except (EOFError, ConnectionResetError):
        missing = [node for node, life in enumerate(nodes.lives) if life.result is None]
        if any(nodes.pipes[node].poll() for node in missing) or not missing:
            return  # they have more to say, if only that they have ended
        nodes.launcher.wait()
        text = f"was lost: the process that starts the nodes ended with code {nodes.launcher.returncode}"
        raise _failed(nodes, missing[0], "died", text) from None
    if isinstance(said, dict):
        for node, pid in said.items():
            nodes.lives[node].pid = pid
    else:
        nodes.codes[said[0]] = said[1]


def _code(nodes: Nodes, node: int) -> str:
    """Wait a moment for the exit code of a node that has closed its pipe."""
    end = time.monotonic() + 2.0
    while node not in nodes.codes and time.monotonic() < end:
        if nodes.control.poll(LOOK_S):
            _hear_launcher(nodes)
    code = f" with exit code {nodes.codes[node]}" if node in nodes.codes else ""
    return f"{code} after its turn {nodes.lives[node].done}"


def _failed(nodes: Nodes, node: int, reason: str, text: str) -> NodeFailed:
    return NodeFailed(node, nodes.lives[node].pid, reason, text, [life.done for life in nodes.lives])


def _end(nodes: Nodes) -> None:
    """End every process, and wait until the pipes of all nodes are closed: then none is left."""
    finished = all(life.result is not None for life in nodes.lives)
    for node, life in enumerate(nodes.lives):
        if not finished and life.pid and node not in nodes.codes:
            _kill(os.kill, life.pid)
    try:
        nodes.launcher.wait(timeout=30.0 if finished else 5.0)  # it has seen all of them end
    except subprocess.TimeoutExpired:
        _kill(os.killpg, nodes.launcher.pid)
        nodes.launcher.wait()
    for pipe in (nodes.control, *nodes.pipes):
        _drain(pipe)
        pipe.close()


def _kill(how: Callable[[int, int], None], pid: int) -> None:
    try:
        how(pid, signal.SIGKILL)
    except ProcessLookupError:  # it has ended
        return


def _drain(pipe: Connection) -> None:
    """Read until the other end is closed."""
    while pipe.poll(10.0):
        try:
            pipe.recv_bytes()
        except (EOFError, OSError):
            return
