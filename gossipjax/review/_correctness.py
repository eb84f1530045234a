"""Rows 1 and 2: properties that must hold exactly, and quadratics whose optimum is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

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
TOLERANCE = 1e-6 * EVENTS
"""Of models, whose numbers are below 4: other programs may add in another order, which costs some units in the last
place of float32 in an event, each 2.4e-7 at that size."""
REACHED = 1e-9
"""Share of the first squared distance that counts as the optimum: float32 cannot come much closer."""
CLOSE = 1e-2
"""Largest share of the first squared distance that may be left after all rounds."""
STEADY = 0.7
"""Least ratio of the late slope of the logarithm to the early one and to that from start to end. Powers ``t^{-p}``
have 0.4 over these thirds, and straight lines 1; a curve that bends only after these rounds is not told from a line."""


def correct(bench: Bench) -> Row:
    """Row 1: conservation, padding, packing and restart, by :mod:`gossipjax.testing`."""
    try:
        from gossipjax import testing
    except ImportError as error:
        return missing(1, str(error))
    if why := _refusal(bench):
        return missing(1, why)
    problems, details, ran = [], [], 0
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
            ran += not note
            details.append(f"{name}: {note or 'holds'}")
    if not problems and not ran:
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


def _refusal(bench: Bench) -> str:
    """Say why a protocol does not run on quadratics; an empty text if it does."""
    try:
        plan, protocol = _plan(bench, EVENTS), _moving(bench)
        if _unfit(protocol, plan):  # each check says what it lacks
            return ""
        simulate(jax.random.key(0), protocol, plan, jnp.asarray(_start()), record_at=[len(plan)], throw=False)
    except Exception as error:  # whatever a protocol raises that was not made for this task
        return f"does not run on quadratics: {type(error).__name__}: {error}"
    return ""


def _start() -> Any:
    return np.random.default_rng(1).standard_normal((NODES, DIMENSION)).astype(jnp.result_type(float))


def _still(bench: Bench) -> Protocol:
    """Make the protocol with step size zero, or next to it."""
    try:
        return bench.build("protocol", bench.settings_at(0.0), _task())
    except ValueError:  # some refuse zero
        return bench.build("protocol", bench.settings_at(1e-30), _task())


def _conserves(bench: Bench, testing: Any) -> str:
    """Check that the mean is conserved; like each check, return why it was not run, or an empty text."""
    plan = _plan(bench, EVENTS)
    if not bench.submission.conserves_mean:
        return "not run; the authors say CONSERVES_MEAN = False"
    if "doubly_stochastic" not in plan.properties:
        return "not run; its timeline is not doubly stochastic"
    if why := _unfit(_still(bench), plan):
        return f"not run; {why}"
    testing.check_conserves_mean(_still(bench), plan, _start())
    return ""


def _unfit(protocol: Protocol, plan: Timeline) -> str:
    """Say why a protocol cannot run on a timeline; an empty text if it can."""
    try:
        check_requires(protocol.requires, plan.properties)
    except ValueError as error:
        return str(error)
    return ""


def _moving(bench: Bench) -> Protocol:
    return bench.build("protocol", bench.settings_at(STEPS[1]), _task())


def _pairs(bench: Bench) -> tuple[Protocol, Timeline, str]:
    protocol, plan = _moving(bench), poisson_pairs(ring(NODES), EVENTS, seed=0)
    why = _unfit(protocol, plan)
    return protocol, plan, f"not run; {why}" if why else ""


def _padding(bench: Bench, testing: Any) -> str:
    protocol, plan, why = _pairs(bench)
    if why:
        return why
    wide = pack(plan, 4)
    padded = testing.pad_timeline(wide, num_events=len(wide) + 4, acting=16, lanes=32)
    ends = [testing.history(protocol, each, _start()).models[-1] for each in (wide, padded)]
    gap = float(np.abs(ends[0] - ends[1]).max())
    assert gap <= TOLERANCE, f"empty events and lanes change the models by {gap:.3g}; they must not"
    return ""


def _packing(bench: Bench, testing: Any) -> str:
    protocol, plan, why = _pairs(bench)
    if why:
        return why
    testing.check_packing(protocol, plan, _start(), tolerance=TOLERANCE)
    return ""


def _restart(bench: Bench, testing: Any) -> str:
    del testing
    plan, protocol, key = _plan(bench, EVENTS), _moving(bench), jax.random.key(3)
    if why := _unfit(protocol, plan):
        return f"not run; {why}"
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
    if why := _refusal(bench) or _unfit(_moving(bench), plan):
        return missing(2, why)
    optimum = np.random.default_rng(2).standard_normal(DIMENSION)
    task = quadratic(np.tile(optimum, (NODES, 1)), curvature=np.linspace(0.5, 1, DIMENSION))
    found = [_approach(_curve(bench, task, plan, optimum, step)) for step in STEPS]
    details = [f"step {step:g}: {each.words}" for step, each in zip(STEPS, found, strict=True)]
    passed = any(each.linear for each in found)
    reason = (
        "approaches the optimum at a linear rate" if passed else "does not approach the known optimum at a linear rate"
    )
    if bench.submission.expected_error is None:
        details.append("no expected_error: its value is not compared with a formula")
    elif bench.submission.timeline is not None:
        details.append(
            "expected_error: not compared; it is a formula for rounds, and the protocol has its own timeline"
        )
    else:
        z, words = _score(bench, plan, bench.submission.expected_error)
        details.append(words)
        passed, reason = passed and abs(z) < LIMIT, f"{reason}; {words}"
    return row(2, passed, reason, details)


class Approach(NamedTuple):
    """Whether a curve of squared distances falls like a power of a number below 1, and in words how it falls."""

    linear: bool
    words: str


def _curve(bench: Bench, task: Any, plan: Timeline, optimum: Any, step: float) -> Any:
    """Return the squared distance in every round."""
    return simulate(
        jax.random.key(0),
        bench.build("protocol", bench.settings_at(step), task),
        plan,
        replicate(jnp.zeros(DIMENSION), NODES),
        observers=[distance_to(jnp.asarray(optimum))],
        record_every=max(len(plan) // ROUNDS, 1),
        packing="sequential",
        throw=False,
    )["squared_error"]


def _approach(curve: Any) -> Approach:
    """Compare slopes of the logarithm, early and late, from a fifth of the way on, and look at the end."""
    values = curve.values.astype(np.float64)
    if not np.isfinite(values).all() or not values[-1] < values[0]:
        return Approach(False, "the squared distance does not fall")
    low = values <= REACHED * values[0]
    reached, end = bool(low.any()), int(np.argmax(low)) if low.any() else len(values)
    left = values[end if reached else -1] / values[0]
    words = f"{left:.2g} of the squared distance is left after {end if reached else end - 1} records"
    if not reached and left > CLOSE:
        return Approach(False, f"{words}, more than {CLOSE:g}")
    first = end // 5
    third = (end - first) // 3
    try:
        early = linear_rate(curve[first : first + third], skip=0.0, blocks=2)
        late = linear_rate(curve[end - third : end], skip=0.0, blocks=2)
    except ValueError:
        return Approach(reached, words if reached else f"{words}, too few to fit a rate")
    steepest = min(np.log(early.rate), np.log(max(left, REACHED)) / (end if reached else end - 1))
    steady = bool(np.log(late.rate) <= STEADY * steepest < 0)
    falls = f"{words}; it falls × {early.rate:.4g} a round early and × {late.rate:.4g} late"
    return Approach(steady, falls if steady else f"{falls}, which is slower than a linear rate")


def _score(bench: Bench, plan: Timeline, expected: Callable[..., Any]) -> tuple[float, str]:
    """Compare the squared distance to the mean of the targets, over nodes and noise, with the authors' formula."""
    step = STEPS[1]
    targets = np.random.default_rng(4).standard_normal((NODES, DIMENSION))
    task = quadratic(targets, noise_std=NOISE)
    protocol, keys = (
        bench.build("protocol", bench.settings_at(step), task),
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
