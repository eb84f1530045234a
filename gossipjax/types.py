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
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
from jaxtyping import Array, Bool, Float, Int, Key, PyTree, UInt

Params: TypeAlias = PyTree[Array]
"""A model: any pytree of floating-point arrays; stacked, each leaf has the row axis in front."""
Mixing: TypeAlias = Any
"""One of the pytrees of :mod:`gossipjax.mixing`."""


class Transfer(NamedTuple):
    """Messages that enter (``send``) or leave (``receive``) mailbox slots during one event.

    On sending, ``slot ← weight · x[row]`` and then ``x[row] ← keep · x[row]``; on receiving,
    ``x[row] ← keep · x[row] + weight · slot``. Push-sum splits mass (½, ½ on sending; 1, 1 on receiving), plain
    averaging does not (1, 1 on sending; a, 1 − a on receiving).
    """

    slot: Int[Array, " m"]
    row: Int[Array, " m"]
    weight: Float[Array, " m"]
    keep: Float[Array, " m"]
    part: Int[Array, " m"] | None = None
    """The fragment of the model that travels (DivShare); None: the whole model."""


class Event(NamedTuple):
    """What happens at one instant or, packed, in one level. A field that a timeline does not use is None and free.

    Order inside an event: receive, begin, local step, send, mix. What needs another order is two events.
    """

    index: UInt[Array, " k"]  # type: ignore[assignment]
    """Number of the source event of each acting node; ``(1,)`` where ``nodes`` is None. Keys fold it in."""
    time: Float[Array, " k"]
    """Simulated seconds, one per index."""
    nodes: Int[Array, " k"] | None = None
    """Nodes whose data and clock act. None: every node acts, in order."""
    rows: Int[Array, " k"] | None = None
    """The model row that each acting node trains. None: its own (row = node)."""
    begin: Int[Array, " b"] | None = None
    """Nodes that now take the snapshot at which their later gradient will be computed."""
    receive: Transfer | None = None
    send: Transfer | None = None
    mixing: Mixing = None
    """Who is combined with whom, and with what weight: see :mod:`gossipjax.mixing`."""


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Properties:
    """Static facts about a timeline, against which a protocol's ``requires`` are checked before any work."""

    num_nodes: int
    num_rows: int
    name: str
    """The builder and its settings, for reports."""
    fixed: bool = False
    """The same mixing matrix at every event."""
    synchronous: bool = False
    """Every node acts at every event."""
    symmetric: bool = False
    """Every mixing matrix equals its transpose."""
    doubly_stochastic: bool = False
    """Rows and columns of every mixing matrix sum to one, so that the network mean is conserved."""
    min_eigenvalue: float | None = None
    """Smallest eigenvalue of the mixing matrix, where it is fixed and symmetric; else None."""
    num_slots: int = 0
    """Mailbox slots that messages in flight need."""
    messages: str = "model exchange"
    """What the mixing does, for reports: the form of the matrix and why it was chosen."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Timeline:
    """A whole run, planned: ``event(key, static, x)`` turns the t-th slice of ``xs`` into an :class:`Event`.

    Attributes:
        xs: pytree of arrays with leading axis T, one entry per event (host NumPy arrays are best: only the part being
            run travels to the device). T rounds on a fixed matrix cost T numbers.
        static: pytree of arrays shared by all events. Always an argument of the compiled function.
        event: module-level function ``(key, static, x) -> Event``. ``key`` is the same for every event; whatever is
            drawn folds in the event's own number.
        properties: static facts.
    """

    xs: PyTree
    static: PyTree
    event: Callable[[Key[Array, ""], PyTree, PyTree], Event] = dataclasses.field(metadata={"static": True})
    properties: Properties = dataclasses.field(metadata={"static": True})

    def __len__(self) -> int:
        """Number of events T."""
        return jax.tree.leaves(self.xs)[0].shape[0]

    def __getitem__(self, window: slice) -> Timeline:
        """The events of a window, as a timeline: ``timeline[100:200]``."""
        if not isinstance(window, slice):
            raise TypeError(f"a timeline is cut by slices, such as timeline[10:20], not by {window!r}")
        return dataclasses.replace(self, xs=jax.tree.map(lambda a: a[window], self.xs))


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Requires:
    """What a protocol or a sharing needs of a timeline for its update equation to be the published one.

    Fields that name a fact of :class:`Properties` demand it; see :func:`gossipjax.simulate.check`.
    """

    fixed: bool = False
    synchronous: bool = False
    symmetric: bool = False
    doubly_stochastic: bool = False
    min_eigenvalue: float | None = None
    """The smallest eigenvalue of the mixing matrix must be larger than this."""
    mixing: bool = True
    """Events must carry a mixing."""
    num_nodes: int | None = None
    """The number of shards of the task."""

    def __or__(self, other: Requires) -> Requires:
        """Both requirements at once (a protocol's and its sharing's)."""
        bounds = [b for b in (self.min_eigenvalue, other.min_eigenvalue) if b is not None]
        return Requires(
            fixed=self.fixed or other.fixed,
            synchronous=self.synchronous or other.synchronous,
            symmetric=self.symmetric or other.symmetric,
            doubly_stochastic=self.doubly_stochastic or other.doubly_stochastic,
            min_eigenvalue=max(bounds) if bounds else None,
            mixing=self.mixing or other.mixing,
            num_nodes=self.num_nodes if other.num_nodes is None else other.num_nodes,
        )


class Info(NamedTuple):
    """What a step reports besides its new state. None where a protocol has nothing to say."""

    bits: UInt[Array, " m"] | None = None
    """Bits in one message of each of the m senders of this event."""
    messages: UInt[Array, " m"] | None = None
    """Messages that each of them sends."""
    loss: Float[Array, " k"] | None = None
    """Mini-batch loss of each acting node, before its last local step."""
    finite: Bool[Array, ""] | None = None
    """Whether all parameters written by this event are finite."""


class Protocol(NamedTuple):
    """What nodes do when they meet: pure functions.

    Attributes:
        init: ``init(key, x0) -> state`` with x0 the stacked parameters, each leaf ``(num_rows, ...)``.
        step: ``step(key, state, event) -> (state, Info)``. ``key`` is the same for every event.
        model: ``model(state) -> x``: the stacked parameters that observers look at (x/w for push-sum).
        requires: checked against the timeline's properties before any work.
    """

    init: Callable[[Key[Array, ""], Params], Any]
    step: Callable[[Key[Array, ""], Any, Event], tuple[Any, Info]]
    model: Callable[[Any], Params]
    requires: Requires = Requires()


class Sharing(NamedTuple):
    """What nodes say: pure functions. Encoding and merging are apart so that a message can be in flight between them.

    Attributes:
        init: ``init(x0) -> state``.
        encode: ``encode(key, state, x_start, x, event) -> (state, (payload, bits))``: x_start is the model at the
            beginning of the event, x the locally trained one; ``bits`` is the size of one message, an unsigned
            integer ``()`` or one per sender.
        merge: ``merge(key, state, (x, payloads, event)) -> (state, x)``.
        requires: checked against the timeline's properties.
    """

    init: Callable[[Params], Any]
    encode: Callable[[Key[Array, ""], Any, Params, Params, Event], tuple[Any, tuple[Any, UInt[Array, "..."]]]]
    merge: Callable[[Key[Array, ""], Any, tuple[Params, Any, Event]], tuple[Any, Params]]
    requires: Requires = Requires()


@jax.tree_util.register_dataclass
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
