"""Budgets, targets, grids and sizes of positions, as the experiments on JWINS and CHOCO-SGD take them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments import jwins_ablation, jwins_metadata, jwins_vs_choco
from experiments.lib import budgets, curves
from experiments.lib.problems import of_jwins
from gossipjax import Event
from gossipjax.compress.codes import Wire, elias_gamma, int32_indices
from gossipjax.compress.transforms import wavelet
from gossipjax.sharing import full, jwins
from gossipjax.sharing._jwins import CUT_OFFS
from theory.compression import bernoulli_gap_bits

SETTINGS = settings(max_examples=40, deadline=None)
BUDGETS = st.floats(0.02, 0.3)
KEY = jax.random.key(3)


# Budgets


def test_a_message_of_random_positions_is_as_large_as_a_simulated_one():
    rng, d, alpha = np.random.default_rng(0), 200_000, 0.07
    mask = rng.random(d) < alpha
    size = (int(jax.jit(elias_gamma)(mask)) - 128 + 32 * mask.sum()) / (32 * d)
    # The number of ones has the standard error sqrt(α (1 − α)/d) = 5.7e-4, times the size of each; that of the gaps'
    # bits, about 4 α / (32 sqrt(α d)), is 40 times smaller.
    error = np.sqrt(alpha * (1 - alpha) / d) * budgets.message_share(alpha) / alpha
    assert abs(size - budgets.message_share(alpha)) < 4 * error


@given(BUDGETS, st.floats(0.0, 0.9))
@SETTINGS
def test_lists_meet_their_budget_and_keep_their_shape(budget, whole):
    found = budgets.low_budget(budget, whole)
    # Root finding stops at 1e-12 of a scale of about one.
    assert budgets.expected_share(*found, whole=1.0) == pytest.approx(budget, abs=1e-9)
    assert sum(found.probabilities) == pytest.approx(1, abs=1e-12)
    assert found.probabilities[-1] == whole * budget
    scaled = np.array(found.shares[:-1]) / CUT_OFFS[:-1]
    np.testing.assert_allclose(scaled, scaled[0], rtol=1e-12)


@given(BUDGETS)
@SETTINGS
def test_top_k_meets_its_budget(budget):
    alpha = budgets.top_k_share(budget)
    assert alpha * (1 + bernoulli_gap_bits(alpha) / 32) == pytest.approx(budget, abs=1e-9)
    assert alpha < budget


def test_the_released_list_costs_what_its_gaps_cost_at_random_positions():
    j = np.arange(1, 40)
    gaps = {alpha: 1 + 2 * np.sum((1 - alpha) ** (2.0**j - 1)) for alpha in CUT_OFFS}
    spent = [1.0 if alpha >= 0.5 else alpha * (32 + gaps[alpha]) / 32 for alpha in CUT_OFFS]
    # Two sums of the same terms.
    assert budgets.expected_share(CUT_OFFS) == pytest.approx(np.mean(spent), rel=1e-12)


@jax.jit
def encoded_bits(said, x, event):
    """Sizes of the messages of all nodes in one round, the first after a start at 0."""
    state = said.init(jnp.zeros_like(x))
    return said.encode(KEY, state, jnp.zeros_like(x), x, event)[1][1]


def one_round(number=0):
    return Event(index=jnp.asarray([number], jnp.uint32), time=jnp.zeros(1))


def test_what_is_sent_meets_the_budget():
    n, d, budget = 400, 2000, 0.2
    x = jnp.asarray(np.random.default_rng(5).standard_normal((n, d)), jnp.float32)
    config = jwins_vs_choco.QUICK._replace(budgets=(budget,), wholes=(0.5,), gammas=(0.3,))
    schemes = jwins_vs_choco.schemes_of(config, budget)
    share = {
        name: np.asarray(encoded_bits(made[0].sharing, x, one_round())) / (32 * d) for name, made in schemes.items()
    }
    # Beside the positions, a message has a header of 128 bits and fills up its last byte; the wavelet makes ten
    # coefficients more than there are parameters, and k is rounded: within 160 bits of 64,000, and 10 of 2,000.
    beside = 160 / (32 * d) + budget * 10 / d
    found = budgets.low_budget(budget, 0.5)
    sizes = [budgets.message_share(alpha) if alpha < 1 else 1.0 for alpha in found.shares]
    error = np.sqrt((np.dot(np.square(sizes), found.probabilities) - budget**2) / n)
    assert abs(np.mean(share["JWINS"]) - budget) < 4 * error + beside
    # Gaps vary, by 2.2 bits each where 17 % are sent, of 340 a message.
    assert abs(np.mean(share["CHOCO-SGD"]) - budget) < 4 * 2.2 * np.sqrt(340 / n) / (32 * d) + beside


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: budgets.low_budget(0.0, 0.5), "budget=0.0"),
        (lambda: budgets.top_k_share(0.95), "budget=0.95"),
        (lambda: budgets.low_budget(0.2, 1.0), "whole=1.0"),
        (lambda: budgets.low_budget(0.8, 0.0), "cut-offs above 1"),
        (lambda: jwins_vs_choco.run(jwins_vs_choco.QUICK._replace(wholes=(0.0,))), "equally many"),
        (lambda: jwins_vs_choco.best_first(np.full((2, 2), -np.inf)), "diverged"),
        (lambda: jwins_ablation.run(jwins_ablation.QUICK._replace(variants=("JWINS", "magic"))), "magic"),
        (lambda: jwins_metadata.index_bits("morse", 3, 9), "morse"),
    ],
)
def test_settings_out_of_range_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


# Targets


def test_a_target_is_reached_between_two_records():
    cost, score = np.array([0.0, 10.0, 20.0, 30.0]), np.array([0.1, 0.3, 0.5, 0.4])
    assert curves.reached(0.4, cost, score) == pytest.approx(15.0, rel=1e-12)  # one division
    assert curves.reached(0.05, cost, score) == 0.0
    assert curves.reached(0.5, cost, score) == 20.0
    assert np.isnan(curves.reached(0.6, cost, score))
    assert np.isnan(curves.reached(0.2, cost, np.full(4, np.nan)))
    assert curves.at_cost(25.0, cost, score) == pytest.approx(0.45, rel=1e-12)


@given(st.integers(0, 2**32 - 1), st.floats(0.0, 0.99))
@SETTINGS
def test_every_scheme_reaches_the_target_of_all(seed, share):
    rng = np.random.default_rng(seed)
    scores = np.concatenate([np.zeros((3, 1)), np.cumsum(rng.random((3, 6)) + 0.01, axis=1)], axis=1)
    target = curves.target_of(0.0, scores[:, -1], share)
    spent = [curves.reached(target, np.arange(7.0), score) for score in scores]
    assert np.isfinite(spent).all()
    assert target == pytest.approx(share * scores[:, -1].min(), rel=1e-12)


def test_a_run_that_diverged_sets_no_target():
    assert curves.target_of(0.0, np.array([1.0, 0.8, np.nan]), 0.5) == pytest.approx(0.4, rel=1e-12)
    assert curves.target_of(3.0, np.array([1.0, 2.0, np.nan]), 0.5, higher_is_better=False) == 2.5


@pytest.mark.parametrize(
    ("ratio", "words"),
    [
        ([4.1, 4.2, 4.3], "reproduced: 4.2 ± 0.25, allowed at least 3.4"),
        ([1.9, 2.0, 2.1], "in part: a ahead, by less than 4 times"),
        ([1.0, 1.1, 1.2], "undecided: 1.1 ± 0.25, allowed above 1; less than 4 times"),
        ([0.5, 0.51, 0.52], "contradicted: 0.51 ± 0.025, allowed at least 3.4; b ahead"),
        ([1.0, 3.0, 5.0], "undecided: 3 ± 5, allowed at least 3.4"),
        ([4.2], "no verdict: 1 seed, 3 are needed"),
        ([4.2, 4.2, np.nan], "undecided: 1 of 3 seeds have no value"),
    ],
)
def test_ratios_in_words(ratio, words):
    assert budgets.ratio_in_words(np.array(ratio), 4.0, "a", "b") == words


# Grids


def test_the_best_point_is_found_and_divergence_never_is():
    score = np.array([[0.2, -np.inf], [0.7, 0.6], [-np.inf, 0.3]])
    assert jwins_vs_choco.best_first(score) == [(1, 0), (1, 1), (2, 1), (0, 0)]


def test_what_collapses_later_is_passed_over(monkeypatch):
    """The best point of the grid ends far below its best, the second diverges, the third holds."""
    curves = {0.4: [0.1, 0.9, 0.3], 0.2: [0.1, 0.9, -np.inf], 0.1: [0.1, 0.8, 0.79]}

    def compare(given, scheme, factor, config):
        return xr.Dataset({"score": (("record", "seed"), np.array(curves[factor])[:, None])})

    monkeypatch.setattr(jwins_vs_choco, "compare", compare)
    config = jwins_vs_choco.Config(rate_factors=(0.1, 0.2, 0.4))
    grid = jwins_vs_choco.Grid(np.array([[0.5, 0.6, 0.7]]), np.ones((1, 3)))
    scheme = jwins_vs_choco.Scheme("one", full())
    digits = of_jwins("digits", 8)
    rank, place, run = jwins_vs_choco._first_that_holds(digits, [scheme], grid, config)
    assert (rank, place) == (2, (0, 0))
    assert float(run.score[-1, 0]) == 0.79
    rest, fewer = grid._replace(score=grid.score[:, 1:]), config._replace(rate_factors=(0.2, 0.4))
    with pytest.raises(ValueError, match="every point of the grid of one collapses"):
        jwins_vs_choco._first_that_holds(digits, [scheme], rest, fewer)


def test_grids_are_of_one_size_and_share_what_is_compiled():
    made = jwins_vs_choco.schemes_of(jwins_vs_choco.Config(), 0.1)
    assert len(made["JWINS"]) == len(made["CHOCO-SGD"]) == 4
    for schemes in made.values():
        assert len({scheme.label for scheme in schemes}) == len(schemes)
        # What jit compares: the structure, static settings included; numbers are arguments.
        assert len({jax.tree.structure(scheme.sharing) for scheme in schemes}) == 1


# Positions


@pytest.mark.parametrize("k", [2, 30, 121])
def test_bits_of_random_positions(k):
    d, number = 300, 400
    found = jwins_metadata.simulated_bits(k, d, number, seed=4)
    error = found.std(ddof=1) / np.sqrt(number)
    # Filling up the last byte adds 0 … 7 bits: 3.5 on average where lengths are spread over more than a byte.
    low, high = (0, 7) if k == 2 else (3.5, 3.5)
    excess = found.mean() - jwins_metadata.index_bits("Elias gamma", k, d)
    assert low - 4 * error < excess < high + 4 * error
    assert jwins_metadata.index_bits("entropy bound", k, d) <= d * _entropy(k / d)
    assert jwins_metadata.index_bits("int32", k, d) == 32 * k
    assert jwins_metadata.index_bits("bitmap", k, d) == d


def _entropy(p):
    return -p * np.log2(p) - (1 - p) * np.log2(1 - p)


@pytest.mark.parametrize("number", [0, 1])
def test_values_of_drawn_cut_offs_are_those_of_the_messages(number):
    """As integers, positions take as many bits as values: what is counted as values is right, message by message."""
    d = 2000
    x = jnp.asarray(np.random.default_rng(6).standard_normal((14, d)), jnp.float32)
    draws = np.stack([np.arange(14) % 7, 6 - np.arange(14) % 7])
    bits = encoded_bits(jwins(draws=draws, wire=Wire(indices=int32_indices)), x, one_round(number))
    values = jwins_metadata.value_bits(draws, wavelet("sym2", levels=4).size(d))[number]
    whole = draws[number] == CUT_OFFS.index(1.0)
    np.testing.assert_array_equal(bits, np.where(whole, values, 2 * values))


@pytest.mark.slow
def test_positions_of_a_run_lie_between_the_fewest_bits_and_integers():
    config = jwins_metadata.QUICK._replace(num_nodes=6, num_rounds=4, record_every=1, num_masks=2)
    dataset = jwins_metadata.run(config)
    k = dataset.positions.values[:, None]
    assert (dataset.node_index_bits.values >= k - 1).all()
    assert (dataset.node_index_bits.values < 32 * k).all()
    gaps = jwins_metadata.measured_bits(dataset).values
    assert (gaps >= ((k - 1) * dataset.messages.values).sum(axis=0)).all()
    assert (gaps[1:] < (32 * k * dataset.messages.values).sum(axis=0)[1:]).all()
    assert gaps[0] == 0


def test_the_released_list_saves_nearly_nine_times_at_random():
    """Exact arithmetic: 32 Σ α / Σ α E bits."""
    alphas = np.array(jwins_metadata.partial_cut_offs())
    saved = 32 * alphas.sum() / sum(alpha * bernoulli_gap_bits(alpha) for alpha in alphas)
    assert 8.8 < saved < 8.9
