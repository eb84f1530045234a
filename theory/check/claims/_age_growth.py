"""Claims on how version age grows with the number of nodes."""

from __future__ import annotations

import numpy as np

from ... import age as exact
from ..claim import Axis, Claim, Law, Observation, Sampling, each, pointwise
from ._ages import MEAN_AGE, PAPER, UNIT, ages_of, peers_of, rough_age

SIZES = Axis("nodes n", (9, 36, 144, 576, 1600), (9, 36, 121, 400, 900))
"""Square numbers, for the torus."""


def _growth(seed: int, point: float, replicas: int, graph: str) -> Observation:
    """Measure the mean age in shorter runs than elsewhere, because the largest networks take most of the time."""
    n = int(point)
    ages = ages_of(seed, peers_of(graph, n), replicas, rough_age(graph, n), burn_in=4, records=4)
    return ages.observed(ages.values.mean(axis=2))


CLAIMS = (
    Claim(
        "version_age_grows_complete",
        "For λ_s = λ the age on the complete graph grows as (λ_e/λ) ln n.",
        PAPER,
        SIZES,
        MEAN_AGE,
        predict=pointwise(lambda k: exact.version_age_complete(k, **UNIT)),
        simulate=each(lambda seed, n, replicas: _growth(seed, n, replicas, "complete")),
        sampling=Sampling(192, 96),
        catches=("partners drawn from neighbours on a ring",),
        kind="scaling",
        law=Law(("logarithm",)),
    ),
    Claim(
        "version_age_grows_random_regular",
        "On random 4-regular graphs, which are expanders, the age grows as ln n.",
        "Maranzatto and Michelen 2024, arXiv 2409.12710; order only",
        SIZES,
        MEAN_AGE,
        predict=lambda n: 1.2 * np.log(n),
        simulate=each(lambda seed, n, replicas: _growth(seed, n, replicas, "random regular")),
        sampling=Sampling(96, 48),
        catches=("a random graph that is one long ring",),
        kind="scaling",
        law=Law(("logarithm",)),
        mark="recalled",
    ),
    Claim(
        "version_age_grows_ring",
        "For λ_s = λ the age on the ring grows as (λ_e/λ) √(πn/2).",
        PAPER,
        SIZES,
        MEAN_AGE,
        predict=pointwise(lambda k: exact.version_age_ring(k, **UNIT)),
        simulate=each(lambda seed, n, replicas: _growth(seed, n, replicas, "ring")),
        sampling=Sampling(24, 24),
        catches=("shortcuts between distant nodes",),
        kind="scaling",
        # The exact ages of these sizes fit an exponent of 0.53: they are two thirds of a version below the law.
        law=Law(("power",), exponent=0.5, slack=0.04),
    ),
    Claim(
        "version_age_grows_torus",
        "On the torus the age grows as n^(1/3).",
        "Srivastava and Ulukus 2023; Maranzatto and Michelen 2024, arXiv 2409.12710; order only",
        SIZES,
        MEAN_AGE,
        predict=lambda n: 1.2 * n ** (1 / 3),
        simulate=each(lambda seed, n, replicas: _growth(seed, n, replicas, "torus")),
        sampling=Sampling(96, 48),
        catches=("neighbours in one direction only",),
        kind="scaling",
        # Only the order is known; the ring shows how far small networks are from theirs.
        law=Law(("power",), exponent=1 / 3, slack=0.04),
        mark="recalled",
    ),
)
