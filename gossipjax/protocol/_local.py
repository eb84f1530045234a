"""Local steps of learning protocols."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Int, Key

from gossipjax._base.arguments import instance, whole
from gossipjax._base.binding import Frozen, as_task
from gossipjax._base.placement import map_nodes
from gossipjax._base.rows import acting_nodes, all_finite, check_stacked, put, take, trained_rows
from gossipjax._base.streams import node_keys
from gossipjax.types import Event, Params, Task


class Pull(NamedTuple):
    """An affine addition to the gradients at the models x of local steps: ``g(x) + offset + weight x``."""

    offset: Params
    """Leaves ``(num_rows, ...)``."""
    weight: Float[Array, " n"] | None = None
    """One number for each row; None: zero."""


class Trained(NamedTuple):
    """The acting rows after their local steps."""

    x: Params
    optimizer: Any
    loss: Float[Array, " k"]
    finite: Bool[Array, " k"]


def init_optimizer(optimizer: Partial, x: Params) -> Any:
    """Make one optimizer state per row."""
    return jax.vmap(optimizer().init)(x)


def gradient(task: Task, keys: Key[Array, "2"], x: Params, node: Int[Array, ""]) -> tuple[Float[Array, ""], Params]:
    """Draw a batch of one node's shard with the first key; return the loss (second key) and its gradient there."""
    batch = task.batch(keys[0], task.data, node)
    return jax.value_and_grad(task.loss, argnums=1)(keys[1], x, batch)


def _step_keys(key: Key[Array, ""], event: Event, num_nodes: int, steps: int) -> Key[Array, "k h 2"]:
    """Return two keys for each step of each acting node, made for all at once, since a loop over nodes would cost more.

    The keys of step h fold in h, so more steps extend the same stream.
    """

    def of_node(key: Key[Array, ""]) -> Key[Array, "h 2"]:
        return jax.vmap(lambda number: jax.random.split(jax.random.fold_in(key, number)))(jnp.arange(steps))

    return jax.vmap(of_node)(node_keys(key, event, num_nodes))


def _pulled(grad: Params, x: Params, pull: Pull) -> Params:
    grad = jax.tree.map(jnp.add, grad, pull.offset)
    if pull.weight is None:
        return grad
    return jax.tree.map(lambda g, leaf: g + jnp.asarray(pull.weight, leaf.dtype) * leaf, grad, x)


def _one_node(task: Task, optimizer: Partial, keys: Key[Array, "h 2"], node, x, state, shift, pull):
    """Take H steps of one node; None shifts nothing."""
    transform = optimizer()

    def step(carry, keys):
        x, state = carry
        loss, grad = gradient(task, keys, x, node)
        grad = grad if pull is None else _pulled(grad, x, pull)
        updates, state = transform.update(grad, state, x)
        x = optax.apply_updates(x, updates)
        return (x if shift is None else jax.tree.map(jnp.add, x, shift), state), loss

    if keys.shape[0] == 1:
        (x, state), loss = step((x, state), keys[0])
    else:
        (x, state), losses = jax.lax.scan(step, (x, state), keys)
        loss = losses[-1]
    return x, state, loss, all_finite(x)


def train(
    key: Key[Array, ""],
    task: Task,
    optimizer: Partial,
    steps: Frozen[int],
    x: Params,
    state: Any,
    event: Event,
    shift: Params | None = None,
    pull: Pull | None = None,
) -> Trained:
    """Train the acting rows for H local steps: ``x ← x + u_h + s``, ``u_h = optimizer(∇F(x; batch_h) + o + w x)``.

    Args:
        key: key of the protocol, the same at every event.
        task: the learning problem.
        optimizer: factory of an optax transformation.
        steps: H ≥ 1.
        x: all rows, leaves ``(num_rows, ...)``.
        state: optimizer states of all rows.
        event: determines the acting nodes and their rows.
        shift: s of all rows, with the leaves of x, such as a correction for heterogeneous data; None: zero.
        pull: o and w of all rows, such as a term that holds models together; None: zero.

    Returns:
        For the acting rows, leaves ``(k, ...)``: x, optimizer state, last loss, and whether all of x is finite.
    """
    rows = trained_rows(event)
    before, shifts = (take(x, rows), take(state, rows)), None if shift is None else take(shift, rows)
    pulls = None if pull is None else take(pull, rows)
    nodes = acting_nodes(event, task.num_nodes)

    def work() -> Trained:
        keys = _step_keys(key, event, task.num_nodes, steps.value)
        return Trained(*map_nodes(Partial(_one_node, task, optimizer), keys, nodes, *before, shifts, pulls))

    return unless_idle(event, task.num_nodes, work, lambda like: Trained(*before, *like[2:]))


