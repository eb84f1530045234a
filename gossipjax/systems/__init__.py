"""Systems: who trains, sends and averages what, and when, planned event by event on simulated machines."""

from gossipjax.systems.activity import Activity as Activity
from gossipjax.systems.activity import SystemPlan as SystemPlan
from gossipjax.systems.activity import activity as activity
from gossipjax.systems.activity import load_plan as load_plan
from gossipjax.systems.activity import traffic_series as traffic_series
from gossipjax.systems.activity import training_series as training_series
from gossipjax.systems.allreduce import allreduce as allreduce
from gossipjax.systems.assumed import stand_in as stand_in
from gossipjax.systems.gossip import gossip_learning as gossip_learning
from gossipjax.systems.learn import timeline as timeline
from gossipjax.systems.machines import Machines as Machines
from gossipjax.systems.machines import always_online as always_online
from gossipjax.systems.machines import machines as machines
from gossipjax.systems.pairs import ad_psgd as ad_psgd
from gossipjax.systems.picture import picture as picture
from gossipjax.systems.plan import PlexusPlan as PlexusPlan
from gossipjax.systems.plan import round_seconds as round_seconds
from gossipjax.systems.plexus import plexus as plexus
from gossipjax.systems.rounds import epidemic as epidemic
from gossipjax.systems.rounds import synchronous as synchronous
