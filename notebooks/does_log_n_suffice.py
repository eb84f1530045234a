"""Does Ω(log n) suffice? Sliders for the numbers of nodes, the capacities, the clock and the flight time."""

import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="Does Ω(log n) suffice?")

with app.setup:
    import jax
    import jax.numpy as jnp
    import marimo as mo
    import numpy as np

    import gossipjax as gj
    from gossipjax._base.figure import Figure
    from gossipjax.observe import staleness_by_source
    from gossipjax.timeline import align, clocks, push_gossip
    from theory import scaling, staleness
    from theory.check.policy import Band, decide

    RATES = {"1": lambda n: n**0.0, "√ln n": lambda n: np.log(n) ** 0.5, "ln n": np.log, "n": lambda n: 1.0 * n}
    LAWS = ("constant", "saturating", "logarithm", "power")
    ANSWERS = {"reproduced": "bounded", "contradicted": "grows", "undecided": "undecided", "no verdict": "too few runs"}
    # What the sliders begin with.
    SETTINGS = {
        "largest": 512,
        "capacities": ["1", "ln n"],
        "shift": 0.5,
        "flight_time": 0.0,
        "runs": 6,
        "margin": 0.05,
    }


@app.cell
def _():
    mo.md(r"""
    # Does Ω(log n) suffice?

    Nodes update their models $m = 1$ times a second and push them to random nodes at the rate λ. *Staleness* is the
    number of updates of a node that another node has not heard of. Mitra and Ulukus (2024) show that λ = Ω(log n)
    keeps it bounded. Is that enough? Is it necessary? What breaks it?
    """)
    return


@app.function
def sliders():
    """Return the sliders and lists of this page."""
    return dict(
        largest=mo.ui.slider(steps=[64, 128, 256, 512, 1024, 2048], value=SETTINGS["largest"], show_value=True),
        capacities=mo.ui.multiselect(list(RATES), value=SETTINGS["capacities"]),
        shift=mo.ui.slider(0.0, 1.0, 0.25, value=SETTINGS["shift"], show_value=True),
        flight_time=mo.ui.slider(0.0, 1.0, 0.1, value=SETTINGS["flight_time"], show_value=True),
        runs=mo.ui.slider(3, 12, value=SETTINGS["runs"], show_value=True),
        margin=mo.ui.slider(0.01, 0.2, 0.01, value=SETTINGS["margin"], show_value=True),
    )


@app.cell
def _():
    controls = mo.md(
        """
        {largest} Largest number of nodes

        {capacities} Pushes λ per node and second

        {shift} Least seconds of a local update; the rest is random, with mean 1 s in all

        {flight_time} Seconds that a message is in flight

        {runs} Independent networks of each size

        {margin} Growth, when n grows by the factor e, up to which staleness counts as bounded
        """
    ).batch(**sliders())
    controls
    return (controls,)


@app.function
def sizes_up_to(largest):
    """Return four numbers of nodes, each a power of two, from 8 on."""
    return np.unique(2 ** np.round(np.linspace(3, np.log2(largest), 4)).astype(int))


@app.function
def delay(n, rate, flight_time):
    """Return how long news travels on average, in seconds."""
    if flight_time:
        extra = staleness.flight_time_staleness(n, gossip_rate=rate, flight_time=flight_time, update_rate=1.0)
        return flight_time + extra
    return float(staleness.mean_staleness(n, gossip_rate=rate, update_rate=1.0))


