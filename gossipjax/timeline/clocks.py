"""Clocks of nodes: independent renewal processes whose ticks are local updates, pushes or other actions.

The interval between two ticks is ``c + e X`` seconds: a fixed part c (``shift``), then a random part of mean e
(``mean_extra``) with X of mean one, exponential unless a sampler says otherwise. Special cases are the Poisson clock (c
= 0), the deterministic clock (e = 0) and the shifted exponential: a computation of c seconds on a device that is then
unavailable for a random time.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float, Int, Num

from gossipjax._base.arguments import callable_, choice, instance, real, reals, shown, whole
from gossipjax._base.arguments import seed as checked_seed
from gossipjax._base.calls import recorded
from gossipjax._base.display import displayed, span
from gossipjax.timeline._memory import MOST_NODES, require_room

__all__ = ["Clock", "Multiples", "Rate", "Sampler", "Seconds", "Start", "Ticks", "rate", "schedule", "ticks"]
__all__ += ["delayed", "deterministic", "poisson", "renewal", "shifted_exponential", "slowed", "stragglers"]

Seconds: TypeAlias = int | float | Num[np.ndarray, " n"]
"""Seconds: one number, or one per node."""
Rate: TypeAlias = int | float | Num[np.ndarray, " n"]
"""Ticks per node and second: one number, or one per node."""
Multiples: TypeAlias = int | float | Num[np.ndarray, " n"]
"""Multiples of an interval: one number, or one per node."""
Sampler: TypeAlias = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]
"""``sampler(rng, shape)`` draws independent intervals in seconds."""
Start: TypeAlias = Literal["stationary", "fresh"]

A_CLOCK = "make one with gossipjax.timeline.clocks, such as poisson(rate) or deterministic(period)"
TICK_BYTES = 150
"""Bytes that one event of an asynchronous plan takes during planning, measured on push gossip."""
_POOL = 1 << 16
_BLOCK = 1024
"""Number of intervals drawn at once by :func:`service_times`."""


@displayed
@dataclasses.dataclass(frozen=True, eq=False)
class Clock:
    """Independent renewal processes of the nodes, intervals ``shift + mean_extra · X``, ``E X = 1``.

    Make one with :func:`poisson`, :func:`deterministic`, :func:`shifted_exponential` or :func:`renewal`.

    Attributes:
        shift: c ≥ 0 seconds at the beginning of each interval, scalar or ``(n,)``: the computation.
        mean_extra: mean e ≥ 0 of the random part in seconds, scalar or ``(n,)``.
        unit: draws X; None: exponential.
        name: for reports.

    Raises:
        ValueError: if a number is negative or not finite, or an interval has length 0.
    """

    shift: Seconds
    mean_extra: Seconds
    unit: Sampler | None = None
    name: str = "clock"

    def _facts(self) -> tuple[str, dict[str, Any]]:
        mean = np.add(self.shift, self.mean_extra)
        return self.name, {"nodes": mean.size if mean.ndim else None, "mean interval": span(mean.ravel(), "s")}

    def __post_init__(self) -> None:
        """Check the numbers."""
        shift = number_per_node("shift", self.shift, "seconds", zero=True)
        extra = number_per_node("mean_extra", self.mean_extra, "seconds", zero=True)
        if shift.ndim and extra.ndim and shift.shape != extra.shape:
            raise ValueError(f"shift of shape {shift.shape} and mean_extra of shape {extra.shape}: give both per node")
        if not (shift + extra > 0).all():
            raise ValueError(f"shift={shown(self.shift)}, mean_extra={shown(self.mean_extra)}: one must be above 0")
        if self.unit is not None:
            callable_("unit", self.unit, "sampler(rng, shape) -> intervals of mean 1")


class Ticks(NamedTuple):
    """Ticks of all nodes in order, and how long each node still computes at the start."""

    times: Float[np.ndarray, " ticks"]
    nodes: Int[np.ndarray, " ticks"]
    busy_until: Float[np.ndarray, " n"]
    """Seconds at which the fixed part of the interval at time 0 ends; 0 if it has ended before."""


@recorded()
def poisson(rate: Rate) -> Clock:
    """Make Poisson clocks: intervals are exponential with mean ``1/rate``.

    Args:
        rate: ticks per second, scalar or ``(n,)``, positive and finite.
    """
    return _poisson("rate", rate)


def _poisson(name: str, rate: Any) -> Clock:
    rates = number_per_node(name, rate, "ticks per node and second")
    with np.errstate(over="ignore"):
        means = 1.0 / rates
    if not np.isfinite(means).all():
        raise ValueError(f"{name}={shown(rate)}: 1/{name}, the mean interval in seconds, must be finite")
    return Clock(0.0, means[()], name=f"poisson({_words(rates)}/s)")


@recorded()
def deterministic(period: Seconds) -> Clock:
    """Make clocks with intervals of ``period`` seconds, scalar or ``(n,)``; a stationary start has random phases."""
    period = number_per_node("period", period, "seconds between two ticks")[()]
    return Clock(period, 0.0, name=f"deterministic({_words(period)} s)")


@recorded("mitra2024timely")
def shifted_exponential(shift: Seconds, mean_extra: Seconds) -> Clock:
    """Make clocks with intervals ``c + Exp(mean e)``, rate ``1/(c + e)``.

    Args:
        shift: c ≥ 0 seconds, scalar or ``(n,)``: the computation.
        mean_extra: e > 0 seconds, scalar or ``(n,)``: the mean time in which the device is then unavailable.

    Reference: Mitra and Ulukus 2024, arXiv 2404.19749, section 2 (there ``e = 1/μ``).
    """
    mean_extra = number_per_node("mean_extra", mean_extra, "seconds", remedy="for none take deterministic(period)")[()]
    shift = number_per_node("shift", shift, "seconds", zero=True)[()]
    return Clock(shift, mean_extra, name=f"shifted_exponential({_words(shift)} s + {_words(mean_extra)} s)")


@recorded()
def renewal(sampler: Sampler, mean: float) -> Clock:
    """Make clocks with intervals of any law; :func:`slowed` makes some of the nodes slower.

    Args:
        sampler: ``sampler(rng, shape)`` draws independent intervals in seconds, not negative; some may be 0.
        mean: mean of the intervals in seconds, which is not estimated.

    Raises:
        ValueError: if the mean is not positive and finite; during planning, if an interval is negative, or 65,536
            in a row are 0.
    """
    callable_("sampler", sampler, "sampler(rng, shape) -> seconds")
    mean = real("mean", mean, above=0, unit="seconds")
    return Clock(0.0, mean, functools.partial(_scaled, sampler, mean), f"renewal(mean {mean:g} s)")


@recorded()
def slowed(clock: Clock, factors: Multiples) -> Clock:
    """Multiply all intervals of a clock (fixed and random part) by a factor: scalar, or ``(n,)`` for stragglers."""
    instance("clock", clock, Clock, A_CLOCK)
    factors = number_per_node("factors", factors, "multiples of the interval")[()]
    name = f"{clock.name} slowed by {_words(factors)}"
    return dataclasses.replace(clock, shift=clock.shift * factors, mean_extra=clock.mean_extra * factors, name=name)


@recorded()
def delayed(clock: Clock, dead_time: Seconds) -> Clock:
    """Add ``dead_time`` seconds to all intervals: the time that a push takes before the clock runs again."""
    instance("clock", clock, Clock, A_CLOCK)
    return dataclasses.replace(
        clock, shift=clock.shift + number_per_node("dead_time", dead_time, "seconds", zero=True)[()]
    )


def stragglers(num_nodes: int, *, share: float, factor: float, seed: int) -> Float[np.ndarray, " n"]:
    """Draw slowness factors: ``factor`` for round(``share`` · n) random nodes, 1 for the others.

    Args:
        num_nodes: n.
        share: share of slow nodes, in [0, 1].
        factor: factor of their intervals, positive.
        seed: of the NumPy generator that draws who is slow.
    """
    num_nodes = whole("num_nodes", num_nodes, least=1, most=MOST_NODES)
    require_room(num_nodes, 40, "nodes", "num_nodes")
    share = real("share", share, least=0, most=1)
    factors = np.ones(num_nodes)
    factor = real("factor", factor, above=0, unit="multiples of the interval")
    slow = np.random.default_rng(checked_seed(seed)).choice(num_nodes, round(share * num_nodes), replace=False)
    factors[slow] = factor
    return factors


def as_clock(name: str, clock: Any) -> Clock:
    """Return a clock; numbers are rates of Poisson clocks. ``name`` is the argument, for the message."""
    if isinstance(clock, Clock):
        return clock
    if isinstance(clock, str | bool) or not (
        isinstance(clock, int | float | list | tuple) or hasattr(clock, "__array__")
    ):
        raise TypeError(f"{name}={shown(clock)}: must be a clock, or its Poisson rate per second; {A_CLOCK}")
    return _poisson(name, clock)


def optional_clock(name: str, clock: Any) -> Clock | None:
    """Return a clock, or None for no ticks."""
    return None if clock is None else instance(name, clock, Clock, f"{A_CLOCK}, or pass None for none")


def rate(clock: Clock) -> float | Float[np.ndarray, " n"]:
    """Return ticks per second, ``1/(c + e)``: a scalar, or ``(n,)`` where nodes differ."""
    instance("clock", clock, Clock, A_CLOCK)
    return (1.0 / (_array(clock.shift) + clock.mean_extra))[()]


def expected_ticks(clock: Clock, num_nodes: int, duration: float, name: str = "clock") -> float:
    """Return approximately the mean number of ticks of all nodes; ``name`` is the argument, for the message."""
    rates = _array(rate(clock))
    return duration * float(np.sum(per_node(rates, num_nodes, name)) if rates.ndim else num_nodes * rates)


def require_ticks(
    num_nodes: int, duration: float, names: str, *clocks: Clock | None, bytes_each: int | float = TICK_BYTES
) -> None:
    """Check that memory holds the ticks.

    ``names`` are the arguments that determine their number; the last of them are those of the clocks, in order.
    """
    of_clocks = zip(names.split(", ")[-len(clocks) :], clocks, strict=True)
    expected = sum(expected_ticks(clock, num_nodes, duration, name) for name, clock in of_clocks if clock is not None)
    remedy = ", or let the run draw its events (drawn_pairs, drawn_gossip)"
    require_room(expected, bytes_each, "events", names, num_nodes=num_nodes, remedy=remedy)


def ticks(
    clock: Clock, num_nodes: int, duration: float, rng: np.random.Generator, start: Start = "stationary"
) -> tuple[Float[np.ndarray, " ticks"], Int[np.ndarray, " ticks"]]:
    """Draw all ticks before ``duration``: the first two fields of :func:`schedule`.

    Returns:
        Times in seconds, in order, and the node of each tick.
    """
    return schedule(clock, num_nodes, duration, rng, start)[:2]


def schedule(
    clock: Clock, num_nodes: int, duration: float, rng: np.random.Generator, start: Start = "stationary"
) -> Ticks:
    """Draw the ticks of all nodes in ``[0, duration)``, in a few array operations for any number of nodes.

    A stationary start is the clock in equilibrium. With probability ``c/(c + e)`` the node is in the fixed part, of
    which a uniform share remains, and a whole random part follows. Otherwise it is in the random part. Its rest is
    exponential again; for a sampler, it is uniform in an interval that is chosen, with a probability proportional to
    its length, from a pool of 65,536 draws (or four per node, if that is more). All nodes share the pool and its
    sampling error.

    Args:
        clock: clock of the nodes.
        num_nodes: n.
        duration: seconds.
        rng: generator of all draws.
        start: ``"stationary"``, or ``"fresh"``: every node begins an interval at time 0.

    Raises:
        ValueError: if per-node numbers are not n, the duration is not positive, a sampler draws a negative interval, or
            memory cannot hold the ticks.
    """
    instance("clock", clock, Clock, A_CLOCK)
    instance("rng", rng, np.random.Generator, "make one with numpy.random.default_rng(0)")
    num_nodes = whole("num_nodes", num_nodes, least=1, most=MOST_NODES)
    duration = real("duration", duration, above=0, unit="seconds")
    choice("start", start, ("stationary", "fresh"))
    require_ticks(num_nodes, duration, "num_nodes, duration, clock", clock)
    shift, extra = per_node(clock.shift, num_nodes, "shift"), per_node(clock.mean_extra, num_nodes, "mean_extra")
    if clock.unit is None and not shift.any():
        times, nodes = _superposition(1.0 / extra, duration, rng)
        return Ticks(times, nodes, np.zeros(num_nodes))
    if start == "fresh":
        first, busy = shift + extra * _draw(clock, rng, num_nodes), shift.copy()
    else:
        first, busy = _equilibrium(clock, shift, extra, rng)
    times, nodes = _continue(clock, shift, extra, first, duration, rng)
    return Ticks(times, nodes, busy)


def service_times(clock: Clock, num_nodes: int, rng: np.random.Generator) -> Callable[[int], float]:
    """Return a function that draws a node's next interval in seconds, for planners that simulate step by step."""
    instance("clock", clock, Clock, A_CLOCK)
    instance("rng", rng, np.random.Generator, "make one with numpy.random.default_rng(0)")
    shift, extra = per_node(clock.shift, num_nodes, "shift"), per_node(clock.mean_extra, num_nodes, "mean_extra")
    units: list[float] = []

    def draw(node: int) -> float:
        if not units:
            block = _draw(clock, rng, _BLOCK)
            units.extend(block[::-1].tolist())
        return float(shift[node] + extra[node] * units.pop())

    return draw


