"""theory.opportunistic against all ways to cut updates into runs, recursions, and rules that are run by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theory import opportunistic as theory
from theory import staleness
from theory.check import one_version

# Two float64 routes to one number, a few operations each.
SAME = 1e-12
RATES = {"gossip_rate": 1.0, "update_rate": 1.0}


def least_of_runs(updates: int, messages: int) -> float:
    """Cut updates into runs in every way; return the least mean of 0, 1, …, l − 1 within the runs."""
    best = {(0, 0): 0.0}
    for _ in range(messages):
        more: dict[tuple[int, int], float] = {}
        for (done, runs), total in best.items():
            for length in range(updates - done + 1):
                at = done + length, runs + 1
                more[at] = min(more.get(at, np.inf), total + length * (length - 1) / 2)
        best = more
    return best[updates, messages] / updates


@pytest.mark.parametrize("messages", [1, 2, 3, 5, 8, 12])
def test_no_way_to_cut_the_updates_does_better(messages):
    updates = 12
    # n = 2: x = m/λ is the mean length of a run.
    found = theory.least_staleness(2, gossip_rate=messages / updates, update_rate=1.0)
    assert found == pytest.approx(least_of_runs(updates, messages), rel=SAME, abs=SAME)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 5000), st.floats(0.05, 50.0), st.floats(0.05, 50.0))
def test_bound_lies_below_every_scheme_of_the_class_and_capacity_inverts_it(n, gossip_rate, update_rate):
    rates = {"gossip_rate": gossip_rate, "update_rate": update_rate}
    x = update_rate * (n - 1) / gossip_rate
    bound = theory.least_staleness(n, **rates)
    slack = 1e-9 * (1 + x)  # rounding of x, which the bound takes the whole part of
    assert max(0.0, (x - 1) / 2) - slack <= bound <= x / 2 + slack
    assert bound <= theory.in_turn_staleness(n, **rates) + slack
    assert bound <= staleness.opportunistic_staleness(n, **rates, relay=False) + slack
    if x >= 1:
        assert bound <= theory.coin_staleness(n, **rates) + slack
        assert theory.least_capacity(n, staleness=bound, update_rate=update_rate) == pytest.approx(
            gossip_rate, rel=1e-6
        )
    needed = theory.least_capacity(n, staleness=bound + 0.3, update_rate=update_rate)
    assert theory.least_staleness(n, gossip_rate=needed, update_rate=update_rate) == pytest.approx(
        bound + 0.3, rel=1e-6
    )


def test_known_values():
    assert theory.least_staleness(9, **RATES) == pytest.approx(3.5, rel=SAME)  # runs of 8
    assert theory.least_staleness(4, gossip_rate=2.0, update_rate=1.0) == pytest.approx(1 / 3, rel=SAME)  # 1 and 2
    assert theory.least_capacity(9, staleness=0, update_rate=2.0) == pytest.approx(16.0, rel=SAME)
    np.testing.assert_allclose(theory.in_turn_staleness(np.array([4, 8]), **RATES), [2.0, 4.0], rtol=SAME)
    with pytest.raises(ValueError, match="at most m"):
        theory.coin_staleness(4, gossip_rate=3.1, update_rate=1.0)


def replay(plan, n: int) -> np.ndarray:
    """Follow the counters event by event; return the staleness of pairs, averaged over time."""
    versions, total, last = np.zeros((n, n), int), np.zeros((n, n)), 0.0
    xs = {name: np.asarray(values)[:, 0] for name, values in plan.xs.items()}
    for time, node, sender, receiver, source in zip(
        *(xs[k] for k in ("time", "nodes", "senders", "receivers", "sources")), strict=True
    ):
        total += (time - last) * (np.diag(versions)[:, None] - versions)
        last = time
        if node < n:
            versions[node, node] += 1
        elif receiver < n:
            versions[source, receiver] = max(versions[source, receiver], versions[source, sender])
    return total[~np.eye(n, dtype=bool)].reshape(n, n - 1) / last


@pytest.mark.parametrize("rule", one_version.RULES)
def test_rules_keep_the_capacity_and_obey_the_bound_on_a_long_run(rule):
    n, capacity, duration = 5, 1.5, 1500.0
    plan = one_version.plan(rule, n, duration, update_rate=1.0, capacity=capacity, seed=3)
    pushes = np.asarray(plan.xs["receivers"])[:, 0] < n
    expected = n * capacity * duration
    assert abs(pushes.sum() - expected) < 4 * np.sqrt((n - 1) * expected)  # bursts of up to n − 1
    assert (np.asarray(plan.xs["senders"]) != np.asarray(plan.xs["receivers"]))[pushes].all()
    of_sources = replay(plan, n).mean(axis=1)
    error = of_sources.std(ddof=1) / np.sqrt(n)
    assert of_sources.mean() > theory.least_staleness(n, gossip_rate=capacity, update_rate=1.0) - 4 * error


def test_rules_that_cannot_use_the_capacity_are_refused():
    for rule in ("coin", "every x-th update"):
        with pytest.raises(ValueError, match="every update to everyone"):
            one_version.plan(rule, 4, 10.0, update_rate=1.0, capacity=3.5, seed=0)
