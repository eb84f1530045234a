# %% [markdown]
# # Which topology should I use?
#
# A topology costs messages and buys mixing. This notebook compares the common topologies for a number of nodes and a
# learning problem: the messages per round, how fast disagreement decays, the disagreement that remains during learning,
# and the prediction of theory. Change the numbers in the first cell and run all cells; it takes seconds.
#
# Open this file as a notebook (Jupyter with Jupytext, VS Code, Spyder, PyCharm), or run it as a script.

# %%
NODES = 64
"""A square and a power of two, as the torus and the hypercube require."""
STEP_SIZE = 0.1
NOISE = 1.0
"""Standard deviation of each gradient coordinate."""
HETEROGENEITY = 1.0
"""Standard deviation of the local optima of the nodes."""
ROUNDS = 120
SEED = 0

# %%
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial

import gossipjax as gj
from gossipjax import observe, topology
from gossipjax._base.figure import Figure
from theory import consensus, mixing, spectral

SIDE = round(NODES**0.5)
GRAPHS = {
    "ring": topology.ring(NODES),
    "torus": topology.torus(SIDE, SIDE),
    "random 4-regular": topology.random_regular(NODES, 4, seed=SEED, tries=20),
    "hypercube": topology.hypercube(int(np.log2(NODES))),
    "exponential": topology.exponential(NODES),
    "star": topology.star(NODES),
    "complete": topology.complete(NODES),
}
TARGETS = HETEROGENEITY * np.random.default_rng(SEED).standard_normal((NODES, 8))
TASK = gj.tasks.quadratic(TARGETS, noise_std=NOISE)


def weights_of(graph):
    """Return Metropolis weights, or uniform weights for the directed exponential graph (doubly stochastic)."""
    return gj.mixing.uniform(graph) if graph.directed else gj.mixing.metropolis(graph)


def run(graph):
    """Return the disagreement in each round of D-PSGD, and the messages per round."""
    plan = gj.timeline.rounds(weights_of(graph), ROUNDS)
    protocol = gj.dpsgd(TASK, Partial(optax.sgd, STEP_SIZE))
    watch = [observe.consensus_distance()]
    result = gj.simulate(
        jax.random.key(SEED), protocol, plan, jnp.zeros((NODES, 8)), observers=watch, record_every=1, progress=False
    )
    return np.asarray(result["consensus_distance"]), float(result["messages_sent"][-1]) / ROUNDS


# %%
rows = {}
for name, graph in GRAPHS.items():
    W = weights_of(graph).toarray()
    path, messages = run(graph)
    rows[name] = {
        "messages": messages,
        "gap": spectral.spectral_gap(W),
        "neighbours": mixing.effective_neighbors(W, 0.95),
        "predicted": consensus.lyapunov_consensus(W, np.ones(NODES), TARGETS, step_size=STEP_SIZE, noise_std=NOISE),
        "path": path,
    }
COLUMNS = ("messages", "gap", "neighbours", "settled", "predicted")
for row in rows.values():
    row["settled"] = row["path"][ROUNDS // 2 :].mean()
print(
    f"{'topology':18}"
    + "".join(f"{name:>12}" for name in COLUMNS)
    + "   (per round; spectral; effective; disagreement)"
)
for name, row in rows.items():
    print(f"{name:18}" + "".join(f"{row[column]:12.4g}" for column in COLUMNS))

# %% [markdown]
# A topology that averages exactly, such as the complete graph, leaves no disagreement except rounding errors. A
# logarithmic axis cannot show 0, so these topologies are drawn at the lower edge.

# %%
ROUNDING = 1e-9
"""Disagreement below this share of the largest one is rounding error."""
figure = Figure(figsize=(7.2, 3.4), dpi=110, layout="constrained")
left, right = figure.subplots(1, 2)
STYLES = ("-", (0, (5, 1.5)), (0, (6, 1.5, 1.2, 1.5)), (0, (1.5, 1.2)), (0, (8, 2)), (0, (3, 1.2)), "-")
largest = max(row["predicted"] for row in rows.values())
exact = {name for name, row in rows.items() if row["predicted"] < ROUNDING * largest}
floor = 0.2 * min(row["predicted"] for name, row in rows.items() if name not in exact)
for number, (name, row) in enumerate(rows.items()):
    path, settled = row["path"], row["predicted"]
    if name in exact:
        path, settled = np.full(len(path), floor), floor
    label = f"{name}: 0" if name in exact else name
    # All nodes start from the same model, so the first record is 0.
    (line,) = left.plot(np.arange(1, len(path)), path[1:], linestyle=STYLES[number], linewidth=1.1, label=label)
    if name not in exact:
        left.axhline(settled, color=line.get_color(), linewidth=0.6, linestyle=":")
    right.plot(row["messages"], settled, "v" if name in exact else "o", color=line.get_color())
    right.annotate(label, (row["messages"], settled), textcoords="offset points", xytext=(4, 4), fontsize=7)
left.set(yscale="log", xlabel="round", ylabel="disagreement", title="simulated; dotted: theory, steady state")
right.set(xscale="log", yscale="log", xlabel="messages per round", ylabel="steady-state disagreement (theory)")
left.set_ylim(bottom=0.7 * floor)
right.margins(0.25)
right.set_title("what messages buy")
figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=7)
figure

# %% [markdown]
# ## How to read it
#
# - Topologies of equal cost differ: a random 4-regular graph costs as much as a torus and mixes better. The exponential
#   graph costs log₂ n messages per node and mixes almost like the complete graph.
# - With `HETEROGENEITY = 0`, only gradient noise drives the models apart; with large values, the data do, and sparse
#   graphs suffer most.
# - The star is as cheap as a tree, but its hub is busy: look at its gap, and consider the bandwidth of the hub.
