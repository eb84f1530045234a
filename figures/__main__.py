"""Draw figures from stored results: ``python -m figures [STEM…] [--results DIR] [--out DIR]``."""

from __future__ import annotations

import argparse
import pathlib
import sys
from collections.abc import Sequence

from experiments import store
from figures import consensus_rate_vs_topology, dpsgd_on_real_data, heterogeneity, style

DRAWN_BY = {
    "consensus_rate_vs_topology": consensus_rate_vs_topology,
    "dpsgd_on_real_data": dpsgd_on_real_data,
    "heterogeneity": heterogeneity,
}
OUT = pathlib.Path(__file__).parent / "out"


def main(words: Sequence[str] | None = None) -> int:
    """Draw the stems named, or all that have a result; print the paths."""
    parser = argparse.ArgumentParser(prog="python -m figures", description=__doc__)
    parser.add_argument("stems", nargs="*", metavar="STEM", help=f"{', '.join(DRAWN_BY)}; none: all")
    parser.add_argument("--results", type=pathlib.Path, default=store.DEFAULT, metavar="DIR", help="folder of results")
    parser.add_argument("--out", type=pathlib.Path, default=OUT, metavar="DIR", help="folder of the pictures")
    given = parser.parse_args(words)
    try:
        for stem in given.stems:
            if stem not in DRAWN_BY:
                raise ValueError(f"unknown stem {stem!r}; choose among {', '.join(DRAWN_BY)}")
        for stem in given.stems or DRAWN_BY:
            print(style.save(DRAWN_BY[stem].draw(store.load(stem, given.results)), stem, given.out))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
