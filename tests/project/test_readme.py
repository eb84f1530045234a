"""The README fits on a screen, its links lead somewhere, and its program makes its picture."""

import pathlib
import re

import jax
import matplotlib.image
import numpy as np
import pytest
from readme import python_blocks

README = pathlib.Path(__file__).parents[2] / "README.md"
TEXT = README.read_text(encoding="utf-8")
LINES = TEXT.splitlines()
LINKS = re.findall(r"\]\(([^)#]+)", TEXT)
PICTURE = README.parent / next(link for link in LINKS if link.endswith(".png"))


def test_first_screen():
    picture = next(i for i, line in enumerate(LINES) if line.startswith("!["))
    example = next(i for i, line in enumerate(LINES) if line == "```python")
    length = LINES[example + 1 :].index("```")
    assert picture < example < 30
    assert length <= 13
    assert len(LINES) <= 80


@pytest.mark.parametrize("link", LINKS)
def test_links_lead_to_files(link):
    assert (README.parent / link).is_file()


def test_every_page_of_the_site_is_linked():
    pages = {f"docs/{path.name}" for path in (README.parent / "docs").glob("*.md")} - {"docs/index.md"}
    assert pages <= set(LINKS)


@pytest.mark.slow
def test_the_program_makes_the_picture_above_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (program,) = python_blocks(README)
    space: dict = {}
    with jax.enable_x64(False):
        exec(program, space)
    assert float(space["trajectory"]["test_accuracy"].sel(statistic="mean")[-1]) > 0.9
    made, kept = (matplotlib.image.imread(path) for path in (tmp_path / PICTURE.name, PICTURE))
    assert made.shape == kept.shape
    # Mean over all pixels, of values from 0 to 1. Other flags of XLA: 4e-7; another seed: 0.012.
    assert np.abs(made - kept).mean() < 0.004, "draw it again: make picture"
