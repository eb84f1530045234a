"""The pure loop: records, status, transformations."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial
from problems import X0, D, N, exact_quadratic

from gossipjax import Event, Info, Properties, Protocol, Timeline, bits_per_row, dpsgd, gossip_averaging
from gossipjax._base import counter
from gossipjax._base.rows import (
    acting_nodes,
    all_finite,
    bytes_per_row,
    increase,
    mean_row,
    parameters_per_row,
    put,
    scale_rows,
    take,
)
from gossipjax._engine import loop
from gossipjax.mixing import metropolis
from gossipjax.observe import models
from gossipjax.timeline import poisson_pairs, rounds
from gossipjax.topology import ring

KEY = jax.random.key(0)
W = metropolis(ring(N)).toarray()


def test_records_of_a_run():
    x0 = jnp.asarray(X0)
    protocol = gossip_averaging()
    (state, status), records = jax.jit(loop.run, static_argnames="record_every")(
        KEY, protocol, rounds(W, 6), protocol.init(KEY, x0), record_every=2, observers=(models(),)
    )
    np.testing.assert_array_equal(records.event, [2, 4, 6])
    np.testing.assert_array_equal(records.time, [2.0, 4.0, 6.0])
    powers = np.stack([np.linalg.matrix_power(W, k) @ X0 for k in (2, 4, 6)])
    np.testing.assert_allclose(records.values["model"], powers, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(state.x, powers[-1], rtol=1e-12, atol=1e-14)
    np.testing.assert_array_equal(counter.value(records.messages), [32, 64, 96])
    np.testing.assert_array_equal(counter.value(records.bits), np.asarray([32, 64, 96]) * D * 64)
    assert (int(status.bits), int(status.event)) == (0, 0)


def test_one_record_by_default_and_divisors_only():
    protocol = gossip_averaging()
    state = protocol.init(KEY, jnp.asarray(X0))
    _, records = loop.run(KEY, protocol, rounds(W, 6), state)
    assert records.event.tolist() == [6]
    for every in (0, 4, 7):
        with pytest.raises(ValueError, match=f"record_every={every} does not divide"):
            loop.run(KEY, protocol, rounds(W, 6), state, record_every=every)


@pytest.mark.exact
def test_parts_of_a_run_make_the_whole():
    """State and timeline cut anywhere: the numbers of the events go on."""
    timeline, protocol = poisson_pairs(ring(N), 9, seed=0), dpsgd(exact_quadratic(), Partial(optax.sgd, 0.1))
    run = jax.jit(loop.run)
    (whole, _), _ = run(KEY, protocol, timeline, protocol.init(KEY, jnp.asarray(X0)))
    (half, _), _ = run(KEY, protocol, timeline[:4], protocol.init(KEY, jnp.asarray(X0)))
    (both, _), records = run(KEY, protocol, timeline[4:], half)
    np.testing.assert_array_equal(both.x, whole.x)
    assert records.event.tolist() == [9]


def _breaks_at_five(key, state, event):
    del key
    bad = event.index[0] >= 5
    return state, Info(finite=~bad, loss=jnp.full((2,), event.index[0].astype(jnp.float32)))


def test_status_keeps_the_first_bad_event_and_losses_add_up():
    protocol = Protocol(lambda key, x: x, _breaks_at_five, lambda x: x)
    plan = rounds(W, 8, seconds_per_round=0.5)
    (_, status), records = loop.run(KEY, protocol, plan, jnp.asarray(X0), record_every=4)
    assert (int(status.bits), int(status.event), float(status.time)) == (loop.NON_FINITE, 5, 3.0)
    np.testing.assert_array_equal(records.loss, [2 * (0 + 1 + 2 + 3), 2 * (4 + 5 + 6 + 7)])
    np.testing.assert_array_equal(records.steps, [8, 8])


def _two_events_in_one(key, shared, x):
    del key, shared
    return Event(index=x["index"], time=x["index"].astype(jnp.float32), nodes=jnp.arange(2, dtype=jnp.int32))


def test_records_count_source_events():
    """A level that packs two events counts as two."""
    xs = {"index": np.arange(6, dtype=np.uint32).reshape(3, 2)}
    timeline = Timeline(xs, (), _two_events_in_one, Properties(num_nodes=N, num_rows=N, name="packed"))
    protocol = Protocol(lambda key, x: x, lambda key, x, event: (x, Info()), lambda x: x)
    _, records = loop.run(KEY, protocol, timeline, jnp.asarray(X0), record_every=1)
    assert records.event.tolist() == [2, 4, 6]
    assert records.time.tolist() == [1.0, 3.0, 5.0]


# --- rows -------------------------------------------------------------------------------------------------------------


def test_rows_past_the_end_are_nobody():
    x = {"a": jnp.arange(6.0).reshape(3, 2), "b": jnp.arange(3.0)}
    rows = jnp.asarray([1, 3])
    np.testing.assert_array_equal(take(x, rows)["b"], [1.0, 2.0])
    new = {"a": jnp.full((2, 2), 9.0), "b": jnp.full((2,), 9.0)}
    np.testing.assert_array_equal(put(x, rows, new)["b"], [0.0, 9.0, 2.0])
    np.testing.assert_array_equal(increase(x, rows, new)["a"], [[0, 1], [11, 12], [4, 5]])
    assert take(x, None) is x
    assert put(x, None, new) is new
    np.testing.assert_array_equal(increase(x, None, x)["b"], [0.0, 2.0, 4.0])


def test_sizes_and_sums_of_rows():
    x = {"a": jnp.ones((3, 2, 5)), "b": jnp.ones(3, jnp.float32)}
    assert (parameters_per_row(x), bytes_per_row(x), bits_per_row(x)) == (11, 84, 672)
    assert jax.tree.map(jnp.shape, mean_row(x)) == {"a": (2, 5), "b": ()}
    assert scale_rows(0.5, x)["b"].dtype == jnp.float32
    assert bool(all_finite(x))
    assert not bool(all_finite(x | {"b": jnp.asarray([1.0, jnp.inf, 0.0])}))
    assert acting_nodes(Event(jnp.zeros(1, jnp.uint32), jnp.zeros(1)), 4).tolist() == [0, 1, 2, 3]
