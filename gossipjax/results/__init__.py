"""Results of a run: records, plots, files and provenance."""

from gossipjax.results._trajectory import Trajectory, load

__all__ = [
    "Trajectory",
    "load",
]
