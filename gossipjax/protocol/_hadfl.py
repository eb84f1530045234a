"""HADFL: local training at each device's own speed, partial rings, and mergers of broadcast means."""

from __future__ import annotations

import optax
from jax.tree_util import Partial

from gossipjax._base.binding import as_task
from gossipjax._base.calls import recorded
from gossipjax.facts import Requires
from gossipjax.protocol._dpsgd import dpsgd
from gossipjax.types import Protocol, Task


@recorded("cao2021hadfl")
def hadfl(task: Task, optimizer: optax.GradientTransformation | Partial, *, local_steps: int) -> Protocol:
    """Build the learning of HADFL, for a plan of :func:`gossipjax.systems.hadfl`.

    What happens when, the plan says. What it does to the models::

        unit of device i:     x_i ← x_i + Σ_h u_h,  u_h = optimizer(g_i), H steps
        unit with a merger:   the same, then x_i ← (1 − β) x_i + β x̄       x̄ the mean that was broadcast
        ring of the set S:    x_i ← x̄ = Σ_{j ∈ S} x_j / |S|                for i in S; row n keeps x̄
        recovery:             x_i ← x̄

    A ring conserves the sum of its members' models. With equal speeds and all devices in the ring it is decentralized
    FedAvg: :func:`gossipjax.local_sgd` with an exact mean.

    The small learning rate of the paper's warm-up is a schedule: it counts a device's own steps, of which the plan's
    ``cycle.warmup_units`` units are the first, such as ``optax.sgd(optax.join_schedules([optax.constant_schedule(1e-3),
    optax.constant_schedule(1e-2)], [local_steps]))``.

    Args:
        task: one shard per device.
        optimizer: any optax transformation, or a Partial of one; its state stays with the device.
        local_steps: H ≥ 1, of one unit.

    Raises:
        TypeError: what is no task or no optimizer.
        ValueError: local_steps < 1; when run, the plan of another system.

    Reference: Cao, Lian, Liu, Zhu, Ji 2021, arXiv 2111.08274, of which the abstract and secondary sources were at hand.
    """
    requires = Requires(
        {"row_stochastic", "rings"},
        mixing=True,
        num_nodes=as_task(task).num_nodes,
        local_steps=local_steps,
        made_for="HADFL",
        builder="systems.hadfl",
    )
    return dpsgd(task, optimizer, local_steps=local_steps)._replace(requires=requires)
