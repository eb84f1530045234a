"""Secure aggregation: a node learns the weighted sum of its neighbours' models, and none of them alone."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Int, Key, UInt, UInt32

from gossipjax._base.arguments import flag, real, whole
from gossipjax._base.binding import Frozen
from gossipjax._base.calls import recorded
from gossipjax._base.faults import Faults, no_faults, note
from gossipjax._base.rows import num_rows, parameters_per_row
from gossipjax.compress._compressor import STREAM, unravel_rows
from gossipjax.facts import Requires
from gossipjax.mixing._apply import messages
from gossipjax.mixing._forms import DenseMixing, column
from gossipjax.sharing._edges import Edges, check_rows_of, edge_weights, edges_of, undirected
from gossipjax.sharing._masking import (
    HEADROOM,
    decode,
    fixed_point,
    in_range,
    neighborhood_sum,
    pairwise_masks,
    vectors_of,
    without_stray_masks,
)
from gossipjax.topology._graph import Topology
from gossipjax.types import Event, Params, Sharing

KEY_BITS = 256
"""A public key of the set-up, or a seed that is revealed."""
HEADER_BITS = 64
"""Round and receiver of a message."""
NAME_BITS = 32
"""The number of a node."""
_ABSENCES = STREAM - 1
"""Stream of absences; masks have the stream above."""
_RANGE, _GRAPH, _STRAY = 1, 2, 3


class SecureState(NamedTuple):
    """What secure aggregation remembers of each node."""

    ready: Bool[Array, " n"]
    """Whether keys have been exchanged."""
    aborted: UInt32[Array, " n"]
    """Rounds in which the node kept its model, since too few neighbours were left."""
    faults: Faults
    """Why the rows of a node are NaN."""


class SecureMessage(NamedTuple):
    """What nodes send in a round."""

    words: UInt32[Array, "n s d"]
    """Masked models of each node for each of its neighbours; 0 where it sends nothing."""
    present: Bool[Array, " n"]
    """Nodes that did not drop out."""
    legal: Bool[Array, " n"]
    """Nodes whose models the fixed point holds."""


class _Rules(NamedTuple):
    """The settings; the dropout is an argument of the compiled program, or None."""

    edges: Edges
    fraction_bits: Frozen[int]
    colluders: Frozen[int]
    recovery: Frozen[bool]
    masks: Frozen[bool]
    dropout: Any


class _Attendance(NamedTuple):
    """Who hears whom in a round."""

    heard: Bool[Array, "n s"]
    """Neighbours whose messages arrive."""
    lost: Bool[Array, "n s"]
    """Neighbours that dropped out."""
    enough: Bool[Array, " n"]
    """Whether so many are left that their sum hides each of them."""
    recovers: Bool[Array, " n"]
    """Whether the node asks the others for the seeds of the lost ones."""


def _causes(bits: int) -> tuple[str, ...]:
    most = (2.0**31 - HEADROOM) / 2.0**bits
    return (
        f"has parameters beyond ±{most:g}, so that sums in fixed point with fraction_bits={bits} may overflow; pass "
        "fewer fraction_bits, or lower the learning rate",
        "has other neighbours than the topology of secure_aggregation says: pass the topology of the mixing "
        "matrix, with a weight on every edge",
        "cannot remove the masks of a neighbour that dropped out, since nobody reveals their seeds: pass recovery=True",
    )


def _init(rules: _Rules, x0: Params) -> SecureState:
    n = num_rows(x0)
    check_rows_of(len(rules.edges.neighbors), n, "secure_aggregation")
    faults = no_faults(n, _causes(rules.fraction_bits.value))
    return SecureState(jnp.zeros(n, bool), jnp.zeros(n, jnp.uint32), faults)


def _self_weights(mixing: Any) -> Float[Array, " n"]:
    return jnp.diagonal(mixing.W) if isinstance(mixing, DenseMixing) else mixing.self_weight


# Absent nodes


def _present(rules: _Rules, key: Key[Array, ""], event: Event, n: int) -> Bool[Array, " n"]:
    """Draw which nodes stay in the round; a node's draw depends on its number and the round."""
    if rules.dropout is None:
        return jnp.ones(n, bool)
    absences = jax.random.fold_in(jax.random.fold_in(key, STREAM), _ABSENCES)

    def stays(node: Int[Array, ""]) -> Bool[Array, ""]:
        seed = jax.random.fold_in(jax.random.fold_in(absences, node), event.index[0])
        return ~jax.random.bernoulli(seed, jnp.asarray(rules.dropout, jnp.float32))

    return jax.vmap(stays)(jnp.arange(n, dtype=jnp.int32))


