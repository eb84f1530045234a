"""Push-sum, and stochastic gradient push: averaging by sending away shares of a mass."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import Partial
from jaxtyping import Array, Float, Key

from gossipjax._base.binding import as_factory, as_task
from gossipjax._base.calls import recorded
from gossipjax._base.rows import bits_per_row, num_rows
from gossipjax.facts import Requires
from gossipjax.mixing._apply import mix
from gossipjax.mixing._counting import sent
from gossipjax.protocol._local import init_optimizer
from gossipjax.protocol._local_async import node_rows, step_from
from gossipjax.types import Event, Info, Params, Protocol, Task

_REQUIRES = Requires({"column_stochastic"}, mixing=True, builder="timeline.directed_push")


class PushSumState(NamedTuple):
    """Numerators and weights of all rows."""

    x: Params
    w: Float[Array, " rows"]


class SGPState(NamedTuple):
    """Numerators and weights of all rows, optimizer states of all nodes."""

    x: Params
    w: Float[Array, " rows"]
    optimizer: Any


def _ones(x0: Params) -> Float[Array, " rows"]:
    # Rows of messages too: they are written before they are read, and 0/0 in an idle one would only alarm.
    return jnp.ones(num_rows(x0))


def _ratio(x: Params, w: Float[Array, " rows"]) -> Params:
    return jax.tree.map(lambda leaf: leaf / w.astype(leaf.dtype).reshape(-1, *(1,) * (leaf.ndim - 1)), x)


def _init_average(key: Key[Array, ""], x0: Params) -> PushSumState:
    del key
    return PushSumState(x0, _ones(x0))


def _init(task: Task, optimizer: Partial, key: Key[Array, ""], x0: Params) -> SGPState:
    del key
    return SGPState(x0, _ones(x0), init_optimizer(optimizer, node_rows(x0, task.num_nodes)))


def _bits(state: PushSumState | SGPState) -> int:
    return bits_per_row((state.x, state.w))


def _average(key: Key[Array, ""], state: PushSumState, event: Event) -> tuple[PushSumState, Info]:
    del key
    info = Info(*sent(event, _bits(state), num_rows(state.x)))
    return PushSumState(*mix(event.mixing, (state.x, state.w))), info


def _step(task: Task, optimizer: Partial, key, state: SGPState, event: Event) -> tuple[SGPState, Info]:
    z = _ratio(state.x, state.w)
    x, optimizer_state, report = step_from(key, task, optimizer, z, state.x, state.optimizer, event)
    info = Info(*sent(event, _bits(state), num_rows(x)), *report)
    x, w = mix(event.mixing, (x, state.w))
    return SGPState(x, w, optimizer_state), info


def _model(state: PushSumState | SGPState) -> Params:
    return _ratio(state.x, state.w)


@recorded("kempe2003pushsum", "benezit2010weighted")
def push_sum() -> Protocol:
    """Build push-sum averaging: numerators x and weights w, one at the start, are mixed alike; the model is z = x/w.

    ``x_i ← Σ_j P_ij x_j``, ``w_i ← Σ_j P_ij w_j``, ``z_i = x_i / w_i`` with P column stochastic, on directed networks
    too. Conserves ``Σ x`` and ``Σ w = n``, messages in flight included, so every z_i tends to the mean of the start;
    a lost message takes its mass with it. A message is a model and one number.

    Reference: Kempe, Dobra, Gehrke 2003, protocol 1; Bénézit et al. 2010.
    """
    return Protocol(Partial(_init_average), Partial(_average), Partial(_model), _REQUIRES)


@recorded("assran2019sgp")
def sgp(task: Task, optimizer: optax.GradientTransformation | Partial) -> Protocol:
    """Build stochastic gradient push: push-sum whose numerators move along gradients at the de-biased models.

    ::

        z_i = x_i / w_i      x_i ← x_i + optimizer(g_i(z_i))      x_i ← Σ_j P_ij x_j      w_i ← Σ_j P_ij w_j

    ``−γ g_i(z_i)`` for SGD. P is column stochastic, may be directed and may change: on rounds over
    :func:`~gossipjax.topology.one_peer_exponential` it is the paper's algorithm; on
    :func:`~gossipjax.timeline.directed_push` nodes wait for nobody and mass is on its way. ``Σ w = n`` and the sum of
    the x, messages in flight included, moves by gradients only, unless messages are lost.

    Args:
        task: one shard per node.
        optimizer: any optax transformation, one state per node; or ``Partial(optax.sgd, 0.1)``. A schedule counts the
            node's own local steps, not events or seconds.

    Raises:
        TypeError: what is no task or no optimizer.
        ValueError: when run, a timeline whose mixing matrices are not column stochastic.

    Reference: Assran et al. 2019, arXiv 1811.10792, algorithm 1.
    """
    task, factory = as_task(task), as_factory(optimizer)
    requires = _REQUIRES | Requires({"own_rows"}, num_nodes=task.num_nodes, local_steps=1)
    return Protocol(Partial(_init, task, factory), Partial(_step, task, factory), Partial(_model), requires)
