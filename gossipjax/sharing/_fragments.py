"""Fragments: models are cut into parts that travel apart, and every coordinate is averaged over what came of it."""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Int, Key, PyTree

from gossipjax._base.arguments import choice, whole
from gossipjax._base.arguments import seed as check_seed
from gossipjax._base.binding import Frozen
from gossipjax._base.calls import recorded
from gossipjax.facts import Requires
from gossipjax.mixing._apply import GroupMixing
from gossipjax.mixing._counting import no_state
from gossipjax.types import Event, Params, Sharing


def check_fragments(num_fragments: int) -> int:
    """Validate F."""
    return whole("num_fragments", num_fragments, least=1, remedy="a model is cut into one fragment or more")


def mix_parts(mixing: GroupMixing, x: PyTree, fragment: PyTree[Int[Array, "..."]]) -> PyTree:
    """Combine rows coordinate by coordinate, over the members that give that coordinate.

    ``x[target][c] ← Σ_s w_s x[member_s][c] / Σ_s w_s``, both sums over the members s whose part is the fragment of
    coordinate c, or is the whole model. A coordinate that nobody gives becomes 0. All groups are read before any is
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
    """Deal the coordinates of each tensor to the fragments, in a random order, as evenly as they go.

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
    """Cut the flat model, all leaves behind one another, into runs of coordinates of nearly equal length.

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


def fragment_bits(x: Params, num_fragments: int) -> int:
    """Count the bits of the largest fragment of :func:`cut_at_random`.

    They differ by one coordinate of each tensor at most.
    """
    leaves = jax.tree.leaves(x)
    return sum(8 * leaf.dtype.itemsize * -(-(leaf.size // leaf.shape[0]) // num_fragments) for leaf in leaves)


def _largest(x: Params, fragment: PyTree[np.ndarray], num_fragments: int) -> int:
    """Count the bits of the largest fragment of any partition."""
    sizes = np.zeros(num_fragments, np.int64)
    for leaf, of in zip(jax.tree.leaves(x), jax.tree.leaves(fragment), strict=True):
        sizes += 8 * leaf.dtype.itemsize * np.bincount(of.ravel(), minlength=num_fragments)
    return int(sizes.max())


def _cut(x: Params, num_fragments: int, layout: str, seed: int) -> PyTree[np.ndarray]:
    """Cut one row of stacked models; on the host, also inside a trace, where only its shape is known."""
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), x)
    return cut_at_random(like, num_fragments, seed) if layout == "random" else cut_in_order(like, num_fragments)


def _encode(
    cut: Frozen[tuple[int, str, int]], key: Key[Array, ""], state: tuple[()], x_start: Params, x: Params, event: Event
) -> tuple[tuple[()], tuple[Params, int]]:
    del key, x_start, event
    return state, (x, _largest(x, _cut(x, *cut.value), cut.value[0]))


def _merge(
    cut: Frozen[tuple[int, str, int]],
    key: Key[Array, ""],
    state: tuple[()],
    arrived: tuple[Params, Params, Event],
) -> tuple[tuple[()], Params]:
    del key
    x, _, event = arrived
    mixing: Any = event.mixing
    if not isinstance(mixing, GroupMixing) or mixing.parts is None:
        raise ValueError(
            f"{type(mixing).__name__} does not say which fragment comes from whom: fragments needs a timeline that "
            "does, such as timeline.shatter"
        )
    return state, mix_parts(mixing, x, jax.tree.map(jnp.asarray, _cut(x, *cut.value)))


@recorded("biswas2024shatter", "biswas2025divshare")
def fragments(num_fragments: int, *, layout: Literal["random", "contiguous"] = "random", seed: int = 0) -> Sharing:
    """Build fragment sharing: a message is one of F fragments of a model, and coordinates are averaged one by one::

        x_i[c] ← (x_i[c] + Σ y[c]) / (1 + number of them)             fragments y received that hold c

    On a timeline that names fragments: with :func:`~gossipjax.dpsgd` on :func:`~gossipjax.timeline.shatter` it is
    Shatter. Equal models are a fixed point; the mean is conserved in expectation only.

    All nodes cut alike. The partition is computed from the shapes of the model, and is a constant of the compiled
    function: one int32 per coordinate. The size of a message is that of the largest fragment.

    Args:
        num_fragments: F ≥ 1, the timeline's number.
        layout: ``"random"``: the coordinates of each tensor are dealt in a random order, as evenly as they go;
            ``"contiguous"``: the flat model is cut into F runs.
        seed: of the random partition.

    Raises:
        ValueError: num_fragments < 1, an unknown layout; when run, a timeline that names no fragments, or not as many.

    Reference: Biswas et al. 2024, arXiv 2404.09536 (Shatter); Biswas et al. 2025, arXiv 2410.12918 (DivShare).
    """
    num_fragments = check_fragments(num_fragments)
    cut = Frozen((num_fragments, choice("layout", layout, ("random", "contiguous")), check_seed(seed)))
    requires = Requires(num_fragments=num_fragments, mixing=True, builder="timeline.shatter")
    return Sharing(Partial(no_state), Partial(_encode, cut), Partial(_merge, cut), requires)
