"""Systems: who trains, sends and averages what, and when, planned event by event on simulated machines."""

from gossipjax.systems._activity import Activity, SystemPlan, activity, load_plan, traffic_series, training_series
from gossipjax.systems._ad_psgd import ad_psgd
from gossipjax.systems._assumed import stand_in
from gossipjax.systems._gossip_learning import gossip_learning
from gossipjax.systems._kernel.machines import Machines, always_online, machines
from gossipjax.systems._picture import picture
from gossipjax.systems._plexus.learning import timeline
from gossipjax.systems._plexus.plan import PlexusPlan, round_seconds
from gossipjax.systems._plexus.planner import plexus
from gossipjax.systems._rounds.allreduce import allreduce
from gossipjax.systems._rounds.planner import epidemic, synchronous

__all__ = [
    "Activity",
    "Machines",
    "PlexusPlan",
    "SystemPlan",
    "activity",
    "ad_psgd",
    "allreduce",
    "always_online",
    "epidemic",
    "gossip_learning",
    "load_plan",
    "machines",
    "picture",
    "plexus",
    "round_seconds",
    "stand_in",
    "synchronous",
    "timeline",
    "traffic_series",
    "training_series",
]
