"""Observers that measure a run: models, staleness, traffic, clocks, and your own."""

from gossipjax.observe._models import (
    Observer,
    Snapshot,
    Variable,
    average_model_metrics,
    consensus_distance,
    disagreement,
    distance_to,
    models,
    node_metrics,
    percentiles,
    subset,
)
from gossipjax.observe._staleness import (
    mean_hops,
    staleness_by_source,
    staleness_histogram,
    staleness_matrix,
    staleness_summary,
)
from gossipjax.observe._traffic import meter_summary

__all__ = [
    "Observer",
    "Snapshot",
    "Variable",
    "average_model_metrics",
    "consensus_distance",
    "disagreement",
    "distance_to",
    "mean_hops",
    "meter_summary",
    "models",
    "node_metrics",
    "percentiles",
    "staleness_by_source",
    "staleness_histogram",
    "staleness_matrix",
    "staleness_summary",
    "subset",
]
