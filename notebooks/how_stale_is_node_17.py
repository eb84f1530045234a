"""How stale is node 17? Sliders for the network, the clocks, slow devices and the flight time."""

import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="How stale is node 17?")

with app.setup:
    import math

    import jax
    import jax.numpy as jnp
    import marimo as mo
    import numpy as np

    import gossipjax as gj
    from gossipjax._base.figure import Figure
    from gossipjax.timeline import clocks
    from theory import staleness

    NODE = 17
    RECORDS = 200
    """Instants at which staleness is read."""
    TOPOLOGIES = ("complete", "random 4-regular", "torus", "ring")
    # What the sliders begin with.
    SETTINGS = {
        "nodes": 64,
        "rate": 4.0,
        "topology": "complete",
        "clock": "poisson",
        "slowness": 1,
        "flight_time": 0.0,
    }


@app.cell
def _():
    mo.md("""
    # How stale is node 17?

    Every node updates its model once a second on average, and pushes it to a random neighbour λ times a second. The
    *staleness* of node 17 about node j is the number of updates of j that node 17 has not heard of. One network is
    simulated, with counters of versions in place of models.
    """)
    return


@app.function
def sliders():
    """Return the sliders and lists of this page."""
    return dict(
        nodes=mo.ui.slider(steps=[25, 36, 64, 100, 144, 256], value=SETTINGS["nodes"], show_value=True),
        rate=mo.ui.slider(0.5, 10.0, 0.5, value=SETTINGS["rate"], show_value=True),
        topology=mo.ui.dropdown(TOPOLOGIES, value=SETTINGS["topology"]),
        clock=mo.ui.dropdown(["poisson", "periodic"], value=SETTINGS["clock"]),
        slowness=mo.ui.slider(steps=[1, 2, 5, 10], value=SETTINGS["slowness"], show_value=True),
        flight_time=mo.ui.slider(0.0, 2.0, 0.1, value=SETTINGS["flight_time"], show_value=True),
    )


@app.cell
def _():
    controls = mo.md(
        """
        {nodes} Nodes

        {rate} Pushes λ of a node, each second

        {topology} Topology

        {clock} Clock of the updates

        {slowness} How many times slower node 17 is than the others, in updates and in pushes

        {flight_time} Seconds that a message is in flight
        """
    ).batch(**sliders())
    controls
    return (controls,)


@app.function
def graph_of(name, n):
    """Return the number of nodes for the complete graph, and a topology otherwise.

    Raises:
        ValueError: if n is not a square, for the torus.
    """
    side = math.isqrt(n)
    if name == "torus" and side**2 != n:
        raise ValueError(f"nodes={n}: a torus needs a square number of nodes, such as {side**2} or {(side + 1) ** 2}")
    return {
        "complete": lambda: n,
        "random 4-regular": lambda: gj.topology.random_regular(n, 4, seed=0),
        "torus": lambda: gj.topology.torus(side, side),
        "ring": lambda: gj.topology.ring(n),
    }[name]()


@app.function
def settling_seconds(graph, rate, flight_time):
    """Return the seconds until news has crossed the network, with room: hops of a path, each 1/λ and a flight."""
    hops = np.log(graph) if isinstance(graph, int) else graph.num_nodes / 2 if graph.name.startswith("ring") else 12.0
    return 4 * hops * (2 / rate + flight_time) + 10.0


@app.function
def staleness_of_node(graph, settings):
    """Return the staleness of node 17 at all instants about all other nodes, ``(records, n - 1)``."""
    n = graph if isinstance(graph, int) else graph.num_nodes
    slow = np.where(np.arange(n) == NODE, float(settings["slowness"]), 1.0)
    base = clocks.poisson(1.0) if settings["clock"] == "poisson" else clocks.deterministic(1.0)
    start = settling_seconds(graph, settings["rate"], settings["flight_time"])
    times = start * (1 + np.arange(1, RECORDS + 1) / RECORDS * 4)
    plan = gj.timeline.push_gossip(
        graph,
        float(times[-1]) + 1.0,
        compute=clocks.slowed(base, slow),
        gossip=clocks.slowed(clocks.poisson(settings["rate"]), slow),
        latency=settings["flight_time"] or None,
        seed=0,
    )
    run = gj.simulate(
        jax.random.key(0),
        gj.track_versions(gj.gossip_averaging(), num_nodes=n),
        plan,
        jnp.zeros(n),
        observers=[gj.observe.staleness_matrix()],
        record_times=times,
        progress=False,
    )
    stale = np.asarray(run["staleness_matrix"])[1:, NODE]
    return np.delete(stale, NODE, axis=1)


@app.function
def predicted(settings):
    """Return the exact mean staleness of node 17; None with slow nodes, flight times, and on other graphs."""
    n, rate = settings["nodes"], settings["rate"]
    if settings["flight_time"] or settings["slowness"] != 1:
        return None
    if settings["topology"] == "complete":
        return float(staleness.mean_staleness(n, gossip_rate=rate, update_rate=1.0))
    if settings["topology"] == "ring":
        return float(np.mean([staleness.ring_delay(n, distance, rate) for distance in range(1, n)]))
    return None


@app.cell
def _(controls):
    settings = controls.value
    graph = graph_of(settings["topology"], settings["nodes"])
    stale = staleness_of_node(graph, settings)
    exact = predicted(settings)
    return exact, settings, stale


@app.cell
def _(exact, settings, stale):
    _others = np.delete(np.arange(settings["nodes"]), NODE)
    _oldest = stale.mean(axis=0).argmax()
    answer = (
        f"**Node {NODE} misses {stale.mean():.2f} updates of another node on average**; in 95 % of all cases at most"
        f" {int(np.quantile(stale, 0.95, method='higher'))}, and never more than {int(stale.max())}. It knows least of"
        f" node {_others[_oldest]}, {stale[:, _oldest].mean():.2f} updates behind on average."
    ) + (
        f" The exact mean over all time is {exact:.2f}."
        if exact is not None
        else " There is no exact formula for these settings."
    )
    mo.md(answer)
    return


@app.function
def drawn(stale, settings, exact):
    """Draw how often node 17 is how far behind, with the exact law where it holds, and its mean over time."""
    figure = Figure(figsize=(7.2, 3.2), dpi=110, layout="constrained")
    left, right = figure.subplots(1, 2)
    shares = np.bincount(stale.astype(int).ravel()) / stale.size
    left.bar(np.arange(len(shares)), shares, width=0.8, label="simulated")
    if exact is not None and settings["clock"] == "poisson" and settings["topology"] == "complete":
        law = staleness.staleness_pmf(
            settings["nodes"], gossip_rate=settings["rate"], update_rate=1.0, size=len(shares)
        )
        left.plot(np.arange(len(law)), law, "o", color="black", markersize=3, label="exact law")
    left.set(xlabel="updates behind", ylabel="share of instants and nodes")
    left.legend(frameon=False)
    right.plot(stale.mean(axis=1), linewidth=1)
    right.set(xlabel="instant", ylabel="mean over the other nodes")
    right.set_ylim(bottom=0)
    return figure


@app.cell
def _(exact, settings, stale):
    figure = drawn(stale, settings, exact)
    figure
    return


@app.cell
def _():
    mo.md("""
    ## What to try

    - Twice λ halves the staleness on the complete graph; on a ring news still needs about n/4 hops.
    - A slow node 17 is *not* staler: others push to it as often as before. They are staler about the rest only as
      far as news went through node 17.
    - A flight time adds to every hop, so that a larger λ does not help beyond a point.
    """)
    return


if __name__ == "__main__":
    app.run()
