"""Robust mixing: receivers combine what they hear by a rule that bounds what lies can do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int, Key

from gossipjax._base.arguments import flag, instance, optional_whole
from gossipjax._base.binding import Frozen
from gossipjax._base.calls import recorded
from gossipjax._base.faults import Faults, no_faults, note
from gossipjax._base.local import Local, in_node_order, network_size
from gossipjax._base.placement import by_rows, by_rows_in_rounds
from gossipjax._base.rows import bits_per_row, num_rows
from gossipjax.compress._compressor import STREAM, ravel_rows, unravel_rows
from gossipjax.facts import Requires
from gossipjax.mixing._apply import mix
from gossipjax.mixing._forms import DenseMixing, GroupMixing, PairMixing, TableMixing, live_receivers
from gossipjax.mixing._placed import reach
from gossipjax.mixing._placed_forms import PlacedDense, PlacedTable
from gossipjax.robust import Attack, Rule
from gossipjax.robust._attacks import Victim
from gossipjax.robust._check import (
    check_graphs,
    check_is_node,
    check_share,
    check_victim,
    checked_attackers,
)
from gossipjax.robust._lanes import Context
from gossipjax.topology import Topology
from gossipjax.types import NOBODY, Event, Params, Sharing

_DRAWS = STREAM - 7
"""Stream of what rules and attacks draw."""
_BATCH_BYTES = 2**26
_FEW, _NOT_FINITE, _WEIGHTS = 1, 2, 3
_CAUSES = (
    "hears too few neighbours for the rule; lower its b, or use a graph with more neighbours",
    "hears more models that are not finite than the rule tolerates; raise its b, or clip, or lower the learning rate",
    "has a negative weight, which robust rules do not have; use metropolis weights or another matrix without them",
)


class RobustState(NamedTuple):
    """Why rows of a node are NaN, and whose models lie in rows of messages."""

    faults: Faults
    authors: Int[Array, " rows"]
    """The node whose model each row holds."""
    before: Float[Array, "rows P"] | None
    """What each row held when it last received, at first the start; None where no attack remembers it."""


class _Sides(NamedTuple):
    """Who combines what: r receivers with k lanes each."""

    receivers: Int[Array, " r"]
    neighbors: Int[Array, "r k"]
    weights: Float[Array, "r k"]
    """0: absent."""
    nodes: Int[Array, " r"]
    """Number of each receiver in the whole network."""


class _Lies(NamedTuple):
    lie: Partial
    prepare: Partial | None
    victim: Frozen
    """The one node that they are aimed at, or None; a compile-time constant."""


class Setting(NamedTuple):
    rule: Rule
    attackers: Int[Array, " a"]
    nodes: Frozen
    """The attackers, as a compile-time constant."""
    attack: _Lies | None
    waits: Frozen
    """Whether a node whose inbox does not hold enough models yet keeps its own, a compile-time constant."""


def _init(remembers: Frozen, x0: Params) -> RobustState:
    rows = num_rows(x0)
    before = ravel_rows(x0) if remembers.value else None
    return RobustState(no_faults(rows, _CAUSES), jnp.arange(rows, dtype=jnp.int32), before)


@by_rows
def _encode(
    key: Key[Array, ""], state: RobustState, x_start: Params, x: Params, event: Event
) -> tuple[RobustState, tuple[Params, int]]:
    del key, x_start, event
    return state, (x, bits_per_row(x))


def sides_of(event: Event, rows: int) -> _Sides:
    """List the lanes of every receiver; a lane from the receiver itself is no neighbour."""
    mixing = event.mixing
    if event.local is not None:
        return _placed_sides(mixing, event.local)
    match mixing:
        case TableMixing(neighbors=neighbors, weights=weights):
            receivers = jnp.arange(rows, dtype=jnp.int32)
        case DenseMixing(W=weights):
            receivers = jnp.arange(rows, dtype=jnp.int32)
            neighbors = jnp.broadcast_to(receivers[None], weights.shape)
        case GroupMixing(members=members, weights=shares, targets=targets):
            receivers, each = targets.reshape(-1), targets.shape[1]
            neighbors, weights = jnp.repeat(members, each, axis=0), jnp.repeat(shares, each, axis=0)
        case _:
            receivers, neighbors = live_receivers(mixing, rows), mixing.senders[:, None]
            weights = mixing.weights[:, None]
    return _Sides(receivers, neighbors, jnp.where(neighbors == receivers[:, None], 0, weights), receivers)


def _placed_sides(mixing: PlacedTable | PlacedDense, local: Local) -> _Sides:
    """List the lanes of the receivers on one device of a mesh; neighbours are rows of what it can reach."""
    receivers = jnp.arange(len(local.ids), dtype=jnp.int32)
    if isinstance(mixing, PlacedTable):
        neighbors, weights, own = mixing.neighbors, mixing.weights, mixing.own
    else:
        weights, own = mixing.W, local.ids
        neighbors = jnp.broadcast_to(jnp.arange(weights.shape[1], dtype=jnp.int32)[None], weights.shape)
    return _Sides(receivers, neighbors, jnp.where(neighbors == own[:, None], 0, weights), local.ids)


def _check_form(setting: Setting, event: Event, models: int) -> None:
    if setting.attack is not None:
        check_share(np.asarray(setting.nodes.value, np.int64), models)
        aimed = setting.attack.victim.value
        if aimed is not None:
            check_is_node(aimed, models)
    if isinstance(event.mixing, PairMixing) and not setting.rule.pairs.value:
        raise ValueError(
            "this robust rule compares several neighbours, and at a meeting a node hears one: use rounds, such as "
            "timeline.rounds, or clipped_gossip(tau), which needs no comparison"
        )
    if isinstance(event.mixing, GroupMixing) and event.mixing.parts is not None:
        raise ValueError("robust rules compare whole models, and this timeline sends fragments: use timeline.rounds")


def _check_all_at_once(setting: Setting, event: Event) -> None:
    """Refuse an attack made from the models of all nodes where an event stands for several, at different times."""
    packed = isinstance(event.mixing, PairMixing | GroupMixing) and event.index.shape[0] > 1
    if packed and setting.attack is not None and setting.attack.prepare is not None:
        raise ValueError(
            "attack: is made from the models of the whole network at one time, which packed events do not have: run "
            'with simulate(packing="sequential"), or take an attack that looks at the victim and its neighbours, such '
            "as alie"
        )


def _numbers(event: Event, sides: _Sides, rows: int) -> Array:
    """Return the number of the source event of each receiver, which packed events tell apart."""
    if event.nodes is None or not isinstance(event.mixing, PairMixing | GroupMixing):
        return jnp.broadcast_to(event.index[0], sides.receivers.shape)
    nobody = jnp.uint32(NOBODY)
    number = jnp.full(rows, nobody).at[event.nodes].set(jnp.broadcast_to(event.index, event.nodes.shape), mode="drop")
    heard = number.at[sides.receivers].get(mode="clip")
    said = jnp.min(number.at[sides.neighbors].get(mode="fill", fill_value=NOBODY), axis=1)
    return jnp.where(heard != nobody, heard, jnp.where(said != nobody, said, event.index[0]))


@by_rows_in_rounds
def _merge(
    setting: Setting, key: Key[Array, ""], state: RobustState, arrived: tuple[Params, Any, Event]
) -> tuple[RobustState, Params]:
    x, _, event = arrived
    vectors = ravel_rows(x)
    rows = len(vectors)
    models = rows if event.models is None else event.models.value
    _check_form(setting, event, network_size(event.local, models))
    _check_all_at_once(setting, event)
    sides = sides_of(event, rows)
    new = _combine(setting, key, event, vectors, sides, x, state)
    authors, before = state.authors, state.before
    if before is not None:
        before = before.at[sides.receivers].set(vectors.at[sides.receivers].get(mode="clip"), mode="drop")
    # Rows of messages in flight are written as they are sent: lies are told where they arrive.
    if models < rows:
        kept = ravel_rows(mix(event.mixing, x))
        written, message = jnp.clip(sides.receivers, 0, rows - 1), sides.receivers >= models
        new = jnp.where(message[:, None], kept[written], new)
        sender = jnp.take_along_axis(sides.neighbors, jnp.argmax(sides.weights, axis=1)[:, None], axis=1)[:, 0]
        said = authors.at[sender].get(mode="clip")
        authors = authors.at[jnp.where(message, sides.receivers, rows)].set(said, mode="drop")
    mixed = vectors.at[sides.receivers].set(new, mode="drop")
    state = _noted(setting, state._replace(authors=authors, before=before), sides, vectors, new, event)
    return state, unravel_rows(mixed, x)


def _noted(
    setting: Setting, state: RobustState, sides: _Sides, vectors: Array, new: Array, event: Event
) -> RobustState:
    """Write down why a row becomes NaN that was finite."""
    rows, faults = len(vectors), state.faults
    live = sides.receivers < rows
    own = vectors.at[sides.receivers].get(mode="clip")
    number = 1 + jnp.sum(sides.weights > 0, axis=1, dtype=jnp.int32)
    broken = live & jnp.all(jnp.isfinite(own), axis=1) & ~jnp.all(jnp.isfinite(new), axis=1)
    few, negative = number < setting.rule.least, jnp.any(sides.weights < 0, axis=1)
    for code, which in ((_WEIGHTS, negative), (_FEW, few & ~negative), (_NOT_FINITE, ~few & ~negative)):
        mask = jnp.zeros(rows, bool).at[sides.receivers].set(broken & which, mode="drop")
        faults = note(faults, code, mask, event.index[0])
    return state._replace(faults=faults)


def _combine(
    setting: Setting,
    key: Key[Array, ""],
    event: Event,
    vectors: Array,
    sides: _Sides,
    x: Params,
    state: RobustState,
) -> Float[Array, "r P"]:
    """Apply the rule to each receiver, some at a time so that memory does not grow with all their neighbours."""
    rule, rows = setting.rule, len(vectors)
    models = rows if event.models is None else event.models.value
    waits = setting.waits.value and models < rows
    stream = jax.random.fold_in(key, jnp.uint32(_DRAWS))
    liar = jnp.zeros(network_size(event.local, rows), bool).at[setting.attackers].set(True, mode="drop")
    attack, common = setting.attack, None
    if attack is not None and attack.prepare is not None:
        seen = in_node_order(event.local, vectors)[: network_size(event.local, models)]
        common = attack.prepare(liar[: len(seen)], seen)
    everyone = vectors if event.local is None else reach(event.mixing, vectors)
    authors = state.authors if event.local is None else reach(event.mixing, state.authors)

    def unravel(model: Array) -> Params:
        one = jax.tree.map(lambda leaf: leaf[:1], x)
        return jax.tree.map(lambda leaf: leaf[0], unravel_rows(model[None], one))

    def node(side: tuple[Array, Array, Array, Array, Array]) -> Array:
        row, neighbors, weights, receiver, number = side
        own = vectors.at[row].get(mode="clip")
        others = everyone.at[neighbors].get(mode="clip")
        weights = jnp.where(neighbors < len(everyone), weights, 0).astype(own.dtype)
        draws, lies = jax.random.split(jax.random.fold_in(jax.random.fold_in(stream, number), receiver))
        context = Context(draws, receiver, unravel)
        if attack is not None:
            lying = liar[authors.at[neighbors].get(mode="clip")]
            honest = ~lying | liar.at[receiver].get(mode="clip")
            before = None if state.before is None else state.before.at[row].get(mode="clip")
            victim = Victim(lies, receiver, own, others, weights, honest, rule, context, before)
            others = jnp.where(honest[:, None], others, _told(attack.lie(victim, common), others))
        new = rule.apply(own, others, weights, context)
        enough = 1 + jnp.sum(weights > 0, dtype=jnp.int32) >= rule.least
        new = jnp.where(enough, new, own if waits else jnp.nan)
        new = jnp.where(jnp.any(weights < 0), jnp.nan, new)
        plain = own + jnp.sum(weights[:, None] * (others - own[None]), axis=0)
        return jnp.where(liar.at[receiver].get(mode="clip"), plain, new)

    size = max(1, sides.neighbors.shape[1] * vectors.shape[1] * vectors.dtype.itemsize)
    width = max(1, min(len(sides.receivers), _BATCH_BYTES // (4 * size)))
    return jax.lax.map(node, (*sides, _numbers(event, sides, rows)), batch_size=width)


def _told(lies: Any, others: Array) -> Array:
    """Check what an attack returns."""
    shape = getattr(lies, "shape", None)
    if shape != others.shape:
        kind = type(lies).__name__ if shape is None else f"an array {shape}"
        raise ValueError(f"attack: lie must return a lie for every lane, an array {others.shape}, not {kind}")
    return lies


@recorded("he2022byzantine")
def robust(
    rule: Rule,
    attackers: Sequence[int] = (),
    attack: Attack | None = None,
    *,
    topology: Topology | Sequence[Topology] | None = None,
) -> Sharing:
    """Build robust mixing: every honest node combines its model and those that it hears by a rule.

    ``x_i ← rule(x_i, (y_j), (W_ij))`` over the neighbours j with ``W_ij > 0``, a few nodes at a time: memory does not
    grow with all edges. Runs in rounds on fixed and changing graphs, in groups, on inboxes
    (:func:`~gossipjax.timeline.swift`), and, with :func:`~gossipjax.robust.clipped_gossip` of fixed τ, at meetings and
    on single messages in flight. Packed events have no common state of the network: attacks made from it, spectral and
    ``echo(node)``, need ``packing="sequential"`` there.

    **Inboxes** hold the newest model that has arrived from each neighbour, as old as it is. They are the lanes y_j of
    the rule, beside the node's own present model; a neighbour of whom nothing has arrived is absent, and its weight
    stays with the node. While an inbox holds fewer models than the rule needs, the node keeps its own model if
    ``topology`` says that enough neighbours will be heard, which must be the graph of the plan; else the run ends with
    an error.

    **Attackers** keep their rows and their place in the plan; they train and mix plainly, ``x ← W x``, what they are
    told. An honest receiver hears their lies instead of their models, a lie of its own for every victim. Attackers know
    all models. The lie is made from the state of the event, after the local steps. Bytes are those of honest messages.
    Metrics of a run are only meaningful over honest rows: ``observe.node_metrics(task, nodes=honest)``,
    ``observe.honest_consensus``.

    Call a run robust only with its rule, attack, b and graph.

    Args:
        rule: of :mod:`gossipjax.robust`.
        attackers: nodes that lie, fewer than half of all.
        attack: what they send; None: they are honest, and only ``topology`` is checked without them.
        topology: of the plan, or a list of the graphs that take turns, to check before the run that no honest node
            has too few neighbours for the rule, and that the honest nodes stay connected. It changes a run on inboxes:
            nodes whose inbox holds too few models keep their own. Without it, a node with too few neighbours, or with
            too few models in its inbox, ends the run with an error that names it.

    Raises:
        TypeError: if rule, attack or topology has the wrong type.
        ValueError: attackers that are not distinct nodes, are half of all nodes or more, or cut the honest nodes apart;
            a rule that needs more neighbours than a node has; an attack without attackers, or on one node that is an
            attacker, hears none, or is no node; before a run, inboxes on another graph than ``topology``, or an attack
            on one node that hears no attacker in a plan of one graph (where events differ, that is a warning, see
            :class:`gossipjax.robust.Unreached`; events that are drawn in the run are not looked at); during a run,
            meetings or single messages with a rule that compares several models, fragments, weights below 0, or an
            attack or a rule built for other numbers of nodes.

    Reference: the rules of :mod:`gossipjax.robust` have theirs; the attacker of He, Karimireddy, Jaggi 2022.
    """
    instance("rule", rule, Rule, "build one with gossipjax.robust, such as cs_plus(beta=0.1)")
    nodes = checked_attackers(attackers)
    if attack is not None:
        instance("attack", attack, Attack, "build one with gossipjax.robust, such as alie()")
    if (attack is not None) and not len(nodes):
        raise ValueError("attackers=(): an attack needs at least one attacker; name them, or leave the attack out")
    graph = None if topology is None else check_graphs(topology, rule, nodes)
    if attack is not None:
        check_victim(optional_whole("attack.victim", attack.victim, least=0), nodes, graph)
    num_nodes = rule.num_nodes.value
    if graph is not None:
        if num_nodes not in (None, graph.num_nodes):
            raise ValueError(
                f"rule, topology: are for {num_nodes} and {graph.num_nodes} nodes; build both for one network"
            )
        num_nodes = graph.num_nodes
    if attack is not None and attack.start is not None:
        if num_nodes not in (None, attack.start.num_nodes):
            raise ValueError(
                f"rule, attack: are for {num_nodes} and {attack.start.num_nodes} nodes; build both for one network"
            )
        num_nodes = attack.start.num_nodes
        check_share(nodes, num_nodes)
        attack = attack.start(nodes, num_nodes)
    known = Frozen(tuple(nodes.tolist()))
    remembers = attack is not None and flag("attack.remembers", attack.remembers)
    lies = None if attack is None else _Lies(attack.lie, attack.prepare, Frozen(attack.victim))
    setting = Setting(rule, jnp.asarray(nodes, jnp.int32), known, lies, Frozen(graph is not None))
    checksum = None if graph is None else graph.checksum
    requires = Requires({"own_rows"}, mixing=True, num_nodes=num_nodes, graph=checksum)
    return Sharing(Partial(_init, Frozen(remembers)), Partial(_encode), Partial(_merge, setting), requires)
