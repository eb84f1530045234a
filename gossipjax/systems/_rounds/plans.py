"""Turn planned rounds into the timeline of their learning, and into a plan that holds both."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, PyTree

from gossipjax.facts import Properties, Traffic, true_facts
from gossipjax.mixing._apply import TableMixing
from gossipjax.systems._activity import COMPLETED, Activity
from gossipjax.systems._plan import Plan
from gossipjax.systems._rounds.barrier import Drift
from gossipjax.systems._rounds.clocked import Round, dropped
from gossipjax.systems._rounds.tables import Tables, heard, with_losses
from gossipjax.timeline._events import event_form
from gossipjax.timeline._moments import written_times
from gossipjax.timeline._rounds import rounds as plain_rounds
from gossipjax.types import NOBODY, Event, Timeline


def clocked_plan(
    name: str, timeline: Timeline, rounds: list[Round], pattern: Int[np.ndarray, " r"], length: float
) -> Plan:
    """Make a plan of rounds of one length."""
    sent = np.array([round_.activity.sent_bytes.sum() for round_ in rounds])
    cut = np.array([dropped(round_.activity) for round_ in rounds], np.int64)
    begins = np.arange(pattern.size) * length
    return Plan(
        name=name,
        timeline=timeline,
        end_s=pattern.size * length,
        activities=tuple(round_.activity for round_ in rounds),
        pattern=pattern,
        begin_s=begins,
        round_end_s=begins + length,
        round_bytes=sent[pattern],
        round_dropped=cut[pattern],
        node_round_end_s=np.zeros((0, timeline.properties.num_nodes)),
    )


def drift_plan(name: str, tables: Tables, drift: Drift, size: float) -> Plan:
    """Make a plan of one piece, in which no training and no transfer is lost."""
    (num_rounds, n), period = drift.end_s.shape, len(tables.neighbors)
    ones = [
        Round(r, NOTHING, np.ones(n, bool), heard(tables, r), np.zeros(n, np.int64))
        for r in range(min(period, num_rounds))
    ]
    ends = drift.end_s.max(1)
    made = round_timeline(name, tables, ones, np.arange(num_rounds) % period, ends, False)
    count = np.bincount(drift.round, minlength=num_rounds)
    facts = dataclasses.replace(made.properties, traffic=Traffic(int(count.sum()), int(count.sum())))
    return Plan(
        name=name,
        timeline=dataclasses.replace(made, properties=facts),
        end_s=float(ends[-1]),
        activities=(_drift_activity(drift, size),),
        pattern=np.zeros(1, np.int64),
        begin_s=np.zeros(1),
        round_end_s=ends,
        round_bytes=count * size,
        round_dropped=np.zeros(num_rounds, np.int64),
        node_round_end_s=drift.end_s,
    )


NOTHING = Activity(*(np.zeros(0, kind) for kind in "i4 f8 f8 ? i4 i4 f8 f8 f8 i1 f8 i4".split()))


def _drift_activity(drift: Drift, size: float) -> Activity:
    num_rounds, n = drift.end_s.shape
    nodes = np.tile(np.arange(n, dtype=np.int32), num_rounds)
    trained = drift.trained_s.ravel()
    return Activity(
        training_node=nodes,
        training_start_s=drift.begin_s.ravel(),
        training_end_s=trained,
        training_completed=np.ones(nodes.size, bool),
        sender=drift.sender.astype(np.int32),
        receiver=drift.receiver.astype(np.int32),
        asked_s=drift.asked_s,
        ended_s=drift.ended_s,
        sent_bytes=np.full(drift.sender.size, size),
        state=np.full(drift.sender.size, COMPLETED, np.int8),
        mean_s=drift.end_s.ravel(),
        mean_node=nodes,
    )


def round_timeline(
    name: str,
    tables: Tables,
    rounds: list[Round],
    pattern: Int[np.ndarray, " r"],
    times: Float[np.ndarray, " r"],
    keep: bool,
) -> Timeline:
    """Make the timeline of rounds: who trained, and mixing tables without the models that did not arrive."""
    n = tables.neighbors.shape[1]
    whole = all(round_.trained.all() and not _loses(tables, round_) for round_ in rounds)
    columns = _columns(tables, rounds, whole, keep)
    shared: dict[str, Any] = {"own": np.arange(n, dtype=np.int32)}
    xs = {"index": np.arange(pattern.size, dtype=np.uint32), "time": np.asarray(times, np.float64)}
    if 2 * len(rounds) <= pattern.size:
        shared["rounds"], xs["pattern"] = columns, pattern.astype(np.int32)
    else:
        shared["rounds"] = {}
        xs |= {field: column[pattern] for field, column in columns.items()}
    facts = _facts(name, tables, rounds, pattern, whole)
    return Timeline(xs, jax.tree.map(jnp.asarray, shared), _event, facts, seconds=written_times)


def _loses(tables: Tables, round_: Round) -> bool:
    return bool((heard(tables, round_.table) & ~round_.arrived).any())


def _columns(tables: Tables, rounds: list[Round], whole: bool, keep: bool) -> dict[str, np.ndarray]:
    """Write out the distinct rounds, ``(patterns, n, ...)``."""
    mixed = [with_losses(tables, round_.table, round_.arrived, keep) for round_ in rounds]
    columns = {name: np.stack([fields[name] for fields in mixed]) for name in mixed[0]}
    kind = jnp.result_type(float)
    columns |= {name: columns[name].astype(kind) for name in columns if name != "neighbors"}
    if not whole:
        nodes = np.arange(tables.neighbors.shape[1], dtype=np.int32)
        columns["nodes"] = np.stack([np.where(round_.trained, nodes, NOBODY) for round_ in rounds]).astype(np.int32)
        columns["messages"] = np.stack([round_.asked for round_ in rounds]).astype(np.uint32)
    return columns


def _event(key: Key[Array, ""], shared: PyTree, x: PyTree) -> Event:
    """Read a round off the plan, or off the pattern that it follows; without weights, means are plain."""
    del key
    own, field = shared["own"], x
    if shared["rounds"]:
        field = jax.tree.map(lambda a: jax.lax.dynamic_index_in_dim(a, x["pattern"], keepdims=False), shared["rounds"])
    neighbors = field["neighbors"]
    if "weights" in field:
        mixing = TableMixing(neighbors, field["weights"], field["self_weight"])
    else:
        live = neighbors != own[:, None]
        share = 1.0 / (1.0 + live.sum(1).astype(jnp.result_type(float)))
        mixing = TableMixing(neighbors, jnp.where(live, share[:, None], jnp.zeros_like(share)[:, None]), share)
    nodes = field.get("nodes")
    shape = (1,) if nodes is None else nodes.shape
    index, time = (jnp.broadcast_to(x[name], shape) for name in ("index", "time"))
    time = time.astype(jnp.float32)
    return Event(index=index, time=time, nodes=nodes, mixing=mixing, messages=field.get("messages"))


def first_round(tables: Tables) -> Event:
    """Make the form of the event of the first round, in which everybody trains and all messages arrive."""
    n = tables.neighbors.shape[1]
    everything = Round(0, NOTHING, np.ones(n, bool), heard(tables, 0), np.zeros(n, np.int64))
    timeline = round_timeline(
        "a round", tables._replace(matrices=()), [everything], np.zeros(1, np.int64), np.ones(1), False
    )
    return event_form(timeline)


def _facts(name: str, tables: Tables, rounds: list[Round], pattern: np.ndarray, whole: bool) -> Properties:
    n = tables.neighbors.shape[1]
    asked = np.array([int(round_.asked.sum()) for round_ in rounds])[pattern].sum()
    cut = np.array([dropped(round_.activity) for round_ in rounds])[pattern].sum()
    traffic = Traffic(int(asked), int(asked - cut), dropped=int(cut))
    words = f"table: {tables.neighbors.shape[2]} neighbours of {n} nodes"
    if whole and tables.matrices:
        facts = plain_rounds(list(tables.matrices), len(pattern), form="table").properties
        return dataclasses.replace(facts, name=name, traffic=traffic, messages=words)
    tags = true_facts({"synchronous": whole, "own_rows": True, "row_stochastic": True})
    return Properties(n, n, name, tags, traffic=traffic, messages=words)
