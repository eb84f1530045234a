"""Rounds of a fixed length on devices: train, send, and average what has arrived at the tick."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int64

from gossipjax.systems._activity import COMPLETED, Activity
from gossipjax.systems._kernel.bandwidth import Bandwidth, Capacities
from gossipjax.systems._kernel.exchange import Outcome, Requests, exchange
from gossipjax.systems._kernel.machines import Machines
from gossipjax.systems._rounds.tables import Tables, requests_of


class Learning(NamedTuple):
    """What a round costs each node."""

    train_seconds: Float[np.ndarray, " n"]
    message_bytes: float
    bandwidth: Bandwidth
    """How it is shared."""
    limits: Capacities
    overlap: bool = True
    """Whether a node begins its next round while it still sends (rounds without a clock)."""


class Round(NamedTuple):
    """What happens in a round, in seconds from its beginning."""

    table: int
    activity: Activity
    trained: Bool[np.ndarray, " n"]
    arrived: Bool[np.ndarray, "n d"]
    """Which entries of the table take part in the mean."""
    asked: Int64[np.ndarray, " n"]
    """Messages of each sender."""


class Presence(NamedTuple):
    """Who takes part in a round."""

    online: Bool[np.ndarray, " n"]
    """At its beginning."""
    leaves_s: Float[np.ndarray, " n"]
    """Seconds after its beginning at which a node goes offline; infinity: not in this round."""


def clocked_rounds(
    tables: Tables,
    devices: Machines,
    num_rounds: int,
    learning: Learning,
    *,
    round_seconds: float,
) -> tuple[list[Round], Int64[np.ndarray, " r"]]:
    """Plan rounds. Rounds with the same availability are planned once.

    Returns:
        Different rounds, and the number of the one that each round is.
    """
    period = len(tables.neighbors)
    known: dict[tuple, int] = {}
    found: list[Round] = []
    pattern = np.empty(num_rounds, np.int64)
    for r, presence in enumerate(_presences(devices, num_rounds, round_seconds)):
        key = (r % period, presence.online.tobytes(), presence.leaves_s.tobytes())
        if key not in known:
            known[key] = len(found)
            found.append(_round(tables, r % period, presence, learning, round_seconds))
        pattern[r] = known[key]
    return found, pattern


def _presences(devices: Machines, num_rounds: int, round_seconds: float):
    """Yield the presence in each round, in order."""
    times, nodes, joins = (np.asarray(column) for column in devices.transitions(num_rounds * round_seconds))
    online = np.asarray(devices.online, bool).copy()
    begins = np.arange(num_rounds) * round_seconds
    edges = np.searchsorted(times, begins, side="right")
    ends = np.searchsorted(times, begins + round_seconds, side="left")
    done = 0
    for begin, edge, end in zip(begins.tolist(), edges.tolist(), ends.tolist(), strict=True):
        for k in range(done, edge):
            online[nodes[k]] = joins[k]
        done = edge
        leaves = np.full(online.size, np.inf)
        gone = edge + np.flatnonzero(~joins[edge:end].astype(bool))
        np.minimum.at(leaves, nodes[gone].astype(np.int64), times[gone] - begin)
        yield Presence(online.copy(), leaves)


def _round(tables: Tables, r: int, presence: Presence, learning: Learning, length: float) -> Round:
    (online, leaves), train_seconds = presence, learning.train_seconds
    stop = np.minimum(leaves, length)
    trained = online & (train_seconds <= stop)
    senders, receivers, lanes = requests_of(tables, r)
    ready = train_seconds[senders]
    asks = trained[senders] & online[receivers] & (leaves[receivers] > ready)
    senders, receivers, lanes, ready = (column[asks] for column in (senders, receivers, lanes, ready))
    order = np.argsort(ready, kind="stable")
    senders, receivers, lanes, ready = (column[order] for column in (senders, receivers, lanes, ready))
    requests = Requests(senders, receivers, ready, np.minimum(stop[senders], stop[receivers]))
    outcome = exchange(requests, learning.message_bytes, learning.bandwidth, learning.limits)
    present = online & np.isinf(leaves)
    arrived = np.zeros(tables.neighbors.shape[1:], bool)
    arrived[receivers, lanes] = (outcome.state == COMPLETED) & present[receivers]
    activity = _activity(online, np.minimum(train_seconds, stop), trained, requests, outcome, arrived, length)
    return Round(r, activity, trained, arrived, np.bincount(senders, minlength=online.size))


def _activity(
    online, ends, trained, requests: Requests, outcome: Outcome, arrived: np.ndarray, length: float
) -> Activity:
    averages = np.flatnonzero(arrived.any(1)).astype(np.int32)
    acting = np.flatnonzero(online).astype(np.int32)
    return Activity(
        training_node=acting,
        training_start_s=np.zeros(acting.size),
        training_end_s=ends[acting].astype(np.float64),
        training_completed=trained[acting],
        sender=requests.sender.astype(np.int32),
        receiver=requests.receiver.astype(np.int32),
        asked_s=requests.asked_s,
        ended_s=outcome.ended_s,
        sent_bytes=outcome.sent_bytes,
        state=outcome.state,
        mean_s=np.full(averages.size, length),
        mean_node=averages,
    )


def dropped(activity: Activity) -> int:
    """Count the transfers that did not reach their receiver."""
    return int(np.count_nonzero(activity.state != COMPLETED))