@app.function
def measured(n, rate, *, shift, flight_time, runs):
    """Return the mean staleness of each run: discard four delays, then record six times, two delays apart."""
    times = delay(n, rate, flight_time) * (4 + 2 * np.arange(1, 7)) + 1.0
    clock = clocks.shifted_exponential(shift, 1.0 - shift) if shift < 1 else clocks.deterministic(1.0)
    plans = [
        push_gossip(n, float(times[-1]), compute=clock, gossip=rate, latency=flight_time or None, seed=seed)
        for seed in range(runs)
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


@app.function
def growth(sizes, values):
    """Return the growth in each run when n grows by the factor e, as a share of the mean staleness."""
    return np.polyfit(np.log(sizes), values, 1)[0] / values.mean()


@app.function
def answer_of(verdicts):
    """Answer the question from the verdicts by capacity; undecided unless ln n was tried and decided."""
    words = {capacity: ANSWERS[verdict.word] for capacity, verdict in verdicts.items()}
    enough, short = ([name for name, word in words.items() if word == each] for each in ("bounded", "grows"))
    said = "Yes" if "ln n" in enough else "No" if "ln n" in short else "Undecided"
    return f"**{said}.** Bounded: λ = {', '.join(enough) or '–'}; growing: λ = {', '.join(short) or '–'}."


@app.cell
def _(controls):
    settings = controls.value
    sizes = sizes_up_to(settings["largest"])
    samples = {
        capacity: np.stack(
            [
                measured(
                    int(n),
                    float(RATES[capacity](n)),
                    shift=settings["shift"],
                    flight_time=settings["flight_time"],
                    runs=settings["runs"],
                )
                for n in sizes
            ]
        )
        for capacity in settings["capacities"]
    }  # (sizes, runs) each
    return samples, settings, sizes


@app.cell
def _(samples, settings, sizes):
    verdicts = {name: decide(growth(sizes, each), Band(high=settings["margin"])) for name, each in samples.items()}
    _lines = [
        f"- λ = {name}: {ANSWERS[verdict.word]}; {verdict.mean:+.1%} ± {verdict.half:.1%} when n grows by the factor e;"
        f" mean staleness {', '.join(f'{value:.2f}' for value in samples[name].mean(axis=1))}"
        f" at n = {', '.join(map(str, sizes))}"
        for name, verdict in verdicts.items()
    ]
    answer = "\n".join([answer_of(verdicts), "", *_lines])
    mo.md(answer)
    return (verdicts,)


@app.cell
def _():
    mo.md("""
    For each run, the slope of staleness against ln n is fitted, as a share of the mean. *Bounded* means that the
    95 % interval of the slope over the runs lies below the margin; *grows* means that it lies above.

    Which law is it? Staleness may follow a constant, a bounded law a + b/ln n, a logarithm, or a power. The
    criterion is AIC with known standard errors; a difference above 10 is decisive. With so few sizes, a bounded
    law, a logarithm and a small power can look the same.
    """)
    return


@app.function
def drawn(sizes, samples, verdicts, flight_time):
    """Draw staleness over n with the fitted laws and the exact means without flight time."""
    figure = Figure(figsize=(3.2 * len(samples), 3.6), dpi=110, layout="constrained")
    panels = figure.subplots(1, len(samples), squeeze=False)[0]
    line = np.unique(np.geomspace(sizes[0], sizes[-1], 100).astype(int))
    for ax, (capacity, values) in zip(panels, samples.items(), strict=True):
        mean, error = values.mean(axis=1), values.std(axis=1, ddof=1) / np.sqrt(values.shape[1])
        scaling.plot(scaling.compare(sizes, mean, error, laws=LAWS), ax, ylabel="mean staleness (updates)")
        exact = [staleness.mean_staleness(int(n), gossip_rate=float(RATES[capacity](n)), update_rate=1.0) for n in line]
        ax.plot(line, exact, ":", color="black", label="exact, without flight time")
        ax.set_ylim(bottom=0)
        ax.set_title(f"λ = {capacity}: {ANSWERS[verdicts[capacity].word]}", loc="left", fontsize=9)
        ax.legend(frameon=False, fontsize=6)
    figure.suptitle(f"flight time {flight_time} s, {values.shape[1]} runs of each size, ± 95 %", fontsize=9)
    return figure


@app.cell
def _(samples, settings, sizes, verdicts):
    mo.stop(not samples, mo.md("Choose at least one capacity."))
    figure = drawn(sizes, samples, verdicts, settings["flight_time"])
    figure
    return


@app.cell
def _():
    mo.md("""
    ## What to try

    - A flight time of 0.5 s: λ = ln n no longer bounds staleness, because news needs about ln n / ln(λd) hops of
      d seconds.
    - Updates that take exactly one second: periodic clocks instead of random ones. The mean does not change.
    - λ = n: more capacity than necessary.
    """)
    return


if __name__ == "__main__":
    app.run()
