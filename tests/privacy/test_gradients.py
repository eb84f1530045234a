"""Private gradients against sums written by hand, their noise against its law, and their promises."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial
from scipy import stats

import gossipjax as gj
from gossipjax import privacy
from gossipjax._base.clipping import Mechanism, Sampled, contributed, mechanism_of, private_loss

KEY = jax.random.key(0)
SHARDS = gj.tasks.iid(20, 4, seed=0)
QUADRATIC = gj.tasks.quadratic(np.zeros((4, 2)))


def tiny(batch_size=5):
    """Four nodes with five samples of two classes each."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((20, 3)).astype(np.float32), np.arange(20) % 2
    dataset = gj.tasks.from_arrays(x, y, x[:6], y[:6])
    return gj.tasks.classification(dataset, SHARDS, gj.tasks.softmax_regression(3, 2), batch_size=batch_size)


def linear_loss(key, params, batch):
    del key
    return jnp.mean(batch @ params)


def test_clipped_sum_of_two_gradients():
    """g = (3, 4) and (0.3, 0.4) with C = 1 give (0.45, 0.6); without a clip, the mean (1.65, 2.2)."""
    batch = Sampled(jnp.asarray([[[3.0, 4.0]], [[0.3, 0.4]], [[50.0, 50.0]]]), jnp.asarray([True, True, False]))
    for clip, expected, share in ((1.0, (0.45, 0.6), 0.5), (jnp.inf, (1.65, 2.2), 0.0)):
        mechanism = Mechanism(clip, None, 2.0)
        found = jax.grad(private_loss, argnums=3)(mechanism, Partial(linear_loss), KEY, jnp.zeros(2), batch)
        np.testing.assert_allclose(found, expected, rtol=1e-14)  # a few roundings
        assert contributed(mechanism, Partial(linear_loss), KEY, jnp.zeros(2), batch).clipped == share


def softmax_gradients(params, x, y):
    """((p − y) xᵀ, p − y) of each sample, flat, and its loss."""
    W, b = (np.asarray(leaf, np.float64) for leaf in params)
    logits = x @ W.T + b
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    gap = p - np.eye(len(b))[y]
    return np.concatenate([np.einsum("ki,kj->kij", gap, x).reshape(len(x), -1), gap], axis=1), -np.log(
        p[range(len(y)), y]
    )


def parts(params):
    """The kernel and the bias of a softmax regression."""
    return sorted(jax.tree.leaves(params), key=lambda leaf: -leaf.ndim)


def test_sample_gradients_are_those_of_a_loop():
    """Clip each sample of the shard, add those drawn, divide by B; with B = m all are drawn."""
    plain, clip = tiny(), 0.8
    params = jax.tree.map(
        lambda leaf: leaf + jnp.linspace(0, 1, leaf.size, dtype=leaf.dtype).reshape(leaf.shape), plain.init(KEY)
    )
    x = (np.asarray(plain.data["inputs"], np.float64) - np.asarray(plain.data["mean"])) * np.asarray(
        plain.data["scale"]
    )
    gradients, losses = softmax_gradients(parts(params), x, np.asarray(plain.data["labels"]))
    lengths = np.linalg.norm(gradients, axis=1, keepdims=True)
    clipped = gradients * np.minimum(1, clip / lengths)
    assert 0.2 < np.mean(lengths > clip) < 0.8
    slope = jax.jit(lambda task, key, params, batch: jax.value_and_grad(task.loss, argnums=1)(key, params, batch))
    draw = jax.jit(lambda task, key, node: task.batch(key, task.data, node))
    sizes = set()
    for size in (5, 2):
        task = privacy.sample_dp(plain, clip=clip, noise=0.0, batch_size=size)
        for node in range(4):
            own = np.asarray(plain.data["indices"])[5 * node : 5 * node + 5]
            batch = draw(task, jax.random.key(node), jnp.int32(node))
            taken = own[np.asarray(batch.takes)]
            sizes.add((size, len(taken)))
            loss, found = slope(task, KEY, params, batch)
            flat = np.concatenate([np.ravel(leaf) for leaf in parts(found)])
            np.testing.assert_allclose(flat, clipped[taken].sum(0) / size, atol=2e-6)  # float32
            np.testing.assert_allclose(loss, losses[taken].mean() if len(taken) else 0, rtol=2e-6)
    assert {each for each in sizes if each[0] == 5} == {(5, 5)}
    assert len(sizes) > 2


