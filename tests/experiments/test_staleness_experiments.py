"""What the experiments on staleness compute themselves: exact maxima, units of statistics, fits, devices."""

import sys

import jax
import numpy as np
import pytest

import experiments.__main__ as command
from experiments import staleness_histogram, staleness_vs_capacity, version_age_scaling
from experiments.lib import stationary
from gossipjax.observe import staleness_by_source
from gossipjax.timeline import drawn_gossip
from theory import age


def test_two_nodes_have_one_holder_so_that_mean_and_maximum_agree():
    for scheme in staleness_vs_capacity.SCHEMES:
        both = [
            exact(scheme, 2, 3.0, 1.5)
            for exact in (staleness_vs_capacity.exact_mean, staleness_vs_capacity.exact_maximum)
        ]
        assert both[0] == pytest.approx(both[1], rel=1e-12)


def test_blocks_average_each_source_after_the_burn_in_and_batches_all_of_them():
    plan = stationary.Schedule(record_every=4, burn_in=2, block=3, blocks=2, sources=2)
    recorded = np.stack([np.arange(10.0), 100 + np.arange(10.0)], axis=1)
    found = stationary.blocks(recorded, plan)
    np.testing.assert_array_equal(found, [[3.0, 103.0], [6.0, 106.0]])
    np.testing.assert_array_equal(stationary.batches(found), [53.0, 56.0])
    assert plan.records == 8
    many = stationary.batches(np.arange(4.0 * stationary.BATCHES)[:, None])
    np.testing.assert_array_equal(many, 4.0 * np.arange(stationary.BATCHES) + 1.5)


def test_schedule_covers_what_is_asked_for():
    plan = stationary.schedule(100, record=1000.0, memory=5000.0, burn_in=20_000.0, units=50)
    assert plan.record_every == 512
    assert plan.block * plan.record_every >= 5000
    assert plan.burn_in * plan.record_every >= 20_000
    assert plan.blocks * plan.sources >= 50
    assert plan.chunks * plan.chunk >= plan.records * plan.record_every


def test_a_repeated_chunk_draws_other_meetings():
    chunk = drawn_gossip(9, 64, update_rate=1.0, gossip_rate=1.0)
    found = stationary.records(jax.random.key(0), [chunk, chunk], 9 // 3, staleness_by_source(), 32)
    assert found["staleness_of_source"].shape == (4, 3)
    assert len(np.unique(found["staleness_of_source"], axis=0)) > 1


def test_a_plan_that_is_too_short_is_refused():
    plan = stationary.schedule(10, record=10.0, memory=10.0, burn_in=10.0, units=4)
    short = drawn_gossip(10, 8, update_rate=1.0, gossip_rate=1.0)
    with pytest.raises(ValueError, match="8 events"):
        list(stationary.chunks_of(short, plan))


def test_fits_find_the_law_that_made_the_numbers():
    n = np.geomspace(16, 4096, 7)
    error = np.full(7, 0.01)
    power = version_age_scaling.fit(n, 0.7 * n**0.4, error)
    # Exact data: what is left is the tolerance of the optimiser.
    assert version_age_scaling.exponent(power)[0] == pytest.approx(0.4, abs=1e-6)
    assert version_age_scaling.log_minus_power(power) > 100
    assert version_age_scaling.log_minus_power(version_age_scaling.fit(n, 1.0 + 2.0 * np.log(n), error)) < -100


def test_first_passage_on_the_ring_has_the_mean_of_the_recursion():
    config = version_age_scaling.QUICK._replace(passage_samples=1500)
    found = version_age_scaling.passages("ring", 36, config)
    exact = age.version_age_ring(36, **version_age_scaling.RATES)
    assert abs(found.mean() - exact) < 4 * found.std() / np.sqrt(found.size)


def test_hotelling_statistic_has_its_mean_under_the_law():
    rng = np.random.default_rng(0)
    law = np.array([0.5, 0.3, 0.2])
    found = [staleness_histogram.hotelling(rng.multinomial(400, law, 30) / 400, law) for _ in range(400)]
    values, expected = np.array([one[0] for one in found]), found[0][1]
    assert abs(values.mean() - expected) < 4 * values.std() / 20
    assert staleness_histogram.hotelling(rng.multinomial(400, law[::-1], 30) / 400, law)[0] > 50


def test_stems_of_narrow_events_run_on_one_device_of_their_own(monkeypatch, tmp_path):
    runs, settings = [], []
    monkeypatch.setattr(command, "run_one", lambda stem, *_, **__: runs.append(stem))
    monkeypatch.setattr(command.gossipjax, "configure", lambda **words: settings.append(words))

    class Ended:
        returncode = 0

    monkeypatch.setattr(command.subprocess, "run", lambda words, check: runs.append(words) or Ended)
    narrow, wide = "staleness_vs_capacity", "heterogeneity"
    assert command.main(["run", narrow, "--quick", "--out", str(tmp_path)]) == 0
    assert (runs, settings) == ([narrow], [{"host_devices": 1, "intra_op_threads": 1}])
    runs.clear()
    assert command.main(["run", wide, narrow, "--quick", "--out", str(tmp_path)]) == 0
    child = [sys.executable, "-m", "experiments", "run", narrow, "--out", str(tmp_path), "--quick"]
    assert (runs, settings[1]) == ([wide, child], {})


def test_a_child_that_fails_fails_the_command(monkeypatch, tmp_path, capsys):
    class Ended:
        returncode = 2

    monkeypatch.setattr(command.subprocess, "run", lambda words, check: Ended)
    monkeypatch.setattr(command, "run_one", lambda *_, **__: None)
    monkeypatch.setattr(command.gossipjax, "configure", lambda **words: None)
    assert command.main(["run", "heterogeneity", "version_age_scaling", "--out", str(tmp_path)]) == 2
    assert "version_age_scaling" in capsys.readouterr().err
