"""Draw figures from stored results: ``python -m figures [STEM…] [--results DIR] [--out DIR]``."""

from __future__ import annotations

import argparse
import pathlib
import sys
from collections.abc import Sequence

from experiments import store
from figures import (
    async_beats_sync_under_stragglers,
    async_linear_regression,
    async_nonlinear_regression,
    consensus_rate_vs_topology,
    dpsgd_on_real_data,
    flight_time_breaks_log_n,
    heterogeneity,
    jwins_ablation,
    jwins_accuracy_vs_bytes,
    jwins_dynamic_topology,
    jwins_metadata,
    jwins_scalability,
    jwins_vs_choco,
    plexus_churn,
    plexus_crash,
    plexus_join,
    plexus_round_duration,
    plexus_sample_size,
    plexus_vs_baselines,
    staleness_histogram,
    staleness_vs_capacity,
    style,
    version_age_scaling,
)
from figures.caption import text
from theory.output import check_folder

DRAWN_BY = {
    "consensus_rate_vs_topology": consensus_rate_vs_topology,
    "dpsgd_on_real_data": dpsgd_on_real_data,
    "heterogeneity": heterogeneity,
    "async_linear_regression": async_linear_regression,
    "async_nonlinear_regression": async_nonlinear_regression,
    "async_beats_sync_under_stragglers": async_beats_sync_under_stragglers,
    "staleness_vs_capacity": staleness_vs_capacity,
    "staleness_histogram": staleness_histogram,
    "version_age_scaling": version_age_scaling,
    "flight_time_breaks_log_n": flight_time_breaks_log_n,
    "jwins_accuracy_vs_bytes": jwins_accuracy_vs_bytes,
    "jwins_vs_choco": jwins_vs_choco,
    "jwins_ablation": jwins_ablation,
    "jwins_metadata": jwins_metadata,
    "jwins_dynamic_topology": jwins_dynamic_topology,
    "jwins_scalability": jwins_scalability,
    "plexus_round_duration": plexus_round_duration,
    "plexus_sample_size": plexus_sample_size,
    "plexus_vs_baselines": plexus_vs_baselines,
    "plexus_churn": plexus_churn,
    "plexus_crash": plexus_crash,
    "plexus_join": plexus_join,
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
        stems = given.stems or list(DRAWN_BY)
        check_folder("--out", given.out, *(f"{stem}.{suffix}" for stem in stems for suffix in ("png", "pdf", "md")))
        for stem in stems:
            dataset = store.load(stem, given.results)
            print(style.save(DRAWN_BY[stem].draw(dataset), stem, given.out))
            with store.replacing(given.out / f"{stem}.md") as temporary:
                temporary.write_text(text(stem, DRAWN_BY[stem].caption(dataset)), encoding="utf-8")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
