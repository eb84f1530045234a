"""Exact privacy audits of planned runs: who learns how much about whom."""

from gossipjax.privacy._audit import audit as audit
from gossipjax.privacy._contributions import Contributions as Contributions
from gossipjax.privacy._contributions import start_values as start_values
from gossipjax.privacy._contributions import steps as steps
from gossipjax.privacy._gaussian import auc as auc
from gossipjax.privacy._gaussian import delta as delta
from gossipjax.privacy._gaussian import epsilon as epsilon
from gossipjax.privacy._noise import PairwiseNoise as PairwiseNoise
from gossipjax.privacy._noise import pairwise_noise as pairwise_noise
from gossipjax.privacy._observers import Wire as Wire
from gossipjax.privacy._published import fresh_noise as fresh_noise
from gossipjax.privacy._published import muffliato as muffliato
from gossipjax.privacy._report import Audit as Audit

__all__ = [name for name in dir() if not name.startswith("_")]
