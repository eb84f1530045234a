"""Whether an attack reaches the one node that it is aimed at, in any event of a plan."""

from __future__ import annotations

import functools
import warnings
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PyTree

from gossipjax._base.arguments import shown
from gossipjax.robust._attacks import Unreached
from gossipjax.sharing._robust import Setting, sides_of
from gossipjax.types import Timeline

_FEW, _MANY = 64, 65536
"""Events that are read at once: first few, since most victims hear an attacker in the first of them."""


def check_aims(protocol: Any, timeline: Timeline) -> None:
    """Check that the victim of an attack hears an attacker in some event; drawn events are not known before a run.

    One graph for all events proves that it never will. A plan of several may be a piece of a longer one, and the
    message of an attacker may be on its way when a piece begins, so that such a plan is only warned of.

    Args:
        protocol: which may have a robust sharing, whose attack may be aimed at one node.
        timeline: of the run; none is read if it draws its events.

    Raises:
        ValueError: all events have one graph, in which the victim hears no attacker.

    Warns:
        Unreached: no attacker sends anything that reaches the victim in the events of the plan.
    """
    settings = [each for each in jax.tree.leaves(protocol, is_leaf=_is_setting) if _is_setting(each)]
    aimed = [each for each in settings if each.attack is not None and each.attack.victim.value is not None]
    # Several functions of one sharing hold its setting.
    for each in {(each.attack.victim, each.nodes): each for each in aimed}.values():
        victim, attackers = each.attack.victim.value, each.nodes.value
        if not len(timeline) or _draws(timeline):
            return
        if not _hears(timeline, victim, each.attackers):
            facts = timeline.properties
            words = f"attack: its victim, node {victim}, hears none of the attackers {shown(list(attackers))} in "
            if "fixed" in facts:
                raise ValueError(f"{words}{facts.name}, and so meets no attack: make a node that it hears an attacker")
            warnings.warn(
                f"{words}the {len(timeline)} events of {facts.name}, and so meets no attack there, unless a message of "
                "theirs is on its way when they begin: make a node that it hears an attacker, or go on with a longer "
                "plan",
                Unreached,
                stacklevel=5,
            )


def _is_setting(value: Any) -> bool:
    return isinstance(value, Setting)


def _draws(timeline: Timeline) -> bool:
    """Return whether who hears whom may be drawn inside the run."""
    if timeline.draw is not None:
        return True
    one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), timeline.xs)
    program = jax.make_jaxpr(timeline.event)(jax.random.key(0), timeline.shared, one).jaxpr
    key = program.invars[0]
    return any(used is key for equation in program.eqns for used in equation.invars)


def _hears(timeline: Timeline, victim: int, attackers: Int[Array, " a"]) -> bool:
    """Read events until the victim hears an attacker."""
    facts = timeline.properties
    rows, total = facts.num_rows + facts.num_slots, 1 if "fixed" in facts else len(timeline)
    liars = jnp.zeros(rows, bool).at[attackers].set(True, mode="drop")
    authors, start = jnp.arange(rows, dtype=jnp.int32), 0
    while start < total:
        end = min(start + (_MANY if start >= _MANY else _FEW), total)
        part = jax.tree.map(lambda leaf, a=start, b=end: jnp.asarray(leaf[a:b]), timeline.xs)
        functions = timeline.event, facts.num_rows
        authors, heard = _read(functions, timeline.shared, part, authors, liars, victim)
        if heard:
            return True
        start = end
    return False


@functools.partial(jax.jit, static_argnums=0)
def _read(
    functions: tuple[Any, int],
    shared: PyTree,
    xs: PyTree,
    authors: Int[Array, " rows"],
    liars: Bool[Array, " rows"],
    victim: Int[Array, ""] | int,
) -> tuple[Int[Array, " rows"], Bool[Array, ""]]:
    """Follow who wrote the messages in flight, and whether the victim hears a liar."""
    event_function, models = functions
    rows = len(authors)

    def event(carry: Any, x: PyTree) -> tuple[Any, None]:
        authors, heard = carry
        sides = sides_of(event_function(jax.random.key(0), shared, x), rows)
        there = (sides.weights > 0) & (sides.neighbors < rows)
        writers = authors.at[sides.neighbors].get(mode="clip")
        aimed = (sides.receivers == victim)[:, None]
        heard |= jnp.any(aimed & there & liars.at[writers].get(mode="clip"))
        message = (sides.receivers >= models) & jnp.any(there, axis=1)
        said = jnp.take_along_axis(writers, jnp.argmax(sides.weights, axis=1)[:, None], axis=1)[:, 0]
        authors = authors.at[jnp.where(message, sides.receivers, rows)].set(said, mode="drop")
        return (authors, heard), None

    return jax.lax.scan(event, (authors, jnp.zeros((), bool)), xs)[0]
