"""The claims, a module per family. Each module lists its own in ``CLAIMS``."""
