"""Results of a run: records, plots, files and provenance."""

from gossipjax.results._trajectory import Trajectory as Trajectory
from gossipjax.results._trajectory import load as load

__all__ = [name for name in dir() if not name.startswith("_")]
