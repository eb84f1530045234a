"""Servers that take single gradients: Ringmaster, Rennala, Malenia and m-synchronous SGD, planned in seconds.

Worker i computes gradients in times of its clock, and is τ_i seconds away from the server in both directions. Two event
loops on the host decide which gradients count: :func:`_arrivals` updates the model with every gradient that is not too
old, :func:`_batches` collects gradients at one model. Both write the events of FedBuff, so :func:`gossipjax.fedbuff`
runs them all.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from gossipjax._base.arguments import flag, instance, optional_whole, real, whole
from gossipjax._base.arguments import seed as checked_seed
from gossipjax._base.calls import recorded
from gossipjax.timeline._gradient_events import Gradient, planned
from gossipjax.timeline._memory import MOST_NODES, require_room
from gossipjax.timeline._updates import MOST_SEARCHED, require_update
from gossipjax.timeline.clocks import A_CLOCK, Clock, Seconds, expected_ticks, number_per_node, per_node, service_times
from gossipjax.types import Timeline


class _Workers(NamedTuple):
    """Who computes, how long, and how far away."""

    seconds: Callable[[int], float]
    """Draws the time of a worker's next gradient."""
    way: Float[np.ndarray, " n"]
    duration: float


Rule = Callable[[], Callable[[int], bool]]
"""``add = rule()`` begins a batch; ``add(worker)`` takes a gradient in, and says whether the batch is complete."""


@recorded("maranjyan2025ringmaster")
def ringmaster(
    num_nodes: int,
    duration: float,
    *,
    compute: Clock,
    max_delay: int | None = None,
    stop: bool = False,
    latency: Seconds = 0.0,
    seed: int,
) -> Timeline:
    """Plan Ringmaster ASGD: every gradient updates the model at once, unless it is R or more updates old.

    With k updates made so far, a gradient at model k − δ arrives::

        δ < R:   x ← x − γ g,   k ← k + 1          else it is ignored; in both cases the worker gets x and begins anew

    With ``stop``, gradients whose delay has reached R are not finished: their workers begin anew at x. Without a
    limit it is asynchronous SGD. Run it with :func:`gossipjax.fedbuff` and SGD, such as ``Partial(optax.sgd, γ)``.
    Among gradients that arrive at the same time, those of lower worker numbers come first.

    A gradient and a model are one message each; those of gradients that do not count are counted at the next update.
    ``gradient_calls`` of a run has only gradients that count.

    Planning takes time for each gradient that begins. With ``stop`` that is each worker in every R updates, which is
    long for large n and small R.

    Args:
        num_nodes: n workers.
        duration: simulated seconds.
        compute: clock whose intervals are the seconds of a gradient.
        max_delay: R ≥ 1; None: no limit.
        stop: whether gradients that are already too old are stopped.
        latency: τ ≥ 0, seconds between a worker and the server in each direction, one number or one per worker. A
            worker waits for the new model, so its gradients are ``h + 2τ`` apart.
        seed: of the NumPy generator that draws times.

    Raises:
        ValueError: if a setting is out of range, the plan does not fit into memory, or it ends before the first update.

    Reference: Maranjyan, Tyurin and Richtárik 2025, arXiv 2501.16168, algorithms 4 and 5 (with stops).
    """
    max_delay = optional_whole("max_delay", max_delay, least=1)
    flag("stop", stop)
    workers = _checked(num_nodes, duration, compute, latency, seed)
    name = "asynchronous_sgd" if max_delay is None else f"ringmaster(delay below {max_delay}{', stops' * stop})"
    return planned(workers.way.size, _arrivals(workers, max_delay, stop), f"{name}, {num_nodes} workers")


