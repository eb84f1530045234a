"""A plan on real processes: one per node, with messages over TCP, measured beside predicted times."""

from gossipjax.deploy._execute import execute as execute
from gossipjax.deploy._link import Link as Link
from gossipjax.deploy._report import Report as Report
from gossipjax.deploy._watch import NodeFailed as NodeFailed

__all__ = [name for name in dir() if not name.startswith("_")]
