"""Which topology should I use? Sliders for the number of nodes and the learning problem."""

import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="Which topology should I use?")

with app.setup:
    import math

    import jax
    import jax.numpy as jnp
    import marimo as mo
    import numpy as np
    import optax
    from jax.tree_util import Partial

    import gossipjax as gj
    from gossipjax import observe, topology
    from gossipjax._base.figure import Figure
    from theory import consensus, mixing, spectral

    ROUNDING = 1e-9
    """Disagreement below this share of the largest one is rounding error."""
    LABELS_LEFT = ("random 4-regular", "exponential", "complete")
    """Their labels stand to the left of their points, where a neighbour has its label to the right."""
    COLUMNS = {
        "messages": "messages a round",
        "gap": "spectral gap",
        "neighbours": "effective neighbours",
        "settled": "disagreement, simulated",
        "predicted": "disagreement, theory",
    }
    # What the sliders begin with.
    SETTINGS = {
        "nodes": 64,
        "step_size": 0.1,
        "noise": 1.0,
        "heterogeneity": 1.0,
        "rounds": 120,
    }


@app.cell
def _():
    mo.md("""
    # Which topology should I use?

    A topology costs messages and buys mixing. This page compares the common topologies for a number of nodes and a
    learning problem (SGD on quadratics): the messages of a round, how fast disagreement decays, the disagreement
    that remains during learning, and the prediction of theory.
    """)
    return


@app.function
def sliders():
    """Return the sliders and lists of this page."""
    return dict(
        nodes=mo.ui.slider(steps=[16, 64, 256], value=SETTINGS["nodes"], show_value=True),
        step_size=mo.ui.slider(steps=[0.01, 0.03, 0.1, 0.3], value=SETTINGS["step_size"], show_value=True),
        noise=mo.ui.slider(0.0, 2.0, 0.5, value=SETTINGS["noise"], show_value=True),
        heterogeneity=mo.ui.slider(0.0, 4.0, 0.5, value=SETTINGS["heterogeneity"], show_value=True),
        rounds=mo.ui.slider(60, 300, 60, value=SETTINGS["rounds"], show_value=True),
    )


@app.cell
def _():
    controls = mo.md(
        """
        {nodes} Nodes: squares and powers of two, as the torus and the hypercube require

        {step_size} Step size

        {noise} Standard deviation of each gradient coordinate

        {heterogeneity} Standard deviation of the nodes' local optima

        {rounds} Rounds
        """
    ).batch(**sliders())
    controls
    return (controls,)


@app.function
def graphs_of(n):
    """Return the topologies by name; the torus and the hypercube only where they have exactly this many nodes."""
    side, dimension = math.isqrt(n), n.bit_length() - 1
    graphs = {
        "ring": topology.ring(n),
        "torus": topology.torus(side, side) if side**2 == n else None,
        "random 4-regular": topology.random_regular(n, 4, seed=0, tries=20),
        "hypercube": topology.hypercube(dimension) if 2**dimension == n else None,
        "exponential": topology.exponential(n),
        "star": topology.star(n),
        "complete": topology.complete(n),
    }
    return {name: graph for name, graph in graphs.items() if graph is not None}


@app.function
def weights_of(graph):
    """Return Metropolis weights, or uniform weights for the directed exponential graph (doubly stochastic)."""
    return gj.mixing.uniform(graph) if graph.directed else gj.mixing.metropolis(graph)


