"""gossipjax: gossip dynamics and decentralized learning, a whole network as stacked parameters in one compiled scan.

The timeline decides who meets whom, when, and with what weight. The protocol decides what they do when they meet. The
sharing decides what they say. :func:`simulate` is the only loop.
"""

import importlib.metadata as _metadata

from gossipjax import compress as compress
from gossipjax import decentralizepy as decentralizepy
from gossipjax import deploy as deploy
from gossipjax import design as design
from gossipjax import devices as devices
from gossipjax import facts as facts
from gossipjax import learn as learn
from gossipjax import mixing as mixing
from gossipjax import observe as observe
from gossipjax import predict as predict
from gossipjax import privacy as privacy
from gossipjax import protocol as protocol
from gossipjax import results as results
from gossipjax import review as review
from gossipjax import robust as robust
from gossipjax import sharing as sharing
from gossipjax import sweeps as sweeps
from gossipjax import systems as systems
from gossipjax import tasks as tasks
from gossipjax import timeline as timeline
from gossipjax import topology as topology
from gossipjax import types as types
from gossipjax import wrappers as wrappers
from gossipjax._base import placement as placement
from gossipjax._base.binding import Frozen as Frozen
from gossipjax._base.configuration import configure as configure
from gossipjax._base.rows import bits_per_row as bits_per_row
from gossipjax._base.rows import replicate as replicate
from gossipjax._engine.estimate import MemoryEstimate as MemoryEstimate
from gossipjax._engine.estimate import estimate_memory as estimate_memory
from gossipjax._engine.growth import Diverging as Diverging
from gossipjax._engine.loop import run as run
from gossipjax._engine.loop import with_slots as with_slots
from gossipjax._engine.mesh.devices import mesh as mesh
from gossipjax._engine.packing import pack as pack
from gossipjax._engine.repeat import repeat as repeat
from gossipjax._engine.simulate import Diverged as Diverged
from gossipjax._engine.simulate import simulate as simulate
from gossipjax.facts import Properties as Properties
from gossipjax.facts import Requires as Requires
from gossipjax.facts import Traffic as Traffic
from gossipjax.privacy import audit as audit
from gossipjax.protocol import *  # noqa: F403
from gossipjax.results import Trajectory as Trajectory
from gossipjax.results import load as load
from gossipjax.sweeps import SweepFailed as SweepFailed
from gossipjax.sweeps import sweep as sweep
from gossipjax.types import Event as Event
from gossipjax.types import Info as Info
from gossipjax.types import Protocol as Protocol
from gossipjax.types import Sharing as Sharing
from gossipjax.types import Task as Task
from gossipjax.types import Timeline as Timeline
from gossipjax.wrappers import metered as metered
from gossipjax.wrappers import track_versions as track_versions

try:
    __version__ = _metadata.version("gossipjax")
except _metadata.PackageNotFoundError:  # a checkout on the path that was never installed
    __version__ = "0+unknown"

__all__ = [name for name in dir() if not name.startswith("_")] + ["__version__"]
