"""Learning problems: data, a partition of them, and a loss."""
