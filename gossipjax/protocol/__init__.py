"""What nodes do when they meet: builders of :class:`gossipjax.types.Protocol`."""

from gossipjax.protocol.allreduce import allreduce_sgd as allreduce_sgd
from gossipjax.protocol.d2 import d2 as d2
from gossipjax.protocol.dpsgd import dpsgd as dpsgd
from gossipjax.protocol.fedavg import fedavg as fedavg
from gossipjax.protocol.fedavg import local_sgd as local_sgd
from gossipjax.protocol.gossip import gossip_averaging as gossip_averaging
from gossipjax.protocol.gradient_tracking import gradient_tracking as gradient_tracking
