"""What nodes say: builders of :class:`gossipjax.Sharing`."""

from gossipjax.mixing._counting import EVERYONE as EVERYONE
from gossipjax.sharing._choco import choco as choco
from gossipjax.sharing._compressed import compressed as compressed
from gossipjax.sharing._compressed import deep_squeeze as deep_squeeze
from gossipjax.sharing._compressed import error_feedback as error_feedback
from gossipjax.sharing._dcd import dcd as dcd
from gossipjax.sharing._decor import decor as decor
from gossipjax.sharing._ecd import ecd as ecd
from gossipjax.sharing._fragments import fragments as fragments
from gossipjax.sharing._full import full as full
from gossipjax.sharing._jwins import jwins as jwins
from gossipjax.sharing._masked import OWN_MODELS as OWN_MODELS
from gossipjax.sharing._masked import merge_masked as merge_masked
from gossipjax.sharing._moniqua import moniqua as moniqua
from gossipjax.sharing._multi_step import multi_step as multi_step
from gossipjax.sharing._noisy import noisy as noisy
from gossipjax.sharing._power_gossip import power_gossip as power_gossip
from gossipjax.sharing._random_subset import random_subset as random_subset
from gossipjax.sharing._robust import robust as robust
from gossipjax.sharing._secure import secure_aggregation as secure_aggregation
from gossipjax.sharing._sparq import sparq as sparq
from gossipjax.sharing._top_k import top_k as top_k
from gossipjax.sharing._tuning import tune_gamma as tune_gamma
from gossipjax.sharing._wire import Message as Message
from gossipjax.sharing._wire import count_speech as count_speech
from gossipjax.sharing._wire import rows_that_speak as rows_that_speak
from gossipjax.sharing._wire import start_masks as start_masks
from gossipjax.sharing._zip_dl import zip_dl as zip_dl

__all__ = [name for name in dir() if not name.startswith("_")]
