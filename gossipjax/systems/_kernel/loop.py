"""The event loop of all simulated systems: one kernel with a queue of events, and handlers that act on them.

A system is one file of handlers. To write one:

1. Keep the state of the nodes in a dataclass of your own with a field ``kernel``, which :func:`make_kernel` makes of
   the machines and of a model of bandwidth. The kernel knows the time ``kernel.now``, who is online
   (``kernel.online``), the transfers under way, and the record.
2. A handler is a function ``(run, …) -> None`` that changes the state and plans what follows:

   * a timer or a small message that takes a fixed time: ``entry = at(kernel.queue, seconds, handler, run, …)``; take it
     back with ``cancel(entry)``, such as the timeout of a handshake whose answer came. Times that are known from the
     start, such as the ticks of a clock: ``follow(kernel.queue, zip(seconds, nodes), handler)``;
   * a model on its way, which takes its bytes over the bandwidth: ``transfer(kernel, sender, receiver, size, ended,
     …)``; ``ended(number, completed, …)`` is called when it is in (True) or cut (False). End it early with :func:`cut`,
     or all transfers of a node that fails with :func:`cut_all`;
   * nodes that come and go: ``follow_presence(kernel, devices, until, change)`` calls ``change(node, joins)``; the
     handler writes ``kernel.online[node]``, stops what the node does, and cuts its transfers;
   * what a reader of the plan wants to know: ``training_starts``, ``training_ends``, ``averages`` of
     :mod:`gossipjax.systems._kernel.record`; transfers are recorded by themselves.

3. Plan what happens first, call ``run(kernel, until=duration)``, and turn ``kernel.record`` and events of your own into
   a :class:`gossipjax.systems.Plan`: ``plan_of_one(name, assuming(timeline, …), duration, activity_of(…))``. A handler
   that ends the run writes the reason into ``kernel.stopped``.

Events happen in the order of time; at equal times completions of transfers come first, then timers by rank, then by the
order of planning. A run thus depends on its arguments alone, provided that handlers draw all random numbers from one
generator of the run.

``_gossip_learning.py`` is the smallest such file; :mod:`gossipjax.systems._plexus` the largest: searches with pings,
handshakes, failures. A loop that needs no record and no presence passes ``run`` a function of its own for completions,
as :mod:`gossipjax.systems._kernel.exchange` does.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import heapq
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from gossipjax.systems._kernel.bandwidth import Network
from gossipjax.systems._kernel.machines import Machines
from gossipjax.systems._kernel.queue import Queue, at, make_queue
from gossipjax.systems._kernel.record import Record, transfer_ends, transfer_starts

DAY = 86_400.0
NEVER = float("inf")
SELDOM = 200_000
"""New objects between two passes of Python's collector of cycles during a run, which makes few: a pass at each 700, the
default, takes a quarter of the time."""


Delivery: TypeAlias = tuple[int, int, Callable[..., None], tuple[Any, ...]]
"""A model on its way: sender, receiver, ``ended`` and its arguments. A plain tuple is five times faster to make."""


@dataclasses.dataclass(slots=True, eq=False)
class Kernel:
    """The current time, the pending events, and the record so far."""

    queue: Queue
    network: Network
    online: list[bool]
    moving: defaultdict[int, set[int]] = dataclasses.field(default_factory=lambda: defaultdict(set))
    """Numbers of the transfers from and to each node."""
    deliveries: dict[int, Delivery] = dataclasses.field(default_factory=dict)
    record: Record = dataclasses.field(default_factory=Record)
    now: float = 0.0
    stopped: str = ""
    """Why a handler ended the run; empty while it goes on."""


def make_kernel(network: Network, online: Sequence[bool] = ()) -> Kernel:
    """Make a kernel at time 0.

    Args:
        network: of :mod:`gossipjax.systems._kernel.bandwidth`.
        online: of each node; may be left out where ``run`` is given a function for completions.
    """
    return Kernel(make_queue(), network, list(online))


def run(kernel: Kernel, *, until: float = NEVER, finished: Callable[[int], None] | None = None) -> None:
    """Carry out all events up to and including ``until``, in order; end early if none is left or a handler stops it.

    Args:
        kernel: with the first events planned.
        until: seconds.
        finished: called with the number of each completed transfer; None: the function given to :func:`transfer` is.
    """
    finished = partial(_completed, kernel) if finished is None else finished
    with seldom_collected():
        _run(kernel, until, finished)


@contextlib.contextmanager
def seldom_collected() -> Iterator[None]:
    """Let Python's collector of cycles pass only after :data:`SELDOM` new objects."""
    thresholds = gc.get_threshold()
    gc.set_threshold(thresholds[0] and max(SELDOM, thresholds[0]), *thresholds[1:])  # 0: never
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)


