"""Why a sharing made rows NaN: traced code cannot raise, so the cause travels in the state until the run has ended.

A part of a state that finds a mistake writes NaN into the rows concerned, which ends the run, and notes the cause here;
the error of the run then names it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, PyTree, UInt, UInt8

from gossipjax._base.binding import Frozen


class Faults(NamedTuple):
    """The first fault of each row."""

    codes: UInt8[Array, " n"]
    """Number of the cause, from 1; 0: no fault."""
    events: UInt[Array, " n"]
    """Number of the source event."""
    causes: Frozen[tuple[str, ...]]
    """What is said of each cause, remedy included; begins with a verb, whose subject is the node."""


class FirstFault(NamedTuple):
    """The earliest fault in a state."""

    cause: str
    node: int
    event: int


def no_faults(rows: int, causes: tuple[str, ...]) -> Faults:
    """Return the state before anything has gone wrong."""
    return Faults(jnp.zeros(rows, jnp.uint8), jnp.zeros(rows, jnp.uint32), Frozen(causes))


def note(faults: Faults, code: int, rows: Bool[Array, " n"], event: UInt[Array, ""]) -> Faults:
    """Note a fault of some rows; rows with an earlier one keep it."""
    new = rows & (faults.codes == 0)
    return faults._replace(
        codes=jnp.where(new, jnp.uint8(code), faults.codes),
        events=jnp.where(new, event.astype(jnp.uint32), faults.events),
    )


def first_fault(state: PyTree, seed: int | None = None) -> FirstFault | None:
    """Return the earliest fault in a state on the host; None: there is none.

    Args:
        state: of one run, or of several seeds, stacked.
        seed: which of them; None: one run.
    """
    found: list[FirstFault] = []
    for faults in jax.tree.leaves(state, is_leaf=_is_faults):
        if not _is_faults(faults):
            continue
        codes, events = (np.asarray(each if seed is None else each[seed]) for each in (faults.codes, faults.events))
        found += [FirstFault(faults.causes.value[codes[i] - 1], int(i), int(events[i])) for i in np.flatnonzero(codes)]
    return min(found, key=lambda fault: fault.event, default=None)


def _is_faults(value: Any) -> bool:
    return isinstance(value, Faults)
