"""The programs of the pages on extending run, one after another, and the pages name files that exist."""

import pathlib
import re

import jax
import pytest
from readme import python_blocks

ROOT = pathlib.Path(__file__).parents[2]
PAGES = [ROOT / "docs" / name for name in ("your-own-protocol.md", "extending.md")]


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_programs_of_the_page_run(page):
    space: dict = {"__name__": page.stem}
    blocks = python_blocks(page)
    assert len(blocks) >= 8
    with jax.enable_x64(False):
        for block in blocks:
            exec(compile(block, str(page), "exec"), space)


@pytest.mark.parametrize(("page", "least"), [(PAGES[0], 2), (PAGES[1], 8)], ids=["protocol", "others"])
def test_the_page_names_files_that_exist(page, least):
    named = set(re.findall(r"`((?:gossipjax|tests|experiments|figures)/[\w/]+\.py)`", page.read_text(encoding="utf-8")))
    assert len(named) >= least
    missing = {path for path in named if not (ROOT / path).is_file() and "name.py" not in path}
    assert missing == set()
