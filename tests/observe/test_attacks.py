"""Attacks on models, and what private gradients cost, against loops over single samples."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial

import gossipjax as gj
from gossipjax import observe, privacy

KEY = jax.random.key(0)
N = 3


def tiny():
    """Three nodes with 5, 4 and 4 samples of three classes, and twelve held-out samples."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((25, 4)).astype(np.float32), rng.integers(0, 3, 25)
    dataset = gj.tasks.from_arrays(x[:13], y[:13], x[13:], y[13:])
    return gj.tasks.classification(
        dataset, gj.tasks.iid(13, N, seed=1), gj.tasks.softmax_regression(4, 3), batch_size=2
    )


TASK = tiny()
MODELS = jax.tree.map(
    lambda leaf: jnp.asarray(np.random.default_rng(leaf.size).standard_normal((N, *leaf.shape)), leaf.dtype),
    TASK.init(KEY),
)
SNAPSHOT = observe.Snapshot(jnp.uint32(3), jnp.float32(0), MODELS)


def measured(observer):
    return {name: np.asarray(values) for name, values in jax.jit(observer.measure)(SNAPSHOT).items()}


def loss(node, source, sample):
    """The loss of one sample, by hand."""
    W, b = sorted((np.asarray(leaf[node], np.float64) for leaf in jax.tree.leaves(MODELS)), key=lambda a: -a.ndim)
    standard = (np.asarray(source["inputs"][sample]) - np.asarray(TASK.data["mean"])) * np.asarray(TASK.data["scale"])
    logits = W @ standard + b
    return np.log(np.exp(logits).sum()) - logits[int(source["labels"][sample])]


def test_membership_compares_members_with_held_out_samples_of_the_same_labels():
    observer = observe.membership(TASK, fpr=0.34)
    pairs = observer.measure.args[1]
    found = measured(observer)
    indices, offsets = np.asarray(TASK.data["indices"]), np.asarray(TASK.data["offsets"])
    for node in range(N):
        there = np.asarray(pairs.there[node])
        members, others = np.asarray(pairs.members[node])[there], np.asarray(pairs.others[node])[there]
        assert set(members) <= set(indices[offsets[node] : offsets[node + 1]])
        assert len(set(members)) == len(members) == len(set(others))
        np.testing.assert_array_equal(TASK.data["labels"][members], TASK.test["labels"][others])
        inside = [loss(node, TASK.data, k) for k in members]
        outside = [loss(node, TASK.test, k) for k in others]
        auc, tpr = privacy.membership_auc(inside, outside), privacy.membership_tpr(inside, outside, 0.34)
        # Counts of pairs over their number.
        np.testing.assert_allclose(found["membership_auc_by_node"][node], auc, rtol=1e-12)
        np.testing.assert_allclose(found["membership_tpr_by_node"][node], tpr, rtol=1e-12)
    few = observe.membership(TASK, samples=2).measure.args[1]
    assert few.members.shape == (N, 2)


def test_linkability_attributes_models_to_the_shard_of_least_loss():
    found = measured(observe.linkability(TASK))["linked_by_node"]
    indices, offsets = np.asarray(TASK.data["indices"]), np.asarray(TASK.data["offsets"])
    for node in range(N):
        means = [np.mean([loss(node, TASK.data, k) for k in indices[a:b]]) for a, b in itertools.pairwise(offsets)]
        assert found[node] == (np.argmin(means) == node)


