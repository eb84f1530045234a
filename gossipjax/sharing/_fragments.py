"""Fragments: models are cut into parts that are sent separately, and averaged coordinate by coordinate."""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Int, Key, PyTree, UInt

from gossipjax._base.arguments import choice, whole
from gossipjax._base.arguments import seed as check_seed
from gossipjax._base.binding import Frozen
from gossipjax._base.calls import recorded
from gossipjax._base.placement import by_rows
from gossipjax._base.rows import num_rows
from gossipjax.facts import Requires
from gossipjax.mixing._apply import GroupMixing
from gossipjax.mixing._counting import speakers
from gossipjax.sharing._masked import OWN_MODELS, merge_masked
from gossipjax.sharing._wire import (
    Message,
    WireState,
    count_speech,
    message_keys,
    rows_that_speak,
    start_masks,
)
from gossipjax.types import Event, Mass, Params, Sharing


def check_fragments(num_fragments: int) -> int:
    """Validate F."""
    return whole("num_fragments", num_fragments, least=1, remedy="a model is cut into one fragment or more")


def mix_parts(mixing: GroupMixing, x: PyTree, fragment: PyTree[Int[Array, "..."]]) -> PyTree:
    """Average rows coordinate by coordinate, over the members that send that coordinate.

    ``x[target][c] ← Σ_s w_s x[member_s][c] / Σ_s w_s``, both sums over the members s whose part is the fragment of
    coordinate c, or is the whole model. A coordinate that no member sends becomes 0. All groups are read before any is
    written.

    Args:
        mixing: groups; ``parts (g, s)`` names the fragment of each member, −1 the whole model.
        x: leaves ``(rows, ...)``.
        fragment: the fragment of each coordinate, leaves of the shape of one row.
    """
    if mixing.parts is None:
        raise ValueError("mix_parts needs a mixing that names the fragment of each member: give GroupMixing parts")
    members = jnp.asarray(mixing.members).T, jnp.asarray(mixing.weights).T, jnp.asarray(mixing.parts).T
    targets = jnp.asarray(mixing.targets)
    return jax.tree.map(lambda leaf, of: _mix_leaf(members, targets, leaf, of), x, fragment)


def _mix_leaf(members: tuple[Array, Array, Array], targets: Array, leaf: Array, fragment: Array) -> Array:
    groups, fragment = members[0].shape[1], fragment.astype(members[2].dtype)
    coordinates = (-1, *(1,) * fragment.ndim)

    def add(sums: tuple[Array, Array], member: tuple[Array, Array, Array]) -> tuple[tuple[Array, Array], None]:
        rows, weights, parts = (array.reshape(coordinates) for array in member)
        covers = (parts == fragment[None]) | (parts < 0)
        share = jnp.where(covers, weights.astype(leaf.dtype), 0)
        given = leaf.at[rows.reshape(-1)].get(mode="fill", fill_value=0)
        return (sums[0] + share * given, sums[1] + share), None

    zero = jnp.zeros((groups, *leaf.shape[1:]), leaf.dtype)
    (total, weight), _ = jax.lax.scan(add, (zero, zero), members)
    mixed = jnp.where(weight == 0, 0, total / jnp.where(weight == 0, 1, weight))
    repeated = jnp.broadcast_to(mixed[:, None], (groups, targets.shape[1], *leaf.shape[1:]))
    return leaf.at[targets].set(repeated, mode="drop")


def cut_at_random(like: PyTree[jax.ShapeDtypeStruct], num_fragments: int, seed: int) -> PyTree[np.ndarray]:
    """Distribute the coordinates of each tensor over the fragments, in random order and as evenly as possible.

    Args:
        like: leaves of the shape of one row.
        num_fragments: F.
        seed: of the NumPy generator.

    Returns:
        The fragment 0 … F − 1 of each coordinate, int32.
    """
    rng = np.random.default_rng(seed)

    def deal(leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        order = rng.permutation(leaf.size) % num_fragments
        return order.reshape(leaf.shape).astype(np.int32)

    return jax.tree.map(deal, like)


def cut_in_order(like: PyTree[jax.ShapeDtypeStruct], num_fragments: int) -> PyTree[np.ndarray]:
    """Cut the flat model, the concatenation of all leaves, into runs of nearly equal length.

    Coordinate c of d goes to fragment ``⌊c F / d⌋``: runs differ by one coordinate at most.

    Args:
        like: leaves of the shape of one row.
        num_fragments: F.

    Returns:
        The fragment 0 … F − 1 of each coordinate, int32.
    """
    leaves, structure = jax.tree.flatten(like)
    ends = np.cumsum([leaf.size for leaf in leaves])
    flat = np.arange(ends[-1]) * num_fragments // ends[-1]
    parts = np.split(flat.astype(np.int32), ends[:-1])
    return jax.tree.unflatten(structure, [part.reshape(leaf.shape) for part, leaf in zip(parts, leaves, strict=True)])


def _cut(x: Params, num_fragments: int, layout: str, seed: int) -> PyTree[np.ndarray]:
    """Cut one row of stacked models, on the host; only shapes are needed, so it works inside a trace."""
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), x)
    return cut_at_random(like, num_fragments, seed) if layout == "random" else cut_in_order(like, num_fragments)


