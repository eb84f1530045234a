"""Networks for given devices: which graph reaches a stated accuracy in the fewest seconds, and is it better at all?

The score of a network is rounds to the accuracy, which are exact, in the time that the planner of
:mod:`gossipjax.systems` finds for them. :func:`network` searches for a graph, :func:`sequence` for a network that
changes from round to round; :func:`confirm` compares the result with the usual networks on devices that the search did
not see, and :func:`device_losses` without each of the devices.
"""

from gossipjax.design._confirm import Verdict as Verdict
from gossipjax.design._confirm import confirm as confirm
from gossipjax.design._confirm import judge as judge
from gossipjax.design._confirm import redrawn as redrawn
from gossipjax.design._cycles import standard_sequences as standard_sequences
from gossipjax.design._device_losses import DeviceLosses as DeviceLosses
from gossipjax.design._device_losses import device_losses as device_losses
from gossipjax.design._pace import equal_split as equal_split
from gossipjax.design._pace import seconds_per_round as seconds_per_round
from gossipjax.design._score import Score as Score
from gossipjax.design._score import score as score
from gossipjax.design._search import Design as Design
from gossipjax.design._search import network as network
from gossipjax.design._sequence import SequenceDesign as SequenceDesign
from gossipjax.design._sequence import sequence as sequence
from gossipjax.design._standard import standard_graphs as standard_graphs
from gossipjax.design._successive_halving import Halving as Halving
from gossipjax.design._successive_halving import successive_halving as successive_halving
from gossipjax.design._targets import Target as Target
from gossipjax.design._targets import consensus as consensus
from gossipjax.design._targets import quadratic as quadratic

__all__ = [name for name in dir() if not name.startswith("_")]
