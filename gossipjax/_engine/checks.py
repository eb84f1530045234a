"""Checks made once, before any long work; each error names the value, the rule and the remedy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Key, PyTree
from scipy import sparse

from gossipjax._base.arguments import shown
from gossipjax._base.counter import MOST_BITS
from gossipjax._base.leaves import form_of, near
from gossipjax._base.outputs import Bits
from gossipjax._base.rows import bits_per_row
from gossipjax._engine.probe import Probe, probe
from gossipjax.facts import Properties, Requires
from gossipjax.mixing._apply import DenseMixing, TableMixing
from gossipjax.sharing._edges import off_graph
from gossipjax.timeline._events import event_form
from gossipjax.types import NOBODY, Event, Protocol, Task, Timeline

WEIGHTS_ROUNDING = 1e-4
"""Largest error of sums of weights that should be one; a thousand float32 weights miss it by 1e-5."""


def check_weights(requires: Requires, timeline: Timeline, mixing: Any) -> None:
    """Check that the weights of the first round have the stated facts that the protocol needs.

    Builders state facts; if the arrays of a timeline were replaced afterwards, its facts may no longer be true.

    Args:
        requires: what the protocol needs.
        timeline: whose facts are stated.
        mixing: of its first event.

    Raises:
        ValueError: if the weights lack a fact that the protocol needs.
    """
    if not isinstance(mixing, DenseMixing | TableMixing) or isinstance(mixing[0], jax.core.Tracer):
        return
    for fact, deviation in _DEVIATIONS.items():
        if fact in requires and not (by := deviation(mixing)) <= WEIGHTS_ROUNDING:
            raise ValueError(
                f"{timeline.properties.name} says that its weights are {fact.replace('_', ' ')}, but those of the "
                f"first round are not, by {by:.3g}: exchange weights by timeline.with_mixing, or build timeline.rounds"
            )


def check_graph(protocol: Protocol, timeline: Timeline, mixing: Any) -> None:
    """Check that the edges of the first round are edges of the graph that the protocol or its sharing was given.

    Raises:
        ValueError: an edge is not; the message names it.
    """
    words = edge_off_graph(protocol, timeline, mixing)
    if words is not None:
        raise ValueError(f"the timeline {timeline.properties.name} has another graph than the protocol: {words}")


def edge_off_graph(protocol: Protocol, timeline: Timeline, mixing: Any) -> str | None:
    """Say which edge of a round is none of the graph that the protocol or its sharing was given; None: all are."""
    if "one_graph" not in timeline.properties or isinstance(jax.tree.leaves(mixing)[0], jax.core.Tracer):
        return None
    edge = off_graph(protocol, mixing)
    if edge is None:
        return None
    return (
        f"node {edge[1]} hears node {edge[0]}, which is no edge of the topology that the protocol or its sharing was "
        "given: build both on the same graph"
    )


def check_begins(timeline: Timeline, first: Event) -> None:
    """Check that a plan with messages in flight is run from its beginning.

    Raises:
        ValueError: it is cut, so that messages in flight at the beginning were never sent.
    """
    number = int(np.ravel(np.asarray(first.index))[0])
    if timeline.properties.num_slots and number:
        raise ValueError(
            f"the timeline begins with event {number} of {timeline.properties.name}, and messages sent before are "
            "missing: begin with event 0; to go on with a run, pass the whole timeline and its trajectory as x0"
        )


def _off_rows(mixing: DenseMixing | TableMixing) -> float:
    if isinstance(mixing, DenseMixing):
        sums = np.asarray(mixing.W).sum(axis=1, dtype=np.float64)
    else:
        sums = np.asarray(mixing.weights).sum(axis=1, dtype=np.float64) + np.asarray(mixing.self_weight)
    return float(abs(sums - 1).max())


def _off_columns(mixing: DenseMixing | TableMixing) -> float:
    if isinstance(mixing, DenseMixing):
        sums = np.asarray(mixing.W).sum(axis=0, dtype=np.float64)
    else:
        n = len(mixing.self_weight)
        senders = np.minimum(np.ravel(mixing.neighbors), n)  # n: nobody
        sums = np.bincount(senders, np.ravel(mixing.weights), n + 1)[:n] + np.asarray(mixing.self_weight)
    return float(abs(sums - 1).max())


def _off_symmetry(mixing: DenseMixing | TableMixing) -> float:
    if isinstance(mixing, DenseMixing):
        W = np.asarray(mixing.W, np.float64)
        return float(abs(W - W.T).max())
    n, degree = mixing.neighbors.shape
    rows, columns = np.repeat(np.arange(n), degree), np.minimum(np.ravel(mixing.neighbors), n)
    others = sparse.csr_array((np.ravel(mixing.weights).astype(np.float64), (rows, columns)), (n, n + 1))[:, :n]
    return float(abs(others - others.T).max())


_DEVIATIONS: dict[str, Callable[[DenseMixing | TableMixing], float]] = {
    "row_stochastic": _off_rows,
    "column_stochastic": _off_columns,
    "symmetric": _off_symmetry,
    "doubly_stochastic": lambda mixing: max(_off_rows(mixing), _off_columns(mixing)),
}
"""How far weights are from each fact: the largest deviation of a sum from 1, or of an entry from its transpose."""


def _path(path: tuple) -> str:
    return jax.tree_util.keystr(path) or "(the only leaf)"


def _shape_of(path: tuple, leaf: Any) -> jax.ShapeDtypeStruct:
    if (form := form_of(leaf)) is None:
        raise TypeError(
            f"leaf {_path(path)} of x0 is {shown(leaf)}, a {type(leaf).__name__}: must be an array; x0 is a task, "
            "stacked parameters, a function of a key that makes them, or a trajectory"
        )
    return form


def check_start(x0: PyTree, facts: Properties) -> PyTree[jax.ShapeDtypeStruct]:
    """Check the stacked start parameters: rows, floating-point type, finite values.

    Returns:
        Their shapes and types.

    Raises:
        ValueError: if a leaf breaks a rule; names the first.
    """
    form = jax.tree_util.tree_map_with_path(_shape_of, x0)
    check_form(form, facts)
    check_finite(jax.tree.map(lambda leaf: (np if near(leaf) else jnp).isfinite(leaf).all(), x0))
    return form


def check_finite(flags: PyTree[Any]) -> None:
    """Refuse a start that is not finite.

    Args:
        flags: for each leaf, whether all its entries are finite; one flag per seed.

    Raises:
        ValueError: if a leaf is not finite; names the first.
    """
    for path, flag in jax.tree_util.tree_leaves_with_path(flags):
        if not np.all(flag):
            raise ValueError(f"leaf {_path(path)} of x0 holds NaN or infinity; start from finite parameters")


def check_form(form: PyTree[jax.ShapeDtypeStruct], facts: Properties) -> None:
    """Check the shapes and types of stacked start parameters.

    Raises:
        ValueError: if there are no leaves, or a leaf breaks a rule; names the first.
    """
    leaves = jax.tree_util.tree_leaves_with_path(form)
    if not leaves:
        raise ValueError("x0 has no leaves; pass stacked parameters, such as replicate(task.init(key), num_nodes)")
    for path, leaf in leaves:
        if not leaf.shape or leaf.shape[0] != facts.num_rows:
            raise ValueError(
                f"leaf {_path(path)} of x0 has shape {leaf.shape}; its first axis must be the "
                f"{facts.num_rows} model rows of {facts.name}; stack one model with replicate(params, {facts.num_rows})"
            )
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise ValueError(f"leaf {_path(path)} of x0 has type {leaf.dtype}; parameters must be floating point")


def check_models(protocol: Protocol, form: PyTree[jax.ShapeDtypeStruct]) -> None:
    """Check that the models of a start match those of the tasks that a protocol learns.

    Raises:
        ValueError: if the containers or the shape of a leaf differ; names the first such leaf.
    """
    rows = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), form)
    for task in jax.tree.leaves(protocol, is_leaf=lambda value: isinstance(value, Task)):
        if not isinstance(task, Task):
            continue
        model = start_form(task.init, jax.random.key(0))
        same = jax.tree.structure(model) == jax.tree.structure(rows)  # type: ignore[operator]
        left, right = (jax.tree_util.tree_leaves_with_path(tree) for tree in (rows, model))
        for (path, leaf), (_, wanted) in zip(left, right, strict=False):
            if same and leaf.shape != wanted.shape:
                raise ValueError(
                    f"leaf {_path(path)} of x0 holds models of shape {leaf.shape}, but the task's model has "
                    f"{wanted.shape} there; start from the task itself, x0=task, or from replicate(task.init(key), n)"
                )
        if not same:
            raise ValueError(
                f"x0 has the leaves {_names(rows)}, but the task's model has {_names(model)}; start from the task "
                "itself, x0=task, or from replicate(task.init(key), n)"
            )


@jax.jit
def _call(start: Partial, key: Key[Array, ""]) -> Any:
    return start(key)


def start_form(start: Any, key: Any) -> PyTree[jax.ShapeDtypeStruct]:
    """Return the form of the stacked start or model that a function of a key makes; traced once for all calls."""
    return _call.eval_shape(start, key)


def _names(tree: PyTree) -> str:
    return shown([f"{_path(path)} {list(leaf.shape)}" for path, leaf in jax.tree_util.tree_leaves_with_path(tree)], 200)


def check_step(key: Any, protocol: Protocol, timeline: Timeline, form: PyTree[jax.ShapeDtypeStruct]) -> Probe:
    """Trace one step and check the event that it takes and the state and report that it returns.

    The state must keep its structure, shapes and types, and every leaf needs at least one axis.

    Returns:
        The shapes and types of everything in the step.

    Raises:
        TypeError: an event that names nodes by a mask, or a step that does not return ``(state, Info)``.
        ValueError: no mixing where the protocol needs one, a leaf that is a scalar, or the first leaf that differs.
    """
    _check_indices(timeline)
    if protocol.requires.mixing and event_form(timeline).mixing is None:
        builder = f", such as those of {protocol.requires.builder}" if protocol.requires.builder else ""
        raise ValueError(
            f"the protocol mixes models but the events of {timeline.properties.name} carry no mixing; use a timeline "
            f"whose events do{builder}"
        )
    try:
        found = probe(key, protocol, timeline, form)
    except OverflowError as error:
        raise ValueError(_too_large(bits_per_row(form))) from error
    size = bits_per_row(found.x)
    if found.bits.reported and found.bits.constant is None and size >= MOST_BITS:
        raise ValueError(_too_large(size))
    compare_structure(found.state, found.after, "the state after one step")
    _check_scalars(found.state)
    return found


def _check_indices(timeline: Timeline) -> None:
    """Refuse events that name nodes or rows by masks or floats."""
    event = event_form(timeline)
    for name in ("nodes", "rows", "begin", "speakers", "sources"):
        form = getattr(event, name)
        if form is not None and not jnp.issubdtype(form.dtype, jnp.integer):
            raise TypeError(
                f"Event.{name} of {timeline.properties.name} is an array {form.dtype}{list(form.shape)}: it must hold "
                f"whole numbers, the indices that np.flatnonzero(mask) returns for a mask, filled up with {NOBODY}"
            )


def _check_scalars(state: Any) -> None:
    """Refuse a state with a scalar leaf, which an event that touches a few rows, or a packed one, would share."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        if leaf.shape == ():
            raise ValueError(
                f"leaf {_path(path)} of the state is a scalar {leaf.dtype}: it lacks the row axis, and a packed event, "
                "which holds many source events, would update it once; store one number per row and update those of "
                "the acting nodes, or compute a global count from event.index, the number of each source event"
            )


