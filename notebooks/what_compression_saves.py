"""What does compression save? Sliders for the network, the data and the share that is sent."""

import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="What does compression save?")

with app.setup:
    import jax
    import marimo as mo
    import numpy as np
    import optax
    from jax.tree_util import Partial

    import gossipjax as gj
    from gossipjax._base.figure import Figure

    SCHEMES = ("full", "random", "top-k", "JWINS", "8 bits")
    RECORDS = 12
    # What the sliders begin with.
    SETTINGS = {
        "nodes": 16,
        "topology": "random 4-regular",
        "alpha": 0.5,
        "share": 10,
        "rounds": 120,
        "schemes": ["random", "top-k", "JWINS"],
        "target": 95,
    }


@app.cell
def _():
    mo.md("""
    # What does compression save?

    Nodes learn to read digits with D-PSGD and a linear model, and send whole models, a random part, the coordinates
    that changed most, JWINS's random share of wavelet coefficients, or 8 bits a value. Bytes are exact and contain
    the positions. How many bytes does each need to the same accuracy?
    """)
    return


@app.function
def sliders():
    """Return the sliders and lists of this page."""
    return dict(
        nodes=mo.ui.slider(steps=[16, 36, 64], value=SETTINGS["nodes"], show_value=True),
        topology=mo.ui.dropdown(["random 4-regular", "ring", "complete"], value=SETTINGS["topology"]),
        alpha=mo.ui.slider(steps=[0.1, 0.5, 1.0, 10.0], value=SETTINGS["alpha"], show_value=True),
        share=mo.ui.slider(steps=[5, 10, 20, 40], value=SETTINGS["share"], show_value=True),
        rounds=mo.ui.slider(steps=[60, 120, 240, 480], value=SETTINGS["rounds"], show_value=True),
        schemes=mo.ui.multiselect(SCHEMES[1:], value=SETTINGS["schemes"]),
        target=mo.ui.slider(80, 99, 1, value=SETTINGS["target"], show_value=True),
    )


@app.cell
def _():
    controls = mo.md(
        """
        {nodes} Nodes

        {topology} Topology

        {alpha} Dirichlet α of the labels: small means that nodes have few classes

        {share} Percent of the coordinates in a message (random, top-k)

        {rounds} Rounds

        {schemes} Schemes to compare with whole models

        {target} Percent of the gain of whole models that is the target
        """
    ).batch(**sliders())
    controls
    return (controls,)


@app.function
def sharing_of(scheme, share):
    """Return the sharing of a scheme."""
    return {
        "full": lambda: gj.sharing.full(),
        "random": lambda: gj.sharing.random_subset(share),
        "top-k": lambda: gj.sharing.top_k(share),
        "JWINS": lambda: gj.sharing.jwins(),
        "8 bits": lambda: gj.sharing.compressed(gj.compress.qsgd(127)),
    }[scheme]()


@app.function
def curves_of(settings):
    """Return the mean accuracy of the nodes and the megabytes that a node has sent, at every record, by scheme."""
    n, data = settings["nodes"], gj.tasks.digits()
    shards = gj.tasks.dirichlet(data.train.labels, n, alpha=settings["alpha"], seed=0)
    task = gj.tasks.classification(data, shards, gj.tasks.softmax_regression(64, 10))
    graph = {
        "random 4-regular": lambda: gj.topology.random_regular(n, 4, seed=0),
        "ring": lambda: gj.topology.ring(n),
        "complete": lambda: gj.topology.complete(n),
    }[settings["topology"]]()
    rounds, curves = settings["rounds"], {}
    for scheme in ("full", *settings["schemes"]):
        run = gj.simulate(
            jax.random.key(0),
            gj.dpsgd(task, Partial(optax.sgd, 0.1), sharing=sharing_of(scheme, settings["share"] / 100)),
            gj.timeline.rounds(gj.mixing.metropolis(graph), rounds),
            task,
            observers=[gj.observe.node_metrics(task)],
            record_every=rounds // RECORDS,
            progress=False,
        )
        accuracy = np.asarray(run["test_accuracy"].sel(statistic="mean"))
        curves[scheme] = accuracy, np.asarray(run["bytes_sent"]) / (1e6 * n)
    return curves


@app.function
def megabytes_to(curve, target):
    """Return the megabytes at the first record that reaches the target, interpolated from the one before; or NaN."""
    accuracy, sent = curve
    reached = np.flatnonzero(accuracy >= target)
    if not len(reached):
        return np.nan
    k = reached[0]
    if k == 0:
        return sent[0]
    part = (target - accuracy[k - 1]) / (accuracy[k] - accuracy[k - 1])
    return sent[k - 1] + part * (sent[k] - sent[k - 1])


@app.cell
def _(controls):
    settings = controls.value
    curves = curves_of(settings)
    _start, _end = curves["full"][0][0], curves["full"][0][-1]
    target = _start + settings["target"] / 100 * (_end - _start)
    return curves, settings, target


@app.cell
def _(curves, settings, target):
    _needed = {scheme: megabytes_to(curve, target) for scheme, curve in curves.items()}
    _lines = [
        f"| {scheme} | {accuracy[-1]:.3f} | {sent[-1]:.4g} | "
        + (
            f"{_needed[scheme]:.4g} | {1 - _needed[scheme] / _needed['full']:.0%} |"
            if _needed[scheme] > 0
            else "– | – |"
        )
        for scheme, (accuracy, sent) in curves.items()
    ]
    _reached = {scheme: value for scheme, value in _needed.items() if value > 0 and scheme != "full"}
    _best = min(_reached, key=_reached.get, default=None)
    answer = "\n".join(
        [
            f"No compressed scheme reaches an accuracy of {target:.3f} in {settings['rounds']} rounds."
            if _best is None
            else f"**{_best} needs {1 - _reached[_best] / _needed['full']:.0%} fewer bytes than whole models** to an"
            f" accuracy of {target:.3f}."
            if _reached[_best] < _needed["full"]
            else f"No scheme needs fewer bytes than whole models to an accuracy of {target:.3f}.",
            "",
            "| scheme | accuracy at the end | MB a node in all | MB a node to the target | saved |",
            "| --- | --- | --- | --- | --- |",
            *_lines,
        ]
    )
    mo.md(answer)
    return


@app.function
def drawn(curves, target):
    """Draw accuracy over rounds and over bytes."""
    figure = Figure(figsize=(7.2, 3.2), dpi=110, layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for scheme, (accuracy, sent) in curves.items():
        left.plot(np.linspace(0, 100, len(accuracy)), accuracy, label=scheme)
        right.plot(sent, accuracy, label=scheme)
    for ax in (left, right):
        ax.axhline(target, color="black", linewidth=0.6, linestyle=":")
    left.set(xlabel="% of the rounds", ylabel="test accuracy")
    right.set(xlabel="MB sent by a node")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False, fontsize=8)
    return figure


@app.cell
def _(curves, target):
    figure = drawn(curves, target)
    figure
    return


@app.cell
def _():
    mo.md("""
    ## How to read it

    - At equal rounds compression loses; at equal bytes it often wins. Which axis matters depends on your links.
    - One seed: differences of a point of accuracy are noise. `gj.sweep` repeats a run over seeds.
    - Step sizes are the same for all schemes. A fair comparison tunes each.
    """)
    return


if __name__ == "__main__":
    app.run()
