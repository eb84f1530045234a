"""theory.scaling: fits against NumPy's and SciPy's, coverage and selection by replicas, exact laws, the picture."""

from __future__ import annotations

import inspect
import math

import numpy as np
import pytest
import scipy.integrate
import scipy.optimize
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from theory import scaling as theory

SETTINGS = settings(max_examples=25, deadline=None)
N = np.array([16, 32, 64, 128, 256, 512, 1024, 4096])
ERROR = np.linspace(0.02, 0.06, len(N))
REPLICAS = 300

TRUTH = {
    "saturating": lambda n: 2.0 + 3.0 / np.log(n),
    "constant": lambda n: 3.0 + 0.0 * n,
    "logarithm": lambda n: 1.0 + 0.7 * np.log(n),
    "power": lambda n: 0.8 * n**0.33,
    "offset_power": lambda n: 2.0 + 0.5 * (n**0.4 - 1) / 0.4,
}
PARAMETERS = {
    "saturating": (2.0, 3.0),
    "constant": (3.0,),
    "logarithm": (1.0, 0.7),
    "power": (0.8, 0.33),
    "offset_power": (2.0, 0.5, 0.4),
}
LAWS = list(TRUTH)


def noisy(law: str, seed: int, error: np.ndarray = ERROR) -> np.ndarray:
    return TRUTH[law](N) + error * np.random.default_rng(seed).standard_normal(len(N))


def predicted_coverage(free: int) -> float:
    """Coverage of ±1.96 max(1, √(χ²/free)) where the law is true: χ² is independent of the parameters' errors."""

    def inside(chi2):
        half = 1.959963984540054 * max(1.0, math.sqrt(chi2 / free))
        return (2 * scipy.stats.norm.cdf(half) - 1) * scipy.stats.chi2.pdf(chi2, free)

    return scipy.integrate.quad(inside, 0, free)[0] + scipy.integrate.quad(inside, free, np.inf)[0]


# One law


@pytest.mark.parametrize("law", LAWS)
def test_exact_values_give_their_law_back(law):
    found = theory.fit(N, TRUTH[law](N), ERROR, law)
    # χ² is zero at the minimum: its rounding leaves about 1e-8 of each parameter.
    assert found.parameters == pytest.approx(PARAMETERS[law], rel=1e-6)
    assert found.chi2 < 1e-10


def test_constant_is_the_weighted_mean():
    value, weights = noisy("constant", 0), ERROR**-2
    found = theory.fit(N, value, ERROR, "constant")
    assert found.parameters[0] == pytest.approx(np.average(value, weights=weights), rel=1e-12)
    assert found.covariance[0, 0] == pytest.approx(1 / weights.sum(), rel=1e-12)


def test_logarithm_agrees_with_polyfit():
    value = noisy("logarithm", 1)
    found = theory.fit(N, value, ERROR, "logarithm")
    line, covariance = np.polyfit(np.log(N), value, 1, w=1 / ERROR, cov="unscaled")
    assert found.parameters[::-1] == pytest.approx(line, rel=1e-10)
    assert found.covariance[::-1, ::-1] == pytest.approx(covariance, rel=1e-9)
    assert found.slope == found.parameters[1]
    assert math.isnan(found.exponent)


@pytest.mark.parametrize("law", ["power", "offset_power"])
def test_laws_with_exponent_agree_with_curve_fit(law):
    value = noisy(law, 2)

    def model(n, *p):
        return p[0] * n ** p[1] if law == "power" else p[0] + p[1] * (n ** p[2] - 1) / p[2]

    found = theory.fit(N, value, ERROR, law)
    p, covariance = scipy.optimize.curve_fit(
        model, N, value, p0=PARAMETERS[law], sigma=ERROR, absolute_sigma=True, ftol=1e-13, xtol=1e-13
    )
    # The other program differentiates numerically and stops at 1e-8 or so.
    assert found.parameters == pytest.approx(p, rel=1e-5)
    assert found.covariance == pytest.approx(covariance, rel=1e-3)
    assert found.exponent == found.parameters[-1]
    assert math.isnan(found.slope)
    half = 1.959963984540054 * np.sqrt(np.diag(found.covariance) * max(1.0, found.reduced_chi2))
    assert found.intervals == pytest.approx(np.stack([found.parameters - half, found.parameters + half], 1), rel=1e-12)


@pytest.mark.parametrize("law", LAWS)
def test_minimum_is_a_minimum(law):
    value = noisy("power", 3, 5 * ERROR)
    found = theory.fit(N, value, ERROR, law)
    rng = np.random.default_rng(0)
    for scale in (1e-1, 1e-3):
        for direction in rng.standard_normal((40, len(found.names))):
            moved = found._replace(parameters=found.parameters * (1 + scale * direction))
            values, _ = theory.predict(moved, N)
            # Rounding of χ² of about 100.
            assert np.sum(((value - values) / ERROR) ** 2) >= found.chi2 - 1e-9


