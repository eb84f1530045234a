"""Devices of a simulated network: speed, bandwidth, latency and availability.

:func:`fitted` draws phones from laws that were fitted to measurements and needs no file; :func:`from_powers` builds
devices of relative speeds, such as (4, 2, 2, 1); :func:`from_traces` reads published traces; :func:`from_arrays` and
:func:`read_csv` take your own numbers. All values are NumPy arrays on the host.
"""

from gossipjax.devices._availability import Availability as Availability
from gossipjax.devices._availability import Transitions as Transitions
from gossipjax.devices._availability import from_sessions as from_sessions
from gossipjax.devices._availability import share_online as share_online
from gossipjax.devices._availability import take as take
from gossipjax.devices._csv import from_arrays as from_arrays
from gossipjax.devices._csv import read_availability as read_availability
from gossipjax.devices._csv import read_csv as read_csv
from gossipjax.devices._device import Devices as Devices
from gossipjax.devices._device import online as online
from gossipjax.devices._device import subset as subset
from gossipjax.devices._device import summary as summary
from gossipjax.devices._device import training_seconds as training_seconds
from gossipjax.devices._device import transitions as transitions
from gossipjax.devices._device import with_availability as with_availability
from gossipjax.devices._files import load as load
from gossipjax.devices._files import save as save
from gossipjax.devices._generators import fitted as fitted
from gossipjax.devices._generators import from_powers as from_powers
from gossipjax.devices._generators import uniform as uniform
from gossipjax.devices._outages import outages as outages
from gossipjax.devices._sessions import charging as charging
from gossipjax.devices._sessions import strict as strict
from gossipjax.devices._traces import from_traces as from_traces

__all__ = [name for name in dir() if not name.startswith("_")]
