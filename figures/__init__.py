"""Figures of the paper, one script each: they read stored results and theory, never the engine."""
