"""Exact privacy audits of planned runs, private gradients, and attacks: who learns how much about whom."""

from gossipjax.privacy._attacks import Inverted as Inverted
from gossipjax.privacy._attacks import gradient_inversion as gradient_inversion
from gossipjax.privacy._attacks import membership_auc as membership_auc
from gossipjax.privacy._attacks import membership_tpr as membership_tpr
from gossipjax.privacy._audit import audit as audit
from gossipjax.privacy._contributions import Contributions as Contributions
from gossipjax.privacy._contributions import start_values as start_values
from gossipjax.privacy._contributions import steps as steps
from gossipjax.privacy._gaussian import auc as auc
from gossipjax.privacy._gaussian import delta as delta
from gossipjax.privacy._gaussian import epsilon as epsilon
from gossipjax.privacy._gradients import Guarantee as Guarantee
from gossipjax.privacy._gradients import guarantee as guarantee
from gossipjax.privacy._gradients import node_dp as node_dp
from gossipjax.privacy._gradients import sample_dp as sample_dp
from gossipjax.privacy._noise import PairwiseNoise as PairwiseNoise
from gossipjax.privacy._noise import pairwise_noise as pairwise_noise
from gossipjax.privacy._observers import Wire as Wire
from gossipjax.privacy._published import fresh_noise as fresh_noise
from gossipjax.privacy._published import muffliato as muffliato
from gossipjax.privacy._report import Audit as Audit
from gossipjax.privacy._shadows import LiRA as LiRA
from gossipjax.privacy._shadows import Shadows as Shadows
from gossipjax.privacy._shadows import lira as lira
from gossipjax.privacy._shadows import shadow_runs as shadow_runs

__all__ = [name for name in dir() if not name.startswith("_")]
