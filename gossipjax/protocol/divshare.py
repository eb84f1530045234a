"""DivShare: models are cut into fragments, each of which goes to nodes of its own."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial
from jaxtyping import Array, Int, Key, PyTree

from gossipjax.mixing import GroupMixing
from gossipjax.protocol.apart import node_rows, train_apart
from gossipjax.protocol.local import check_steps, init_optimizer
from gossipjax.rows import num_rows
from gossipjax.sharing.messages import sent
from gossipjax.static import Static, as_factory
from gossipjax.types import Event, Info, Params, Protocol, Requires, Task


class DivShareState(NamedTuple):
    """Models of the nodes and of the messages, optimizer states of the nodes."""

    x: Params
    optimizer: Any


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
    members = mixing.members.T, mixing.weights.T, mixing.parts.T
    return jax.tree.map(lambda leaf, of: _mix_leaf(members, mixing.targets, leaf, of), x, fragment)


def _mix_leaf(members: tuple[Array, Array, Array], targets: Array, leaf: Array, fragment: Array) -> Array:
    groups = members[0].shape[1]
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


def _cut(like: PyTree[jax.ShapeDtypeStruct], num_fragments: int, seed: int) -> PyTree:
    """Deal the coordinates of each tensor to the fragments, in a random order, as evenly as they go."""
    rng = np.random.default_rng(seed)

    def deal(leaf: jax.ShapeDtypeStruct) -> Array:
        order = rng.permutation(leaf.size) % num_fragments
        return jnp.asarray(order.reshape(leaf.shape), jnp.int32)

    return jax.tree.map(deal, like)


def _fragment_bits(x: Params, num_fragments: int) -> int:
    """Bits of the largest fragment: they differ by one coordinate of each tensor at most."""
    leaves = jax.tree.leaves(x)
    return sum(8 * leaf.dtype.itemsize * -(-(leaf.size // leaf.shape[0]) // num_fragments) for leaf in leaves)


def _init(task: Task, optimizer: Partial, key: Key[Array, ""], x0: Params) -> DivShareState:
    del key
    return DivShareState(x0, init_optimizer(optimizer, node_rows(x0, task.num_nodes)))


def _step(task, optimizer, steps: Static[int], num_fragments: Static[int], fragment, key, state, event: Event):
    x, optimizer_state, trained = train_apart(key, task, optimizer, steps, state.x, state.optimizer, event)
    bits = _fragment_bits(x, num_fragments.value)
    info = Info(*sent(event, bits, num_rows(x)), trained.loss, trained.finite)
    return DivShareState(mix_parts(event.mixing, x, fragment), optimizer_state), info


def _model(state: DivShareState) -> Params:
    return state.x


def divshare(
    task: Task,
    optimizer: optax.GradientTransformation | Partial,
    *,
    num_fragments: int,
    local_steps: int = 1,
    seed: int = 0,
) -> Protocol:
    """Build DivShare's step of an acting node i, on a :func:`~gossipjax.timeline.divshare` timeline::

        x_i ← x_i + u_1 + … + u_H                                     optimizer(g_i), H times
        cut x_i into fragments, and offer each to J random nodes
        x_i[c] ← (x_i[c] + Σ y[c]) / (1 + number of them)             fragments y received since, that hold c

    Averaging is one-way: it keeps consensus, and the mean in expectation only. A message is one fragment.

    Args:
        task: one shard per node.
        optimizer: any optax transformation, one state per node.
        num_fragments: 1/Ω, as in the timeline; fragments are one fixed random partition of each tensor's coordinates.
        local_steps: H ≥ 1.
        seed: of the partition, shared by all nodes.

    Raises:
        ValueError: num_fragments or local_steps < 1; when run, a timeline that names no fragments.

    Reference: Biswas et al. 2025, arXiv 2410.12918, algorithms 1 and 2.
    """
    if num_fragments < 1:
        raise ValueError(f"num_fragments={num_fragments}: a model is cut into at least one fragment")
    factory = as_factory(optimizer)
    fragment = _cut(jax.eval_shape(task.init, jax.random.key(0)), num_fragments, seed)
    step = Partial(_step, task, factory, check_steps(local_steps), Static(num_fragments), fragment)
    return Protocol(Partial(_init, task, factory), step, Partial(_model), Requires(num_nodes=task.num_nodes))