def per_node(value: Any, num_nodes: int, what: str) -> Float[np.ndarray, " n"]:
    """Return one number per node.

    Raises ValueError if there are neither one nor ``num_nodes`` numbers.
    """
    num_nodes = whole("num_nodes", num_nodes, least=1, most=MOST_NODES)
    array = reals(what, value, remedy=f"one number, or {num_nodes}, one per node")
    if array.shape not in ((), (num_nodes,)):
        raise ValueError(f"{what} of shape {array.shape}: pass one number, or {num_nodes}, one per node")
    return np.broadcast_to(array, (num_nodes,))


def _superposition(rates: np.ndarray, duration: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw the ticks of all Poisson clocks: given their number, times are uniform and independent of nodes."""
    if (rates == rates[0]).all():
        nodes = rng.integers(0, rates.size, rng.poisson(rates.size * rates[0] * duration), dtype=np.int32)
    else:
        nodes = np.repeat(np.arange(rates.size, dtype=np.int32), rng.poisson(rates * duration))
        rng.shuffle(nodes)
    return np.sort(rng.random(nodes.size)) * duration, nodes


def _equilibrium(clock: Clock, shift, extra, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw the first tick of each node of a stationary clock, and how long its fixed part still lasts."""
    n = shift.size
    in_shift = rng.random(n) * (shift + extra) < shift
    busy = np.where(in_shift, shift * rng.random(n), 0.0)
    return busy + extra * np.where(in_shift, _draw(clock, rng, n), _residual(clock, rng, n)), busy


def _residual(clock: Clock, rng: np.random.Generator, n: int) -> np.ndarray:
    """Draw the rest of the random part at time 0, in units of its mean."""
    if clock.unit is None:
        return rng.exponential(size=n)
    pool = _draw(clock, rng, max(_POOL, 4 * n))
    lengths = np.cumsum(pool)
    picked = np.searchsorted(lengths, rng.random(n) * lengths[-1], side="right")
    return pool[np.minimum(picked, pool.size - 1)] * rng.random(n)


def _continue(clock: Clock, shift, extra, first, duration: float, rng: np.random.Generator):
    """Draw all ticks after the first: each node draws a few more than it needs, and nodes with too few draw again."""
    left = np.flatnonzero(first < duration)
    at = first[left]
    times, nodes = [at], [left]
    while left.size:
        expected = (duration - at) / (shift[left] + extra[left])
        counts = np.ceil(expected + 2.0 * np.sqrt(expected)).astype(np.int64) + 1
        ends = np.cumsum(counts)
        total = _draw(clock, rng, int(ends[-1]))
        total = np.cumsum(np.multiply(total, _repeated(extra, left, counts), out=total), out=total)
        total -= np.repeat(np.append(0.0, total[ends[:-1] - 1]), counts)
        later = np.arange(1.0, ends[-1] + 1)
        later -= np.repeat((ends - counts).astype(np.float64), counts)
        # The fixed parts are multiplied, not summed: a metronome's ticks are exact.
        later *= _repeated(shift, left, counts)
        later += np.repeat(at, counts)
        later += total
        inside = later < duration
        times.append(later[inside])
        nodes.append(np.repeat(left, counts)[inside])
        last = ends - 1
        short = inside[last]
        left, at = left[short], later[last][short]
    time, node = np.concatenate(times), np.concatenate(nodes)
    order = order_of_times(time)
    return time[order], node[order].astype(np.int32)


def _repeated(values: Float[np.ndarray, " n"], nodes: np.ndarray, counts: np.ndarray) -> Any:
    """Return the value of each node as often as counted; one number if all are equal."""
    first = values[0]
    return first if not values.strides[0] or (values == first).all() else np.repeat(values[nodes], counts)


def order_of_times(times: Float[np.ndarray, " m"]) -> Int[np.ndarray, " m"]:
    """Return the stable order of times; where no two are equal, as nearly always, an unstable sort is faster."""
    order = np.argsort(times)
    ordered = times[order]
    return np.argsort(times, kind="stable") if (ordered[1:] == ordered[:-1]).any() else order


def _draw(clock: Clock, rng: np.random.Generator, count: int) -> np.ndarray:
    if clock.unit is None:
        return rng.exponential(size=count)
    draws = _units(clock, rng, count)
    if not draws.any() and not _units(clock, rng, _POOL).any():  # a few draws may all be 0, and these count as well
        told = f"the sampler of {clock.name} drew {count + _POOL} intervals of 0 s in a row"
        raise ValueError(f"{told}: time would not advance")
    return draws


def _units(clock: Clock, rng: np.random.Generator, count: int) -> np.ndarray:
    assert clock.unit is not None
    return reals(f"the sampler of {clock.name} returns", clock.unit(rng, (count,)), shape=(count,), least=0)


def _scaled(sampler: Sampler, mean: float, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return reals("sampler returns", sampler(rng, shape), shape=shape, least=0, unit="seconds") / mean


def _array(value: Any) -> Float[np.ndarray, "..."]:
    return np.asarray(value, np.float64)


def number_per_node(
    name: str, value: Any, unit: str, *, zero: bool = False, remedy: str = ""
) -> Float[np.ndarray, "..."]:
    """Return one number, or one per node: positive, or not negative if zero is legal.

    Raises ValueError for other numbers or shapes.
    """
    if zero:
        array = reals(name, value, least=0, unit=unit, remedy=remedy)
    else:
        array = reals(name, value, above=0, unit=unit, remedy=remedy)
    if array.ndim > 1 or not array.size:
        raise ValueError(f"{name} of shape {array.shape}: pass one number, or one per node, (n,)")
    return array


def _words(value: Any) -> str:
    array = _array(value)
    return f"{array:g}" if array.ndim == 0 else f"{array.min():g} to {array.max():g}"