def unless_idle(event: Event, num_nodes: int, work: Callable[[], Any], otherwise: Callable[[Any], Any]) -> Any:
    """Do the work of the acting nodes; skip it in events without one, which most events of some timelines are.

    The branch also keeps XLA from copying all rows at every event: see :func:`gossipjax._base.rows.before_writing`.

    Args:
        event: one event.
        num_nodes: n; acting indices from n on are unused lanes.
        work: computation of the acting nodes.
        otherwise: ``otherwise(zeros)`` is the result if no node acts; zeros has the form of the result, with True for
            booleans.
    """
    if event.nodes is None:
        return work()

    def nothing() -> Any:
        def fill(leaf: jax.ShapeDtypeStruct) -> Array:
            return jnp.ones(leaf.shape, bool) if leaf.dtype == bool else jnp.zeros(leaf.shape, leaf.dtype)

        return otherwise(jax.tree.map(fill, jax.eval_shape(work)))

    return jax.lax.cond(jnp.any(event.nodes < num_nodes), work, nothing)


def node_gradients(key: Key[Array, ""], task: Task, x: Params, event: Event) -> tuple[Float[Array, " k"], Params]:
    """Take one stochastic gradient of every acting node at the row that it trains; other rows have the gradient 0.

    So ``x − γ g`` is a step of the acting nodes on every timeline: all rows move in a round, and one or two at a
    meeting.

    >>> import jax, jax.numpy as jnp, numpy as np, gossipjax as gj
    >>> task, x = gj.tasks.quadratic(np.ones((4, 2))), jnp.zeros((4, 2))
    >>> event = gj.Event(index=jnp.zeros(1, jnp.uint32), time=jnp.zeros(1), nodes=jnp.array([2], jnp.int32))
    >>> loss, gradients = gj.node_gradients(jax.random.key(0), task, x, event)
    >>> loss.shape, gradients.tolist()
    ((1,), [[0.0, 0.0], [0.0, 0.0], [-1.0, -1.0], [0.0, 0.0]])

    Args:
        key: key of the protocol's step.
        task: the learning problem.
        x: all rows, leaves ``(num_rows, ...)``.
        event: determines the acting nodes and their rows.

    Returns:
        Losses of the acting nodes ``(k,)``, for ``Info(loss=...)``, and gradients with the leaves of x.
    """
    task = as_task(task)
    instance("event", event, Event, "pass the event that the step is given")
    check_stacked("x", x)
    loss, gradients = acting_gradients(key, task, x, event)
    rows = trained_rows(event)
    return loss, gradients if rows is None else put(jax.tree.map(jnp.zeros_like, x), rows, gradients)


def acting_gradients(key: Key[Array, ""], task: Task, x: Params, event: Event) -> tuple[Float[Array, " k"], Params]:
    """Take one stochastic gradient of every acting node at its row; losses ``(k,)`` and gradients ``(k, ...)``.

    Only acting rows have gradients, which are meant for :func:`gossipjax._base.rows.put`.
    """
    nodes = acting_nodes(event, task.num_nodes)

    def work() -> tuple[Array, Params]:
        keys = _step_keys(key, event, task.num_nodes, 1)[:, 0]
        return map_nodes(Partial(_gradient_of, task), keys, nodes, take(x, trained_rows(event)))

    return unless_idle(event, task.num_nodes, work, lambda zeros: zeros)


def _gradient_of(task: Task, keys: Key[Array, "2"], node, x):
    return gradient(task, keys, x, node)


def write(x: Params, state: Any, trained: Trained, event: Event) -> tuple[Params, Any]:
    """Write trained rows back."""
    rows = trained_rows(event)
    return put(x, rows, trained.x), put(state, rows, trained.optimizer)


def check_steps(local_steps: int) -> Frozen[int]:
    """Validate H."""
    return Frozen(whole("local_steps", local_steps, least=1, remedy="a node takes one step or more between two events"))
