"""Measure speed and memory on this machine: ``make bench`` or ``python -m benchmarks [SECTION…] [--out FILE]``.

Each case runs in its own process. Compile time, steady state (median) and peak memory are reported separately; rates
are also given as a share of the float32 matmul peak of the machine, measured next to each case.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import pathlib
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from theory.output import check_file

TARGETS = {"W1": 0.12, "W2": 0.55}
"""Target shares of the matmul peak."""


def case(*words: object) -> dict[str, Any]:
    """Run one case in a fresh process and return its measurements."""
    command = [sys.executable, "-m", "benchmarks.case", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def peak() -> float:
    """Measure the current matmul peak, GFLOP/s."""
    return case("matmul_peak")["gflops"]


def works(table: Callable[..., None]) -> None:
    """Compare W1 and W2 in the engine with the matmul peak and with a plain Python loop over nodes."""
    rows = []
    for name, sizes in (("W2", (8, 64, 256, 1024)), ("W1", (8, 64, 256, 1024))):
        for n in sizes:
            ceiling = max(peak(), peak())
            engine, loop = case(name, n), case(f"loop_{name}", n)
            share = engine["gflops"] / ceiling
            rows.append(
                (
                    f"{name}, {n} nodes",
                    f"{engine['ms']:.1f}",
                    f"{engine['gflops']:.0f}",
                    f"{ceiling:.0f}",
                    f"{share:.0%} (target {TARGETS[name]:.0%})",
                    f"{loop['ms'] / engine['ms']:.2f}",
                    f"{engine['compile_s']:.1f}",
                    f"{engine['peak_gb']:.2f}",
                )
            )
    names = (
        "work",
        "ms per round",
        "GFLOP/s",
        "matmul peak",
        "share of peak",
        "Python loop / ours",
        "compile s",
        "peak GB",
    )
    table("Local training and mixing, random 4-regular, two cores", names, rows)


def scale(table: Callable[..., None]) -> None:
    """Measure a thousand nodes and more in one process, where a process per node does not start."""
    rows = []
    for n, target in ((1024, "300, 1"), (4096, "")):
        m = case("whole_run", n)
        rows.append((f"{n:,}", f"{m['wall_s']:.0f}", f"{m['cpu_s']:.0f}", f"{m['peak_gb']:.2f}", target or "-"))
    names = ("nodes", "wall s", "CPU s", "peak GB", "targets: wall s, GB")
    table("100 rounds of W1, random 4-regular, from building the task to the last record", names, rows)


def million(table: Callable[..., None]) -> None:
    """Measure one million nodes with scalar state on one core."""
    m = case("million_nodes")
    rows = [
        ("build the random 4-regular graph, s", f"{m['graph_s']:.1f}"),
        ("plan 10⁷ events, s", f"{m['plan_s']:.2f}"),
        ("run after compilation, s (target 10)", f"{m['run_s']:.2f}"),
        ("million events per second", f"{m['events_per_s'] / 1e6:.2f}"),
        ("peak memory, GB (target 1)", f"{m['peak_gb']:.2f}"),
        ("remaining share of the variance", f"{m['variance_left']:.4f}"),
    ]
    table("Gossip averaging, 1,000,000 nodes, 10 wake-ups each, one core", ("figure", "value"), rows)


def huge(table: Callable[..., None]) -> None:
    """Measure networks of ten and a hundred million nodes, whose meetings are drawn in the run."""
    rows = []
    for n, targets in ((10_000_000, "60, 1"), (100_000_000, "-")):
        m = case("drawn_network", n)
        times = f"{m['wall_s']:.1f}", f"{m['cpu_s']:.1f}", f"{m['peak_gb']:.2f}"
        rows.append((f"{n:,}", *times, targets, f"{m['left']:.3g}", f"{(0.5 * (1 - 1 / (n - 1))) ** 10:.3g}"))
    names = ("nodes", "wall s", "CPU s", "peak GB", "targets: wall s, GB", "variance left", "predicted")
    table("Drawn matchings, value, version and stamp, 10 wake-ups each, from the start to the last record", names, rows)


def seeds(table: Callable[..., None]) -> None:
    """Compare eight seeds in one call with eight calls."""
    rows = []
    for kind in ("W2", "W1", "softmax", "scalar"):
        m = case(f"seeds_{kind}")
        rows.append((kind, f"{m['together_s']:.2f}", f"{m['ratio']:.2f}"))
    table("8 seeds in one call / 8 calls (target: CNN at most 1.1, others below 1)", ("work", "s", "ratio"), rows)


def memory(table: Callable[..., None]) -> None:
    """Measure the peak memory of short and long runs."""
    rows = [(f"{count:,}", f"{case('memory_of_length', count)['peak_gb']:.3f}") for count in (10_000, 1_000_000)]
    table("Peak memory against the number of rounds, 64 nodes x 100 floats", ("rounds", "peak GB"), rows)


def dynamics(table: Callable[..., None]) -> None:
    """Measure random pairs with value, version and age stamp, next to heapq and numba."""
    rows = []
    for n in (1_000, 10_000, 100_000, 1_000_000):
        ours, heap = case("dynamics", n), case("heap_loop", n)["million_per_s"]
        try:
            numba = case("numba_loop", n)["million_per_s"]
        except RuntimeError:
            numba = float("nan")  # the extra "bench" is not installed
        names = ("drawn_inside", "planned", "packed", "packed_with_packing")
        rates = [f"{ours[name]:.1f}" for name in names]
        packing = f"{ours['levels']} levels, width {ours['mean_width']:.0f}, waste {ours['waste']:.0%}"
        ratios = [f"{numba:.1f}", f"{numba / ours['drawn_inside']:.2f}", f"{ours['drawn_inside'] / heap:.0f}"]
        rows.append((f"{n:,}", *rates, *ratios, packing, f"{ours['peak_gb']:.2f}"))
    columns = ("nodes", "drawn inside", "planned", "packed", "… packing included", "numba", "numba / ours")
    columns += ("ours / heapq", "packing", "peak GB")
    table("Random pairs: value, version, age stamp; million events per second, one core", columns, rows)


def rows(table: Callable[..., None]) -> None:
    """Measure longer rows with 1,000 nodes."""
    named = {
        "versions": ("all-pairs version matrix, exchanges", 800),
        "version_pushes": ("all-pairs version matrix, pushes", 800),
        "floats": ("models of 10,000 floats, averaging", 100),
        "sgd": ("SGD step, MLP 784-12-10, batch 8, and averaging", 25),
    }
    lines = []
    for kind, (what, target) in named.items():
        m = case("long_rows", kind)
        speed = f"{1e3 * m['million_per_s']:,.0f}"
        lines.append((what, speed, f"{target:,}", f"{m['compile_s']:.1f}", f"{m['peak_gb']:.2f}"))
    columns = ("work", "thousand events per second", "target", "compile s", "peak GB")
    table("Longer rows, 1,000 nodes, one core, sequential", columns, lines)


def driver(table: Callable[..., None]) -> None:
    """Compare the form that the driver picks with both forms."""
    kinds = [f"{way}_{d}" for d in (1, 16, 64, 1024, 10_000) for way in ("pairs", "push")]
    lines = []
    for kind in [*kinds, "sgd_softmax_64_10", "sgd_784_12_10"]:
        m = case("driver", kind)
        speeds = f"{m['sequential']:,.0f}", f"{m['packed']:,.0f}"
        lines.append((kind, *speeds, m["picked"], f"{m['loss']:.0%}"))
    columns = ("events, floats per row", "sequential", "packed", "picked", "slower than the better one by")
    table("simulate: thousand events per second, packing included, 1,000 nodes, one core", columns, lines)


def sharing(table: Callable[..., None]) -> None:
    """Measure rounds of JWINS without training, and rounds of sharing schemes with local training."""
    lines = []
    for n, parameters in ((96, 89_834), (192, 89_834), (96, 179_668)):
        m = case("sharing", "alone", n, parameters)
        target = " (target 450)" if (n, parameters) == (96, 89_834) else ""
        words = f"{m['ms']:.0f}", f"{m['cpu_ms']:.0f}{target}", f"{m['loop_ms']:.0f}", f"{m['loop_ms'] / m['ms']:.2f}"
        lines.append((f"{n} x {parameters:,}", *words, f"{m['compile_s']:.1f}", f"{m['peak_gb']:.2f}"))
    columns = ("nodes x parameters", "ms per round", "CPU ms", "NumPy and PyWavelets, two threads, ms", "loop / ours")
    table("One round of JWINS without training (target: loop / ours 1.5)", (*columns, "compile s", "peak GB"), lines)
    lines = []
    for work, n in (("W1", 16), ("W2", 16), ("W2", 96)):
        runs = {scheme: case("sharing", work, n, scheme) for scheme in ("full", "random", "top_k", "choco", "jwins")}
        own = runs["jwins"]["ms"]
        more = f"{1 - runs['full']['ms'] / own:.0%}"
        lines.append((f"{work}, {n} nodes", *(f"{run['ms']:.1f}" for run in runs.values()), more))
    schemes = (
        "full",
        "random 10 %",
        "top-k 10 %",
        "CHOCO 10 %",
        "JWINS",
        "JWINS above full sharing (target 30 %)",
    )
    table("Whole rounds with local training, ms", ("work", *schemes), lines)


def systems(table: Callable[..., None]) -> None:
    """Measure planning with Plexus, and the memory of learning with its plans."""
    lines = []
    for kind, target in (("all active", 60), ("default window", 60), ("churn", 300)):
        m = case("planning", kind)
        spent = f"{m['cpu_s']:.1f} (target {target})", f"{m['wall_s']:.1f}"
        lines.append(
            (kind, f"{m['rounds']:,}", *spent, f"{m['messages']:,}", f"{m['hours']:.0f}", f"{m['peak_gb']:.2f}")
        )
    columns = ("Plexus, 1,000 nodes", "rounds", "CPU s", "wall s", "messages", "simulated hours", "peak GB")
    table("Planning, one core", columns, lines)
    lines = []
    for n in (100, 1000):
        m = case("sampled", n)
        models = f"{m['models']} of {m['parameters']:,} parameters"
        lines.append((f"{n:,}", models, f"{m['peak_gb']:.2f} (target 3)", f"{m['seconds']:.0f}"))
    table("Learning with Plexus, six rounds", ("nodes", "models in memory", "peak GB", "s, with compilation"), lines)


def learning(table: Callable[..., None]) -> None:
    """Measure asynchronous learning of 10,000 nodes from real data."""
    m = case("learning")
    lines = [
        ("data", m["data"]),
        ("run after compilation, s (target 30)", f"{m['run_s']:.1f}"),
        ("thousand updates per second", f"{m['thousand_per_s']:.1f}"),
        ("plan, s", f"{m['plan_s']:.2f}"),
        ("compile, s", f"{m['compile_s']:.1f}"),
        ("accuracy of the average model", f"{m['accuracy']:.1%}"),
        ("peak memory, GB", f"{m['peak_gb']:.2f}"),
    ]
    table("Softmax regression, 10,000 nodes, 10 updates each, two cores", ("figure", "value"), lines)


def host(table: Callable[..., None]) -> None:
    """Measure the CPU seconds of work beside the events."""
    m = case("staleness", 1_000_000)
    rows = [("staleness_summary, 10⁶ nodes x 8 sources", f"{m['record_s']:.3f} s", "0.03 s")]
    rows += [("one pass over the counters", f"{m['pass_s']:.4f} s", "-")]
    rows += [("random_regular, 10⁶ nodes of degree 4", f"{case('graph', 1_000_000)['graph_s']:.2f} s", "1 s")]
    m = case("events", 100_000)
    for name, what in (
        ("push", "push_gossip"),
        ("push_latency", "push_gossip with latency"),
        ("pack_pairs", "pack, random pairs"),
    ):
        rows += [(f"{what}, 10⁵ nodes", f"{m[name]:.1f} million events/s", "12")]
    for n in (300, 1000, 4000, 10_000, 100_000):
        rows += [(f"Plexus, {n:,} nodes", f"{case('plexus', n)['thousand_per_s']:.0f} thousand messages/s", "200")]
    for n in (1000, 4000, 20_000):
        speed = f"{case('plexus_window', n)['thousand_per_s']:.0f} thousand messages/s"
        rows += [(f"Plexus, {n:,} nodes, window of 100 rounds", speed, "200")]
    table("Beside the events, CPU seconds, one thread", ("work", "measured", "target"), rows)


def secure(table: Callable[..., None]) -> None:
    """Compare rounds with secure aggregation with plain ones, in turns in one process."""
    rows = []
    for work, n in (("W2", 8), ("W1", 16)):
        m = case("sharing", "secure", work, n)
        for scheme in ("fixed_point", "seeds", "shares"):
            wall, cpu, ms = m[f"{scheme}_ratio"], m[f"{scheme}_cpu_ratio"], m[f"{scheme}_ms"]
            low, high = m[f"{scheme}_ratio_quartiles"]
            rows.append(
                (f"{work}, {n} nodes", scheme, f"{ms:.1f}", f"{wall:.2f}", f"{low:.2f}–{high:.2f}", f"{cpu:.2f}")
            )
    names = ("work", "recovery", "ms per round", "over plain (W2: at most 1.3)", "quartiles", "CPU over plain")
    table("Secure aggregation, random 4-regular; fixed_point: without masks", names, rows)


def robust(table: Callable[..., None], rules: Sequence[str] = ()) -> None:
    """Compare rounds with robust rules with plain ones, in turns in one process, and time cells of a sweep.

    Where rules are named, measure rounds with these alone, and no cells.
    """
    found = case("robust_rounds", 64, *rules)
    rows = [
        (name, f"{m['cpu_s']:.2f}", f"{m['ratio']:.2f}", f"{m['gigabytes']:.2f}")
        for name, m in found.items()
        if isinstance(m, dict)
    ]
    columns = ("rule", "CPU s", "over full sharing (target: at most 3)", "GB read and written by the rule, XLA's count")
    table("A round of W2, 64 nodes of degree 8, b = 2", columns, rows)
    if rules:
        return
    m = case("robust_sweep")
    total = m["compile_s"] + 498 * m["each_s"]
    rows = [
        ("cells measured", f"{m['cells']}"),
        ("CPU s to compile, two programs", f"{m['compile_s']:.1f}"),
        ("CPU s for each cell", f"{m['each_s']:.2f}"),
        ("CPU minutes for 500 cells (target: 60, 30 minutes on two cores)", f"{total / 60:.1f}"),
    ]
    table(
        "Cells of attack, rule, graph and seed on digits, 16 nodes, 300 rounds, through gj.sweep",
        ("figure", "value"),
        rows,
    )


def privacy(table: Callable[..., None]) -> None:
    """Compare steps with private gradients with plain ones, and time audits of all pairs of 256 nodes."""
    rows = [
        (name, f"{m['ms']:.1f}", f"{m['ratio']:.2f}")
        for name, m in case("private_steps").items()
        if isinstance(m, dict)
    ]
    columns = ("gradients", "CPU ms per round", "over plain (clipped samples: at most 4)")
    table("A round of W1, 16 nodes, 16 of 500 samples expected in a batch", columns, rows)
    m = case("audits")
    rows = [
        (name, f"{m[name]['cpu_s']:.1f}", f"{m[name]['certain']}", f"{100 * m[name]['gap']:.2f} %")
        for name in ("start values", "steps")
    ]
    columns = ("contributions", "CPU s (at most 120)", "observers with certain results", "largest gap of μ")
    title = f"Audits of all pairs of 256 nodes, 4,096 meetings; peak memory {m['gigabytes']:.2f} GB (at most 2)"
    table(title, columns, rows)


SECTIONS = {
    "works": works,
    "scale": scale,
    "million": million,
    "huge": huge,
    "seeds": seeds,
    "memory": memory,
    "dynamics": dynamics,
    "rows": rows,
    "driver": driver,
    "learning": learning,
    "sharing": sharing,
    "secure": secure,
    "robust": robust,
    "privacy": privacy,
    "systems": systems,
    "host": host,
}


def _options(words: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line, and refuse what is wrong before the first case runs."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"{', '.join(SECTIONS)}; none: all")
    parser.add_argument("--out", type=pathlib.Path, metavar="FILE", help="also write the tables as Markdown")
    shorter = 'the section robust measures these rules alone, such as "GTS" "median", and no sweep'
    parser.add_argument("--rules", nargs="+", metavar="RULE", default=(), help=shorter)
    options = parser.parse_args(words)
    for name in options.sections:
        if name not in SECTIONS:
            parser.error(f"unknown section {name!r}; choose among {', '.join(SECTIONS)}")
    if options.rules and options.sections != ["robust"]:
        parser.error("--rules is an option of the section robust: python -m benchmarks robust --rules GTS median")
    try:
        _check_rules(options.rules)
        if options.out is not None:
            check_file("--out", options.out)
    except ValueError as error:
        parser.error(str(error))
    return options


def main(words: Sequence[str] | None = None) -> int:
    """Run sections, print their tables, and write the tables to a file if one is named."""
    options = _options(words)
    console, lines = Console(width=140), [f"# Benchmarks, {datetime.date.today()}", "", machine(), ""]
    console.print(machine())

    def table(title: str, names: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        shown = Table(*names, title=title, title_justify="left")
        for row in rows:
            shown.add_row(*row)
        console.print(shown)
        lines.extend([f"## {title}", "", "| " + " | ".join(names) + " |", "|" + " --- |" * len(names)])
        lines.extend(["| " + " | ".join(row) + " |" for row in rows] + [""])

    for name in options.sections or SECTIONS:
        if options.rules:
            robust(table, options.rules)
        else:
            SECTIONS[name](table)
        if options.out is not None:
            options.out.write_text("\n".join(lines), encoding="utf-8")
    return 0


def _check_rules(names: Sequence[str]) -> None:
    """Refuse unknown rules before the first case runs."""
    if names:
        from benchmarks.robust import chosen

        chosen(names)


def machine() -> str:
    """Return one line that describes the machine."""
    cpu = next(
        (line.split(":")[1].strip() for line in _cpu_info() if line.startswith("model name")), platform.processor()
    )
    import jax

    return f"{cpu}, {os.cpu_count()} cores, Python {platform.python_version()}, JAX {jax.__version__}."


def _cpu_info() -> list[str]:
    source = pathlib.Path("/proc/cpuinfo")
    return source.read_text().splitlines() if source.is_file() else []


if __name__ == "__main__":
    sys.exit(main())
