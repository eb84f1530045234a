"""Draw figures from stored results: ``python -m figures [STEM…] [--results DIR] [--out DIR]``."""

from __future__ import annotations

import argparse
import importlib
import pathlib
import sys
from collections.abc import Sequence
from types import ModuleType

from experiments.lib import store
from figures.lib import style
from figures.lib.caption import text
from theory.output import check_folder, replacing

STEMS = tuple(sorted(path.stem for path in pathlib.Path(__file__).parent.glob("[!_]*.py")))
"""Every module of this folder draws the result of the experiment of the same name."""
OUT = pathlib.Path(__file__).parent / "out"


def module_of(stem: str) -> ModuleType:
    """Import the module that draws a stem.

    Raises:
        ValueError: an unknown stem.
    """
    if stem not in STEMS:
        raise ValueError(f"unknown stem {stem!r}; choose among {', '.join(STEMS)}")
    return importlib.import_module(f"figures.{stem}")


def main(words: Sequence[str] | None = None) -> int:
    """Draw the given stems, or all that have a result; print the paths."""
    parser = argparse.ArgumentParser(prog="python -m figures", description=__doc__)
    parser.add_argument("stems", nargs="*", metavar="STEM", help=f"{', '.join(STEMS)}; default: all that have a result")
    parser.add_argument("--results", type=pathlib.Path, default=store.DEFAULT, metavar="DIR", help="folder of results")
    parser.add_argument("--out", type=pathlib.Path, default=OUT, metavar="DIR", help="folder of the figures")
    options = parser.parse_args(words)
    try:
        stems = options.stems or list(STEMS)
        for stem in stems:
            module_of(stem)
        check_folder("--out", options.out, *(f"{stem}.{suffix}" for stem in stems for suffix in ("png", "pdf", "md")))
        for stem in stems:
            dataset, module = store.load(stem, options.results), module_of(stem)
            print(style.save(module.draw(dataset), stem, options.out))
            with replacing(options.out / f"{stem}.md") as temporary:
                temporary.write_text(text(stem, module.caption(dataset)), encoding="utf-8")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
