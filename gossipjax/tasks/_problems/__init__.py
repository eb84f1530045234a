"""Learning problems: data, a partition of the data, and a loss."""
