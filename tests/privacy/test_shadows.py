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


def law(phi, inside, k, kind, left):
    """Mean of a kind's shadows of sample k, and the standard deviation over all samples, without some runs."""
    shadows = [
        np.array([phi[r, j] for r in range(len(phi)) if r not in left and inside[r, j] == kind]) for j in range(5)
    ]
    squares = sum(((each - each.mean()) ** 2).sum() for each in shadows if len(each))
    return shadows[k].mean(), np.sqrt(squares / sum(max(len(each) - 1, 0) for each in shadows)), len(shadows[k])


def score(phi, inside, k, value, left, offline):
    mean, sd, _ = law(phi, inside, k, False, left)
    if offline:
        return (value - mean) / sd
    return stats.norm(*law(phi, inside, k, True, left)[:2]).logpdf(value) - stats.norm(mean, sd).logpdf(value)


@pytest.mark.parametrize("offline", [False, True])
def test_scores_and_areas_are_those_of_a_loop(offline):
    phi, inside = drawn(8, 5, 1.0, np.random.default_rng(1))
    found = privacy.lira(phi, inside, offline=offline)
    for run in range(8):
        for k in range(5):
            expected = score(phi, inside, k, phi[run, k], [run], offline)
            assert found.scores[run, k] == pytest.approx(expected, rel=1e-9)
    for k in range(5):
        pairs = [
            score(phi, inside, k, phi[a, k], [a, b], offline) > score(phi, inside, k, phi[b, k], [a, b], offline)
            for a in np.flatnonzero(inside[:, k])
            for b in np.flatnonzero(~inside[:, k])
        ]
        assert found.auc[k] == pytest.approx(np.mean(pairs), rel=1e-12)


@pytest.mark.parametrize("offline", [False, True])
@pytest.mark.parametrize("spread", [0.5, 1.0, 2.0])
def test_members_are_called_by_their_scores(offline, spread):
    """A call is a draw from the law without the sample scoring as much with probability below fpr, by 100,000 draws."""
    rng = np.random.default_rng(4)
    phi, inside = drawn(8, 5, 1.0, rng)
    phi = np.where(inside, spread * phi, phi)
    rate, called, near = 0.2, np.zeros(phi.shape), np.zeros(phi.shape, bool)
    for run in range(8):
        for k in range(5):
            mean, sd, number = law(phi, inside, k, False, [run])
            others = mean + sd * np.sqrt(1 + 1 / number) * rng.standard_normal(100_000)
            own = score(phi, inside, k, phi[run, k], [run], offline)
            chance = np.mean(score(phi, inside, k, others, [run], offline) >= own)
            called[run, k] = chance < rate
            near[run, k] = abs(chance - rate) < 5 * np.sqrt(rate * (1 - rate) / 100_000)
    found = privacy.lira(phi, inside, offline=offline, fpr=rate)
    for value, kind in ((found.tpr, inside), (found.fpr, ~inside)):
        assert abs(value - called[kind].mean()) <= near[kind].mean() + 1e-12
    assert near.mean() < 0.1


@pytest.mark.parametrize("offline", [False, True])
@pytest.mark.parametrize("runs", [4, 16])
@pytest.mark.parametrize("paired", [False, True])
def test_without_a_signal_the_area_is_a_half(runs, offline, paired):
    """Whatever the number of shadows; also in the pairs of shadow_runs, of which four runs leave no variance."""
    rng = np.random.default_rng(5)
    phi, inside = drawn(runs, 2000, 0.0, rng)
    if paired:
        inside[1::2] = ~inside[::2]
    auc = privacy.lira(phi, inside, offline=offline).auc
    assert abs(auc.mean() - 0.5) < 4 * auc.std() / np.sqrt(auc.size)


@pytest.mark.parametrize("offline", [False, True])
def test_the_area_of_a_gap_is_that_of_normal_laws(offline):
    """Offline Φ(gap/√2), whatever the shadows. Online a line, downhill where seven shadows of each kind are so ordered.

    The variances of both kinds differ by their error, 1/√14,000 of each, so that scores are lines.
    """
    phi, inside = drawn(16, 2000, 1.0, np.random.default_rng(6))
    auc = privacy.lira(phi, inside, offline=offline).auc
    right = 1.0 if offline else stats.norm.cdf(1 / np.sqrt(2 / 7))
    area = stats.norm.cdf(1 / np.sqrt(2))
    expected = right * area + (1 - right) * (1 - area)
    assert abs(auc.mean() - expected) < 4 * auc.std() / np.sqrt(auc.size)