def check_message(bits: Bits, timeline: Timeline) -> None:
    """Check that messages have the size on which the times of a plan rest.

    Raises:
        ValueError: if the size differs (names both sizes) or varies.
    """
    planned, name = timeline.properties.message_bytes, timeline.properties.name
    if planned is None or not len(timeline) or not bits.reported or (bits.constant is not None and bits.numbered):
        return
    if (found := bits.num_bytes) != planned:
        size = "messages of the protocol vary in size" if found is None else f"a message has {found:,} bytes"
        plan = "" if found is None else f"plan it with learner=protocol or model_bytes={found}, or "
        raise ValueError(
            f"{size}, but {name} was planned for model_bytes={planned:,}, on which its times and bytes rest; {plan}let "
            "the messages stand in for the planned ones with gossipjax.systems.stand_in(timeline)"
        )


def _too_large(bits: int) -> str:
    return (
        f"a model has {bits:,} bits: sizes that change from message to message are counted in 32 bits, up to "
        f"{MOST_BITS - 1:,} a message; share full models, whose size is a plain int, or make the model smaller"
    )


def compare_structure(expected: Any, found: Any, what: str) -> None:
    """Name the first leaf in which two pytrees of arrays differ in place, shape or type.

    Raises:
        ValueError: if there is one.
    """
    left, right = (jax.tree_util.tree_leaves_with_path(tree) for tree in (expected, found))
    if jax.tree.structure(expected) != jax.tree.structure(found):  # type: ignore[operator]
        places = [{_path(path) for path, _ in side} for side in (left, right)]
        changed = sorted(places[0] ^ places[1]) or ["(the containers differ)"]
        raise ValueError(f"{what} has another structure: {', '.join(changed[:3])}; keep the pytree the same")
    for (path, a), (_, b) in zip(left, right, strict=True):
        if a.shape != b.shape or a.dtype != b.dtype:
            raise ValueError(
                f"{what} differs in leaf {_path(path)}: expected {a.dtype}{list(a.shape)}, "
                f"found {b.dtype}{list(b.shape)}"
            )
