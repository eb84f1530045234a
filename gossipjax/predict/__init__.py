"""What will happen: predictions with an interval, an origin and their assumptions, which a simulation can check.

One function for each kind of timeline that the formulas know. A bound is never given as a value without saying so, and
what no formula knows is refused, or fitted to runs (:func:`power_law`).
"""

from gossipjax.predict._forecast import Check as Check
from gossipjax.predict._forecast import Forecast as Forecast
from gossipjax.predict._forecast import Prediction as Prediction
from gossipjax.predict._meetings import meetings as meetings
from gossipjax.predict._power_law import Coverage as Coverage
from gossipjax.predict._power_law import PowerLaw as PowerLaw
from gossipjax.predict._power_law import power_law as power_law
from gossipjax.predict._pushes import pushes as pushes
from gossipjax.predict._rounds import rounds as rounds

__all__ = [name for name in dir() if not name.startswith("_")]
