"""Every quick experiment runs, every figure script draws its result, and the command line says what is wrong."""

import atexit
import functools
import json
import os
import pathlib
import re
import shutil
import tempfile

import numpy as np
import pytest
import xarray as xr
from methods import EXACT

import experiments.__main__ as command
import figures.__main__ as drawing
from experiments import (
    async_beats_sync_under_stragglers,
    async_linear_regression,
    async_nonlinear_regression,
    bounded_staleness,
    byzantine_breakdown,
    byzantine_learning,
    consensus_rate_vs_topology,
    decentralizepy_curves,
    designed_networks,
    dpsgd_on_real_data,
    dynamic_vs_static,
    exact_methods,
    failures_in_rounds,
    flight_time_breaks_log_n,
    hadfl_faults,
    hadfl_network,
    hadfl_scaling,
    hadfl_selection,
    hadfl_time_to_accuracy,
    hadfl_version_forecast,
    heterogeneity,
    jwins_ablation,
    jwins_accuracy_vs_bytes,
    jwins_dynamic_topology,
    jwins_metadata,
    jwins_scalability,
    jwins_vs_choco,
    learned_weights,
    membership_follows_mixing,
    one_version_per_message,
    plexus_churn,
    plexus_crash,
    plexus_join,
    plexus_round_duration,
    plexus_sample_size,
    plexus_vs_baselines,
    privacy_audit,
    privacy_utility,
    robust_asynchrony,
    secure_aggregation_cost,
    simulated_vs_real,
    sparsification_at_scale,
    staleness_at_scale,
    staleness_histogram,
    staleness_vs_capacity,
    topologies_at_scale,
    topologies_in_seconds,
    version_age_scaling,
    when_is_asynchrony_worth_it,
    worst_user,
)
from experiments.lib import at_scale, store
from figures import exact_methods as drawn
from figures import heterogeneity as heterogeneity_figure
from figures import plexus_churn as plexus_churn_figure
from figures.lib import caption as caption_of

