"""Who takes part in a round of secure aggregation, and the bytes of its keys, shares, messages and recovery."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypeAlias

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, UInt, UInt32

from gossipjax._base.binding import Frozen
from gossipjax.sharing._edges import EdgeCycle, Edges, from_neighbors
from gossipjax.types import Event

Recovery: TypeAlias = Literal["seeds", "shares", "none"]
KEY_BITS = 256
"""A public key, a seed that is revealed, or a share of a secret."""
HEADER_BITS = 64
"""Round and receiver of a message."""
NAME_BITS = 32
"""The number of a node; or a list of 32 members as bits."""
NEVER = np.uint32(2**32 - 1)
"""The first round of a run that has not begun."""


class Settings(NamedTuple):
    """What is known when the sharing is built."""

    fraction_bits: int
    colluders: int
    recovery: Recovery
    threshold: int | None
    masks: bool
    share: float


class KeyAges(NamedTuple):
    """For each graph of a cycle, how many rounds ago two nodes exchanged keys last."""

    ends: UInt[Array, "g n s"]
    """A node and its neighbour."""
    pairs: UInt[Array, "g n s s"]
    """Two neighbours of a node."""


class Rules(NamedTuple):
    """The settings, and the arrays that are arguments of the compiled program."""

    edges: EdgeCycle
    ages: KeyAges | None
    """None: one graph, whose keys are exchanged in the first round."""
    settings: Frozen[Settings]
    absences: Any
    """Probability of an absence; or ``(r, n)``, who is absent in which round; None: nobody."""


class Attendance(NamedTuple):
    """Who hears whom in a round."""

    heard: Bool[Array, "n s"]
    """Neighbours whose messages arrive."""
    lost: Bool[Array, "n s"]
    """Neighbours that dropped out."""
    thresholds: Int[Array, " n"]
    """Members whose shares give the secrets of the others."""
    enough: Bool[Array, " n"]
    """Whether so many are left that their sum hides each of them, and that they can unmask it."""
    recovers: Bool[Array, " n"]
    """Whether the node asks those left for what removes masks."""


def default_threshold(degree: Any, colluders: int) -> Any:
    """Return the least t above half of the degree and the colluders: ``⌊(d + c)/2⌋ + 1``."""
    return (degree + colluders) // 2 + 1


def attend(rules: Rules, event: Event, edges: Edges, present: Bool[Array, " n"]) -> Attendance:
    """Find out who hears whom, and who can recover from its losses."""
    s = rules.settings.value
    there = from_neighbors(event, edges, present)
    heard, lost = edges.present & there, edges.present & ~there
    degrees = jnp.sum(edges.present, axis=1, dtype=jnp.int32)
    most = default_threshold(degrees, s.colluders) if s.threshold is None else jnp.full_like(degrees, s.threshold)
    left = jnp.sum(heard, axis=1, dtype=jnp.int32)
    enough = left >= s.colluders + 2
    if s.recovery == "shares":
        enough = enough & (left >= most)
        return Attendance(heard, lost, most, enough, present & enough)
    recovers = present & enough & jnp.any(lost, axis=1) & (s.recovery == "seeds")
    return Attendance(heard, lost, most, enough, recovers)


# Bytes


def bits_of_round(
    rules: Rules,
    event: Event,
    edges: Edges,
    attendance: Attendance | None,
    present: Bool[Array, " n"],
    first: UInt32[Array, " n"],
    words: int,
) -> UInt[Array, " n"] | UInt[Array, "n s"]:
    """Return the bits of what each node sends: to any of its neighbours, or to each of them where that differs.

    Args:
        rules: of the sharing.
        event: the round.
        edges: of the round.
        attendance: who hears whom; None: nobody drops out, in any round.
        present: who does not drop out in this round.
        first: number of the first round of the run.
        words: masked words of a message.
    """
    payload = jnp.uint32(32 * words + HEADER_BITS)
    if rules.settings.value.recovery == "shares":
        there = attend(rules, event, edges, present) if attendance is None else attendance
        return _bits_with_shares(event, edges, there, present, payload)
    keys = _key_bits(rules, event, edges, event.index[0].astype(jnp.uint32) - first)
    if attendance is None:
        return payload + keys
    return _bits_with_seeds(
        event, edges, attendance, present, payload, jnp.broadcast_to(keys.reshape(len(keys), -1), edges.present.shape)
    )


def _key_bits(
    rules: Rules, event: Event, edges: Edges, age: UInt32[Array, " n"]
) -> UInt32[Array, " n"] | UInt32[Array, "n s"]:
    """Count one's own key, where the neighbour lacks it, and as a receiver the keys that the neighbour lacks."""
    if rules.ages is None:
        degrees = jnp.sum(edges.present, axis=1, dtype=jnp.uint32)
        return jnp.where(age == 0, jnp.uint32(KEY_BITS) * degrees, jnp.uint32(0))
    place = (event.index[0].astype(jnp.uint32) % np.uint32(len(rules.ages.ends))).astype(jnp.int32)
    ends, pairs = (_own(ages[place], event) for ages in rules.ages)
    own = edges.present & (ends > age[:, None])
    others = edges.present[:, :, None] & edges.present[:, None] & ~jnp.eye(edges.present.shape[1], dtype=bool)[None]
    relayed = others & (pairs > age[:, None, None])
    return jnp.uint32(KEY_BITS) * (own.astype(jnp.uint32) + jnp.sum(relayed, axis=2, dtype=jnp.uint32))


