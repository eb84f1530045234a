"""One policy for all verdicts: an interval against a band, three seeds at least, and noise that never helps."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from verdict_cases import CASES, FLOOR, WORDS

from theory.check.policy import Band, above, all_of, any_of, around, decide, in_part, place

STATES = ("reproduced", "contradicted", "undecided")
FINITE = st.floats(-1e6, 1e6)
SAMPLES = st.lists(st.floats(-100, 100), min_size=3, max_size=6)


@st.composite
def bands(draw):
    low, high = sorted((draw(FINITE), draw(FINITE)))
    return draw(st.sampled_from([Band(low, high), Band(low=low), Band(high=high)]))


@pytest.mark.parametrize(
    ("samples", "band", "word"),
    [
        ([3.5, 3.5, 3.6], around(3.5, 0.25), "reproduced"),
        ([-1.0, 3.5, 8.0], around(3.5, 0.25), "undecided"),  # 3.5 ± 11: inside by its mean alone
        ([5.0, 5.1, 5.2], around(3.5, 0.25), "contradicted"),
        ([0.1, 0.2, 0.3], above(0.0), "undecided"),  # 0.2 ± 0.25
        ([0.2, 0.2, 0.2], above(0.0), "reproduced"),
        ([0.0, 0.0, 0.0], above(0.0), "contradicted"),  # no lead is none
        ([1.0, 1.0], Band(0.0, 2.0), "no verdict"),
        ([1.0], Band(0.0, 2.0), "no verdict"),
        ([], Band(0.0, 2.0), "no verdict"),
        ([1.0, 1.0, np.nan], Band(0.0, 2.0), "undecided"),
        ([1.0, 1.0, np.inf], Band(0.0, 2.0), "contradicted"),
        ([1.0, 1.0, np.inf], Band(low=0.0), "undecided"),  # a failure supports nothing
        ([-np.inf, 1.0, np.inf], Band(0.0, 2.0), "undecided"),
    ],
)
def test_a_verdict_is_where_the_interval_lies(samples, band, word):
    found = decide(samples, band)
    assert found.word == word
    assert str(found).startswith(word)


def test_the_interval_is_students():
    """Three seeds: 4.3027 standard errors, to the digits of the table."""
    found = decide([1.0, 2.0, 3.0], Band(low=0.0))
    assert found.mean == 2.0
    assert found.half == pytest.approx(4.3027 / np.sqrt(3), rel=1e-4)


@given(FINITE, st.floats(0, 1e6), st.floats(0, 1e6), bands())
def test_a_wider_interval_only_takes_verdicts_back(mean, half, more, band):
    narrow, wide = place(mean, half, band), place(mean, half + more, band)
    assert wide in (narrow, "undecided")


@given(SAMPLES, st.floats(1.0, 50.0), bands())
def test_more_noise_around_the_same_mean_only_takes_verdicts_back(samples, factor, band):
    values = np.array(samples)
    noisy = values.mean() + factor * (values - values.mean())
    quiet, loud = decide(values, band), decide(noisy, band)
    # The mean of the noisy values is the same up to rounding, which matters at the very end of a band only.
    ends = np.array([quiet.mean - quiet.half, quiet.mean + quiet.half, loud.mean - loud.half, loud.mean + loud.half])
    assume(all(abs(end - limit) > 1e-9 * (1 + abs(end) + loud.half) for end in ends for limit in band))
    assert loud.word in (quiet.word, "undecided")


@given(st.lists(st.sampled_from(STATES), min_size=2, max_size=4), st.data())
def test_statements_together_keep_noise_from_helping(words, data):
    """Any of them may be taken back to undecided: what is said of all then stays, or becomes less."""
    taken = [data.draw(st.sampled_from([word, "undecided"])) for word in words]
    assert all_of(*taken) in (all_of(*words), "undecided")
    assert any_of(*taken) in (any_of(*words), "undecided")
    assert in_part(*taken[:2]) in (in_part(*words[:2]), "undecided")


def test_statements_together():
    assert all_of("reproduced", "reproduced") == "reproduced"
    assert all_of("reproduced", "contradicted", "undecided") == "contradicted"
    assert any_of("contradicted", "reproduced") == "reproduced"
    assert any_of("contradicted", "contradicted") == "contradicted"
    assert all_of("reproduced", "no verdict") == any_of("reproduced", "no verdict") == "no verdict"
    assert in_part("contradicted", "reproduced") == "in part"
    assert in_part("contradicted", "undecided") == "undecided"
    assert in_part("contradicted", "contradicted") == "contradicted"


@pytest.mark.parametrize("band", [Band(2.0, 1.0), Band(np.nan, 1.0)])
def test_impossible_bands_are_refused(band):
    with pytest.raises(ValueError, match="band"):
        decide([1.0, 1.0, 1.0], band)


def test_values_that_are_no_list_are_refused():
    with pytest.raises(ValueError, match="samples"):
        decide(np.ones((3, 2)), Band())


# The verdicts of the experiments


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_verdict_comes_out_each_way(case):
    for word, samples in case.samples.items():
        assert case.judge(samples) == word
    assert set(case.samples) >= {"reproduced", "contradicted", "undecided"}
    assert set(case.samples) <= WORDS


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_fewer_than_three_seeds_give_no_verdict(case):
    for samples in case.samples.values():
        for count in (1, 2):
            assert case.judge([values[:count] for values in samples]) == "no verdict"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@given(factor=st.floats(1.0, 30.0), seed=st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_noise_never_helps_an_experiment(case, factor, seed):
    """The first quantity of a case is the one that is measured; its deviations from the mean grow."""
    noise = np.random.default_rng(seed).standard_normal(4)
    noise -= noise.mean()
    for samples in case.samples.values():
        if not all(np.isfinite(values).all() for values in samples):
            continue
        first, *rest = (np.resize(np.asarray(values, float), 4) for values in samples)
        spread = 0.02 * max(1e-3, float(np.abs(first).max()))
        words = [case.judge([first.mean() + scale * spread * noise, *rest]) for scale in (1.0, factor)]
        assert words[1] in (words[0], "undecided")


@pytest.mark.parametrize(
    ("name", "measured"),
    [("JWINS and CHOCO", [[1.2] * 3]), ("crashes", [[0.05] * 3, [0.1] * 3, [0.2] * 3, [1] * 3])],
)
def test_noise_takes_in_part_back_to_undecided_and_no_further(name, measured):
    """Growing noise on the first quantity, and for each quantity a seed without a value."""
    (case,) = (each for each in CASES if each.name == name)
    first, *rest = measured
    scales = (0.0, 0.01, 0.02, 0.08, 0.3, 1.0, 10.0)
    words = [case.judge([first + scale * np.array([1.0, -1.0, 0.0]), *rest]) for scale in scales]
    assert words[0] == "in part"
    assert words == sorted(words)  # "in part" comes before "undecided"
    assert set(words) == {"in part", "undecided"}
    for which, values in enumerate(measured):
        missing = [*measured[:which], [*values[:2], np.nan], *measured[which + 1 :]]
        assert case.judge(missing) in ("in part", "undecided")


def test_no_experiment_has_a_word_of_its_own():
    """All words of verdicts come from the policy: no other module compares a number with a limit and calls it so."""
    import pathlib

    root = pathlib.Path(__file__).resolve().parents[2]
    own = [
        path.name
        for path in sorted((root / "experiments").glob("*.py"))
        for line in path.read_text().splitlines()
        if any(f'"{word}' in line for word in ("reproduced:", "not reproduced")) or "(one seed)" in line
    ]
    assert own == []


def test_a_dataset_of_two_seeds_has_no_verdict_in_its_table():
    """Through the table of an experiment, not only through the function that judges."""
    from experiments import jwins_vs_choco

    spent = np.array([[1.0, 1.1], [4.0, 4.4]])
    fields = {
        "megabytes_to_target": (("scheme", "seed"), spent),
        "full_score": (("record", "seed"), [[0.1] * 2, [0.9] * 2]),
    }
    facts = {"sign": 1.0, "trivial": FLOOR["accuracy"]}
    at = xr.Dataset(fields, {"scheme": list(jwins_vs_choco.SCHEMES)}, facts)
    assert "no verdict" in jwins_vs_choco._ratio(at, "megabytes_to_target", "bytes").source


def test_a_band_is_written_with_its_bound() -> None:
    """An excluded bound is written itself, not the number beside it."""
    assert str(above(0.0)) == "above 0"
    assert str(above(1.15)) == "above 1.15"
    assert str(Band(low=1.15)) == "at least 1.15"
    assert str(Band(high=2.0)) == "at most 2"
