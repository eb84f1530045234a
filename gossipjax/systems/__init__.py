"""Systems: who trains, sends and averages what, and when, planned event by event on simulated machines."""

from gossipjax.systems._activity import Activity
from gossipjax.systems._ad_psgd import ad_psgd
from gossipjax.systems._gossip_learning import gossip_learning
from gossipjax.systems._kernel.machines import Machines, always_online, machines
from gossipjax.systems._picture import picture
from gossipjax.systems._plan import Plan, activity, load_plan, stand_in, traffic_series, training_series
from gossipjax.systems._plexus.history import PlexusHistory
from gossipjax.systems._plexus.planner import plexus
from gossipjax.systems._plexus.settings import Membership, Timers
from gossipjax.systems._rounds.allreduce import allreduce
from gossipjax.systems._rounds.planner import epidemic, synchronous

__all__ = [
    "Activity",
    "Machines",
    "Membership",
    "Plan",
    "PlexusHistory",
    "Timers",
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
    "stand_in",
    "synchronous",
    "traffic_series",
    "training_series",
]
