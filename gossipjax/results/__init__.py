"""What a run leaves behind: its records, pictures, file and origin."""

from gossipjax.results._trajectory import Trajectory, load

__all__ = [
    "Trajectory",
    "load",
]
