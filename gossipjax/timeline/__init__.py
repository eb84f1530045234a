"""Who meets whom, when, and with what weight: builders of :class:`gossipjax.Timeline`."""

from gossipjax.timeline import activity as activity
from gossipjax.timeline import clocks as clocks
from gossipjax.timeline import flights as flights
from gossipjax.timeline import losses as losses
from gossipjax.timeline import overlays as overlays
from gossipjax.timeline._align import align as align
from gossipjax.timeline._changing_rounds import changing_rounds as changing_rounds
from gossipjax.timeline._directed_push import directed_push as directed_push
from gossipjax.timeline._divshare import divshare as divshare
from gossipjax.timeline._drawn import drawn_gossip as drawn_gossip
from gossipjax.timeline._drawn import drawn_pairs as drawn_pairs
from gossipjax.timeline._drawn_matchings import drawn_matchings as drawn_matchings
from gossipjax.timeline._fedbuff import fedbuff as fedbuff
from gossipjax.timeline._files import load as load
from gossipjax.timeline._files import save as save
from gossipjax.timeline._from_events import from_events as from_events
from gossipjax.timeline._gossip_learning import RandomizedTokens as RandomizedTokens
from gossipjax.timeline._gossip_learning import gossip_learning as gossip_learning
from gossipjax.timeline._gradient_servers import m_synchronous as m_synchronous
from gossipjax.timeline._gradient_servers import malenia as malenia
from gossipjax.timeline._gradient_servers import rennala as rennala
from gossipjax.timeline._gradient_servers import ringmaster as ringmaster
from gossipjax.timeline._moments import event_times as event_times
from gossipjax.timeline._opportunistic import opportunistic as opportunistic
from gossipjax.timeline._opportunistic import opportunistic_windows as opportunistic_windows
from gossipjax.timeline._pairwise import pairwise as pairwise
from gossipjax.timeline._poisson import poisson_edges as poisson_edges
from gossipjax.timeline._poisson import poisson_pairs as poisson_pairs
from gossipjax.timeline._poisson import poisson_push as poisson_push
from gossipjax.timeline._push_gossip import push_gossip as push_gossip
from gossipjax.timeline._push_rounds import push_rounds as push_rounds
from gossipjax.timeline._random_walk import random_walks as random_walks
from gossipjax.timeline._rounds import client_sampling as client_sampling
from gossipjax.timeline._rounds import matching_rounds as matching_rounds
from gossipjax.timeline._rounds import rounds as rounds
from gossipjax.timeline._rounds import with_mixing as with_mixing
from gossipjax.timeline._shatter import shatter as shatter
from gossipjax.timeline._swift import swift as swift
from gossipjax.timeline._swift import swift_weights as swift_weights
from gossipjax.timeline._teleportation import teleportation as teleportation
from gossipjax.timeline._version_age import version_age as version_age
from gossipjax.timeline.clocks import Clock as Clock

__all__ = [name for name in dir() if not name.startswith("_")]
