"""Parts of a run, in whose reports the host's float64 times replace the loop's float32 times."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Key

from gossipjax._engine.chunks import Piece
from gossipjax._engine.loop import Status, Totals
from gossipjax.timeline._moments import event_times, moments
from gossipjax.types import Timeline


class Window(NamedTuple):
    """A part of a run, in whose reports the host's float64 times replace the loop's float32 times."""

    part: Timeline
    piece: Piece
    before: float
    """Time before the first event of the run."""
    key: Key[Array, "*seeds"]

    def with_times(self, records: Totals) -> Totals:
        """Set the time of each record to the float64 time of the event before it."""
        if self.part.seconds is None:
            return records
        times = np.append(event_times(self.part), self.before)[np.asarray(self.piece.stops) - 1]
        host: Any = np.broadcast_to(times, np.shape(records.time))
        return records._replace(time=host)

    def with_time(self, status: Status) -> Status:
        """Set the time of the first bad event of each seed to its float64 time."""
        if self.part.seconds is None or not np.any(status.bits):
            return status
        numbers, times = moments(self.part, self.key)[0], event_times(self.part)
        pairs = zip(np.ravel(status.event).tolist(), np.ravel(status.time).tolist(), strict=True)
        # A packed plan holds only the time of the last event of each wide one: other events keep the time of the loop.
        found = [times[numbers == number][:1].tolist() or [time] for number, time in pairs]
        host: Any = np.reshape(np.asarray(found, np.float64), np.shape(status.time))
        return status._replace(time=host)
