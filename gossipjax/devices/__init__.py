"""Devices of a simulated network: speed, bandwidth, latency and availability.

:func:`fitted` draws phones from laws that were fitted to measurements and needs no file; :func:`from_traces` reads
published traces; :func:`from_arrays` and :func:`read_csv` take your own numbers. All values are NumPy arrays on the
host.
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