def _own(rows: Array, event: Event) -> Array:
    return rows if event.local is None else rows[event.local.ids]


def _bits_with_seeds(
    event: Event,
    edges: Edges,
    attendance: Attendance,
    present: Bool[Array, " n"],
    payload: UInt32[Array, ""],
    keys: UInt32[Array, "n s"],
) -> UInt32[Array, "n s"]:
    """Count a message, and for each receiver that recovers a request to the members left and their answers."""
    lost = jnp.sum(attendance.lost, axis=1, dtype=jnp.uint32)
    asked = jnp.where(attendance.recovers, HEADER_BITS + NAME_BITS * lost, 0).astype(jnp.uint32)
    revealed = jnp.where(attendance.recovers, HEADER_BITS + KEY_BITS * lost, 0).astype(jnp.uint32)
    sent = jnp.where(present, payload, 0)[:, None]
    told = from_neighbors(event, edges, revealed)
    answers = jnp.where(attendance.heard & present[:, None], asked[:, None] + told, 0)
    return jnp.where(edges.present, keys + sent + answers, 0).astype(jnp.uint32)


def _bits_with_shares(
    event: Event, edges: Edges, attendance: Attendance, present: Bool[Array, " n"], payload: UInt32[Array, ""]
) -> UInt32[Array, "n s"]:
    """Count keys and shares of every round, a message, the list of those left, and the shares that they reveal."""
    degrees = jnp.sum(edges.present, axis=1, dtype=jnp.uint32)
    others = jnp.maximum(degrees, 1) - 1
    # As a member two keys and two shares for each other one; as a receiver, the same of all others is passed on.
    prepared = jnp.uint32(KEY_BITS) * (2 + 2 * from_neighbors(event, edges, others) + 4 * others[:, None])
    listed = jnp.where(attendance.recovers, NAME_BITS * ((degrees + 31) // 32), 0).astype(jnp.uint32)
    revealed = jnp.where(attendance.recovers, KEY_BITS * degrees, 0).astype(jnp.uint32)
    sent = jnp.where(present, payload, 0)[:, None]
    unmasking = jnp.where(attendance.heard, listed[:, None], 0) + jnp.where(
        present[:, None], from_neighbors(event, edges, revealed), 0
    )
    return jnp.where(edges.present, prepared + sent + unmasking, 0).astype(jnp.uint32)


# Keys in changing graphs


def key_ages(edges: EdgeCycle) -> KeyAges | None:
    """Compute when the nodes of each pair exchanged keys last, as neighbours or as neighbours of one node."""
    g, n, s = edges.neighbors.shape
    if g == 1:
        return None
    neighbors, present = (np.asarray(array) for array in (edges.neighbors, edges.signs != 0))
    own = np.broadcast_to(np.arange(n)[None, :, None], (g, n, s))
    rounds = np.broadcast_to(np.arange(g)[:, None, None], (g, n, s))
    ends = _code(own, neighbors, n)
    pairs = _code(neighbors[..., None], neighbors[:, :, None], n)
    both = present[..., None] & present[:, :, None] & ~np.eye(s, dtype=bool)
    every = np.broadcast_to(rounds[..., None], pairs.shape)
    met = np.concatenate([ends[present] * g + rounds[present], pairs[both] * g + every[both]])
    gaps = _Gaps(np.unique(met), g)
    return KeyAges(
        jnp.asarray(gaps.of(ends, rounds, present), jnp.uint32), jnp.asarray(gaps.of(pairs, every, both), jnp.uint32)
    )


def _code(a: np.ndarray, b: np.ndarray, n: int) -> np.ndarray:
    """Number the pairs of nodes, whichever is first."""
    return np.minimum(a, b).astype(np.int64) * n + np.maximum(a, b)


class _Gaps:
    """Meetings of pairs in a cycle of g rounds, as sorted numbers ``pair · g + round``."""

    def __init__(self, meetings: np.ndarray, graphs: int) -> None:
        """Find, for each meeting, the rounds since the one before, in the cycle before if it is the first."""
        pair, number = np.divmod(meetings, graphs)
        begins = np.flatnonzero(np.diff(pair, prepend=-1))
        ends = np.append(begins[1:], len(pair)) - 1
        before = np.roll(number, 1)
        before[begins] = number[ends] - graphs
        self.meetings, self.graphs, self.gaps = meetings, graphs, number - before

    def of(self, pairs: np.ndarray, rounds: np.ndarray, there: np.ndarray) -> np.ndarray:
        """Return the gaps of some meetings; 0 where there is none."""
        found = np.searchsorted(self.meetings, np.where(there, pairs * self.graphs + rounds, 0))
        return np.where(there, self.gaps[np.minimum(found, len(self.gaps) - 1)], 0) if len(self.gaps) else found
