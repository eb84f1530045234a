"""Memory that a plan will take, estimated before anything is drawn."""

from __future__ import annotations

from gossipjax._base.memory import free_bytes

MOST_EVENTS = 2**32 - 1
"""Numbers of events are 32-bit."""
MOST_NODES = 2**31 - 2
"""Nodes and rows are 32-bit indices, the largest of which is nobody."""


def require_room(
    count: int | float, bytes_each: int | float, what: str, names: str, *, num_nodes: int = 0, remedy: str = ""
) -> None:
    """Refuse a plan that memory cannot hold, before it is drawn.

    Args:
        count: of what is planned, an estimate.
        bytes_each: that one takes while it is planned.
        what: is counted, in the plural.
        names: of the arguments that decide how many.
        num_nodes: each of which takes some 100 bytes besides.
        remedy: what else could be done.

    Raises:
        ValueError: an estimate above the memory there is, or 2³² events or more.
    """
    needed, there = count * bytes_each + 100.0 * num_nodes, free_bytes()
    if not (needed <= there and count <= MOST_EVENTS):
        of = f" of {num_nodes:,} nodes" if num_nodes else ""
        raise ValueError(
            f"{names}: about {count:.3g} {what}{of} would be planned, in {needed / 2**30:.3g} GiB; at most 2³² − 1 fit "
            f"into a plan, and {there / 2**30:.3g} GiB into this machine; lower one of these{remedy}"
        )
