"""Row 11: what neighbours learn, who was in the training data, and one node that lies about its labels."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from gossipjax import privacy
from gossipjax._base.rows import replicate
from gossipjax._engine.loop import run, with_slots
from gossipjax._engine.simulate import simulate
from gossipjax.mixing import lazy, metropolis
from gossipjax.observe import membership
from gossipjax.review._bench import Bench
from gossipjax.review._claims import reason_against, runs_at
from gossipjax.review._row import Row, curves, missing, row
from gossipjax.review._statistics import interval
from gossipjax.review._tuning import Tuned
from gossipjax.tasks import quadratic
from gossipjax.timeline import rounds
from gossipjax.topology import ring

NODES, DIMENSION, EVENTS, RUNS = 8, 2, 4, 96
REBUILT = 0.999
"""Least share of the variance of new runs that counts as rebuilt."""


def security_row(bench: Bench, tuned: dict[str, Tuned]) -> Row:
    """Report leaks; they fail only a protocol whose authors say PRIVATE = True."""
    rebuilt, states = _from_states(bench)
    leak, words = _exact(bench, tuned)
    details = [states, words, _members(bench, tuned), _liar(bench, tuned)]
    problems: list[str] = []
    if bench.submission.private and not rebuilt and states.startswith("states: not") and leak is None:
        return missing(11, "privacy is claimed, and no attack could be run", details)
    if bench.submission.private:
        problems += ["a node rebuilds its neighbour's data from what it holds"] if rebuilt else []
        problems += ["neighbours hear contributions exactly"] if leak else []
    known = "a node can rebuild its neighbour's data from its state" if rebuilt else "reported"
    claimed = (
        "privacy is claimed, and no leak was found" if bench.submission.private else f"{known}; privacy is not claimed"
    )
    return row(11, not problems, "; ".join(problems) or claimed, details)


def _from_states(bench: Bench) -> tuple[bool, str]:
    """Fit a node's own state, linearly, to the data of its neighbour, in runs with other data; test on new runs.

    The state is all that the protocol keeps in the row of the node, with secrets and masks. The node knows its own
    data, too. Rebuilding is possible if the fit predicts new runs exactly.
    """
    if bench.submission.timeline is not None:
        return False, "states: not attacked; the protocol has a timeline of its own"
    targets = np.random.default_rng(0).standard_normal((RUNS, NODES, DIMENSION)).astype(np.float32)
    try:
        states = np.asarray(_states(bench, targets), np.float64)
    except ValueError as error:
        return False, f"states: not attacked, because the probe does not run: {error}"
    share = 0.0
    known = np.concatenate([states, targets[:, 0], np.ones((RUNS, 1))], axis=1)
    for neighbour in (1, NODES - 1):
        share = max(share, _explained(known, targets[:, neighbour].astype(np.float64)))
    words = f"states: {max(share, 0.0):.1%} of the variance of a neighbour's data is explained by what a node holds"
    return share >= REBUILT, words


def _states(bench: Bench, targets: Any) -> Any:
    """Return the row of node 0 in all leaves of the state, for each run."""
    plan = rounds(lazy(metropolis(ring(NODES))), EVENTS, form="dense")
    problem, settings = quadratic(targets[0], dtype="float32"), bench.submission.trials[0] | {"step": 0.1}
    start = replicate(jnp.zeros(DIMENSION, jnp.float32), NODES)

    def one(key: Any, each: Any) -> Any:
        task = dataclasses.replace(problem, data=problem.data | {"targets": each})
        protocol = bench.build("protocol", settings, task)
        state = run(key, protocol, plan, protocol.init(key, with_slots(start, plan.properties)))[0][0]
        rows = [leaf[0].ravel() for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.floating)]
        return jnp.concatenate(rows)

    return jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(1), RUNS), jnp.asarray(targets))


def _explained(known: Float[np.ndarray, "r k"], wanted: Float[np.ndarray, "r d"]) -> float:
    """Return the share of the variance that a linear fit to two thirds of the runs explains in the others."""
    cut = 2 * len(known) // 3
    weights = np.linalg.lstsq(known[:cut], wanted[:cut], rcond=1e-6)[0]
    left = ((known[cut:] @ weights - wanted[cut:]) ** 2).sum()
    return 1.0 - float(left / ((wanted[cut:] - wanted[cut:].mean(0)) ** 2).sum())


def _exact(bench: Bench, tuned: dict[str, Tuned]) -> tuple[bool | None, str]:
    """Audit a short plan: whose contributions do neighbours hear exactly? None: the protocol itself was not audited."""
    task, _ = bench.problem(bench.main)
    plan = bench.timeline("protocol", bench.main)[:EVENTS]
    protocol = bench.build("protocol", tuned["protocol"].best, task)
    try:
        found, of = privacy.audit(plan, protocol), "of the protocol"
    except ValueError:
        try:
            found, of = privacy.audit(plan, privacy.steps()), "of the plan, if whole models are sent"
        except ValueError as error:
            return None, f"exact leak: not known; {error}"
    near = found.hops == 1
    share = float(found.reconstructed[near].mean()) if near.any() else 0.0
    words = f"exact leak {of}, {EVENTS} events: {share:.0%} of neighbours hear a contribution exactly; largest μ "
    return (
        share > 0 if of == "of the protocol" else None
    ), f"{words}{np.nanmax(found.mu):.3g} for noise of 1 and sensitivity 1"


def _members(bench: Bench, tuned: dict[str, Tuned]) -> str:
    """Attack membership in the shards of all nodes, for the protocol."""
    task, _ = bench.problem(bench.main)
    protocol, plan = bench.build("protocol", tuned["protocol"].best, task), bench.timeline("protocol", bench.main)
    keys = jnp.stack([jax.random.key(number) for number in range(bench.budget.row_seeds)])
    try:
        watch = [membership(task, samples=16)]
        run = simulate(keys, protocol, plan, task, observers=watch, record_at=[len(plan)], throw=False)
    except ValueError as error:
        return f"membership: not attacked; {error}"
    bench.done |= {f"membership {number}" for number in range(len(keys))}
    areas = run["membership_auc_by_node"].isel(record=-1).transpose("seed", "node").values.astype(np.float64)
    mean, low, high = interval(areas.mean(1))
    worst = areas.mean(0).max()
    return f"membership: area {mean:.3f} ({low:.3f} to {high:.3f}) over nodes, the worst {worst:.3f}; ½ is guessing"


def _liar(bench: Bench, tuned: dict[str, Tuned]) -> str:
    """Let node 0 learn flipped labels, and say what the others lose."""
    attacked, lost = bench.main._replace(attacked=True), []
    for name in ("protocol", bench.submission.claim.baseline):
        if why := reason_against(bench, tuned, name, attacked):
            return f"one Byzantine node: not run; {name}: {why}"
        honest = [runs_at(bench, tuned, name, place).isel(node=slice(1, None)) for place in (bench.main, attacked)]
        before, after = (curves(each, "mean")[:, -1] for each in honest)
        mean, low, high = interval(before - after)
        lost.append(f"{name} loses {mean:.3f} ({low:.3f} to {high:.3f})")
    return f"one Byzantine node, whose labels are flipped: {'; '.join(lost)}"
