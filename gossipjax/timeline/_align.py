"""Plans of one shape with records at the same seconds, so that many plans share one compiled program."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from gossipjax._base.arguments import sequence_of
from gossipjax._base.calls import recorded
from gossipjax.timeline._events import EMPTY
from gossipjax.timeline._from_events import planned_event
from gossipjax.timeline._moments import event_times, events_until
from gossipjax.types import Timeline


@recorded()
def align(plans: Sequence[Timeline], times: Float[np.ndarray, " r"]) -> tuple[list[Timeline], int]:
    """Pad plans with empty events, so that all plans have one shape and record at the same seconds.

    The shape is compiled once; all plans get as many rows for messages in flight as the one that needs most. Records at
    fixed times do not favour busy periods, as records after every k-th event would.

    Args:
        plans: timelines of :func:`gossipjax.timeline.from_events`, one per seed. Events after the last time are
            removed.
        times: increasing seconds.

    Returns:
        The plans, and the number of events between two records.

    Raises:
        ValueError: if there is no plan, a timeline is not made of listed events, or the times do not increase.
    """
    plans = sequence_of("plans", plans, Timeline, "plans of one builder, one per seed")
    if not plans:
        raise ValueError("plans=[]: pass at least one planned timeline")
    for number, plan in enumerate(plans):
        if plan.event is not planned_event or plan.properties.packing is not None:
            raise ValueError(f"plans[{number}]: {plan.properties.name} is not a planned timeline of events in order")
    edges = [events_until(event_times(plan), times, "times") for plan in plans]
    times = np.asarray(times, np.float64)
    counts = [np.diff(edge, prepend=0) for edge in edges]
    width = max(1, *(int(count.max()) for count in counts))
    slots = max(plan.properties.num_slots for plan in plans)
    return [_filled(plan, times, count, width, slots) for plan, count in zip(plans, counts, strict=True)], width


def _filled(plan: Timeline, times: np.ndarray, counts: np.ndarray, width: int, slots: int) -> Timeline:
    done = np.cumsum(counts)
    kept = int(done[-1])
    interval = np.repeat(np.arange(len(times)), counts)
    place = interval * width + np.arange(kept) - (done - counts)[interval]
    idle = {
        "time": np.repeat(times, width),
        "index": np.repeat(np.maximum(done - 1, 0), width),
    }
    xs = {}
    for name, array in plan.xs.items():
        shape = (len(times) * width, *array.shape[1:])
        empty = idle[name].reshape(-1, *(1,) * (array.ndim - 1)) if name in idle else EMPTY[name]
        xs[name] = np.broadcast_to(empty, shape).astype(array.dtype)
        xs[name][place] = array[:kept]
    return dataclasses.replace(plan, xs=xs, properties=dataclasses.replace(plan.properties, num_slots=slots))
