"""Plexus, MoDeST, and the baseline with a server."""
