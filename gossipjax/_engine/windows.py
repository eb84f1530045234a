"""Parts of a run whose reports get the host's times in the place of the loop's."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Key

from gossipjax._engine.loop import Status, Totals
from gossipjax.timeline._moments import event_times, moments
from gossipjax.types import Timeline


class Window(NamedTuple):
    """A part of a run whose reports get the host's times in the place of the loop's."""

    part: Timeline
    every: int | None
    """Events between two records; None: nothing is recorded."""
    key: Key[Array, "*seeds"]

    def with_times(self, records: Totals) -> Totals:
        """Give records the float64 times of the events that they follow."""
        if self.every is None or self.part.seconds is None:
            return records
        times = event_times(self.part)[self.every - 1 :: self.every]
        host: Any = np.broadcast_to(times, np.shape(records.time))
        return records._replace(time=host)

    def with_time(self, status: Status) -> Status:
        """Give the first bad event of each seed its float64 time."""
        if self.part.seconds is None or not np.any(status.bits):
            return status
        numbers, times = moments(self.part, self.key)[0], event_times(self.part)
        pairs = zip(np.ravel(status.event).tolist(), np.ravel(status.time).tolist(), strict=True)
        # A packed plan tells the time of the last event of each wide one only: of others the loop's is kept.
        found = [times[numbers == number][:1].tolist() or [time] for number, time in pairs]
        host: Any = np.reshape(np.asarray(found, np.float64), np.shape(status.time))
        return status._replace(time=host)
