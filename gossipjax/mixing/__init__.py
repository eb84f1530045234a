"""Mixing matrices, the four forms that apply them to stacked models, and the operations on them."""

from gossipjax.mixing._apply import messages, mix, neighbor_sum, to_dense
from gossipjax.mixing._build import describe, exchange, from_matrix, push, stack_mixings, take_mixing
from gossipjax.mixing._forms import DenseMixing, GroupMixing, PairMixing, TableMixing
from gossipjax.mixing._weights import (
    averaging,
    best_constant,
    check_weights,
    column_stochastic,
    from_edge_weights,
    is_column_stochastic,
    is_doubly_stochastic,
    is_row_stochastic,
    is_symmetric,
    lazy,
    max_degree,
    metropolis,
    uniform,
)

__all__ = [
    "DenseMixing",
    "GroupMixing",
    "PairMixing",
    "TableMixing",
    "averaging",
    "best_constant",
    "check_weights",
    "column_stochastic",
    "describe",
    "exchange",
    "from_edge_weights",
    "from_matrix",
    "is_column_stochastic",
    "is_doubly_stochastic",
    "is_row_stochastic",
    "is_symmetric",
    "lazy",
    "max_degree",
    "messages",
    "metropolis",
    "mix",
    "neighbor_sum",
    "push",
    "stack_mixings",
    "take_mixing",
    "to_dense",
    "uniform",
]
