"""Systems: who trains, sends and averages what, and when, planned event by event on simulated machines."""

from gossipjax.systems._activity import Activity as Activity
from gossipjax.systems._ad_psgd import ad_psgd as ad_psgd
from gossipjax.systems._gossip_learning import gossip_learning as gossip_learning
from gossipjax.systems._hadfl.history import HADFLHistory as HADFLHistory
from gossipjax.systems._hadfl.planner import hadfl as hadfl
from gossipjax.systems._hadfl.settings import HADFLCycle as HADFLCycle
from gossipjax.systems._hadfl.settings import HADFLFailures as HADFLFailures
from gossipjax.systems._hadfl.settings import HADFLMerging as HADFLMerging
from gossipjax.systems._hadfl.settings import HADFLSelection as HADFLSelection
from gossipjax.systems._hadfl.settings import HADFLSpeeds as HADFLSpeeds
from gossipjax.systems._kernel.machines import Machines as Machines
from gossipjax.systems._kernel.machines import always_online as always_online
from gossipjax.systems._kernel.machines import machines as machines
from gossipjax.systems._picture import picture as picture
from gossipjax.systems._plan import Plan as Plan
from gossipjax.systems._plan import activity as activity
from gossipjax.systems._plan import load_plan as load_plan
from gossipjax.systems._plan import node_traffic as node_traffic
from gossipjax.systems._plan import stand_in as stand_in
from gossipjax.systems._plan import traffic_series as traffic_series
from gossipjax.systems._plan import training_series as training_series
from gossipjax.systems._plexus.history import PlexusHistory as PlexusHistory
from gossipjax.systems._plexus.planner import plexus as plexus
from gossipjax.systems._plexus.settings import Membership as Membership
from gossipjax.systems._plexus.settings import Timers as Timers
from gossipjax.systems._rounds.allreduce import allreduce as allreduce
from gossipjax.systems._rounds.planner import epidemic as epidemic
from gossipjax.systems._rounds.planner import synchronous as synchronous

__all__ = [name for name in dir() if not name.startswith("_")]
