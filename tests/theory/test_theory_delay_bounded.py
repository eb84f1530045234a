"""Bounded staleness: adversarial orders obey the step-size condition, exchanges their factor, plans their bound."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theory import delay as theory
from theory.check import additive


def worst_case(n: int, bound: int, step: float, steps: int, rng: np.random.Generator) -> np.ndarray:
    """Let an opponent choose, at every step, who acts and which of the others' last B updates are missing: those that
    push the model farthest out. Return the models that know all updates."""
    e, paths, seen = 1.0, [[] for _ in range(n)], []
    for _ in range(steps):
        user = int(rng.integers(n))
        suffixes = [np.cumsum([0.0, *reversed(paths[i][-bound:])]) for i in range(n) if i != user]
        ends = [e + step / n * sum(extreme(sums) for sums in suffixes) for extreme in (np.min, np.max)]
        v = max(ends, key=lambda v: abs(e - step / n * v))
        paths[user].append(v)
        e -= step / n * v
        seen.append(e)
    return np.abs(seen)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 5), st.integers(1, 4), st.floats(0.2, 0.99), st.integers(0, 10**6))
def test_no_opponent_keeps_a_step_below_the_condition_from_converging(n, bound, share, seed):
    step = share * theory.bounded_staleness_step(n, bound)
    path = worst_case(n, bound, step, 1200, np.random.default_rng(seed))
    assert path[-50:].max() < 0.5 * path[:200].max()
    assert path.max() <= 1.0 + 1e-12  # the bound of the proof at every step; rounding of a few hundred additions


def test_the_condition_allows_less_than_the_exchange_that_diverges():
    for n in (2, 3, 10, 1000):
        for bound in (1, 2, 9):
            threshold = theory.exchange_threshold(n, bound)
            assert theory.exchange_factor(threshold, n, bound) == pytest.approx(-1.0, abs=1e-9)
            assert theory.bounded_staleness_step(n, bound) < threshold
    assert theory.exchange_threshold(10**6, 8) * 8 == pytest.approx(2.0, abs=1e-4)  # 2/B, up to 1/n


def test_gated_plans_keep_their_bound_and_free_ones_exceed_it():
    for bound in (1, 3):
        plan = additive.gated_gossip(6, 2000, gossip_rate=1.0, bound=bound, seed=0)
        assert plan.staleness == bound
        assert plan.updates == (np.asarray(plan.timeline.xs["nodes"]) < 6).sum()
    assert additive.gated_gossip(6, 2000, gossip_rate=1.0, bound=None, seed=0).staleness > 5


@pytest.mark.parametrize("n", [10**9, 10**15, 10**17])
def test_exchanges_of_very_many_users_keep_their_digits(n):
    """The limits as n grows, ``1 − hB`` and 2/B, which are off by less than hB² h/n here."""
    assert theory.exchange_factor(0.3, n, 7) == pytest.approx(1 - 0.3 * 7, abs=1e-7)
    assert theory.exchange_threshold(n, 7) == pytest.approx(2 / 7, rel=1e-7)


def test_steps_of_more_than_n_change_the_sign_of_a_model_that_learns_alone():
    assert theory.exchange_factor(3.0, 2, 3) == pytest.approx(1 - 2 * (1 - (1 - 1.5) ** 3), rel=1e-12)
    assert theory.exchange_factor(2.0, 2, 3) == -1.0
