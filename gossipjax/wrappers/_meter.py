"""Traffic of each node, and clocks for messages whose sizes differ from node to node.

Timelines are planned before the run, so that their times cannot depend on its messages. If the size of a message is
random or depends on the model, as in :func:`~gossipjax.sharing.jwins`, a meter computes the clocks during the run.
:mod:`gossipjax.mixing._ledger` defines who is charged for a message.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Key, UInt

from gossipjax._base import outputs
from gossipjax._base.arguments import flag, instance, reals
from gossipjax._base.binding import Frozen, bind
from gossipjax._base.calls import recorded
from gossipjax._base.rows import num_rows
from gossipjax.facts import Requires
from gossipjax.mixing._counting import charge_allreduce
from gossipjax.mixing._forms import DenseMixing, Mixing, TableMixing
from gossipjax.mixing._ledger import Book, departures, enter, start_book
from gossipjax.types import Event, Info, Ledger, Params, Protocol


class Meter(NamedTuple):
    """Traffic of every node, and its clock if the meter has a link."""

    book: Book
    """``book.ledger.sent`` and ``.received`` are the bits of each node since the run began, 64-bit counts;
    ``counter.value(...)`` reads them on the host. Rows of messages in flight follow those of the nodes."""
    clock: Float[Array, " n"] | None
    """Time in seconds at which the node ended its last round, in float32."""
    rest: Float[Array, " n"] | None
    """Rounding error of ``clock``, carried along so that rounds of a millisecond still count after days."""
    uplink: tuple[Float[Array, " n"], Float[Array, " n"]] | None = None
    """With ``overlap``: time at which the node's uplink has sent everything, and its rounding error; else None."""

    @property
    def traffic(self) -> Ledger:
        """What each row has sent and received, in bits."""
        return self.book.ledger


class MeteredState(NamedTuple):
    """State of the inner protocol, and the meter."""

    inner: Any
    meter: Meter


class _Link(NamedTuple):
    """Compute time, rate and latency of a round; each a number, or one per node."""

    compute: Array
    bytes_per_second: Array
    latency: Array


def _init(inner: Protocol, link: _Link | None, overlap: Frozen[bool], key: Key[Array, ""], x0: Params) -> MeteredState:
    n = num_rows(x0)
    if link is None:
        return MeteredState(inner.init(key, x0), Meter(start_book(n), None, None))
    for name, numbers in link._asdict().items():
        if numbers.shape not in ((), (n,)):
            raise ValueError(f"{name} of shape {numbers.shape} for {n} nodes: give one number, or one per node")
    zero = jnp.zeros(n, jnp.float32)
    uplink = (zero, zero) if overlap.value else None
    return MeteredState(inner.init(key, x0), Meter(start_book(n), zero, zero, uplink))


def _add_seconds(clock: Array, rest: Array, seconds: Array) -> tuple[Array, Array]:
    """Add seconds to clocks, exactly up to the rounding of the rest (two-sum)."""
    seconds = seconds + rest
    total = clock + seconds
    added = total - clock
    return total, (clock - (total - added)) + (seconds - added)


def _later(a: tuple[Array, Array], b: tuple[Array, Array]) -> tuple[Array, Array]:
    """Return the later of two times with rounding errors; the first where they are equal."""
    second = (b[0] > a[0]) | ((b[0] == a[0]) & (b[1] > a[1]))
    return jnp.where(second, b[0], a[0]), jnp.where(second, b[1], a[1])


def _step(inner: Protocol, link: _Link | None, key: Key[Array, ""], state: MeteredState, event: Event):
    after, info = outputs.step(inner, key, state.inner, event)
    if info.bits is None:
        raise ValueError(
            "metered needs message sizes, but the protocol's step does not report what it sends: return "
            "gossipjax.Info(bits=...), such as gossipjax.bits_per_row(x) for a whole model"
        )
    meter = state.meter._replace(book=enter(state.meter.book, info, event))
    return MeteredState(after, meter if link is None else _tick(link, meter, info, event)), info