SMALL = at_scale.QUICK._replace(num_nodes=12, num_rounds=10, hidden=8, num_records=5)
TINY = {
    "consensus_rate_vs_topology": consensus_rate_vs_topology.QUICK._replace(
        num_nodes=16, dimension=4, num_rounds=300, num_seeds=2
    ),
    "dpsgd_on_real_data": dpsgd_on_real_data.QUICK._replace(
        num_nodes=16, hidden=8, num_rounds=40, num_records=10, num_seeds=2, gradient_draws=8
    ),
    "dynamic_vs_static": dynamic_vs_static.QUICK._replace(scale=SMALL, num_seeds=2),
    "topologies_at_scale": topologies_at_scale.QUICK._replace(
        scale=SMALL, topologies=("ring", "one-peer exponential", "complete"), num_seeds=2
    ),
    "sparsification_at_scale": sparsification_at_scale.QUICK._replace(
        scale=SMALL, schemes=("full sharing", "random 10 %"), num_seeds=2
    ),
    "designed_networks": designed_networks.QUICK._replace(
        num_nodes=8, num_steps=4, horizon=300, planned=8, learning_rounds=8, accuracy=0.2, num_seeds=2
    ),
    "learned_weights": learned_weights.QUICK._replace(
        graphs=("ring",), horizons=(2,), transfer=2, learning_rounds=8, num_seeds=2
    ),
    "topologies_in_seconds": topologies_in_seconds.QUICK._replace(
        num_nodes=8, num_labels=4, planned=4, horizon=100, num_seeds=2
    ),
    "exact_methods": exact_methods.QUICK._replace(
        problems=("quadratics",), num_nodes=8, num_rounds=400, dimension=4, num_seeds=2
    ),
    "failures_in_rounds": failures_in_rounds.QUICK._replace(
        num_nodes=6, num_rounds=60, averaging_rounds=3, replicas=100, num_seeds=2
    ),
    "heterogeneity": heterogeneity.QUICK._replace(
        partitions=("Dirichlet 0.1",),
        num_nodes=8,
        num_rounds=20,
        num_records=5,
        num_seeds=2,
        test_samples=100,
        quadratic_rounds=200,
    ),
    "async_linear_regression": async_linear_regression.QUICK._replace(
        nodes=(6,), duration=40.0, settled=20.0, num_records=20, num_seeds=3
    ),
    "async_nonlinear_regression": async_nonlinear_regression.QUICK._replace(
        nodes=(6,), hidden=4, duration=40.0, settled=20.0, num_records=10, num_seeds=3
    ),
    "async_beats_sync_under_stragglers": async_beats_sync_under_stragglers.QUICK._replace(
        num_nodes=8, hidden=8, num_rounds=40, num_records=10, num_seeds=2, target=0.8
    ),
    "bounded_staleness": bounded_staleness.QUICK._replace(
        num_nodes=4, bounds=(2,), shares=(0.5, 4.5, 12.0), sweeps=20, num_records=10, num_seeds=2
    ),
    "staleness_at_scale": staleness_at_scale.QUICK._replace(sizes=(20, 50), units=8),
    "staleness_vs_capacity": staleness_vs_capacity.QUICK._replace(
        sizes=(10,), largest_everything=(10, 0, 10), largest_single=(10, 0, 0), relative_error=0.1
    ),
    "one_version_per_message": one_version_per_message.QUICK._replace(sizes=(4,), num_records=2, num_seeds=2),
    "staleness_histogram": staleness_histogram.QUICK._replace(sizes=(16,), num_blocks=40),
    "worst_user": worst_user.QUICK._replace(
        sizes=(6,), dimension=4, duration=12.0, settled=6.0, num_records=6, num_seeds=2
    ),
    "version_age_scaling": version_age_scaling.QUICK._replace(
        sizes=(16, 36, 64), num_blocks=20, passage_sizes=(16, 100), passage_samples=20
    ),
    "flight_time_breaks_log_n": flight_time_breaks_log_n.QUICK._replace(
        sizes=(10, 20, 30), flight_times=(0.0, 0.5), relative_error=0.2
    ),
    "jwins_accuracy_vs_bytes": jwins_accuracy_vs_bytes.QUICK._replace(
        parts=(jwins_accuracy_vs_bytes.Part("digits", 20, 5, 2),), num_nodes=8, schemes=("full sharing", "JWINS")
    ),
    "jwins_vs_choco": jwins_vs_choco.QUICK._replace(
        num_nodes=8, tuning_rounds=8, num_rounds=8, record_every=2, gammas=(0.3,), wholes=(0.5,)
    ),
    "jwins_ablation": jwins_ablation.QUICK._replace(
        variants=("JWINS", "fixed cut-off"), num_nodes=8, num_rounds=8, record_every=2
    ),
    "jwins_metadata": jwins_metadata.QUICK._replace(num_nodes=8, num_rounds=6, record_every=2, num_masks=5),
    "jwins_dynamic_topology": jwins_dynamic_topology.QUICK._replace(
        num_nodes=8, num_rounds=20, num_records=5, num_seeds=2
    ),
    "jwins_scalability": jwins_scalability.QUICK._replace(sizes=(8, 12), num_rounds=20, num_records=5, num_seeds=2),
    "plexus_round_duration": plexus_round_duration.QUICK._replace(
        num_nodes=60, num_rounds=(8, 10, 6), time_batches=(1, 20), num_seeds=2
    ),
    "plexus_churn": plexus_churn.QUICK._replace(num_nodes=30, sample_size=4, hours=0.1, bins=8),
    "plexus_join": plexus_join.QUICK._replace(num_nodes=24, num_joins=3, duration_s=150.0, num_points=60, num_seeds=2),
    "plexus_sample_size": plexus_sample_size.QUICK._replace(
        num_nodes=24, sample_sizes=(2, 4, 8), num_rounds=47, every=4
    ),
    "hadfl_time_to_accuracy": hadfl_time_to_accuracy.QUICK._replace(
        powers=((2, 1),), schemes=("HADFL", "decentralized FedAvg", "AD-PSGD"), duration_s=12.0, records=6
    ),
    "hadfl_faults": hadfl_faults.QUICK._replace(stays=(np.inf, 5.0), num_nodes=4, cycles=12.0, records=3),
    "plexus_crash": plexus_crash.QUICK._replace(grid_aggregators=(5,), grid_fractions=(0.6,), grid_seeds=1),
    "plexus_vs_baselines": plexus_vs_baselines.QUICK._replace(
        parts=(plexus_vs_baselines.Part("digits", 24, 47, 0.6, 4 * 85_354, 20, 1),),
        systems=("Plexus", "D-PSGD one-peer"),
        sample_size=8,
        num_records=11,
    ),
    "hadfl_selection": hadfl_selection.QUICK._replace(powers=((4, 2, 2, 1),), counts=(2,), cycles=40, num_seeds=2),
    "hadfl_version_forecast": hadfl_version_forecast.QUICK._replace(
        jitters=(0.0, 0.3), drifts=(0.0, 0.2), alphas=(0.3, 0.8), cycles=14, num_seeds=2
    ),
    "hadfl_scaling": hadfl_scaling.QUICK._replace(sizes=(12,), cycles=6, num_seeds=2),
    "privacy_audit": privacy_audit.QUICK._replace(num_nodes=9, num_rounds=2, num_seeds=2, most_hops=3),
    "membership_follows_mixing": membership_follows_mixing.QUICK._replace(
        num_nodes=9, shard=8, hidden=4, num_rounds=3, num_seeds=2
    ),
    "privacy_utility": privacy_utility.QUICK._replace(writers=8, num_rounds=3, epsilons=(10.0,), num_seeds=2),
    "byzantine_breakdown": byzantine_breakdown.QUICK._replace(
        clique=4, ties=3, liars=(1, 3), rules=byzantine_breakdown.ALL[1:5], num_rounds=4, num_seeds=2
    ),
    "byzantine_learning": byzantine_learning.QUICK._replace(
        num_rounds=3, clique=4, ties=2, worlds_liars=(1, 2), worlds_rounds=2, num_seeds=2
    ),
    "robust_asynchrony": robust_asynchrony.QUICK._replace(ticks=4, latencies=(0.0, 1.0), liars=(1,), num_seeds=2),
    "secure_aggregation_cost": secure_aggregation_cost.QUICK._replace(
        num_nodes=8, num_rounds=10, num_records=2, num_seeds=2, degrees=(4,), dropouts=(0.0, 0.3), byte_rounds=10
    ),
    "hadfl_network": hadfl_network.QUICK._replace(powers=((4, 2, 2, 1),), bandwidths=(1e6, 1e7, 1e9, np.inf), cycles=6),
    "when_is_asynchrony_worth_it": when_is_asynchrony_worth_it.QUICK._replace(
        num_nodes=4,
        exponents=(2.0,),
        gradients=512,
        dimension=8,
        share=0.1,
        records=64,
        step_sizes=(0.5, 0.125, 0.03125),
    ),
    "decentralizepy_curves": decentralizepy_curves.QUICK._replace(num_rounds=4, record_every=2, test_samples=40),
    "simulated_vs_real": simulated_vs_real.QUICK._replace(
        graphs=("ring",), num_rounds=2, hidden=4, compute_seconds=0.02, latency_seconds=0.0
    ),
}
MODULES = {stem: command.module_of(stem) for stem in command.STEMS}
LONG_TO_COMPILE = {stem for stem in MODULES if stem.startswith("jwins")}
LONG_TO_COMPILE |= {"plexus_sample_size", "plexus_crash", "plexus_vs_baselines", "async_beats_sync_under_stragglers"}
LONG_TO_COMPILE |= {"hadfl_time_to_accuracy", "hadfl_faults", "secure_aggregation_cost"}
LONG_TO_COMPILE |= {"privacy_audit"}  # an audit of many plans
LONG_TO_COMPILE |= {"when_is_asynchrony_worth_it"}  # seven methods
LONG_TO_COMPILE |= {"privacy_utility", "byzantine_breakdown", "membership_follows_mixing"}
LONG_TO_COMPILE |= {"byzantine_learning", "robust_asynchrony"}
LONG_TO_COMPILE |= {"simulated_vs_real"}  # one process after another compiles
LONG_TO_COMPILE |= {"designed_networks", "learned_weights", "decentralizepy_curves"}
LONG_TO_COMPILE |= {"dynamic_vs_static", "sparsification_at_scale"}
LONG_TO_COMPILE |= {
    "exact_methods",
    "failures_in_rounds",
    "heterogeneity",
    "dpsgd_on_real_data",
}  # make quick runs them in a larger form
EACH = [pytest.param(stem, marks=pytest.mark.slow if stem in LONG_TO_COMPILE else ()) for stem in sorted(MODULES)]


