"""One module per claim: ``Config``, ``QUICK``, ``run(config) -> Dataset``, and a table of measured beside predicted."""
