"""Figures of the paper, one module each; they use stored results and theory, but not the engine."""