@functools.cache
def tiny(stem):
    """Run an experiment in a form of a few seconds, once; return the folder of its result."""
    folder = pathlib.Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    config = TINY[stem]
    store.save(stem, MODULES[stem].run(config), {"configuration": config._asdict()}, folder)
    return folder


def test_the_tests_cover_every_stem():
    assert set(TINY) == set(command.STEMS) == set(drawing.STEMS)


@pytest.fixture(scope="module", params=EACH)
def stem(request):
    """Of the module's scope, so that tests of one experiment follow each other: a worker seldom runs it for another."""
    return request.param


def test_result_is_stored_with_its_configuration_and_tabulated(stem):
    dataset = store.load(stem, tiny(stem))
    assert store.manifest_of(dataset)["configuration"] == json.loads(json.dumps(TINY[stem]._asdict()))
    rows = MODULES[stem].table(dataset)
    assert len(rows) >= 8
    assert all(np.isfinite(row.measured) for row in rows)
    assert any(np.isfinite(row.predicted) for row in rows)


def test_figure_is_drawn_from_the_stored_result(stem, tmp_path, capsys):
    assert drawing.main([stem, "--results", str(tiny(stem)), "--out", str(tmp_path)]) == 0
    assert str(tmp_path / f"{stem}.png") in capsys.readouterr().out
    assert (tmp_path / f"{stem}.png").stat().st_size > 20_000
    assert (tmp_path / f"{stem}.pdf").is_file()
    caption = (tmp_path / f"{stem}.md").read_text()
    facts = dict(re.findall(r"^- (\w+): (.+)$", caption, re.MULTILINE))
    assert set(facts) == {"data", "nodes", "seeds", "bands", "target"}
    assert caption.startswith(f"# {stem}\n")
    assert nodes_of(TINY[stem]) <= {int(n) for n in re.findall(r"\d+", facts["nodes"].replace(",", ""))}
    assert all(word not in caption for word in ("nan", "None", "array(", "{", "Dataset"))
    dataset = store.load(stem, tiny(stem))
    if "seed" in dataset.sizes and "task" not in dataset.sizes:
        assert facts["seeds"].startswith(f"{dataset.sizes['seed']} seed")
    assert ("target" in dataset or "target" in dataset.attrs) <= bool(re.search(r"\d", facts["target"]))


