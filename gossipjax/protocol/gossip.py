"""Gossip averaging: no learning, only mixing."""

from __future__ import annotations

from typing import NamedTuple

from jax.tree_util import Partial
from jaxtyping import Array, Key

from gossipjax.mixing import mix
from gossipjax.rows import bits_per_row, num_rows
from gossipjax.sharing.messages import sent
from gossipjax.types import Event, Info, Params, Protocol


class GossipState(NamedTuple):
    """Values of all rows."""

    x: Params


def _init(key: Key[Array, ""], x0: Params) -> GossipState:
    del key
    return GossipState(x0)


def _step(key: Key[Array, ""], state: GossipState, event: Event) -> tuple[GossipState, Info]:
    del key
    bits = bits_per_row(state.x)
    info = Info(*sent(event, bits, num_rows(state.x)))
    return GossipState(mix(event.mixing, state.x)), info


def _model(state: GossipState) -> Params:
    return state.x


def gossip_averaging() -> Protocol:
    """Build gossip averaging ``x ← W_t x``: pairwise, one-way push or synchronous, as the timeline says.

    Conserves the network mean wherever W_t is doubly stochastic; ``Σ‖x_i − x̄‖²`` then never grows, and contracts by
    ρ² = ‖W − J‖₂² a round on a fixed W.

    Reference: Boyd, Ghosh, Prabhakar, Shah 2006; Xiao and Boyd 2004.
    """
    return Protocol(Partial(_init), Partial(_step), Partial(_model))
