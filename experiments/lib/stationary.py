"""Sample version counters of a network that has forgotten its start: windows of one long run, state carried on."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

import gossipjax as gj
from gossipjax import Timeline
from gossipjax.observe import Observer

ENTRIES = 1 << 26
"""Largest number of counters held, nodes × sources: 256 MB."""
LONGEST = 1 << 22
"""Longest window between two records, in events."""
BATCHES = 40
"""Parts of a run whose means are compared for an interval."""
CHUNK = 1 << 18
"""Events of one call, unless the time between two records is longer."""


class Schedule(NamedTuple):
    """How long to run, and how to cut what is recorded into nearly independent units."""

    record_every: int
    """Events between two records, a power of two."""
    burn_in: int
    """Records left out at the start."""
    block: int
    """Records that are averaged to one unit of every source."""
    blocks: int
    sources: int

    @property
    def records(self) -> int:
        """Records of the whole run."""
        return self.burn_in + self.block * self.blocks

    @property
    def chunk(self) -> int:
        """Events of one call of the compiled run."""
        return max(self.record_every, CHUNK)

    @property
    def chunks(self) -> int:
        """Calls of the compiled run."""
        return -(-self.records * self.record_every // self.chunk)

    def nodes(self, num_nodes: int) -> list[int]:
        """Sources, evenly spread over the numbers of n nodes."""
        return [k * num_nodes // self.sources for k in range(self.sources)]


def num_sources(num_nodes: int, units: int) -> int:
    """Choose how many nodes to look at: at most one in eight, since they share the run's pushes."""
    # Two numbers only, so that few programs are compiled.
    return max(1, min(num_nodes // 8, ENTRIES // num_nodes, 32 if units <= 256 else 128))


def schedule(
    num_nodes: int, *, record: float, memory: float, burn_in: float, units: int, most_events: float = np.inf
) -> Schedule:
    """Plan a run of which blocks are nearly independent, and its sources where they are few.

    Args:
        num_nodes: n.
        record: events between records, rounded down to a power of two.
        memory: events after which the counters of a source are new; a block is at least as long.
        burn_in: events to forget the start.
        units: how many means, of one source over one block, are wanted at the least.
        most_events: that blocks beyond the fewest may take.
    """
    every = 1 << int(np.log2(min(max(record, 2.0), LONGEST)))
    sources = num_sources(num_nodes, units)
    block = int(np.ceil(memory / every))
    fewest = 20 if num_nodes <= 100 else 8 if num_nodes < 500_000 else 5
    blocks = min(-(-units // sources), int(most_events / (block * every)) if most_events < np.inf else units)
    return Schedule(every, int(np.ceil(burn_in / every)), block, max(fewest, blocks), sources)


def chunks_of(timeline: Timeline, plan: Schedule) -> Iterator[Timeline]:
    """Cut a plan that is written out into the chunks of a schedule.

    Raises:
        ValueError: it is too short.
    """
    if len(timeline) < plan.chunk * plan.chunks:
        raise ValueError(f"{len(timeline)} events, {plan.chunk * plan.chunks} are needed: plan a longer duration")
    for number in range(plan.chunks):
        yield timeline[number * plan.chunk : (number + 1) * plan.chunk]


_run = jax.jit(gj.run, static_argnames=("record_every",), donate_argnames=("state",))


def records(
    key: Key[Array, ""], chunks: Iterable[Timeline], sources: int | list[int], observer: Observer, record_every: int
) -> dict[str, np.ndarray]:
    """Run averaging with version counters through chunks of events, and return what was observed, records first.

    Each chunk has a key of its own: a chunk whose meetings are drawn inside the run may be passed again and again.
    """
    kept: list[dict[str, np.ndarray]] = []
    state = None
    for number, chunk in enumerate(chunks):
        facts = chunk.properties
        # Without the name, settings that differ in numbers only share one compiled program.
        chunk = dataclasses.replace(chunk, properties=dataclasses.replace(facts, name="chunk", traffic=None))
        protocol = gj.track_versions(gj.gossip_averaging(), sources, num_nodes=facts.num_nodes)
        if state is None:
            state = protocol.init(key, jnp.zeros(facts.num_rows + facts.num_slots))
        (state, _), found = _run(
            jax.random.fold_in(key, number), protocol, chunk, state, record_every=record_every, observers=(observer,)
        )
        kept.append({name: np.asarray(values) for name, values in found.values.items()})
    return {name: np.concatenate([part[name] for part in kept]) for name in kept[0]}


def blocks(recorded: np.ndarray, plan: Schedule) -> np.ndarray:
    """Average records ``(records, sources)`` over blocks, without the burn-in: ``(blocks, sources)``."""
    used = recorded[plan.burn_in : plan.records].astype(np.float64)
    return used.reshape(plan.blocks, plan.block, -1).mean(axis=1)


def batches(of_blocks: np.ndarray) -> np.ndarray:
    """Average blocks over sources, and over time to at most :data:`BATCHES` parts of the run: ``(batches,)``.

    Sources of one run share its pushes: who hears late hears late from all. So a source is no independent sample, above
    all where maxima over holders are looked at, but distant times are.
    """
    in_time = of_blocks.mean(axis=1)
    return np.asarray([part.mean() for part in np.array_split(in_time, min(len(in_time), BATCHES))])
