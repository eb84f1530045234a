"""Runs whose nodes are spread over the devices of a mesh: their layout, what they exchange, and what is refused."""
