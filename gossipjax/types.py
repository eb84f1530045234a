"""The signatures that everything else is written against.

The timeline decides who meets whom, when, and with what weight. The protocol decides what they do when they meet. The
sharing decides what they say. ``simulate`` is the only loop.

Conventions: every leaf of a state has the row axis first (a row is a node, or a model slot in sampled systems).
Nodes, rows and slots are named by indices, never by masks; an index one past the end means "nobody": reads of it are
clamped, writes to it are dropped. Argument order everywhere: key, state, then what arrives; returns
``(state, output)``.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias, runtime_checkable

import jax
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Float64, Int, Key, PyTree, UInt

from gossipjax._base.arguments import instance, shown, whole
from gossipjax._base.call_text import brief
from gossipjax._base.calls import recordable, recorded
from gossipjax._base.display import displayed, name_in, size, words
from gossipjax.facts import WHOLE_MODELS, Properties, Requires

Params: TypeAlias = PyTree[Array]
"""A model: any pytree of floating-point arrays; stacked, each leaf has the row axis in front."""
Mixing: TypeAlias = Any
"""One of the pytrees of :mod:`gossipjax.mixing`."""
NOBODY = 2**31 - 1
"""An index past the end of every array: nobody. Reads of it are clamped, writes to it are dropped."""


class Event(NamedTuple):
    """What happens at one instant or, packed, in one level. A field that a timeline does not use is None and free.

    Order inside an event: begin, local step, mix. What needs another order is two events. A message in flight is a row
    of its own, one of the ``num_slots`` rows that follow the models: sending copies the sender's row there, delivery
    mixes that row into the receiver's, whatever happened to the sender meanwhile.
    """

    index: UInt[Array, " k"]  # type: ignore[assignment]
    """Number of the source event of each acting node; ``(1,)`` where ``nodes`` is None. Keys fold it in."""
    time: Float[Array, " k"]
    """Simulated seconds, one per index, in float32: the loop's copy. On the host times are float64, see Timeline."""
    nodes: Int[Array, " k"] | None = None
    """Nodes whose data and clock act; :data:`NOBODY` trains nothing. None: every node acts, in order."""
    rows: Int[Array, " k"] | None = None
    """The model row that each acting node trains. None: its own (row = node)."""
    begin: Int[Array, " b"] | None = None
    """Nodes that now take the snapshot at which their later gradient will be computed."""
    mixing: Mixing = None
    """Who is combined with whom, and with what weight: see :mod:`gossipjax.mixing`."""
    messages: UInt[Array, " m"] | None = None
    """Models that leave each of m senders now. None: every transfer of the mixing between two rows is one."""
    speakers: Int[Array, " m"] | None = None
    """The row that says each of ``messages``; :data:`NOBODY` where there is none. None: see
    :func:`gossipjax.mixing.speakers`."""
    sources: Int[Array, " m"] | None = None
    """The only node whose version each transfer of the mixing carries (version counters). None: all that it knows."""
    allreduce: Any = None
    """``()``: the mixing is the exact mean of all nodes, taken by a ring all-reduce, whose bytes are counted.
    None: models go from node to node."""
    models: Any = None
    """How many of the rows are models, a compile-time constant that the loop adds; the rows that follow hold messages
    in flight. None: every row is a model."""
    local: Any = None
    """The rows of one device of a mesh, which the loop adds: rows are then this device's, and nodes are still numbered
    over the whole network. None: every row is here."""


