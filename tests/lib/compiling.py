"""Files whose slow tests take longer to compile than to run, and hold for any compilation.

``make slow`` compiles them without most of XLA's optimizations, as ``make test`` does: in half of the time or less.
Their tests that are marked as exact are compiled as users do.
"""

FILES = {
    "decentralizepy/test_configuration.py",
    "experiments/test_experiments.py",
    "learn/test_learn.py",
    "predict/test_predict.py",
    "project/test_notebooks.py",
    "project/test_pages.py",
    "protocol/test_contract.py",
    "protocol/test_dual_methods.py",
    "protocol/test_methods.py",
    "protocol/test_servers.py",
    "protocol/test_variance_reduced.py",
    "robust/test_inboxes.py",
    "robust/test_robust_sharing.py",
    "sharing/test_everywhere.py",
    "sharing/test_in_flight.py",
    "theory/test_claims.py",
}