def nodes_of(config):
    """Numbers of nodes of a configuration."""
    config = getattr(config, "scale", config)
    if hasattr(config, "parts") and hasattr(config.parts[0], "num_nodes"):
        return {part.num_nodes for part in config.parts}
    if hasattr(config, "powers"):
        arrays = config.powers if isinstance(config.powers[0], tuple) else (config.powers,)
        return {len(powers) for powers in arrays}
    found = next(getattr(config, name) for name in ("num_nodes", "nodes", "sizes") if hasattr(config, name))
    return set(np.atleast_1d(found).tolist())


def test_the_figure_of_exact_methods_has_all_of_them():
    names = set(drawn.TRACKING + drawn.CORRECTED + drawn.DUALS + drawn.COMPRESSED + drawn.LOCAL + drawn.SAMPLED)
    assert names == set(exact_methods.METHODS)


def test_exact_methods_has_every_method_that_the_table_of_methods_calls_exact():
    """All-reduce keeps the differences of its starts, and the orders of gradient tracking are one method there."""
    words = {"d2": "D²", "admm_tracking": "ATG"}

    def plain(name):
        return words.get(name, name).lower().translate(str.maketrans("", "", "_- –"))

    ours = {plain(name) for name in exact_methods.METHODS}
    assert {plain(name) for name in EXACT - {"allreduce_sgd"}} == ours - {"dpsgd", "next", "augdgm"}


def test_a_number_of_seeds_and_an_interval_are_told():
    at = xr.Dataset({"a": ("seed", [1.0])})
    assert caption_of.seeds_of(at) == "1 seed"
    assert caption_of.bands(at, "a range") == "none: one seed"
    assert caption_of.bands(xr.Dataset({"a": ("seed", [1.0, 2.0])}), "a range") == "a range"
    assert caption_of.numbers([16, 1000]) == "n = 16, 1,000"


def test_bytes_of_secure_aggregation_are_tabulated_at_both_ends_of_the_degrees():
    """By them one sees what more neighbours cost; what is only recalled of the paper is no prediction."""
    axes, seeds = ("recovery", "degree", "dropout", "kind"), np.ones(2)
    formula = np.broadcast_to(np.array([3.0, 6.0, 9.0])[:, None, None], (2, 3, 2, 3))
    dataset = xr.Dataset(
        {
            "score": (("scheme", "seed", "record"), np.ones((3, 2, 1))),
            "gap": (("scheme", "seed"), np.zeros((3, 2))),
            "same_bits": ("seed", seeds),
            "formula": (axes, formula),
            "bytes": ((*axes, "seed"), formula[..., None] * seeds),
            "overhead_percent": ((*axes[:3], "seed"), formula[..., :1] * seeds),
        },
        {
            "scheme": ["plain", "masked", "fixed point"],
            "recovery": ["seeds", "shares"],
            "degree": [3, 6, 9],
            "dropout": [0.0, 0.3],
            "kind": list(secure_aggregation_cost.KINDS),
        },
        {"metric": "accuracy", "byte_rounds": 10, "parameters": 5},
    )
    rows = {row.quantity: row for row in secure_aggregation_cost.table(dataset)}
    for recovery in ("seeds", "shares"):
        for degree in (3, 9):
            assert rows[f"bytes beyond messages, {recovery}, d = {degree}, p = 0.3"].measured == 2 * degree
            assert np.isnan(rows[f"more bytes than plain, %, {recovery}, d = {degree}"].predicted)
    assert not any("d = 6" in name for name in rows)