def test_batches_of_large_shards_have_room_for_few():
    """Each of 300 samples is drawn with probability B/m, once; the gradient is that of the samples drawn."""
    rng = np.random.default_rng(0)
    inputs, labels = rng.standard_normal((600, 3)).astype(np.float32), rng.integers(0, 2, 600).astype(np.int32)
    dataset = gj.tasks.from_arrays(inputs, labels, inputs[:4], labels[:4])
    shards = gj.tasks.Partition(rng.permutation(600).astype(np.int32), np.asarray([0, 300, 600], np.int32))
    plain = gj.tasks.classification(dataset, shards, gj.tasks.softmax_regression(3, 2))
    task = privacy.sample_dp(plain, clip=0.5, noise=0.0, batch_size=12)
    params = plain.init(KEY)
    x = (inputs.astype(np.float64) - np.asarray(plain.data["mean"])) * np.asarray(plain.data["scale"])
    gradients, _ = softmax_gradients(parts(params), x, labels)
    clipped = gradients * np.minimum(1, 0.5 / np.linalg.norm(gradients, axis=1, keepdims=True))
    draw = jax.jit(jax.vmap(task.batch, (0, None, None)))
    slope = jax.jit(jax.vmap(lambda batch: jax.grad(task.loss, argnums=1)(KEY, params, batch)))
    batches = draw(jax.random.split(KEY, 500), task.data, jnp.int32(1))
    takes, found = np.asarray(batches.takes), slope(batches)
    assert takes.shape[1] < 60
    drawn = np.zeros((500, 600), int)
    for t, batch in enumerate(np.asarray(batches.samples["inputs"])[:, :, 0]):
        distance = ((batch[takes[t], None] - x[None]) ** 2).sum(axis=2)
        assert distance.min(axis=1).max(initial=0) < 1e-10
        np.add.at(drawn[t], distance.argmin(axis=1), 1)
    own = np.asarray(shards.indices)[300:]
    assert drawn.max() == 1
    assert not np.delete(drawn, own, axis=1).any()
    sizes, variance = drawn.sum(axis=1), 12 * (1 - 12 / 300)
    # Standard errors of the mean and of the variance of 500 nearly normal numbers.
    assert abs(sizes.mean() - 12) < 4 * np.sqrt(variance / 500)
    assert abs(sizes.var() / variance - 1) < 4 * np.sqrt(2 / 500)
    flat = np.concatenate([np.reshape(leaf, (500, -1)) for leaf in parts(found)], axis=1)
    np.testing.assert_allclose(flat, drawn @ clipped / 12, rtol=0, atol=2e-6)  # float32


def test_without_clip_and_noise_a_run_is_the_plain_one_bit_for_bit():
    plain, plan = tiny(), gj.timeline.rounds(gj.mixing.metropolis(gj.topology.ring(4)), 5)
    both = plain, privacy.node_dp(plain, clip=np.inf, noise=0.0)
    x0 = gj.replicate(plain.init(KEY), 4)
    first, second = (gj.simulate(KEY, gj.dpsgd(task, Partial(optax.sgd, 0.1)), plan, x0) for task in both)
    for mine, other in zip(jax.tree.leaves(first.x), jax.tree.leaves(second.x), strict=True):
        np.testing.assert_array_equal(mine, other)
    np.testing.assert_array_equal(first["train_loss"], second["train_loss"])


def test_noise_has_its_law_and_a_stream_of_its_own():
    """ĝ − g is N(0, (zC)² I), other for other keys, and the batch is that of the plain task."""
    wide = gj.tasks.quadratic(np.full((1, 4000), 10.0))
    task = privacy.node_dp(wide, clip=2.0, noise=1.5)
    batch = task.batch(KEY, task.data, jnp.int32(0))
    slope = jax.jit(jax.grad(task.loss, argnums=1))
    quiet = jax.grad(privacy.node_dp(wide, clip=2.0, noise=0.0).loss, argnums=1)(KEY, jnp.zeros(4000), batch)
    np.testing.assert_allclose(jnp.linalg.norm(quiet), 2.0, rtol=1e-12)
    first, second = (np.asarray(slope(jax.random.key(k), jnp.zeros(4000), batch) - quiet) / 3 for k in (1, 2))
    for noise in (first, second):
        # Two tests: below 1e-4 once in five thousand seeds.
        assert stats.kstest(noise, "norm").pvalue > 1e-4
    assert abs(np.corrcoef(first, second)[0, 1]) < 4 / np.sqrt(4000)
    np.testing.assert_array_equal(batch["target"], wide.batch(KEY, wide.data, jnp.int32(0))["target"])
    assert task.loss(KEY, jnp.zeros(4000), batch) == wide.loss(KEY, jnp.zeros(4000), batch)


