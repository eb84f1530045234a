"""What nodes say: builders of :class:`gossipjax.Sharing`."""

from gossipjax.sharing._choco import choco
from gossipjax.sharing._compressed import compressed, deep_squeeze, error_feedback
from gossipjax.sharing._dcd import dcd
from gossipjax.sharing._ecd import ecd
from gossipjax.sharing._fragments import fragments
from gossipjax.sharing._full import full
from gossipjax.sharing._jwins import jwins
from gossipjax.sharing._moniqua import moniqua
from gossipjax.sharing._power_gossip import power_gossip
from gossipjax.sharing._random_subset import random_subset
from gossipjax.sharing._sparq import sparq
from gossipjax.sharing._top_k import top_k
from gossipjax.sharing._tuning import tune_gamma

__all__ = [
    "choco",
    "compressed",
    "dcd",
    "deep_squeeze",
    "ecd",
    "error_feedback",
    "fragments",
    "full",
    "jwins",
    "moniqua",
    "power_gossip",
    "random_subset",
    "sparq",
    "top_k",
    "tune_gamma",
]