def _run(kernel: Kernel, until: float, finished: Callable[[int], None]) -> None:
    heap, network_next, network_finish = kernel.queue.heap, kernel.network.next_time, kernel.network.finish
    while not kernel.stopped:
        while heap and heap[0][3] is None:
            heapq.heappop(heap)
        timer, completion = heap[0][0] if heap else NEVER, network_next()
        if completion <= timer:
            if completion > until or completion == NEVER:
                return
            kernel.now = completion
            finished(network_finish())
        else:
            if timer > until:
                return
            kernel.now = timer
            entry = heapq.heappop(heap)
            handler, arguments = entry[3], entry[4]
            entry[3], entry[4] = None, ()  # whoever keeps the entry must not keep its arguments, which may hold them
            handler(*arguments)


def transfer(kernel: Kernel, sender: int, receiver: int, size: float, ended: Callable[..., None], *content: Any) -> int:
    """Request a transfer of ``size`` bytes, return its number; its end calls ``ended(number, completed, *content)``."""
    number = kernel.network.start(kernel.now, sender, receiver, size)
    transfer_starts(kernel.record, kernel.now, sender, receiver, size)
    kernel.deliveries[number] = sender, receiver, ended, content
    kernel.moving[sender].add(number)
    kernel.moving[receiver].add(number)
    return number


def cut(kernel: Kernel, number: int) -> None:
    """End a transfer early; both sides get their bandwidth back."""
    _end(kernel, number, kernel.network.cancel(kernel.now, number))


def cut_all(kernel: Kernel, node: int) -> None:
    """End all transfers from and to a node that are under way now, in the order in which they were asked for.

    Handlers of their ends may start and cut others: a transfer that one of them cuts ends once, and one that they start
    goes on, also at this node.
    """
    for number in sorted(kernel.moving[node]):
        if number in kernel.deliveries:
            cut(kernel, number)


def follow_presence(
    kernel: Kernel,
    devices: Machines,
    until: float,
    change: Callable[[int, bool], None],
    *,
    expected: Callable[[np.ndarray], None] | None = None,
    rank: int = 0,
) -> None:
    """Call ``change(node, joins)`` at every transition up to ``until``, for days, 2, 4, … at a time.

    Args:
        kernel: at time 0.
        devices: whose nodes come and go.
        until: seconds; may be infinite.
        change: the handler.
        expected: called with the nodes that will change, before they are planned for each span of time.
        rank: of the entries.
    """

    _plan_presence(_Presence(kernel, devices, until, change, expected, rank), 0.0, min(DAY, until))


class _Presence(NamedTuple):
    """The arguments of :func:`follow_presence`."""

    kernel: Kernel
    devices: Machines
    until: float
    change: Callable[[int, bool], None]
    expected: Callable[[np.ndarray], None] | None
    rank: int


def _plan_presence(settings: _Presence, begin: float, end: float) -> None:
    """Plan the transitions in begin < t ≤ end, and then the same for as long again."""
    # No closure, which would hold itself and with it the state of a run that is done.
    kernel, devices, until, change, expected, rank = settings
    times, nodes, joins = (np.asarray(column) for column in devices.transitions(end))
    new = times > begin
    if expected is not None and new.any():
        expected(nodes[new])
    for seconds, node, joining in zip(times[new].tolist(), nodes[new].tolist(), joins[new].tolist(), strict=True):
        at(kernel.queue, seconds, change, int(node), bool(joining), rank=rank)
    if end < until:
        at(kernel.queue, end, _plan_presence, settings, end, min(2 * end, until), rank=rank)


def _completed(kernel: Kernel, number: int) -> None:
    _end(kernel, number, None)


def _end(kernel: Kernel, number: int, sent: float | None) -> None:
    """Take a transfer out; what its ``ended`` does may start others."""
    sender, receiver, ended, content = kernel.deliveries.pop(number)
    kernel.moving[sender].discard(number)
    kernel.moving[receiver].discard(number)
    transfer_ends(kernel.record, kernel.now, number, sent)
    ended(number, sent is None, *content)