@jax.tree_util.register_dataclass
@displayed
@dataclasses.dataclass(frozen=True)
class Timeline:
    """A whole run, planned: ``event(key, shared, x)`` turns the t-th slice of ``xs`` into an :class:`Event`.

    T may be 0. Times are float64 on the host (``seconds``), from the planner to the record. Inside the compiled run
    they are float32, enough for their differences.

    Attributes:
        xs: pytree of arrays with leading axis T, one entry per event (host NumPy arrays are best: only the part being
            run travels to the device). T rounds on a fixed matrix cost T numbers.
        shared: pytree of arrays shared by all events. Always an argument of the compiled function.
        event: module-level function ``(key, shared, x) -> Event``. ``key`` is the same for every event; whatever is
            drawn folds in the event's own number.
        properties: static facts.
        draw: module-level function ``(key, shared, xs) -> xs`` that fills in what is drawn at random inside the run,
            for a window of consecutive events at once (entry t depends on ``xs[t]`` and the key only); None: all is
            planned.
        seconds: module-level function ``(shared, xs) -> (T,)`` on the host that returns the times of the events in
            float64; None: they are read off the events, in float32.
    """

    xs: PyTree
    shared: PyTree
    event: Callable[[Key[Array, ""], PyTree, PyTree], Event] = dataclasses.field(metadata={"static": True})
    properties: Properties = dataclasses.field(metadata={"static": True})
    draw: Callable[[Key[Array, ""], PyTree, PyTree], PyTree] | None = dataclasses.field(
        default=None, metadata={"static": True}
    )
    seconds: Callable[[PyTree, PyTree], Float64[np.ndarray, " T"]] | None = dataclasses.field(
        default=None, metadata={"static": True}
    )

    def __len__(self) -> int:
        """Number of events T."""
        leaves = jax.tree.leaves(self.xs)
        if not leaves:
            raise ValueError(f"xs of {self.properties.name} holds no array: give one with an entry for every event")
        return leaves[0].shape[0]

    @recorded()
    def __getitem__(self, window: slice) -> Timeline:
        """The events of a window, as a timeline: ``timeline[100:200]``.

        Raises:
            TypeError: no slice, or bounds that are not whole numbers.
            ValueError: a step. Events skipped or turned around would be another plan with the same facts.
        """
        if not isinstance(window, slice):
            raise TypeError(f"a timeline is cut by slices, such as timeline[10:20], not by {shown(window)}")
        for bound in (window.start, window.stop, window.step):
            if isinstance(bound, bool) or not (bound is None or hasattr(bound, "__index__")):
                raise TypeError(f"timeline[{window}]: the bounds of a slice must be whole numbers, not {shown(bound)}")
        if window.step not in (None, 1):
            raise ValueError(f"timeline[{window}]: must be consecutive events, in order; leave the step out")
        return dataclasses.replace(self, xs=jax.tree.map(lambda a: a[window], self.xs))

    def _facts(self) -> tuple[str, dict[str, Any]]:
        facts = self.properties
        rows = facts.num_rows if facts.num_rows != facts.num_nodes else None
        traffic = facts.traffic and f"{facts.traffic.delivered:,} of {facts.traffic.sent:,} delivered"
        slots = facts.num_slots or None
        sizes = {"events": len(self), "nodes": facts.num_nodes, "model rows": rows, "message slots": slots}
        holds = {name.replace("_", " "): name in facts for name in ("synchronous", "fixed", "doubly_stochastic")}
        return facts.name, sizes | {"messages": traffic} | holds | {"mixing": facts.messages}


@runtime_checkable
class Planned(typing.Protocol):
    """Anything that has a timeline, such as a plan of :mod:`gossipjax.systems`."""

    @property
    def timeline(self) -> Timeline:
        """The events of the learning."""


def as_timeline(plan: Any) -> Timeline:
    """Take the timeline of a plan, such as those of :mod:`gossipjax.systems`; a timeline stays as it is.

    Raises:
        TypeError: neither.
    """
    remedy = "build one with gossipjax.timeline, such as rounds(W, 100), or plan a system of gossipjax.systems"
    return instance("timeline", getattr(plan, "timeline", plan), Timeline, remedy)


class Ledger(NamedTuple):
    """What every node has sent and received since a run began; both have one entry for each.

    The unit is that of its source: **bits**, as 64-bit counters, in the ledger of a run (``Meter.traffic`` of
    :func:`gossipjax.metered`); **bytes**, in float64, in that of a plan (:func:`gossipjax.systems.node_traffic`).

    A message is charged to its sender when it leaves, and to its receiver when it arrives: of the whole network, what
    was sent = what was received + what was lost + what is still on its way.
    """

    sent: Any
    received: Any


class Info(NamedTuple):
    """What a step reports besides its new state. None where a protocol has nothing to say."""

    bits: int | UInt[Array, "*m"] | None = None
    """Bits in one message of each of the m senders of this event, or ``(m, s)`` in each message of senders that say
    something else to each neighbour; a plain int: the same in the whole run; None: not reported, so that the run's
    bytes and messages are not a number. A whole model has :func:`~gossipjax.bits_per_row`."""
    messages: UInt[Array, "*m"] | None = None
    """Messages that each of them sends, in the shape of ``bits``; None, where ``bits`` is an int: as the event says,
    counted outside the loop."""
    loss: Float[Array, " k"] | None = None
    """Mini-batch loss of each acting node, before its last local step."""
    finite: Bool[Array, "*k"] | None = None
    """Whether all parameters written by this event are finite, in all or for each acting node."""
    allreduce: Any = None
    """``()`` if the messages are those of a ring all-reduce, in which each node receives as much as it sends; else
    None: they go where the event's mixing says."""


