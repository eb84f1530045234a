"""Secure aggregation: a node learns the weighted sum of its neighbours' models, and none of them alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Int, Key, UInt, UInt32

from gossipjax._base.arguments import choice, flag, real, sequence_of, shown, whole
from gossipjax._base.binding import Frozen
from gossipjax._base.calls import recorded
from gossipjax._base.faults import Faults, no_faults, note
from gossipjax._base.placement import by_rows
from gossipjax._base.rows import num_rows
from gossipjax.compress._compressor import STREAM, unravel_rows
from gossipjax.compress._selection import largest
from gossipjax.facts import Requires
from gossipjax.mixing._apply import messages
from gossipjax.mixing._forms import TableMixing, column
from gossipjax.sharing._edges import (
    Edges,
    check_rows_of,
    cycle_of,
    edge_weights,
    edges_at,
    from_neighbors,
    over_reverse,
    own_edges,
    self_weights,
)
from gossipjax.sharing._masking import (
    HEADROOM,
    decode,
    fixed_point,
    fold,
    in_range,
    neighborhood_sum,
    pairwise_masks,
    rounded,
    stream,
    vectors_of,
    with_own_masks,
    without_own_masks,
    without_stray_masks,
)
from gossipjax.sharing._secure_traffic import (
    NEVER,
    Attendance,
    Recovery,
    Rules,
    Settings,
    attend,
    bits_of_round,
    key_ages,
)
from gossipjax.topology._graph import Topology, require_undirected
from gossipjax.types import Event, Params, Sharing

_ABSENCES, _SUBSETS = STREAM - 1, STREAM - 4
"""Streams of absences and of sets of coordinates; masks have streams of their own."""
_RANGE, _GRAPH, _STRAY = 1, 2, 3


class SecureState(NamedTuple):
    """What secure aggregation remembers of each node."""

    first: UInt32[Array, " n"]
    """Number of the first round, in which keys are exchanged."""
    aborted: UInt32[Array, " n"]
    """Rounds in which the node kept its model, since too few neighbours were left."""
    faults: Faults
    """Why the rows of a node are NaN."""


class SecureMessage(NamedTuple):
    """What nodes send in a round."""

    words: UInt32[Array, "n s k"]
    """Masked models of each node for each of its neighbours; 0 where it sends nothing."""
    present: Bool[Array, " n"]
    """Nodes that did not drop out."""
    legal: Bool[Array, " n"]
    """Nodes whose models the fixed point holds."""


def _causes(bits: int) -> tuple[str, ...]:
    most = (2.0**31 - HEADROOM) / 2.0**bits
    return (
        f"has parameters beyond ±{most:g}, so that sums in fixed point with fraction_bits={bits} may overflow; pass "
        "fewer fraction_bits, or lower the learning rate",
        "has other neighbours than the topology of secure_aggregation says: pass the topology of the mixing "
        "matrix, with a weight on every edge; for a list of matrices, a list of their topologies",
        "cannot remove the masks of a neighbour that dropped out, since nobody reveals what they are made of: pass "
        "recovery='seeds' or 'shares'",
    )


def _init(rules: Rules, x0: Params) -> SecureState:
    n = num_rows(x0)
    check_rows_of(rules.edges.neighbors.shape[1], n, "secure_aggregation")
    faults = no_faults(n, _causes(rules.settings.value.fraction_bits))
    return SecureState(jnp.full(n, NEVER, jnp.uint32), jnp.zeros(n, jnp.uint32), faults)


def _present(rules: Rules, key: Key[Array, ""], event: Event, n: int) -> Bool[Array, " n"]:
    """Find out which nodes stay in the round; the draw of a node depends on its number and the round."""
    if rules.absences is None:
        return jnp.ones(n, bool)
    if jnp.ndim(rules.absences) == 2:
        number = event.index[0] % jnp.uint32(len(rules.absences))
        present = ~jax.lax.dynamic_index_in_dim(rules.absences, number.astype(jnp.int32), keepdims=False)
        return present if event.local is None else present[event.local.ids]
    one = stream(key, _ABSENCES)

    def stays(node: Int[Array, ""]) -> Bool[Array, ""]:
        return ~jax.random.bernoulli(fold(one, node, event.index[0]), jnp.asarray(rules.absences, jnp.float32))

    return jax.vmap(stays)(jnp.arange(n, dtype=jnp.int32) if event.local is None else event.local.ids)


def _coordinates(share: float, key: Key[Array, ""], event: Event, d: int) -> Int[Array, " k"] | None:
    """Draw the coordinates of a round, the same for all nodes: masks cancel only where every member sends."""
    if share == 1:
        return None
    k = max(1, round(share * d))
    drawn = jax.random.bits(fold(stream(key, _SUBSETS), event.index[0]), (d,), jnp.uint32)
    return jnp.nonzero(largest(drawn, k), size=k)[0].astype(jnp.int32)


# The round


@by_rows
def _encode(
    rules: Rules, key: Key[Array, ""], state: SecureState, x_start: Params, x: Params, event: Event
) -> tuple[SecureState, tuple[SecureMessage, UInt[Array, "..."]]]:
    del x_start
    settings, number = rules.settings.value, event.index[0]
    edges, vectors = own_edges(edges_at(rules.edges, number), event.local), vectors_of(x)
    chosen = _coordinates(settings.share, key, event, vectors.shape[1])
    vectors = vectors if chosen is None else vectors[:, chosen]
    _check_width(event.mixing, edges)
    received = jnp.nan_to_num(edge_weights(event.mixing, edges, "secure_aggregation", event.local))
    present = _present(rules, key, event, len(vectors))
    legal = in_range(settings.fraction_bits, received, vectors, event.local)
    # Values out of range are never sent; 0 keeps their conversion defined.
    sendable = jnp.where(legal[:, None], vectors, 0)
    words = fixed_point(settings.fraction_bits, over_reverse(event, edges, received), sendable)
    if settings.masks:
        words = words + _masks(settings, key, edges, event, words.shape[2])
    words = jnp.where(edges.present[..., None] & present[:, None, None], words, jnp.uint32(0))
    first = jnp.where(state.first == NEVER, number.astype(jnp.uint32), state.first)
    attendance = None if rules.absences is None else attend(rules, event, edges, present)
    size = bits_of_round(rules, event, edges, attendance, present, first, words.shape[2])
    return state._replace(first=first), (SecureMessage(words, present, legal), size)


def _check_width(mixing: Any, edges: Edges) -> None:
    """Raise ValueError if a table of neighbours cannot be that of the graph: before the run, unlike :data:`_GRAPH`."""
    width = edges.neighbors.shape[1]
    if isinstance(mixing, TableMixing) and mixing.neighbors.shape[1] != width:
        raise ValueError(
            f"a mixing with up to {mixing.neighbors.shape[1]} neighbours on a topology with up to {width}: build "
            "secure_aggregation for the graph of the mixing matrix, or for a list of matrices with a list of graphs"
        )


def _masks(settings: Settings, key: Key[Array, ""], edges: Edges, event: Event, d: int) -> UInt32[Array, "n s d"]:
    """Return the mask of each sender for each of its receivers."""
    masks = pairwise_masks(key, edges, event, d)
    masks = with_own_masks(key, edges, event, masks) if settings.recovery == "shares" else masks
    if event.local is None:
        return masks[edges.reverse, edges.neighbors]
    return over_reverse(event, edges, jnp.moveaxis(masks, 0, 1))


def _unmasked(
    rules: Rules, key: Key[Array, ""], edges: Edges, event: Event, attendance: Attendance, total: UInt32[Array, "n d"]
) -> UInt32[Array, "n d"]:
    """Remove the masks that are left in the sums."""
    settings = rules.settings.value
    if settings.masks and settings.recovery == "shares":
        total = without_own_masks(key, edges, event, attendance.heard, attendance.thresholds, total)
    if settings.masks and rules.absences is not None:
        total = without_stray_masks(key, edges, event, attendance.heard, attendance.recovers, total)
    return total


def _elsewhere(mixing: Any, edges: Edges, weights: Float[Array, "n s"]) -> Bool[Array, " n"]:
    """Mark nodes whose edges differ from those of the matrix: an edge without weight, or a weight on no edge."""
    unused = jnp.any(jnp.isnan(weights) | (edges.present & (weights == 0)), axis=1)
    return unused | (messages(mixing, len(weights)) != jnp.sum(edges.present, axis=1, dtype=jnp.uint32))


@by_rows
def _merge(
    rules: Rules, key: Key[Array, ""], state: SecureState, arrived: tuple[Params, SecureMessage, Event]
) -> tuple[SecureState, Params]:
    x, sent, event = arrived
    settings, edges = rules.settings.value, own_edges(edges_at(rules.edges, event.index[0]), event.local)
    attendance = attend(rules, event, edges, sent.present)
    weights = edge_weights(event.mixing, edges, "secure_aggregation", event.local)
    total = neighborhood_sum(event, edges, attendance.heard, sent.words)
    total = _unmasked(rules, key, edges, event, attendance, total)
    whole_vectors = vectors_of(x)
    chosen = _coordinates(settings.share, key, event, whole_vectors.shape[1])
    vectors = whole_vectors if chosen is None else whole_vectors[:, chosen]
    own = self_weights(event.mixing, event.local) + jnp.sum(jnp.where(attendance.lost, weights, 0), axis=1)
    kept = rounded(column(own, vectors) * vectors, event.index[0] == NEVER)
    mixed = kept + decode(settings.fraction_bits, total, vectors)
    any_lost = jnp.any(attendance.lost, axis=1) & sent.present
    aborts = any_lost & ~attendance.enough
    mixed = jnp.where((sent.present & ~aborts)[:, None], mixed, vectors)
    broken = {
        _RANGE: sent.present & ~sent.legal & jnp.all(~jnp.isnan(vectors), axis=1),
        _GRAPH: _elsewhere(event.mixing, edges, weights),
        _STRAY: any_lost & (settings.recovery == "none"),
    }
    faults = state.faults
    for code, rows in broken.items():
        faults = note(faults, code, rows, event.index[0])
    illegal = ~sent.legal & sent.present
    bad = (
        illegal
        | jnp.any(attendance.heard & from_neighbors(event, edges, illegal), axis=1)
        | broken[_GRAPH]
        | broken[_STRAY]
    )
    merged = mixed if chosen is None else whole_vectors.at[:, chosen].set(mixed, unique_indices=True)
    merged = unravel_rows(jnp.where(bad[:, None], jnp.nan, merged), x)
    return state._replace(aborted=state.aborted + aborts.astype(jnp.uint32), faults=faults), merged


@recorded("bonawitz2017secure", "shamir1979secret", "dhasade2023decentralizepy")
def secure_aggregation(
    topology: Topology | Sequence[Topology],
    *,
    fraction_bits: int = 24,
    share: float = 1.0,
    dropout: float | Float[Array, ""] | Bool[np.ndarray, "r n"] | Bool[Array, "r n"] = 0.0,
    recovery: Recovery = "seeds",
    threshold: int | None = None,
    colluders: int = 0,
    masks: bool = True,
) -> Sharing:
    """Build secure aggregation: nodes mask what they send, and the masks cancel in the sum of a neighbourhood.

    In round t, receiver i gets from each neighbour j, modulo 2³² and with f fraction bits::

        q_ji = rint(2^f W_ij x_j)                                       the sender applies the weight
        y_ji = q_ji + Σ_{k > j} G(s_jk, i, t) − Σ_{k < j} G(s_jk, i, t)  the message; k: the other neighbours of i
        x_i ← W_ii x_i + 2^−f Σ_j y_ji,        Σ_j y_ji = Σ_j q_ji

    G expands the seed of a pair to 32-bit words. If G is a good generator, a message alone is indistinguishable from
    uniform words, and so are the masks of two rounds or two receivers from independent ones. Sums of integers modulo
    2³² are exact: the model after a round is, bit for bit, that of the unmasked fixed-point sum, which ``masks=False``
    computes in less time. It differs from ``Σ_j W_ij x_j`` by at most ``d_i 2^−(f+1)`` for d_i neighbours, besides
    float rounding; so the mean is conserved up to these errors. Derivatives of a run do not pass through whole numbers:
    differentiate runs with full sharing.

    **Threat model.** All nodes are honest but curious: they follow the protocol and look at what they receive. Node i,
    together with up to c of its neighbours (``colluders``), learns of its other neighbours the sum of each round only.
    Not protected: sums over several rounds, from which single models may follow (on a ring of four, two rounds give the
    opposite node's), anything against nodes that lie about masks, weights or absences, and the final model. It is not
    differential privacy. A receiver whose sum would show one model is refused. Key agreement is simulated: its bytes
    are counted, and seeds come from the run's key; threefry is no audited cipher.

    **Range.** A node with parameters beyond ``(2^31 − 2^20)/2^f`` (127.9 for f = 24; divided by ``max_i Σ_{j≠i}
    |W_ij|`` if that is above 1) could make a sum overflow. It sends nothing: it and its neighbours become NaN, which
    ends the run with an error that names the node and the cause. Values are never clipped.

    **Sparse messages.** With ``share`` α < 1, all nodes send the same round(α P) of P coordinates, at least one. The
    set is uniform and new in every round; every node draws it from a public seed and the number of the round, so it
    costs no bytes. On these coordinates the round is as above, and all others stay as they are: the mean is conserved.
    Sets that depend on models, such as the largest changes, would differ between members and tell about them.

    **Changing graphs.** A list of topologies belongs to ``timeline.rounds`` with the list of their matrices: round t
    uses entry t modulo its length.

    **Dropouts.** With ``dropout`` p, each node leaves each round with probability p after its local step; an array of
    shape (r, n) says instead who misses round t modulo r, for example since a device is offline. Nobody hears an absent
    node, and it keeps its model. The weight of lost neighbours returns to the receiver's own model. If fewer than c + 2
    neighbours are left, the receiver keeps its model, and ``state.sharing.aborted`` counts the round; the mean moves
    then. What removes the masks of the lost ones is the ``recovery``:

    - ``"seeds"``: the receiver asks the neighbours left for the round's seeds of their pairs with each lost node. It
      must not receive the lost message after all: if that is late instead of lost, the revealed seeds unmask it.
    - ``"shares"`` (Bonawitz et al.): a message also has the node's own mask, ``y_ji + G(b_ji)``. The seeds b and the
      node's key are shared among the neighbours of i, so that any t of them give a secret and fewer say nothing
      (Shamir). In every round those left reveal shares of b for each node heard and shares of the key of each node
      lost, never both, so a late message stays masked. Needs t neighbours left, else the round is aborted. With t above
      (d + c)/2, the default, even a receiver that tells them different lists of absences cannot get both secrets of a
      node. Keys are new in every round. The seeds b are shared and reconstructed in the run, in the field of 2³¹ − 1;
      shares of keys are only counted.
    - ``"none"``: a dropout ends the run with an error.

    **Bytes.** A message has 4 bytes per parameter that is sent, and a header of 8. All that goes from one node to
    another in a round counts as one message.

    - With seeds, or without recovery: in the first round, each node sends each neighbour 32 bytes for every neighbour
      that it has: its key, and the keys that it relays. On changing graphs, a later round adds 32 bytes for each key of
      a neighbour, or of another neighbour of the receiver, that a node did not get in an earlier round of the run. For
      each receiver that recovers l lost nodes, each neighbour left gets 8 + 4 l bytes and answers with 8 + 32 l.
    - With shares, every round: a neighbour of i sends two keys, two shares for each of the d − 1 others, and d shares
      at the end, ``64 + 64 (d − 1) + 32 d`` bytes besides its message; i passes on ``128 (d − 1)`` bytes to each, and
      sends the list of those left, 4 bytes per 32 neighbours.

    Args:
        topology: the undirected graph of the mixing matrix, which must have a weight on every edge and no others; or a
            list of such graphs.
        fraction_bits: f, 8 … 30: more are finer, with a smaller range.
        share: α in (0, 1].
        dropout: p in [0, 1); or booleans (r, n), True: absent.
        recovery: what removes the masks of lost nodes.
        threshold: t, for ``recovery="shares"``: above c, and no more than the smallest degree. None: ⌊(d + c)/2⌋ + 1
            for each receiver with d neighbours.
        colluders: c ≥ 0, the largest number of neighbours that share what they know with a receiver.
        masks: whether masks are computed; False: the same models and bytes, in less time. With masks, a round holds
            all messages at once, 4 bytes per parameter and directed edge.

    Raises:
        ValueError: if an argument is out of range, a topology is directed, topologies differ in size, a node has
            neighbours, but fewer than c + 2, or threshold is given for another recovery; during a run, if the number
            of nodes differs, or the timeline is not synchronous rounds on one fixed matrix (for a list: on a cycle of
            matrices). Plans in which messages are lost are not synchronous: give the absences as ``dropout``.
        Diverged: during a run, if parameters leave the range, edges differ from the topology, or a node drops out
            without recovery.

    Reference: Bonawitz et al. 2017, section 4 (masks from pairwise seeds, own masks, shares), here for each receiver;
    Shamir 1979 (shares); Dhasade et al. 2023, arXiv 2304.08322 (in decentralized learning).
    """
    graphs = _graphs(topology)
    fraction_bits = whole("fraction_bits", fraction_bits, least=8, most=30, remedy="24 holds models up to ±128")
    colluders = whole("colluders", colluders, least=0)
    share = real("share", share, above=0, most=1, remedy="1 sends whole models")
    _check_degrees(graphs, colluders)
    choice("recovery", recovery, get_args(Recovery))
    settings = Settings(
        fraction_bits,
        colluders,
        recovery,
        _threshold(threshold, recovery, colluders, graphs),
        flag("masks", masks),
        float(share),
    )
    edges = cycle_of(graphs)
    ages = key_ages(edges) if recovery != "shares" else None
    rules = Rules(edges, ages, Frozen(settings), _absences(dropout, graphs[0].num_nodes))
    fixed = {"fixed"} if len(graphs) == 1 else set()
    requires = Requires({"synchronous", "row_stochastic"} | fixed, mixing=True, builder="timeline.rounds")
    return Sharing(Partial(_init, rules), Partial(_encode, rules), Partial(_merge, rules), requires)


def _graphs(topology: Any) -> tuple[Topology, ...]:
    """Check one graph, or a list of graphs."""
    if isinstance(topology, Topology) or not isinstance(topology, list | tuple):
        return (require_undirected(topology),)
    graphs = tuple(map(require_undirected, sequence_of("topology", topology, Topology, "one for each mixing matrix")))
    sizes = sorted({graph.num_nodes for graph in graphs})
    if len(sizes) != 1:
        raise ValueError(
            f"topology={shown(topology)}: must be graphs of one number of nodes, not of {sizes}; pass one "
            "for each matrix of timeline.rounds"
        )
    return graphs


def _absences(dropout: Any, nodes: int) -> Any:
    """Check a probability, or a table of absences; None: nobody is ever absent."""
    if getattr(dropout, "ndim", 0) != 2:
        dropout = real("dropout", dropout, least=0, below=1, remedy="the probability that a node misses a round")
        return None if isinstance(dropout, float) and dropout == 0 else dropout
    if dropout.dtype != bool or dropout.shape[1] != nodes or not len(dropout):
        raise ValueError(
            f"dropout of shape {dropout.shape} and type {dropout.dtype}: must be booleans of shape (rounds, {nodes}), "
            "True where a node is absent; or pass a probability"
        )
    return jnp.asarray(dropout)


def _threshold(threshold: Any, recovery: str, colluders: int, graphs: Sequence[Topology]) -> int | None:
    """Check that t members give a secret, and that a receiver and its colluders do not."""
    if threshold is None:
        return None
    if recovery != "shares":
        raise ValueError(f"threshold={threshold}: only shares have one; pass recovery='shares', or no threshold")
    degrees = np.concatenate([graph.in_degrees for graph in graphs])
    most = int(degrees[degrees > 0].min(initial=2**31 - 1))
    return whole(
        "threshold", threshold, least=colluders + 1, most=most,
        remedy="above the colluders, who could reconstruct secrets, and at most the smallest degree",
    )  # fmt: skip


def _check_degrees(graphs: Sequence[Topology], colluders: int) -> None:
    """Raise ValueError if the sum of a neighbourhood would show a single model."""
    for topology in graphs:
        degrees = topology.in_degrees
        if (few := np.flatnonzero((degrees > 0) & (degrees < colluders + 2))).size:
            nodes = ", ".join(str(node) for node in few[:5]) + (", …" if few.size > 5 else "")
            raise ValueError(
                f"topology={topology.name}: node(s) {nodes} have fewer than {colluders + 2} neighbours (colluders + "
                "2), so that the sum which they receive shows a single model; use a graph of higher degree, such as a "
                "ring or random_regular, or fewer colluders"
            )
