"""Communication graphs: which nodes can talk to which, on the host.

Every generator returns a :class:`Topology` that is simple (no self-loop, no repeated edge) and connected, or raises
``ValueError``. Only matchings, the rounds of :func:`one_peer_exponential` and :func:`read_graphs`, and
:func:`label_overlay` may be disconnected, by design.
"""

from gossipjax.topology._by_labels import DCliques as DCliques
from gossipjax.topology._by_labels import LabelOverlay as LabelOverlay
from gossipjax.topology._by_labels import d_cliques as d_cliques
from gossipjax.topology._by_labels import label_overlay as label_overlay
from gossipjax.topology._families import balanced_tree as balanced_tree
from gossipjax.topology._families import complete as complete
from gossipjax.topology._families import exponential as exponential
from gossipjax.topology._families import hypercube as hypercube
from gossipjax.topology._families import one_peer_exponential as one_peer_exponential
from gossipjax.topology._families import path as path
from gossipjax.topology._families import ring as ring
from gossipjax.topology._families import star as star
from gossipjax.topology._families import torus as torus
from gossipjax.topology._families import with_ring as with_ring
from gossipjax.topology._files import read_graph as read_graph
from gossipjax.topology._files import read_graphs as read_graphs
from gossipjax.topology._files import write_graph as write_graph
from gossipjax.topology._graph import Topology as Topology
from gossipjax.topology._graph import from_adjacency as from_adjacency
from gossipjax.topology._graph import from_networkx as from_networkx
from gossipjax.topology._random import barabasi_albert as barabasi_albert
from gossipjax.topology._random import erdos_renyi as erdos_renyi
from gossipjax.topology._random import random_matching as random_matching
from gossipjax.topology._random import random_matching_of as random_matching_of
from gossipjax.topology._random import random_regular as random_regular
from gossipjax.topology._random import random_tree as random_tree
from gossipjax.topology._random import watts_strogatz as watts_strogatz

__all__ = [name for name in dir() if not name.startswith("_")]
