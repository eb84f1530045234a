"""Who looks: nodes, colluding sets of nodes, and taps on the wire."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Int

from gossipjax._base.arguments import shown, whole, wholes
from gossipjax.privacy._tape import Tape
from gossipjax.types import NOBODY


class Wire(NamedTuple):
    """An eavesdropper that reads all that is sent, lost messages too, on some links or on all.

    The receiver of a lost message is not in a plan: it is heard if any of the links begins at its sender. Of messages
    that carry a fragment and are in flight, every fragment counts as heard until they are delivered.
    """

    links: tuple[tuple[int, int], ...] | None = None
    """(sender, receiver) of each link; None: all. The result names those that the plan never uses."""


Observer: TypeAlias = int | Sequence[int] | Wire


def as_observers(observers: Any, num_nodes: int) -> list[tuple[int, ...] | Wire]:
    """Check observers: numbers, sets of numbers, or taps; None means every node alone.

    Raises:
        TypeError: if observers is not a list.
        ValueError: if one is not in the plan, or is empty.
    """
    if observers is None:
        return [(node,) for node in range(num_nodes)]
    if isinstance(observers, str | bytes | Wire) or not isinstance(observers, Sequence | np.ndarray):
        raise TypeError(
            f"observers={shown(observers)}: must be a list of nodes, of tuples of colluding nodes, and of Wire(); None "
            "means every node alone"
        )
    if len(observers) == 0:
        raise ValueError("observers=[]: must name at least one; None means every node alone")
    return [_as_observer(f"observers[{k}]", each, num_nodes) for k, each in enumerate(observers)]


def _as_observer(name: str, observer: Any, n: int) -> tuple[int, ...] | Wire:
    if isinstance(observer, Wire):
        if observer.links is None:
            return observer
        return Wire(_links(f"{name}.links", observer.links, n))
    if isinstance(observer, tuple | list | np.ndarray | frozenset | set):
        return tuple(sorted(set(_nodes(name, observer, n))))
    return (_node(name, observer, n),)


def _links(name: str, links: Any, n: int) -> tuple[tuple[int, int], ...]:
    """Check links: pairs of two nodes."""
    remedy = f"(sender, receiver) of each link, nodes 0 … {n - 1}, such as ((0, 1),); None means all links"
    pairs = wholes(name, links, shape=(None, 2), least=0, most=n - 1, remedy=remedy)
    if not len(pairs):
        raise ValueError(f"{name}={shown(links)}: must name at least one link; None means all")
    if len(loops := np.flatnonzero(pairs[:, 0] == pairs[:, 1])):
        raise ValueError(f"{name}[{loops[0]}]={tuple(pairs[loops[0]].tolist())}: a node sends nothing to itself")
    return tuple((sender, receiver) for sender, receiver in pairs.tolist())


def _nodes(name: str, nodes: Any, n: int) -> list[int]:
    if len(nodes) == 0:
        raise ValueError(f"{name}={shown(nodes)}: must name at least one node")
    return [_node(name, node, n) for node in nodes]


def _node(name: str, node: Any, n: int) -> int:
    return whole(name, node, least=0, most=n - 1, remedy=f"the plan has the nodes 0 … {n - 1}")


def heard_by(observer: tuple[int, ...] | Wire, tape: Tape) -> tuple[Int[np.ndarray, " r"], Int[np.ndarray, " r"]]:
    """Return the entries of a tape that an observer hears, and the event in which it hears each."""
    if not isinstance(observer, Wire):
        entries = np.flatnonzero(np.isin(tape.receiver, observer))
        return entries, tape.event[entries]
    if observer.links is None:
        entries = np.arange(len(tape.sender))
    else:
        links = set(observer.links) | {(sender, NOBODY) for sender, _ in observer.links}
        pairs = zip(tape.sender.tolist(), tape.receiver.tolist(), strict=True)
        entries = np.flatnonzero([pair in links for pair in pairs])
    return entries, tape.sent[entries]


def members(observer: tuple[int, ...] | Wire) -> tuple[int, ...]:
    """Return the nodes whose own contributions an observer knows."""
    return () if isinstance(observer, Wire) else observer


def label(observer: tuple[int, ...] | Wire, tapes: Sequence[Tape]) -> str:
    """Return the name of an observer for tables; it names links on which nothing is sent in any round."""
    if not isinstance(observer, Wire):
        return ", ".join(map(str, observer))
    if observer.links is None:
        return "wire"
    used = {pair for tape in tapes for pair in zip(tape.sender.tolist(), tape.receiver.tolist(), strict=True)}
    silent = [link for link in observer.links if not used & {link, (link[0], NOBODY)}] if tapes else []
    listed = ", ".join(f"{sender}→{receiver}" for sender, receiver in silent)
    return f"{len(observer.links)} links" + (f", of which the plan never uses {listed}" if silent else "")
