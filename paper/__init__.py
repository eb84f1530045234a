"""The project's own paper: its text, and the numbers in it, which come from committed tables."""
