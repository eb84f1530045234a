"""Gossip averaging: mixing without learning."""

from __future__ import annotations

from typing import Any, NamedTuple

from jax.tree_util import Partial
from jaxtyping import Array, Key

from gossipjax._base.calls import recorded
from gossipjax._base.outputs import encode
from gossipjax._base.placement import by_rows
from gossipjax._base.rows import num_rows
from gossipjax.facts import Requires
from gossipjax.mixing._counting import traffic_fields
from gossipjax.sharing._full import as_sharing
from gossipjax.types import Event, Info, Params, Protocol, Sharing


class GossipState(NamedTuple):
    """Values and sharing states of all rows."""

    x: Params
    sharing: Any


def _init(sharing: Sharing, key: Key[Array, ""], x0: Params) -> GossipState:
    del key
    return GossipState(x0, sharing.init(x0))


@by_rows
def _step(sharing: Sharing, key: Key[Array, ""], state: GossipState, event: Event) -> tuple[GossipState, Info]:
    shared, (payload, bits) = encode(sharing, key, state.sharing, state.x, state.x, event)
    shared, x = sharing.merge(key, shared, (state.x, payload, event))
    return GossipState(x, shared), Info(*traffic_fields(event, bits, num_rows(x)))


def _model(state: GossipState) -> Params:
    return state.x


@recorded("boyd2006gossip", "xiao2004averaging")
def gossip_averaging(sharing: Sharing | None = None) -> Protocol:
    """Build gossip averaging ``x ← W_t x``; the timeline decides whether it is pairwise, one-way or synchronous.

    If W_t is doubly stochastic, the network mean is conserved and ``Σ‖x_i − x̄‖²`` never grows; on a fixed W it
    contracts by ρ² = ‖W − J‖₂² per round.

    Args:
        sharing: what nodes send; None: the full values. With :func:`~gossipjax.sharing.choco` it is CHOCO-gossip.

    Raises:
        TypeError: if sharing is not a sharing.
        ValueError: during a run, if rows of a mixing matrix do not sum to one, or the timeline names fragments and the
            sharing cannot send them.

    Reference: Boyd, Ghosh, Prabhakar, Shah 2006; Xiao and Boyd 2004.
    """
    chosen = as_sharing(sharing)
    requires = Requires({"row_stochastic"}, mixing=True, local_steps=0, builder="timeline.rounds") | chosen.requires
    return Protocol(Partial(_init, chosen), Partial(_step, chosen), Partial(_model), requires)
