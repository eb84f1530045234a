"""Observers of version counters: staleness over pairs of a source and a holder, summarised in several ways."""

from __future__ import annotations

import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Int

from gossipjax._base.arguments import whole
from gossipjax._base.binding import Frozen
from gossipjax._base.calls import recorded
from gossipjax._base.rows import num_rows
from gossipjax.observe._models import Observer, Snapshot, Variable
from gossipjax.observe._ranks import Pairs, statistics
from gossipjax.wrappers._counters import Versions, staleness


def pairs(snapshot: Snapshot) -> tuple[Int[Array, "rows s"], Bool[Array, "rows s"]]:
    """Return the staleness of every (row, source) pair, and the mask of pairs that count: all but a node and itself."""
    versions = versions_of(snapshot)
    rows = num_rows(snapshot.x)
    stale = staleness(versions, rows)
    if not versions.rows_are_nodes.value:  # rows are models, not nodes
        return stale, jnp.ones(stale.shape, bool)
    return stale, jnp.arange(rows, dtype=jnp.int32)[:, None] != versions.sources[None]


def versions_of(snapshot: Snapshot) -> Versions:
    """Return the version counters of a run.

    Raises:
        ValueError: if the run tracks none.
    """
    if snapshot.versions is None:
        raise ValueError("staleness needs version counters: wrap the protocol in track_versions")
    return snapshot.versions


def _check_countable(what: str, rows: int, sources: int) -> None:
    if rows * sources >= 2**31:
        raise ValueError(
            f"{what}: {rows} rows and {sources} tracked sources are {rows * sources} pairs, and their counts hold "
            "numbers below 2³¹; track fewer sources, track_versions(protocol, sources=…)"
        )


def _summary(snapshot: Snapshot) -> dict[str, Array]:
    versions = versions_of(snapshot)
    held = versions.held[: num_rows(snapshot.x)]
    _check_countable("staleness_summary", *held.shape)
    sources = versions.sources if versions.rows_are_nodes.value else jnp.full_like(versions.sources, -1)
    values, holders = statistics(Pairs(held, versions.own, sources))
    return {"staleness": values, "max_staleness": jnp.mean(holders.astype(values.dtype))}


@recorded("mitra2024timely")
def staleness_summary() -> Observer:
    """Measure staleness ``S_i^j = N_i^i − N_i^j`` over all holders j and tracked sources i ≠ j.

    Records ``staleness`` with the dimension ``statistic`` (mean, min, max and percentiles over all pairs), and
    ``max_staleness``, the mean over sources of the maximum over holders. Units: local updates.
    """
    variables = (
        Variable("staleness", "staleness over holders and sources", "updates", ("statistic",)),
        Variable("max_staleness", "maximum staleness over holders, mean over sources", "updates"),
    )
    return Observer(Partial(_summary), variables)


def _by_source(snapshot: Snapshot) -> dict[str, Array]:
    stale, counts = pairs(snapshot)
    kind = jnp.result_type(float)
    total = jnp.sum(jnp.where(counts, stale, 0).astype(kind), axis=0)  # the sum of integers might overflow
    return {
        "staleness_of_source": total / jnp.sum(counts, axis=0).astype(kind),
        "max_staleness_of_source": jnp.max(jnp.where(counts, stale, 0), axis=0).astype(kind),
    }


@recorded("mitra2024timely")
def staleness_by_source() -> Observer:
    """Measure mean and maximum staleness over holders for every tracked source, the sampling unit of statistics."""
    variables = (
        Variable("staleness_of_source", "mean staleness over holders", "updates", ("source",)),
        Variable("max_staleness_of_source", "maximum staleness over holders", "updates", ("source",)),
    )
    return Observer(Partial(_by_source), variables)


def _matrix(snapshot: Snapshot) -> dict[str, Array]:
    return {"staleness_matrix": pairs(snapshot)[0]}


@recorded("mitra2024timely")
def staleness_matrix() -> Observer:
    """Record the staleness of every node (rows) about every tracked source: for small networks only."""
    variable = Variable("staleness_matrix", "staleness of a node's model about a source", "updates", ("node", "source"))
    return Observer(Partial(_matrix), (variable,))


def _histogram(bins: Frozen[int], snapshot: Snapshot) -> dict[str, Array]:
    stale, counts = pairs(snapshot)
    _check_countable("staleness_histogram", *stale.shape)
    at = jnp.minimum(stale, bins.value - 1)
    return {"staleness_histogram": jnp.zeros(bins.value, jnp.int32).at[at].add(counts.astype(jnp.int32))}


@recorded("mitra2024timely")
def staleness_histogram(bins: int) -> Observer:
    """Count pairs by staleness 0, 1, …; the last bin counts all pairs of staleness ≥ ``bins − 1``.

    Raises:
        ValueError: if bins < 2.
    """
    bins = whole("bins", bins, least=2, remedy="the last bin counts all older versions")
    variable = Variable("staleness_histogram", "pairs of holder and source", "1", ("updates_behind",))
    return Observer(Partial(_histogram, Frozen(bins)), (variable,))


def _hops(snapshot: Snapshot) -> dict[str, Array]:
    versions = versions_of(snapshot)
    if versions.hops is None:
        raise ValueError("hops are not tracked: pass hops=True to track_versions")
    _, counts = pairs(snapshot)
    _check_countable("mean_hops", *counts.shape)
    kind = jnp.result_type(float)
    heard = counts & (versions.held[: counts.shape[0]] > 0)
    total = jnp.sum(jnp.where(heard, versions.hops[: counts.shape[0]], 0).astype(kind))
    return {"hops": total / jnp.maximum(jnp.sum(heard), 1).astype(kind)}


@recorded()
def mean_hops() -> Observer:
    """Measure how many transmissions brought the held version to its holder, as the mean over pairs with a version."""
    return Observer(Partial(_hops), (Variable("hops", "transmissions of the version held", "1"),))
