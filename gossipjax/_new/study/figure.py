"""Draw what experiment.py stored."""

import pathlib

import matplotlib
import numpy as np
from scipy import stats

matplotlib.use("agg")
import matplotlib.pyplot as plt

import gossipjax as gj

HERE = pathlib.Path(__file__).parent


def main() -> None:
    """Draw mean accuracy over nodes, with a 95 % t-interval over seeds, against rounds."""
    paths = sorted((HERE / "results").glob("gamma-*.nc"))
    if not paths:
        raise SystemExit("no results; run python experiment.py first")
    figure, axes = plt.subplots(figsize=(5, 3.2), layout="constrained")
    for path in paths:
        run = gj.load(path)
        accuracy = run["test_accuracy"].sel(statistic="mean").transpose("seed", "record").values
        rounds, seeds = run["event"].values, len(accuracy)
        half = stats.t.ppf(0.975, seeds - 1) * accuracy.std(axis=0, ddof=1) / np.sqrt(seeds)
        (line,) = axes.plot(rounds, accuracy.mean(axis=0), label=f"γ = {path.stem.removeprefix('gamma-')}")
        axes.fill_between(
            rounds, accuracy.mean(axis=0) - half, accuracy.mean(axis=0) + half, color=line.get_color(), alpha=0.2
        )
    axes.set(xlabel="round", ylabel="test accuracy, mean over nodes")
    axes.legend(frameon=False)
    figure.savefig(HERE / "figure.png", dpi=150)
    print(HERE / "figure.png")


if __name__ == "__main__":
    main()
