"""D²: decentralized SGD whose convergence does not depend on the heterogeneity of the nodes' data."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import Partial
from jaxtyping import Array, Key

from gossipjax._base.binding import as_factory, as_task
from gossipjax._base.calls import recorded
from gossipjax._base.rows import bits_per_row, num_rows
from gossipjax.facts import Requires
from gossipjax.mixing._apply import mix
from gossipjax.mixing._counting import traffic_fields
from gossipjax.protocol._local import check_steps, init_optimizer, train
from gossipjax.types import Event, Info, Params, Protocol, Task


class D2State(NamedTuple):
    """Models, corrections and optimizer states of all nodes."""

    x: Params
    correction: Params
    optimizer: Any


def _init(optimizer: Partial, key: Key[Array, ""], x0: Params) -> D2State:
    del key
    return D2State(x0, jax.tree.map(jnp.zeros_like, x0), init_optimizer(optimizer, x0))


def _step(task: Task, optimizer: Partial, key, state: D2State, event: Event) -> tuple[D2State, Info]:
    trained = train(key, task, optimizer, check_steps(1), state.x, state.optimizer, event)
    x = mix(event.mixing, jax.tree.map(jnp.add, trained.x, state.correction))
    correction = jax.tree.map(jnp.subtract, x, trained.x)
    bits = bits_per_row(x)
    info = Info(*traffic_fields(event, bits, num_rows(x)), trained.loss, trained.finite)
    return D2State(x, correction, trained.optimizer), info


def _model(state: D2State) -> Params:
    return state.x


@recorded("tang2018d2")
def d2(task: Task, optimizer: optax.GradientTransformation | Partial) -> Protocol:
    """Build D² in its correction form, with u the optimizer's update (``−γ g(x)`` for SGD)::

        x⁺ = W (x + u + c),     c⁺ = x⁺ − (x + u),     c = 0 at the start

    which for SGD is ``x_1 = W(x_0 − γ g_0)``, ``x_{t+1} = W(2 x_t − x_{t−1} − γ (g_t − g_{t−1}))``. A message holds one
    vector. The corrections always sum to zero, so ``x̄ ← x̄ + ū``.

    Needs a fixed symmetric W with smallest eigenvalue above −1/3; use ``lazy(W)`` = (W + I)/2 otherwise. It does not
    tolerate lost messages.

    Args:
        task: one shard per node.
        optimizer: any optax transformation, one state per node; or ``Partial(optax.sgd, 0.1)``. A schedule counts the
            node's own steps, here one a round.

    Raises:
        TypeError: if task or optimizer has the wrong type.
        ValueError: during a run, if the timeline does not have one fixed matrix as above.

    Reference: Tang et al. 2018, arXiv 1803.07068, algorithm 1.
    """
    task, factory = as_task(task), as_factory(optimizer)
    requires = Requires(
        {"fixed", "synchronous", "symmetric", "doubly_stochastic", "own_rows"},
        min_eigenvalue=-1 / 3,
        mixing=True,
        num_nodes=task.num_nodes,
        local_steps=1,
        builder="timeline.rounds",
    )
    return Protocol(Partial(_init, factory), Partial(_step, task, factory), Partial(_model), requires)
