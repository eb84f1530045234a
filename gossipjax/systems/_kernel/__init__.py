"""What the simulated systems share: time, machines, bandwidth."""
