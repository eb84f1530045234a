"""The experiment on asynchrony: equal budgets of gradients, and seeds that never arrive."""

import numpy as np
import pytest

from experiments import when_is_asynchrony_worth_it as worth

CONFIG = worth.QUICK._replace(num_nodes=4, gradients=64)


@pytest.mark.parametrize("latency", [0.0, 1.0])
@pytest.mark.parametrize("method", worth.METHODS)
def test_all_methods_may_use_equally_many_gradients(method, latency):
    for seed in range(2):
        planned = worth.plan_of(method, CONFIG, worth.Cell("exponential", "1", latency), 0.25, seed)
        if method == "D-PSGD":
            assert len(planned.plan) * CONFIG.num_nodes == CONFIG.gradients
        else:
            acting = np.asarray(planned.plan.xs["nodes"]).ravel() < CONFIG.num_nodes
            assert acting.sum() == CONFIG.gradients
            assert acting[-1]  # the last gradient ends the plan
        assert len(planned.ends) == len(planned.plan)


def test_a_row_counts_the_seeds_that_are_not_in_its_mean():
    row = worth._row("ratio", np.array([0.0, np.log(3.0), np.inf, np.nan, -np.inf, np.inf]), None)
    assert row.measured == pytest.approx(2.0, rel=1e-12)
    assert "4 of 6 seeds" in row.source
    assert "2 without the first method, 1 without the second, 1 without both" in row.source
    assert worth._row("ratio", np.log([1.0, 3.0]), None).source == "measured"
    assert np.isnan(worth._row("ratio", np.full(3, np.inf), None).measured)
