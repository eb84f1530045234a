"""Fitted predictions: exponents that are known, intervals whose coverage is known, and new runs of the engine."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial
from scipy import stats

import gossipjax as gj
from gossipjax import devices, mixing, observe, predict, systems, topology
from theory import spectral

TIMES = {"outcome": np.exp(np.arange(30) / 30), "settings": {"n": np.arange(1.0, 31)}, "seed": 0}


def lognormal(rng, size, spread=0.4, bend=0.0):
    """Log-normal seconds with a power of n, and a bend that no power law has; and the mean of their logarithms."""
    n = np.exp(rng.uniform(np.log(8), np.log(64), size))
    center = 1 + 0.7 * np.log(n) + bend * np.log(n / 22) ** 2
    return n, np.exp(center + spread * rng.normal(size=size)), center


# --- the law ----------------------------------------------------------------------------------------------------------


def test_exponents_are_those_of_a_power_law_without_noise():
    rng = np.random.default_rng(0)
    n, alpha = np.exp(rng.normal(size=(2, 60)))
    law = predict.power_law({"n": n, "alpha": alpha}, 5 * n**1.5 / alpha**0.25, ridge=0.0, num_calibrated=20, seed=0)
    assert law.constant == pytest.approx(5, rel=1e-9)  # least squares of forty exact equations
    assert law.exponents == pytest.approx({"n": 1.5, "alpha": -0.25}, rel=1e-9)
    assert law.factor == pytest.approx(1, abs=1e-9)
    assert (law.num_fitted, law.num_calibrated, law.reached_share) == (40, 20, 1.0)


@pytest.mark.parametrize("ridge", [0.0, 1e-3, 0.3])
def test_the_fit_minimizes_what_it_says(ridge):
    """Against the normal equations of the standardized problem with an explicit column of ones."""
    rng = np.random.default_rng(1)
    z, y = np.exp(rng.normal(size=(50, 3))), np.exp(rng.normal(size=50))
    law = predict.power_law(dict(zip("abc", z.T, strict=True)), y, ridge=ridge, num_calibrated=20, seed=3)
    fitted = np.random.default_rng(3).permutation(50)[20:]
    Z, spread = np.log(z[fitted]), np.log(z[fitted]).std(0)
    design = np.column_stack([np.ones(30), Z])
    penalty = 30 * ridge * np.diag(np.append(0, spread**2))
    expected = np.linalg.solve(design.T @ design + penalty, design.T @ np.log(y[fitted]))
    assert [math.log(law.constant), *law.exponents.values()] == pytest.approx(expected, rel=1e-9)


def test_the_interval_is_the_ranked_error_of_the_other_runs():
    n, y, _ = lognormal(np.random.default_rng(2), 150)
    law = predict.power_law({"n": n}, y, num_calibrated=100, seed=0)
    held = np.random.default_rng(0).permutation(150)[:100]
    errors = np.abs(np.log(y[held]) - math.log(law.constant) - law.exponents["n"] * np.log(n[held]))
    assert law.factor == pytest.approx(math.exp(np.sort(errors)[90]), rel=1e-12)  # the 91st of 100
    found = law.predict({"n": 16.0})
    ends = found.value / law.factor, found.value * law.factor
    assert (found.low, found.high) == pytest.approx(ends, rel=1e-14)  # rounding of a product
    assert found.value == pytest.approx(law.constant * 16 ** law.exponents["n"], rel=1e-12)
    assert found.origin == "fitted"


@pytest.mark.parametrize("bend", [0.0, 2.0])
def test_mean_coverage_of_synthetic_times(bend):
    """91/101, whether the law is true or not; the share of one calibration is Beta(91, 10), so 1,000 have ± .0009."""
    rng, shares = np.random.default_rng(0), []
    for repeat in range(1000):
        n, y, _ = lognormal(rng, 160, bend=bend)
        law = predict.power_law({"n": n}, y, num_calibrated=100, seed=repeat)
        new, _, center = lognormal(rng, 400, bend=bend)
        off = math.log(law.constant) + law.exponents["n"] * np.log(new) - center
        ends = (off[:, None] + math.log(law.factor) * np.array([-1, 1])) / 0.4
        shares.append(np.diff(stats.norm.cdf(ends), axis=1).mean())
    assert abs(np.mean(shares) - 91 / 101) < 0.004
    beta = stats.beta(91, 10)
    # The variance of a variance estimate of nearly normal numbers; and the share of 400 n adds little to it.
    assert np.std(shares) == pytest.approx(beta.std(), rel=4 / math.sqrt(2 * 1000) + 0.1)


@pytest.mark.parametrize(("m", "ends"), [(100, (158, 195)), (200, (163, 193)), (500, (166, 191))])
def test_the_accepted_counts_are_beta_binomial(m, ends):
    rng = np.random.default_rng(0)
    n, y, _ = lognormal(rng, m + 60)
    law = predict.power_law({"n": n}, y, num_calibrated=m, seed=0)
    new = n[np.arange(200) % len(n)]
    found = law.test({"n": new}, np.exp(math.log(law.constant) + law.exponents["n"] * np.log(new)))
    assert (found.least, found.most) == ends
    assert found.covered == found.total == 200
    assert not found.accepted  # too wide is wrong, too


def test_groups_that_are_covered_too_seldom_fail():
    n, y, _ = lognormal(np.random.default_rng(0), 300)
    law = predict.power_law({"n": n}, y, num_calibrated=100, seed=0)
    at = np.full(200, 20.0)
    right = law.predict({"n": 20.0}).value
    outcome = np.where(np.arange(200) < 185, right, 9 * law.factor * right)
    assert law.test({"n": at}, outcome).accepted
    groups = np.where(np.arange(200) >= 160, "new", "old")
    found = law.test({"n": at}, outcome, groups=groups)
    least = {total: int(stats.betabinom(total, 91, 10).ppf(0.01 / 2)) for total in (40, 160)}
    assert found.groups == {"new": (25, 40, least[40]), "old": (160, 160, least[160])}
    assert least[40] > 25
    assert not found.accepted
    assert law.test({"n": at}, outcome, groups=np.full(200, 3)).accepted


@pytest.mark.parametrize("coverage", [0.5, 0.8])
@pytest.mark.parametrize(("labels", "promised"), [(None, 0.99), (np.arange(300) % 5, 0.98)])
def test_right_laws_are_accepted_as_often_as_promised(coverage, labels, promised):
    """Of 1,000 laws with 300 new runs each; four standard errors below. Outcomes without ties, so not too often."""
    rng, repeats = np.random.default_rng(0), 1000
    accepted = 0
    for repeat in range(repeats):
        n = rng.choice([8.0, 16.0, 32.0, 64.0], 460)
        y = n**0.7 * np.exp(0.4 * rng.normal(size=460))
        law = predict.power_law({"n": n[:160]}, y[:160], coverage=coverage, num_calibrated=100, seed=repeat)
        accepted += law.test({"n": n[160:]}, y[160:], groups=labels).accepted
    error = math.sqrt(promised * (1 - promised) / repeats)
    assert promised - 4 * error < accepted / repeats


def test_runs_that_never_get_there():
    """The law is that of the others, and their share is a logistic curve."""
    rng = np.random.default_rng(0)
    n, y, _ = lognormal(rng, 4000)
    never = rng.random(4000) < 1 / (1 + (20 / n) ** 2)  # the logarithm of the odds is 2 ln(20/n)
    law = predict.power_law({"n": n}, np.where(never, np.inf, y), ridge=0.0, seed=0)
    assert law.reached_share == np.mean(~never)
    assert law.exponents["n"] == pytest.approx(0.7, abs=4 * 0.4 / math.sqrt(900) / 0.5)  # σ/√m over the spread of ln n
    for each in (9.0, 20.0, 60.0):
        assert law.probability({"n": each}) == pytest.approx(1 / (1 + (each / 20) ** 2), abs=0.08)
    assert "if it gets there at all, which has probability" in law.predict({"n": 60.0}).assumptions
    with_new = law.test({"n": n[:300]}, np.where(never, np.inf, y)[:300])
    assert with_new.total == np.sum(~never[:300])


def test_runs_that_a_setting_separates_have_a_finite_fit():
    n = np.linspace(1, 50, 50)
    law = predict.power_law({"n": n}, np.where(n > 30, np.inf, n), num_calibrated=20, seed=0)
    assert 0 <= law.probability({"n": 50.0}) < 0.1 < 0.9 < law.probability({"n": 5.0}) <= 1


def test_a_median_is_beaten_or_the_summary_says_so():
    rng = np.random.default_rng(0)
    n, y, _ = lognormal(rng, 400)
    law = predict.power_law({"n": n}, y, seed=0)
    assert law.factor < law.trivial_factor
    assert "the median of the runs alone" in law.summary()
    blind = predict.power_law({"other": np.exp(rng.normal(size=400)), "n": np.repeat([1.0, 2.0], 200)}, y, seed=0)
    assert blind.factor == pytest.approx(blind.trivial_factor, rel=0.05)
    two = np.repeat([1.0, 9.0], 200)
    by_kind = predict.power_law(
        {"kind": two}, two**2 * np.exp(0.1 * rng.normal(size=400)), baseline_groups="kind", seed=0
    )
    assert by_kind.trivial_factor == pytest.approx(by_kind.factor, rel=0.1)  # a median of each kind knows as much
    assert "no better than the median" in dataclasses.replace(by_kind, trivial_factor=1.0).summary()


def test_a_run_beside_the_prediction():
    law = predict.power_law(TIMES["settings"], TIMES["outcome"], run=lambda given, seed: given["n"] + seed, seed=0)
    found = law.predict({"n": 3.0}, check=True, seed=100)
    assert found.check.measured == 103
    assert not found.agrees
    assert "simulated 103" in str(found)
    never = predict.power_law(TIMES["settings"], TIMES["outcome"], run=lambda given, seed: math.inf, seed=0)
    assert not never.predict({"n": 3.0}, check=True).agrees


def test_seconds_of_training_are_planned():
    """Between plans of the rounds at both ends, rounded up; bytes are in proportion."""
    law = predict.power_law(TIMES["settings"], 10 * TIMES["outcome"], seed=0)
    rounds, phones, ring = law.predict({"n": 9.0}), devices.fitted(9, seed=0), topology.ring(9)
    load = {"model_bytes": 340_000, "local_steps": 5}
    found = predict.rounds(ring, 3, training=rounds, devices=phones, **load)
    assert found["rounds_of_training"].value == rounds.value
    assert found["bytes_of_training"].high == math.ceil(rounds.high) * 18 * 340_000
    assert rounds.high % 1  # rounded up, as the rounds that are planned
    for end in ("value", "low", "high"):
        count = math.ceil(getattr(rounds, end))
        assert count <= 32
        plan = systems.synchronous(phones, ring, count, round_seconds=None, **load)
        assert getattr(found["seconds_of_training"], end) == plan.end_s
    assert found["seconds_of_training"].origin == "fitted"
    assert "seconds_of_training" not in {each.name for each in predict.rounds(ring, 3, training=rounds).predictions}
    with pytest.raises(ValueError, match=r"training=.*must be a prediction in rounds"):
        predict.rounds(ring, 3, training=predict.rounds(ring, 3)["mean_staleness"])
    with pytest.raises(TypeError, match="training"):
        predict.rounds(ring, 3, training=12.0)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"outcome": np.ones(29)}, r"settings\['n'\] of shape \(30,\)"),
        ({"outcome": np.zeros(30)}, r"outcome\[0\]=0:"),
        ({"settings": {"n": np.arange(30)}}, r"settings\['n'\]\[0\]=0"),
        ({"num_calibrated": 8}, "8 runs that got there are left for the interval, and coverage=0.9 takes 9"),
        ({"num_calibrated": 29}, "1 runs that got there are left for the fit of 1 exponents, which takes 3"),
        ({"num_calibrated": 30}, "num_calibrated=30"),
        ({"coverage": 0.99}, "coverage=0.99 takes 99"),
        ({"coverage": 1.0}, "coverage=1.0"),
        ({"baseline_groups": "m"}, "baseline_groups='m': must be a setting, one of n"),
        ({"outcome": np.full(30, np.inf)}, "0 runs that got there"),
    ],
)
def test_runs_that_make_no_law_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        predict.power_law(**(TIMES | settings))


def test_what_the_runs_do_not_know_is_refused():
    law = predict.power_law(**TIMES)
    with pytest.raises(ValueError, match="n=31: the runs of this law have 1 to 30, and it says nothing outside"):
        law.predict({"n": 31.0})
    with pytest.raises(ValueError, match=r"settings=\['m'\]: the law has n"):
        law.predict({"m": 3.0})
    with pytest.raises(ValueError, match="check=True: the law was made from numbers alone"):
        law.predict({"n": 3.0}, check=True)
    with pytest.raises(ValueError, match="n=40: the runs"):
        law.test({"n": np.array([3.0, 40.0])}, np.ones(2))
    with pytest.raises(TypeError, match="settings=3"):
        law.predict(3)
    with pytest.raises(TypeError, match="settings="):
        predict.power_law({}, np.ones(3), seed=0)


# --- against the engine -----------------------------------------------------------------------------------------------

SIZES = (8, 12)
ROUNDS = 60


def query(rng):
    """Draw a network, targets and a step size; random trees are slow, dense regular graphs fast."""
    n, seed = int(rng.choice(SIZES)), int(rng.integers(2**31))
    if rng.random() < 0.3:
        graph = topology.random_tree(n, seed=seed)
    else:
        graph = topology.random_regular(n, int(rng.integers(3, 6)), seed=seed, tries=100)
    step, spread = np.exp(rng.uniform(np.log([0.05, 0.2]), np.log([0.3, 0.8])))
    relaxation = 1 / (1 - spectral.contraction_factor(mixing.metropolis(graph).toarray()))
    return graph, {"n": float(n), "step": step, "spread": spread, "relaxation": relaxation}, seed


def rounds_of_training(graph, given, seed):
    """D-PSGD on noisy quadratics: the first round in which the mean squared distance to the optimum is at most 0.25."""
    n, rng = graph.num_nodes, np.random.default_rng(seed)
    targets = given["spread"] * rng.normal(size=(n, 4))
    task = gj.tasks.quadratic(targets - targets.mean(0), noise_std=0.5)
    protocol = gj.dpsgd(task, Partial(optax.sgd, given["step"]))
    plan = gj.timeline.rounds(mixing.metropolis(graph), ROUNDS, form="dense")
    watch, x0 = [observe.distance_to(jnp.zeros(4))], jnp.full((n, 4), 2.0)
    run = gj.simulate(jax.random.key(seed), protocol, plan, x0, observers=watch, record_every=1, progress=False)
    reached = np.flatnonzero(np.asarray(run["squared_error"]) <= 0.25)
    return float(reached[0]) if reached.size else math.inf


@pytest.mark.slow
def test_intervals_hold_two_hundred_new_runs():
    """A law of 240 runs of the engine, on 200 more; each has its own graph, targets, step size and noise."""
    rng = np.random.default_rng(0)
    drawn = [query(rng) for _ in range(460)]
    rounds = np.array([rounds_of_training(*each) for each in drawn])
    table = {name: np.array([given[name] for _, given, _ in drawn]) for name in drawn[0][1]}
    first = {name: column[:240] for name, column in table.items()}
    law = predict.power_law(first, rounds[:240], num_calibrated=100, seed=0)
    inside = (np.arange(460) >= 240) & np.isfinite(rounds)  # the interval is that of runs which get there
    for name, (low, high) in law.ranges.items():
        inside &= (table[name] >= low) & (table[name] <= high)
    taken = np.flatnonzero(inside)[:200]
    new = {name: column[taken] for name, column in table.items()}
    found = law.test(new, rounds[taken], groups=new["n"])
    assert found.total == 200
    assert found.accepted, (found, law.summary())
    assert law.factor < 2
    assert law.factor < law.trivial_factor, law.summary()


def test_settings_of_a_narrow_range_have_laws_beyond_the_range_of_numbers():
    """y = e^(±3 (z − 1000)) for z about 1000 is nearly z^(±3000), whose constant is e^(∓20,700)."""
    z = np.linspace(1001.0, 1010.0, 40)
    for sign in (1, -1):
        y = np.exp(sign * 3 * (z - 1000))
        law = predict.power_law({"z": z}, y, ridge=0.0, seed=0)
        assert law.constant == (0.0 if sign > 0 else np.inf)
        found = law.predict({"z": 1005.0})
        assert found.low <= np.exp(sign * 15.0) <= found.high
        assert law.test({"z": z}, y).total == 40
        assert "z^" in law.summary()


def test_labels_and_baselines_are_checked():
    n = np.linspace(8, 64, 40)
    law = predict.power_law({"n": n}, 5 * n**0.5, seed=0)
    for labels in ([None] * 40, [np.nan] * 40, np.array(["a", *range(39)], object)):
        with pytest.raises(ValueError, match="groups"):
            law.test({"n": n}, 5 * n**0.5, groups=labels)
    with pytest.raises(ValueError, match="baseline_groups"):
        predict.power_law({"n": n}, 5 * n**0.5, baseline_groups="m", seed=0)
