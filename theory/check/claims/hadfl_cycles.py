"""Claims on whole cycles of HADFL: how long a ring takes, what a death costs, and what a ring conserves."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial
from jaxtyping import Num

import gossipjax as gj
from gossipjax.systems import HADFLFailures, HADFLSelection

from ... import hadfl
from ..claim import Axis, Claim, Observation, Points, Sampling, once, pointwise
from .hadfl import SOURCE

MEMBERS = Axis("members M of the ring", (2, 3, 4, 6, 8), (2, 4))
RING: dict[str, Any] = {"model_bytes": 60_000, "bytes_per_second": 1e5, "latency_s": 0.05}
TIMERS = {"timeout_s": 2.0, "handshake_s": 0.5}
UNIT_S = 0.5
"""Seconds per unit; devices are equal, so all members reach the ring at the same time."""


def _plan(members: int, seed: int, deaths: gj.devices.Availability | None = None) -> gj.systems.Plan:
    """Plan the first cycles of the ring's members and one more device, which stays outside."""
    fleet = gj.devices.uniform(
        members + 1,
        seconds_per_sample=UNIT_S / 3,
        bytes_per_second=RING["bytes_per_second"],
        latency_seconds=RING["latency_s"],
    )
    return gj.systems.hadfl(
        gj.devices.with_availability(fleet, deaths),
        20.0,
        model_bytes=RING["model_bytes"],
        local_steps=1,
        selection=HADFLSelection(count=members),
        failures=HADFLFailures(timeout_s=TIMERS["timeout_s"], handshake_s=TIMERS["handshake_s"]),
        seed=seed,
    )


def _first_ring_seconds(plan: gj.systems.Plan) -> float:
    """Measure the seconds from synchronisation to the end of the first ring; NaN if it was abandoned."""
    history = plan.history
    averaged = history.outcomes[0] == "averaged"
    return float(history.cycle_end_s[0] - history.cycle_sync_s[0]) if averaged else float("nan")


def _ring(seed: int, points: Points, replicas: int) -> Observation:
    del replicas
    return Observation(np.asarray([[_first_ring_seconds(_plan(int(point), seed)) for point in points]]))


def _death(seed: int, points: Points, replicas: int) -> Observation:
    """Let one member die at a random moment of the undisturbed ring."""
    rng, rows = np.random.default_rng(seed), []
    for _ in range(replicas):
        row = []
        for point in points:
            whole = _plan(int(point), seed).history
            member = int(rng.choice(np.flatnonzero(whole.selected[0])))
            moment = rng.uniform(whole.cycle_sync_s[0], whole.cycle_end_s[0])
            deaths = gj.devices.outages(int(point) + 1, np.array([member]), np.array([moment]), np.array([np.inf]))
            row.append(_first_ring_seconds(_plan(int(point), seed, deaths)))
        rows.append(row)
    return Observation(np.asarray(rows))


def _bound(members: int | float) -> float:
    return hadfl.cycle_seconds_bound(int(members), 1, **RING, **TIMERS)


def _conserved(seed: int, points: Points, replicas: int) -> Observation:
    """Compute the sum of all models at the end over that at the start, with all devices in the ring and no steps."""
    del replicas
    ratios = []
    for point in points:
        n = int(point)
        fleet = gj.devices.uniform(n, seconds_per_sample=UNIT_S / 3, bytes_per_second=RING["bytes_per_second"])
        plan = gj.systems.hadfl(
            fleet, 12.0, model_bytes=RING["model_bytes"], local_steps=1, selection=HADFLSelection(count=n), seed=seed
        )
        start = 1.0 + np.random.default_rng(seed + n).random((n, 1))
        task = gj.tasks.quadratic(np.zeros((n, 1)))
        x0 = jnp.asarray(np.concatenate([start, start[:1]]))  # and the row of the last mean
        protocol = gj.hadfl(task, Partial(optax.sgd, 0.0), local_steps=1)
        end = np.asarray(gj.simulate(jax.random.key(0), protocol, gj.systems.stand_in(plan), x0, progress=False).x)
        ratios.append(float(end[:n].sum() / start.sum()))
    return Observation(np.asarray([ratios]))


def _ones(points: Num[np.ndarray, " points"]) -> np.ndarray:
    return np.ones(points.size)


CLAIMS = (
    Claim(
        "hadfl_ring_seconds",
        "M members that are ready at the same time hold their mean after 2 (M − 1)(L + S/(M B)) seconds.",
        f"{SOURCE}; Patarasuk and Yuan 2009 for the ring",
        MEMBERS,
        "seconds from synchronisation to mean",
        predict=pointwise(lambda members: hadfl.ring_seconds(int(members), **RING)),
        simulate=_ring,
        sampling=once(1e-6),
        catches=("a ring without its latency",),
    ),
    Claim(
        "hadfl_death_in_the_ring",
        "A member that dies in the ring delays it by timeout, handshake, latency and one repeated ring at most.",
        f"{SOURCE}; repeating the whole ring is a choice made here",
        Axis("members M of the ring", (3, 4, 6, 8), (3, 6)),
        "seconds from synchronisation to mean",
        predict=pointwise(_bound),
        simulate=_death,
        sampling=Sampling(24, 8),
        kind="upper",
        catches=("a timeout that is too long",),
    ),
    Claim(
        "hadfl_ring_conserves_the_sum",
        "A ring of all devices conserves the sum of their models.",
        SOURCE,
        Axis("devices n", (2, 3, 4, 9, 12), (3, 9)),
        "sum of the models / sum before",
        predict=_ones,
        simulate=_conserved,
        # Ten means of n float32 or float64 numbers near 1.
        sampling=once(1e-5),
        catches=("a mean that forgets a member",),
    ),
)
