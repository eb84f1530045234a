"""Facts of timelines: the table of all facts, those that a timeline offers, and those that a protocol needs.

A protocol runs on a timeline if the timeline's facts include those that it needs: ``needs <= offers``. No fact holds by
default: a timeline builder states each one. To add a fact, add a row to :data:`FACTS`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Set
from typing import Any, NamedTuple

import jax

from gossipjax._base.arguments import flag, instance, optional_whole, real, shown, whole
from gossipjax._base.display import displayed, fields_that_differ

EIGENVALUE_ROUNDING = 1e-6
"""Margin of the bound on eigenvalues: the accuracy of Lanczos. Metropolis weights on an even ring have −1/3 exactly."""


class Fact(NamedTuple):
    """One row of the table."""

    meaning: str
    """The property of timelines with this fact."""
    remedy: str
    """Completes "the protocol needs …" in an error message, with a timeline that has the fact."""
    missing: str
    """Follows the name of a timeline without the fact in an error message."""
    implies: tuple[str, ...] = ()
    """Facts that follow from it."""


FACTS = {
    "walks": Fact(
        "Rows are models that walk from node to node.",
        "models that walk from node to node; use timeline.random_walks",
        "has no walks",
    ),
    "buffered": Fact(
        "The only model row is a server's, which sums the updates of its clients before it applies them (FedBuff).",
        "a server that buffers the updates of its clients; use timeline.fedbuff, ringmaster or rennala",
        "is not buffered",
    ),
    "rings": Fact(
        "Rows are the models of the nodes and the mean of the last ring, which some of them form at a time (HADFL).",
        "nodes that average in rings of some of them; use systems.hadfl",
        "has no rings",
    ),
    "averages": Fact(
        "Every event leaves the same average in all model rows, as a server does.",
        "events that leave one average in all rows, as a server does; use timeline.client_sampling",
        "has no averages",
    ),
    "server": Fact(
        "Every event is a round of a server: all model rows hold its model before, and its average after the round.",
        "rounds in which clients train from a server's model; use timeline.client_sampling",
        "has no server",
        implies=("averages",),
    ),
    "mailboxes": Fact(
        "At each tick of its clock a node averages all messages since the last tick, as in SWIFT and DivShare.",
        "nodes that average their received messages at ticks of their own clocks; use timeline.swift",
        "has no mailboxes",
    ),
    "fixed": Fact(
        "Every event has the same mixing matrix.",
        "one fixed mixing matrix; use timeline.rounds(W, T) with a single W",
        "is not fixed",
        implies=("one_graph",),
    ),
    "one_graph": Fact(
        "Messages of every event go over edges of one graph; some may be lost, and nodes absent.",
        "messages over the edges of one graph; use timeline.rounds, or changing_rounds on one topology",
        "is not on one graph",
    ),
    "synchronous": Fact(
        "Every node acts at every event.",
        "synchronous rounds, in which every node acts; use timeline.rounds(W, T)",
        "is not synchronous",
    ),
    "meetings": Fact(
        "A node averages its model with one received whole model at a time, at a meeting or on arrival of a push.",
        "nodes that average with one received model at a time; use timeline.push_gossip or timeline.pairwise",
        "has no meetings",
    ),
    "own_rows": Fact(
        "Row i is the model of node i, which trains it.",
        "nodes that each train their own model row; use timeline.rounds or timeline.poisson_pairs",
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
        "Rows of every mixing matrix sum to one, so that equal models stay equal.",
        "mixing matrices whose rows sum to one; on others use push_sum or sgp",
        "is not row stochastic",
    ),
    "column_stochastic": Fact(
        "Columns of every mixing matrix sum to one, message rows included, if no message is lost: mass is conserved.",
        "mixing matrices whose columns sum to one; use column_stochastic weights or timeline.directed_push",
        "is not column stochastic",
    ),
}
"""All facts. If several are missing, the error names the first in this order."""


def check_tags(tags: Set[str]) -> frozenset[str]:
    """Check a set of names of facts, and return it as a frozenset.

    Raises:
        TypeError: if tags is not a set.
        ValueError: if a name is not in :data:`FACTS`.
    """
    if not isinstance(tags, Set):
        raise TypeError(f"tags={shown(tags)}: pass the names of facts in a set, such as {{'fixed', 'symmetric'}}")
    for tag in tags:
        fact(tag)
    return frozenset(tags)


def with_implied(tags: Set[str]) -> frozenset[str]:
    """Add all implied facts to a set of facts; raises as :func:`check_tags`."""
    return check_tags(tags).union(*(FACTS[tag].implies for tag in tags))


def true_facts(said: Mapping[str, bool]) -> frozenset[str]:
    """Return the names whose value is true."""
    return frozenset(tag for tag, holds in said.items() if holds)


def fact(tag: str) -> Fact:
    """Return the row of a fact.

    Raises:
        ValueError: if no fact has this name.
    """
    if not isinstance(tag, str) or tag not in FACTS:
        raise ValueError(f"{shown(tag)} is not a fact of timelines: use one of {', '.join(FACTS)}")
    return FACTS[tag]


def _words(facts: Properties | Requires) -> dict[str, Any]:
    """List entries for a display: facts in the order of the table, then numbers that differ from their defaults."""
    held = {tag.replace("_", " "): True for tag in FACTS if tag in facts.tags}
    return held | {name: value for name, value in fields_that_differ(facts).items() if name not in ("tags", "graph")}


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
    """Message counts of a planned run: sent = delivered + dropped + overflow + superseded + in flight."""

    sent: int
    """Models, or fragments of one, that leave a node or a server; the loop counts them as ``messages_sent``."""
    delivered: int
    dropped: int = 0
    """Lost on the way."""
    overflow: int = 0
    """Lost because an inbox was full."""
    superseded: int = 0
    """Replaced in an inbox, before it was read, by a newer message of the same sender."""
    in_flight: int = 0
    """Not yet delivered, or still in an inbox, when the plan ends."""


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Packing:
    """Statistics of a packed timeline."""

    events: int
    """Source events."""
    levels: int
    """Conflict-free levels: the length of the longest chain of dependent events."""
    width: int
    """Capacity of a wide event, in source events."""
    wide_events: int
    waste: float
    """Share of the capacity that stays empty."""

    @property
    def mean_width(self) -> float:
        """Return the mean number of source events in a level; 0 without events."""
        return self.events / max(self.levels, 1)


@jax.tree_util.register_static
@displayed
@dataclasses.dataclass(frozen=True)
class Properties:
    """Facts and numbers that a timeline offers. ``"fixed" in properties`` tests for a fact."""

    num_nodes: int
    num_rows: int
    name: str
    """The builder and its settings, for reports."""
    tags: Set[str] = frozenset()
    """Facts that hold: names of rows of :data:`FACTS`. Implied facts are added."""
    min_eigenvalue: float | None = None
    """Smallest eigenvalue of the mixing matrix if it is fixed and symmetric; else None."""
    num_slots: int = 0
    """Rows after the models that hold messages in flight."""
    traffic: Traffic | None = None
    """Message counts of a plan."""
    packing: Packing | None = None
    """Statistics of the packing; None: one source event is one event."""
    num_fragments: int | None = None
    """Fragments of a model, if each message carries one; None: whole models."""
    messages: str = "model exchange"
    """Description of the mixing, for reports: the form of the matrix and the reason for it."""
    message_bytes: int | None = None
    """Bytes of a model in one message that the times of a plan assume; None: they assume none."""
    local_steps: int | None = None
    """Local steps of an acting node that the times of a plan assume; None: they assume none."""
    made_for: str | None = None
    """The kind of protocol that a plan was made for, such as "FedAvg"; None: any."""
    graph: str | None = None
    """Checksum of the graph over whose edges all messages go (:attr:`gossipjax.topology.Topology.checksum`); None: not
    stated."""

    def __contains__(self, tag: str) -> bool:
        """Return whether a fact holds.

        Raises:
            ValueError: if no fact has this name.
        """
        fact(tag)
        return tag in self.tags

    def with_facts(self, said: Mapping[str, bool]) -> Properties:
        """Return these properties with some facts replaced: ``said`` maps their names to whether they hold."""
        return dataclasses.replace(self, tags=(self.tags - said.keys()) | true_facts(said))

    def _facts(self) -> tuple[str, dict[str, Any]]:
        return self.name, _words(self)

    def __post_init__(self) -> None:
        """Check names and numbers."""
        object.__setattr__(self, "tags", with_implied(self.tags))
        instance("name", self.name, str, "the builder and its settings")
        _check_numbers(self)
        for name in ("num_nodes", "num_rows", "num_slots"):
            whole(name, getattr(self, name), least=0)


@jax.tree_util.register_static
@displayed
@dataclasses.dataclass(frozen=True)
class Requires:
    """Facts and numbers that a protocol or a sharing needs of a timeline, so that its update equation is the published.

    By default it needs nothing except messages of whole models.
    """

    tags: Set[str] = frozenset()
    """Facts that a timeline must have: names of rows of :data:`FACTS`."""
    min_eigenvalue: float | None = None
    """The smallest eigenvalue of the mixing matrix must be larger than this."""
    mixing: bool = False
    """Events must carry a mixing."""
    num_nodes: int | None = None
    """The number of shards of the task, or of nodes of a graph that is known when the protocol is built."""
    num_fragments: int | None = None
    """The number of fragments of a model, where the timeline names them; None: whole models only."""
    local_steps: int | None = None
    """Local steps of an acting node, which must equal those that a plan's times assume; 0: it takes no gradients, on
    any plan; None: not said, on any plan."""
    made_for: str | None = None
    """The kind of this protocol, compared with the one that a plan was made for; None: not compared."""
    graph: str | None = None
    """Checksum of the graph that this was built for, compared with the one that a timeline states; None: not compared.
    """
    builder: str | None = None
    """A builder of timelines that meet all this, such as ``"timeline.rounds"``, for error messages."""

    def __contains__(self, tag: str) -> bool:
        """Return whether a fact is needed.

        Raises:
            ValueError: if no fact has this name.
        """
        fact(tag)
        return tag in self.tags

    def __post_init__(self) -> None:
        """Check names and numbers."""
        object.__setattr__(self, "tags", check_tags(self.tags))
        flag("mixing", self.mixing)
        _check_numbers(self)
        optional_whole("num_nodes", self.num_nodes, least=1)
        optional_whole("local_steps", self.local_steps, least=0)
        for name in ("made_for", "graph", "builder"):
            if getattr(self, name) is not None:
                instance(name, getattr(self, name), str, "a word for reports, or None")

    def summary(self) -> dict[str, Any]:
        """List the requirements, for a display."""
        return _words(self)

    def _facts(self) -> tuple[str, dict[str, Any]]:
        return "", self.summary()

    def __or__(self, other: Requires) -> Requires:
        """Combine two requirements: the union of facts, the larger ``min_eigenvalue``, else the second if not None."""
        return Requires(
            tags=self.tags | other.tags,
            min_eigenvalue=_larger(self.min_eigenvalue, other.min_eigenvalue),
            mixing=self.mixing or other.mixing,
            num_nodes=_second(self.num_nodes, other.num_nodes),
            num_fragments=_second(self.num_fragments, other.num_fragments),
            local_steps=_second(self.local_steps, other.local_steps),
            made_for=_second(self.made_for, other.made_for),
            graph=_second(self.graph, other.graph),
            builder=_second(self.builder, other.builder),
        )


WHOLE_MODELS = Requires({"row_stochastic"}, mixing=True)
"""Default requirement of protocols: mixing of whole models that keeps equal models equal."""
FIXED_GRAPH = Requires(
    {"fixed", "synchronous", "symmetric", "doubly_stochastic"}, mixing=True, builder="timeline.rounds"
)
"""Requirement of a memory of one graph: synchronous rounds on one symmetric doubly stochastic matrix."""


def check_requires(requires: Requires, facts: Properties) -> None:
    """Check that a timeline offers all that a protocol needs.

    Raises:
        ValueError: if a requirement is not met; the message names the first, and a builder of timelines that meet it.
    """
    if requires.num_nodes is not None and requires.num_nodes != facts.num_nodes:
        raise ValueError(
            f"the timeline {facts.name} is for {facts.num_nodes} nodes, and the protocol for {requires.num_nodes}, the "
            "shards of its task or the nodes of its graph; build both for the same number of nodes"
        )
    problem = _missing_fragments(requires, facts) or _missing(requires, facts)
    if problem is not None:
        builder = requires.builder
        fitting = "" if builder is None or builder in problem else f"; a timeline that fits: {builder}"
        raise ValueError(problem + fitting)


def _missing_fragments(requires: Requires, facts: Properties) -> str | None:
    if requires.num_fragments is None and facts.num_fragments is not None:
        return (
            f"{facts.name} sends {facts.num_fragments} fragments of each model, and the protocol mixes whole ones: use "
            "dpsgd, swift or gossip_averaging with sharing.fragments, or another timeline such as timeline.rounds"
        )
    if None not in (requires.num_fragments, facts.num_fragments) and requires.num_fragments != facts.num_fragments:
        return (
            f"num_fragments={requires.num_fragments}, but the timeline {facts.name} names {facts.num_fragments} "
            "fragments: give both the same number, on a timeline of fragments such as timeline.shatter or "
            "timeline.divshare"
        )
    return None


def _missing(requires: Requires, facts: Properties) -> str | None:
    """Return the message about the first requirement that is not met; None if all are."""
    if requires.local_steps and facts.local_steps is not None and requires.local_steps != facts.local_steps:
        return (
            f"local_steps={requires.local_steps}, but the times of {facts.name} assume "
            f"local_steps={facts.local_steps} in each training; give both the same number"
        )
    if None not in (requires.made_for, facts.made_for) and requires.made_for != facts.made_for:
        return (
            f"the protocol is {requires.made_for}, but {facts.name} was planned for {facts.made_for}: run the protocol "
            "that the plan was made for, or plan another system"
        )
    if None not in (requires.graph, facts.graph) and requires.graph != facts.graph:
        return (
            f"the protocol or its sharing was given another topology than {facts.name}, over whose edges messages go: "
            "build both on one graph"
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
