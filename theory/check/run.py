"""Run claims: find them by name, simulate them on all cores, and judge them together."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import difflib
import fnmatch
import importlib
import multiprocessing
import time
import zlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from .claim import Assumption, Claim, Observation, check_claim
from .judge import Result, judge

FAMILIES = (
    "staleness",
    "opportunistic",
    "growth",
    "age",
    "spreading",
    "averaging",
    "mixing",
    "push_sum",
    "learning",
    "exact_methods",
    "privacy",
    "asynchronous",
    "delay",
    "compression",
    "clocks",
    "queues",
    "hadfl",
    "hadfl_cycles",
    "time_complexity",
)
"""Modules of :mod:`theory.check.claims`."""
COMMAND = __name__.partition(".")[0]
"""Name of this package: ``theory`` in a checkout, ``gossipjax_theory`` in an installed wheel."""


def claims() -> tuple[Claim, ...]:
    """Return every claim, family by family."""
    everything = tuple(claim for family in FAMILIES for claim in _module(family).CLAIMS)
    names = [claim.name for claim in everything]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"two claims have the name {sorted(twice)[0]!r}; rename one")
    return tuple(check_claim(claim) for claim in everything)


def family_of(claim: Claim) -> str:
    """Return the name of the module that holds a claim."""
    return next(family for family in FAMILIES if any(c.name == claim.name for c in _module(family).CLAIMS))


def select(names: Sequence[str]) -> tuple[Claim, ...]:
    """Return the claims that match names, families, or patterns such as ``staleness_*``; without names, all claims.

    Raises:
        ValueError: if a name matches no claim.
    """
    everything = claims()
    chosen: dict[str, Claim] = {}
    for name in names or ["*"]:
        fitting = [c for c in everything if fnmatch.fnmatchcase(c.name, name)]
        if not fitting and name in FAMILIES:
            fitting = list(_module(name).CLAIMS)
        if not fitting:
            near = difflib.get_close_matches(name, [c.name for c in everything], n=3, cutoff=0.4)
            hint = f"did you mean {', '.join(near)}? " if near else ""
            raise ValueError(f"no claim is called {name!r}: {hint}`python -m {COMMAND} list` lists them all")
        chosen |= {c.name: c for c in fitting}
    return tuple(chosen.values())


def num_tests(chosen: Sequence[Claim], *, quick: bool) -> int:
    """Count the comparisons of a run, which share the risk of a false alarm."""
    return sum(len(claim.size(quick)[0]) for claim in chosen)


def run_claim(claim: Claim, *, quick: bool, seed: int, tests: int) -> Result:
    """Simulate and judge one claim.

    Args:
        claim: the claim.
        quick: whether to run the quick form.
        seed: seed of all simulations, from which each claim derives its own.
        tests: see :func:`num_tests`.
    """
    start = time.monotonic()
    points, replicas = claim.size(quick)
    own = (zlib.crc32(claim.name.encode()) + 104_729 * seed) % 2**31
    try:
        observation = claim.simulate(own, points, replicas)
    except (ValueError, FloatingPointError, ZeroDivisionError) as error:  # other errors are faults of the claim
        broken = Assumption("the run is possible", False, f"{type(error).__name__}: {error}")
        observation = Observation(np.full((replicas, len(points)), np.nan), (broken,))
    return judge(claim, observation, points, tests, time.monotonic() - start)


def check(
    chosen: Sequence[Claim],
    *,
    quick: bool = False,
    seed: int = 0,
    jobs: int = 1,
    done: Callable[[Result], None] = lambda result: None,
) -> list[Result]:
    """Run claims, each in a process of one thread if there is more than one job, and return their results in order.

    Args:
        chosen: the claims.
        quick: whether to run the quick form.
        seed: seed of all simulations.
        jobs: number of processes; 1: this process runs all claims, one after another.
        done: called with each result when it is there.
    """
    tests = num_tests(chosen, quick=quick)
    results: dict[str, Result] = {}
    for result in _results(chosen, quick, seed, tests, jobs):
        results[result.claim.name] = result
        done(result)
    return [results[claim.name] for claim in chosen]


def _results(chosen, quick: bool, seed: int, tests: int, jobs: int) -> Iterator[Result]:
    if jobs == 1:
        for claim in chosen:
            yield run_claim(claim, quick=quick, seed=seed, tests=tests)
        return
    known = {claim.name: claim for claim in chosen}
    context = multiprocessing.get_context("spawn")  # JAX does not survive a fork
    with concurrent.futures.ProcessPoolExecutor(jobs, mp_context=context, initializer=_prepare) as pool:
        waiting = [pool.submit(_elsewhere, name, quick, seed, tests) for name in known]
        for future in concurrent.futures.as_completed(waiting):
            try:
                name, fields = future.result()
            except concurrent.futures.process.BrokenProcessPool as error:
                raise OSError("a process was killed, most likely for its memory: pass --jobs 1, or fewer") from error
            yield Result(claim=known[name], **fields)


def _prepare() -> None:
    from gossipjax import configure

    configure(host_devices=1, intra_op_threads=1, x64=True)


def _elsewhere(name: str, quick: bool, seed: int, tests: int) -> tuple[str, dict]:
    """Run a claim and return its result without the claim, whose functions cannot be pickled."""
    (claim,) = (c for c in claims() if c.name == name)
    result = run_claim(claim, quick=quick, seed=seed, tests=tests)
    return name, {f.name: getattr(result, f.name) for f in dataclasses.fields(result) if f.name != "claim"}


def _module(family: str):
    return importlib.import_module(f".claims.{family}", __package__)
