"""Everything that is checked once, before any long work: what does not fit is named, with the rule and the remedy."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from gossipjax.engine import first_event
from gossipjax.types import Params, Properties, Protocol, Requires, Timeline

_FACTS = {
    "fixed": "one fixed mixing matrix; use rounds(W, T) with a single W",
    "synchronous": "synchronous rounds, in which every node acts; use rounds(W, T)",
    "symmetric": "symmetric mixing matrices; use metropolis weights on an undirected topology",
    "doubly_stochastic": "doubly stochastic mixing matrices; use metropolis weights on an undirected topology",
    "row_stochastic": "mixing matrices whose rows sum to one; on others use push_sum or sgp",
    "column_stochastic": "mixing matrices whose columns sum to one; use column_stochastic weights or directed_push",
    "averages": "events that leave one average in all rows, as a server does; use client_sampling",
}
EIGENVALUE_ROUNDING = 1e-6
"""Margin of a bound on eigenvalues, the accuracy of Lanczos; Metropolis weights on an even ring have −1/3 exactly."""


def check_requires(requires: Requires, facts: Properties) -> None:
    """Hold what a protocol needs against what a timeline is.

    Raises:
        ValueError: the first requirement that the timeline does not meet.
    """
    if requires.num_nodes is not None and requires.num_nodes != facts.num_nodes:
        raise ValueError(
            f"the timeline {facts.name} is for {facts.num_nodes} nodes but the task has {requires.num_nodes} shards; "
            "build both for the same number of nodes"
        )
    if requires.num_fragments is not None and requires.num_fragments != facts.num_fragments:
        named = "no fragments" if facts.num_fragments is None else f"{facts.num_fragments} fragments"
        raise ValueError(
            f"num_fragments={requires.num_fragments}, but the timeline {facts.name} names {named}: give both the same "
            "number, on a timeline of fragments such as timeline.shatter or timeline.divshare"
        )
    if None not in (requires.local_steps, facts.local_steps) and requires.local_steps != facts.local_steps:
        raise ValueError(
            f"local_steps={requires.local_steps}, but {facts.name} was planned for local_steps={facts.local_steps} of "
            "each training, on which its times rest; give both the same number"
        )
    for fact, remedy in _FACTS.items():
        if getattr(requires, fact) and not (getattr(facts, fact) or (facts.doubly_stochastic and "stochastic" in fact)):
            raise ValueError(f"the protocol needs {remedy}; {facts.name} is not {fact.replace('_', ' ')}")
    if requires.min_eigenvalue is not None and requires.fixed:
        smallest = facts.min_eigenvalue
        if smallest is not None and smallest <= requires.min_eigenvalue + EIGENVALUE_ROUNDING:
            raise ValueError(
                f"the protocol needs a mixing matrix with smallest eigenvalue above {requires.min_eigenvalue:.4g}; "
                f"{facts.name} has {smallest:.4g}; use lazy(W), which maps w to (1 + w)/2"
            )


def _path(path: tuple) -> str:
    return jax.tree_util.keystr(path) or "(the only leaf)"


def check_start(x0: Params, facts: Properties) -> None:
    """Check the stacked start parameters: rows, floating-point type, finite values.

    Raises:
        ValueError: the first leaf that breaks a rule.
    """
    leaves = jax.tree_util.tree_leaves_with_path(x0)
    if not leaves:
        raise ValueError("x0 has no leaves; pass stacked parameters, such as replicate(task.init(key), num_nodes)")
    for path, leaf in leaves:
        shape = np.shape(leaf)
        if not shape or shape[0] != facts.num_rows:
            raise ValueError(
                f"leaf {_path(path)} of x0 has shape {shape}; its first axis must be the "
                f"{facts.num_rows} model rows of {facts.name}; stack one model with replicate(params, {facts.num_rows})"
            )
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise ValueError(
                f"leaf {_path(path)} of x0 has type {jnp.result_type(leaf)}; parameters must be floating point"
            )
        if not bool(jnp.all(jnp.isfinite(leaf))):
            raise ValueError(f"leaf {_path(path)} of x0 holds NaN or infinity; start from finite parameters")


def check_step(key: Key[Array, ""], protocol: Protocol, timeline: Timeline, state: Any) -> None:
    """Trace one step and check that it returns a state of the structure, shapes and types that it was given.

    Raises:
        ValueError: no mixing where the protocol needs one, or the first leaf that differs.
    """
    event = jax.eval_shape(lambda timeline: first_event(key, timeline), timeline)
    if protocol.requires.mixing and event.mixing is None:
        raise ValueError(f"the protocol mixes models but the events of {timeline.properties.name} carry no mixing")
    after, _ = jax.eval_shape(lambda protocol, *rest: protocol.step(*rest), protocol, key, state, event)
    compare_structure(jax.eval_shape(lambda s: s, state), after, "the state after one step")


def check_message(key: Key[Array, ""], protocol: Protocol, timeline: Timeline, state: Any) -> None:
    """Hold the size of a message against the one on which a plan's times rest; sizes that vary are not known before.

    Raises:
        ValueError: another size, with both numbers.
    """
    planned, name = timeline.properties.message_bytes, timeline.properties.name
    if planned is None or not len(timeline):
        return
    found: list[int] = []

    def look(protocol: Protocol, timeline: Timeline, state: Any) -> None:
        info = protocol.step(key, state, first_event(key, timeline))[1]
        if isinstance(info.bits, int) and info.messages is None:
            found.append(-(-info.bits // 8))

    jax.eval_shape(look, protocol, timeline, state)
    if found and found[0] != planned:
        raise ValueError(
            f"a message of the protocol has {found[0]:,} bytes, but {name} was planned for model_bytes={planned:,}, on "
            f"which its times and bytes rest; plan it with model_bytes={found[0]}, or let the model stand in for the "
            "planned one with gossipjax.systems.stand_in(timeline)"
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
