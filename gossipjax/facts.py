"""Facts of timelines: what a timeline offers, what a protocol needs, and the one table from which both take them.

A protocol runs on a timeline whose facts include those that it needs: ``needs <= offers``. Nothing is taken for
granted: a builder states what holds. A new fact is one row of :data:`FACTS`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Set
from typing import Any, NamedTuple

import jax

from gossipjax._base.arguments import flag, instance, optional_whole, real, shown, whole
from gossipjax._base.display import displayed, fields_that_differ

EIGENVALUE_ROUNDING = 1e-6
"""Margin of a bound on eigenvalues, the accuracy of Lanczos; Metropolis weights on an even ring have −1/3 exactly."""


class Fact(NamedTuple):
    """One row of the table."""

    meaning: str
    """What is true of a timeline with this fact."""
    remedy: str
    """What a protocol that needs it asks for, and which timelines have it."""
    missing: str
    """What is said of a timeline without it, after its name."""
    implies: tuple[str, ...] = ()
    """Facts that follow from it."""


FACTS = {
    "walks": Fact(
        "Rows are models that walk from node to node.",
        "models that walk from node to node; use timeline.random_walks",
        "has no walks",
    ),
    "buffered": Fact(
        "The one model row is a server's, which adds up the changes of its clients before it applies them (FedBuff).",
        "a server that buffers the changes of its clients; use timeline.fedbuff",
        "is not buffered",
    ),
    "averages": Fact(
        "Every event leaves the same average in all model rows, as a server does.",
        "events that leave one average in all rows, as a server does; use timeline.client_sampling",
        "has no averages",
    ),
    "mailboxes": Fact(
        "At ticks of its own clock a node averages all that has come in since, as in SWIFT and DivShare.",
        "nodes that average what has come in at ticks of their own clocks; use timeline.swift",
        "has no mailboxes",
    ),
    "fixed": Fact(
        "The same mixing matrix at every event.",
        "one fixed mixing matrix; use timeline.rounds(W, T) with a single W",
        "is not fixed",
    ),
    "synchronous": Fact(
        "Every node acts at every event.",
        "synchronous rounds, in which every node acts; use timeline.rounds(W, T)",
        "is not synchronous",
    ),
    "meetings": Fact(
        "Nodes act at times of their own, and whole models pass between two of them at a time: averaging or pushes.",
        "models that pass between two nodes at a time; use timeline.push_gossip or timeline.pairwise",
        "has no meetings",
    ),
    "own_rows": Fact(
        "Row i is the model of node i, and what node i trains.",
        "nodes that each train a model row of their own; use timeline.rounds or timeline.poisson_pairs",
        "has no own rows",
    ),
    "symmetric": Fact(
        "Every mixing matrix equals its transpose.",
        "symmetric mixing matrices; use metropolis weights on an undirected topology",
        "is not symmetric",
    ),
    "doubly_stochastic": Fact(
        "Rows and columns of every mixing matrix sum to one, so that the network mean is conserved.",
        "doubly stochastic mixing matrices; use metropolis weights on an undirected topology",
        "is not doubly stochastic",
        implies=("row_stochastic", "column_stochastic"),
    ),
    "row_stochastic": Fact(
        "Rows of every mixing matrix sum to one, so that equal models stay as they are.",
        "mixing matrices whose rows sum to one; on others use push_sum or sgp",
        "is not row stochastic",
    ),
    "column_stochastic": Fact(
        "Columns of every mixing matrix sum to one, rows of messages included, lost ones aside: mass is conserved.",
        "mixing matrices whose columns sum to one; use column_stochastic weights or timeline.directed_push",
        "is not column stochastic",
    ),
}
"""All facts. Where several are missing, the first of them is named."""


def checked(tags: Set[str]) -> frozenset[str]:
    """Return a set of names of facts.

    Raises:
        TypeError: no set.
        ValueError: a name that is not in :data:`FACTS`.
    """
    if not isinstance(tags, Set):
        raise TypeError(f"tags={shown(tags)}: pass the names of facts in a set, such as {{'fixed', 'symmetric'}}")
    for tag in tags:
        fact(tag)
    return frozenset(tags)


def closed(tags: Set[str]) -> frozenset[str]:
    """Add the facts that follow from some; raises as :func:`checked` does."""
    return checked(tags).union(*(FACTS[tag].implies for tag in tags))


def held(said: Mapping[str, bool]) -> frozenset[str]:
    """Return the names of the facts that are said to hold, of a dict from names to whether they do."""
    return frozenset(tag for tag, holds in said.items() if holds)


def fact(tag: str) -> Fact:
    """Return the row of a fact.

    Raises:
        ValueError: there is none of this name.
    """
    if not isinstance(tag, str) or tag not in FACTS:
        raise ValueError(f"{shown(tag)} is no fact of a timeline: use one of {', '.join(FACTS)}")
    return FACTS[tag]


def _words(facts: Properties | Requires) -> dict[str, Any]:
    """List what is said for a display: facts in the order of the table, then numbers."""
    held = {tag.replace("_", " "): True for tag in FACTS if tag in facts.tags}
    return held | {name: value for name, value in fields_that_differ(facts).items() if name != "tags"}


def _check_numbers(facts: Properties | Requires) -> None:
    optional_whole("num_fragments", facts.num_fragments, least=1)
    if facts.min_eigenvalue is not None:
        real("min_eigenvalue", facts.min_eigenvalue)


def _larger(a: float | None, b: float | None) -> float | None:
    return _second(a, b) if a is None or b is None else max(a, b)


def _second(a: Any, b: Any) -> Any:
    return a if b is None else b


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Traffic:
    """What became of the messages of a planned run: sent = delivered + dropped + overflow + superseded + in flight."""

    sent: int
    """Models, or parts of one, that leave a node or a server: what the loop counts as ``messages_sent``."""
    delivered: int
    dropped: int = 0
    """Lost on the way."""
    overflow: int = 0
    """Lost because an inbox was full."""
    superseded: int = 0
    """Replaced in an inbox by a newer message of the same sender before it was read."""
    in_flight: int = 0
    """Not yet delivered, or waiting in an inbox, when the plan ends."""


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Packing:
    """How well a timeline was packed."""

    events: int
    """Source events."""
    levels: int
    """Conflict-free levels: the length of the longest chain of events that wait for one another."""
    width: int
    """Source events that one wide event has room for."""
    wide_events: int
    waste: float
    """Share of the room that stays empty."""

    @property
    def mean_width(self) -> float:
        """Source events a level; 0 where there are none."""
        return self.events / max(self.levels, 1)


@jax.tree_util.register_static
@displayed
@dataclasses.dataclass(frozen=True)
class Properties:
    """What a timeline offers: its facts, which ``"fixed" in properties`` asks for, and its numbers."""

    num_nodes: int
    num_rows: int
    name: str
    """The builder and its settings, for reports."""
    tags: Set[str] = frozenset()
    """Facts that hold: names of rows of :data:`FACTS`. What follows from them is added."""
    min_eigenvalue: float | None = None
    """Smallest eigenvalue of the mixing matrix, where it is fixed and symmetric; else None."""
    num_slots: int = 0
    """Rows after the models that hold messages in flight."""
    traffic: Traffic | None = None
    """What became of planned messages."""
    packing: Packing | None = None
    """How well the events were packed; None: one source event is one event."""
    num_fragments: int | None = None
    """Of a model, where messages carry one fragment each."""
    messages: str = "model exchange"
    """What the mixing does, for reports: the form of the matrix and why it was chosen."""
    message_bytes: int | None = None
    """Bytes of the model in one message on which the times of a plan rest; None: on none."""
    local_steps: int | None = None
    """Local steps of an acting node on which the times of a plan rest; None: on none."""
    made_for: str | None = None
    """The family of protocols that a plan was made for, such as "FedAvg"; None: not said."""

    def __contains__(self, tag: str) -> bool:
        """Tell whether a fact holds.

        Raises:
            ValueError: there is no fact of this name.
        """
        fact(tag)
        return tag in self.tags

    def with_facts(self, said: Mapping[str, bool]) -> Properties:
        """Return these properties with some facts said anew: a dict from their names to whether they hold."""
        return dataclasses.replace(self, tags=(self.tags - said.keys()) | held(said))

    def _facts(self) -> tuple[str, dict[str, Any]]:
        return self.name, _words(self)

    def __post_init__(self) -> None:
        """Check names and numbers."""
        object.__setattr__(self, "tags", closed(self.tags))
        instance("name", self.name, str, "the builder and its settings")
        _check_numbers(self)
        for name in ("num_nodes", "num_rows", "num_slots"):
            whole(name, getattr(self, name), least=0)


@jax.tree_util.register_static
@displayed
@dataclasses.dataclass(frozen=True)
class Requires:
    """What a protocol or a sharing needs of a timeline for its update equation to be the published one.

    Nothing is demanded unless it is stated, but that whole models travel.
    """

    tags: Set[str] = frozenset()
    """Facts that a timeline must have: names of rows of :data:`FACTS`."""
    min_eigenvalue: float | None = None
    """The smallest eigenvalue of the mixing matrix must be larger than this."""
    mixing: bool = False
    """Events must carry a mixing."""
    num_nodes: int | None = None
    """The number of shards of the task."""
    num_fragments: int | None = None
    """Messages must carry one of so many fragments; None: whole models."""
    local_steps: int | None = None
    """Local steps of an acting node, which must be those on which a plan's times rest; None: not said."""
    made_for: str | None = None
    """The family of the protocol, which must be the one that a plan was made for; None: not said."""
    builder: str | None = None
    """A builder whose timelines meet all this, such as ``"timeline.rounds"``: named where another is refused."""

    def __contains__(self, tag: str) -> bool:
        """Tell whether a fact is needed.

        Raises:
            ValueError: there is no fact of this name.
        """
        fact(tag)
        return tag in self.tags

    def __post_init__(self) -> None:
        """Check names and numbers."""
        object.__setattr__(self, "tags", checked(self.tags))
        flag("mixing", self.mixing)
        _check_numbers(self)
        optional_whole("num_nodes", self.num_nodes, least=1)

    def said(self) -> dict[str, Any]:
        """List what is needed, for a display."""
        return _words(self)

    def _facts(self) -> tuple[str, dict[str, Any]]:
        return "", self.said()

    def __or__(self, other: Requires) -> Requires:
        """Need both: all facts of either, and of two numbers the stricter, or the second's where there is none."""
        return Requires(
            tags=self.tags | other.tags,
            min_eigenvalue=_larger(self.min_eigenvalue, other.min_eigenvalue),
            mixing=self.mixing or other.mixing,
            num_nodes=_second(self.num_nodes, other.num_nodes),
            num_fragments=_second(self.num_fragments, other.num_fragments),
            local_steps=_second(self.local_steps, other.local_steps),
            made_for=_second(self.made_for, other.made_for),
            builder=_second(self.builder, other.builder),
        )


