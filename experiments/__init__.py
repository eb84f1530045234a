"""One module per claim: ``Config``, ``QUICK``, ``run(config) -> Dataset``, and a table with predictions."""
