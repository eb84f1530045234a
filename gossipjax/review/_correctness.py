"""Rows 1 and 2: properties that must hold exactly, and quadratics whose optimum is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gossipjax._base.rows import replicate
from gossipjax._engine.packing import pack
from gossipjax._engine.simulate import simulate
from gossipjax.facts import check_requires
from gossipjax.mixing import lazy, metropolis
from gossipjax.observe import distance_to
from gossipjax.results import linear_rate
from gossipjax.review._bench import Bench
from gossipjax.review._row import Row, missing, row
from gossipjax.tasks import quadratic
from gossipjax.timeline import poisson_pairs, rounds
from gossipjax.topology import ring
from gossipjax.types import Protocol, Timeline

NODES, DIMENSION, EVENTS = 8, 6, 12
LIMIT = 4.0
"""Largest score |z| of a value that theory predicts."""
STEPS = (0.2, 0.05, 0.0125)
"""Of row 2, where the largest curvature is 1; it is enough that one of them converges."""
ROUNDS, NOISE, REPLICAS = 200, 0.1, 32


def settings_of(bench: Bench, step: float) -> dict[str, Any]:
    """Return the first settings of the grid with another step."""
    return bench.submission.trials[0] | {"step": step}


def correct(bench: Bench) -> Row:
    """Row 1: conservation, padding, packing and restart, by :mod:`gossipjax.testing`."""
    try:
        from gossipjax import testing
    except ImportError as error:
        return missing(1, str(error))
    problems, details = [], []
    for name, check in {
        "conservation": _conserves,
        "padding": _padding,
        "packing": _packing,
        "restart": _restart,
    }.items():
        try:
            note = check(bench, testing)
        except AssertionError as error:
            problems.append(name)
            details.append(f"{name}: {error}")
        else:
            details.append(f"{name}: {note or 'holds'}")
    if not problems and all(each.split(": ")[1].startswith("not run") for each in details):
        return missing(1, "no property could be checked", details)
    return row(
        1, not problems, f"{' and '.join(problems)} broken" if problems else "all that could be checked holds", details
    )


def _plan(bench: Bench, events: int) -> Timeline:
    """Return a short timeline of the protocol: its own, or rounds on a ring."""
    given = bench.submission.timeline
    if given is None:
        return rounds(lazy(metropolis(ring(NODES))), events, form="dense")
    plan = given(ring(NODES), events, 0)
    return getattr(plan, "timeline", plan)


def _task() -> Any:
    targets = np.random.default_rng(0).standard_normal((NODES, DIMENSION))
    return quadratic(targets, curvature=np.linspace(0.5, 1, DIMENSION))


def _start() -> Any:
    return np.random.default_rng(1).standard_normal((NODES, DIMENSION)).astype(jnp.result_type(float))


def _still(bench: Bench) -> Protocol:
    """Make the protocol with step size zero, or next to it."""
    try:
        return bench.build("protocol", settings_of(bench, 0.0), _task())
    except ValueError:  # some refuse zero
        return bench.build("protocol", settings_of(bench, 1e-30), _task())


def _conserves(bench: Bench, testing: Any) -> str:
    plan = _plan(bench, EVENTS)
    if not bench.submission.conserves_mean:
        return "not run; the authors say CONSERVES_MEAN = False"
    if "doubly_stochastic" not in plan.properties:
        return "not run; its timeline is not doubly stochastic"
    if why := _unfit(_still(bench), plan):
        return why
    testing.check_conserves_mean(_still(bench), plan, _start())
    return ""


def _unfit(protocol: Protocol, plan: Timeline) -> str:
    try:
        check_requires(protocol.requires, plan.properties)
    except ValueError as error:
        return f"not run; {error}"
    return ""


def _moving(bench: Bench) -> Protocol:
    return bench.build("protocol", settings_of(bench, STEPS[1]), _task())


def _pairs(bench: Bench) -> tuple[Protocol, Timeline, str]:
    protocol, plan = _moving(bench), poisson_pairs(ring(NODES), EVENTS, seed=0)
    return protocol, plan, _unfit(protocol, plan)


def _padding(bench: Bench, testing: Any) -> str:
    protocol, plan, why = _pairs(bench)
    if why:
        return why
    wide = pack(plan, 4)
    padded = testing.pad_timeline(wide, num_events=len(wide) + 4, acting=16, lanes=32)
    ends = [testing.history(protocol, each, _start()).models[-1] for each in (wide, padded)]
    gap = float(np.abs(ends[0] - ends[1]).max())
    # Other programs may add in another order: 2e-7 of a number in each event.
    assert gap <= 1e-6 * EVENTS, f"empty events and lanes change the models by {gap:.3g}; they must not"
    return ""


def _packing(bench: Bench, testing: Any) -> str:
    protocol, plan, why = _pairs(bench)
    if why:
        return why
    testing.check_packing(protocol, plan, _start(), tolerance=1e-5)
    return ""


def _restart(bench: Bench, testing: Any) -> str:
    del testing
    plan, protocol, key = _plan(bench, EVENTS), _moving(bench), jax.random.key(3)
    if why := _unfit(protocol, plan):
        return why
    half, start = len(plan) // 2, jnp.asarray(_start())
    if not half:
        return "not run; its timeline has less than two events"
    once = simulate(key, protocol, plan, start, record_at=[half, len(plan)], packing="sequential")
    first = simulate(key, protocol, plan[:half], start, record_at=[half], packing="sequential")
    again = simulate(key, protocol, plan, first, record_at=[half, len(plan)], packing="sequential")
    same = all(np.array_equal(a, b) for a, b in zip(*(jax.tree.leaves(each.x) for each in (once, again)), strict=True))
    assert same, f"a run that is continued after {half} events ends elsewhere than one without a break"
    return ""


def convex(bench: Bench) -> Row:
    """Row 2: quadratics with a common optimum, to be approached at a linear rate; and a formula, if there is one."""
    plan = _plan(bench, ROUNDS)
    if why := _unfit(_moving(bench), plan):
        return missing(2, why.removeprefix("not run; "))
    optimum = np.random.default_rng(2).standard_normal(DIMENSION)
    task = quadratic(np.tile(optimum, (NODES, 1)), curvature=np.linspace(0.5, 1, DIMENSION))
    details, slopes = [], []
    for step in STEPS:
        rate = _rate(bench, task, plan, optimum, step)
        slopes.append(rate)
        details.append(f"step {step:g}: squared distance × {rate[0]:.4g} a round ({rate[1]:.4g} to {rate[2]:.4g})")
    passed = any(high < 1 for _, _, high in slopes)
    reason = (
        "approaches the optimum at a linear rate" if passed else "does not approach the known optimum at a linear rate"
    )
    if bench.submission.expected_error is not None:
        z, words = _score(bench, plan, bench.submission.expected_error)
        details.append(words)
        passed, reason = passed and abs(z) < LIMIT, f"{reason}; {words}"
    else:
        details.append("no expected_error: its value is not compared with a formula")
    return row(2, passed, reason, details)


def _rate(bench: Bench, task: Any, plan: Timeline, optimum: Any, step: float) -> tuple[float, float, float]:
    """Return the factor of the squared distance a round, with its interval; infinite if it does not fall."""
    protocol = bench.build("protocol", settings_of(bench, step), task)
    watch = [distance_to(jnp.asarray(optimum))]
    every = max(len(plan) // ROUNDS, 1)
    start = replicate(jnp.zeros(DIMENSION), NODES)
    run = simulate(
        jax.random.key(0), protocol, plan, start, observers=watch, record_every=every, packing="sequential", throw=False
    )
    curve = run["squared_error"]
    values = curve.values
    if not np.isfinite(values).all() or not values[-1] < values[0]:
        return np.inf, np.inf, np.inf
    try:
        found = linear_rate(curve, floor=1e-9 * float(values[0]))
    except ValueError:  # it was there before a rate could be fitted
        return 0.0, 0.0, 0.0
    return found.rate, found.low, found.high


def _score(bench: Bench, plan: Timeline, expected: Callable[..., Any]) -> tuple[float, str]:
    """Compare the squared distance to the mean of the targets, over nodes and noise, with the authors' formula."""
    step = STEPS[1]
    targets = np.random.default_rng(4).standard_normal((NODES, DIMENSION))
    task = quadratic(targets, noise_std=NOISE)
    protocol, keys = (
        bench.build("protocol", settings_of(bench, step), task),
        jax.random.split(jax.random.key(5), REPLICAS),
    )
    start = replicate(jnp.zeros(DIMENSION), NODES)
    run = simulate(
        keys,
        protocol,
        plan,
        start,
        observers=[distance_to(jnp.asarray(targets.mean(0)))],
        record_at=[len(plan)],
        throw=False,
    )
    values = run["squared_error"].transpose("seed", "record").values[:, -1].astype(np.float64)
    W = lazy(metropolis(ring(NODES))).toarray()
    predicted = float(expected(W, targets, step, NOISE, len(plan)))
    z = float((values.mean() - predicted) / (values.std(ddof=1) / np.sqrt(REPLICAS)))
    return (
        z,
        f"squared distance {values.mean():.4g}, expected {predicted:.4g}: z = {z:+.1f}, to be within ±{LIMIT:g}",
    )
