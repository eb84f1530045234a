"""Whether the model of a server moves in a plan."""

from __future__ import annotations

MOST_SEARCHED = 100_000
"""Gradients after the end of a plan in which the first update is looked for, to say when it would be."""


def require_update(duration: float, first: float, names: str, *, found: bool = True) -> None:
    """Check that the model of a server moves before the end of a plan.

    Args:
        duration: of the plan, seconds.
        first: when it moves first.
        names: arguments that determine when.
        found: False: it does not move before ``first``.

    Raises:
        ValueError: if it moves at the end or later.
    """
    if first >= duration:
        when = f"for the first time after {first:.6g} seconds" if found else f"not before {first:.6g} seconds"
        raise ValueError(
            f"duration={duration:g}: the server's model moves {when}, so nothing would be learned; plan a longer time, "
            f"or change {names}"
        )
