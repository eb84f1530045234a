"""DivShare: models are cut into fragments, each of which goes to nodes of its own."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import Partial
from jaxtyping import Array, Key

from gossipjax._base.arguments import seed as check_seed
from gossipjax._base.binding import Frozen, as_factory, as_task
from gossipjax._base.calls import recorded
from gossipjax._base.rows import num_rows
from gossipjax.facts import Requires
from gossipjax.mixing._counting import sent
from gossipjax.protocol._local import check_steps, init_optimizer
from gossipjax.protocol._local_async import node_rows, train_apart
from gossipjax.sharing._fragments import check_fragments, cut_at_random, fragment_bits, mix_parts
from gossipjax.types import Event, Info, Params, Protocol, Task


class DivShareState(NamedTuple):
    """Models of the nodes and of the messages, optimizer states of the nodes."""

    x: Params
    optimizer: Any


def _init(task: Task, optimizer: Partial, key: Key[Array, ""], x0: Params) -> DivShareState:
    del key
    return DivShareState(x0, init_optimizer(optimizer, node_rows(x0, task.num_nodes)))


def _step(task, optimizer, steps: Frozen[int], num_fragments: Frozen[int], fragment, key, state, event: Event):
    x, optimizer_state, trained = train_apart(key, task, optimizer, steps, state.x, state.optimizer, event)
    bits = fragment_bits(x, num_fragments.value)
    info = Info(*sent(event, bits, num_rows(x)), trained.loss, trained.finite)
    return DivShareState(mix_parts(event.mixing, x, fragment), optimizer_state), info


def _model(state: DivShareState) -> Params:
    return state.x


@recorded("biswas2025divshare")
def divshare(
    task: Task,
    optimizer: optax.GradientTransformation | Partial,
    *,
    num_fragments: int,
    local_steps: int = 1,
    seed: int = 0,
) -> Protocol:
    """Build DivShare's step of an acting node i, on a :func:`~gossipjax.timeline.divshare` timeline::

        x_i ← x_i + u_1 + … + u_H                                     optimizer(g_i), H times
        cut x_i into fragments, and offer each to J random nodes
        x_i[c] ← (x_i[c] + Σ y[c]) / (1 + number of them)             fragments y received since, that hold c

    Averaging is one-way: it keeps consensus, and the mean in expectation only. A message is one fragment.

    Args:
        task: one shard per node.
        optimizer: any optax transformation, one state per node; or ``Partial(optax.sgd, 0.1)``. A schedule counts the
            node's own local steps, not events or seconds.
        num_fragments: 1/Ω, as in the timeline; fragments are one fixed random partition of each tensor's coordinates.
        local_steps: H ≥ 1.
        seed: of the partition, shared by all nodes.

    Raises:
        TypeError: what is no task or no optimizer.
        ValueError: num_fragments or local_steps < 1; when run, a timeline that names no fragments, or not as many, or
            on which nodes do not take in their messages at ticks of their own.

    Reference: Biswas et al. 2025, arXiv 2410.12918, algorithms 1 and 2.
    """
    task, factory = as_task(task), as_factory(optimizer)
    num_fragments = check_fragments(num_fragments)
    cut = cut_at_random(jax.eval_shape(task.init, jax.random.key(0)), num_fragments, check_seed(seed))
    fragment = jax.tree.map(jnp.asarray, cut)
    step = Partial(_step, task, factory, check_steps(local_steps), Frozen(num_fragments), fragment)
    requires = Requires(
        {"row_stochastic", "own_rows", "mailboxes"},
        mixing=True,
        num_nodes=task.num_nodes,
        num_fragments=num_fragments,
        builder="timeline.divshare",
    )
    return Protocol(Partial(_init, task, factory), step, Partial(_model), requires)
