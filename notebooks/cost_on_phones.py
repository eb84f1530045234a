"""What will this cost on phones? Sliders for the devices, the model and the system."""

import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="What will this cost on phones?")

with app.setup:
    import marimo as mo
    import numpy as np

    import gossipjax as gj
    from gossipjax._base.figure import Figure

    MEGABYTE = 1e6
    COLUMNS = {
        "hours": "hours",
        "sent": "MB sent by a phone",
        "most": "MB sent by the busiest phone",
        "training": "minutes of training of a phone",
        "updates": "trainings in all",
    }
    # What the sliders begin with.
    SETTINGS = {
        "phones": 100,
        "megabytes": 6.8,
        "share": 100,
        "local_steps": 5,
        "rounds": 50,
        "degree": 4,
        "sample": 10,
    }


@app.cell
def _():
    mo.md("""
    # What will this cost on phones?

    Each system is simulated on the same phones, message by message: every training, every transfer at the phones'
    rates, every phone that waits. No model is trained, because times and bytes depend on its size only. The phones
    are drawn from laws that were fitted to measurements of phones in 227 cities.
    """)
    return


@app.function
def sliders():
    """Return the sliders and lists of this page."""
    return dict(
        phones=mo.ui.slider(steps=[50, 100, 200, 500], value=SETTINGS["phones"], show_value=True),
        megabytes=mo.ui.slider(steps=[0.1, 0.36, 1.0, 6.8, 45.0], value=SETTINGS["megabytes"], show_value=True),
        share=mo.ui.slider(steps=[5, 10, 20, 37, 100], value=SETTINGS["share"], show_value=True),
        local_steps=mo.ui.slider(steps=[1, 5, 10, 20], value=SETTINGS["local_steps"], show_value=True),
        rounds=mo.ui.slider(steps=[20, 50, 100, 200], value=SETTINGS["rounds"], show_value=True),
        degree=mo.ui.slider(steps=[2, 4, 6, 10], value=SETTINGS["degree"], show_value=True),
        sample=mo.ui.slider(steps=[5, 10, 20, 40], value=SETTINGS["sample"], show_value=True),
    )


@app.cell
def _():
    controls = mo.md(
        """
        {phones} Phones

        {megabytes} Megabytes of the model

        {share} Percent of the model in a message (with compression)

        {local_steps} Local steps of a training, of 20 samples each

        {rounds} Rounds

        {degree} Neighbours in D-PSGD, recipients in Epidemic Learning

        {sample} Phones that train in a round of Plexus
        """
    ).batch(**sliders())
    controls
    return (controls,)


@app.function
def plans_of(settings):
    """Plan the systems on the same phones; gossip learning runs as long as D-PSGD needs for its rounds."""
    n, rounds, degree = settings["phones"], settings["rounds"], settings["degree"]
    devices = gj.devices.fitted(n, seed=0)
    message = max(1, round(MEGABYTE * settings["megabytes"] * settings["share"] / 100))
    work = {"local_steps": settings["local_steps"], "model_bytes": message, "time_batch": 20}
    graph = gj.topology.random_regular(n, degree, seed=0) if degree > 2 else gj.topology.ring(n)
    weights = gj.mixing.metropolis(graph)
    plans = {
        "D-PSGD": gj.systems.synchronous(devices, weights, rounds, round_seconds=None, **work),
        "Epidemic Learning": gj.systems.epidemic(devices, degree, rounds, round_seconds=None, seed=0, **work),
        "Plexus": gj.systems.plexus(devices, num_rounds=rounds, sample_size=settings["sample"], seed=0, **work),
    }
    # A phone sends a message in the mean time of a round of D-PSGD: about as many messages as rounds.
    period = plans["D-PSGD"].end_s / rounds
    plans["gossip learning"] = gj.systems.gossip_learning(
        devices, plans["D-PSGD"].end_s, period_s=period, seed=0, **work
    )
    return plans


@app.function
def cost_of(plan):
    """Return the cost of a plan: hours, bytes by phone and training seconds by phone."""
    sent = np.asarray(gj.systems.node_traffic(plan).sent) / MEGABYTE
    activity = gj.systems.activity(plan)
    return {
        "hours": plan.end_s / 3600,
        "sent": sent.mean(),
        "most": sent.max(),
        "training": plan.node_training_seconds.mean() / 60,
        "updates": len(activity.training_node),
        "by_phone": np.sort(sent),
    }


@app.cell
def _(controls):
    settings = controls.value
    costs = {name: cost_of(plan) for name, plan in plans_of(settings).items()}
    return costs, settings


@app.cell
def _(costs, settings):
    _head = f"| system | {' | '.join(COLUMNS.values())} |\n|{' --- |' * (len(COLUMNS) + 1)}"
    _lines = [f"| {name} | {' | '.join(f'{cost[column]:.4g}' for column in COLUMNS)} |" for name, cost in costs.items()]
    _worst = max(costs, key=lambda name: costs[name]["sent"])
    answer = "\n".join(
        [
            f"{settings['rounds']} rounds of D-PSGD on {settings['phones']} phones take"
            f" **{costs['D-PSGD']['hours']:.3g} hours**, and each phone sends **{costs['D-PSGD']['sent']:.4g} MB**;"
            f" Plexus takes {costs['Plexus']['hours']:.3g} hours and {costs['Plexus']['sent']:.4g} MB a phone for as"
            f" many rounds, in which {settings['sample']} phones train. A phone sends most in {_worst}.",
            "",
            _head,
            *_lines,
        ]
    )
    mo.md(answer)
    return


@app.function
def drawn(costs):
    """Draw the bytes of all phones, in order, and the trainings over time and bytes."""
    figure = Figure(figsize=(7.2, 3.2), dpi=110, layout="constrained")
    left, right = figure.subplots(1, 2)
    for (name, cost), style, size in zip(costs.items(), ("-", "--", "-", ":"), (8, 5, 5, 4), strict=True):
        share = 100 * (1 + np.arange(len(cost["by_phone"]))) / len(cost["by_phone"])
        left.plot(share, cost["by_phone"], style, label=name)
        right.plot(cost["hours"], cost["updates"], "o", markersize=size, label=name)
    left.set(xlabel="% of the phones", ylabel="MB sent, at most")
    right.set(xlabel="hours", ylabel="trainings in all")
    right.margins(0.3)
    left.set_ylim(bottom=0)
    right.set_ylim(bottom=0)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    return figure


@app.cell
def _(costs):
    figure = drawn(costs)
    figure
    return


@app.cell
def _():
    mo.md("""
    ## How to read it

    - Rounds are not equal: a round of D-PSGD trains every phone, a round of Plexus a sample. Compare trainings and
      bytes, and run the learning on the plan, `gj.simulate(key, protocol, plan, task)`, to compare accuracies.
    - With barriers the slowest phone or link sets the pace of all.
    - Phones are always online here; `gj.devices.fitted(n, seed, availability="charging")` adds nights and chargers.
    - 0.36 MB is the network of DecentralizePy's CIFAR-10 runs in float32, 6.8 MB the one for FEMNIST, 45 MB a
      ResNet-18.
    """)
    return


if __name__ == "__main__":
    app.run()
