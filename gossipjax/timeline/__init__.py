"""Who meets whom, when, and with what weight: builders of :class:`gossipjax.Timeline`."""

from gossipjax.timeline import clocks, flights
from gossipjax.timeline._align import align
from gossipjax.timeline._directed_push import directed_push
from gossipjax.timeline._divshare import divshare
from gossipjax.timeline._drawn import drawn_gossip, drawn_pairs
from gossipjax.timeline._fedbuff import fedbuff
from gossipjax.timeline._files import load, save
from gossipjax.timeline._from_events import from_events
from gossipjax.timeline._gossip_learning import RandomizedTokens, gossip_learning
from gossipjax.timeline._moments import event_times
from gossipjax.timeline._opportunistic import opportunistic, opportunistic_windows
from gossipjax.timeline._pairwise import pairwise
from gossipjax.timeline._poisson import poisson_edges, poisson_pairs, poisson_push
from gossipjax.timeline._push_gossip import push_gossip
from gossipjax.timeline._push_rounds import push_rounds
from gossipjax.timeline._random_walk import random_walks
from gossipjax.timeline._rounds import client_sampling, matching_rounds, rounds, with_mixing
from gossipjax.timeline._shatter import shatter
from gossipjax.timeline._swift import swift, swift_weights
from gossipjax.timeline._version_age import version_age
from gossipjax.timeline.clocks import Clock

__all__ = [
    "Clock",
    "RandomizedTokens",
    "align",
    "client_sampling",
    "clocks",
    "directed_push",
    "divshare",
    "drawn_gossip",
    "drawn_pairs",
    "event_times",
    "fedbuff",
    "flights",
    "from_events",
    "gossip_learning",
    "load",
    "matching_rounds",
    "opportunistic",
    "opportunistic_windows",
    "pairwise",
    "poisson_edges",
    "poisson_pairs",
    "poisson_push",
    "push_gossip",
    "push_rounds",
    "random_walks",
    "rounds",
    "save",
    "shatter",
    "swift",
    "swift_weights",
    "version_age",
    "with_mixing",
]
