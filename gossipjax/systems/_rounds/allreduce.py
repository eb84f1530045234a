"""All-reduce on devices: every round ends in the exact mean, computed around a ring."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, PyTree

from gossipjax._base.arguments import reals
from gossipjax._base.calls import recorded
from gossipjax._base.memory import check_memory
from gossipjax.devices import Devices
from gossipjax.facts import Properties
from gossipjax.mixing._apply import GroupMixing
from gossipjax.systems._activity import COMPLETED, Activity
from gossipjax.systems._kernel.bandwidth import capacities
from gossipjax.systems._kernel.exchange import alone_rates
from gossipjax.systems._kernel.machines import Machines, checked_system, train_seconds_of
from gossipjax.systems._plan import Plan, assuming
from gossipjax.systems._rounds.clocked import Round
from gossipjax.systems._rounds.plans import clocked_plan
from gossipjax.systems._workload import workload
from gossipjax.timeline._events import event_form
from gossipjax.timeline._moments import written_times
from gossipjax.types import Event, Protocol, Timeline


@recorded("patarasuk2009allreduce")
def allreduce(
    devices: Devices | Machines,
    num_rounds: int,
    *,
    learner: Protocol | None = None,
    local_steps: int | None = None,
    model_bytes: int | None = None,
    time_batch: int = 1,
) -> Plan:
    """Plan local SGD with an exact mean in each round, by a ring all-reduce: ``x_i ← Σ_j x_j / n``.

    When a node has trained it sends n-ths of the model to the next node of the ring, 2 (n − 1) of them, each after the
    one that it needs has come: transfer m of node i has left at
    ``b_i(m) = max(b_i(m − 1), b_{i−1}(m − 1) + L_{i−1,i}) + M/(n min(u_i, d_{i+1}))`` and arrives L_{i,i+1} later, the
    first leaves at c_i plus the second term. Each node has one transfer each way at any time. A round begins when all
    have arrived; everybody must be online always.

    Run :func:`gossipjax.local_sgd` (or ``fedavg``) with E local steps on ``plan.timeline``, or ``allreduce_sgd`` for
    E = 1.

    Args:
        devices: of n ≥ 2 nodes.
        num_rounds: T ≥ 1.
        learner: the protocol that will run on the plan, instead of ``local_steps`` and ``model_bytes``, which are then
            read off it; see :func:`gossipjax.systems.plexus`.
        local_steps: E.
        model_bytes: M.
        time_batch: b, samples of a step in the training time.

    Raises:
        ValueError: settings out of range, or nodes that are offline at times.

    Reference: Patarasuk and Yuan 2009, Bandwidth optimal all-reduce algorithms for clusters of workstations.
    """
    given = checked_system(devices, time_batch=time_batch, num_rounds=num_rounds)
    n = given.seconds_per_sample.size
    if n < 2:
        raise ValueError(f"devices of {n} node: an all-reduce needs at least two")
    load = workload(
        learner,
        model_bytes=model_bytes,
        local_steps=local_steps,
        num_nodes=n,
        made_for="local SGD",
        example=lambda: event_form(_averaging(n, 1, 1.0, "one round")),
    )
    size = load.message_bytes
    check_memory(f"num_rounds={num_rounds}: a plan", 100.0 * num_rounds + 200.0 * n, "plan fewer rounds")
    train_seconds = train_seconds_of(given, load.local_steps, time_batch)
    limits = capacities(given.upload_bytes_per_second, given.download_bytes_per_second)
    nodes = np.arange(n, dtype=np.int32)
    chunk = size / n / alone_rates(nodes, (nodes + 1) % n, limits)
    latency = reals("delay", given.latency_seconds(nodes, (nodes + 1) % n), least=0, unit="seconds")
    ends = train_seconds + chunk
    for _ in range(2 * (n - 1) - 1):
        ends = np.maximum(ends, np.roll(ends + latency, 1)) + chunk
    arrivals = ends + latency
    length = float(arrivals.max())
    if not given.online.all() or len(given.transitions(length * num_rounds)[0]):
        raise ValueError("devices: a node is offline at times, and an all-reduce needs all; leave availability out")
    activity = Activity(
        training_node=nodes,
        training_start_s=np.zeros(n),
        training_end_s=train_seconds,
        training_completed=np.ones(n, bool),
        sender=nodes,
        receiver=((nodes + 1) % n).astype(np.int32),
        asked_s=train_seconds,
        ended_s=ends,
        sent_bytes=np.full(n, 2 * (n - 1) / n * size),
        state=np.full(n, COMPLETED, np.int8),
        mean_s=np.roll(arrivals, 1),
        mean_node=nodes,
    )
    rounds = Round(0, activity, np.ones(n, bool), np.ones((n, 1), bool), np.ones(n, np.int64))
    name = f"all-reduce over a ring of {n}"
    timeline = assuming(_averaging(n, num_rounds, length, name), load)
    return clocked_plan(name, timeline, [rounds], np.zeros(num_rounds, np.int64), length)


def _averaging(n: int, num_rounds: int, length: float, name: str) -> Timeline:
    """Make rounds that end in the exact mean."""
    xs = {
        "index": np.arange(num_rounds, dtype=np.uint32),
        "time": (np.arange(num_rounds) + 1.0) * length,
    }
    everyone = np.arange(n, dtype=np.int32)[None]
    shared = {"members": everyone, "weights": np.full((1, n), 1 / n)}
    facts = Properties(
        n,
        n,
        name,
        tags={
            "fixed",
            "synchronous",
            "own_rows",
            "symmetric",
            "doubly_stochastic",
            "row_stochastic",
            "column_stochastic",
            "averages",
        },
        min_eigenvalue=0.0,
        messages="group: the mean of all",
    )
    return Timeline(xs, jax.tree.map(jnp.asarray, shared), _average, facts, seconds=written_times)


def _average(key: Key[Array, ""], shared: PyTree, x: PyTree) -> Event:
    del key
    mixing = GroupMixing(shared["members"], shared["weights"], shared["members"])
    return Event(index=x["index"][None], time=x["time"].astype(jnp.float32)[None], mixing=mixing, allreduce=())
