# %% [markdown]
# # Does Ω(log n) really suffice?
#
# Nodes update their models at rate m and push them to random others at rate λ. *Staleness* is how many updates of a
# node another one has not heard of. Mitra and Ulukus (2024) show that λ = Ω(log n) keeps it bounded. Is that enough, is
# it needed, and what breaks it? Change the numbers of the first cell and run all: answers come in seconds.
#
# Open this file as a notebook (Jupyter with Jupytext, VS Code, Spyder, PyCharm), or run it as a script.

# %%
SIZES = (16, 64, 256, 1024)
"""Nodes of the networks that are simulated."""
CAPACITY = "ln n"
"""Pushes per node and second: "1", "√ln n", "ln n" or "n"."""
SHIFT = 0.5
"""Seconds that every local update takes at the least; the rest is random, so that m = 1."""
FLIGHT_TIME = 0.0
"""Seconds that a message is on its way: try 0.5, and see λ = ln n fail."""
RUNS = 6
"""Independent networks of each size."""

# %%
import jax
import jax.numpy as jnp
import numpy as np

import gossipjax as gj
from gossipjax.figure import Figure
from gossipjax.staleness import staleness_by_source
from gossipjax.timeline import aligned, clocks, push_gossip
from theory import scaling, staleness

RATES = {"1": lambda n: n**0.0, "√ln n": lambda n: np.log(n) ** 0.5, "ln n": np.log, "n": lambda n: 1.0 * n}


def delay(n: int) -> float:
    """How long news travels on average, in seconds."""
    rate = float(RATES[CAPACITY](n))
    if FLIGHT_TIME:
        return FLIGHT_TIME + staleness.flight_time_staleness(
            n, gossip_rate=rate, flight_time=FLIGHT_TIME, update_rate=1.0
        )
    return float(staleness.mean_staleness(n, gossip_rate=rate, update_rate=1.0))


def measured(n: int) -> np.ndarray:
    """Mean staleness of each run: four delays to forget the start, then six records two delays apart."""
    times = delay(n) * (4 + 2 * np.arange(1, 7)) + 1.0
    plans = [
        push_gossip(
            n,
            float(times[-1]),
            compute=clocks.shifted_exponential(SHIFT, 1.0 - SHIFT) if SHIFT < 1 else clocks.deterministic(1.0),
            gossip=float(RATES[CAPACITY](n)),
            latency=FLIGHT_TIME or None,
            seed=seed,
        )
        for seed in range(RUNS)
    ]
    plans, every = aligned(plans, times)
    protocol = gj.track_versions(gj.gossip_averaging(), 8, num_nodes=n)
    found = []
    for seed, plan in enumerate(plans):
        run = gj.simulate(
            jax.random.key(seed), protocol, plan, jnp.zeros(n), observers=[staleness_by_source()], record_every=every
        )
        found.append(float(run["staleness_of_source"][1:].mean()))
    return np.asarray(found)


samples = [measured(n) for n in SIZES]
mean = np.asarray([values.mean() for values in samples])
error = np.asarray([values.std(ddof=1) / np.sqrt(RUNS) for values in samples])
for n, value, half in zip(SIZES, mean, 2 * error, strict=True):
    print(
        f"n = {n:5}: a node is {value:.2f} ± {half:.2f} updates behind; theory without flight time "
        f"{staleness.mean_staleness(n, gossip_rate=float(RATES[CAPACITY](n)), update_rate=1.0):.2f}"
    )

# %% [markdown]
# ## Which law is it?
#
# Constant, a bounded approach a + b/ln n, a logarithm, or a power? The criterion is AIC with the known standard errors;
# a difference beyond 10 is decisive.

# %%
comparison = scaling.compare(np.asarray(SIZES), mean, error, laws=("constant", "saturating", "logarithm", "power"))
print(comparison.verdict)
figure = Figure(figsize=(6, 3.8), dpi=110, layout="constrained")
ax = scaling.plot(comparison, figure.subplots(), ylabel="mean staleness (updates)")
line = np.geomspace(SIZES[0], SIZES[-1], 100)
exact = [
    staleness.mean_staleness(n, gossip_rate=RATES[CAPACITY](n), update_rate=1.0) for n in line.astype(int).tolist()
]
ax.plot(line, exact, ":", color="black", label="exact, messages that take no time")
ax.set_title(f"λ = {CAPACITY}, c = {SHIFT} s, flight time {FLIGHT_TIME} s", loc="left", fontsize=9)
ax.legend(frameon=False, fontsize=7)
figure

# %% [markdown]
# ## What to try
#
# - `CAPACITY = "1"`: the logarithm wins. `"√ln n"`: it still grows, slowly. So Ω(log n) is needed as well as enough.
# - `FLIGHT_TIME = 0.5`: capacity ln n no longer bounds staleness, as news needs about ln n / ln(λd) hops of d seconds.
# - `SHIFT = 1.0`: metronomes instead of random clocks. The mean stays what it is: only the rate m matters.
