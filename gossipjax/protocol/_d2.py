"""D², exact diffusion and LED: decentralized SGD whose convergence does not depend on how nodes' data differ."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial
from jaxtyping import Array, Float, Key

from gossipjax._base.arguments import real
from gossipjax._base.binding import Frozen, as_factory, as_task
from gossipjax._base.calls import recorded
from gossipjax._base.placement import by_rows
from gossipjax._base.rows import bits_per_row, num_rows, scale_rows
from gossipjax.facts import FIXED_GRAPH, Requires
from gossipjax.mixing._apply import mix
from gossipjax.mixing._counting import traffic_fields
from gossipjax.protocol._local import check_steps, init_optimizer, train
from gossipjax.types import Event, Info, Mixing, Params, Protocol, Task


class D2State(NamedTuple):
    """Models, corrections and optimizer states of all nodes."""

    x: Params
    correction: Params
    optimizer: Any


def mix_half(mixing: Mixing, x: Params) -> Params:
    """Mix with (I + W)/2."""
    return jax.tree.map(lambda own, mixed: (own + mixed) / 2, x, mix(mixing, x))


def _init(optimizer: Partial, key: Key[Array, ""], x0: Params) -> D2State:
    del key
    return D2State(x0, jax.tree.map(jnp.zeros_like, x0), init_optimizer(optimizer, x0))


@by_rows
def _step(
    task: Task, optimizer: Partial, steps: Frozen[int], beta: Any, half: Frozen[bool], key, state: D2State, event: Event
) -> tuple[D2State, Info]:
    """One round: H local steps, each with the correction, then mixing."""
    shift = scale_rows(beta, state.correction)
    trained = train(key, task, optimizer, steps, state.x, state.optimizer, event, shift)
    x = (mix_half if half.value else mix)(event.mixing, trained.x)
    correction = jax.tree.map(lambda c, mixed, own: c + (mixed - own), state.correction, x, trained.x)
    info = Info(*traffic_fields(event, bits_per_row(x), num_rows(x)), trained.loss, trained.finite)
    return D2State(x, correction, trained.optimizer), info


def _model(state: D2State) -> Params:
    return state.x


def _build(task: Any, optimizer: Any, needs: Requires, *, local_steps: int = 1, beta: Any = 1.0, half: bool = False):
    task, factory = as_task(task), as_factory(optimizer)
    return Protocol(
        init=Partial(_init, factory),
        step=Partial(_step, task, factory, check_steps(local_steps), beta, Frozen(half)),
        model=Partial(_model),
        requires=FIXED_GRAPH | needs | Requires({"own_rows"}, num_nodes=task.num_nodes, local_steps=local_steps),
    )


@recorded("tang2018d2")
def d2(task: Task, optimizer: optax.GradientTransformation | Partial) -> Protocol:
    """Build D² in its correction form, with u the optimizer's update (``−γ g(x)`` for SGD)::

        x⁺ = W (x + u + c),     c⁺ = x⁺ − (x + u),     c = 0 at the start

    which for SGD is ``x_1 = W(x_0 − γ g_0)``, ``x_{t+1} = W(2 x_t − x_{t−1} − γ (g_t − g_{t−1}))``. A message holds one
    vector. The corrections always sum to zero, so ``x̄ ← x̄ + ū``.

    Needs a fixed symmetric W with smallest eigenvalue above −1/3; use ``lazy(W)`` = (W + I)/2 otherwise. It does not
    tolerate lost messages.

    In float32 the weights of a node do not always sum to one exactly. The sum of the corrections then drifts, and the
    error grows with the number of rounds; :func:`~gossipjax.exact_diffusion` was seen to stay level.

    On ``lazy(W)`` it is :func:`~gossipjax.exact_diffusion`, and, but for the first round, :func:`~gossipjax.nids` with
    equal steps. On W it is :func:`~gossipjax.led` with one local step and β = 1.

    Args:
        task: one shard per node.
        optimizer: any optax transformation, one state per node; or ``Partial(optax.sgd, 0.1)``. A schedule counts the
            node's own steps, here one a round.

    Raises:
        TypeError: if task or optimizer has the wrong type.
        ValueError: during a run, if the timeline does not have one fixed matrix as above.

    Reference: Tang et al. 2018, arXiv 1803.07068, algorithm 1.
    """
    return _build(task, optimizer, Requires(min_eigenvalue=-1 / 3))


@recorded("yuan2019diffusion")
def exact_diffusion(task: Task, optimizer: optax.GradientTransformation | Partial) -> Protocol:
    """Build exact diffusion: adapt, correct, combine. With u the optimizer's update (``−γ g(x)`` for SGD)::

        ψ⁺ = x + u,     φ = ψ⁺ + x − ψ,     x⁺ = ½ (I + W) φ,     ψ = x_0 at the start

    This is :func:`~gossipjax.d2` on ½ (I + W), so that any symmetric doubly stochastic W will do. A message holds one
    vector. The corrections x − ψ always sum to zero, so ``x̄ ← x̄ + ū``. The state keeps x − ψ.

    With SGD and exact gradients of L-smooth, strongly convex losses it converges linearly to the exact optimum for
    every γ < 2 / L, whatever the graph and the heterogeneity.

    Args:
        task: one shard per node.
        optimizer: any optax transformation, one state per node; or ``Partial(optax.sgd, 0.1)``. A schedule counts the
            node's own steps, here one a round.

    Raises:
        TypeError: if task or optimizer has the wrong type.
        ValueError: during a run, if the timeline is not synchronous rounds on one symmetric doubly stochastic matrix.

    Reference: Yuan, Ying, Zhao, Sayed 2019, arXiv 1702.05122. The range of γ is that of NIDS: Li, Shi, Yan
        2019, arXiv 1704.07807.
    """
    return _build(task, optimizer, Requires(), half=True)


@recorded("alghunaim2024led")
def led(
    task: Task,
    optimizer: optax.GradientTransformation | Partial,
    *,
    local_steps: int,
    beta: float | Float[np.ndarray | Array, ""] | None = None,
) -> Protocol:
    """Build LED (local exact diffusion): H local steps between two messages, with a correction in each of them.

    With u(φ) the optimizer's update at φ (``−α g(φ)`` for SGD)::

        φ ← x,     then H times   φ ← φ + u(φ) − β y
        x⁺ = W φ,     y⁺ = y + φ − x⁺,     y = 0 at the start

    The y always sum to zero, so x̄ moves by the mean of the sums of the local updates. A message holds one vector. With
    H = 1 and β = 1 it is :func:`~gossipjax.d2`, and on ``lazy(W)`` :func:`~gossipjax.exact_diffusion`. The state keeps
    −y. Where it stops, all nodes have one model and ``β y_i = u_i``, so that it is exact for SGD with exact gradients.

    In float32 the weights of a node do not always sum to one exactly. The sum of the y then drifts, and the error grows
    with the number of rounds, as that of :func:`~gossipjax.d2`.

    Args:
        task: one shard per node.
        optimizer: any optax transformation, one state per node; or ``Partial(optax.sgd, 0.1)``. A schedule counts the
            node's own local steps, H a round.
        local_steps: H ≥ 1.
        beta: β > 0; None: 1 / H, so that the corrections of a round add up to y. A new value does not recompile.

    Raises:
        TypeError: if task or optimizer has the wrong type.
        ValueError: if local_steps < 1 or β is not positive and finite; during a run, if the timeline is not synchronous
            rounds on one symmetric doubly stochastic matrix with smallest eigenvalue above (βH − 2)/(βH + 2), which is
            −1/3 for β = 1/H; below it the disagreement grows, even without gradients.

    Reference: Alghunaim 2024, arXiv 2302.00620, algorithm 1.
    """
    steps = check_steps(local_steps).value
    beta = 1 / steps if beta is None else beta
    total = real("beta", beta, above=0, remedy="1 / local_steps is usual") * steps
    least = (total - 2) / (total + 2) if isinstance(total, float) else None
    return _build(task, optimizer, Requires(min_eigenvalue=least), local_steps=steps, beta=beta)
