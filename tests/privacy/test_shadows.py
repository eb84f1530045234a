"""Membership by likelihood ratios: against loops, on samples of known laws, and on networks that learn."""

import jax
import numpy as np
import optax
import pytest
from jax.tree_util import Partial
from scipy import stats

import gossipjax as gj
from gossipjax import privacy

KEY = jax.random.key(0)


def drawn(runs, samples, gap, rng):
    inside = np.argsort(rng.random((runs, samples)), axis=0) < runs // 2
    hard = 3 * rng.standard_normal(samples)
    return hard + gap * inside + rng.standard_normal((runs, samples)), inside


@pytest.mark.parametrize("offline", [False, True])
def test_scores_are_those_of_a_loop(offline):
    phi, inside = drawn(8, 5, 1.0, np.random.default_rng(1))
    found = privacy.lira(phi, inside, offline=offline)
    spread = {}
    for kind in (True, False):
        rows = [phi[inside[:, k] == kind, k] for k in range(5)]
        spread[kind] = np.sqrt(sum(((r - r.mean()) ** 2).sum() for r in rows) / (sum(map(len, rows)) - 5))
    for run in range(8):
        for k in range(5):
            others = [r for r in range(8) if r != run]
            mean = {kind: np.mean([phi[r, k] for r in others if inside[r, k] == kind]) for kind in (True, False)}
            expected = (phi[run, k] - mean[False]) / spread[False]
            if not offline:
                expected = stats.norm(mean[True], spread[True]).logpdf(phi[run, k]) - stats.norm(
                    mean[False], spread[False]
                ).logpdf(phi[run, k])
            assert found.scores[run, k] == pytest.approx(expected, rel=1e-9)
    for k in range(5):
        pairs = [
            (found.scores[a, k] > found.scores[b, k])
            for a in np.flatnonzero(inside[:, k])
            for b in np.flatnonzero(~inside[:, k])
        ]
        assert found.auc[k] == pytest.approx(np.mean(pairs), rel=1e-12)


@pytest.mark.parametrize("gap", [0.0, 1.0])
def test_rates_are_those_of_normal_laws(gap):
    """φ is normal with variance 1 and the mean of its sample, plus the gap for members: AUC Φ(gap/√2).

    Means of 31 or 32 shadows shift a sample's threshold by a normal error of variance 1/32, and the areas hardly.
    """
    runs, samples = 64, 400
    phi, inside = drawn(runs, samples, gap, np.random.default_rng(2))
    found = privacy.lira(phi, inside, offline=True, fpr=0.1)
    wider = np.sqrt(1 + 1 / 31.5)
    for rate, shift, number in ((found.fpr, 0.0, inside.size / 2), (found.tpr, gap, inside.size / 2)):
        expected = stats.norm.sf((stats.norm.isf(0.1) - shift) / wider)
        # Calls of one sample share their shadows, which at most triples the variance of independent ones.
        assert abs(rate - expected) < 4 * np.sqrt(3 * expected * (1 - expected) / number)
    expected = stats.norm.cdf(gap / np.sqrt(2) / wider)
    assert abs(found.auc.mean() - expected) < 4 * found.auc.std() / np.sqrt(samples) + 0.005  # own means: 1/runs


def test_shapes_of_samples_are_kept_and_bad_input_is_refused():
    phi, inside = drawn(8, 6, 1.0, np.random.default_rng(3))
    flat = privacy.lira(phi, inside)
    both = privacy.lira(phi.reshape(8, 2, 3), inside.reshape(8, 2, 3))
    np.testing.assert_array_equal(both.auc.ravel(), flat.auc)
    np.testing.assert_array_equal(both.scores.reshape(8, 6), flat.scores)
    for call, words in (
        (lambda: privacy.lira(phi, inside[:, :2]), "shape"),
        (lambda: privacy.lira(phi, inside.astype(int)), "bools"),
        (lambda: privacy.lira(phi, np.ones_like(inside)), "in two runs or more"),
        (lambda: privacy.lira(phi, inside, fpr=1.0), "fpr"),
        (lambda: privacy.lira(np.where(inside, np.nan, phi), inside), "confidences"),
    ):
        with pytest.raises(ValueError, match=words):
            call()


NODES, SHARD = 4, 24
DATA = gj.tasks.digits(test_share=0.5, seed=0)
TASK = gj.tasks.classification(
    DATA, gj.tasks.iid(NODES * SHARD, NODES, seed=0), gj.tasks.softmax_regression(64, 10), batch_size=8
)
PLAN = gj.timeline.rounds(gj.mixing.metropolis(gj.topology.ring(NODES)), 60)