def test_nodes_local_steps_and_rounds_draw_other_noise():
    protocol = gj.dpsgd(privacy.node_dp(QUADRATIC, clip=1.0, noise=1.0), Partial(optax.sgd, 1.0), local_steps=2)
    x = np.asarray(gj.simulate(KEY, protocol, gj.timeline.rounds(np.eye(4), 2), jnp.zeros((4, 2))).x)
    assert len(np.unique(x)) == 8


def test_guarantee_says_everything_together():
    promise = privacy.guarantee(privacy.node_dp(QUADRATIC, clip=0.5, noise=4.0), 16, 1e-5)
    assert promise.epsilon == pytest.approx(4.377178, abs=5e-7)
    assert promise.mu == 1.0
    for part in ("(4.377, 1e-05)", "one node", "zeroed out", "clip = 0.5", "honest but curious", "not protected"):
        assert part in str(promise)
    sample = privacy.guarantee(privacy.sample_dp(tiny(), clip=1.0, noise=2.0, batch_size=2), 4, 0.5)
    assert (sample.mu, sample.unit) == (1.0, "one sample of a node")
    assert "above one over the 5 samples" in str(sample)
    assert "sampling of the batch is not counted" in str(sample)
    silent = privacy.guarantee(privacy.node_dp(QUADRATIC, clip=1.0, noise=0.0), 1, 1e-5)
    assert silent.epsilon == silent.mu == np.inf


def test_bad_input_is_refused():
    for clip in (0.0, -1.0, np.nan):
        with pytest.raises(ValueError, match=r"clip=.*above 0"):
            privacy.node_dp(QUADRATIC, clip=clip, noise=1.0)
    with pytest.raises(ValueError, match=r"noise=-0\.1"):
        privacy.sample_dp(tiny(), clip=1.0, noise=-0.1, batch_size=2)
    with pytest.raises(ValueError, match="finite clip"):
        privacy.node_dp(QUADRATIC, clip=np.inf, noise=1.0)
    with pytest.raises(ValueError, match="smallest shard has 5 samples"):
        privacy.sample_dp(tiny(), clip=1.0, noise=1.0, batch_size=6)
    with pytest.raises(ValueError, match="not lists of samples"):
        privacy.sample_dp(QUADRATIC, clip=1.0, noise=1.0, batch_size=1)
    with pytest.raises(ValueError, match="private already"):
        privacy.node_dp(privacy.node_dp(QUADRATIC, clip=1.0, noise=1.0), clip=1.0, noise=1.0)
    with pytest.raises(ValueError, match="not private"):
        privacy.guarantee(QUADRATIC, 1, 1e-5)
    assert mechanism_of(QUADRATIC) is None


def test_audits_take_the_noise_of_a_private_task():
    ring = gj.topology.ring(4)
    plan = gj.timeline.rounds(gj.mixing.metropolis(ring), 4)
    private = gj.dpsgd(
        privacy.node_dp(gj.tasks.quadratic(jnp.zeros((4, 2))), clip=1.0, noise=0.5), Partial(optax.sgd, 0.1)
    )
    with pytest.raises(ValueError, match=r"noise of 0\.5 times their clip; pass noise=0\.5 and sensitivity=1"):
        gj.audit(plan, private)
    audit = gj.audit(plan, private, noise=0.5)
    assert audit.local[0] == pytest.approx(4.0)  # √4 / 0.5
    silent = gj.dpsgd(
        privacy.node_dp(gj.tasks.quadratic(jnp.zeros((4, 2))), clip=1.0, noise=0.0), Partial(optax.sgd, 0.1)
    )
    with pytest.raises(ValueError, match="clipped without noise"):
        gj.audit(plan, silent)
