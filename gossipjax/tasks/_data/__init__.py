"""Data sets: sources, file formats, and loaders."""
