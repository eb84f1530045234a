"""Learning by sums of updates, the model of :func:`theory.delay.bounded_staleness_step`: protocol, and plans of it."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int

import gossipjax as gj
from gossipjax.types import NOBODY


class Known(NamedTuple):
    """What every user knows of every other: rows are users, columns are sources."""

    start: Float[Array, " n"]
    sums: Float[Array, "n n"]
    """Sum of the updates of each source."""
    versions: Int[Array, "n n"]
    """Number of these updates."""


def _init(key: Any, x0: Float[Array, " n"]) -> Known:
    del key
    n = x0.shape[0]
    return Known(x0, jnp.zeros((n, n), x0.dtype), jnp.zeros((n, n), jnp.int32))


def _model(state: Known) -> Float[Array, " n"]:
    return state.start + jnp.mean(state.sums, axis=1)


def _step(step: Array, key: Any, state: Known, event: gj.Event) -> tuple[Known, gj.Info]:
    del key
    assert event.nodes is not None
    user, sums, versions = event.nodes[0], state.sums, state.versions
    gradient = state.start[user] + jnp.mean(sums[user])
    sums = sums.at[user, user].add(-step * gradient, mode="drop")
    versions = versions.at[user, user].add(1, mode="drop")
    sender, receiver = event.mixing.senders[0], event.mixing.receivers[0]
    newer = versions[sender] > versions[receiver]
    sums = sums.at[receiver].set(jnp.where(newer, sums[sender], sums[receiver]), mode="drop")
    versions = versions.at[receiver].set(jnp.maximum(versions[sender], versions[receiver]), mode="drop")
    return Known(state.start, sums, versions), gj.Info()


def sums_of_updates(step: float) -> gj.Protocol:
    """Build gradient descent on ``x²/2`` in which a model is the start plus the mean of the users' updates.

    An update of user i adds ``−h x_i`` to its sum; ``x_j = x_0 + (1/n) Σ_i sum_i``, with the newest sums that j has
    heard of. A push hands on all sums of which the sender has newer ones.
    """
    return gj.Protocol(_init, Partial(_step, jnp.asarray(step, float)), _model)


class Plan(NamedTuple):
    """A timeline, and what it does."""

    timeline: gj.Timeline
    updates: int
    """Updates in all."""
    staleness: int
    """Largest staleness of any pair at any time."""


def gated_gossip(n: int, events: int, *, gossip_rate: float, bound: int | None, seed: int) -> Plan:
    """Plan push gossip in which a user skips an update that would make anybody's staleness about it exceed a bound.

    Args:
        n: users.
        events: number of updates and pushes together.
        gossip_rate: λ; clocks of the updates tick at rate 1 per user.
        bound: B ≥ 1; None: no update is skipped.
        seed: of the NumPy generator.
    """
    rng = np.random.default_rng(seed)
    held = np.zeros((n, n), np.int64)  # source, holder
    columns = np.full((3, events), NOBODY, np.int64)
    done = updates = largest = 0
    while done < events:
        first, other = int(rng.integers(n)), int(rng.integers(n - 1))
        if rng.random() < gossip_rate / (1 + gossip_rate):
            other += other >= first
            np.maximum(held[:, other], held[:, first], out=held[:, other])
            columns[1:, done] = first, other
        else:
            stale = int(held[first, first] - held[first].min())
            if bound is not None and stale >= bound:
                continue
            held[first, first] += 1
            columns[0, done] = first
            updates, largest = updates + 1, max(largest, stale + 1)
        done += 1
    return Plan(_timeline(n, *columns), updates, largest)


def exchange_every(n: int, bound: int, exchanges: int) -> Plan:
    """Plan B updates of every user without any message, then messages until all know all; and again."""
    alone = np.tile(np.arange(n), bound)
    to_first = [(sender, 0) for sender in range(1, n)]
    pairs = np.array(to_first + [(0, receiver) for receiver in range(1, n)])
    nodes = np.concatenate([alone, np.full(len(pairs), NOBODY)])
    ends = np.concatenate([np.full((len(alone), 2), NOBODY), pairs])
    columns = [np.tile(column, exchanges) for column in (nodes, ends[:, 0], ends[:, 1])]
    return Plan(_timeline(n, *columns), bound * n * exchanges, bound)


def _timeline(n: int, nodes: np.ndarray, senders: np.ndarray, receivers: np.ndarray) -> gj.Timeline:
    xs = {"nodes": nodes[:, None], "senders": senders[:, None], "receivers": receivers[:, None]}
    xs = {name: values.astype(np.int32) for name, values in xs.items()} | {"time": np.arange(1.0, 1 + len(nodes))}
    half = {"weights": np.full(1, 0.5), "keep": np.full(1, 0.5)}
    return gj.timeline.from_events(xs, gj.Properties(n, n, "pushes of sums of updates"), shared=half)