def test_clipping_reports_shares_and_loudness():
    """B = 4 of shards of 5, 4, 4: all are drawn where the shard has four samples."""
    task = privacy.sample_dp(TASK, clip=1.5, noise=0.5, batch_size=4)
    found = measured(observe.clipping(task))
    indices, offsets = np.asarray(TASK.data["indices"]), np.asarray(TASK.data["offsets"])
    for node in (1, 2):
        gradients = []
        for k in indices[offsets[node] : offsets[node + 1]]:
            W, b = sorted(
                (np.asarray(leaf[node], np.float64) for leaf in jax.tree.leaves(MODELS)), key=lambda a: -a.ndim
            )
            x = (np.asarray(TASK.data["inputs"][k]) - np.asarray(TASK.data["mean"])) * np.asarray(TASK.data["scale"])
            p = np.exp(W @ x + b)
            gap = p / p.sum() - np.eye(3)[int(TASK.data["labels"][k])]
            gradients.append(np.concatenate([np.outer(gap, x).ravel(), gap]))
        lengths = np.linalg.norm(gradients, axis=1)
        total = (np.minimum(1, 1.5 / lengths)[:, None] * np.asarray(gradients)).sum(0)
        assert found["clip_share_by_node"][node] == np.mean(lengths > 1.5)
        loud = 0.5 * 1.5 * np.sqrt(15) / np.linalg.norm(total)
        np.testing.assert_allclose(found["noise_to_signal_by_node"][node], loud, rtol=1e-5)  # float32
    assert 0 < found["clip_share_by_node"].mean() < 1
    whole = privacy.node_dp(gj.tasks.quadratic(np.ones((2, 3))), clip=1.0, noise=0.0)
    quiet = observe.clipping(whole).measure(observe.Snapshot(jnp.uint32(0), jnp.float32(0), jnp.zeros((2, 3))))
    np.testing.assert_array_equal(quiet["clip_share_by_node"], 1)
    np.testing.assert_array_equal(quiet["noise_to_signal_by_node"], 0)


def test_observers_refuse_what_they_cannot_attack():
    quadratic = gj.tasks.quadratic(np.ones((3, 2)))
    for build in (observe.membership, observe.linkability):
        with pytest.raises(ValueError, match="no shards of labelled samples"):
            build(quadratic)
        with pytest.raises(ValueError, match="samples=0"):
            build(TASK, samples=0)
        with pytest.raises(ValueError, match="2 model rows for 3 nodes"):
            build(TASK).measure(SNAPSHOT._replace(x=jax.tree.map(lambda leaf: leaf[:2], MODELS)))
    with pytest.raises(ValueError, match="too few for a rate of one in 100"):
        observe.membership(TASK, fpr=0.01)
    with pytest.raises(ValueError, match="not private"):
        observe.clipping(quadratic)
    watch = observe.clipping(privacy.node_dp(TASK, clip=1.0, noise=1.0))
    with pytest.raises(ValueError, match="2 model rows"):
        watch.measure(SNAPSHOT._replace(x=jax.tree.map(lambda leaf: leaf[:2], MODELS)))


@pytest.mark.slow
def test_no_attack_beats_the_promise():
    """Full batches of μ-private steps: the area, over all samples of 8 nodes and 4 halves, is at most Φ(μ/√2)."""
    digits = gj.tasks.digits()
    rng = np.random.default_rng(0)
    inputs = np.concatenate([digits.train.inputs, digits.test.inputs])
    labels = np.concatenate([digits.train.labels, digits.test.labels])
    graph, steps = gj.topology.ring(8), 25
    for noise in (50.0, 5.0, 0.0):
        areas = []
        for half in range(4):
            order = rng.permutation(len(labels))
            inside, outside = order[:320], order[320:]
            dataset = gj.tasks.from_arrays(inputs[inside], labels[inside], inputs[outside], labels[outside])
            model = gj.tasks.softmax_regression(64, 10)
            plain = gj.tasks.classification(dataset, gj.tasks.iid(320, 8, seed=half), model)
            task = privacy.sample_dp(plain, clip=1.0, noise=noise, batch_size=40)
            protocol = gj.dpsgd(task, Partial(optax.sgd, 2.0))
            plan = gj.timeline.rounds(gj.mixing.metropolis(graph), steps)
            x0 = gj.replicate(plain.init(KEY), 8)
            watch = [observe.membership(plain)]
            run = gj.simulate(jax.random.key(half), protocol, plan, x0, observers=watch)
            areas.append(np.asarray(run["membership_auc_by_node"][-1]))
        areas = np.ravel(areas)
        # Members and others of a node are 40 each: the area of one node has the error √(1/(6·40)) at most under chance.
        error = np.sqrt(1 / 240 / areas.size)
        assert areas.mean() > 0.5 - 4 * error
        if noise:
            bound = privacy.auc(privacy.guarantee(task, steps, 1e-5).mu)
            assert areas.mean() <= bound + 4 * error
        else:
            assert areas.mean() > 0.5 + 4 * error  # without noise the attack works
