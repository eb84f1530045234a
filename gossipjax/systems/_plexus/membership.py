"""Nodes that come and go: joins, graceful departures, crashes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gossipjax.systems._kernel.loop import cut_all
from gossipjax.systems._plexus import views as beliefs
from gossipjax.systems._plexus.find import close
from gossipjax.systems._plexus.handlers import abort, drop, on_acknowledged
from gossipjax.systems._plexus.history import GONE
from gossipjax.systems._plexus.sizes import AGG_ACK, JOIN, LEAVE, TRAINED
from gossipjax.systems._plexus.state import (
    Simulation,
    order_of,
    round_estimate,
    send,
)

ANNOUNCED = 10
"""A join or leave is told to this many nodes for each member of a sample."""


def come_online(sim: Simulation, node: int) -> None:
    """Join: announce it to nodes drawn from all, because the own view is stale."""
    if sim.kernel.online[node]:
        return
    sim.kernel.online[node] = True
    _note_online(sim, node, 1)
    _announce(sim, node, JOIN)


def go_offline(sim: Simulation, node: int) -> None:
    """Leave: stop all work and transfers; if gracefully, tell those that wait, and random nodes believed active.

    A crash is the same without any message.
    """
    if not sim.kernel.online[node]:
        return
    told = _concerned(sim, node) if sim.settings.membership.departures == "graceful" else {}
    abort(sim, node, GONE)
    for search in list(sim.searches[node]):
        close(sim, search)
    for aggregation in list(sim.aggregations[node].values()):
        drop(sim, aggregation)
    cut_all(sim.kernel, node)
    for round_, nodes in sorted(told.items()):
        for other in sorted(nodes):
            send(sim, AGG_ACK, node, other, on_acknowledged, round_ - 1, False)
    if sim.settings.membership.departures == "graceful":
        _announce(sim, node, LEAVE)
    sim.pending[node].clear()
    sim.kernel.online[node] = False
    _note_online(sim, node, -1)


def _concerned(sim: Simulation, node: int) -> dict[int, set[int]]:
    """Who counts on an aggregator, by round: senders so far, current uploaders, the sample whose trainings it averages.

    A node is the aggregator of a round from the first upload that begins, not only from the first that is complete.
    """
    found = {round_: set(aggregation.models) for round_, aggregation in sim.aggregations[node].items()}
    for number in sim.kernel.moving[node]:
        *_, (_, upload) = sim.kernel.deliveries[number]
        round_ = upload.content[0]
        if upload.kind == TRAINED and upload.receiver == node and round_ not in sim.finished[node]:
            found.setdefault(round_, set()).add(upload.sender)
    for round_, nodes in found.items():
        nodes.update(order_of(sim, node, round_ - 1)[: sim.settings.sample_size])
        nodes.discard(node)
    return found


def _announce(sim: Simulation, node: int, kind: int) -> None:
    """Send MEMBERSHIP to ten nodes for each member of a sample, with the counter before it is increased."""
    counter, settings = sim.counters[node], sim.settings
    sim.counters[node] += 1
    others: Sequence[int] = range(settings.num_nodes - 1)  # 0, 1, …, without this node, which is skipped below
    round_ = round_estimate(sim, node)
    if sim.views is not None:
        if kind == LEAVE:
            active = beliefs.active_nodes(sim.views, node, round_, settings.membership.activity_window)
            others = np.where(active < node, active, active - 1)[active != node].tolist()
        beliefs.note(sim.views, node, node, -1, 2 * counter + (kind == LEAVE))
    for other in sim.rng.sample(others, min(ANNOUNCED * settings.sample_size, len(others))):
        other += other >= node
        send(sim, kind, node, other, _on_join if kind == JOIN else _on_leave, round_, counter)


def _on_join(sim: Simulation, node: int, sender: int, round_: int, counter: int) -> None:
    """Store a join, which takes effect after the next model message of this node."""
    latest = max(round_, round_estimate(sim, node))
    sim.pending[node][sender] = latest, 2 * counter


def _on_leave(sim: Simulation, node: int, sender: int, round_: int, counter: int) -> None:
    """Handle a departure, which takes effect at once."""
    if sim.views is None:
        return
    beliefs.note(sim.views, node, sender, max(round_, round_estimate(sim, node)), 2 * counter + 1)


def _note_online(sim: Simulation, node: int, change: int) -> None:
    if sim.views is not None:
        sim.views.changed.add(node)
    sim.record.online.append((sim.kernel.now, sim.record.online[-1][1] + change))