@app.function
def row_of(graph, settings):
    """Return what a topology costs and buys: columns of the table, and the disagreement of every round."""
    n, rounds, matrix = graph.num_nodes, settings["rounds"], weights_of(graph).toarray()
    targets = settings["heterogeneity"] * np.random.default_rng(0).standard_normal((n, 8))
    task = gj.tasks.quadratic(targets, noise_std=settings["noise"])
    run = gj.simulate(
        jax.random.key(0),
        gj.dpsgd(task, Partial(optax.sgd, settings["step_size"])),
        gj.timeline.rounds(matrix, rounds),  # dense, so that all topologies share a compiled program
        jnp.zeros((n, 8)),
        observers=[observe.consensus_distance()],
        record_every=1,
        progress=False,
    )
    path = np.asarray(run["consensus_distance"])
    step = {"step_size": settings["step_size"], "noise_std": settings["noise"]}
    return {
        "messages": float(run["messages_sent"][-1]) / rounds,
        "gap": spectral.spectral_gap(matrix),
        "neighbours": mixing.effective_neighbors(matrix, 0.95),
        "settled": path[rounds // 2 :].mean(),
        "predicted": consensus.lyapunov_consensus(matrix, np.ones(n), targets, **step),
        "path": path,
    }


@app.function
def exact_ones(rows):
    """Return the topologies that average exactly, which leave no disagreement except rounding errors."""
    largest = max(row["predicted"] for row in rows.values())
    return {name for name, row in rows.items() if row["predicted"] <= ROUNDING * largest}


@app.function
def cheapest_within(rows, factor):
    """Return the topology with the fewest messages whose disagreement is within a factor of the best inexact one."""
    others = {name: row for name, row in rows.items() if name not in exact_ones(rows)}
    if not others:
        return None
    best = min(row["predicted"] for row in others.values())
    near = {name: row["messages"] for name, row in others.items() if row["predicted"] <= factor * best}
    return min(near, key=lambda name: (near[name], rows[name]["predicted"]))


@app.cell
def _(controls):
    settings = controls.value
    rows = {name: row_of(graph, settings) for name, graph in graphs_of(settings["nodes"]).items()}
    return (rows,)


@app.cell
def _(rows):
    _choice = cheapest_within(rows, 2.0)
    _head = f"| topology | {' | '.join(COLUMNS.values())} |\n|{' --- |' * (len(COLUMNS) + 1)}"
    _lines = [f"| {name} | {' | '.join(f'{row[column]:.4g}' for column in COLUMNS)} |" for name, row in rows.items()]
    _said = (
        "Without noise and heterogeneity the models never differ: take the cheapest connected graph."
        if _choice is None
        else f"**{_choice}** has the fewest messages, {rows[_choice]['messages']:g} a round, of those whose"
        " disagreement is at most twice the least (the complete graph, which leaves none, aside)."
    )
    answer = "\n".join([_said, "", _head, *_lines])
    mo.md(answer)
    return


@app.function
def drawn(rows):
    """Draw disagreement over rounds, and what messages buy; exact topologies lie at the lower edge."""
    figure = Figure(figsize=(7.2, 3.4), dpi=110, layout="constrained")
    left, right = figure.subplots(1, 2)
    styles = ("-", (0, (5, 1.5)), (0, (6, 1.5, 1.2, 1.5)), (0, (1.5, 1.2)), (0, (8, 2)), (0, (3, 1.2)), "-")
    exact = exact_ones(rows)
    floor = 0.2 * min((row["predicted"] for name, row in rows.items() if name not in exact), default=1.0)
    for (name, row), style in zip(rows.items(), styles, strict=False):
        path, settled = row["path"], row["predicted"]
        if name in exact:
            path, settled = np.full(len(path), floor), floor
        label = f"{name}: 0" if name in exact else name
        # All nodes start from the same model, so the first record is 0.
        (line,) = left.plot(np.arange(1, len(path)), path[1:], linestyle=style, linewidth=1.1, label=label)
        if name not in exact:
            left.axhline(settled, color=line.get_color(), linewidth=0.6, linestyle=":")
        right.plot(row["messages"], settled, "v" if name in exact else "o", color=line.get_color())
        side, place = ("right", (-6, -3)) if name in LABELS_LEFT else ("left", (6, -3))
        right.annotate(label, (row["messages"], settled), textcoords="offset points", xytext=place, ha=side, fontsize=7)
    left.set(yscale="log", xlabel="round", ylabel="disagreement")
    right.set(xscale="log", yscale="log", xlabel="messages a round", ylabel="disagreement (theory)")
    left.set_ylim(bottom=0.7 * floor)
    right.margins(x=0.4, y=0.25)
    left.set_title("simulated; dotted: theory, steady state", fontsize=9)
    right.set_title("what messages buy", fontsize=9)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=7)
    return figure


@app.cell
def _(rows):
    figure = drawn(rows)
    figure
    return


@app.cell
def _():
    mo.md("""
    ## How to read it

    - Topologies of equal cost differ: a random 4-regular graph costs as much as a torus and mixes better. The
      exponential graph costs log₂ n messages a node and mixes almost like the complete graph.
    - Without heterogeneity only gradient noise drives the models apart; with much of it the data do, and sparse
      graphs suffer most.
    - The star is as cheap as a tree, but its hub is busy: look at its gap, and consider the bandwidth of the hub.
    """)
    return


if __name__ == "__main__":
    app.run()
