# %% [markdown]
# # Does Ω(log n) really suffice?
#
# Nodes update their models at rate m and push them to random nodes at rate λ. *Staleness* is the number of updates of a
# node that another node has not heard of. Mitra and Ulukus (2024) show that λ = Ω(log n) keeps it bounded. Is that
# enough? Is it necessary? What breaks it? Change the numbers in the first cell and run all cells; it takes seconds.
#
# Open this file as a notebook (Jupyter with Jupytext, VS Code, Spyder, PyCharm), or run it as a script.

# %%
SIZES = (16, 64, 256, 1024)
"""Numbers of nodes to simulate."""
CAPACITIES = ("1", "√ln n", "ln n")
"""Pushes per node and second to compare: any of "1", "√ln n", "ln n" and "n"."""
SHIFT = 0.5
"""Minimum seconds of a local update; the rest is random, such that m = 1."""
FLIGHT_TIME = 0.0
"""Seconds that a message is in flight: with 0.5, λ = ln n fails."""
RUNS = 6
"""Independent networks of each size."""
MARGIN = 0.05
"""Staleness counts as bounded up to this growth per factor e of n, as a share of the mean."""

# %%
import jax
import jax.numpy as jnp
import numpy as np

import gossipjax as gj
from gossipjax._base.figure import Figure
from gossipjax.observe import staleness_by_source
from gossipjax.timeline import align, clocks, push_gossip
from theory import scaling, staleness
from theory.check.policy import Band, decide

RATES = {"1": lambda n: n**0.0, "√ln n": lambda n: np.log(n) ** 0.5, "ln n": np.log, "n": lambda n: 1.0 * n}


def delay(n: int, rate: float) -> float:
    """Return how long news travels on average, in seconds."""
    if FLIGHT_TIME:
        return FLIGHT_TIME + staleness.flight_time_staleness(
            n, gossip_rate=rate, flight_time=FLIGHT_TIME, update_rate=1.0
        )
    return float(staleness.mean_staleness(n, gossip_rate=rate, update_rate=1.0))


def measured(n: int, rate: float) -> np.ndarray:
    """Return the mean staleness of each run: discard four delays, then record six times, two delays apart."""
    times = delay(n, rate) * (4 + 2 * np.arange(1, 7)) + 1.0
    plans = [
        push_gossip(
            n,
            float(times[-1]),
            compute=clocks.shifted_exponential(SHIFT, 1.0 - SHIFT) if SHIFT < 1 else clocks.deterministic(1.0),
            gossip=rate,
            latency=FLIGHT_TIME or None,
            seed=seed,
        )
        for seed in range(RUNS)
    ]
    plans, every = align(plans, times)
    protocol = gj.track_versions(gj.gossip_averaging(), 8, num_nodes=n)
    means = []
    for seed, plan in enumerate(plans):
        run = gj.simulate(
            jax.random.key(seed),
            protocol,
            plan,
            jnp.zeros(n),
            observers=[staleness_by_source()],
            record_every=every,
            progress=False,
        )
        means.append(float(run["staleness_of_source"][1:].mean()))
    return np.asarray(means)


samples = {
    capacity: np.stack([measured(n, float(RATES[capacity](n))) for n in SIZES]) for capacity in CAPACITIES
}  # (sizes, runs) each

# %% [markdown]
# ## The answer
#
# For each run, fit the slope of staleness against ln n, as a share of the mean. "Bounded" means that the 95 % interval
# of the slope over the runs lies below the margin; "grows" means that it lies above.


# %%
def growth(values: np.ndarray) -> np.ndarray:
    """Return the growth in each run when n grows by the factor e, as a share of the mean staleness."""
    return np.polyfit(np.log(SIZES), values, 1)[0] / values.mean()


ANSWERS = {"reproduced": "bounded", "contradicted": "grows", "undecided": "undecided", "no verdict": "too few runs"}
answers = {}
for capacity, values in samples.items():
    verdict = decide(growth(values), Band(high=MARGIN))
    answers[capacity] = ANSWERS[verdict.word]
    theory = [staleness.mean_staleness(n, gossip_rate=float(RATES[capacity](n)), update_rate=1.0) for n in SIZES]
    print(
        f"λ = {capacity:6} {answers[capacity]:10} staleness "
        + ", ".join(f"{value:.2f}" for value in values.mean(axis=1))
        + f" at n = {', '.join(map(str, SIZES))} (theory without flight time "
        + ", ".join(f"{value:.2f}" for value in theory)
        + f"); {verdict.mean:+.1%} ± {verdict.half:.1%} when n grows by the factor e"
    )
enough = [capacity for capacity, answer in answers.items() if answer == "bounded"]
short = [capacity for capacity, answer in answers.items() if answer == "grows"]
print(f"Does Ω(log n) suffice? {'Yes' if 'ln n' in enough else 'No' if 'ln n' in short else 'Undecided'}", end="")
print(f"; bounded: λ = {', '.join(enough) or '–'}; growing: λ = {', '.join(short) or '–'}.")

# %% [markdown]
# ## Which law is it?
#
# Does staleness follow a constant, a bounded law a + b/ln n, a logarithm, or a power? The criterion is AIC with known
# standard errors; a difference above 10 is decisive. With so few sizes, a bounded law, a logarithm and a small power
# can look the same. The growth above does not depend on the law.

# %%
LAWS = ("constant", "saturating", "logarithm", "power")
figure = Figure(figsize=(3.2 * len(CAPACITIES), 3.6), dpi=110, layout="constrained")
panels = figure.subplots(1, len(CAPACITIES), squeeze=False)[0]
line = np.geomspace(SIZES[0], SIZES[-1], 100)
comparisons = {}
for ax, (capacity, values) in zip(panels, samples.items(), strict=True):
    mean, error = values.mean(axis=1), values.std(axis=1, ddof=1) / np.sqrt(RUNS)
    comparisons[capacity] = scaling.compare(np.asarray(SIZES), mean, error, laws=LAWS)
    print(f"λ = {capacity}: {comparisons[capacity].verdict}")
    scaling.plot(comparisons[capacity], ax, ylabel="mean staleness (updates)")
    exact = [
        staleness.mean_staleness(n, gossip_rate=float(RATES[capacity](n)), update_rate=1.0)
        for n in line.astype(int).tolist()
    ]
    ax.plot(line, exact, ":", color="black", label="exact, without flight time")
    ax.set_ylim(bottom=0)
    ax.set_title(f"λ = {capacity}: {answers[capacity]}", loc="left", fontsize=9)
    ax.legend(frameon=False, fontsize=6)
figure.suptitle(f"c = {SHIFT} s, flight time {FLIGHT_TIME} s, {RUNS} runs per size, ± 95 %", fontsize=9)
figure

# %% [markdown]
# ## What to try
#
# - `FLIGHT_TIME = 0.5`: λ = ln n no longer bounds staleness, because news needs about ln n / ln(λd) hops of d seconds.
# - `SHIFT = 1.0`: periodic clocks instead of random ones. The mean does not change: only the rate m matters.
# - `CAPACITIES = ("ln n", "n")`: more capacity than necessary.