def _train(rate, noise, key, task):
    if noise:
        task = privacy.sample_dp(task, clip=1.0, noise=noise, batch_size=SHARD // 2)
    protocol = gj.dpsgd(task, Partial(optax.sgd, rate))
    state = protocol.init(key, gj.replicate(task.init(key), NODES))
    (state, _), _ = gj.run(key, protocol, PLAN, state)
    return protocol.model(state)


def test_halves_are_what_the_runs_train_on():
    seen = []

    def held(key, task):
        jax.debug.callback(lambda indices: seen.append(np.asarray(indices)), task.data["indices"])
        return gj.replicate(task.init(key), NODES)

    found = privacy.shadow_runs(KEY, TASK, held, 6, samples=5)
    jax.effects_barrier()
    np.testing.assert_array_equal(found.inside.sum(axis=0), 3)
    assert found.confidences.shape == found.inside.shape == (6, NODES, 5)
    halves = [half.reshape(NODES, SHARD // 2) for half in seen]
    told = [[np.isin(row, half) for row, half in zip(found.samples, each, strict=True)] for each in halves]
    assert sorted(map(np.ndarray.tolist, np.array(told))) == sorted(map(np.ndarray.tolist, found.inside))
    shards = np.asarray(TASK.data["indices"]).reshape(NODES, SHARD)
    for each in halves:
        assert all(
            len(set(half.tolist()) & set(row.tolist())) == SHARD // 2 for half, row in zip(each, shards, strict=True)
        )
    for call, words in (
        (lambda: privacy.shadow_runs(KEY, TASK, held, 3), "num_runs"),
        (lambda: privacy.shadow_runs(KEY, TASK, held, 6, samples=SHARD + 1), "samples"),
        (lambda: privacy.shadow_runs(KEY, gj.tasks.quadratic(np.zeros((4, 2))), held, 6), "shards"),
    ):
        with pytest.raises(ValueError, match=words):
            call()


def test_confidence_is_the_log_odds_of_the_true_label():
    found = privacy.shadow_runs(KEY, TASK, lambda key, task: gj.replicate(TASK.init(KEY), NODES), 4)
    model = TASK.init(KEY)
    for node in range(NODES):
        shard = np.asarray(TASK.data["indices"])[node * SHARD : (node + 1) * SHARD]
        losses = [
            float(TASK.metrics(model, TASK.test | {n: TASK.data[n][k : k + 1] for n in ("inputs", "labels")})["loss"])
            for k in shard
        ]
        p = np.exp(-np.sort(losses))
        np.testing.assert_allclose(np.sort(found.confidences[0, node]), np.sort(np.log(p / (1 - p))), rtol=1e-4)


@pytest.mark.slow  # 24 runs, twice
def test_members_are_found_without_noise_and_no_more_than_mu_allows_with_it():
    """Without noise the attack finds what was learned by heart; with it the bound Φ(μ/√2) holds for each sample."""
    plain = privacy.shadow_runs(KEY, TASK, Partial(_train, 1.0, 0.0), 24)
    area = privacy.lira(plain.confidences, plain.inside).auc.mean()
    assert area > 0.6
    noisy = privacy.shadow_runs(KEY, TASK, Partial(_train, 0.3, 20.0), 24)
    mu = privacy.guarantee(privacy.sample_dp(TASK, clip=1.0, noise=20.0, batch_size=SHARD // 2), 60, 1e-5).mu
    found = privacy.lira(noisy.confidences, noisy.inside).auc
    assert found.mean() <= privacy.auc(mu) + 4 * found.std() / np.sqrt(found.size)
    assert found.mean() < area


@pytest.mark.slow  # two runs that compile
def test_an_echo_keeps_its_victims_model_apart():
    """All neighbours of node 0 return its own model: its members are found as if it learned alone."""
    task = gj.tasks.classification(
        DATA, gj.tasks.iid(8 * SHARD, 8, seed=0), gj.tasks.mlp(64, (32,), 10), batch_size=SHARD
    )
    graph = gj.topology.ring(8)
    plan = gj.timeline.rounds(gj.mixing.metropolis(graph), 80)
    x0 = gj.replicate(task.init(KEY), 8)
    watch = [gj.observe.membership(task)]
    areas = []
    for said in (None, gj.sharing.robust(gj.robust.gts(0.0), (1, 7), gj.robust.echo())):
        protocol = gj.dpsgd(task, Partial(optax.sgd, 0.5), sharing=said)
        keys = jax.random.split(KEY, 4)
        run = gj.simulate(keys, protocol, plan, x0, observers=watch, record_every=80)
        areas.append(np.asarray(run["membership_auc_by_node"])[:, -1, 0])
    assert (areas[1] - areas[0]).mean() > 0.02
