"""Strategies to apply a function of one node to all nodes. Only this module chooses between CPU and accelerator.

Three strategies give the same numbers, up to rounding. "vmap" runs all nodes as one wide operation: best on an
accelerator, and for rows of a few bytes. "map" runs nodes one after another, so that a node's weights stay in cache
and its convolutions stay ordinary (under vmap, per-node kernels become grouped convolutions, 30 times slower on a
CPU). "shard" splits the nodes over the devices and runs "map" on each.

Measured on one core (AMD Zen 5, JAX 0.10.2, 2026), one SGD step of all nodes on batches of 16, ms:

===================  ============  ===========  ==========  =============  ============
model                bytes a node  64 by vmap   64 by map   1,024 by vmap  1,024 by map
===================  ============  ===========  ==========  =============  ============
softmax 4-2                    40         0.06        0.12            0.7           1.8
softmax 64-10               2,600         0.15        0.23            2.1           4.4
MLP 64-64-10               19,240         0.34        0.55            9.4          11.3
softmax 784-10             31,400         0.96         1.2             46            22
MLP 784-32-10             101,800          1.5         2.3             75            75
===================  ============  ===========  ==========  =============  ============

A second device halves the time of "map", and a second thread saves about a third with "vmap", hence ``SMALL_ROW``.
Convolutions never gain from vmap on a CPU. ``python -m benchmarks.local_steps`` measures whole rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import PyTree

from gossipjax._base.arguments import callable_, choice, shown, whole
from gossipjax._base.binding import unwrap
from gossipjax._base.in_place import over_rows, split_arrays
from gossipjax._base.leaves import form_of

Strategy = Literal["auto", "vmap", "map", "shard"]

SMALL_ROW = 16_384
"""Bytes per node below which one wide operation beats a loop over nodes on a CPU."""

WIDE_BYTES = 2**31
"""Bytes of stacked arguments that one wide operation takes; more nodes are a loop over blocks of nodes, so that what an
operation needs in between does not grow with their number. Not measured: 1,024 models of 89,834 parameters fit."""

# A JAX context instead of a ContextVar, because it is part of jit's cache key: a function compiled under one strategy
# is compiled again under another.
_strategy = jax.make_user_context("auto")
_small_rows = jax.make_user_context(None)
"""Whether the rows of a run are below :data:`SMALL_ROW`; None: each function decides by its own arguments."""


_BY_ROWS: set[Callable[..., Any]] = set()
_IN_ROUNDS: set[Callable[..., Any]] = set()
_SHARDS: dict[Callable[..., Any], Callable[..., Any]] = {}
"""How the data that a function draws from are cut; see :func:`by_shards`."""


def by_rows(function: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a function as one that also works where a device of a mesh holds some of the rows only.

    The mark is for three kinds of functions, and promises another thing of each:

    - A ``step`` of a protocol, and ``encode`` and ``merge`` of a sharing, which :func:`gossipjax.simulate` runs on a
      mesh only with the mark. All that the function knows about other rows comes from :func:`gossipjax.mixing.mix` and
      :func:`gossipjax.mixing.neighbor_sum`; it sums nothing over rows, takes the numbers of nodes from ``event`` and
      not from the number of rows, and draws batches only for the nodes whose rows it has.
    - A ``measure`` of an observer, which receives the rows of all devices without the mark. With it, the function
      receives those of one device and ``snapshot.local``, which says whose they are, and reads the training samples of
      these nodes only.
    - A ``batch`` of a task that binds another task's ``batch`` and changes what that one draws. It reads the training
      samples through the one that it binds only, so that they are spread as those are (see :func:`by_shards`); if that
      one has no mark, every device holds all samples.

    Args:
        function: a module-level function.

    Returns:
        The function.
    """
    _BY_ROWS.add(callable_("function", function, "a module-level function"))
    return function


