"""Measure an accelerator in ten minutes: ``benchmarks/gpu.sh``, or ``python -m benchmarks.gpu [--tiny] [--out FILE]``.

Each measurement is a process of its own. What does not fit into the time is named, and so is what fails. Shares are
those of the matmul peak at the same precision, and of the bandwidth of a copy, measured first. The table is written
after every measurement.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from rich.console import Console

from benchmarks.__main__ import machine

BUFFERS = "--xla_gpu_enable_command_buffer"
CAPTURED = "+WHILE,+CONDITIONAL"
"""Kinds of XLA operations that command buffers take in addition."""


MOST_SECONDS = 120.0
"""Time that one measurement gets."""


class Measurement(NamedTuple):
    """One process."""

    title: str
    words: tuple[object, ...]
    flags: str = ""
    """Further XLA flags, for GPUs only."""
    on_cpu: bool = False


def measurements(tiny: bool, folder: str) -> list[Measurement]:
    """Return what is measured, the most wanted first."""

    def size(full: int, small: int) -> int:
        return small if tiny else full

    few, some, many = size(8, 5), size(64, 5), size(1024, 6)
    turns = size(2, 1)
    lenet, d, huge = "GN-LeNet: convolution in three forms", size(89_834, 3_000), size(10_000_000, 10_000)
    mlp = ("rounds", "W1", many, size(20, 2))
    plan = [
        Measurement("Peaks", ("peaks", size(8192, 256), size(2**28, 2**16))),
        *(Measurement(lenet, ("rounds", "W2", n, turns, "float32", "patches")) for n in (few, some, many)),
        *(Measurement(lenet, ("rounds", "W2", many, turns, kind, "patches")) for kind in ("tensorfloat32", "bfloat16")),
        Measurement(lenet, ("rounds", "W2", some, turns, "float32", "grouped")),
        Measurement(lenet, ("rounds", "W2", some, turns, "tensorfloat32", "grouped")),
        Measurement(lenet, ("rounds", "W2", many, turns, "float32", "patches", some)),
        *(Measurement("MLP 784-32-10", ("rounds", "W1", n, size(20, 2))) for n in (some, many, size(8192, 8))),
        *(
            Measurement(f"MLP, command buffers: {kinds or 'none'}", mlp, f"{BUFFERS}={kinds}")
            for kinds in ("", CAPTURED)
        ),
        *(Measurement("Mixing", ("mixing", many, d, form)) for form in ("table", "dense")),
        *(Measurement("Mixing", ("mixing", size(64, 8), huge, form)) for form in ("table", "dense")),
        Measurement("JWINS without training", ("jwins", size(96, 6), d, 4)),
        Measurement("Events", ("pairs", size(1_000_000, 1000), size(5_000_000, 20_000), size(10_000, 1000))),
        Measurement("Versions", ("versions", size(1000, 50), size(100_000, 2000), 0)),
        Measurement("Versions", ("versions", size(1_000_000, 1000), size(1_000_000, 2000), 8)),
        Measurement("Seeds", ("seeds", size(100, 4), 1, *((8, 64) if not tiny else (2,)))),
        Measurement("The host's part", ("gap", size(100, 8), size(50, 4))),
        Measurement("Equality", ("equal", folder), on_cpu=True),
        Measurement("Equality with the CPU (to 1e-5)", ("equal", folder)),
    ]
    return list(dict.fromkeys(plan))  # tiny sizes coincide


def measure(what: Measurement, seconds: float) -> dict[str, Any]:
    """Run a measurement in a process; return its answer, or the reason why there is none."""
    environment = os.environ | ({"JAX_PLATFORMS": "cpu"} if what.on_cpu else {})
    if what.flags:
        environment["XLA_FLAGS"] = f"{environment.get('XLA_FLAGS', '')} {what.flags}".strip()
    command = [sys.executable, "-m", "benchmarks.gpu_cases", *map(str, what.words)]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return {"missing": f"not done after {seconds:.0f} s"}
    if done.returncode:
        return {"missing": (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1][:160]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def lines(title: str, found: dict[str, Any], limits: dict[str, float], name: str) -> list[str]:
    """Return the rows of the table for one measurement."""
    if "missing" in found:
        return [f"| {title} | {name} | - | - | - | {found['missing']} |"]
    memory = f"{found['peak_bytes'] / 1e9:.2f}"
    return [
        f"| {title} | {row['what']} | {_value(row)} | {_share(row, limits)} | {memory} | |" for row in found["rows"]
    ]


def _value(row: dict[str, Any]) -> str:
    if "error" in row:
        return f"{row['error']:.1e}{'' if row['error'] <= 1e-5 else ' (too large)'}"
    if "events" in row:
        return f"{row['events'] / row['s'] / 1e6:.3g} million events/s"
    return f"{1e3 * row['s']:.4g} ms"


def _share(row: dict[str, Any], limits: dict[str, float]) -> str:
    if "flops" in row:
        rate, peak = row["flops"] / row["s"], limits.get(f"matmul {row.get('precision', '')}")
        return f"{rate / 1e12:.3g} TFLOP/s" + (f", {rate / peak:.0%}" if peak else "")
    if "bytes" in row:
        rate, peak = row["bytes"] / row["s"], limits.get("copy")
        return f"{rate / 1e9:.4g} GB/s" + (f", {rate / peak:.0%}" if peak and row["what"] != "copy" else "")
    return ""


def main(words: Sequence[str] | None = None) -> int:
    """Run all measurements in order of value, until the time is over, and write the table."""
    parser = argparse.ArgumentParser(prog="benchmarks/gpu.sh", description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="sizes for a trial on a CPU")
    parser.add_argument("--minutes", type=float, default=10.0, metavar="M", help="time after which nothing more begins")
    parser.add_argument("--out", type=pathlib.Path, metavar="FILE", help="the table; default: benchmarks/results")
    options = parser.parse_args(words)
    end, console, limits = time.monotonic() + 60 * options.minutes, Console(width=160), {}
    table, head = [], ["# An accelerator", "", f"{datetime.date.today()}. {machine()}", ""]
    columns = "| part | what | median | rate, share of peak | peak GB | remark |\n| --- | --- | --- | --- | --- | --- |"
    out = options.out
    with tempfile.TemporaryDirectory() as folder:
        for what in measurements(options.tiny, folder):
            left = end - time.monotonic()
            found = measure(what, min(max(left, 20.0), MOST_SECONDS)) if left > 0 else {"missing": "no time left"}
            if "rows" in found and not table:
                said = f"{found['device']} ({found['backend']})"
                head[0] = f"# An accelerator: {said}" + (", tiny sizes" if options.tiny else "")
                out = out or pathlib.Path("benchmarks/results") / f"{datetime.date.today()}-{found['backend']}.md"
                limits = {row["what"]: row.get("flops", row.get("bytes")) / row["s"] for row in found["rows"]}
            if what.on_cpu and "rows" in found:
                continue
            new = lines(what.title, found, limits, " ".join(map(str, what.words)).replace(folder, "").strip())
            table += new
            console.print("\n".join(new), markup=False)
            if out is not None:
                out.write_text("\n".join([*head, columns, *table, ""]), encoding="utf-8")
    console.print(f"The table is in {out}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