@pytest.mark.parametrize("gap", [0.0, 1.0])
def test_rates_are_those_of_normal_laws(gap):
    """φ is normal with variance 1 and the mean of its sample, plus the gap for members.

    A member has 32 shadows without the sample and a non-member 31, whose means widen the law of φ − mean.
    """
    phi, inside = drawn(64, 400, gap, np.random.default_rng(2))
    found = privacy.lira(phi, inside, offline=True, fpr=0.1)
    member = stats.norm.sf(stats.norm.isf(0.1) - gap / np.sqrt(1 + 1 / 32))
    for rate, expected in ((found.fpr, 0.1), (found.tpr, member)):
        # Calls of one sample share their shadows, which at most triples the variance of independent ones.
        assert abs(rate - expected) < 4 * np.sqrt(3 * expected * (1 - expected) / (inside.size / 2))


def test_offline_needs_one_run_with_each_sample_and_does_not_look_at_it():
    phi, inside = drawn(8, 40, 1.0, np.random.default_rng(7))
    inside = np.zeros_like(inside)
    inside[0] = True
    found = privacy.lira(phi, inside, offline=True)
    moved = privacy.lira(np.where(inside, phi + 0.5, phi), inside, offline=True)
    np.testing.assert_allclose(moved.scores[1:], found.scores[1:], rtol=1e-9)
    assert moved.fpr == found.fpr
    with pytest.raises(ValueError, match="in two runs or more"):
        privacy.lira(phi, inside)
    with pytest.raises(ValueError, match="in one run or more"):
        privacy.lira(phi, np.zeros_like(inside), offline=True)
    with pytest.raises(ValueError, match="pass more runs"):
        privacy.lira(phi[:3, :1], inside[:3, :1], offline=True)


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
        (lambda: privacy.lira(1e200 * phi, inside), "confidences"),
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


@pytest.mark.parametrize(
    ("train", "words"),
    [
        (lambda key, task: task.init(key), r"leaves \(4, ...\)"),
        (lambda key, task: gj.replicate(task.init(key), 3), "models of all 4 nodes"),
        (lambda key, task: jax.numpy.zeros(4), "protocol.model"),
        (lambda key, task: jax.tree.map(lambda leaf: 0.5, task.init(key)), r"not \(\)"),
        (lambda key, task: jax.tree.map(lambda leaf: leaf / 0, gj.replicate(task.init(key), 4)), "node 0 in run 0"),
    ],
    ids=["one model", "three models", "no model", "numbers", "diverged"],
)
def test_what_train_returns_is_checked(train, words):
    with pytest.raises(ValueError, match=words):
        privacy.shadow_runs(KEY, TASK, train, 4)


def test_more_runs_than_memory_are_refused():
    with pytest.raises(ValueError, match="take fewer runs"):
        privacy.shadow_runs(KEY, TASK, lambda key, task: None, 10**9)


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


@pytest.mark.slow  # three runs that compile
def test_an_echo_keeps_its_victims_model_apart():
    """All neighbours of node 0 return its own model: its members are found more often. Its changes hide them.

    Judged by intervals of 99 % for the mean difference over seeds, with Student's t for 8 of them.
    """
    task = gj.tasks.classification(
        DATA, gj.tasks.iid(8 * SHARD, 8, seed=0), gj.tasks.mlp(64, (32,), 10), batch_size=SHARD
    )
    graph = gj.topology.ring(8)
    plan = gj.timeline.rounds(gj.mixing.metropolis(graph), 80)
    x0 = gj.replicate(task.init(KEY), 8)
    watch = [gj.observe.membership(task)]
    areas = []
    for attack in (None, gj.robust.echo(), gj.robust.targeted_echo(0)):
        said = None if attack is None else gj.sharing.robust(gj.robust.gts(0.0), (1, 7), attack)
        protocol = gj.dpsgd(task, Partial(optax.sgd, 0.5), sharing=said)
        keys = jax.random.split(KEY, 8)
        run = gj.simulate(keys, protocol, plan, x0, observers=watch, record_every=80)
        areas.append(run.dataset.membership_auc_by_node.isel(record=-1, node=0).values)
    echo, changes = (
        stats.t.interval(0.99, len(each) - 1, np.mean(each), stats.sem(each))
        for each in (areas[1] - areas[0], areas[2] - areas[0])
    )
    assert echo[0] > 0
    assert changes[1] < 0


def test_likelihood_ratios_have_no_unit():
    rng = np.random.default_rng(0)
    inside = np.stack([rng.permutation(12) < 6 for _ in range(20)], axis=1)
    phi = rng.standard_normal((12, 20)) + inside
    for offline in (False, True):
        found, *others = (privacy.lira(phi * unit, inside, offline=offline) for unit in (1.0, 1e-14, 1e60))
        for each in others:
            np.testing.assert_allclose(each.auc, found.auc)
            assert (each.tpr, each.fpr) == (found.tpr, found.fpr)
