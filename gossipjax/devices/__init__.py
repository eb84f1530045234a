"""What the machines of a simulated network can do: speed, bandwidth, latency and when they are online.

:func:`fitted` draws alike to measured phones without any file; :func:`from_traces` reads published traces;
:func:`from_arrays` and :func:`read_csv` take one's own. All live on the host, in NumPy.
"""

from gossipjax.devices._availability import Availability, Transitions, from_sessions, share_online, take
from gossipjax.devices._csv import from_arrays, read_availability, read_csv
from gossipjax.devices._device import Devices, online, subset, summary, training_seconds, transitions, with_availability
from gossipjax.devices._files import load, save
from gossipjax.devices._generators import fitted, uniform
from gossipjax.devices._sessions import charging, strict
from gossipjax.devices._traces import from_traces

__all__ = [
    "Availability",
    "Devices",
    "Transitions",
    "charging",
    "fitted",
    "from_arrays",
    "from_sessions",
    "from_traces",
    "load",
    "online",
    "read_availability",
    "read_csv",
    "save",
    "share_online",
    "strict",
    "subset",
    "summary",
    "take",
    "training_seconds",
    "transitions",
    "uniform",
    "with_availability",
]
