"""Synchronous systems on devices: D-PSGD, its variants and Epidemic Learning, in rounds with a clock or a barrier."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np

from gossipjax._base.arguments import choice, flag, whole
from gossipjax._base.arguments import seed as checked_seed
from gossipjax._base.calls import recorded
from gossipjax._base.memory import check_memory
from gossipjax.devices import Devices
from gossipjax.systems._kernel.bandwidth import Bandwidth, capacities
from gossipjax.systems._kernel.machines import Machines, checked_system, train_seconds_of
from gossipjax.systems._plan import Plan, assuming
from gossipjax.systems._rounds.barrier import barrier_rounds
from gossipjax.systems._rounds.clocked import Learning, clocked_rounds
from gossipjax.systems._rounds.plans import clocked_plan, drift_plan, first_round, round_timeline
from gossipjax.systems._rounds.tables import Tables, Weights, local_tables, oracle_tables, tables_of
from gossipjax.systems._workload import Workload, workload
from gossipjax.types import Protocol


@recorded("lian2017dpsgd")
def synchronous(
    devices: Devices | Machines,
    weights: Weights,
    num_rounds: int,
    *,
    learner: Protocol | None = None,
    local_steps: int | None = None,
    model_bytes: int | None = None,
    time_batch: int = 1,
    round_seconds: int | float | None = 60.0,
    bandwidth: Bandwidth = "greedy",
    missing: Literal["renormalize", "keep"] = "renormalize",
    overlap: bool = True,
) -> Plan:
    """Plan D-PSGD on devices: in every round each node trains, sends its model to its neighbours, and averages.

    Training takes node i c_i = 3 E b s_i seconds (s_i a sample), a model its bytes over the bandwidth. Round t uses
    ``weights[t mod p]``, ``x_i ← Σ_j W_ij x_j`` over the own model and those that have come:

    * with ``round_seconds``, rounds begin together at the ticks of a clock. At the next tick a training that is not
      done is lost, its node averages the model that it had and has sent nothing; transfers under way are cut. A node
      that is offline at the tick sits the round out; one that goes offline in it loses an unfinished training, its
      transfers both ways are cut, and it takes no mean.
    * with None, a node goes on when it has trained and all that it hears of is in, so nodes drift apart and nothing is
      lost; without ``overlap``, all that it sends must be out, too. A node that is offline begins its next round when
      it comes back, and those who hear of it wait; what it has begun goes on. The event of a round has the time at
      which its last node is done.

    Run :func:`gossipjax.dpsgd` or :func:`gossipjax.local_sgd` with E local steps on ``plan.timeline``: messages of
    another size or another number of local steps are refused, as they are on the plans of all systems.

    >>> from gossipjax import devices, systems, topology
    >>> plan = systems.synchronous(devices.uniform(8), topology.ring(8), 3, local_steps=5, model_bytes=340_000)
    >>> plan.round_end_s.tolist(), plan.total_bytes(180.0)
    ([60.0, 120.0, 180.0], 16320000.0)

    Args:
        devices: of n nodes.
        weights: mixing matrix ``(n, n)`` with rows that sum to one, or a cycle of them; or topologies, for the plain
            mean of the own model and those received.
        num_rounds: T ≥ 1.
        learner: the protocol that will run on the plan, instead of ``local_steps`` and ``model_bytes``, which are then
            read off it; see :func:`gossipjax.systems.plexus`.
        local_steps: E.
        model_bytes: of one message.
        time_batch: b, samples of a step in the training time.
        round_seconds: of a clocked round; None: barriers.
        bandwidth: how it is shared, see :func:`gossipjax.systems.plexus`. Where no capacity is exceeded all
            agree, and a thousand rounds of a thousand nodes are planned in a second; else some 10⁵ messages a second.
            Clocked rounds that go alike are planned once.
        missing: who takes the weight of models that did not come: all that did, in proportion, or the own one.
        overlap: whether a node goes on while it still sends; False needs ``round_seconds=None``.

    Raises:
        ValueError: settings out of range, weights that do not fit, or with barriers a node that never comes back.

    Reference: Lian et al. 2017, arXiv 1705.09056; the clock of Dhasade et al. 2025, arXiv 2503.05509.
    """
    given = checked_system(
        devices, time_batch=time_batch, bandwidth=bandwidth, num_rounds=num_rounds, round_seconds=round_seconds
    )
    choice("missing", missing, ("renormalize", "keep"))
    if not flag("overlap", overlap) and round_seconds is not None:
        raise ValueError(
            f"overlap=False, round_seconds={round_seconds:g}: the next round begins at the tick, whoever still sends; "
            "pass round_seconds=None"
        )
    tables = tables_of(weights, given.seconds_per_sample.size)
    load = _load(learner, model_bytes, local_steps, tables)
    learning = _learning(given, load, time_batch, bandwidth)._replace(overlap=overlap)
    rounds = _Rounds(f"synchronous, {_weights_name(tables)}", tables, num_rounds, round_seconds, missing == "keep")
    return _plan(given, learning, rounds, load)


@recorded("devos2023epidemic")
def epidemic(
    devices: Devices | Machines,
    fanout: int,
    num_rounds: int,
    *,
    variant: Literal["oracle", "local"] = "local",
    learner: Protocol | None = None,
    local_steps: int | None = None,
    model_bytes: int | None = None,
    time_batch: int = 1,
    round_seconds: int | float | None = 60.0,
    bandwidth: Bandwidth = "greedy",
    seed: int,
) -> Plan:
    """Plan Epidemic Learning on devices: recipients are drawn anew in each round.

    ``x_i ← (x_i + Σ_{j ∈ R_i} x_j)/(1 + |R_i|)`` over the models that came. EL-Local: each node sends to s uniform
    others, so that without losses |R_i| is Binomial(n − 1, s/(n − 1)). EL-Oracle: R_i are the neighbours in a fresh
    random s-regular graph. With barriers a node knows how many models to wait for, as if those who do not choose it
    said so at no cost.

    Args:
        devices: of n nodes.
        fanout: s, 1 ≤ s ≤ n − 1; at least 2 for the oracle, whose graphs are connected.
        num_rounds: T ≥ 1.
        variant: which.
        learner: the protocol that will run on the plan, instead of ``local_steps`` and ``model_bytes``, which are then
            read off it; see :func:`gossipjax.systems.plexus`.
        local_steps: E.
        model_bytes: of one message.
        time_batch: b, samples of a step in the training time.
        round_seconds: of a clocked round; None: barriers.
        bandwidth: how it is shared.
        seed: of the NumPy generator that draws recipients.

    Raises:
        ValueError: settings out of range.

    Reference: de Vos et al. 2023, arXiv 2310.01972.
    """
    given = checked_system(
        devices, time_batch=time_batch, bandwidth=bandwidth, num_rounds=num_rounds, round_seconds=round_seconds
    )
    n = given.seconds_per_sample.size
    choice("variant", variant, ("oracle", "local"))
    least = 2 if variant == "oracle" else 1
    fanout = whole("fanout", fanout, least=least, most=n - 1, remedy=f"among the others of {n} nodes")
    if variant == "oracle" and fanout * n % 2:
        raise ValueError(f"fanout={fanout}: no graph of {n} nodes has this degree; take an even number")
    seed = checked_seed(seed)
    lanes = fanout + 5 * fanout**0.5 + 5  # the busiest receiver's, about
    what = f"num_rounds={num_rounds}, fanout={fanout}: the recipients of {n} nodes"
    check_memory(what, 12.0 * n * n + 12.0 * num_rounds * n * lanes, "plan fewer rounds, or fewer nodes")
    draw = local_tables if variant == "local" else oracle_tables
    tables = draw(n, fanout, num_rounds, np.random.default_rng(seed))
    load = _load(learner, model_bytes, local_steps, tables)
    learning = _learning(given, load, time_batch, bandwidth)
    rounds = _Rounds(f"epidemic {variant}, fanout {fanout}, seed={seed}", tables, num_rounds, round_seconds, False)
    return _plan(given, learning, rounds, load)


def _weights_name(tables: Tables) -> str:
    count = len(tables.matrices)
    kind = "plain means" if tables.weights is None else "given W"
    return f"{kind}{'' if count == 1 else f', cycle of {count}'}"


def _check_memory(devices: Machines, tables: Tables, num_rounds: int, round_seconds) -> None:
    """Estimate the size of the plan: each message of each distinct round, and a few numbers per round."""
    period, n, lanes = tables.neighbors.shape
    regular = round_seconds is not None and devices.online.all()
    if regular and not len(devices.transitions(float(num_rounds) * round_seconds)[0]):
        different = min(period, num_rounds)
    else:
        different = num_rounds
    num_bytes = 100.0 * num_rounds + 150.0 * different * n * (1 + lanes)
    check_memory(f"num_rounds={num_rounds}: a plan for {n} nodes", num_bytes, "plan fewer rounds, or fewer nodes")


class _Rounds(NamedTuple):
    """Which rounds are planned."""

    name: str
    tables: Tables
    num_rounds: int
    round_seconds: int | float | None
    keep: bool
    """The own model takes the weight of what is missing."""


def _load(learner: Any, model_bytes: Any, local_steps: Any, tables: Tables) -> Workload:
    return workload(
        learner,
        model_bytes=model_bytes,
        local_steps=local_steps,
        num_nodes=tables.neighbors.shape[1],
        made_for="D-PSGD",
        example=partial(first_round, tables),
    )


def _learning(devices: Machines, load: Workload, time_batch: int, bandwidth: Bandwidth) -> Learning:
    return Learning(
        train_seconds_of(devices, load.local_steps, time_batch),
        float(load.message_bytes),
        bandwidth,
        capacities(devices.upload_bytes_per_second, devices.download_bytes_per_second),
    )


def _plan(devices: Machines, learning: Learning, rounds: _Rounds, load: Workload) -> Plan:
    tables, num_rounds, length = rounds.tables, rounds.num_rounds, rounds.round_seconds
    _check_memory(devices, tables, num_rounds, length)
    form = "barriers" if length is None else f"rounds of {length:g} s"
    nodes, transfers = learning.train_seconds.size, f"{learning.bandwidth} transfers"
    name = f"{rounds.name}: {nodes} nodes, {form}, {transfers} of {load.message_bytes:,} bytes"
    if length is None:
        drift = barrier_rounds(tables, devices, num_rounds, learning)
        plan = drift_plan(name, tables, drift, learning.message_bytes)
    else:
        found, pattern = clocked_rounds(tables, devices, num_rounds, learning, round_seconds=float(length))
        times = (np.arange(num_rounds) + 1.0) * float(length)
        made = round_timeline(name, tables, found, pattern, times, rounds.keep)
        plan = clocked_plan(name, made, found, pattern, float(length))
    return dataclasses.replace(plan, timeline=assuming(plan.timeline, load))
