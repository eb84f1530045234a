"""Plans of schemes whose messages carry one version, by which the bound of :mod:`theory.opportunistic` is tested."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np

import gossipjax as gj
from gossipjax.timeline import opportunistic

Rule = Literal["random targets", "newest version", "in turn", "coin", "every x-th update", "stalest first"]
RULES: tuple[Rule, ...] = (
    "random targets",
    "newest version",
    "in turn",
    "coin",
    "every x-th update",
    "stalest first",
)
"""Random targets: each node pushes its own version at the ticks of a Poisson clock. Newest version: the holders of the
network's newest version share the capacity. In turn: as random targets, but one target after another. Coin: every
update goes at once to a random set of nodes. Every x-th update: it goes at once to all nodes, and the others to none.
Stalest first: at the ticks of a Poisson clock of the network, the pair with the largest staleness gets a message."""


class _Messages(NamedTuple):
    """Messages in order of time: the newest version of the sender's own."""

    times: np.ndarray
    senders: np.ndarray
    receivers: np.ndarray


def plan(rule: Rule, n: int, duration: float, *, update_rate: float, capacity: float, seed: int) -> gj.Timeline:
    """Plan Poisson updates, and messages by a rule at a total rate of n · ``capacity``.

    Args:
        rule: one of :data:`RULES`.
        n: nodes, all connected.
        duration: simulated seconds.
        update_rate: m, updates per node and second.
        capacity: λ, messages per second and node of the network; at most m(n − 1) for the two rules that send at once.
        seed: of the NumPy generators.

    Raises:
        ValueError: an unknown rule, or a capacity that a rule cannot use.
    """
    if rule in ("random targets", "newest version"):
        relay: Literal["none", "newest"] = "none" if rule == "random targets" else "newest"
        return opportunistic(n, duration, update_rate=update_rate, capacity=capacity, relay=relay, seed=seed)
    if rule not in RULES:
        raise ValueError(f"rule={rule!r}: must be one of {', '.join(RULES)}")
    if rule in ("coin", "every x-th update") and capacity > update_rate * (n - 1):
        raise ValueError(
            f"capacity={capacity}: {rule!r} uses at most m(n − 1) = {update_rate * (n - 1)}, every update to everyone"
        )
    of_updates, of_messages = np.random.default_rng(seed).spawn(2)
    times = np.sort(of_updates.uniform(0.0, duration, of_updates.poisson(n * update_rate * duration)))
    nodes = of_updates.integers(0, n, times.size)
    share = capacity / (update_rate * (n - 1))
    made: dict[str, Callable[[], _Messages]] = {
        "in turn": lambda: _in_turn(n, duration, capacity, of_messages),
        "coin": lambda: _at_once(n, times, nodes, of_messages.random((times.size, n)) < share),
        "every x-th update": lambda: _at_once(n, times, nodes, _whole(n, nodes, share, of_messages)),
        "stalest first": lambda: _stalest_first(n, times, nodes, duration, capacity, of_messages),
    }
    return _timeline(n, times, nodes, made[rule](), rule)


def _in_turn(n: int, duration: float, capacity: float, rng: np.random.Generator) -> _Messages:
    times = np.sort(rng.uniform(0.0, duration, rng.poisson(n * capacity * duration)))
    senders = rng.integers(0, n, times.size)
    turn = _numbers(n, senders) + rng.integers(0, n - 1, n)[senders]
    return _Messages(times, senders, (senders + 1 + turn % (n - 1)) % n)


def _numbers(n: int, nodes: np.ndarray) -> np.ndarray:
    """Number the events of each node, from 0."""
    order, counts = np.argsort(nodes, kind="stable"), np.bincount(nodes, minlength=n)
    numbers = np.empty(nodes.size, np.int64)
    numbers[order] = np.arange(nodes.size) - np.repeat(np.cumsum(counts) - counts, counts)
    return numbers


def _whole(n: int, nodes: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Choose every x-th update of each node, x = 1/share, from a random one on; ``(updates, n)``."""
    at = _numbers(n, nodes) + rng.random(n)[nodes] / share
    chosen = np.floor((at + 1) * share) > np.floor(at * share)
    return np.broadcast_to(chosen[:, None], (nodes.size, n))


def _at_once(n: int, times: np.ndarray, nodes: np.ndarray, chosen: np.ndarray) -> _Messages:
    update, receivers = np.nonzero(chosen & (np.arange(n) != nodes[:, None]))
    return _Messages(times[update], nodes[update], receivers)


def _stalest_first(n: int, updated, nodes, duration: float, capacity: float, rng: np.random.Generator) -> _Messages:
    ticks = np.sort(rng.uniform(0.0, duration, rng.poisson(n * capacity * duration)))
    tie = rng.random((n, n)) * 0.5  # each pair has a rank of its own among equals
    stale = np.where(np.eye(n, dtype=bool), -1.0, tie)
    pairs = np.empty(ticks.size, np.int64)
    first = np.searchsorted(updated, ticks)
    done = 0
    for number, until in enumerate(first):
        for node in nodes[done:until]:
            stale[node] += 1.0
            stale[node, node] = -1.0
        done = until
        at = int(stale.argmax())
        pairs[number] = at
        stale.flat[at] = tie.flat[at]
    return _Messages(ticks, pairs // n, pairs % n)


def _timeline(n: int, times: np.ndarray, nodes: np.ndarray, sent: _Messages, rule: str) -> gj.Timeline:
    """Merge updates and messages; what an update causes at once comes after it."""
    when = np.concatenate([times, sent.times])
    order = np.argsort(when, kind="stable")
    nobody = np.full(len(sent.times), n), np.full(len(times), n)
    xs = {
        "time": when,
        "nodes": np.concatenate([nodes, nobody[0]]),
        "senders": np.concatenate([nobody[1], sent.senders]),
        "receivers": np.concatenate([nobody[1], sent.receivers]),
        "sources": np.concatenate([nobody[1], sent.senders]),
    }
    xs = {name: values[order] if name == "time" else values[order][:, None] for name, values in xs.items()}
    facts = gj.Properties(n, n, f"one version per message ({rule}, n={n})", messages="pair: one model a push")
    return gj.timeline.from_events(xs, facts, shared={"weights": np.full(1, 0.5), "keep": np.full(1, 0.5)})
