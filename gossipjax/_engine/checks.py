"""Everything that is checked once, before any long work: what does not fit is named, with the rule and the remedy."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, PyTree
from scipy import sparse

from gossipjax._base.arguments import shown
from gossipjax._base.leaves import form_of
from gossipjax._base.rows import bits_per_row
from gossipjax.mixing._apply import DenseMixing, TableMixing
from gossipjax.timeline._events import first_event
from gossipjax.types import Properties, Protocol, Requires, Task, Timeline

_FACTS = {
    "walks": "models that walk from node to node; use timeline.random_walks",
    "buffered": "a server that buffers the changes of its clients; use timeline.fedbuff",
    "averages": "events that leave one average in all rows, as a server does; use timeline.client_sampling",
    "mailboxes": "nodes that average what has come in at ticks of their own clocks; use timeline.swift",
    "fixed": "one fixed mixing matrix; use timeline.rounds(W, T) with a single W",
    "synchronous": "synchronous rounds, in which every node acts; use timeline.rounds(W, T)",
    "meetings": "models that pass between two nodes at a time; use timeline.push_gossip or timeline.pairwise",
    "own_rows": "nodes that each train a model row of their own; use timeline.rounds or timeline.poisson_pairs",
    "symmetric": "symmetric mixing matrices; use metropolis weights on an undirected topology",
    "doubly_stochastic": "doubly stochastic mixing matrices; use metropolis weights on an undirected topology",
    "row_stochastic": "mixing matrices whose rows sum to one; on others use push_sum or sgp",
    "column_stochastic": "mixing matrices whose columns sum to one; use column_stochastic weights or "
    "timeline.directed_push",
}
"""What a protocol may need of a timeline, in words, and what to use instead; the first that is missing is said."""
MOST_BITS = 1 << 32
"""Bits of a model from which messages of changing size may be too large for their counter."""
EIGENVALUE_ROUNDING = 1e-6
"""Margin of a bound on eigenvalues, the accuracy of Lanczos; Metropolis weights on an even ring have −1/3 exactly."""


def check_requires(requires: Requires, facts: Properties) -> None:
    """Hold what a protocol needs against what a timeline is.

    Raises:
        ValueError: the first requirement that the timeline does not meet, and a builder whose timelines do.
    """
    if requires.num_nodes is not None and requires.num_nodes != facts.num_nodes:
        raise ValueError(
            f"the timeline {facts.name} is for {facts.num_nodes} nodes but the task has {requires.num_nodes} shards; "
            "build both for the same number of nodes"
        )
    problem = _missing(requires, facts)
    if problem is not None:
        builder = requires.builder
        fitting = "" if builder is None or builder in problem else f"; a timeline that fits: {builder}"
        raise ValueError(problem + fitting)


def _missing(requires: Requires, facts: Properties) -> str | None:
    """Say which requirement is not met."""
    if requires.num_fragments is None and facts.num_fragments is not None:
        return (
            f"{facts.name} sends {facts.num_fragments} fragments of each model, and the protocol mixes whole ones: use "
            "dpsgd or gossip_averaging with sharing.fragments, or another timeline such as timeline.rounds"
        )
    if None not in (requires.num_fragments, facts.num_fragments) and requires.num_fragments != facts.num_fragments:
        return (
            f"num_fragments={requires.num_fragments}, but the timeline {facts.name} names {facts.num_fragments} "
            "fragments: give both the same number, on a timeline of fragments such as timeline.shatter or "
            "timeline.divshare"
        )
    if None not in (requires.local_steps, facts.local_steps) and requires.local_steps != facts.local_steps:
        return (
            f"local_steps={requires.local_steps}, but {facts.name} was planned for local_steps={facts.local_steps} of "
            "each training, on which its times rest; give both the same number"
        )
    for fact, remedy in _FACTS.items():
        if getattr(requires, fact) and not (getattr(facts, fact) or (facts.doubly_stochastic and "stochastic" in fact)):
            return f"the protocol needs {remedy}; {facts.name} {_negated(fact)}"
    smallest = facts.min_eigenvalue
    if requires.fixed and requires.min_eigenvalue is not None and smallest is not None:
        if smallest <= requires.min_eigenvalue + EIGENVALUE_ROUNDING:
            return (
                f"the protocol needs a mixing matrix with smallest eigenvalue above {requires.min_eigenvalue:.4g}; "
                f"{facts.name} has {smallest:.4g}; use lazy(W), which maps w to (1 + w)/2"
            )
    return None


def _negated(fact: str) -> str:
    words = fact.replace("_", " ")
    nouns = ("walks", "averages", "mailboxes", "meetings", "own_rows")
    return f"has no {words}" if fact in nouns else f"is not {words}"


WEIGHTS_ROUNDING = 1e-4
"""By how much sums of weights may miss one: those of a thousand float32 numbers do by 1e-5."""


def check_weights(key: Key[Array, ""], requires: Requires, timeline: Timeline) -> None:
    """Hold the weights of the first round against what is said of them, where the protocol counts on it.

    Facts are stated by builders; a timeline whose arrays were exchanged afterwards may no longer have them.

    Raises:
        ValueError: a fact that the protocol needs and the weights do not have.
    """
    if not len(timeline):
        return
    mixing = first_event(key, timeline).mixing
    if not isinstance(mixing, DenseMixing | TableMixing) or isinstance(mixing[0], jax.core.Tracer):
        return
    W = _as_sparse(mixing)
    off = {
        "row_stochastic": abs(W.sum(axis=1) - 1).max(),
        "column_stochastic": abs(W.sum(axis=0) - 1).max(),
        "symmetric": abs(W - W.T).max(),
    }
    off["doubly_stochastic"] = max(off["row_stochastic"], off["column_stochastic"])
    for fact, by in off.items():
        if getattr(requires, fact) and not by <= WEIGHTS_ROUNDING:
            raise ValueError(
                f"{timeline.properties.name} says that its weights are {fact.replace('_', ' ')}, but those of the "
                f"first round are not, by {by:.3g}: exchange weights by timeline.with_mixing, or build timeline.rounds"
            )


def _as_sparse(mixing: DenseMixing | TableMixing) -> sparse.csr_array:
    if isinstance(mixing, DenseMixing):
        return sparse.csr_array(np.asarray(mixing.W, np.float64))
    n, degree = mixing.neighbors.shape
    own = np.arange(n)
    entries = np.append(np.ravel(mixing.weights), mixing.self_weight).astype(np.float64)
    rows, columns = np.append(np.repeat(own, degree), own), np.append(np.ravel(mixing.neighbors), own)
    return sparse.csr_array((entries, (rows, columns)), (n, n))


def _path(path: tuple) -> str:
    return jax.tree_util.keystr(path) or "(the only leaf)"


def _shape_of(path: tuple, leaf: Any) -> jax.ShapeDtypeStruct:
    if (form := form_of(leaf)) is None:
        raise TypeError(
            f"leaf {_path(path)} of x0 is {shown(leaf)}, a {type(leaf).__name__}: must be an array; x0 is a task, "
            "stacked parameters, a function of a key that makes them, or a trajectory"
        )
    return form


def check_start(x0: PyTree, facts: Properties) -> None:
    """Check the stacked start parameters: rows, floating-point type, finite values.

    Raises:
        ValueError: the first leaf that breaks a rule.
    """
    check_form(jax.tree_util.tree_map_with_path(_shape_of, x0), facts)
    for path, leaf in jax.tree_util.tree_leaves_with_path(x0):
        if not bool(jnp.all(jnp.isfinite(leaf))):
            raise ValueError(f"leaf {_path(path)} of x0 holds NaN or infinity; start from finite parameters")


def check_form(form: PyTree[jax.ShapeDtypeStruct], facts: Properties) -> None:
    """Check the shapes and types of stacked start parameters.

    Raises:
        ValueError: no leaves, or the first that breaks a rule.
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
    """Hold the models of a start against those of the tasks that a protocol learns.

    Raises:
        ValueError: other containers, or the first leaf of another shape.
    """
    rows = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), form)
    for task in jax.tree.leaves(protocol, is_leaf=lambda value: isinstance(value, Task)):
        if not isinstance(task, Task):
            continue
        model = jax.eval_shape(task.init, jax.random.key(0))
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


