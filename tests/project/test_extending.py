"""The programs of the page on extending run, one after another, and its table names files that exist."""

import pathlib
import re

import jax
import pytest
from readme import python_blocks

ROOT = pathlib.Path(__file__).parents[2]
PAGE = ROOT / "docs" / "extending.md"


@pytest.mark.slow
def test_the_programs_of_the_page_run():
    space: dict = {"__name__": "extending"}
    with jax.enable_x64(False):
        for block in python_blocks(PAGE):
            exec(compile(block, str(PAGE), "exec"), space)


def test_the_page_names_files_that_exist():
    named = set(re.findall(r"`((?:gossipjax|tests|experiments|figures)/[\w/]+\.py)`", PAGE.read_text(encoding="utf-8")))
    assert len(named) >= 8
    missing = {path for path in named if not (ROOT / path).is_file() and "name.py" not in path}
    assert missing == set()
