"""Sums and counts of versions that 32-bit integers do not hold, without x64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gossipjax as gj
from gossipjax.mixing import PairMixing
from gossipjax.observe import Snapshot
from gossipjax.wrappers import Versions, age_weighted

OLD, N = 2**30, 6


def versions(rows, sources, *, own, held=0, hops=None):
    """Counters of the first nodes, all with the same numbers."""
    number = jnp.minimum(jnp.arange(rows, dtype=jnp.int32), sources)
    table, column = jnp.full((rows, sources), held, jnp.int32), jnp.full(sources, own, jnp.int32)
    hops = None if hops is None else jnp.full_like(table, hops)
    return Versions(table, column, number[:sources], number, hops, gj.Frozen(True))


def seen(found):
    x = jnp.zeros((found.held.shape[0], 1), jnp.float32)
    return Snapshot(jnp.zeros((), jnp.uint32), jnp.zeros((), jnp.float32), x, found, None)


def test_means_of_very_old_versions_and_long_paths():
    with jax.enable_x64(False):
        old = seen(versions(N, N, own=OLD + 1, held=1, hops=OLD))
        found = gj.observe.staleness_by_source().measure(old) | gj.observe.staleness_by_node().measure(old)
        found |= gj.observe.mean_hops().measure(old)
    for name in ("staleness_of_source", "staleness_by_node", "hops"):
        np.testing.assert_allclose(found[name], OLD, rtol=1e-6, err_msg=name)


def test_age_weights_of_many_updates():
    with jax.enable_x64(False):
        counters = versions(N, N, own=OLD, held=OLD)._replace(rows_are_nodes=gj.Frozen(False))
        counters = counters._replace(held=counters.held.at[1].set(OLD // 2))
        half = jnp.full(1, 0.5, jnp.float32)
        pair = PairMixing(jnp.zeros(1, jnp.int32), jnp.ones(1, jnp.int32), half, half)
        share = age_weighted(counters, pair).weights
    np.testing.assert_allclose(share, 2 / 3, rtol=1e-6)


@pytest.mark.parametrize(
    "observer", [gj.observe.staleness_summary(), gj.observe.staleness_histogram(3), gj.observe.mean_hops()]
)
def test_more_pairs_than_counts_hold_are_refused(observer):
    form = jax.eval_shape(lambda: seen(versions(2**16, 2**15, own=1, hops=1)))
    with pytest.raises(ValueError, match=r"2147483648 pairs.*track fewer sources"):
        jax.eval_shape(observer.measure, form)
