"""Deployed runs in which a node is killed or stopped: ``python tests/lib/deploy_faults.py 50`` prints trials."""

import contextlib
import os
import signal
import sys
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np

import gossipjax as gj
from gossipjax.deploy import _supervisor

RING = np.eye(4) / 2 + (np.roll(np.eye(4), 1, 0) + np.roll(np.eye(4), -1, 0)) / 4


def run_with_fault(node, fault, *, delay_s, start=True, patience=2.0):
    """Deploy four nodes, send a signal to one of them, and return what happened.

    Args:
        node: which is struck.
        fault: the signal.
        delay_s: time from the start of the clocks to the signal; with ``start=False``, from the start of the process.
        start: see there.
        patience: of the supervisor.

    Returns:
        The failure (None: the run had ended before), the pids of the nodes, and the seconds from the signal to the end.
    """
    struck, pids, timers = [], [], []

    def strike():
        struck.append(time.monotonic())
        with contextlib.suppress(ProcessLookupError):
            os.kill(pids[node], fault)

    def arm():
        timers.append(threading.Timer(delay_s, strike))
        timers[0].start()

    hear, tell = _supervisor._hear_launcher, _supervisor._tell

    def hear_launcher(nodes):
        hear(nodes)
        if not pids and nodes.lives[0].pid:
            pids.extend(life.pid for life in nodes.lives)
            if not start:
                arm()

    def watch(pipe, what):
        tell(pipe, what)
        if start and isinstance(what, float) and not timers:
            arm()

    _supervisor._hear_launcher, _supervisor._tell = hear_launcher, watch
    plan, x0, failure = gj.timeline.rounds(RING, 40), jnp.ones((4, 2)), None
    try:
        gj.deploy.execute(jax.random.key(0), gj.gossip_averaging(), plan, x0, compute_seconds=0.05, patience=patience)
    except gj.deploy.NodeFailed as error:
        failure = error
    finally:
        end = time.monotonic()
        _supervisor._hear_launcher, _supervisor._tell = hear, tell
        for timer in timers:
            timer.cancel()
    return failure, pids, end - struck[0] if struck else 0.0


if __name__ == "__main__":
    rng, faults = np.random.default_rng(int(sys.argv[2]) if len(sys.argv) > 2 else 0), (signal.SIGKILL, signal.SIGSTOP)
    for trial in range(int(sys.argv[1])):
        node, fault, begun = int(rng.integers(4)), faults[trial % 10 == 9], trial % 2 == 1
        delay = float(rng.uniform(0, 2.2))
        failure, _, seconds = run_with_fault(node, fault, delay_s=delay, start=begun, patience=6.0)
        named = (
            "the run had ended" if failure is None else f"{failure.reason}, node {failure.node}, {failure.done} done"
        )
        what = f"{fault.name} of node {node}, {delay:.2f} s after the {'clocks' if begun else 'processes'} started"
        print(f"{trial}: {what}: {named}, {seconds:.1f} s later", flush=True)
