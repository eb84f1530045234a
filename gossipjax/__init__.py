"""gossipjax: gossip dynamics and decentralized learning, a whole network as stacked parameters in one compiled scan.

The timeline decides who meets whom, when, and with what weight. The protocol decides what they do when they meet. The
sharing decides what they say. :func:`simulate` is the only loop.
"""

import importlib.metadata as _metadata

from gossipjax import (
    compress,
    devices,
    mixing,
    observe,
    protocol,
    sharing,
    systems,
    tasks,
    timeline,
    topology,
    wrappers,
)
from gossipjax._base import placement
from gossipjax._base.configuration import configure
from gossipjax._base.rows import bits_per_row, replicate
from gossipjax._engine.growth import Diverging
from gossipjax._engine.loop import run, with_slots
from gossipjax._engine.packing import pack
from gossipjax._engine.repeat import repeat
from gossipjax._engine.simulate import Diverged, simulate
from gossipjax.facts import Properties, Requires, Traffic
from gossipjax.protocol import (
    ad_psgd,
    allreduce_sgd,
    beer,
    d2,
    dpsgd,
    fedavg,
    fedbuff,
    gossip_averaging,
    gossip_learning,
    gradient_tracking,
    local_sgd,
    node_gradients,
    push_sum,
    random_walk,
    restarted,
    sgp,
    swift,
)
from gossipjax.results import Trajectory, load
from gossipjax.types import Event, Info, Protocol, Sharing, Task, Timeline
from gossipjax.wrappers import metered, track_versions

try:
    __version__ = _metadata.version("gossipjax")
except _metadata.PackageNotFoundError:  # a checkout on the path that was never installed
    __version__ = "0+unknown"

__all__ = [
    "Diverged",
    "Diverging",
    "Event",
    "Info",
    "Properties",
    "Protocol",
    "Requires",
    "Sharing",
    "Task",
    "Timeline",
    "Traffic",
    "Trajectory",
    "__version__",
    "ad_psgd",
    "allreduce_sgd",
    "beer",
    "bits_per_row",
    "compress",
    "configure",
    "d2",
    "devices",
    "dpsgd",
    "fedavg",
    "fedbuff",
    "gossip_averaging",
    "gossip_learning",
    "gradient_tracking",
    "load",
    "local_sgd",
    "metered",
    "mixing",
    "node_gradients",
    "observe",
    "pack",
    "placement",
    "protocol",
    "push_sum",
    "random_walk",
    "repeat",
    "replicate",
    "restarted",
    "run",
    "sgp",
    "sharing",
    "simulate",
    "swift",
    "systems",
    "tasks",
    "timeline",
    "topology",
    "track_versions",
    "with_slots",
    "wrappers",
]