@recorded("tyurin2023optimal", "tyurin2024decentralized")
def rennala(
    num_nodes: int,
    duration: float,
    *,
    compute: Clock,
    batch_size: int,
    stop: bool = False,
    latency: Seconds = 0.0,
    seed: int,
) -> Timeline:
    """Plan Rennala SGD: collect S gradients at the current model, whoever they come from, and ignore older ones.

    ``x ← x − γ/S Σ g_j(x)``. Workers compute one gradient after another; who is busy when the new model comes ends
    its gradient first, in vain, or stops it. Run it with :func:`gossipjax.fedbuff` and SGD. A gradient in vain is
    counted at the update for which it comes too late, also if it ends after the plan. A batch that is not complete at
    the end is left out, with its messages. ``gradient_calls`` of a run counts the gradients in batches only.

    Among gradients that arrive at the same time, those of lower worker numbers come first: with equal times for all,
    such as those of one :func:`~gossipjax.timeline.clocks.deterministic`, workers after the first S never count.

    With the latency of the fastest ways to and from the pivot it has the times of Fragile SGD, which adds gradients up
    on their way over a tree (``theory.time_complexity.fragile_time`` finds the pivot).

    Planning takes time for each gradient, and for each worker at each update.

    Args:
        num_nodes: n workers.
        duration: simulated seconds.
        compute: clock whose intervals are the seconds of a gradient.
        batch_size: S ≥ 1.
        stop: whether a worker stops its gradient when a new model comes.
        latency: τ ≥ 0, seconds between a worker and the server in each direction, one number or one per worker.
            Gradients at the same model do not wait for messages. For ways of unequal length give their mean.
        seed: of the NumPy generator that draws times.

    Raises:
        ValueError: if a setting is out of range, the plan does not fit into memory, or it ends before the first update.

    Reference: Tyurin and Richtárik 2023, arXiv 2305.12387 (Rennala); 2024, arXiv 2405.16218 (Fragile).
    """
    size = whole("batch_size", batch_size, least=1)
    flag("stop", stop)
    workers = _checked(num_nodes, duration, compute, latency, seed)
    gradients = _batches(workers, _first(size), stop=stop)
    return planned(workers.way.size, gradients, f"rennala(batch of {size}{', stops' * stop}), {num_nodes} workers")


@recorded("tyurin2023optimal", "tyurin2024decentralized")
def malenia(
    num_nodes: int,
    duration: float,
    *,
    compute: Clock,
    batch_size: int,
    stop: bool = False,
    latency: Seconds = 0.0,
    seed: int,
) -> Timeline:
    """Plan Malenia SGD, for workers with data of their own: the mean over workers of the means of their gradients.

    Worker i gives B_i gradients at the current model, until they have no more noise than S of one worker::

        n² / Σ_i 1/B_i ≥ S         x ← x − γ/n Σ_i (1/B_i) Σ_j g_ij(x)

    so that every worker is waited for. All else, stops, gradients in vain and the cost of planning, is as in
    :func:`rennala`. With the latency of ways over a tree it has the times of Amelie SGD.

    Args:
        num_nodes: n workers.
        duration: simulated seconds.
        compute: see :func:`rennala`, also for stop, latency and seed.
        batch_size: S ≥ 1.
        stop: see there.
        latency: see there.
        seed: see there.

    Raises:
        ValueError: if a setting is out of range, the plan does not fit into memory, or it ends before the first update.

    Reference: Tyurin and Richtárik 2023, arXiv 2305.12387 (Malenia); 2024, arXiv 2405.16218 (Amelie).
    """
    size = whole("batch_size", batch_size, least=1)
    flag("stop", stop)
    workers = _checked(num_nodes, duration, compute, latency, seed)
    gradients = _batches(workers, _by_everybody(workers.way.size, size), stop=stop, by_worker=True)
    return planned(workers.way.size, gradients, f"malenia(batch of {size}{', stops' * stop}), {num_nodes} workers")


