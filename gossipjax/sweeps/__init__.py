"""Sweeps: many runs over a grid, each kept in a file of its own, in one process or in many."""

from gossipjax.sweeps._sweep import SweepFailed as SweepFailed
from gossipjax.sweeps._sweep import collect as collect
from gossipjax.sweeps._sweep import sweep as sweep

__all__ = ["SweepFailed", "collect", "sweep"]