def test_criteria_by_hand():
    found = theory.fit(N, noisy("power", 4), ERROR, "power")
    assert found.degrees_of_freedom == 6
    assert found.reduced_chi2 == pytest.approx(found.chi2 / 6, rel=1e-12)
    # Eight points, two parameters.
    assert found.aic - found.chi2 == pytest.approx(4, rel=1e-9)
    assert found.aicc - found.aic == pytest.approx(12 / 5, rel=1e-9)
    assert found.bic - found.chi2 == pytest.approx(2 * math.log(8), rel=1e-9)
    assert theory.fit(N[:3], noisy("power", 4)[:3], ERROR[:3], "power").aicc == math.inf


def test_offset_power_holds_the_logarithm_and_the_power():
    found = theory.fit(N, TRUTH["logarithm"](N), ERROR, "offset_power")
    assert found.parameters == pytest.approx([1.0, 0.7, 0.0], abs=1e-6)
    found = theory.fit(N, TRUTH["power"](N), ERROR, "offset_power")
    # 0.8 n^c = 0.8 + 0.8 c (n^c − 1)/c
    assert found.parameters == pytest.approx([0.8, 0.8 * 0.33, 0.33], rel=1e-6)


@pytest.mark.parametrize("exponent", [-0.7, -1e-4, 0.0, 1e-6, 9e-5, 2e-4, 1.3])
def test_offset_power_and_its_slope_are_smooth_through_exponent_zero(exponent):
    found = theory.fit(N, TRUTH["logarithm"](N), ERROR, "offset_power")
    at = np.array([3.0, 50.0, 5000.0])
    unit = found._replace(parameters=np.array([0.0, 1.0, exponent]), covariance=np.diag([0.0, 0.0, 1.0]))
    values, half = theory.predict(unit._replace(reduced_chi2=0.0), at)
    # (n^c − 1)/c = ∫ e^{cs} ds up to ln n, and its derivative by c is the same with a factor s; quad meets 1e-10.
    areas = [scipy.integrate.quad(lambda s: math.exp(exponent * s), 0, math.log(n))[0] for n in at]
    slopes = [scipy.integrate.quad(lambda s: s * math.exp(exponent * s), 0, math.log(n))[0] for n in at]
    assert values == pytest.approx(areas, rel=1e-10)
    assert half / 1.959963984540054 == pytest.approx(slopes, rel=1e-10)


@pytest.mark.parametrize("exponent", [-2.0, -0.5, 1.0, 3.0])
def test_powers_of_any_sign_are_found(exponent):
    value = -5.0 * N.astype(float) ** exponent
    found = theory.fit(N, value, 1e-3 * np.abs(value), "power")
    assert found.parameters == pytest.approx([-5.0, exponent], rel=1e-7)


def test_errors_too_small_widen_the_intervals_and_errors_too_large_narrow_nothing():
    value = noisy("logarithm", 5)
    fair, small, large = (theory.fit(N, value, scale * ERROR, "logarithm") for scale in (1.0, 1e-3, 1e3))
    width = np.diff(fair.intervals, axis=1)
    # Widened by the scatter about the law, whatever the errors say.
    scatter = math.sqrt(fair.reduced_chi2)
    expected = np.diff(small.intervals, axis=1) * max(1.0, scatter) / scatter
    assert width == pytest.approx(expected, rel=1e-9)
    assert np.diff(large.intervals, axis=1) == pytest.approx(1e3 * width / max(1.0, scatter), rel=1e-9)


def test_undetermined_exponent_has_infinite_intervals():
    found = theory.fit(N, np.zeros(len(N)), ERROR, "power")
    assert np.isinf(found.intervals).all()
    assert np.isinf(theory.predict(found, N)[1]).all()


@pytest.mark.parametrize("law", LAWS)
def test_intervals_band_and_chi2_are_as_predicted_over_replicas(law):
    truth, at = np.asarray(PARAMETERS[law]), np.array([2000.0])
    free = len(N) - len(truth)
    covered, chi2 = np.zeros(len(truth) + 1), np.empty(REPLICAS)
    for k in range(REPLICAS):
        found = theory.fit(N, noisy(law, 100 + k), ERROR, law)
        value, half = theory.predict(found, at)
        covered[:-1] += (found.intervals[:, 0] <= truth) & (truth <= found.intervals[:, 1])
        covered[-1] += abs(value[0] - TRUTH[law](at)[0]) <= half[0]
        chi2[k] = found.chi2
    predicted = predicted_coverage(free)
    assert predicted > 0.95
    assert np.abs(covered / REPLICAS - predicted).max() < 4 * math.sqrt(predicted * (1 - predicted) / REPLICAS)
    # χ² has its degrees of freedom as mean and twice that as variance.
    assert abs(chi2.mean() - free) < 4 * math.sqrt(2 * free / REPLICAS)