def _attend(rules: _Rules, present: Bool[Array, " n"]) -> _Attendance:
    edges = rules.edges
    there = present[edges.neighbors]
    heard, lost = edges.present & there, edges.present & ~there
    enough = jnp.sum(heard, axis=1) >= rules.colluders.value + 2
    recovers = present & enough & jnp.any(lost, axis=1) & rules.recovery.value
    return _Attendance(heard, lost, enough, recovers)


# Bytes


def _bits(
    rules: _Rules, state: SecureState, present: Bool[Array, " n"], dimension: int
) -> UInt[Array, " n"] | UInt[Array, "n s"]:
    """Return the bits of what each node sends: to any of its neighbours or, if nodes drop out, to each of them."""
    edges = rules.edges
    degrees = jnp.sum(edges.present, axis=1, dtype=jnp.uint32)
    # One's own key, and as a receiver the keys of the other neighbours.
    keys = jnp.where(state.ready, 0, jnp.uint32(KEY_BITS) * degrees)
    payload = jnp.uint32(32 * dimension + HEADER_BITS)
    if rules.dropout is None:
        return payload + keys
    attendance = _attend(rules, present)
    lost = jnp.sum(attendance.lost, axis=1, dtype=jnp.uint32)
    asked = jnp.where(attendance.recovers, HEADER_BITS + NAME_BITS * lost, 0).astype(jnp.uint32)
    revealed = jnp.where(attendance.recovers, HEADER_BITS + KEY_BITS * lost, 0).astype(jnp.uint32)
    sent = jnp.where(present, payload, 0)[:, None]
    answers = jnp.where(attendance.heard & present[:, None], asked[:, None] + revealed[edges.neighbors], 0)
    return jnp.where(edges.present, keys[:, None] + sent + answers, 0).astype(jnp.uint32)


# The round


def _encode(
    rules: _Rules, key: Key[Array, ""], state: SecureState, x_start: Params, x: Params, event: Event
) -> tuple[SecureState, tuple[SecureMessage, UInt[Array, "..."]]]:
    del x_start
    edges, bits = rules.edges, rules.fraction_bits.value
    vectors = vectors_of(x)
    n, dimension = vectors.shape
    received = jnp.nan_to_num(edge_weights(event.mixing, edges, "secure_aggregation"))
    present = _present(rules, key, event, n)
    legal = in_range(bits, received, vectors)
    # Values out of range are never sent; 0 keeps their conversion defined.
    sendable = jnp.where(legal[:, None], vectors, 0)
    words = fixed_point(bits, received[edges.neighbors, edges.reverse], sendable)
    if rules.masks.value:
        words = words + pairwise_masks(key, edges, event, dimension)[edges.reverse, edges.neighbors]
    words = jnp.where(edges.present[..., None] & present[:, None, None], words, jnp.uint32(0))
    size = _bits(rules, state, present, parameters_per_row(x))
    return state._replace(ready=jnp.ones_like(state.ready)), (SecureMessage(words, present, legal), size)


def _elsewhere(mixing: Any, edges: Edges, weights: Float[Array, "n s"]) -> Bool[Array, " n"]:
    """Mark nodes whose edges differ from those of the matrix: an edge without weight, or a weight on no edge."""
    unused = jnp.any(jnp.isnan(weights) | (edges.present & (weights == 0)), axis=1)
    return unused | (messages(mixing, len(weights)) != jnp.sum(edges.present, axis=1, dtype=jnp.uint32))


