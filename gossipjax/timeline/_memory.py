"""Estimates of the memory that a plan takes, made before the plan is drawn."""

from __future__ import annotations

from gossipjax._base.memory import free_bytes

MOST_EVENTS = 2**32 - 1
"""Event numbers are 32-bit."""
MOST_NODES = 2**31 - 2
"""Nodes and rows are 32-bit indices, the largest of which is NOBODY."""


def require_room(
    count: int | float, bytes_each: int | float, what: str, names: str, *, num_nodes: int = 0, remedy: str = ""
) -> None:
    """Check, before a plan is drawn, that memory can hold it.

    Args:
        count: estimated number of planned items.
        bytes_each: bytes of one item during planning.
        what: name of the items, in the plural.
        names: arguments that determine their number.
        num_nodes: number of nodes, which take about 100 bytes each.
        remedy: another remedy for the message.

    Raises:
        ValueError: if the estimate exceeds the memory, or there are 2³² events or more.
    """
    needed, there = count * bytes_each + 100.0 * num_nodes, free_bytes()
    if not (needed <= there and count <= MOST_EVENTS):
        of = f" of {num_nodes:,} nodes" if num_nodes else ""
        raise ValueError(
            f"{names}: about {count:.3g} {what}{of} would be planned, in {needed / 2**30:.3g} GiB; at most 2³² − 1 fit "
            f"into a plan, and {there / 2**30:.3g} GiB into this machine; lower one of these{remedy}"
        )