@recorded("begunov2026synchronous")
def m_synchronous(
    num_nodes: int,
    duration: float,
    *,
    compute: Clock,
    wait_for: int,
    latency: Seconds = 0.0,
    seed: int,
) -> Timeline:
    """Plan m-synchronous SGD: every worker computes one gradient a step, and the first m of them count.

    ``x ← x − γ/m Σ g_j(x)``; the others stop when the new model comes, or have sent a gradient in vain and wait for
    it. ``wait_for=num_nodes`` is synchronous minibatch SGD. Run it with :func:`gossipjax.fedbuff` and SGD, whose
    ``gradient_calls`` counts the first m of each step only. Planning takes time for each worker at each update.

    Among gradients that arrive at the same time, those of lower worker numbers come first: with equal times for all,
    such as those of one :func:`~gossipjax.timeline.clocks.deterministic`, workers after the first m never count.

    Args:
        num_nodes: n workers.
        duration: simulated seconds.
        compute: clock whose intervals are the seconds of a gradient.
        wait_for: m, from 1 to n.
        latency: τ ≥ 0, seconds between a worker and the server in each direction, one number or one per worker.
        seed: of the NumPy generator that draws times.

    Raises:
        ValueError: if a setting is out of range, the plan does not fit into memory, or it ends before the first update.

    Reference: Begunov and Tyurin 2026, arXiv 2602.03802.
    """
    num_nodes = whole("num_nodes", num_nodes, least=1, most=MOST_NODES)
    m = whole("wait_for", wait_for, least=1, most=num_nodes, remedy="of the workers are waited for")
    workers = _checked(num_nodes, duration, compute, latency, seed)
    gradients = _batches(workers, _first(m), stop=True, one_each=True)
    return planned(workers.way.size, gradients, f"m_synchronous(the first {m} of {num_nodes})")


def _checked(num_nodes: Any, duration: Any, compute: Any, latency: Any, seed: Any) -> _Workers:
    num_nodes = whole("num_nodes", num_nodes, least=1, most=MOST_NODES)
    duration, seed = real("duration", duration, above=0, unit="seconds"), checked_seed(seed)
    instance("compute", compute, Clock, A_CLOCK)
    way = per_node(number_per_node("latency", latency, "seconds", zero=True), num_nodes, "latency")
    gradients = expected_ticks(compute, num_nodes, duration, "compute")
    # A worker takes 400 bytes, of which 100 are counted anyway.
    require_room(gradients + 0.3 * num_nodes, 1000, "gradients", "num_nodes, duration, compute", num_nodes=num_nodes)
    return _Workers(service_times(compute, num_nodes, np.random.default_rng(seed)), way, duration)


def _first(size: int) -> Rule:
    """Make a batch of so many gradients, whoever they come from."""

    def begin() -> Callable[[int], bool]:
        left = size

        def add(worker: int) -> bool:
            nonlocal left
            left -= 1
            return left <= 0

        return add

    return begin


def _by_everybody(n: int, size: int) -> Rule:
    """Make a batch of B_i ≥ 1 gradients of each worker, with ``n² ≥ size Σ 1/B_i``."""

    def begin() -> Callable[[int], bool]:
        counts, silent, noise = np.zeros(n, np.int64), n, 0.0

        def add(worker: int) -> bool:
            nonlocal silent, noise
            counts[worker] += 1
            number = int(counts[worker])
            silent -= number == 1
            noise += 1.0 if number == 1 else -1.0 / (number * (number - 1))
            # The running sum saves one over all workers for each gradient; it decides only where rounding cannot.
            near = not silent and n * n >= size * noise * (1 - 1e-6)
            return bool(near and n * n >= size * (1.0 / counts).sum() * (1 - 1e-12))

        return add

    return begin


def _arrivals(workers: _Workers, max_delay: int | None, stop: bool) -> list[Gradient]:
    """Let every gradient that is not too old update the model."""
    n, made, sent, ignored = workers.way.size, 0, workers.way.size, 0
    way = workers.way.tolist()
    computing: list[tuple[float, int, int]] = []
    begun: deque[tuple[int, int]] = deque()
    """Versions at which gradients began, and their workers, oldest first; kept for stops."""
    version, due = [0] * n, [0.0] * n
    limit = max_delay if stop else None

    def begin(now: float, i: int) -> None:
        version[i], due[i] = made, now + 2 * way[i] + workers.seconds(i)
        heapq.heappush(computing, (due[i], i, made))
        if limit is not None:
            begun.append((made, i))

    def current(gradient: tuple[float, int, int]) -> bool:
        time, i, start = gradient
        return (start, time) == (version[i], due[i])  # else it was stopped

    for i in range(n):
        begin(0.0, i)
    require_update(workers.duration, computing[0][0], "compute or latency")
    found = []
    while computing[0][0] < workers.duration:
        now, i, start = gradient = heapq.heappop(computing)
        if not current(gradient):
            continue
        counts = max_delay is None or made - start < max_delay
        sent += 2
        made, ignored = made + counts, ignored + (not counts)
        begin(now, i)
        for other in _begun_by(begun, made - limit, version) if limit is not None else ():
            late = due[other] <= now + 2 * way[other]  # it has left the worker before the new model comes
            sent, ignored = sent + 1 + int(late), ignored + int(late)
            begin(now, other)
        if len(computing) > 2 * n:  # more than half were stopped
            computing = list(filter(current, computing))
            heapq.heapify(computing)
        if counts:
            found.append(Gradient(now, i, start, 1.0, True, sent, ignored))
    return found


