"""Properties of timelines and version counters: messages are conserved, and versions never decrease."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key

from gossipjax.facts import Traffic
from gossipjax.mixing._apply import PairMixing
from gossipjax.protocol import gossip_averaging, push_sum
from gossipjax.testing._runs import Arrays, events, history
from gossipjax.types import Event, Protocol, Timeline
from gossipjax.wrappers._versions import track_versions


class _Counters(NamedTuple):
    """Version counters of every event, first axis T."""

    before: Any
    """N_i^j before the event, ``(T, rows, n)``."""
    acted: Any
    """The same after the local updates, before the mixing."""
    after: Any
    own_before: Any
    own: Any


def check_staleness_rules(
    timeline: Timeline,
    protocol: Protocol | None = None,
    x0: Arrays | None = None,
    *,
    key: Key[Array, ""] | None = None,
) -> None:
    """Assert the rules of version counters N_i^j (source i, holder j) after every event.

    * ``N_i^i`` grows by one with every local update of i, and never otherwise; row i holds it;
    * ``0 ≤ N_i^j ≤ N_i^i``, so that the staleness S = N_i^i − N_i^j is never negative;
    * N^j never decreases if j keeps a part of its model;
    * after a transfer k → j: N^j ≥ N^k in every column (if events name ``sources``, in the column that it carries);
    * versions come from transfers only: N^j is at most the largest version that j or one of its senders held.

    >>> from gossipjax import timeline, topology
    >>> check_staleness_rules(timeline.poisson_push(topology.ring(4), 20, seed=0))

    Args:
        timeline: T events on rows that are nodes, and messages in flight.
        protocol: the protocol to check; wrapped in :func:`gossipjax.track_versions` for all nodes unless it tracks
            versions already. None: gossip averaging, or push-sum if rows do not sum to one.
        x0: stacked start parameters; None: one number per row.
        key: of the run; None: always the same.

    Raises:
        AssertionError: if a rule is broken; states the event, the two nodes, the versions, the rule and the excess.
        ValueError: if the rows of the timeline are not nodes, or the protocol does not track all nodes.
    """
    facts = timeline.properties
    if facts.num_rows != facts.num_nodes:
        raise ValueError(f"{facts.name} has {facts.num_rows} rows for {facts.num_nodes} nodes: rows must be the nodes")
    if protocol is None:
        protocol = gossip_averaging() if "row_stochastic" in facts else push_sum()
    if protocol.versions is None:
        protocol = track_versions(protocol, num_nodes=facts.num_nodes)
    run = history(protocol, timeline, jnp.zeros(facts.num_rows) if x0 is None else x0, key=key)
    if run.own.shape[1] != facts.num_nodes:
        raise ValueError(f"{run.own.shape[1]} sources of {facts.num_nodes} nodes are tracked: track all of them")
    event, W = events(timeline, key)
    found = _counters(run.held, run.own, event)
    _check_own(found, event, facts.name)
    _check_range(found, facts.num_nodes, facts.name)
    if W is not None:
        for t in range(len(W)):
            _check_transfers(found, event, W[t], t, facts)


def _counters(held: Int[np.ndarray, "T rows n"], own: Int[np.ndarray, "T n"], event: Any) -> _Counters:
    held, own = held.astype(np.int64), own.astype(np.int64)
    before, own_before = (np.concatenate([np.zeros_like(a[:1]), a[:-1]]) for a in (held, own))
    acted, nodes = before.copy(), np.arange(own.shape[1])
    acted[:, nodes, nodes] = own
    if event.rows is not None:  # after an update of a copy, the message row that holds it is newer, not the own model
        t, lane = np.nonzero((event.nodes < len(nodes)) & (event.rows < held.shape[1]))
        node = np.asarray(event.nodes)[t, lane]
        acted[t, np.asarray(event.rows)[t, lane], node] = own[t, node]
    return _Counters(before, acted, held, own_before, own)


def _check_own(found: _Counters, event: Event, name: str) -> None:
    total, n = found.own.shape
    updates = np.ones((total, n), np.int64)
    if event.nodes is not None:
        updates = np.zeros((total, n + 1), np.int64)
        np.add.at(updates, (np.arange(total)[:, None], np.minimum(event.nodes, n)), 1)
        updates = updates[:, :n]
    wrong = np.argwhere(found.own - found.own_before != updates)
    if wrong.size:
        t, i = wrong[0]
        raise AssertionError(
            f"node {i}'s own version goes from {found.own_before[t, i]} to {found.own[t, i]} in event {t} of {name}, "
            f"in which it makes {updates[t, i]} local updates; only these change it: off by "
            f"{found.own[t, i] - found.own_before[t, i] - updates[t, i]:+d}"
        )
    held = np.diagonal(found.after, axis1=1, axis2=2)
    wrong = np.argwhere(held != found.own)
    if wrong.size:
        t, i = wrong[0]
        raise AssertionError(
            f"node {i} holds version {held[t, i]} of itself after event {t} of {name}, its own is {found.own[t, i]}; "
            f"they must be equal: off by {held[t, i] - found.own[t, i]:+d}"
        )


def _check_range(found: _Counters, num_nodes: int, name: str) -> None:
    models = found.after[:, :num_nodes]
    too_new, negative = found.after > found.own[:, None], models < 0
    if too_new.any():
        t, j, i = np.argwhere(too_new)[0]
        raise AssertionError(
            f"row {j} holds version {found.after[t, j, i]} of node {i} after event {t} of {name}, which is at "
            f"{found.own[t, i]}; N_i^j ≤ N_i^i: staleness {found.own[t, i] - found.after[t, j, i]}"
        )
    if negative.any():
        t, j, i = np.argwhere(negative)[0]
        raise AssertionError(
            f"row {j} holds version {models[t, j, i]} of node {i} after event {t} of {name}; N_i^j ≥ 0: off by "
            f"{models[t, j, i]}"
        )


def _check_transfers(found: _Counters, event: Event, W: np.ndarray, t: int, facts: Any) -> None:
    acted, after, given = found.acted[t], found.after[t], W != 0
    rows = np.arange(len(W))
    for j in rows[: facts.num_nodes][given.diagonal()[: facts.num_nodes]]:
        _require_newer(after[j], acted[j], f"row {j}", f"N^{j} never decreases", t, facts.name)
    for j, k, only in _transfers(event, given, t):
        columns = slice(None) if only is None else slice(only, only + 1)
        rule = f"N^{j} ≥ N^{k} after a transfer {k} → {j}"
        _require_newer(after[j, columns], acted[k, columns], f"row {j}", rule, t, facts.name, only or 0)
    most = np.where(given[:, :, None], acted[None], -1).max(axis=1)
    most[: facts.num_nodes][np.diag_indices(facts.num_nodes)] = found.own[t]
    invented = np.argwhere(after > most)
    if invented.size:
        j, i = invented[0]
        raise AssertionError(
            f"row {j} holds version {after[j, i]} of node {i} after event {t} of {facts.name}, but neither it nor "
            f"those who gave to it held more than {most[j, i]}; versions come from transfers only: off by "
            f"{after[j, i] - most[j, i]:+d}"
        )


def _transfers(event: Event, given: np.ndarray, t: int) -> list[tuple[int, int, int | None]]:
    """List receiver, sender, and the only node whose version the transfer carries (None: all)."""
    if event.sources is None or not isinstance(event.mixing, PairMixing):
        return [(int(j), int(k), None) for j, k in np.argwhere(given) if j != k]
    lanes = zip(event.mixing.receivers[t], event.mixing.senders[t], event.sources[t], strict=True)
    columns = given.shape[0]
    live = [(int(j), int(k), int(i)) for j, k, i in lanes if j < columns and k < columns]
    return [(j, k, i) for j, k, i in live if j != k and given[j, k] and i < columns]


def _require_newer(found: Any, least: Any, who: str, rule: str, t: int, name: str, first: int = 0) -> None:
    older = np.flatnonzero(found < least)
    if older.size:
        i = older[0]
        raise AssertionError(
            f"{who} holds version {found[i]} of node {i + first} after event {t} of {name}; {rule}, which is "
            f"{least[i]}: short by {least[i] - found[i]}"
        )


def check_message_conservation(timeline: Timeline) -> None:
    """Assert that the events of a plan agree with its message counts.

    * sent = delivered + dropped + overflow + superseded + in flight, none of them negative;
    * if events are transfers (not groups) with ``messages``: their total equals the number sent;
    * if events are transfers and messages have rows: a row is read only after it was written, the number of writes is
      delivered + in flight, and the number of reads is delivered.

    >>> from gossipjax.timeline import push_gossip
    >>> check_message_conservation(push_gossip(5, 9.0, compute=None, gossip=1.0, latency=0.5, drop=0.2, seed=0))

    Args:
        timeline: a complete timeline of a planner, with ``properties.traffic``.

    Raises:
        AssertionError: if a rule is broken; states the counts, the rule and the difference.
        ValueError: if the timeline has no ``properties.traffic``.
    """
    facts = timeline.properties
    if (counts := facts.traffic) is None:
        raise ValueError(f"{facts.name} keeps no account of its messages: properties.traffic is None")
    _check_balance(counts, facts.name)
    event: Any = events(timeline)[0]
    if not isinstance(event.mixing, PairMixing):
        return
    if event.messages is not None:
        _require_equal(int(event.messages.sum()), counts.sent, "messages leave in the events", "sent", facts.name)
    if not facts.num_slots:
        return
    last = facts.num_rows + facts.num_slots
    senders, receivers = np.asarray(event.mixing.senders), np.asarray(event.mixing.receivers)
    live = (senders < last) & (receivers < last)
    put, read = live & (receivers >= facts.num_rows), live & (senders >= facts.num_rows)
    _check_reads(event.mixing, put, read, facts)
    kept = counts.delivered + counts.in_flight
    _require_equal(int(put.sum()), kept, "messages are put into rows", "delivered or in flight", facts.name)
    _require_equal(int(read.sum()), counts.delivered, "messages are read from rows", "delivered", facts.name)


def _check_balance(counts: Traffic, name: str) -> None:
    fates = (counts.delivered, counts.dropped, counts.overflow, counts.superseded, counts.in_flight)
    if min(counts.sent, *fates) < 0:
        raise AssertionError(f"{name} counts {min(counts.sent, *fates)} messages in {counts}; no count is negative")
    if counts.sent != sum(fates):
        raise AssertionError(
            f"{name} sends {counts.sent} messages, but {sum(fates)} are delivered, dropped, lost to a full inbox, "
            f"superseded or in flight; every message has one fate: off by {sum(fates) - counts.sent:+d}"
        )


def _require_equal(found: int, expected: int, what: str, of: str, name: str) -> None:
    if found != expected:
        raise AssertionError(
            f"{found} {what} of {name}, and {expected} are {of} by its account; both must be equal: off by "
            f"{found - expected:+d}"
        )


def _check_reads(mixing: Any, put: np.ndarray, read: np.ndarray, facts: Any) -> None:
    """Check that no message row is read before it is written; an event reads all rows before it writes the first."""
    first_put = np.full(facts.num_rows + facts.num_slots, len(put))
    t, lane = np.nonzero(put)
    np.minimum.at(first_put, mixing.receivers[t, lane], t)
    t, lane = np.nonzero(read)
    early = np.flatnonzero(t <= first_put[mixing.senders[t, lane]])
    if early.size:
        at, row = int(t[early[0]]), int(mixing.senders[t, lane][early[0]])
        raise AssertionError(
            f"event {at} of {facts.name} reads a message from row {row}, where the first is put in event "
            f"{int(first_put[row])} of {len(put)}; a message is read after it is sent: {int(first_put[row]) - at} "
            "events too early"
        )
