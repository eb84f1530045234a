"""Robust rules and attacks: what honest nodes do with models that may be lies, and what liars send."""

from gossipjax.robust._attacks import Attack as Attack
from gossipjax.robust._attacks import Unreached as Unreached
from gossipjax.robust._attacks import Victim as Victim
from gossipjax.robust._attacks import alie as alie
from gossipjax.robust._attacks import alie_z as alie_z
from gossipjax.robust._attacks import dissensus as dissensus
from gossipjax.robust._attacks import echo as echo
from gossipjax.robust._attacks import gaussian as gaussian
from gossipjax.robust._attacks import ipm as ipm
from gossipjax.robust._attacks import isolation as isolation
from gossipjax.robust._attacks import sign_flip as sign_flip
from gossipjax.robust._attacks import spectral as spectral
from gossipjax.robust._attacks import targeted_echo as targeted_echo
from gossipjax.robust._clipping import clipped_gossip as clipped_gossip
from gossipjax.robust._clipping import cs_plus as cs_plus
from gossipjax.robust._clipping import gts as gts
from gossipjax.robust._coordinatewise import coordinate_median as coordinate_median
from gossipjax.robust._coordinatewise import trimmed_mean as trimmed_mean
from gossipjax.robust._filters import faba as faba
from gossipjax.robust._filters import ios as ios
from gossipjax.robust._geometric import geometric_median as geometric_median
from gossipjax.robust._krum import krum as krum
from gossipjax.robust._labels import flip_labels as flip_labels
from gossipjax.robust._lanes import Context as Context
from gossipjax.robust._lanes import Rule as Rule
from gossipjax.robust._nearest import nna as nna
from gossipjax.robust._nearest import nnm as nnm
from gossipjax.robust._rpel import rpel as rpel
from gossipjax.robust._rpel import rpel_b as rpel_b
from gossipjax.robust._search import strongest as strongest
from gossipjax.robust._ubar import ubar as ubar

__all__ = [name for name in dir() if not name.startswith("_")]
