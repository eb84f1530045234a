"""Observers of the nodes' traffic and clocks."""

from __future__ import annotations

import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array

from gossipjax._base.calls import recorded
from gossipjax.observe._models import Observer, Snapshot, Variable, percentiles


def _summary(snapshot: Snapshot) -> dict[str, Array]:
    if snapshot.meter is None:
        raise ValueError("meter_summary needs a meter: wrap the protocol in metered")
    high, low = snapshot.meter.bits
    kind = jnp.result_type(float)
    sent = (high.astype(kind) * 2.0**32 + low.astype(kind)) / 8
    return {"node_bytes_sent": percentiles(sent), "node_clock": percentiles(snapshot.meter.clock.astype(kind))}


@recorded()
def meter_summary() -> Observer:
    """Measure ``node_bytes_sent`` and ``node_clock``, with the dimension ``statistic`` over nodes."""
    variables = (
        Variable("node_bytes_sent", "bytes that a node has sent", "byte", ("statistic",)),
        Variable("node_clock", "a node's own clock at the end of its round", "s", ("statistic",)),
    )
    return Observer(Partial(_summary), variables)
