"""Rounds with robust rules beside plain ones, and cells of a sweep over attacks, rules, graphs and seeds."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jax.tree_util import Partial

import gossipjax as gj
from benchmarks.works import WORKS, model_of, pool, shards
from experiments.lib.liars import chosen_attack, chosen_rule, honesty
from gossipjax import robust

B, DEGREE = 2, 8
ATTACKERS = (0, 1)


UBAR = "UBAR"


def rules(b: int, degree: int) -> dict[str, robust.Rule]:
    """Return all rules but UBAR, which needs data, each told b. RPEL merges by NNM and the trimmed mean."""
    beta = b / (degree + 1)
    return {
        "plain mean": robust.gts(0.0),
        "clipped, fixed": robust.clipped_gossip(1.0),
        "clipped (He)": robust.clipped_gossip(beta=beta),
        "CS+": robust.cs_plus(beta),
        "GTS": robust.gts(beta),
        "IOS": robust.ios(b),
        "FABA": robust.faba(b),
        "NNA": robust.nna(b),
        "median": robust.coordinate_median(b),
        "trimmed mean": robust.trimmed_mean(b),
        "Krum": robust.krum(b),
        "NNM, trimmed mean": robust.nnm(b, robust.trimmed_mean(b)),
        "geometric median (RFA)": robust.geometric_median(b, smoothed=True),
        "geometric median": robust.geometric_median(b),
    }


def _bytes(rule: robust.Rule, n: int, params: Any) -> float:
    """Count the bytes that one node's rule reads and writes, by XLA, times n."""
    flat, unravel = ravel_pytree(params)
    own, others = jnp.zeros_like(flat), jnp.zeros((DEGREE, flat.size))
    context = robust.Context(jax.random.key(0), jnp.int32(0), unravel)
    program = jax.jit(lambda rule, own, others, w: rule.apply(own, others, w, context))
    cost = program.lower(rule, own, others, jnp.full(DEGREE, 1 / (DEGREE + 1))).compile().cost_analysis()
    return n * float(cost["bytes accessed"])  # type: ignore[index]


def chosen(names: Sequence[str]) -> list[str]:
    """Return the names of the rules to measure; none given: all.

    Raises:
        ValueError: a name that is not known.
    """
    known = [*rules(B, DEGREE), UBAR]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"unknown rule {unknown[0]!r}; choose among {'; '.join(known)}")
    return list(names) or known


def rounds(n: int = 64, *names: str, repeats: int = 3) -> dict[str, Any]:
    """Measure a round of W2 with each rule and with full sharing in turns, in CPU seconds of one process."""
    work, key = WORKS["W2"], jax.random.key(0)
    task = gj.tasks.classification(pool(work), shards(n), model_of(work), batch_size=work.batch_size)
    graph = gj.topology.random_regular(n, DEGREE, seed=0, tries=20)
    plan = gj.timeline.rounds(gj.mixing.metropolis(graph), 1)
    wanted, params = chosen(names), task.init(key)
    known = {name: rule for name, rule in rules(B, DEGREE).items() if name in wanted}

    def program(sharing: Any) -> Any:
        protocol = gj.dpsgd(task, Partial(optax.sgd, work.learning_rate), local_steps=work.local_steps, sharing=sharing)
        state = protocol.init(key, gj.replicate(params, n))
        return protocol, state

    run = jax.jit(lambda protocol, state: gj.run(key, protocol, plan, state))

    def spent(pair: Any) -> float:
        start = time.process_time()
        jax.block_until_ready(run(*pair))
        return time.process_time() - start

    plain = program(None)
    spent(plain)
    found = {}
    for name in wanted:
        rule = robust.ubar(task) if name == UBAR else known[name]
        robustly = program(gj.sharing.robust(rule if name == UBAR else chosen_rule(known, name)))
        spent(robustly)
        pairs = [(spent(robustly), spent(plain)) for _ in range(repeats)]
        found[name] = {
            "cpu_s": float(np.median([own for own, _ in pairs])),
            "ratio": float(np.median([own / other for own, other in pairs])),
            "gigabytes": _bytes(rule, n, params) / 1e9,
        }
    return found


def cell(config: dict[str, Any]) -> Any:
    """Train beside two attackers on digits: one attack, rule, graph and seed."""
    n = 16
    task = _task(n)
    graph = {"regular": _regular, "complete": gj.topology.complete}[config["graph"]](n)
    attacks = {"none": honesty(), "sign flip": robust.sign_flip(), "ALIE": robust.alie()}
    attacks |= {"dissensus": robust.dissensus(2.0), "Gaussian": robust.gaussian()}
    known = {name: rule for name, rule in rules(B, DEGREE).items() if name != "geometric median"}
    attack = chosen_attack(attacks, config["attack"], np.asarray(ATTACKERS), n)
    said = gj.sharing.robust(chosen_rule(known, config["rule"]), ATTACKERS, attack)
    protocol = gj.dpsgd(task, Partial(optax.sgd, 0.2), sharing=said)
    plan = gj.timeline.rounds(gj.mixing.metropolis(graph), 300, form="table")
    key = jax.random.key(config["seed"])
    watch = [gj.observe.node_metrics(task, nodes=range(len(ATTACKERS), n))]
    start = gj.replicate(task.init(key), n)
    return gj.simulate(key, protocol, plan, start, observers=watch, record_every=300)


def _regular(n: int) -> gj.Topology:
    return gj.topology.random_regular(n, DEGREE, seed=0, tries=20)


def _task(n: int) -> gj.Task:
    data = gj.tasks.digits()
    split = gj.tasks.dirichlet(data.train.labels, n, alpha=1.0, seed=0)
    return gj.tasks.classification(data, split, gj.tasks.softmax_regression(64, 10))


def sweep() -> dict[str, Any]:
    """Measure 50 of 500 cells of 300 rounds: 5 attacks, 10 rules, 2 graphs and 5 seeds in the whole grid."""
    left_out = ("geometric median", "clipped, fixed", "FABA", "plain mean")  # plain averaging diverges beside dissensus
    names = [name for name in rules(B, DEGREE) if name not in left_out]
    axes = {"attack": ["none", "sign flip", "ALIE", "dissensus", "Gaussian"], "rule": names}
    axes |= {"graph": ["regular", "complete"], "seed": [0]}
    seconds = []

    def timed(config: dict[str, Any]) -> Any:
        start = time.process_time()
        found = cell(config)
        seconds.append(time.process_time() - start)
        return found

    half = {**axes, "rule": names[::2]}  # every rule of the first 50 is one of two
    gj.sweep(timed, half, tempfile.mkdtemp())
    slow = sorted(seconds)[-2:]  # cells that compile, one for each graph
    rest = float(np.sum(seconds) - np.sum(slow))
    return {"cells": len(seconds), "compile_s": float(np.sum(slow)), "each_s": rest / (len(seconds) - 2)}