def _merge(
    rules: _Rules, key: Key[Array, ""], state: SecureState, arrived: tuple[Params, SecureMessage, Event]
) -> tuple[SecureState, Params]:
    x, sent, event = arrived
    edges, attendance = rules.edges, _attend(rules, sent.present)
    weights = edge_weights(event.mixing, edges, "secure_aggregation")
    total = neighborhood_sum(edges, attendance.heard, sent.words)
    if rules.dropout is not None and rules.masks.value:
        total = without_stray_masks(key, edges, event, attendance.heard, attendance.recovers, total)
    vectors = vectors_of(x)
    own = _self_weights(event.mixing) + jnp.sum(jnp.where(attendance.lost, weights, 0), axis=1)
    mixed = column(own, vectors) * vectors + decode(rules.fraction_bits.value, total, vectors)
    any_lost = jnp.any(attendance.lost, axis=1) & sent.present
    aborts = any_lost & ~attendance.enough
    mixed = jnp.where((sent.present & ~aborts)[:, None], mixed, vectors)
    broken = {
        _RANGE: sent.present & ~sent.legal & jnp.all(~jnp.isnan(vectors), axis=1),
        _GRAPH: _elsewhere(event.mixing, edges, weights),
        _STRAY: any_lost & (not rules.recovery.value),
    }
    faults = state.faults
    for code, rows in broken.items():
        faults = note(faults, code, rows, event.index[0])
    illegal = ~sent.legal & sent.present
    bad = illegal | jnp.any(attendance.heard & illegal[edges.neighbors], axis=1) | broken[_GRAPH] | broken[_STRAY]
    mixed = unravel_rows(jnp.where(bad[:, None], jnp.nan, mixed), x)
    aborted = state.aborted + aborts.astype(jnp.uint32)
    return state._replace(aborted=aborted, faults=faults), mixed