def by_rows_in_rounds(function: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a function as :func:`by_rows` does, but for rounds only, not for meetings and messages of single nodes."""
    _IN_ROUNDS.add(callable_("function", function, "a module-level function"))
    return function


def is_by_rows(function: Any, *, in_rounds: bool = False) -> bool:
    """Return whether a function, or the one that a ``Partial`` binds, is marked by :func:`by_rows`.

    Args:
        function: any.
        in_rounds: whether the mark of :func:`by_rows_in_rounds` is enough.
    """
    inner = unwrap(function)[0]
    return inner in _BY_ROWS or (in_rounds and inner in _IN_ROUNDS)


def by_shards(shards: Callable[..., PyTree]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Mark the ``batch`` of a task as one that reads only the shard of its node, so that a mesh spreads the samples.

    Each device of a mesh then holds the samples of its own nodes; without the mark it holds those of all. Nodes keep
    their numbers: for all nodes named, ``batch(key, shards(data, nodes), node)`` must be ``batch(key, data, node)``,
    bit for bit.

    Arrays of a device with fewer samples are filled up at the end with rows of padding: −1 in whole numbers (the
    largest number where they have no sign), 0 in others. No batch may depend on these rows. Before the run, a batch is
    drawn for each node of such a device beside two sorts of padding, and the run is refused if the two differ.

    >>> import jax, jax.numpy as jnp, numpy as np, gossipjax as gj
    >>> def shards(data, nodes):
    ...     place = np.zeros(len(data["place"]), np.int32)
    ...     place[nodes] = np.arange(len(nodes))
    ...     return {"images": np.asarray(data["images"])[np.asarray(data["place"])[nodes]], "place": place}
    >>> @gj.placement.by_shards(shards)
    ... def batch(key, data, node):
    ...     return data["images"][data["place"][node]]
    >>> data = {"images": jnp.ones((100, 28, 28)), "place": jnp.arange(100)}
    >>> shards(data, np.array([3, 7]))["images"].shape
    (2, 28, 28)

    Args:
        shards: ``shards(data, nodes) -> data`` of some nodes ``(m,)``, in NumPy. The result has the same names, types
            and shapes of a sample for all nodes. Each leaf is an array ``(samples, ...)``, or a leaf of ``data`` as it
            is, which every device receives. What a ``Partial`` binds in ``batch`` comes before ``data`` here too.

    Returns:
        The decorator of a module-level function.

    Raises:
        TypeError: if shards, or what is decorated, is no function; in a run, if shards returns another kind of leaf.
        ValueError: in a run, if results of shards differ in form, or a batch depends on rows of padding.
    """
    callable_("shards", shards, "shards(data, nodes) -> data")

    def mark(function: Callable[..., Any]) -> Callable[..., Any]:
        _SHARDS[callable_("function", function, "a module-level function")] = shards
        return function

    return mark


def shards_of(function: Any) -> partial[PyTree] | None:
    """Return ``shards(data, nodes)`` of a task's ``batch``, or of the one that a function marked ``by_rows`` changes.

    Returns:
        The function; None: it must have the data of all nodes.
    """
    inner, bound, named = unwrap(function)
    if inner in _SHARDS:
        return partial(_SHARDS[inner], *bound, **named)
    if inner in _BY_ROWS:
        parts = (*bound, *named.values())
        return next((found for each in parts if callable(each) and (found := shards_of(each)) is not None), None)
    return None


class Choice(NamedTuple):
    """A strategy, and the reason for it."""

    strategy: Literal["vmap", "map", "shard"]
    reason: str


def using(strategy: Strategy | str) -> AbstractContextManager[None]:
    """Set the strategy of every :func:`map_nodes` inside a with-block.

    Args:
        strategy: "vmap", "map", "shard", or "auto": by measured thresholds, see :func:`choose`.

    Returns:
        The context manager. A function under ``jax.jit`` is compiled once for each strategy.

    Raises:
        ValueError: if the strategy is unknown.
    """
    return _strategy(choice("strategy", strategy, get_args(Strategy)))


@contextmanager
def for_rows(strategy: Strategy | str, bytes_per_row: int) -> Iterator[None]:
    """Set the strategy of a run, and decide about all its steps by the size of its models' rows.

    Functions that each counted the bytes of their own arguments could choose different strategies, and rows would
    move between devices at every event.

    Args:
        strategy: as :func:`using` takes it.
        bytes_per_row: bytes of one node's model.
    """
    with using(strategy), _small_rows(bytes_per_row < SMALL_ROW):
        yield


def in_force() -> Strategy:
    """Return the strategy that :func:`using` has set, or "auto"."""
    return _strategy.value


def choose(k: int, bytes_per_node: int) -> Choice:
    """Return the strategy for ``k`` nodes in the current context, and the reason.

    Args:
        k: number of nodes that act at once.
        bytes_per_node: bytes per node, summed over all stacked arguments; inside a run, its rows decide instead.

    Returns:
        The strategy in force; if it is "auto", the one that the thresholds select.
    """
    k, bytes_per_node = whole("k", k, least=0), whole("bytes_per_node", bytes_per_node, least=0)
    if _strategy.value != "auto":
        return Choice(_strategy.value, "asked for")
    backend, devices = jax.default_backend(), jax.local_device_count()
    if backend != "cpu":
        return Choice("vmap", f"a {backend} runs all nodes as one wide operation")
    small = bytes_per_node < SMALL_ROW if _small_rows.value is None else _small_rows.value
    rows = f"rows of {bytes_per_node} bytes"
    if small:
        return Choice("vmap", f"{rows} are below {SMALL_ROW}: a loop would cost more")
    if devices == 1:
        return Choice("map", f"{rows} stay in cache one node at a time, on one CPU device")
    if k < devices:
        return Choice("map", f"{k} node(s) are fewer than the {devices} CPU devices")
    return Choice("shard", f"{rows}, one node at a time on each of {devices} CPU devices")


def map_nodes(fn: Callable[..., PyTree], *stacked: PyTree) -> PyTree:
    """Apply a function of one node to every node: ``jax.vmap(fn)(*stacked)``, by the strategy in force.

    Works under jit, scan, vmap and reverse differentiation.

    Args:
        fn: function of one node's rows. Bind other arrays that it needs with ``jax.tree_util.Partial``.
        *stacked: pytrees of arrays with the same leading axis, the k nodes.

    Returns:
        Outputs of ``fn``, each leaf with the leading axis k.

    Raises:
        ValueError: if there are no arrays, or leading axes differ.
    """
    callable_("fn", fn, "fn(*rows of one node) -> outputs")
    k = _num_nodes(stacked)
    strategy = choose(k, _bytes_per_node(stacked, k)).strategy if k > 1 or _strategy.value == "map" else "vmap"
    if strategy == "vmap":
        return _wide(fn, *stacked)
    if strategy == "map":
        return over_rows(fn, *stacked)
    return _sharded(over_rows if jax.default_backend() == "cpu" else _wide, fn, stacked, k)


def map_blocks(fn: Callable[..., PyTree], everyone: PyTree, *stacked: PyTree) -> PyTree:
    """Apply a function of blocks of rows that also reads the rows of all nodes: ``fn(everyone, *stacked)``.

    For mixing: ``map_blocks(lambda x, neighbors, weights: ..., x, neighbors, weights)``, where the function gathers
    the rows of x that its block of neighbours names. Under "shard" every device receives ``everyone`` once and computes
    its block of the output, on the device where :func:`map_nodes` of the next event needs it. XLA's partitioner would
    move more data for the same gathers: a round of 64 MLPs 784-32-10 on 2 devices took 5.1 ms without mixing, 5.7 ms
    with 4 neighbours by ``map_blocks``, and 6.0 to 6.4 ms (median 7.6 to 10 against 6.1) by gathers outside it.

    Args:
        fn: ``fn(everyone, *blocks) -> block``; row i of its output depends on row i of the blocks and on everyone.
        everyone: pytree of arrays that every block may read.
        *stacked: pytrees of arrays with the same leading axis k, which is split into blocks.

    Returns:
        Outputs of ``fn``, each leaf with the leading axis k.

    Raises:
        ValueError: if there are no arrays, or leading axes differ.
    """
    callable_("fn", fn, "fn(everyone, *blocks) -> block")
    k = _num_nodes(stacked)
    if k < 2 or choose_blocks(everyone, *stacked).strategy != "shard":
        return fn(everyone, *stacked)
    return _sharded(lambda bound, *blocks: bound(*blocks), jax.tree_util.Partial(fn, everyone), stacked, k)


def choose_blocks(everyone: PyTree, *stacked: PyTree) -> Choice:
    """Return the strategy of :func:`map_blocks` for these arguments."""
    k = _num_nodes(stacked)
    return choose(k, _bytes_per_node(stacked, k) + _bytes_per_node(everyone, k))


def on_cpu() -> AbstractContextManager[Any]:
    """Run what JAX compiles in this block on the CPU, where a loop of scalar steps takes no launches.

    Returns:
        The context manager; without effect where the CPU is the default, or JAX has no CPU device.
    """
    try:
        return jax.default_device(jax.local_devices(backend="cpu")[0])
    except RuntimeError:  # JAX_PLATFORMS names an accelerator only
        return nullcontext()


def replicate_on_devices(tree: PyTree) -> PyTree:
    """Copy the arrays of a pytree to all local devices, so that "shard" does not copy them at every event.

    Args:
        tree: arrays that all nodes read, such as a task's data.

    Returns:
        The same values; with one device, the same arrays.
    """
    devices = jax.local_devices()
    if len(devices) == 1:
        return tree
    return jax.device_put(tree, NamedSharding(Mesh(np.asarray(devices), ("nodes",)), P()))


def place_rows(tree: PyTree) -> PyTree:
    """Shard the rows of a state, inside jit, as "shard" trains them, so that they are not moved at every event.

    Args:
        tree: stacked arrays. Only those whose leading axis k equals that of the first are sharded.

    Returns:
        The same values; unchanged under another strategy, or if the number of devices does not divide k.
    """
    devices, leaves = jax.local_devices(), [leaf for leaf in jax.tree.leaves(tree) if jnp.ndim(leaf)]
    k = leaves[0].shape[0] if leaves else 0
    if not k or k % len(devices) or choose(k, _bytes_per_node(leaves, k)).strategy != "shard":
        return tree
    place = NamedSharding(Mesh(np.asarray(devices), ("nodes",)), P("nodes"))

    def lay(leaf: jax.Array) -> jax.Array:
        return jax.lax.with_sharding_constraint(leaf, place) if jnp.shape(leaf)[:1] == (k,) else leaf

    return jax.tree.map(lay, tree)


def _wide(fn: Callable[..., PyTree], *stacked: PyTree) -> PyTree:
    k = _num_nodes(stacked)
    block = WIDE_BYTES // max(_bytes_per_node(stacked, k), 1)
    if k <= block:
        return jax.vmap(fn)(*stacked)
    return jax.lax.map(lambda rows: fn(*rows), stacked, batch_size=max(block, 1))


def _sharded(run: Callable[..., PyTree], fn: Callable[..., PyTree], stacked: tuple[PyTree, ...], k: int) -> PyTree:
    """Run a block of nodes on each device; copies of the last row pad the last block, and are removed at the end."""
    devices = jax.local_devices()
    mesh = Mesh(np.asarray(devices), ("nodes",))
    missing = -k % len(devices)
    padded = jax.tree.map(lambda leaf: _extend(leaf, missing), stacked)
    arrays, rebuild = split_arrays(fn)

    def block(arrays: list, stacked: tuple[PyTree, ...]) -> PyTree:
        return run(rebuild(arrays), *stacked)

    # No check of replication: it would require every fn to cast constants in its loops to "varying".
    cut = jax.shard_map(block, mesh=mesh, in_specs=(P(), P("nodes")), out_specs=P("nodes"), check_vma=False)
    out = cut(arrays, padded)
    return jax.tree.map(lambda leaf: leaf[:k], out) if missing else out


def _extend(leaf: jax.Array, missing: int) -> jax.Array:
    if not missing:
        return leaf
    return jnp.concatenate([leaf, jnp.broadcast_to(leaf[-1:], (missing, *leaf.shape[1:]))])


def _num_nodes(stacked: tuple[PyTree, ...]) -> int:
    leaves = jax.tree.leaves(stacked)
    if wrong := [leaf for leaf in leaves if form_of(leaf) is None]:
        raise TypeError(f"stacked arguments hold {shown(wrong[0])}, a {type(wrong[0]).__name__}: pass arrays")
    lengths = {jnp.shape(leaf)[:1] for leaf in leaves}
    if len(lengths) != 1 or () in lengths:
        raise ValueError(
            f"stacked arguments have leading axes {sorted(lengths)}: give arrays whose first axis is the same k nodes"
        )
    return lengths.pop()[0]


def _bytes_per_node(stacked: PyTree, k: int) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(stacked)) // max(k, 1)
