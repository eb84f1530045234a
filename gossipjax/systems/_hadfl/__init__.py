"""HADFL: heterogeneity-aware asynchronous training with partial rings, planned event by event."""