def _sizes(x: Params, fragment: PyTree[np.ndarray], num_fragments: int) -> list[int]:
    """Return the bits of each fragment."""
    sizes = np.zeros(num_fragments, np.int64)
    for leaf, of in zip(jax.tree.leaves(x), jax.tree.leaves(fragment), strict=True):
        sizes += 8 * leaf.dtype.itemsize * np.bincount(of.ravel(), minlength=num_fragments)
    return sizes.tolist()


def _names_fragments(event: Event) -> bool:
    return isinstance(event.mixing, GroupMixing) and event.mixing.parts is not None


@by_rows
def _encode(
    cut: Frozen[tuple[int, str, int]], key: Key[Array, ""], state: WireState, x_start: Params, x: Params, event: Event
) -> tuple[WireState, tuple[Params | Message, int | UInt[Array, " m"]]]:
    """Send the fragments that the timeline names; if it names none, each sender draws one."""
    del x_start
    number, fragment = cut.value[0], _cut(x, *cut.value)
    sizes = _sizes(x, fragment, number)
    if _names_fragments(event):
        return state, (x, max(sizes))
    rows = speakers(event, num_rows(x))
    values = rows_that_speak(event, x, rows)
    keys = message_keys(key, state.counts, event, rows)
    drawn = jax.vmap(lambda key: jax.random.randint(key, (), 0, number, jnp.int32))(keys)
    flat = jnp.concatenate([jnp.asarray(of.ravel()) for of in jax.tree.leaves(fragment)])
    message = Message(values, flat[None] == drawn[:, None])
    bits = sizes[0] if len(set(sizes)) == 1 else jnp.asarray(sizes, jnp.uint32)[drawn]
    return state._replace(counts=count_speech(state.counts, rows)), (message, bits)


@by_rows
def _merge(
    cut: Frozen[tuple[int, str, int]], key: Key[Array, ""], state: WireState, arrived: tuple[Params, Any, Event]
) -> tuple[WireState, Params]:
    x, _, event = arrived
    if _names_fragments(event):
        return state, mix_parts(event.mixing, x, jax.tree.map(jnp.asarray, _cut(x, *cut.value)))
    return merge_masked(key, state, arrived)


@recorded("biswas2024shatter", "biswas2025divshare")
def fragments(num_fragments: int, *, layout: Literal["random", "contiguous"] = "random", seed: int = 0) -> Sharing:
    """Build fragment sharing: a message is one of F fragments of a model, averaged coordinate by coordinate.

    On a timeline that names the fragment of each message, where y are the received fragments with coordinate c::

        x_i[c] ← (x_i[c] + Σ y[c]) / (1 + number of them)

    With :func:`~gossipjax.dpsgd` on :func:`~gossipjax.timeline.shatter` it is Shatter; on
    :func:`~gossipjax.timeline.divshare`, with the local steps of a tick, it is DivShare. On any other timeline, a
    sender draws one fragment for each event in which it sends, with coordinates M_j, and receivers average with the
    weights of the plan::

        x_i ← x_i + Σ_j W_ij M_j (x_j − x_i)

    Equal models are a fixed point; the mean is conserved in expectation only.

    All nodes use the same partition, which is computed from the shapes of the model. It is a constant of the compiled
    function, one int32 per coordinate. A message counts the bits of its fragment; if the timeline names fragments,
    those of the largest.

    Args:
        num_fragments: F ≥ 1; if the timeline names fragments, its number of them.
        layout: ``"random"`` distributes the coordinates of each tensor in random order, as evenly as possible;
            ``"contiguous"`` cuts the flat model into F runs.
        seed: of the random partition.

    Raises:
        ValueError: if num_fragments < 1 or layout is unknown; during a run, if the timeline names another number of
            fragments, or nodes train rows other than their own.

    Reference: Biswas et al. 2024, arXiv 2404.09536 (Shatter); Biswas et al. 2025, arXiv 2410.12918 (DivShare);
    Hegedűs, Danner, Jelasity 2021 (a random part of the model at a time, in gossip learning).
    """
    num_fragments = check_fragments(num_fragments)
    cut = Frozen((num_fragments, choice("layout", layout, ("random", "contiguous")), check_seed(seed)))
    requires = OWN_MODELS | Requires(num_fragments=num_fragments)
    return Sharing(Partial(start_masks), Partial(_encode, cut), Partial(_merge, cut), requires, Mass("message"))
