"""Row 11: what neighbours learn, who was in the training data, and one node that lies about its labels."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any, NamedTuple

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

NODES, DIMENSION, EVENTS, RUNS = 8, 2, 4, 384
REBUILT = 0.999
"""Least share of the variance of new runs that counts as rebuilt."""


class Attack(NamedTuple):
    """What an attack found, in words too."""

    leaks: bool | None
    """None: not decided."""
    words: str


def security_row(bench: Bench, tuned: dict[str, Tuned]) -> Row:
    """Report leaks; they fail only a protocol whose authors say PRIVATE = True."""
    attacks = {
        "a node rebuilds its neighbour's data from what it holds": _from_states(bench),
        "neighbours hear contributions exactly": _exact(bench, tuned),
        "members of the training data are told from others better than by guessing": _members(bench, tuned),
    }
    details = [*(each.words for each in attacks.values()), _liar(bench, tuned)]
    leaks = [what for what, each in attacks.items() if each.leaks]
    if not bench.submission.private:
        return row(
            11, True, f"reported, and privacy is not claimed: {'; '.join(leaks) or 'no leak was found'}", details
        )
    if leaks:
        return row(11, False, "; ".join(leaks), details)
    open_ones = [each.words.split(":")[0] for each in attacks.values() if each.leaks is None]
    undecided = f"; not decided: {', '.join(open_ones)}" if open_ones else ""
    if undecided:
        return missing(11, f"privacy is claimed, and no leak was found by what was decided{undecided}", details)
    return row(11, True, "privacy is claimed, and no leak was found", details)


def _from_states(bench: Bench) -> Attack:
    """Fit a node's own state, linearly, to the data of its neighbour, in runs with other data; test on new runs.

    The state is all that the protocol keeps in the row of the node, with secrets and masks, and what all nodes share.
    The node knows its own data, too. Words of masked sums are also added and subtracted in pairs, modulo their size.
    Rebuilding is possible if the fit predicts new runs exactly. Where a node holds more numbers than there are runs to
    fit, nothing is decided.
    """
    if bench.submission.timeline is not None:
        return Attack(None, "states: not attacked; the protocol has a timeline of its own")
    targets = np.random.default_rng(0).standard_normal((RUNS, NODES, DIMENSION)).astype(np.float32)
    try:
        states = _features(_states(bench, targets))
    except Exception as error:  # whatever a protocol raises that was not made for this task
        return Attack(None, f"states: not attacked, because the probe does not run: {type(error).__name__}: {error}")
    if not np.isfinite(states).all():
        return Attack(None, "states: not decided, because they became infinite or NaN")
    known = np.concatenate([states, targets[:, 0], np.ones((RUNS, 1))], axis=1)
    if 2 * known.shape[1] > 2 * RUNS // 3:
        held = f"a node holds {states.shape[1]} numbers, too many to fit in {2 * RUNS // 3} runs"
        return Attack(None, f"states: not decided; {held}")
    share = max(_explained(known, targets[:, near].astype(np.float64)) for near in (1, NODES - 1))
    words = f"states: {max(share, 0.0):.1%} of the variance of a neighbour's data is explained by what a node holds"
    return Attack(share >= REBUILT, words)


def _states(bench: Bench, targets: Any) -> list[Any]:
    """Return the row of node 0 in all leaves of the state that are numbers, for each run."""
    plan = rounds(lazy(metropolis(ring(NODES))), EVENTS, form="dense")
    problem, settings = quadratic(targets[0], dtype="float32"), bench.settings_at(0.1)
    start = replicate(jnp.zeros(DIMENSION, jnp.float32), NODES)

    def one(key: Any, each: Any) -> Any:
        task = dataclasses.replace(problem, data=problem.data | {"targets": each})
        protocol = bench.build("protocol", settings, task)
        state = run(key, protocol, plan, protocol.init(key, with_slots(start, plan.properties)))[0][0]
        numbers = [leaf for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.number)]
        return [(leaf[0] if leaf.ndim else leaf).ravel() for leaf in numbers]

    found = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(1), RUNS), jnp.asarray(targets))
    return [np.asarray(leaf) for leaf in found]


def _features(leaves: list[Any]) -> Float[np.ndarray, "r k"]:
    """Return all numbers, and sums and differences of two arrays of words, which wrap as masks of secret sums do."""
    words = [leaf for leaf in leaves if leaf.dtype.kind in "iu"]
    pairs = [(a, b) for a, b in itertools.combinations(words, 2) if a.shape == b.shape and a.dtype == b.dtype]
    mixed = [each for a, b in pairs for each in (a + b, a - b)]
    signed = [each.astype(f"i{each.dtype.itemsize}") if each.dtype.kind == "u" else each for each in [*leaves, *mixed]]
    table = np.concatenate([each.astype(np.float64) for each in signed], axis=1)
    scale = table.std(axis=0)
    return (table - table.mean(0))[:, scale != 0] / scale[scale != 0]


def _explained(known: Float[np.ndarray, "r k"], wanted: Float[np.ndarray, "r d"]) -> float:
    """Return the share of the variance that a linear fit to two thirds of the runs explains in the others."""
    cut = 2 * len(known) // 3
    weights = np.linalg.lstsq(known[:cut], wanted[:cut], rcond=1e-6)[0]
    left = ((known[cut:] @ weights - wanted[cut:]) ** 2).sum()
    return 1.0 - float(left / ((wanted[cut:] - wanted[cut:].mean(0)) ** 2).sum())


def _exact(bench: Bench, tuned: dict[str, Tuned]) -> Attack:
    """Audit a short plan: whose contributions do neighbours hear exactly? Decides only if the protocol is audited."""
    task, _ = bench.problem(bench.main)
    plan = bench.timeline("protocol", bench.main)[:EVENTS]
    protocol = bench.build("protocol", tuned["protocol"].best, task)
    try:
        found, itself = privacy.audit(plan, protocol), True
    except ValueError:
        try:
            found, itself = privacy.audit(plan, privacy.steps()), False
        except ValueError as error:
            return Attack(None, f"exact leak: not known; {error}")
    near = found.hops == 1
    share = float(found.reconstructed[near].mean()) if near.any() else 0.0
    of = "of the protocol" if itself else "of the plan, if whole models are sent"
    heard = f"{share:.0%} of neighbours hear a contribution exactly"
    mu = f"largest μ {np.nanmax(found.mu):.3g} for noise of 1 and sensitivity 1"
    return Attack(share > 0 if itself else None, f"exact leak: {of}, {EVENTS} events: {heard}; {mu}")


def _members(bench: Bench, tuned: dict[str, Tuned]) -> Attack:
    """Attack membership in the shards of all nodes, for the protocol; a leak if the interval lies above ½."""
    task, _ = bench.problem(bench.main)
    protocol, plan = bench.build("protocol", tuned["protocol"].best, task), bench.timeline("protocol", bench.main)
    keys = jnp.stack([jax.random.key(number) for number in range(bench.budget.row_seeds)])
    try:
        watch = [membership(task, samples=16)]
        run = simulate(keys, protocol, plan, task, observers=watch, record_at=[len(plan)], throw=False)
    except ValueError as error:
        return Attack(None, f"membership: not attacked; {error}")
    bench.done |= {f"membership {number}" for number in range(len(keys))}
    return judged(run["membership_auc_by_node"].isel(record=-1).transpose("seed", "node").values)


def judged(areas: Any) -> Attack:
    """Judge areas ``(seeds, nodes)`` of an attack on membership by the interval of their mean over nodes."""
    areas = np.asarray(areas, np.float64)
    if not np.isfinite(areas).all():
        return Attack(None, "membership: not decided, because models became infinite or NaN")
    mean, low, high = interval(areas.mean(1))
    worst = areas.mean(0).max()
    words = f"membership: area {mean:.3f} ({low:.3f} to {high:.3f}) over nodes, the worst {worst:.3f}; ½ is guessing"
    return Attack(low > 0.5, words)


def _liar(bench: Bench, tuned: dict[str, Tuned]) -> str:
    """Let node 0 learn flipped labels, and say what the others lose."""
    attacked, lost = bench.main._replace(attacked=True), []
    for name in ("protocol", bench.submission.claim.baseline):
        if why := reason_against(bench, tuned, name, attacked):
            return f"one Byzantine node: not run; {why}"
        both = [runs_at(bench, tuned, name, place).records for place in (bench.main, attacked)]
        honest = [records.isel(node=slice(1, None)) for records in both]
        before, after = (curves(each, "mean")[:, -1] for each in honest)
        mean, low, high = interval(before - after)
        lost.append(f"{name} loses {mean:.3f} ({low:.3f} to {high:.3f})")
    return f"one Byzantine node, whose labels are flipped: {'; '.join(lost)}"
