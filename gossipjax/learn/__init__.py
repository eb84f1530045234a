"""Gradients through gossip: learned mixing weights, edges worth keeping, and the rates at which edges should meet."""

from gossipjax.learn._edges import ChosenEdges as ChosenEdges
from gossipjax.learn._edges import choose_edges as choose_edges
from gossipjax.learn._edges import edge_gates as edge_gates
from gossipjax.learn._fit import Fit as Fit
from gossipjax.learn._fit import fit as fit
from gossipjax.learn._outcomes import consensus_error as consensus_error
from gossipjax.learn._outcomes import final_state as final_state
from gossipjax.learn._rates import BestRates as BestRates
from gossipjax.learn._rates import RateGradient as RateGradient
from gossipjax.learn._rates import best_rates as best_rates
from gossipjax.learn._rates import rate_gradient as rate_gradient
from gossipjax.learn._weights import edge_weights as edge_weights
from gossipjax.learn._weights import positive_weights as positive_weights

__all__ = [name for name in dir() if not name.startswith("_")]
