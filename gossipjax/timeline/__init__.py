"""Who meets whom, when, and with what weight: builders of :class:`gossipjax.types.Timeline`."""

from gossipjax.timeline.poisson import poisson_edges as poisson_edges
from gossipjax.timeline.poisson import poisson_pairs as poisson_pairs
from gossipjax.timeline.poisson import poisson_push as poisson_push
from gossipjax.timeline.rounds import client_sampling as client_sampling
from gossipjax.timeline.rounds import matching_rounds as matching_rounds
from gossipjax.timeline.rounds import rounds as rounds