WHOLE_MODELS = Requires({"row_stochastic"}, mixing=True)
"""What a protocol needs that says nothing: mixing of whole models which leaves equal ones as they are."""


def check_requires(requires: Requires, facts: Properties) -> None:
    """Hold what a protocol needs against what a timeline offers.

    Raises:
        ValueError: the first requirement that the timeline does not meet, and a builder whose timelines do.
    """
    if requires.num_nodes is not None and requires.num_nodes != facts.num_nodes:
        raise ValueError(
            f"the timeline {facts.name} is for {facts.num_nodes} nodes but the task has {requires.num_nodes} shards; "
            "build both for the same number of nodes"
        )
    problem = _missing_fragments(requires, facts) or _missing(requires, facts)
    if problem is not None:
        builder = requires.builder
        fitting = "" if builder is None or builder in problem else f"; a timeline that fits: {builder}"
        raise ValueError(problem + fitting)


def _missing_fragments(requires: Requires, facts: Properties) -> str | None:
    if requires.num_fragments == facts.num_fragments:
        return None
    if requires.num_fragments is None:
        return (
            f"{facts.name} sends {facts.num_fragments} fragments of each model, and the protocol mixes whole ones: use "
            "dpsgd or gossip_averaging with sharing.fragments, divshare, or another timeline"
        )
    named = "no fragments" if facts.num_fragments is None else f"{facts.num_fragments} fragments"
    return (
        f"num_fragments={requires.num_fragments}, but the timeline {facts.name} names {named}: give both the same "
        f"number, on a timeline of fragments such as {requires.builder or 'timeline.shatter or timeline.divshare'}"
    )


def _missing(requires: Requires, facts: Properties) -> str | None:
    """Say which requirement is not met."""
    if None not in (requires.local_steps, facts.local_steps) and requires.local_steps != facts.local_steps:
        return (
            f"local_steps={requires.local_steps}, but {facts.name} was planned for local_steps={facts.local_steps} of "
            "each training, on which its times rest; give both the same number"
        )
    if None not in (requires.made_for, facts.made_for) and requires.made_for != facts.made_for:
        return (
            f"the protocol is {requires.made_for}, but {facts.name} was planned for {facts.made_for}: run the protocol "
            "that the plan was made for, or plan another system"
        )
    for tag, row in FACTS.items():
        if tag in requires.tags and tag not in facts.tags:
            return f"the protocol needs {row.remedy}; {facts.name} {row.missing}"
    least, smallest = requires.min_eigenvalue, facts.min_eigenvalue
    if "fixed" in requires and least is not None and smallest is not None and smallest <= least + EIGENVALUE_ROUNDING:
        return (
            f"the protocol needs a mixing matrix with smallest eigenvalue above {least:.4g}; "
            f"{facts.name} has {smallest:.4g}; use lazy(W), which maps w to (1 + w)/2"
        )
    return None
