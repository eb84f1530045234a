"""The gallery has a card for every experiment, and its pictures say what the tables say."""

import importlib
import pathlib
import re

import numpy as np
import pytest

from theory.check.policy import Band, above, decide, place
from theory.check.run import FAMILIES, claims

ROOT = pathlib.Path(__file__).parents[2]
STEMS = sorted(path.stem for path in (ROOT / "experiments").glob("[!_]*.py"))


@pytest.fixture(autouse=True)
def _extensions(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs" / "_ext")


def test_there_is_a_card_for_every_experiment():
    cards = importlib.import_module("cards")
    assert sorted(cards.experiments()) == STEMS
    for stem, path in cards.experiments().items():
        card = cards.card_of_experiment(stem, path)
        assert f"`{stem}`" in card
        assert re.search(r"^\*Claim:\* \S.*\.$", card, re.M), stem


def test_cards_say_what_a_run_costs(tmp_path):
    files, cards = importlib.import_module("benchmarks.tables"), importlib.import_module("cards")
    path = tmp_path / "2030-01-01-a.md"
    path.write_text(
        "# A\n\nCost: `a` 4 minutes on two cores; `b` and `c` 20 s.\n\n## `d`\n\n1234 s, code 12ab.\n\n## `e`\n"
    )
    costs = {stem: files.cost_of(stem, path) for stem in "abcdef"}
    assert costs == {"a": "4 minutes on two cores", "b": "20 s with `c`", "c": "20 s with `b`", "d": "1,234 s"} | {
        "e": None,
        "f": None,
    }
    card = cards.card_of_experiment("plexus_join", cards.experiments()["plexus_join"])
    assert "*Cost:* 20 s.\n" in card
    quick = cards.Picture("a.png", "a run", 3.4)
    stem = "consensus_rate_vs_topology"
    assert "*Cost:* 3 s in the quick form" in cards.card_of_experiment(stem, cards.experiments()[stem], quick)


def test_every_cost_in_the_results_names_an_experiment_with_a_table_in_that_file():
    files = importlib.import_module("benchmarks.tables")
    for path in files.RESULTS.glob("*.md"):
        for line in re.findall(r"^Cost: .*", path.read_text(encoding="utf-8"), re.M):
            for stem in re.findall(r"`(\w+)`", line):
                assert path in files.files_of(stem), (path.name, stem)
                assert files.cost_of(stem, path)


BANDS = (Band(0.5, 2.0), Band(low=-1.5), Band(high=3e-4), above(0.0), Band(-3.0, -1.0))
SAMPLES = ((0.9, 1.0, 1.1), (-2.1, -2.0, -1.9), (1e-5, 2e-5, 3e-5), (-5.0, 0.0, 6.0))


@pytest.mark.parametrize("band", BANDS, ids=str)
@pytest.mark.parametrize("samples", SAMPLES, ids=str)
def test_a_verdict_is_read_as_it_was_written(band, samples):
    pictures = importlib.import_module("pictures")
    verdict = decide(samples, band)
    table = ["| quantity | measured | source |", "| --- | --- | --- |", f"| ratio | 1 | paper; {verdict} |"]
    (found,) = pictures.verdicts(table)
    assert (found.quantity, found.word) == ("ratio", verdict.word)
    # Rows are written with two to three digits.
    read, written = (found.mean, found.half, found.low, found.high), (verdict.mean, verdict.half, *band)
    np.testing.assert_allclose(read, written, rtol=0.06, atol=1e-12)


@pytest.mark.parametrize("stem", STEMS)
def test_pictures_place_intervals_as_the_verdicts_of_committed_tables(stem):
    files, pictures = importlib.import_module("benchmarks.tables"), importlib.import_module("pictures")
    for path in files.files_of(stem):
        for each in pictures.verdicts(files.section_of(stem, path)):
            low, high, scaled = pictures._scaled(each)
            least, most = (low if np.isfinite(each.low) else -np.inf), (high if np.isfinite(each.high) else np.inf)
            half = scaled(each.mean + np.nan_to_num(each.half)) - scaled(each.mean) if np.isfinite(each.mean) else 0.0
            word = place(scaled(each.mean), half, Band(least - 0.02, most + 0.02))
            assert word == each.word or "undecided" in (word, each.word), each


def test_a_picture_has_every_row_of_a_table():
    files, pictures = importlib.import_module("benchmarks.tables"), importlib.import_module("pictures")
    (path,) = files.files_of("plexus_round_duration")
    found = pictures.verdicts(files.section_of("plexus_round_duration", path))
    labels = [text.get_text() for text in pictures.draw_verdicts(found).axes[0].get_yticklabels()]
    assert [label.replace("\n", " ") for label in labels] == [each.quantity for each in found]
    assert len(found) == 8


def test_cards_of_the_theory_have_the_verdicts_of_the_last_run():
    cards, files = importlib.import_module("cards"), importlib.import_module("benchmarks.tables")
    _, judged = files.claims_of_last_run()
    assert set(judged.values()) <= {"holds", "violated", "undecided"}
    text = "\n".join(cards.card_of_family(family) for family in FAMILIES)
    named = dict(re.findall(r"^`(\w+)` \((\w+)\)$", text, re.M))
    assert named == {claim.name: judged.get(claim.name, "newer") for claim in claims()}
