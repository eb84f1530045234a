"""Arguments of Plexus in groups, with their checks, and the settings that its handlers read."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

from gossipjax._base.arguments import choice, instance, optional_whole, real, whole

Aggregators: TypeAlias = Literal["next", "current", "server"] | int
"""Who takes the means; see :func:`gossipjax.systems.plexus`."""
Threshold = Literal["floor", "ceil"]


@dataclasses.dataclass(frozen=True)
class Timers:
    """How long the nodes of Plexus wait, in seconds.

    Attributes:
        resend_s: until an unanswered ping is sent again.
        ping_timeout_s: until an unanswered ping is given up.
        aggregation_timeout_s: until an aggregation is completed with fewer models, or dropped.
        stall_s: the run ends as stalled if nobody trains, sends or aggregates for this long.

    Raises:
        ValueError: if a time is not positive, or a ping would be given up before it is sent again.
    """

    resend_s: int | float = 1.0
    ping_timeout_s: int | float = 5.0
    aggregation_timeout_s: int | float = 300.0
    stall_s: int | float = 600.0

    def __post_init__(self) -> None:
        """Check the times."""
        for field in dataclasses.fields(self):
            seconds = real(field.name, getattr(self, field.name), above=0, unit="seconds")
            object.__setattr__(self, field.name, float(seconds))
        if self.resend_s >= self.ping_timeout_s:
            raise ValueError(
                f"resend_s={self.resend_s}, ping_timeout_s={self.ping_timeout_s}: a ping is sent again, then given up"
            )


@dataclasses.dataclass(frozen=True)
class Membership:
    """How the nodes of Plexus leave, and what they know about each other.

    Attributes:
        departures: what going offline means: a graceful leave, or a crash, which sends no messages.
        activity_window: D rounds; nodes not known to be active within it are no candidates. None: all nodes that have
            not left are candidates.
        views: "always" keeps the views of all nodes even if they cannot differ; the events are the same.

    Raises:
        ValueError: an unknown word, or a window of less than one round.
    """

    departures: Literal["graceful", "crash"] = "graceful"
    activity_window: int | None = 1000
    views: Literal["auto", "always"] = "auto"

    def __post_init__(self) -> None:
        """Check words and the window."""
        choice("departures", self.departures, ("graceful", "crash"))
        optional_whole("activity_window", self.activity_window, least=1)
        choice("views", self.views, ("auto", "always"))


class PlexusSettings(NamedTuple):
    """What the handlers read; see :func:`gossipjax.systems.plexus`."""

    num_nodes: int
    num_rounds: float
    """Infinity where the duration ends the run."""
    duration_s: float
    sample_size: int
    needed: int
    """Models that make a mean."""
    min_models: int
    message_bytes: int
    """Of a model message."""
    next_aggregator: bool
    """The aggregator of the trainings of round k is of sample k + 1; else of sample k."""
    server: int | None
    """The node that always aggregates."""
    num_aggregators: int | None
    """MoDeST; None: Plexus."""
    membership: Membership
    timers: Timers


def models_needed(sample_size: int, success_fraction: int | float, threshold: Threshold = "floor") -> int:
    """Compute how many models make a mean: s φ rounded down or up, at least 1; 0.9 · 10 is 9 either way."""
    product = round(sample_size * success_fraction, 9)
    return max(1, math.floor(product) if threshold == "floor" else math.ceil(product))


def checked_end(num_rounds: Any, duration_s: Any) -> tuple[float, float]:
    """Return both ends of a run, infinite where there is none.

    Raises:
        ValueError: neither is given, or not a positive number.
    """
    if num_rounds is None and duration_s is None:
        raise ValueError("neither num_rounds nor duration_s is given; say when the run ends")
    remedy = "or None, with the other end given"
    rounds = math.inf if num_rounds is None else float(whole("num_rounds", num_rounds, least=1, remedy=remedy))
    seconds = math.inf if duration_s is None else real("duration_s", duration_s, above=0, unit="seconds", remedy=remedy)
    return rounds, seconds


def check_sample(n: int, sample_size: Any, success_fraction: Any, threshold: Any, min_models: Any) -> None:
    """Check the numbers of nodes and models of a round.

    Raises:
        ValueError: out of range.
    """
    whole("sample_size", sample_size, least=1, most=n, remedy=f"a sample of the {n} nodes")
    real("success_fraction", success_fraction, above=0, most=1, remedy="a share of the sample")
    choice("threshold", threshold, get_args(Threshold))
    whole("min_models", min_models, least=1)


def check_groups(n: int, aggregators: Any, membership: Any, timers: Any) -> None:
    """Check who aggregates, and the sorts of the groups, which have checked themselves.

    Raises:
        ValueError: an unknown word, or a number of aggregators that is not from 1 to n.
        TypeError: another sort.
    """
    if isinstance(aggregators, str):
        choice("aggregators", aggregators, ("next", "current", "server"))
    else:
        remedy = "'next', 'current', 'server', or the number of MoDeST's aggregators"
        whole("aggregators", aggregators, least=1, most=n, remedy=remedy)
    instance("membership", membership, Membership, "such as gossipjax.systems.Membership(departures='crash')")
    instance("timers", timers, Timers, "such as gossipjax.systems.Timers(ping_timeout_s=2.0)")
