"""Rules and attacks as numbers that a compiled program takes as arguments: all cells of a grid run one program."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from gossipjax import tasks
from gossipjax._base.binding import Frozen
from gossipjax.robust import Attack, Rule, Victim


def _apply(index: jax.Array, choices: tuple[Partial, ...], *given: Any) -> jax.Array:
    return jax.lax.switch(index, [functools.partial(choice, *given) for choice in choices])


def _prepare(all_of: tuple[Any, ...], attackers: jax.Array, models: jax.Array) -> tuple[Any, ...]:
    return tuple(None if prepare is None else prepare(attackers, models) for prepare in all_of)


def _lie(index: jax.Array, lies: tuple[Partial, ...], victim: Victim, common: tuple[Any, ...]) -> jax.Array:
    told = [functools.partial(lie, victim, own) for lie, own in zip(lies, common, strict=True)]
    return jax.lax.switch(index, told)


def _truth(victim: Victim, common: Any) -> jax.Array:
    del common
    return victim.others


def honesty() -> Attack:
    """Build what is no attack, to run in one program with attacks: everybody sends the true model."""
    return Attack(Partial(_truth))


def chosen_rule(known: dict[str, Rule], name: str) -> Rule:
    """Return one of the rules; its name is a number of the program.

    The program runs at meetings if all rules do. What they count liars by differs, and nothing in a run reads it.

    Raises:
        ValueError: the rules are for networks of different sizes.
    """
    if len({each.num_nodes.value for each in known.values()}) > 1:
        sizes = ", ".join(f"{key}: {each.num_nodes.value}" for key, each in known.items())
        raise ValueError(f"rules for different numbers of nodes ({sizes}): build all of them for one network")
    index, rule = list(known).index(name), known[name]
    apply = Partial(_apply, jnp.int32(index), tuple(each.apply for each in known.values()))
    least, tolerated = jnp.int32(rule.least), jnp.float32(rule.tolerated)
    pairs = Frozen(all(each.pairs.value for each in known.values()))
    first = next(iter(known.values()))
    return first._replace(apply=apply, least=least, tolerated=tolerated, pairs=pairs)


def chosen_attack(known: dict[str, Attack], name: str, liars: np.ndarray, rows: int) -> Attack:
    """Return one of the attacks in the same way; what any of them looks at in all models is computed for all.

    The victim that an attack is aimed at is kept, so that it is checked, where that attack is chosen.
    """
    ready = [each if each.start is None else each.start(liars, rows) for each in known.values()]
    index = jnp.int32(list(known).index(name))
    prepare = Partial(_prepare, tuple(each.prepare for each in ready))
    remembers = any(each.remembers for each in ready)
    lie = Partial(_lie, index, tuple(each.lie for each in ready))
    return Attack(lie, prepare, remembers=remembers, victim=known[name].victim)


def with_liars(shards: tasks.Partition, number: int) -> tasks.Partition:
    """Give each of some liars behind the honest nodes the samples of an honest one, from the first on.

    Liars train like everybody, though nobody honest hears what they learn.
    """
    copies = [shards.shard(liar % shards.num_nodes) for liar in range(number)]
    sizes = np.cumsum([shards.offsets[-1], *map(len, copies)])
    return tasks.Partition(np.concatenate([shards.indices, *copies]), np.concatenate([shards.offsets[:-1], sizes]))
