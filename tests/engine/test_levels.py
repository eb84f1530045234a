"""Levels that are found inside the run: a loop in NumPy, the levels of the host, and how many turns a block takes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gossipjax as gj
from gossipjax import observe
from gossipjax._base.streams import EVENTS
from gossipjax._engine import levels
from gossipjax._engine.packing import _levels
from gossipjax.facts import Properties
from gossipjax.types import NOBODY

KEY = jax.random.key(5)


def start(n, d=2):
    return np.random.default_rng(1).normal(size=(n, d)).astype(np.float32)


def run(plan, x0, method=None, **settings):
    method = gj.gossip_averaging() if method is None else method
    return gj.simulate(
        settings.pop("key", KEY), method, plan, jnp.asarray(x0), progress=False, strategy="vmap", **settings
    )


@pytest.mark.parametrize("n", [2, 7, 50])
def test_exact_poisson_order_is_that_of_a_loop(n):
    """Drawn meetings in blocks of 64, most of which conflict here: each product and sum as in the loop, bit for bit."""
    plan, x = gj.timeline.drawn_pairs(n, 333), start(n)
    drawn = plan.draw(jax.random.fold_in(KEY, EVENTS), plan.shared, jax.tree.map(jnp.asarray, plan.xs))
    found = run(plan, x, packing="levels", record_every=111)
    for i, j in zip(np.asarray(drawn["first"]), np.asarray(drawn["second"]), strict=True):
        x[i] = x[j] = np.float32(0.5) * x[i] + np.float32(0.5) * x[j]
    np.testing.assert_array_equal(found.x, x)
    assert found["bytes_sent"].values.tolist() == [16 * events for events in (0, 111, 222, 333)]
    assert "levels" in found.manifest["configuration"]["packing"]


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["star", "all"]), st.sampled_from([1, 64, 150]))
def test_levels_are_the_sequential_run(seed, graph, events):
    peers = {"star": gj.topology.star(9), "all": 9}[graph]
    plan = gj.timeline.drawn_gossip(peers, events, update_rate=1.0, gossip_rate=2.0)
    one, other = (run(plan, start(9), key=jax.random.key(seed), packing=way) for way in ("sequential", "levels"))
    np.testing.assert_array_equal(one.x, other.x)
    np.testing.assert_array_equal(one["messages_sent"], other["messages_sent"])
    np.testing.assert_array_equal(one["time"], other["time"])


def test_learning_in_levels_with_seeds_and_messages_in_flight():
    """Each seed draws its own meetings. Losses and models: to rounding, since a wide program adds in another order."""
    n = 12
    task = gj.tasks.quadratic(start(n), noise_std=0.3)
    clock = gj.timeline.clocks.shifted_exponential(0.2, 0.6)
    flying = gj.timeline.push_gossip(gj.topology.ring(n), 6.0, compute=clock, gossip=1.0, latency=0.3, seed=0)
    cases = [
        (gj.dpsgd(task, optax.sgd(0.1)), gj.timeline.drawn_pairs(n, 200)),
        (gj.ad_psgd(task, optax.sgd(0.1)), flying),
    ]
    for method, plan in cases:
        settings = {"key": jax.random.split(KEY, 2), "observers": [observe.consensus_distance()], "record_every": 50}
        plan = plan[: len(plan) // 50 * 50]
        one, other = (
            run(plan, start(n).astype(float), method, packing=way, **settings) for way in ("sequential", "levels")
        )
        for name in ("bytes_sent", "messages_sent", "gradient_calls"):
            np.testing.assert_array_equal(one[name], other[name])
        for name in ("train_loss", "consensus_distance"):
            np.testing.assert_allclose(one[name], other[name], rtol=1e-5, atol=1e-6)  # losses are float32
        np.testing.assert_allclose(one.x, other.x, rtol=1e-12, atol=1e-12)


def turns(rows, num_rows):
    """The turn of each event, found as a block does it, without its narrower turns."""
    pending, free = jnp.ones(len(rows), bool), jnp.full(num_rows, NOBODY, jnp.int32)
    found, turn, one = np.zeros(len(rows), int), 0, jax.jit(levels._earliest)
    while pending.any():
        runs, free = one(jnp.asarray(rows, jnp.int32), pending, free)
        turn += 1
        found[np.asarray(runs)] = turn
        pending = pending & ~runs
    assert (free == NOBODY).all()
    return found


def test_turns_are_the_levels_of_the_host():
    draws = np.random.default_rng(0)
    for n, events in ((5, 40), (300, 200)):
        rows = draws.integers(0, n, (events, 2))
        rows[::7, 1] = NOBODY  # alone
        host = _levels(list(rows.astype(np.int32).T), Properties(num_nodes=n, num_rows=n, name="pairs"), events)
        np.testing.assert_array_equal(turns(rows, n), host)


def test_a_block_takes_few_turns():
    """5 to 9 turns for n/16 to n/4 meetings of a million nodes; the first runs all but a share 2 w/n or less."""
    n = 1 << 20
    draws = np.random.default_rng(2)
    for share, w in ((16, n // 16), (4, n // 4)):
        found = turns(draws.integers(0, n, (w, 2)), n)
        assert 5 <= found.max() <= 9
        # Meeting k meets none of the k before with probability (1 − 2/n)^(2k); the mean of its complement over k < w.
        mean = 1 - (1 - np.exp(-4 / share)) / (4 / share)
        assert abs((found > 1).mean() - mean) < 5 * (mean / w) ** 0.5


def test_blocks_and_refusals():
    assert levels.block_size(Properties(num_nodes=1 << 20, num_rows=1 << 20, name="")) == 1 << 16
    assert levels.block_size(Properties(num_nodes=5, num_rows=5, name="")) == levels.LEAST
    rounds = gj.timeline.rounds(gj.mixing.metropolis(gj.topology.ring(8)), 3)
    with pytest.raises(ValueError, match="cannot be packed: every node acts in every event"):
        run(rounds, start(8), packing="levels")
