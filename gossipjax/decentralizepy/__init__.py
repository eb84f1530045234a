"""Read the configuration files of DecentralizePy, and make the run that they describe."""

from gossipjax.decentralizepy._configuration import Configuration as Configuration
from gossipjax.decentralizepy._configuration import read_configuration as read_configuration

__all__ = [name for name in dir() if not name.startswith("_")]
