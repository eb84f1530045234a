"""Run protocols with sharings on timelines, on one device and on a mesh, and print what differs: one line each.

``python tests/lib/mesh_walk.py [timeline ...]`` with forced CPU devices; all combinations on the timelines named, else
each protocol, each sharing and each timeline at least once.
"""

import sys

import jax
import numpy as np
from combinations import KEY, PROTOCOLS, X0, built, made, runs_as_built, sharings_of
from tree_differences import difference

import gossipjax as gj

DEVICES = 3
"""The first of them does not hold node 0; see :func:`parts`."""
WATCH = [gj.observe.consensus_distance(), gj.observe.disagreement(), gj.observe.models()]


def start(plan):
    """Equal rows of messages of nodes: as many rows as the timeline has."""
    return np.resize(np.asarray(X0), (plan.properties.num_rows, X0.shape[1])).astype(np.float32)


def run(method, plan, **where):
    return gj.simulate(KEY, method, plan, start(plan), observers=WATCH, strategy="vmap", progress=False, **where)


def parts(plan):
    """Nodes in blocks, the first on the last device."""
    return (np.arange(plan.properties.num_nodes) * DEVICES // plan.properties.num_nodes)[::-1]


def differences(one, other):
    """The largest relative difference of models, state and measured numbers; counts must be equal."""
    for name in ("bytes_sent", "messages_sent", "gradient_calls", "event", "time"):
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)
    found = []
    for name in ("train_loss", "consensus_distance", "disagreement", "model"):
        a, b = (np.asarray(each[name], float) for each in (one, other))
        np.testing.assert_array_equal(np.isnan(a), np.isnan(b), err_msg=name)
        found.append(np.nanmax(np.abs(a - b), initial=0) / max(np.nanmax(np.abs(a), initial=0), 1e-3))
    return max(*found, difference(one.x, other.x), difference(one.state, other.state))


def compare(name, said, plan):
    """``placed`` and the difference, or ``refused`` and the message."""
    method, timeline = made(name, said), gj.systems.stand_in(built(plan))
    try:
        placed = run(method, timeline, mesh=gj.mesh(DEVICES), parts=parts(timeline))
    except ValueError as error:
        if not str(error).startswith("mesh: "):
            raise
        return "refused", str(error)
    return "placed", f"{differences(run(method, timeline), placed):.1e}"


def everything():
    return [
        (name, said, plan) for name in PROTOCOLS for said in sharings_of(name) for plan in runs_as_built(name, said)
    ]


def few():
    """Each protocol, each sharing and each timeline at least once, if it runs at all."""
    chosen, seen = [], set()
    for case in everything():
        if set(case) - seen - {None}:
            chosen.append(case)
            seen |= set(case)
    return chosen


if __name__ == "__main__":
    jax.config.update("jax_numpy_dtype_promotion", "strict")
    named = sys.argv[1:]
    for case in [case for case in everything() if case[2] in named] if named else few():
        try:
            told = compare(*case)
        except Exception as error:  # printed, for the test to fail on
            told = "failed", repr(error)[:500]
        print("\t".join([str(each) for each in case] + list(told)), flush=True)
