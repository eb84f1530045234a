"""One module per claim: ``Config``, ``QUICK``, ``run(config) -> Dataset``, and the table of measured beside predicted."""
