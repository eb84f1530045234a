"""Runs on meshes of forced CPU devices beside the same run on one device; prints one JSON object.

A process of its own, since the number of devices is fixed when JAX starts. ``python tests/lib/mesh_checks.py few``
does what a fast test reads, ``data``, ``edges``, ``transfers`` and ``all`` the rest.
"""

import json
import re
import sys
import tempfile

import jax
import numpy as np
import optax
from jax.tree_util import Partial
from tree_differences import difference

import gossipjax as gj
from gossipjax._engine import driver

KEY = jax.random.key(3)
FOUND: dict = {}
_CALLS: list = []


def task(n, d=3):
    """Every node its own goal; batches are drawn, so that keys and numbers of nodes matter."""
    draws = np.random.default_rng(0)
    return gj.tasks.quadratic(draws.normal(size=(n, d)).astype(np.float32), noise_std=0.3)


def start(n, d=3):
    return np.random.default_rng(1).normal(size=(n, d)).astype(np.float32)


def learn(n, sharing=None):
    return gj.dpsgd(task(n), Partial(optax.sgd, 0.1), local_steps=2, sharing=sharing)


def run(method, plan, x0, key=KEY, **where):
    watch = [gj.observe.consensus_distance(), gj.observe.disagreement()]
    return gj.simulate(key, method, plan, x0, observers=watch, record_every=2, strategy="vmap", progress=False, **where)


def compare(name, one, other, exact=("bytes_sent", "messages_sent", "gradient_calls", "event")):
    """Largest differences of models, state and records; counts must be equal."""
    same = all(np.array_equal(one[each], other[each], equal_nan=True) for each in exact)
    leaves = zip(jax.tree.leaves(one.x), jax.tree.leaves(other.x), strict=True)
    models = max(float(np.abs(np.asarray(a) - np.asarray(b)).max()) for a, b in leaves)
    records = max(float(np.nanmax(np.abs(one[v] - other[v]))) for v in ("consensus_distance", "disagreement"))
    losses = float(np.nanmax(np.abs(np.nan_to_num(one["train_loss"] - other["train_loss"]))))
    FOUND[name] = {"counts": same, "models": models, "records": records, "losses": losses}
    FOUND[name]["state"] = difference(one.state, other.state)


def texts(method, plan, x0, mesh, parts="blocks"):
    """The compiled program of the run."""
    _CALLS.clear()
    keep = driver.advance_call

    def spy(*arguments):
        call, width = keep(*arguments)
        _CALLS.append(call.program.lower(*call.arguments).compile().as_text())
        return call, width

    driver.advance_call = spy
    try:
        run = gj.simulate(KEY, method, plan, x0, strategy="vmap", progress=False, mesh=mesh, parts=parts)
    finally:
        driver.advance_call = keep
    return _CALLS[0], run.manifest["placement"]


def rows_moved(text, row_bytes):
    """Rows that all collective-permutes of a program move, once each: bytes of the result times listed pairs."""
    total, made = 0, r"= f32\[([\d,]+)\]\S* collective-permute\(.*?source_target_pairs=\{(\{.*?\})\}"
    for shape, pairs in re.findall(made, text):
        total += 4 * int(np.prod([int(each) for each in shape.split(",")])) * pairs.count("{")
    return total / row_bytes