def _names(tree: PyTree) -> str:
    return shown([f"{_path(path)} {list(leaf.shape)}" for path, leaf in jax.tree_util.tree_leaves_with_path(tree)], 200)


def check_step(key: Key[Array, ""], protocol: Protocol, timeline: Timeline, state: Any) -> None:
    """Trace one step and check that it returns a state of the structure, shapes and types that it was given.

    Raises:
        ValueError: no mixing where the protocol needs one, or the first leaf that differs.
    """
    event = jax.eval_shape(lambda timeline: first_event(key, timeline), timeline)
    if protocol.requires.mixing and event.mixing is None:
        builder = f", such as those of {protocol.requires.builder}" if protocol.requires.builder else ""
        raise ValueError(
            f"the protocol mixes models but the events of {timeline.properties.name} carry no mixing; use a timeline "
            f"whose events do{builder}"
        )
    bits: list[Any] = []

    def step(protocol: Protocol, *arguments: Any) -> Any:
        after, info = protocol.step(*arguments)
        bits.append(info.bits)  # not an output: a Python int may be larger than the integers of the program
        return after

    try:
        after = jax.eval_shape(step, protocol, key, state, event)
    except OverflowError as error:
        raise ValueError(_too_large(protocol, state)) from error
    x = jax.eval_shape(protocol.model, state)
    if bits[0] is not None and not isinstance(bits[0], int) and bits_per_row(x) >= MOST_BITS:
        raise ValueError(_too_large(protocol, state))
    compare_structure(jax.eval_shape(lambda s: s, state), after, "the state after one step")


def check_message(key: Key[Array, ""], protocol: Protocol, timeline: Timeline, state: Any) -> None:
    """Hold the size of a message against the one on which a plan's times rest.

    Raises:
        ValueError: another size, with both numbers, or sizes that vary.
    """
    planned, name = timeline.properties.message_bytes, timeline.properties.name
    if planned is None or not len(timeline):
        return
    found: list[int | None] = []

    def look(protocol: Protocol, timeline: Timeline, state: Any) -> None:
        info = protocol.step(key, state, first_event(key, timeline))[1]
        if isinstance(info.bits, int) and info.messages is None:
            found.append(-(-info.bits // 8))
        elif info.bits is not None and not isinstance(info.bits, int):
            found.append(None)

    jax.eval_shape(look, protocol, timeline, state)
    if found and found[0] != planned:
        size = "messages of the protocol vary in size" if found[0] is None else f"a message has {found[0]:,} bytes"
        plan = "" if found[0] is None else f"plan it with model_bytes={found[0]}, or "
        raise ValueError(
            f"{size}, but {name} was planned for model_bytes={planned:,}, on which its times and bytes rest; {plan}let "
            "the messages stand in for the planned ones with gossipjax.systems.stand_in(timeline)"
        )


def _too_large(protocol: Protocol, state: Any) -> str:
    bits = bits_per_row(jax.eval_shape(protocol.model, state))
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