@recorded("bonawitz2017secure", "dhasade2023decentralizepy")
def secure_aggregation(
    topology: Topology,
    *,
    fraction_bits: int = 24,
    dropout: float = 0.0,
    recovery: bool = True,
    colluders: int = 0,
    masks: bool = True,
) -> Sharing:
    """Build secure aggregation: nodes mask what they send, and the masks cancel in the sum of a neighbourhood.

    In round t, receiver i gets from each neighbour j, modulo 2³² and with f fraction bits::

        q_ji = rint(2^f W_ij x_j)                                       the sender applies the weight
        y_ji = q_ji + Σ_{k > j} G(s_jk, i, t) − Σ_{k < j} G(s_jk, i, t)  the message; k: the other neighbours of i
        x_i ← W_ii x_i + 2^−f Σ_j y_ji,        Σ_j y_ji = Σ_j q_ji

    G expands the seed of a pair to 32-bit words, so a message alone is uniform, and the masks of two rounds or two
    receivers are independent. Sums of integers modulo 2³² are exact: the model after a round is, bit for bit, that of
    the unmasked fixed-point sum, which ``masks=False`` computes in less time. It differs from ``Σ_j W_ij x_j`` by at
    most ``d_i 2^−(f+1)`` for d_i neighbours, besides float rounding; so the mean is conserved up to these errors.
    Derivatives of a run do not pass through whole numbers: differentiate runs with full sharing.

    **Threat model.** All nodes are honest but curious: they follow the protocol and look at what they receive. Node i,
    together with up to c of its neighbours (``colluders``), learns of its other neighbours the sum of each round only.
    Not protected: sums over several rounds, from which single models may follow (on a ring of four, two rounds give the
    opposite node's), anything against nodes that lie about masks, weights or absences, and the final model. It is not
    differential privacy. A receiver whose sum would show one model is refused. Key agreement is simulated: its bytes
    are counted, and seeds come from the run's key; threefry is no audited cipher.

    **Range.** A node with parameters beyond ``(2^31 − 2^20)/2^f`` (127.9 for f = 24; divided by ``max_i Σ_{j≠i}
    |W_ij|`` if that is above 1) could make a sum overflow. It sends nothing: it and its neighbours become NaN, which
    ends the run with an error that names the node and the cause. Values are never clipped.

    **Dropouts.** With ``dropout`` p, each node leaves each round with probability p after its local step: nobody hears
    it, and it keeps its model. Its neighbours notice; each asks the others that are left for the round's seeds of their
    pairs with the lost node, and removes its masks. The weight of lost neighbours returns to the receiver's own model.
    If fewer than c + 2 neighbours are left, the receiver keeps its model, and ``state.sharing.aborted`` counts the
    round; the mean moves then. Without recovery, a dropout ends the run with an error. Seeds are revealed for lost
    messages only: against messages that are late instead of lost, the protocol of Bonawitz et al. has a second mask,
    which is not modelled.

    **Bytes.** In the first round, each node sends each neighbour 32 bytes for every neighbour that it has: its key, and
    the keys that it relays. In every round a message has 4 bytes per parameter and a header of 8. For each receiver
    that recovers l lost nodes, each neighbour left gets 8 + 4 l bytes and answers with 8 + 32 l. All that goes from one
    node to another in a round counts as one message.

    Args:
        topology: the undirected graph of the mixing matrix, which must have a weight on every edge and no others.
        fraction_bits: f, 8 … 30: more are finer, with a smaller range.
        dropout: p in [0, 1).
        recovery: whether seeds of lost nodes are revealed.
        colluders: c ≥ 0, the largest number of neighbours that share what they know with a receiver.
        masks: whether masks are computed; False: the same models and bytes, in less time. With masks, a round holds
            all messages at once, 4 bytes per parameter and directed edge.

    Raises:
        ValueError: if fraction_bits, dropout or colluders is out of range, the topology is directed, or a node has
            neighbours, but fewer than c + 2; during a run, if the number of nodes differs, or the timeline is not
            synchronous rounds on one fixed matrix.
        Diverged: during a run, if parameters leave the range, edges differ from the topology, or a node drops out
            without recovery.

    Reference: Bonawitz et al. 2017, section 4 (masks from pairwise seeds, recovery by revealed seeds), here for each
    receiver; Dhasade et al. 2023, arXiv 2304.08322 (in decentralized learning).
    """
    edges = edges_of(undirected(topology))
    fraction_bits = whole("fraction_bits", fraction_bits, least=8, most=30, remedy="24 holds models up to ±128")
    dropout = real("dropout", dropout, least=0, below=1, remedy="the probability that a node misses a round")
    colluders = whole("colluders", colluders, least=0)
    _check_degrees(topology, colluders)
    rules = _Rules(
        edges,
        Frozen(fraction_bits),
        Frozen(colluders),
        Frozen(flag("recovery", recovery)),
        Frozen(flag("masks", masks)),
        None if isinstance(dropout, float) and dropout == 0 else dropout,
    )
    requires = Requires({"fixed", "synchronous", "row_stochastic"}, mixing=True, builder="timeline.rounds")
    return Sharing(Partial(_init, rules), Partial(_encode, rules), Partial(_merge, rules), requires)


def _check_degrees(topology: Topology, colluders: int) -> None:
    """Raise ValueError if the sum of a neighbourhood would show a single model."""
    degrees = topology.in_degrees
    if (few := np.flatnonzero((degrees > 0) & (degrees < colluders + 2))).size:
        nodes = ", ".join(str(node) for node in few[:5]) + (", …" if few.size > 5 else "")
        raise ValueError(
            f"topology={topology.name}: node(s) {nodes} have fewer than {colluders + 2} neighbours (colluders + 2), so "
            "that the sum which they receive shows a single model; use a graph of higher degree, such as a ring or "
            "random_regular, or fewer colluders"
        )