def _begun_by(begun: deque[tuple[int, int]], last: int, version: list[int]) -> list[int]:
    """Take gradients of versions up to ``last`` off the queue; return the workers that still compute one."""
    busy = []
    while begun[0][0] <= last:
        start, i = begun.popleft()
        if version[i] == start:
            busy.append(i)
    return sorted(busy)


def _batches(
    workers: _Workers, rule: Rule, *, stop: bool, one_each: bool = False, by_worker: bool = False
) -> list[Gradient]:
    """Collect gradients at one model until they make a batch; then everybody gets the next model."""
    n, version, sent, ignored = workers.way.size, 0, workers.way.size, 0
    way, names = workers.way.tolist(), f"compute, latency or {'wait_for' if one_each else 'batch_size'}"
    begins, ends = list(way), [way[i] + workers.seconds(i) for i in range(n)]
    """When the gradient that each worker computes now, or next, begins and will be done."""
    found: list[Gradient] = []
    while True:
        arriving = [(ends[i] + way[i], i) for i in range(n)]
        heapq.heapify(arriving)
        add, complete, searched = rule(), False, 0
        batch: list[tuple[float, int]] = []
        while not complete:
            now, i = heapq.heappop(arriving)
            if now >= workers.duration:
                if found:
                    return found  # a batch that is not complete moves nothing
                searched += 1
            else:
                batch.append((now, i))
            complete = add(i)
            if searched == MOST_SEARCHED:
                require_update(workers.duration, now, names, found=complete)
            begins[i], ends[i] = ends[i], np.inf if one_each else ends[i] + workers.seconds(i)
            if not one_each:
                heapq.heappush(arriving, (ends[i] + way[i], i))
        require_update(workers.duration, now, names)
        for i in range(n):
            current, at = (begins[i], ends[i]), now + way[i]
            begins[i], ends[i], late = _next_model(workers, i, current, at, stop=stop, one_each=one_each)
            sent, ignored = sent + late, ignored + late
        share = _shares(n, [i for _, i in batch], by_worker=by_worker)
        sent += len(batch) + n
        for number, (time, i) in enumerate(batch):
            last = number == len(batch) - 1
            found.append(Gradient(time, i, version, share[number], last, sent if last else 0, ignored))
        version += 1


def _shares(n: int, workers: list[int], *, by_worker: bool) -> list[float]:
    """Return the weight of each gradient of a batch: equal ones, or equal ones for each worker."""
    if not by_worker:
        return [1.0 / len(workers)] * len(workers)
    counts = np.bincount(workers, minlength=n)
    return (1.0 / (n * counts[workers])).tolist()


def _next_model(
    workers: _Workers, i: int, current: tuple[float, float], at: float, *, stop: bool, one_each: bool
) -> tuple[float, float, int]:
    """Return beginning and end of a worker's first gradient at the model that comes, and how many it sends in vain."""
    (begin, end), late = current, 0
    while end <= at:
        begin, end, late = end, np.inf if one_each else end + workers.seconds(i), late + 1
    if end < np.inf and begin >= at:  # it has not begun: an earlier gradient ends first
        return begin, end, late
    if stop or end == np.inf:
        return at, at + workers.seconds(i), late
    return end, end + workers.seconds(i), late + 1