def moves(n=64, devices=8):
    """What the program of a halo moves, and whether it gathers anything."""
    plan = gj.timeline.rounds(gj.mixing.metropolis(gj.topology.torus(8, n // 8)), 4, form="table")
    text, report = texts(gj.gossip_averaging(), plan, start(n, 40), gj.mesh(devices))
    shapes = re.findall(r"= \w+\[([\d,]+)\]\S* all-gather\(", text)
    gathers = [int(np.prod([int(k) for k in each.split(",")])) for each in shapes]
    FOUND["moves"] = {"hlo": rows_moved(text, 160), "report": report, "largest gather": max(gathers, default=0)}


def one_and_many(n, sizes):
    """D-PSGD on a graph, with uneven numbers of nodes."""
    plan = gj.timeline.rounds(gj.mixing.metropolis(gj.topology.random_regular(n, 4, seed=0)), 6, form="table")
    method, x0 = learn(n), start(n)
    one = run(method, plan, x0)
    for devices in sizes:
        compare(f"dpsgd n={n} K={devices}", one, run(method, plan, x0, mesh=gj.mesh(devices)))
    return one, method, plan, x0


def fault():
    """One node starts far away, and becomes infinite after a few steps: who and when."""
    n = 16
    plan = gj.timeline.rounds(np.eye(n), 8, form="table")
    far = start(n)
    far[11] = 1e30
    steps = gj.dpsgd(task(n), Partial(optax.sgd, 1e5))
    FOUND["fault"] = []
    for where in ({}, {"mesh": gj.mesh(8)}):
        found = gj.simulate(KEY, steps, plan, far, strategy="vmap", progress=False, throw=False, **where)
        FOUND["fault"].append(found.manifest["diverged"])


def resumed():
    """A run that goes on from 8 devices to 4, to 1, and to none."""
    n, method = 20, learn(20)
    plan = gj.timeline.rounds(gj.mixing.metropolis(gj.topology.torus(4, 5)), 8, form="table")
    one = run(method, plan, start(n))
    with tempfile.TemporaryDirectory() as folder:
        for events, where in ((2, 8), (4, 4), (6, 1), (8, None)):
            mesh = {} if where is None else {"mesh": gj.mesh(where)}
            last = run(method, plan[:events], start(n), checkpoint=f"{folder}/run", **mesh)
    compare("resumed 8, 4, 1", one, last)
    first = run(method, plan[:4], start(n), mesh=gj.mesh(3))
    compare("continued 3, 8", one, run(method, plan, first, mesh=gj.mesh(8)))


def seeds():
    n, method = 20, learn(20)
    plan = gj.timeline.rounds(gj.mixing.metropolis(gj.topology.torus(4, 5)), 4, form="table")
    keys = jax.random.split(KEY, 3)
    compare("seeds", run(method, plan, start(n), keys), run(method, plan, start(n), keys, mesh=gj.mesh(3)))


def metis(one, method, plan, x0):
    try:
        import pymetis  # noqa: F401
    except ImportError:
        return
    found = run(method, plan, x0, mesh=gj.mesh(8), parts="metis")
    compare("metis", one, found)
    FOUND["metis report"] = found.manifest["placement"]


def cycle():
    """Matrices in turn, and nodes spread by hand over devices that hold different numbers of them."""
    n = 20
    graphs = [gj.topology.random_regular(n, 3, seed=seed) for seed in range(3)]
    plan = gj.timeline.rounds([gj.mixing.metropolis(each) for each in graphs], 7, form="table")
    parts = np.random.default_rng(0).permutation(np.repeat(np.arange(3), (9, 7, 4)))
    x0, method = start(n), gj.gossip_averaging()
    found = run(method, plan, x0, mesh=gj.mesh(3), parts=parts)
    compare("cycle", run(method, plan, x0), found)
    FOUND["cycle report"] = found.manifest["placement"]


def memory(n=64, d=4000):
    """Estimates of one device and of eight, which share one memory here: the rows once, what they read in addition."""
    plan = gj.timeline.rounds(gj.mixing.metropolis(gj.topology.ring(n)), 4, form="table")
    method, x0 = gj.gossip_averaging(), start(n, d)
    sizes = [
        gj.estimate_memory(KEY, method, plan, x0, strategy="vmap", **where) for where in ({}, {"mesh": gj.mesh(8)})
    ]
    FOUND["memory"] = {"state": [each.state for each in sizes], "events": [each.events for each in sizes]}


def data(n=11):
    """Images with their nodes: what each device holds, and equal runs; K divides no number here."""
    draws, labels = np.random.default_rng(0), np.arange(90) % 3
    pool = gj.tasks.from_arrays(draws.normal(size=(90, 5)).astype(np.float32), labels, np.ones((3, 5)), np.arange(3))
    shards = gj.tasks.dirichlet(labels, n, alpha=0.5, seed=0)
    images = gj.tasks.classification(pool, shards, gj.tasks.softmax_regression(5, 3), batch_size=4)
    wrong = gj.robust.flip_labels(images, [1, 4], 3)
    sums = gj.tasks.finite_sum(gj.tasks.linear_regression(n, 6, 3, seed=0))
    cases = {
        "flipped": (wrong, gj.dpsgd(wrong, Partial(optax.sgd, 0.1), local_steps=2)),
        "sums": (sums.task, gj.gt_saga(sums, 0.05)),
    }
    plan = gj.timeline.rounds(gj.mixing.metropolis(gj.topology.ring(n)), 4, form="table")
    for name, (each, method) in cases.items():
        watch = [gj.observe.consensus_distance(), gj.observe.disagreement(), gj.observe.node_metrics(each)]
        settings = {"observers": watch, "record_every": 2, "strategy": "vmap", "progress": False}
        one = gj.simulate(KEY, method, plan, each, **settings)
        for devices in (2, 3, 8):
            parts = scattered(n, devices)
            other = gj.simulate(KEY, method, plan, each, mesh=gj.mesh(devices), parts=parts, **settings)
            compare(f"data {name} K={devices}", one, other)
            held = [np.concatenate([shards.shard(i) for i in np.flatnonzero(parts == k)]) for k in range(devices)]
            rows = 5 * 4 + 4 + 4  # an image, its label, its number
            wanted = [rows * len(own) + 4 * (n + 1) for own in held]
            report = other.manifest["placement"]
            FOUND[f"data {name} K={devices}"] |= {"report": report, "wanted": wanted if name == "flipped" else None}
    call = gj.estimate_memory(KEY, cases["flipped"][1], plan, wrong, strategy="vmap", mesh=gj.mesh(2))
    FOUND["data bytes"] = [call.data, sum(leaf.nbytes for leaf in jax.tree.leaves(wrong.data))]


def edges(n=23):
    """What is said to each neighbour, over a halo and with all rows: n divides no number of devices."""
    ring = gj.topology.ring(n)
    secure, rule = gj.sharing.secure_aggregation, gj.robust.clipped_gossip(0.5)
    sharings = {
        "noisy": gj.sharing.noisy(0.1),
        "decor": gj.sharing.decor(ring, 0.1, 0.5),
        "zip_dl": gj.sharing.zip_dl(ring, 0.1),
        "chebyshev": gj.sharing.multi_step(3, 0.9),
        "secure": secure(ring, share=0.5),
        "secure seeds": secure(ring, dropout=0.2),
        "secure shares": secure(ring, dropout=0.2, recovery="shares"),
        "robust": gj.sharing.robust(rule, (1,), gj.robust.alie(), topology=ring),
        "robust, all seen": gj.sharing.robust(rule, (1,), gj.robust.spectral(ring), topology=ring),
        "robust, remembered": gj.sharing.robust(rule, (1,), gj.robust.targeted_echo(), topology=ring),
    }
    x0 = start(n)
    for form in ("table", "dense"):
        plan = gj.timeline.rounds(gj.mixing.metropolis(ring), 4, form=form)
        for name, sharing in sharings.items():
            method = gj.gossip_averaging(sharing)
            one = run(method, plan, x0)
            for devices in (2, 3, 8) if form == "table" else (3,):
                parts = "blocks" if form == "table" else scattered(n, devices)
                found = run(method, plan, x0, mesh=gj.mesh(devices), parts=parts)
                compare(f"{name} {form} K={devices}", one, found)
                FOUND[f"{name} {form} K={devices}"]["exchange"] = found.manifest["placement"]["exchange"]


def low_rank(n=23):
    """PowerGossip on matrices, whose state lies on the edges, and ADMM, whose dual variables do."""
    ring = gj.topology.ring(n)
    plan = gj.timeline.rounds(gj.mixing.metropolis(ring), 4, form="table")
    x0 = np.random.default_rng(1).normal(size=(n, 4, 3)).astype(np.float32)
    method = gj.gossip_averaging(gj.sharing.power_gossip(ring, rank=2))
    one, dual = run(method, plan, x0), gj.lt_admm(task(n), optax.sgd(0.1), ring, local_steps=2, penalty=0.5, beta=0.2)
    other = run(dual, plan, start(n))
    for devices in (2, 3, 8):
        compare(f"low rank K={devices}", one, run(method, plan, x0, mesh=gj.mesh(devices)))
        compare(f"dual K={devices}", other, run(dual, plan, start(n), mesh=gj.mesh(devices)))


def levels(n=40):
    """Drawn meetings in levels found on the devices, against one after another on one device."""
    plan, settings = gj.timeline.drawn_pairs(n, 200), {"strategy": "vmap", "progress": False, "record_every": 50}
    settings["observers"] = [gj.observe.consensus_distance(), gj.observe.disagreement()]
    one = gj.simulate(KEY, gj.gossip_averaging(), plan, start(n), packing="sequential", **settings)
    for devices in (3, 8):
        where = {"mesh": gj.mesh(devices), "parts": scattered(n, devices)}
        other = gj.simulate(KEY, gj.gossip_averaging(), plan, start(n), packing="levels", **where, **settings)
        compare(f"levels K={devices}", one, other)


def scattered(n, devices):
    """Nodes on devices at random, of different numbers, node 0 on the last device."""
    draws = np.random.default_rng(0)
    parts = np.append(np.arange(devices), draws.integers(0, devices, n - devices - 1))
    return np.append(devices - 1, draws.permutation(parts))


def last_device(n=6):
    """Messages in flight where node 0 lies on the last device: spare rows of the first hold no row of it."""
    clock = gj.timeline.clocks.shifted_exponential(0.2, 0.6)
    plan = gj.timeline.push_gossip(gj.topology.complete(n), 6.0, compute=clock, gossip=1.0, latency=0.9, seed=0)
    method, x0 = gj.ad_psgd(task(n), Partial(optax.sgd, 0.1)), start(n)
    parts = np.array([1, 0, 0, 1, 1, 1])
    compare("last device", run(method, plan, x0), run(method, plan, x0, mesh=gj.mesh(2), parts=parts))


def transfers(n=40):
    """D-PSGD with pairs and messages in flight: whole ones one after another, parts of models in packed events."""
    graph = gj.topology.random_regular(n, 4, seed=0)
    clock = gj.timeline.clocks.shifted_exponential(0.2, 0.6)
    flying = gj.timeline.push_gossip(graph, 4.0, compute=clock, gossip=1.0, latency=0.3, seed=0)
    plans = {"pairs": gj.timeline.poisson_pairs(graph, 200, seed=0), "in flight": flying}
    for name, plan in plans.items():
        for packing, devices in (("sequential", 3), ("packed", 8)):
            settings = {"strategy": "vmap", "progress": False, "packing": packing, "record_every": len(plan) // 4}
            settings["observers"] = [gj.observe.consensus_distance(), gj.observe.disagreement()]
            method = learn(n, None if packing == "sequential" else gj.sharing.random_subset(0.5))
            one = gj.simulate(KEY, method, plan, start(n), **settings)
            for order, parts in (("blocks", "blocks"), ("scattered", scattered(n, devices))):
                other = gj.simulate(KEY, method, plan, start(n), mesh=gj.mesh(devices), parts=parts, **settings)
                compare(f"{name} {packing} {order}", one, other)
                report = other.manifest["placement"]
                FOUND[f"{name} {packing} {order}"] |= {"bound": report["bound"], "transfers": report["transfers"]}


if __name__ == "__main__":
    if sys.argv[1] == "transfers":
        transfers()
    elif sys.argv[1] == "edges":
        edges()
        low_rank()
    elif sys.argv[1] == "data":
        data()
    elif sys.argv[1] == "few":
        one_and_many(100, (8,))
        moves()
        last_device()
        levels()
    else:
        metis(*one_and_many(64, (2, 3, 8)))
        fault()
        resumed()
        seeds()
        memory()
        cycle()
    print(json.dumps(FOUND))
