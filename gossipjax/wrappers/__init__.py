"""A protocol inside another: counting versions, metering what each node sends."""

from gossipjax.wrappers._counters import Versions as Versions
from gossipjax.wrappers._counters import complete as complete
from gossipjax.wrappers._counters import contained as contained
from gossipjax.wrappers._counters import staleness as staleness
from gossipjax.wrappers._meter import Meter as Meter
from gossipjax.wrappers._meter import metered as metered
from gossipjax.wrappers._versions import age_weighted as age_weighted
from gossipjax.wrappers._versions import track_versions as track_versions

__all__ = [name for name in dir() if not name.startswith("_")]
