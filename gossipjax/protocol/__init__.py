"""What nodes do when they meet: builders of :class:`gossipjax.Protocol`."""

from gossipjax.protocol._ad_psgd import ad_psgd
from gossipjax.protocol._allreduce import allreduce_sgd
from gossipjax.protocol._beer import beer
from gossipjax.protocol._d2 import d2
from gossipjax.protocol._dpsgd import dpsgd
from gossipjax.protocol._fedavg import fedavg, local_sgd
from gossipjax.protocol._fedbuff import fedbuff
from gossipjax.protocol._gossip import gossip_averaging
from gossipjax.protocol._gossip_learning import gossip_learning
from gossipjax.protocol._gradient_tracking import gradient_tracking
from gossipjax.protocol._local import node_gradients
from gossipjax.protocol._push_sum import push_sum, sgp
from gossipjax.protocol._random_walk import random_walk
from gossipjax.protocol._restarted import restarted
from gossipjax.protocol._swift import swift

__all__ = [
    "ad_psgd",
    "allreduce_sgd",
    "beer",
    "d2",
    "dpsgd",
    "fedavg",
    "fedbuff",
    "gossip_averaging",
    "gossip_learning",
    "gradient_tracking",
    "local_sgd",
    "node_gradients",
    "push_sum",
    "random_walk",
    "restarted",
    "sgp",
    "swift",
]