@given(law=st.sampled_from(LAWS), scale=st.floats(1e-3, 1e3), seed=st.integers(0, 1000))
@SETTINGS
def test_units_and_order_of_points_do_not_matter(law, scale, seed):
    value = noisy(law, seed)
    found = theory.fit(N, value, ERROR, law)
    order = np.random.default_rng(seed).permutation(len(N))
    other = theory.fit(N[order], scale * value[order], scale * ERROR[order], law)
    # Two descents to one minimum, each to about 1e-8 of the parameters.
    assert other.chi2 == pytest.approx(found.chi2, rel=1e-7, abs=1e-9)
    factors = np.full(len(found.names), scale)
    if "exponent" in found.names:
        factors[-1] = 1.0
    assert other.parameters == pytest.approx(factors * found.parameters, rel=1e-4, abs=1e-6 * scale)


@given(
    value=hnp.arrays(np.float64, 8, elements=st.floats(-1e3, 1e3, allow_subnormal=False)),
    error=st.floats(1e-3, 1e3),
    largest=st.integers(10, 10**9),
)
@SETTINGS
def test_any_values_are_fitted_and_larger_laws_fit_no_worse(value, error, largest):
    n = np.round(np.geomspace(2, largest, 8)) + np.arange(8)
    chi2 = {law: theory.fit(n, value, np.full(8, error), law).chi2 for law in LAWS}
    assert np.isfinite(list(chi2.values())).all()
    for larger, smaller in [("logarithm", "constant"), ("power", "constant"), ("offset_power", "logarithm")]:
        # Relative: χ² reaches 1e13 here.
        assert chi2[larger] <= chi2[smaller] * (1 + 1e-9) + 1e-9


# Comparison


@pytest.mark.parametrize("law", ["constant", "logarithm", "power"])
def test_selection_finds_the_truth(law):
    # A wrong law of as many parameters lies dozens of χ² away. Against the constant, one more parameter wins if its χ²
    # of one degree of freedom exceeds 2; two such laws at most double the chance.
    tries = 60
    right = sum(theory.compare(N, noisy(law, 2000 + k), ERROR).best == law for k in range(tries))
    wrong = 2 * scipy.stats.chi2.sf(2, 1) if law == "constant" else 0.0
    assert right >= tries * (1 - wrong) - 4 * math.sqrt(tries * wrong * (1 - wrong))


@pytest.mark.parametrize("law", ["logarithm", "power"])
def test_selection_between_growing_laws_is_decisive(law):
    found = theory.compare(N, noisy(law, 9), ERROR)
    assert found.best == law
    assert sorted(found.differences)[1] > theory.DECISIVE
    assert "decisive" in found.verdict
    assert law in found.verdict
    assert "rejects" not in found.verdict


def test_differences_and_order_of_laws():
    laws = ("power", "constant", "logarithm")
    for criterion in ("aic", "aicc", "bic"):
        found = theory.compare(N, noisy("power", 6), ERROR, laws=laws, criterion=criterion)
        assert tuple(one.law for one in found.fits) == laws
        scores = np.asarray([getattr(one, criterion) for one in found.fits])
        assert found.differences == pytest.approx(scores - scores.min(), abs=1e-9)
        assert found.best == laws[int(np.argmin(scores))]
        assert criterion.upper() in found.verdict


def test_few_sizes_leave_the_law_undecided():
    wide = 10 * ERROR[:4]
    found = theory.compare(N[:4], TRUTH["power"](N[:4]), wide, laws=("power", "logarithm"))
    assert found.differences.max() < theory.WEAK
    assert "undecided" in found.verdict


def test_verdict_says_when_even_the_best_law_fails():
    value = TRUTH["logarithm"](N) + 0.5 * np.cos(3 * np.log(N))
    assert "rejects the law itself" in theory.compare(N, value, ERROR).verdict


def test_larger_law_never_loses_by_more_than_its_parameter():
    for seed in range(10):
        for truth in LAWS:
            laws = ("constant", "logarithm", "power", "offset_power")
            fits = theory.compare(N, noisy(truth, seed), ERROR, laws=laws).fits
            # The minimum is found to about 1e-8 of χ².
            assert fits[3].chi2 <= min(one.chi2 for one in fits[:3]) + 1e-6


