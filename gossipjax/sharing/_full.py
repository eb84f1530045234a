"""Full sharing: messages are whole models, in the precision in which they are stored."""

from __future__ import annotations

from jax.tree_util import Partial
from jaxtyping import Array, Key

from gossipjax._base.arguments import instance, shown
from gossipjax._base.binding import as_partial
from gossipjax._base.calls import recorded
from gossipjax._base.placement import by_rows
from gossipjax._base.rows import bits_per_row
from gossipjax.facts import Requires
from gossipjax.mixing._apply import mix
from gossipjax.mixing._counting import no_state
from gossipjax.types import Event, Mass, Params, Sharing


@by_rows
def _encode(
    key: Key[Array, ""], state: tuple[()], x_start: Params, x: Params, event: Event
) -> tuple[tuple[()], tuple[Params, int]]:
    del key, x_start, event
    return state, (x, bits_per_row(x))


@by_rows
def _merge(key: Key[Array, ""], state: tuple[()], arrived: tuple[Params, Params, Event]) -> tuple[tuple[()], Params]:
    del key
    x, _, event = arrived
    return state, mix(event.mixing, x)


@recorded()
def full() -> Sharing:
    """Build full sharing: ``x_i ← Σ_j W_ij x_j``; a message is 32 bits per float32 parameter."""
    return Sharing(Partial(no_state), Partial(_encode), Partial(_merge), Requires(mixing=True), Mass("whole"))


def as_sharing(sharing: Sharing | None) -> Sharing:
    """Convert the ``sharing`` argument of a protocol: its functions become pytrees, and None becomes full sharing.

    Raises:
        TypeError: if sharing is not a sharing.
    """
    if sharing is None:
        return full()
    instance("sharing", sharing, Sharing, "build one with gossipjax.sharing, such as choco(compressor, gamma)")
    init, encode, merge = (
        as_partial(f"sharing.{name}", getattr(sharing, name), form) for name, form in _SIGNATURES.items()
    )
    return Sharing(init, encode, merge, sharing.requires, sharing.mass)


def as_own_pace_sharing(sharing: Sharing | None) -> Sharing:
    """Convert the ``sharing`` argument of an asynchronous protocol, as :func:`as_sharing` does.

    Raises:
        TypeError: if sharing is not a sharing.
        ValueError: if sharing needs synchronous rounds.
    """
    chosen = as_sharing(sharing)
    if "synchronous" in chosen.requires:
        raise ValueError(
            f"sharing={shown(chosen)}: needs synchronous rounds, since it has a memory; use "
            "it with dpsgd or gossip_averaging on timeline.rounds, or share full(), random_subset, top_k, jwins, "
            "fragments or compressed here"
        )
    return chosen


_SIGNATURES = {
    "init": "init(x0) -> state",
    "encode": "encode(key, state, x_start, x, event) -> (state, (payload, bits))",
    "merge": "merge(key, state, (x, payloads, event)) -> (state, x)",
}