def test_the_stall_that_a_mean_hides_is_in_the_picture():
    """A round of 300 s in a stretch of a hundred short ones: the mean of the stretch is 8 s."""
    dataset = store.load("plexus_churn", tiny("plexus_churn")).copy(deep=True)
    dataset.longest[dict(network=2, seed=0, hour=3)] = 300.0
    made = plexus_churn_figure.draw(dataset)
    ax = made.axes[-1]
    assert max(np.nanmax(line.get_ydata()) for line in ax.lines) == 300.0
    assert any("300 crashes" in words.get_text() for words in ax.texts)
    assert ax.get_ylim()[1] > 300
    assert "300 s crashes" in plexus_churn_figure.caption(dataset).shows


@pytest.mark.slow
def test_the_panels_of_real_data_say_by_how_much_d_psgd_differs():
    dataset = store.load("heterogeneity", tiny("heterogeneity"))
    ends = 100 * dataset.test_accuracy.sel(statistic="mean").isel(record=-1, partition=0).mean("seed")
    gap = float(ends.sel(protocol="D-PSGD") - ends.drop_sel(protocol="D-PSGD").max())
    title = heterogeneity_figure.draw(dataset).axes[0].get_title(loc="left")
    assert f"D-PSGD {gap:+.1f}".replace("-", "−").replace("D−PSGD", "D-PSGD") in title


def test_fixed_graphs_contract_as_their_spectral_gap_says():
    stem = "consensus_rate_vs_topology"
    dataset = store.load(stem, tiny(stem)).sel(graph=["ring", "star", "hypercube", "complete"])
    # Fitted over 300 rounds of 16 nodes: the second mode has died out to far below this.
    measured = dataset.factor.mean("seed").values
    np.testing.assert_allclose(measured, dataset.predicted_factor.values, atol=2e-3)


def test_quadratic_bias_is_the_exact_one():
    dataset = heterogeneity.on_quadratics(TINY["heterogeneity"])
    final = dataset.quadratic_error[:, 0, -1]  # of D-PSGD
    # Float32 data: the bias is reached to a few units in the last place, accumulated over the dimensions.
    np.testing.assert_allclose(final.values, dataset.predicted_bias.values, rtol=1e-4)


def test_list_names_every_stem(capsys):
    assert command.main(["list"]) == 0
    out = capsys.readouterr().out
    assert all(stem in out for stem in command.STEMS)


@pytest.mark.parametrize("main", [command.main, drawing.main])
def test_unknown_stem_is_an_error_before_any_work(main, capsys, tmp_path):
    words = ["run", "no_such_stem"] if main is command.main else ["no_such_stem"]
    assert main([*words, "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "no_such_stem" in error
    assert "dpsgd_on_real_data" in error
    assert list(tmp_path.iterdir()) == []


def test_missing_and_damaged_results_name_the_command(tmp_path, capsys):
    assert drawing.main(["heterogeneity", "--results", str(tmp_path), "--out", str(tmp_path)]) == 2
    assert "python -m experiments run heterogeneity" in capsys.readouterr().err
    store.path_of("heterogeneity", tmp_path).write_bytes(b"no netCDF")
    assert drawing.main(["heterogeneity", "--results", str(tmp_path), "--out", str(tmp_path)]) == 2
    assert "damaged" in capsys.readouterr().err


def test_a_failed_write_keeps_the_last_good_result(tmp_path, monkeypatch):
    store.save("kept", xr.Dataset({"a": 1}), {}, tmp_path)

    def full_disk(self, path, **_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(xr.Dataset, "to_netcdf", full_disk)
    with pytest.raises(OSError, match="No space left"):
        store.save("kept", xr.Dataset({"a": 2}), {}, tmp_path)
    assert int(store.load("kept", tmp_path).a) == 1
    assert os.listdir(tmp_path) == ["kept.nc"]
