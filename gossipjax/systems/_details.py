"""What a system may add to its plans: the base of :class:`PlexusHistory` and :class:`HADFLHistory`."""

from __future__ import annotations

from typing import ClassVar

from gossipjax.systems._activity import Activity


class Details:
    """What a plan says beyond that of other systems."""

    num_coordinators: ClassVar[int] = 0
    """1: node n of the activity is a coordinator."""

    @property
    def ended_by(self) -> str | None:
        """Why the plan ended; None: at its duration."""
        return None

    def summary(self) -> str:
        """Say in a few lines what happened."""
        raise NotImplementedError

    def check(self, n: int, activity: Activity) -> None:
        """Hold the columns against each other, and against the activity of the plan of n nodes.

        Raises:
            ValueError: columns that do not fit.
        """
        raise NotImplementedError