def _tick(link: _Link, meter: Meter, info: Info, event: Event) -> Meter:
    """Move the clocks on by one round."""
    assert meter.clock is not None
    n = meter.clock.shape[0]
    info = charge_allreduce(info, event, n)
    size, number = departures(info, event, n)
    sent = jnp.sum(_by_message(size, n).astype(jnp.float32) * _by_message(number, n).astype(jnp.float32), axis=1) / 8
    ready, uplink = _ready(link, meter, sent / link.bytes_per_second)
    everyone = event.allreduce is not None or info.allreduce is not None
    mixing = DenseMixing(jnp.ones((n, n))) if everyone else event.mixing
    if everyone:  # a mean needs what each node passes on
        ready = uplink
    heard = latest(mixing, *_add_seconds(*uplink, jnp.broadcast_to(link.latency, (n,))))
    clock, rest = _later(ready, heard)
    return meter._replace(clock=clock, rest=rest, uplink=None if meter.uplink is None else uplink)


def _ready(link: _Link, meter: Meter, seconds: Array) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Return when each node could end its round if it heard of nobody, and when its uplink has sent its messages."""
    assert meter.clock is not None
    assert meter.rest is not None
    if meter.uplink is None:
        ready = _add_seconds(meter.clock, meter.rest, link.compute + seconds)
        return ready, ready
    trained = _add_seconds(meter.clock, meter.rest, jnp.broadcast_to(link.compute, meter.clock.shape))
    return trained, _add_seconds(*_later(trained, meter.uplink), seconds)


def _by_message(numbers: Any, n: int) -> UInt[Array, "n s"]:
    """Lay out numbers that hold for all messages, for those of each node, or for each message."""
    numbers = jnp.asarray(numbers, jnp.uint32)
    return numbers if numbers.ndim == 2 else jnp.broadcast_to(numbers, (n,))[:, None]


def latest(
    mixing: Mixing, clock: Float[Array, " n"], rest: Float[Array, " n"]
) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    """Return the latest clock among the in-neighbours of every node: ``max_{j ≠ i: W_ij ≠ 0} t_j``, or −∞ without any.

    Args:
        mixing: a round of all nodes.
        clock: seconds t_j.
        rest: rounding errors of the clocks.

    Raises:
        TypeError: if the mixing is not dense or a table.
    """
    n = clock.shape[0]
    if isinstance(mixing, DenseMixing):
        heard, others = (mixing.W != 0) & ~jnp.eye(n, dtype=bool), jnp.arange(n)[None]
    elif isinstance(mixing, TableMixing):
        own = jnp.arange(n, dtype=mixing.neighbors.dtype)[:, None]
        heard, others = (mixing.weights != 0) & (mixing.neighbors != own), mixing.neighbors
    else:
        raise TypeError(f"a {type(mixing).__name__} is not a round of all nodes: meter dense or table mixings")
    times = jnp.where(heard, clock[others], -jnp.inf)
    last = jnp.max(times, axis=1, keepdims=True, initial=-jnp.inf)
    rests = jnp.max(jnp.where(times == last, rest[others], -jnp.inf), axis=1, initial=-jnp.inf)
    return last[:, 0], rests


def _model(inner: Protocol, state: MeteredState) -> Params:
    return inner.model(state.inner)


def _versions(inner: Protocol, state: MeteredState) -> Any:
    assert inner.versions is not None
    return inner.versions(state.inner)


def _meter(state: MeteredState) -> Meter:
    return state.meter


def _per_node(
    name: str, value: ArrayLike | None, default: float, num_nodes: int | None, **bounds: Any
) -> Float[np.ndarray, "..."]:
    """Check one number, or one for each node."""
    numbers = reals(name, default if value is None else value, **bounds)
    if numbers.ndim > 1 or numbers.size < 1 or (numbers.ndim and num_nodes not in (None, numbers.size)):
        wanted = "one per node" if num_nodes is None else f"{num_nodes}, one per node"
        raise ValueError(f"{name} of shape {numbers.shape}: pass one number, or {wanted}")
    return numbers


@recorded()
def metered(
    protocol: Protocol,
    *,
    compute_seconds: ArrayLike | None = None,
    bytes_per_second: ArrayLike | None = None,
    latency_seconds: ArrayLike | None = None,
    overlap: bool = True,
) -> Protocol:
    """Count what every node sends and receives, on any timeline whose rows are nodes; on rounds, keep clocks as well.

    A message is charged to its sender when it leaves, and to its receiver when it is merged; nobody receives what is
    lost. So all that was received is at most what was sent, except on SWIFT's timeline, where a node receives the model
    in its mailbox again at every tick until a newer one comes.

    With any of the three numbers, each node has a clock, and the timeline must be synchronous. A node computes, sends
    its messages one after another, and ends its round when it has received those of its neighbours, while its uplink
    still sends, one round after another::

        r_i = t_i + compute_i          u_i ← max(u_i, r_i) + bytes sent_i / rate_i
        t_i ← max(r_i, max_{j heard by i} u_j + latency_j)

    With ``overlap=False`` it ends its round only when it has sent all its messages, too::

        r_i = t_i + compute_i + bytes sent_i / rate_i
        t_i ← max(r_i, max_{j heard by i} r_j + latency_j)

    Nodes wait for their neighbours only, so that their clocks differ. The run itself does not change. An exact mean of
    all nodes (``rounds(mixing.averaging(n), T)``, :func:`gossipjax.systems.allreduce`,
    :func:`gossipjax.allreduce_sgd`) is a ring all-reduce: each node sends and receives 2 (n − 1)/n models, and waits
    for all others and, whatever ``overlap`` says, for its own uplink.

    Where rows are no nodes, as in Plexus and HADFL, :func:`gossipjax.systems.node_traffic` reads the traffic off the
    plan.

    Args:
        protocol: the inner protocol.
        compute_seconds: duration of a round's local steps, ≥ 0; a number, or one per node ``(n,)``; None: 0.
        bytes_per_second: rate at which a node sends, > 0; a number, or one per node; None: infinity.
        latency_seconds: latency of a sender's messages, ≥ 0; a number, or one per node; None: 0.
        overlap: whether a node goes on while its uplink still sends, which is also the default of
            :func:`gossipjax.systems.synchronous` and :func:`gossipjax.deploy.execute`; of no concern without clocks.

    Returns:
        The protocol; :func:`gossipjax.observe.traffic_by_node` and :func:`gossipjax.observe.meter_summary` observe it,
        and ``trajectory.state.meter`` holds the exact counts.

    Raises:
        ValueError: if a number is out of range; during a run, if the number of nodes differs, the timeline is not
            synchronous though there are clocks, rows are no nodes, or events do not say who sends.
        TypeError: during a run with clocks, if rounds are in groups, such as Shatter's.
    """
    n = instance(
        "protocol", protocol, Protocol, "build one, such as gossipjax.dpsgd(task, optimizer)"
    ).requires.num_nodes
    numbers = (
        _per_node("compute_seconds", compute_seconds, 0.0, n, least=0, unit="seconds"),
        _per_node("bytes_per_second", bytes_per_second, np.inf, n, above=0, unit="bytes per second", infinite=True),
        _per_node("latency_seconds", latency_seconds, 0.0, n, least=0, unit="seconds"),
    )
    timed = any(given is not None for given in (compute_seconds, bytes_per_second, latency_seconds))
    overlap = flag("overlap", overlap)
    inner, link = bind(protocol), _Link(*(jnp.asarray(a, jnp.float32) for a in numbers)) if timed else None
    return Protocol(
        init=Partial(_init, inner, link, Frozen(overlap)),
        step=Partial(_step, inner, link),
        model=Partial(_model, inner),
        requires=inner.requires | Requires({"synchronous"} if timed else {"own_rows"}),
        versions=None if inner.versions is None else Partial(_versions, inner),
        meter=Partial(_meter),
    )