@displayed
@recordable
class Protocol(NamedTuple):
    """What nodes do when they meet: pure functions.

    Attributes:
        init: ``init(key, x0) -> state`` with x0 the stacked parameters, each leaf ``(num_rows, ...)``. Leaves of the
            state have the row axis first, too; :func:`gossipjax.simulate` refuses scalars, which a packed event would
            update once for many source events. A count of events needs no state: ``event.index`` numbers them.
        step: ``step(key, state, event) -> (state, Info)``. ``key`` is the same for every event.
        model: ``model(state) -> x``: the stacked parameters that observers look at (x/w for push-sum).
        requires: checked against the timeline's properties before any work; :data:`WHOLE_MODELS` unless stated.
        versions: ``versions(state) -> Versions``, where they are tracked (:func:`gossipjax.track_versions`); else None.
        meter: ``meter(state) -> Meter``, where nodes' traffic and clocks are (:func:`gossipjax.metered`); else None.
    """

    init: Callable[[Key[Array, ""], Params], Any]
    step: Callable[[Key[Array, ""], Any, Event], tuple[Any, Info]]
    model: Callable[[Any], Params]
    requires: Requires = WHOLE_MODELS
    versions: Callable[[Any], Any] | None = None
    meter: Callable[[Any], Any] | None = None

    def _facts(self) -> tuple[str, dict[str, Any]]:
        from gossipjax._base.describe import describe  # which is written in terms of these types

        wrapped = {"tracks versions": self.versions is not None, "metered": self.meter is not None}
        return brief(self) or describe(self), wrapped | {"needs": words(self.requires.summary())}


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Mass:
    """How weights of push-sum travel with the messages of a sharing: what is not said stays with its node."""

    weights: Literal["whole", "model", "message", "coordinates"]
    """``"whole"``: everything is said, and one weight with it; ``"model"``: something is said of every coordinate, and
    one weight. Else every coordinate has a weight of its own: ``"message"``: a message carries one, for all that it
    holds always travels together; ``"coordinates"``: it carries one for each coordinate that it holds."""


@displayed
@recordable
class Sharing(NamedTuple):
    """What nodes say: pure functions. Encoding and merging are apart so that a message can be in flight between them.

    Attributes:
        init: ``init(x0) -> state``.
        encode: ``encode(key, state, x_start, x, event) -> (state, (payload, bits))``: x_start are the models at the
            beginning of the event, x the locally trained ones, both of all rows; the payload has one entry for each row
            that speaks (:func:`gossipjax.mixing.speakers`), with an axis of its neighbours behind where each
            of them is sent something else (:func:`~gossipjax.sharing.secure_aggregation`); ``bits`` is the size of
            one message: a plain int if it never changes, else an unsigned integer ``()``, one per speaker, or one per
            speaker and neighbour, with the neighbours in front of the padding.
        merge: ``merge(key, state, (x, payload, event)) -> (state, x)``: messages leave, which copies what is said to
            the rows of messages in flight, and arrive, which mixes it into the models.
        requires: checked against the timeline's properties.
        mass: how push-sum weights travel with a message; None: messages are no models, or parts of one, to be pushed.
    """

    init: Callable[[Params], Any]
    encode: Callable[[Key[Array, ""], Any, Params, Params, Event], tuple[Any, tuple[Any, int | UInt[Array, "..."]]]]
    merge: Callable[[Key[Array, ""], Any, tuple[Params, Any, Event]], tuple[Any, Params]]
    requires: Requires = Requires()
    mass: Mass | None = None

    def _facts(self) -> tuple[str, dict[str, Any]]:
        from gossipjax._base.describe import describe

        return brief(self) or describe(self), {"needs": words(self.requires.summary())}


@jax.tree_util.register_dataclass
@displayed
@dataclasses.dataclass(frozen=True)
class Task:
    """The learning problem: one shard of real data per node. A pytree; its functions are ``jax.tree_util.Partial``.

    Attributes:
        init: ``init(key) -> params`` of one node.
        batch: ``batch(key, data, node) -> batch`` drawn from that node's shard.
        loss: ``loss(key, params, batch) -> scalar``, the mean over the batch.
        metrics: ``metrics(params, data) -> dict`` of scalars of one model on whole arrays (test set).
        data: pytree of arrays: the pool of samples and each node's share of it.
        test: pytree of arrays that ``metrics`` takes.
        num_nodes: number of shards.
    """

    init: Callable[[Key[Array, ""]], Params]
    batch: Callable[[Key[Array, ""], PyTree, Int[Array, ""]], PyTree]
    loss: Callable[[Key[Array, ""], Params, PyTree], Float[Array, ""]]
    metrics: Callable[[Params, PyTree], dict[str, Array]]
    data: PyTree
    test: PyTree
    num_nodes: int = dataclasses.field(metadata={"static": True})

    def _facts(self) -> tuple[str, dict[str, Any]]:
        from gossipjax._base.describe import describe

        params = jax.tree.leaves(jax.eval_shape(self.init, jax.random.key(0)))
        sizes = {"nodes": self.num_nodes, "parameters": sum(math.prod(leaf.shape) for leaf in params)}
        data, test = (size(sum(a.nbytes for a in jax.tree.leaves(arrays))) for arrays in (self.data, self.test))
        return name_in(describe(self.batch)), sizes | {"data": data, "test data": test}

    def __post_init__(self):
        for name in ("init", "batch", "loss", "metrics"):
            # JAX rebuilds a task with anything in the place of its parts, but never with a plain function.
            function = getattr(self, name)
            if not isinstance(function, Partial) and callable(function) and jax.tree_util.all_leaves([function]):
                raise TypeError(
                    f"{name}={shown(function)}: a task's functions must be jax.tree_util.Partial; give "
                    "Partial(function, arrays), where the function takes first what it would close over"
                )
        whole("num_nodes", self.num_nodes, least=1, remedy="the number of shards")
