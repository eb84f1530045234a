"""gossipjax: gossip dynamics and decentralized learning, a whole network as stacked parameters in one compiled scan.

The timeline decides who meets whom, when, and with what weight. The protocol decides what they do when they meet. The
sharing decides what they say. :func:`simulate` is the only loop.
"""

from gossipjax import mixing as mixing
from gossipjax import observe as observe
from gossipjax import protocol as protocol
from gossipjax import sharing as sharing
from gossipjax import spread as spread
from gossipjax import tasks as tasks
from gossipjax import timeline as timeline
from gossipjax import topology as topology
from gossipjax import weights as weights
from gossipjax.configuration import configure as configure
from gossipjax.engine import run as run
from gossipjax.protocol import allreduce_sgd as allreduce_sgd
from gossipjax.protocol import d2 as d2
from gossipjax.protocol import dpsgd as dpsgd
from gossipjax.protocol import fedavg as fedavg
from gossipjax.protocol import gossip_averaging as gossip_averaging
from gossipjax.protocol import gradient_tracking as gradient_tracking
from gossipjax.protocol import local_sgd as local_sgd
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
from gossipjax.types import Transfer as Transfer