def test_one_law_alone():
    found = theory.compare(N, noisy("power", 1), ERROR, laws=("power",))
    assert found.best == "power"
    assert found.differences.tolist() == [0.0]


# Prediction and picture


def test_band_at_one_size_of_a_constant_is_its_interval():
    found = theory.fit(N, noisy("constant", 0), ERROR, "constant")
    value, half = theory.predict(found, np.array([5.0, 50.0]))
    assert value - half == pytest.approx(np.full(2, found.intervals[0, 0]), rel=1e-12)


def test_plot_shows_points_laws_and_band():
    compared = theory.compare(N, noisy("power", 8), ERROR, laws=("power", "logarithm", "constant"))
    ax = theory.plot(compared, xlabel="nodes", ylabel="age", label="ring")
    assert (ax.get_xscale(), ax.get_xlabel(), ax.get_ylabel()) == ("log", "nodes", "age")
    labels = ax.get_legend_handles_labels()[1]
    assert len(labels) == 4
    assert any("ring" in text for text in labels)
    lines = {text.get_label().split(":")[0]: text.get_linestyle() for text in ax.lines if ":" in text.get_label()}
    # Solid for the best law alone, and no two alike.
    assert [form for form, style in lines.items() if style == "-"] == ["a n^c"]
    assert len({(line.get_linestyle(), str(line._dash_pattern)) for line in ax.lines if ":" in line.get_label()}) == 3
    assert len(ax.collections) == 2
    curve = next(line for line in ax.lines if line.get_label().startswith("a n^c"))
    assert np.interp(64, *curve.get_data()) == pytest.approx(TRUTH["power"](64), abs=4 * 0.06)
    ax.figure.canvas.draw()


def test_plot_draws_into_given_axes():
    from matplotlib.figure import Figure

    ax = Figure().subplots()
    assert theory.plot(theory.compare(N, noisy("power", 8), ERROR), ax) is ax


def test_describe_names_the_growth():
    found = theory.fit(N, TRUTH["power"](N), ERROR, "power")
    assert theory.describe(found).startswith("a n^c: c = 0.33 ± ")


# Bad input


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: theory.fit(N, N * 1.0, ERROR, "cubic"), "law='cubic'"),
        (lambda: theory.fit(N * 0, N * 1.0, ERROR, "power"), r"n\[0\]=0"),
        (lambda: theory.fit(N, N * 1.0, 0 * ERROR, "power"), r"error\[0\]=0"),
        (lambda: theory.fit(N, N * 1.0, -ERROR, "power"), r"error\[0\]=-"),
        (lambda: theory.fit(N, N * math.nan, ERROR, "power"), r"value\[0\]=nan"),
        (lambda: theory.fit(N[:2], N[:2] * 1.0, ERROR[:2], "power"), "2 points for the 2 parameters"),
        (lambda: theory.fit(N[:1], N[:1] * 1.0, ERROR[:1], "constant"), "need at least 2"),
        (lambda: theory.fit(np.full(5, 4), np.ones(5), np.ones(5), "power"), "1 different sizes"),
        # Without the check of annotations, which is ours only in tests.
        (lambda: inspect.unwrap(theory.fit)(N, np.ones(3), ERROR[:3], "power"), "value of shape"),
        (lambda: theory.predict(theory.fit(N, N * 1.0, ERROR, "power"), np.array([-1.0])), r"n\[0\]=-1"),
        (lambda: theory.compare(N, N * 1.0, ERROR, laws=()), "at least one law"),
        (lambda: theory.compare(N, N * 1.0, ERROR, laws=("power", "power")), "must not repeat a law"),
        (lambda: theory.compare(N, N * 1.0, ERROR, criterion="r2"), "criterion='r2'"),
        (lambda: theory.compare(N[:3], N[:3] * 1.0, ERROR[:3], laws=("power",), criterion="aicc"), "criterion='aic'"),
    ],
)
def test_bad_input_says_what_and_why(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_a_bounded_approach_is_told_from_growth():
    n = np.array([10.0, 100.0, 1e3, 1e4, 1e5])
    value, error = 2.0 + 3.0 / np.log(n), np.full(5, 0.01)
    found = theory.compare(n, value, error, laws=("constant", "saturating", "logarithm", "power"))
    assert found.best == "saturating"
    np.testing.assert_allclose(found.fits[1].parameters, [2.0, 3.0], rtol=1e-10)  # linear least squares in float64
    assert min(np.delete(found.differences, 1)) > theory.DECISIVE
    with pytest.raises(ValueError, match="sizes above 1"):
        theory.fit(np.array([1.0, 2.0, 3.0]), np.ones(3), np.ones(3), "saturating")
