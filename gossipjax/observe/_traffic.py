"""Observers of the nodes' traffic and clocks."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float

from gossipjax._base.calls import recorded
from gossipjax._base.counter import Counter
from gossipjax._base.rows import num_rows
from gossipjax.observe._models import Observer, Snapshot, Variable, percentiles


def _traffic(snapshot: Snapshot) -> dict[str, Array]:
    meter = _meter_of("traffic_by_node", snapshot)
    sent, received = (_bytes(bits, num_rows(snapshot.x)) for bits in meter.traffic)
    return {"bytes_sent_by_node": sent, "bytes_received_by_node": received}


def _clocks(name: str, meter: Any) -> Array:
    if meter.clock is None:
        raise ValueError(
            f"{name} needs clocks: give metered a compute_seconds, bytes_per_second or latency_seconds, or watch "
            "traffic_by_node"
        )
    return meter.clock.astype(jnp.result_type(float))


def _by_node(snapshot: Snapshot) -> dict[str, Array]:
    return {"clock_by_node": _clocks("clock_by_node", _meter_of("clock_by_node", snapshot))}


def _summary(snapshot: Snapshot) -> dict[str, Array]:
    meter = _meter_of("meter_summary", snapshot)
    clocks = _clocks("meter_summary", meter)
    sent = _bytes(meter.traffic.sent, num_rows(snapshot.x))
    return {"node_bytes_sent": percentiles(sent), "node_clock": percentiles(clocks)}


def _meter_of(observer: str, snapshot: Snapshot) -> Any:
    if snapshot.meter is None:
        raise ValueError(f"{observer} needs a meter: wrap the protocol in metered")
    return snapshot.meter


def _bytes(bits: Counter, nodes: int) -> Float[Array, " n"]:
    kind = jnp.result_type(float)
    return (bits.high[:nodes].astype(kind) * 2.0**32 + bits.low[:nodes].astype(kind)) / 8


@recorded()
def traffic_by_node() -> Observer:
    """Record ``bytes_sent_by_node`` and ``bytes_received_by_node`` since the run began, with the dimension ``node``.

    The protocol must be metered (:func:`gossipjax.metered`). All ``bytes_sent_by_node`` add up to ``bytes_sent`` of the
    run.
    """
    variables = (
        Variable("bytes_sent_by_node", "bytes that a node has sent", "byte", ("node",)),
        Variable("bytes_received_by_node", "bytes that a node has received", "byte", ("node",)),
    )
    return Observer(Partial(_traffic), variables)


@recorded()
def clock_by_node() -> Observer:
    """Record ``clock_by_node``, each node's own clock, of a protocol that is metered with clocks."""
    variables = (Variable("clock_by_node", "each node's own clock at the end of its round", "s", ("node",)),)
    return Observer(Partial(_by_node), variables)


@recorded()
def meter_summary() -> Observer:
    """Measure ``node_bytes_sent`` and ``node_clock``, with the dimension ``statistic`` over nodes.

    The protocol must be metered with clocks (:func:`gossipjax.metered`).
    """
    variables = (
        Variable("node_bytes_sent", "bytes that a node has sent", "byte", ("statistic",)),
        Variable("node_clock", "a node's own clock at the end of its round", "s", ("statistic",)),
    )
    return Observer(Partial(_summary), variables)
