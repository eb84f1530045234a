"""Pictures of trajectories and the style of the paper's figures: what is drawn, not how it looks."""

from __future__ import annotations

import inspect
import json

import matplotlib
import numpy as np
import pytest
import scipy.stats
import xarray as xr
from matplotlib.figure import Figure

from experiments.lib.store import mean_and_interval
from figures.lib import style
from gossipjax._base import figure as figure_module
from gossipjax.observe._models import STATISTICS
from gossipjax.results._plot import plot_trajectory

RECORDS = 41


def about(long_name: str, units: str = "1") -> dict[str, str]:
    return {"long_name": long_name, "units": units}


def trajectory(num_seeds: int | None = None, *, time_per_seed: bool = False, synchronous: bool = True) -> xr.Dataset:
    """A dataset of the layout that gossipjax._engine.records writes, with curves like those of a run."""
    rng = np.random.default_rng(0)
    seed = () if num_seeds is None else ("seed",)
    shape = (RECORDS,) if num_seeds is None else (RECORDS, num_seeds)
    event = np.arange(RECORDS) * 1000
    progress = np.linspace(0, 1, RECORDS).reshape(RECORDS, *[1] * len(seed))

    def noisy(size: float) -> np.ndarray:
        return 1 + size * rng.standard_normal(shape)

    loss = (0.2 + 2.1 * np.exp(-4 * progress)) * noisy(0.04)
    loss[0] = np.nan
    consensus = 3.0 * np.exp(-9 * progress) * noisy(0.15)
    consensus[0] = 0.0
    accuracy = (0.92 - 0.8 * np.exp(-5 * progress)) * noisy(0.01)
    spread = 0.25 * np.exp(-3 * progress) + 0.02
    offsets = dict(zip(STATISTICS, (0.0, -1.6, 0.9, -0.7, 0.05, 0.6), strict=True))
    statistics = np.stack([np.clip(accuracy + o * spread * np.ones(shape), 0, 1) for o in offsets.values()], axis=-1)
    dims = ("record", *seed)
    variables = {
        "bytes_sent": (
            dims,
            4.2e6 * event.reshape(progress.shape) * np.ones(shape),
            about("bytes sent by the whole network", "B"),
        ),
        "messages_sent": (
            dims,
            (event.reshape(progress.shape) * np.ones(shape, np.int64)),
            about("messages sent by the network"),
        ),
        "train_loss": (dims, loss, about("mean mini-batch loss since last record")),
        "consensus_distance": (dims, consensus, about("mean squared distance to the average model")),
        "test_accuracy": (
            (*dims, "statistic"),
            statistics,
            about("accuracy on 1000 test samples, over 16 of the nodes"),
        ),
        "test_loss": (
            (*dims, "statistic"),
            2.5 * (1.05 - statistics),
            about("loss on 1000 test samples, over 16 of the nodes"),
        ),
        "model": ((*dims, "node", "parameter"), np.zeros((*shape, 3, 2)), about("model of each node")),
    }
    time = event * 0.37
    time = time[:, None] * (1 + 0.02 * rng.random(num_seeds)) if time_per_seed else time
    coordinates = {
        "event": ("record", event, about("source events done")),
        "time": (dims if time_per_seed else "record", time, about("simulated time", "s")),
        "statistic": ("statistic", list(STATISTICS)),
    }
    facts = {
        "protocol": "dpsgd._adapt_then_combine(task of 16 nodes, sgd(0.1), 1, full._encode())",
        "timeline": "rounds(n=16, fixed W)",
        "num_nodes": 16,
        "synchronous": synchronous,
    }
    manifest = json.dumps({"configuration": facts})
    return xr.Dataset(variables, coordinates, {"format": "gossipjax-trajectory-1", "manifest": manifest})


def titles(figure: Figure) -> list[str]:
    return [ax.get_title(loc="left") for ax in figure.axes]


