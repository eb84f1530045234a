"""gossipjax: gossip dynamics and decentralized learning, a whole network as stacked parameters in one compiled scan.

The timeline decides who meets whom, when, and with what weight. The protocol decides what they do when they meet. The
sharing decides what they say. :func:`simulate` is the only loop.
"""

import importlib.metadata as _metadata

from gossipjax import codes as codes
from gossipjax import compress as compress
from gossipjax import devices as devices
from gossipjax import meter as meter
from gossipjax import mixing as mixing
from gossipjax import observe as observe
from gossipjax import protocol as protocol
from gossipjax import sharing as sharing
from gossipjax import spread as spread
from gossipjax import staleness as staleness
from gossipjax import systems as systems
from gossipjax import tasks as tasks
from gossipjax import timeline as timeline
from gossipjax import topology as topology
from gossipjax import transforms as transforms
from gossipjax import versions as versions
from gossipjax import weights as weights
from gossipjax.configuration import configure as configure
from gossipjax.engine import run as run
from gossipjax.engine import with_slots as with_slots
from gossipjax.growth import Diverging as Diverging
from gossipjax.meter import metered as metered
from gossipjax.optimizers import restarted as restarted
from gossipjax.packing import pack as pack
from gossipjax.protocol import ad_psgd as ad_psgd
from gossipjax.protocol import allreduce_sgd as allreduce_sgd
from gossipjax.protocol import beer as beer
from gossipjax.protocol import d2 as d2
from gossipjax.protocol import divshare as divshare
from gossipjax.protocol import dpsgd as dpsgd
from gossipjax.protocol import fedavg as fedavg
from gossipjax.protocol import fedbuff as fedbuff
from gossipjax.protocol import gossip_averaging as gossip_averaging
from gossipjax.protocol import gossip_learning as gossip_learning
from gossipjax.protocol import gradient_tracking as gradient_tracking
from gossipjax.protocol import local_sgd as local_sgd
from gossipjax.protocol import push_sum as push_sum
from gossipjax.protocol import random_walk as random_walk
from gossipjax.protocol import sgp as sgp
from gossipjax.protocol import swift as swift
from gossipjax.protocol.local import node_gradients as node_gradients
from gossipjax.provenance import repeat as repeat
from gossipjax.rows import bits_per_row as bits_per_row
from gossipjax.rows import replicate as replicate
from gossipjax.simulate import Diverged as Diverged
from gossipjax.simulate import simulate as simulate
from gossipjax.trajectory import Trajectory as Trajectory
from gossipjax.trajectory import load as load
from gossipjax.types import Event as Event
from gossipjax.types import Info as Info
from gossipjax.types import Properties as Properties
from gossipjax.types import Protocol as Protocol
from gossipjax.types import Requires as Requires
from gossipjax.types import Sharing as Sharing
from gossipjax.types import Task as Task
from gossipjax.types import Timeline as Timeline
from gossipjax.types import Traffic as Traffic
from gossipjax.versions import track_versions as track_versions

try:
    __version__ = _metadata.version("gossipjax")
except _metadata.PackageNotFoundError:  # a checkout on the path that was never installed
    __version__ = "0+unknown"
