"""Results of a run: records, plots, files and provenance."""

from gossipjax.results._rate import LinearRate as LinearRate
from gossipjax.results._rate import linear_rate as linear_rate
from gossipjax.results._trajectory import Trajectory as Trajectory
from gossipjax.results._trajectory import load as load

__all__ = [name for name in dir() if not name.startswith("_")]