def legend_labels(figure: Figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def test_default_panels_leave_out_counters_and_raw_models():
    figure = plot_trajectory(trajectory())
    assert titles(figure) == ["Train loss", "Consensus distance", "Test accuracy", "Test loss"]
    assert figure.get_suptitle() == "D-PSGD · rounds · 16 nodes"
    scales = [ax.get_yscale() for ax in figure.axes]
    assert scales == ["linear", "log", "linear", "linear"]


def test_line_is_the_data():
    data = trajectory()
    (ax,) = plot_trajectory(data, variables=["train_loss"]).axes
    (line,) = ax.get_lines()
    np.testing.assert_array_equal(line.get_xdata(), data["event"].to_numpy()[1:])  # no loss at the start
    np.testing.assert_array_equal(line.get_ydata(), data["train_loss"].to_numpy()[1:])
    assert ax.get_xlabel() == "round"
    assert ax.get_ylabel().replace("\n", " ") == "mean mini-batch loss since last record"
    assert not ax.figure.legends


def test_bands_over_nodes_and_per_cent():
    data = trajectory()
    figure = plot_trajectory(data, variables=["test_accuracy"])
    (ax,) = figure.axes
    light, dark = ax.collections
    assert legend_labels(figure) == [
        "mean over nodes",
        "10th to 90th percentile over nodes",
        "minimum to maximum over nodes",
    ]
    values = 100 * data["test_accuracy"]
    assert light.get_datalim(ax.transData).ymin == pytest.approx(float(values.sel(statistic="min").min()))
    assert dark.get_datalim(ax.transData).ymax == pytest.approx(float(values.sel(statistic="p90").max()))
    assert ax.get_ylabel().endswith("(%)")
    assert 0 <= ax.get_ylim()[0] < ax.get_ylim()[1] <= 100


def test_seeds_give_mean_and_t_interval():
    data = trajectory(5)
    figure = plot_trajectory(data, variables=["train_loss"])
    (ax,) = figure.axes
    values = data["train_loss"].to_numpy()[1:]
    np.testing.assert_allclose(ax.get_lines()[0].get_ydata(), values.mean(axis=1), rtol=1e-12)
    expected = scipy.stats.t.interval(0.95, 4, values.mean(axis=1), scipy.stats.sem(values, axis=1))
    (band,) = ax.collections
    drawn = band.get_paths()[0].vertices[:, 1]
    assert drawn.min() == pytest.approx(expected[0].min())
    assert drawn.max() == pytest.approx(expected[1].max())
    assert legend_labels(figure) == ["mean of 5 seeds", "95 % t-interval of the mean, 5 seeds"]


def test_nodes_and_seeds_together():
    figure = plot_trajectory(trajectory(4, time_per_seed=True), x="time")
    assert "95 % t-interval of the mean, 4 seeds" in legend_labels(figure)
    assert "minimum to maximum over nodes (mean of seeds)" in legend_labels(figure)
    assert figure.axes[0].get_xlabel().replace("\n", " ") == "simulated time, mean over seeds (h)"


@pytest.mark.parametrize(
    ("x", "label", "last"),
    [
        ("event", "round", 40_000),
        ("round", "round", 40_000),
        ("time", "simulated time (h)", 40_000 * 0.37 / 3600),
        ("bytes_sent", "bytes sent (GB)", 168.0),
    ],
)
def test_horizontal_axes_carry_readable_units(x, label, last):
    (ax,) = plot_trajectory(trajectory(), variables=["consensus_distance"], x=x).axes
    assert ax.get_xlabel().replace("\n", " ") == label
    assert ax.get_lines()[0].get_xdata()[-1] == pytest.approx(last)


def test_only_counters_and_one_record_still_draw():
    data = trajectory()[["bytes_sent", "messages_sent"]].isel(record=[3])
    assert titles(plot_trajectory(data)) == ["Bytes sent"]


def test_all_values_missing_draw_an_empty_panel():
    data = trajectory(3)
    data["train_loss"][:] = np.nan
    assert "Train loss" not in titles(plot_trajectory(data))
    figure = plot_trajectory(data, variables=["train_loss"])
    assert figure.axes[0].get_yscale() == "linear"


def test_unknown_names_are_answered_with_the_choices():
    with pytest.raises(ValueError, match=r"'acuracy' is not in this trajectory; choose from \[.*'test_accuracy'"):
        plot_trajectory(trajectory(), variables=["acuracy"])
    with pytest.raises(ValueError, match="'model' is not one curve per run"):
        plot_trajectory(trajectory(), variables=["model"])
    with pytest.raises(ValueError, match="x='epoch': must be one of 'event', 'round', 'time', 'bytes_sent'"):
        plot_trajectory(trajectory(), x="epoch")
    with pytest.raises(ValueError, match="x='round': must be one of 'event', 'time', 'bytes_sent'"):
        plot_trajectory(trajectory(synchronous=False), x="round")
    with pytest.raises(ValueError, match="variables is empty"):
        plot_trajectory(trajectory(), variables=[])


@pytest.mark.parametrize(
    ("protocol", "timeline", "expected"),
    [
        ("ad_psgd._step(task of 8 nodes, sgd(0.1))", "push_gossip(n=8, weight=0.5)", "AD-PSGD · push gossip"),
        (
            "versions._step(dpsgd._adapt_then_combine(task of 8 nodes), None)",
            "poisson_pairs(ring(8), rate=1, seed=0)",
            "D-PSGD · Poisson pairs",
        ),
        ("meter._step(d2._step(task of 8 nodes), array[8])", "rounds(n=8, cycle of 2 W)", "D² · rounds"),
        (
            "gossip._step(full._encode())",
            "epidemic oracle, fanout 7",
            "gossip averaging · epidemic oracle",
        ),
        ("gossip_learning._step()", "plexus, aggregator of the next sample: 4 of 8", "gossip learning · plexus"),
        ("problem.<locals>.my_step", "AD-PSGD: 8 nodes, time_batch=1, seed=0", "my step · AD-PSGD"),
        ("gossipjax.dpsgd", "synchronous, metropolis: 8 nodes", "D-PSGD · synchronous"),
    ],
)
def test_titles_are_words(protocol, timeline, expected):
    facts = {"protocol": protocol, "timeline": timeline, "num_nodes": 8}
    data = trajectory().assign_attrs(manifest=json.dumps({"configuration": facts}))
    title = plot_trajectory(data).get_suptitle()
    assert title == f"{expected} · 8 nodes"
    assert not set(title) & set("_()<>=")


def test_without_a_manifest_there_is_no_title():
    data = trajectory()
    del data.attrs["manifest"]
    figure = plot_trajectory(data, variables="train_loss")
    assert figure.get_suptitle() == ""
    assert figure.axes[0].get_xlabel() == "event"


def test_events_that_are_no_rounds_are_called_events():
    for ax in plot_trajectory(trajectory(synchronous=False)).axes:
        assert ax.get_xlabel() == "event"


def consensus(values) -> np.ndarray:
    """What is drawn of a consensus distance: pairs of round and value."""
    data = trajectory().isel(record=slice(0, len(values)))
    data["consensus_distance"] = ("record", np.asarray(values), data["consensus_distance"].attrs)
    (ax,) = plot_trajectory(data, variables=["consensus_distance"]).axes
    return ax.get_lines()[0].get_xydata(), ax.get_yscale()


@pytest.mark.parametrize("start", [0.0, 1e-33, 4e-16, 3e-12])
def test_a_start_that_is_rounding_is_left_out(start):
    """Nodes that start equal differ by rounding, which on a logarithmic axis dwarfs the run."""
    drawn, scale = consensus([start, 4.0, 1.0, 0.1, 0.01])
    assert scale == "log"
    np.testing.assert_array_equal(drawn, [[1000, 4.0], [2000, 1.0], [3000, 0.1], [4000, 0.01]])


def test_a_start_that_is_rounding_does_not_make_an_axis_logarithmic():
    drawn, scale = consensus([4e-16, 0.04, 0.06, 0.05])
    assert scale == "linear"
    assert drawn[:, 1].tolist() == [0.04, 0.06, 0.05]
    drawn, scale = consensus([0.0, 0.04, 0.06, 0.05])  # an exact zero has its place on a linear axis
    assert scale == "linear"
    assert drawn[:, 1].tolist() == [0.0, 0.04, 0.06, 0.05]


@pytest.mark.parametrize("values", [[5.0, 1.0, 0.1, 1e-9], [1e-3, 1.0, 5.0, 7.0], [1e-9, 1e-8, 1e-3, 1.0]])
def test_other_starts_stay(values):
    drawn, scale = consensus(values)
    assert scale == "log"
    assert drawn[:, 1].tolist() == values


def test_panels_share_their_horizontal_axis():
    """Although the training loss has no record at the start."""
    limits = {ax.get_xlim() for ax in plot_trajectory(trajectory()).axes}
    assert len(limits) == 1
    low, high = limits.pop()
    assert low <= 0
    assert high >= 40_000


@pytest.mark.parametrize("last", [1, 3, 7, 20, 150])
def test_rounds_are_marked_by_whole_numbers(last):
    data = trajectory().isel(record=slice(0, 5))
    data["event"] = ("record", np.linspace(0, last, 5), data["event"].attrs)
    (ax,) = plot_trajectory(data, variables=["train_loss"]).axes
    ticks = ax.get_xticks()
    assert (ticks == np.round(ticks)).all()


def test_a_bad_argument_is_named():
    data = trajectory()
    drawn = inspect.unwrap(plot_trajectory)
    for given in (None, 3, {"train_loss": [1.0]}):
        with pytest.raises(TypeError, match="dataset="):
            drawn(given)
    for given in (3, {"train_loss"}, b"train_loss"):
        with pytest.raises(TypeError, match="variables="):
            drawn(data, variables=given)
    with pytest.raises(TypeError, match=r"variables\[1\]=2"):
        drawn(data, variables=["train_loss", 2])
    for given in (None, 1, "", ["event"], np.nan):
        with pytest.raises(ValueError, match="x="):
            drawn(data, x=given)
    with pytest.raises(ValueError, match="no variable over records"):
        drawn(xr.Dataset())
    data["bytes_sent"][:] = np.nan
    with pytest.raises(ValueError, match="x='bytes_sent' has no finite value"):
        drawn(data, x="bytes_sent")


@pytest.mark.parametrize(
    ("path", "kind", "words"),
    [
        (3, TypeError, "path=3"),
        (b"run.png", TypeError, "path="),
        ("run.xyz", ValueError, "its ending must be one of"),
        ("run.PNGX", ValueError, "its ending must be one of"),
        ("", ValueError, "is a folder"),
        (".", ValueError, "is a folder"),
        ("missing/run.png", ValueError, "no folder missing"),
    ],
)
def test_a_path_is_checked_before_drawing(path, kind, words):
    with pytest.raises(kind, match=words):
        figure_module.check_path(path)


def test_a_path_without_an_ending_is_a_png(tmp_path):
    target = figure_module.check_path(tmp_path / "run")
    figure_module.write(plot_trajectory(trajectory()), target, dpi=50)
    assert target.read_bytes().startswith(b"\x89PNG")


def test_a_figure_shows_itself():
    """At its own resolution, on as much of a page as its size in inches asks for."""
    figure = plot_trajectory(trajectory(), variables=["train_loss"])
    picture, size = figure._repr_png_()
    assert picture.startswith(b"\x89PNG")
    pixels = [int.from_bytes(picture[at : at + 4], "big") for at in (16, 20)]
    assert pixels == [round(160 * inches) for inches in figure.get_size_inches()]
    assert size == dict(zip(("width", "height"), (round(96 * i) for i in figure.get_size_inches()), strict=True))


@pytest.mark.parametrize("num_seeds", [None, 1, 5])
def test_pictures_are_written(tmp_path, num_seeds):
    path = tmp_path / "run.png"
    plot_trajectory(trajectory(num_seeds)).savefig(path)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_drawing_leaves_no_trace_in_matplotlib(tmp_path):
    before = dict(matplotlib.rcParams)
    plot_trajectory(trajectory(3)).savefig(tmp_path / "run.png")
    figure, axes = style.figure(1, 2)
    style.band(axes[0, 0], np.arange(3.0), np.arange(3.0), half_width=np.ones(3), label="a", style_index=0)
    style.save(figure, "leak_check", tmp_path)
    assert dict(matplotlib.rcParams) == before


def test_styles_differ_in_each_sign():
    for part in style.Style._fields:
        assert len({getattr(s, part) for s in style.STYLES}) == len(style.STYLES)


def test_neighbouring_colours_differ_in_grey():
    """Luminance (ITU-R BT.601) of the first four, which most figures use, is at least 0.08 apart."""
    grey = sorted(float(np.dot(matplotlib.colors.to_rgb(s.colour), [0.299, 0.587, 0.114])) for s in style.STYLES[:4])
    assert np.min(np.diff(grey)) > 0.08


def test_mean_and_interval_is_scipys():
    values = np.random.default_rng(1).normal(size=(7, 3))
    mean, half = mean_and_interval(values, axis=0)
    low, high = scipy.stats.t.interval(0.95, 6, values.mean(axis=0), scipy.stats.sem(values, axis=0))
    np.testing.assert_allclose([mean - half, mean + half], [low, high], rtol=1e-12)
    assert np.isnan(mean_and_interval(values[:1], axis=0)[1]).all()


def test_band_and_theory_line_are_drawn():
    figure, axes = style.figure(1, 1, width="single")
    x = np.linspace(0, 1, 9)
    style.band(axes[0, 0], x, x, low=x - 0.1, high=x + 0.2, label="simulation", style_index=2)
    style.theory_line(axes[0, 0], x, x**2, "exact")
    style.title(axes[0, 0], "Staleness")
    style.legend(axes[0, 0])
    assert axes[0, 0].get_title(loc="left") == "Staleness"
    assert [text.get_text() for text in axes[0, 0].get_legend().get_texts()] == ["simulation", "exact"]
    simulated, theory = axes[0, 0].get_lines()
    assert simulated.get_color() == style.STYLES[2].colour
    assert theory.get_linestyle() == "--"
    assert figure.get_figwidth() == style.WIDTHS["single"]


def test_band_wants_one_kind_of_width():
    _, axes = style.figure(1, 1)
    x = np.zeros(2)
    with pytest.raises(ValueError, match="half_width"):
        style.band(axes[0, 0], x, x, half_width=x, low=x, high=x, label="a", style_index=0)
    with pytest.raises(ValueError, match="both low and high"):
        style.band(axes[0, 0], x, x, low=x, label="a", style_index=0)
    with pytest.raises(ValueError, match="style_index=99"):
        style.band(axes[0, 0], x, x, label="a", style_index=99)


def test_save_writes_both_forms_and_names_the_stem(tmp_path):
    figure, axes = style.figure(1, 1)
    axes[0, 0].plot([0, 1])
    path = style.save(figure, "staleness_vs_capacity", tmp_path)
    assert path == tmp_path / "staleness_vs_capacity.png"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["staleness_vs_capacity.pdf", "staleness_vs_capacity.png"]
    assert b"staleness_vs_capacity" in path.read_bytes()
    assert b"staleness_vs_capacity" in path.with_suffix(".pdf").read_bytes()
    with pytest.raises(ValueError, match="stem='Fig 3'"):
        style.save(figure, "Fig 3", tmp_path)


def test_failed_save_leaves_the_old_picture_whole(tmp_path, monkeypatch):
    figure, axes = style.figure(1, 1)
    axes[0, 0].plot([0, 1])
    path = style.save(figure, "age", tmp_path)
    old = path.read_bytes()

    def broken(*_, **__):
        raise OSError("no space left on device")

    monkeypatch.setattr(figure, "savefig", broken)
    with pytest.raises(OSError, match="no space"):
        style.save(figure, "age", tmp_path)
    assert path.read_bytes() == old
    assert sorted(p.name for p in tmp_path.iterdir()) == ["age.pdf", "age.png"]
