"""Communication graphs: which nodes can talk to which, on the host.

Every generator returns a :class:`Topology` that is simple (no self-loop, no repeated edge) and connected, or raises
``ValueError``. Only matchings and the rounds of :func:`one_peer_exponential` may be disconnected, by design: each is
a single round of a network that changes over time.
"""

from gossipjax.topology._families import complete, exponential, hypercube, one_peer_exponential, path, ring, star, torus
from gossipjax.topology._files import read_graph, write_graph
from gossipjax.topology._graph import Topology, from_adjacency, from_networkx
from gossipjax.topology._random import (
    barabasi_albert,
    erdos_renyi,
    random_matching,
    random_matching_of,
    random_regular,
    watts_strogatz,
)

__all__ = [
    "Topology",
    "barabasi_albert",
    "complete",
    "erdos_renyi",
    "exponential",
    "from_adjacency",
    "from_networkx",
    "hypercube",
    "one_peer_exponential",
    "path",
    "random_matching",
    "random_matching_of",
    "random_regular",
    "read_graph",
    "ring",
    "star",
    "torus",
    "watts_strogatz",
    "write_graph",
]
