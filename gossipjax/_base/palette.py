"""The colours of every picture: apart for colour-blind readers, the first four also apart in grey print.

Colours after Paul Tol, "Colour Schemes", SRON technical note 09-002.
"""

from __future__ import annotations

BLUE, RED, YELLOW, TEAL, WINE, SKY, OLIVE = SERIES = (
    "#004488",
    "#bb5566",
    "#ddaa33",
    "#3fb0a0",
    "#882255",
    "#66ccee",
    "#999933",
)
"""Colours of series, in order of use."""
INK = "#1a1a1a"
"""Exact results, and whatever else is no series."""
ABSENT = "#e4e4e4"
"""What is not there, such as a node that is offline."""


def paler(colour: str, share: float) -> str:
    """Mix a colour with a share of white, as ``#rrggbb``."""
    parts = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
    return "#" + "".join(f"{round(part + (255 - part) * share):02x}" for part in parts)
