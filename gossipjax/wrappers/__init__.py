"""A protocol inside another: counting versions, metering what each node sends."""

from gossipjax.wrappers._meter import Meter, metered
from gossipjax.wrappers._versions import Versions, age_weighted, complete, contained, staleness, track_versions

__all__ = [
    "Meter",
    "Versions",
    "age_weighted",
    "complete",
    "contained",
    "metered",
    "staleness",
    "track_versions",
]
