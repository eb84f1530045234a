"""Mixing matrices, the four forms that apply them to stacked models, and the operations on them."""

from gossipjax.mixing._apply import messages as messages
from gossipjax.mixing._apply import mix as mix
from gossipjax.mixing._apply import neighbor_sum as neighbor_sum
from gossipjax.mixing._apply import to_dense as to_dense
from gossipjax.mixing._base_graph import base_graph as base_graph
from gossipjax.mixing._build import describe as describe
from gossipjax.mixing._build import exchange as exchange
from gossipjax.mixing._build import from_matrix as from_matrix
from gossipjax.mixing._build import push as push
from gossipjax.mixing._build import stack_mixings as stack_mixings
from gossipjax.mixing._build import take_mixing as take_mixing
from gossipjax.mixing._counting import speakers as speakers
from gossipjax.mixing._equi_topo import equi_dynamic as equi_dynamic
from gossipjax.mixing._equi_topo import equi_static as equi_static
from gossipjax.mixing._fastest import fastest as fastest
from gossipjax.mixing._finite_time import finite_time as finite_time
from gossipjax.mixing._forms import DenseMixing as DenseMixing
from gossipjax.mixing._forms import GroupMixing as GroupMixing
from gossipjax.mixing._forms import PairMixing as PairMixing
from gossipjax.mixing._forms import TableMixing as TableMixing
from gossipjax.mixing._read import read_weights as read_weights
from gossipjax.mixing._stl_fw import stl_fw as stl_fw
from gossipjax.mixing._stochastic import check_weights as check_weights
from gossipjax.mixing._stochastic import is_column_stochastic as is_column_stochastic
from gossipjax.mixing._stochastic import is_doubly_stochastic as is_doubly_stochastic
from gossipjax.mixing._stochastic import is_row_stochastic as is_row_stochastic
from gossipjax.mixing._stochastic import is_symmetric as is_symmetric
from gossipjax.mixing._weights import averaging as averaging
from gossipjax.mixing._weights import best_constant as best_constant
from gossipjax.mixing._weights import column_stochastic as column_stochastic
from gossipjax.mixing._weights import from_edge_weights as from_edge_weights
from gossipjax.mixing._weights import lazy as lazy
from gossipjax.mixing._weights import max_degree as max_degree
from gossipjax.mixing._weights import metropolis as metropolis
from gossipjax.mixing._weights import uniform as uniform

__all__ = [name for name in dir() if not name.startswith("_")]
