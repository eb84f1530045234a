"""Annealing on the logarithm of the seconds to a target, with the planner in the loop, for networks of any kind."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8

import gossipjax
from gossipjax._base import npz
from gossipjax._base.arguments import flag, instance, real, whole
from gossipjax._base.arguments import seed as checked_seed
from gossipjax._base.call_json import to_json
from gossipjax._base.calls import write_down
from gossipjax._base.progress import progress_bar
from gossipjax.design._score import Problem, Score, allowed, estimate_of, score_of

Network = np.ndarray
"""A symmetric adjacency matrix ``(n, n)``; or the mixing matrices of a cycle of rounds ``(p, n, n)``."""
MARGIN = 1.5
"""A move whose estimate is worse by this factor is not planned.

On 12 fitted phones with shared links, the change of the estimate by a move was 0.77 to 1.27 times that of the planned
pace in 355 random moves of graphs, and 0.75 to 1.43 times in 193 of cycles. There, whatever is passed over is slower.
"""
MOST_KNOWN = 1 << 17
"""Scores that are remembered, some 50 MB; then the oldest are forgotten, and planned again if they come back."""
KEPT_EVERY_S = 30.0
"""Seconds between two times that a search is written to its file."""
_REMEDY = "choose another file, or remove this one"


class Space(NamedTuple):
    """Which networks there are, and how one leads to another."""

    problem: Problem
    moves: tuple[Callable[[np.random.Generator, Network], Network | None], ...]
    """Each returns another network, or None if there is none of its kind."""
    links: Callable[[Network], Bool[np.ndarray, "*p n n"]]
    """Who sends to whom."""
    rounds: Callable[[Network], float]
    legal: Callable[[Network], bool]


class Settings(NamedTuple):
    """Of a search; see :func:`gossipjax.design.network`."""

    steps: int
    restarts: int
    temperature: float
    seed: int
    progress: bool | None
    checkpoint: pathlib.Path | None


class State(NamedTuple):
    """Where a search stands after a step."""

    restart: int
    step: int
    now: Network
    score: Score
    best: Network
    best_score: Score
    num_planned: int
    rng: str
    """State of the generator, as JSON."""


class SavedSearch(NamedTuple):
    """A search as saved."""

    identity: str
    state: State
    history: Float[np.ndarray, " s"]
    names: UInt8[np.ndarray, "k 16"]
    scores: Float[np.ndarray, "k 4"]
    """Of the networks of these names."""


def checked_settings(
    num_steps: Any, restarts: Any, temperature: Any, seed: Any, progress: Any, checkpoint: Any
) -> Settings:
    """Check the arguments that searches share, the file before the long work.

    Raises:
        ValueError: if a number is out of range, or the file has another suffix or no folder.
    """
    path = None
    if checkpoint is not None:
        path = pathlib.Path(instance("checkpoint", checkpoint, (str, os.PathLike), "pass the name of the file"))
        if path.suffix != ".npz" or not path.absolute().parent.is_dir():
            raise ValueError(f"checkpoint={str(path)!r}: must be the path of an .npz file in a folder that exists")
    return Settings(
        whole("num_steps", num_steps, least=0),
        whole("restarts", restarts, least=1),
        real("temperature", temperature, above=0),
        checked_seed(seed),
        None if progress is None else flag("progress", progress),
        path,
    )


@dataclasses.dataclass
class Search:
    """A search that is under way."""

    space: Space
    settings: Settings
    starts: Sequence[Network]
    scores: Sequence[Score]
    rng: np.random.Generator
    state: State
    known: dict[bytes, Score]
    """Scores by the names of networks, the latest last."""
    history: list[float]
    """Seconds of the best network after each step."""


def anneal(space: Space, starts: Sequence[Network], scores: Sequence[Score], settings: Settings) -> Search:
    """Search from each start in turn; the networks at the start are planned already, the best first."""
    rng = np.random.default_rng(settings.seed)
    known = {_name(start): score for start, score in zip(starts, scores, strict=True)}
    state = State(0, 0, starts[0], scores[0], starts[0], scores[0], len(starts), json.dumps(rng.bit_generator.state))
    search = Search(space, settings, starts, scores, rng, state, known, [])
    total = settings.restarts * settings.steps
    with _kept(search) as keep, progress_bar(settings.progress, "moves", total) as show:
        while search.state.restart < settings.restarts:
            _begin(search)
            estimate = _estimate(search, search.state.now, search.state.score)
            while search.state.step < settings.steps:
                estimate = _step(search, estimate)
                show(len(search.history))
                keep()
            search.state = search.state._replace(restart=search.state.restart + 1, step=0)
    return search


def _begin(search: Search) -> None:
    if search.state.step == 0:
        number = search.state.restart % len(search.starts)
        search.state = search.state._replace(now=search.starts[number], score=search.scores[number])


def _estimate(search: Search, network: Network, score: Score) -> float:
    return estimate_of(search.space.problem, search.space.links(network), score.rounds)


def _step(search: Search, estimate: float) -> float:
    """Take one step. The state changes at once at its end, so that an interrupt leaves that of the step before."""
    space, state, rng, settings = search.space, search.state, search.rng, search.settings
    other = space.moves[rng.integers(len(space.moves))](rng, state.now)
    found, guess = (None, estimate) if other is None else _scored(search, other, estimate)
    now, best = (state.now, state.score), (state.best, state.best_score)
    planned = 0
    if other is not None and found is not None:
        planned = int(_name(other) not in search.known)
        if _accepted(rng, found, state.score, settings.temperature * (1 - state.step / settings.steps)):
            now, estimate = (other, found), guess
        if found.seconds < state.best_score.seconds:
            best = other, found
        _remember(search, other, found)
    search.history.append(best[1].seconds)
    generator = json.dumps(rng.bit_generator.state) if settings.checkpoint else state.rng
    search.state = State(state.restart, state.step + 1, *now, *best, state.num_planned + planned, generator)
    return estimate


def _scored(search: Search, other: Network, estimate: float) -> tuple[Score | None, float]:
    """Return the score of a network, or None if it is not legal or hopeless; and its estimate."""
    problem, links = search.space.problem, search.space.links(other)
    if links.sum(-1).max() > problem.most_neighbors or not search.space.legal(other):
        return None, estimate
    known = search.known.get(_name(other))
    rounds = search.space.rounds(other) if known is None else known.rounds
    if not allowed(problem, links, rounds):
        return None, estimate
    guess = estimate_of(problem, links, rounds)
    if guess > MARGIN * estimate:
        return None, estimate
    return score_of(problem, links, rounds) if known is None else known, guess


def _accepted(rng: np.random.Generator, found: Score, score: Score, temperature: float) -> bool:
    rise = np.log(found.seconds) - np.log(score.seconds) if score.seconds > 0 else np.inf
    return bool(rise <= 0 or rng.random() < np.exp(-rise / temperature))


def _remember(search: Search, network: Network, score: Score) -> None:
    search.known[_name(network)] = score
    while len(search.known) > MOST_KNOWN:
        del search.known[next(iter(search.known))]


def _name(network: Network) -> bytes:
    """Return 16 bytes that no two networks of a search share."""
    bits = np.packbits(network) if network.dtype == bool else np.append(network.shape, network.ravel())
    return hashlib.blake2b(bits.tobytes(), digest_size=16).digest()


# --- the file of a search ---------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _kept(search: Search) -> Iterator[Callable[[], None]]:
    """Continue from the file of a search, if there is one; write it now and then, and at the end, whatever ends it."""
    path = search.settings.checkpoint
    if path is None:
        yield lambda: None
        return
    identity, written = _identity(search), time.monotonic()
    if path.exists():
        _restore(search, path, identity)
    try:
        _write(search, path, identity)
    except OSError as error:
        raise ValueError(f"checkpoint={str(path)!r}: cannot be written ({error}); choose another place") from error

    def keep() -> None:
        nonlocal written
        if time.monotonic() - written > KEPT_EVERY_S:
            _write(search, path, identity)
            written = time.monotonic()

    try:
        yield keep
    finally:
        _write(search, path, identity)


def _identity(search: Search) -> str:
    """Return a hash of all that decides where a search goes, but the number of restarts: more of them continue it.

    The scores of the starts tell targets and weights apart whose code is the same, and what it reads is not.
    """
    problem, settings = search.space.problem, search.settings
    learning, target = problem.site.learning, problem.target
    facts = {
        "network": search.starts[0].ndim,
        "site": (learning.train_seconds, *learning.limits, learning.message_bytes, learning.bandwidth),
        "target": (target.name, target.rounds, target.cycle_rounds, target.horizon),
        "limits": (problem.num_rounds, problem.most_neighbors, problem.most_bytes),
        "starts": [_name(start).hex() for start in search.starts],
        "search": (settings.steps, settings.temperature, settings.seed, search.space.moves),
        "weights": problem.weights,
        "scores": [tuple(score) for score in search.scores],
        "version": gossipjax.__version__,
    }
    return hashlib.sha256(to_json(write_down(facts))[0].encode()).hexdigest()


def _write(search: Search, path: pathlib.Path, identity: str) -> None:
    state = search.state
    done = state.restart * search.settings.steps + state.step
    names = np.frombuffer(b"".join(search.known), np.uint8).reshape(-1, 16)
    scores = np.array([tuple(score) for score in search.known.values()])
    npz.save(SavedSearch(identity, state, np.array(search.history[:done]), names, scores), path)


def _restore(search: Search, path: pathlib.Path, identity: str) -> None:
    try:
        saved = npz.load(path, SavedSearch)
    except ValueError as error:
        raise ValueError(f"checkpoint={str(path)!r}: is no search, or a damaged one; {_REMEDY}") from error
    if saved.identity != identity:
        raise ValueError(
            f"checkpoint={str(path)!r}: is of a search with other arguments or of another version; {_REMEDY}"
        )
    restarts, steps = search.settings.restarts, search.settings.steps
    if saved.history.size > restarts * steps:
        begun = -(-saved.history.size // steps)
        raise ValueError(f"restarts={restarts}: {str(path)!r} has begun {begun}; pass as many or more, or {_REMEDY}")
    names, scores = saved.names, saved.scores.tolist()
    search.state, search.history = saved.state, saved.history.tolist()
    search.known = {name.tobytes(): Score(*score) for name, score in zip(names, scores, strict=True)}
    search.rng.bit_generator.state = json.loads(saved.state.rng)
