"""Runs whose nodes are spread over the devices of a mesh: their layout, who holds which rows, and what is refused."""
