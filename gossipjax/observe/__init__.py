"""Observers that measure a run: models, staleness, traffic, clocks, and your own."""

from gossipjax.observe._attacks import linkability as linkability
from gossipjax.observe._attacks import membership as membership
from gossipjax.observe._clipping import clipping as clipping
from gossipjax.observe._honest import honest_consensus as honest_consensus
from gossipjax.observe._models import Observer as Observer
from gossipjax.observe._models import Snapshot as Snapshot
from gossipjax.observe._models import Variable as Variable
from gossipjax.observe._models import average_model_metrics as average_model_metrics
from gossipjax.observe._models import consensus_distance as consensus_distance
from gossipjax.observe._models import disagreement as disagreement
from gossipjax.observe._models import distance_to as distance_to
from gossipjax.observe._models import model_metrics as model_metrics
from gossipjax.observe._models import models as models
from gossipjax.observe._models import node_metrics as node_metrics
from gossipjax.observe._models import percentiles as percentiles
from gossipjax.observe._models import subset as subset
from gossipjax.observe._nodes import metrics_by_node as metrics_by_node
from gossipjax.observe._nodes import staleness_by_node as staleness_by_node
from gossipjax.observe._objective import optimality_gap as optimality_gap
from gossipjax.observe._objective import squared_gradient_norm as squared_gradient_norm
from gossipjax.observe._staleness import mean_hops as mean_hops
from gossipjax.observe._staleness import staleness_by_source as staleness_by_source
from gossipjax.observe._staleness import staleness_histogram as staleness_histogram
from gossipjax.observe._staleness import staleness_matrix as staleness_matrix
from gossipjax.observe._staleness import staleness_summary as staleness_summary
from gossipjax.observe._traffic import clock_by_node as clock_by_node
from gossipjax.observe._traffic import meter_summary as meter_summary
from gossipjax.observe._traffic import traffic_by_node as traffic_by_node

__all__ = [name for name in dir() if not name.startswith("_")]
