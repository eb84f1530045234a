"""Samples of version counters after a network has forgotten its start, from windows of one long run."""

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
"""Largest number of counters, nodes × sources: 256 MB."""
LONGEST = 1 << 22
"""Longest window between two records, in events."""
BATCHES = 40
"""Number of parts of a run whose means give an interval."""
CHUNK = 1 << 18
"""Events of one call, unless there are more between two records."""


class Schedule(NamedTuple):
    """Length of a run, and how its records are cut into nearly independent units."""

    record_every: int
    """Events between two records, a power of two."""
    burn_in: int
    """Records that are omitted at the start."""
    block: int
    """Records that are averaged into one unit of each source."""
    blocks: int
    sources: int

    @property
    def records(self) -> int:
        """Number of records of the whole run."""
        return self.burn_in + self.block * self.blocks

    @property
    def chunk(self) -> int:
        """Number of events in one call of the compiled run."""
        return max(self.record_every, CHUNK)

    @property
    def chunks(self) -> int:
        """Number of calls of the compiled run."""
        return -(-self.records * self.record_every // self.chunk)

    def nodes(self, num_nodes: int) -> list[int]:
        """Return the sources, evenly spread over n nodes."""
        return [k * num_nodes // self.sources for k in range(self.sources)]


def num_sources(num_nodes: int, units: int) -> int:
    """Choose the number of sources: at most one node in eight, because sources share the run's pushes."""
    # Only two numbers, so that few programs are compiled.
    return max(1, min(num_nodes // 8, ENTRIES // num_nodes, 32 if units <= 256 else 128))


def schedule(
    num_nodes: int, *, record: float, memory: float, burn_in: float, units: int, most_events: float = np.inf
) -> Schedule:
    """Plan a run whose blocks, and whose sources if they are few, are nearly independent.

    Args:
        num_nodes: n.
        record: events between records; rounded down to a power of two.
        memory: events after which the counters of a source are independent of the past; a block is at least as long.
        burn_in: events to forget the start.
        units: smallest number of means of one source over one block.
        most_events: limit of the events of additional blocks.
    """
    every = 1 << int(np.log2(min(max(record, 2.0), LONGEST)))
    sources = num_sources(num_nodes, units)
    block = int(np.ceil(memory / every))
    fewest = 20 if num_nodes <= 100 else 8 if num_nodes < 500_000 else 5
    blocks = min(-(-units // sources), int(most_events / (block * every)) if most_events < np.inf else units)
    return Schedule(every, int(np.ceil(burn_in / every)), block, max(fewest, blocks), sources)


def chunks_of(timeline: Timeline, plan: Schedule) -> Iterator[Timeline]:
    """Cut a materialised plan into the chunks of a schedule.

    Raises:
        ValueError: the plan is too short.
    """
    if len(timeline) < plan.chunk * plan.chunks:
        raise ValueError(f"{len(timeline)} events: must be at least {plan.chunk * plan.chunks}; plan a longer duration")
    for number in range(plan.chunks):
        yield timeline[number * plan.chunk : (number + 1) * plan.chunk]


_run = jax.jit(gj.run, static_argnames=("record_every",), donate_argnames=("state",))


def records(
    key: Key[Array, ""], chunks: Iterable[Timeline], sources: int | list[int], observer: Observer, record_every: int
) -> dict[str, np.ndarray]:
    """Run averaging with version counters through chunks of events; return the records, with records as first axis.

    Each chunk has its own key, so a chunk whose meetings are drawn inside the run may be passed repeatedly.
    """
    parts: list[dict[str, np.ndarray]] = []
    state = None
    for number, chunk in enumerate(chunks):
        facts = chunk.properties
        # Without names, settings that differ only in numbers share one compiled program.
        chunk = dataclasses.replace(chunk, properties=dataclasses.replace(facts, name="chunk", traffic=None))
        protocol = gj.track_versions(gj.gossip_averaging(), sources, num_nodes=facts.num_nodes)
        if state is None:
            state = protocol.init(key, jnp.zeros(facts.num_rows + facts.num_slots))
        (state, _), observed = _run(
            jax.random.fold_in(key, number), protocol, chunk, state, record_every=record_every, observers=(observer,)
        )
        parts.append({name: np.asarray(values) for name, values in observed.values.items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def blocks(recorded: np.ndarray, plan: Schedule) -> np.ndarray:
    """Average records ``(records, sources)`` over blocks, without the burn-in: ``(blocks, sources)``."""
    used = recorded[plan.burn_in : plan.records].astype(np.float64)
    return used.reshape(plan.blocks, plan.block, -1).mean(axis=1)


def batches(of_blocks: np.ndarray) -> np.ndarray:
    """Average blocks over sources, and over time to at most :data:`BATCHES` parts of the run: ``(batches,)``.

    Sources of one run share its pushes: a node that hears late hears late from all of them. Sources are therefore not
    independent samples, least of all for maxima over nodes, but distant times are.
    """
    in_time = of_blocks.mean(axis=1)
    return np.asarray([part.mean() for part in np.array_split(in_time, min(len(in_time), BATCHES))])
