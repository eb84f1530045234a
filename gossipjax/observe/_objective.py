"""Observers of the objective at the average model: the quantities that convergence theorems bound."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float

from gossipjax._base.arguments import choice, real
from gossipjax._base.binding import Frozen, as_task
from gossipjax._base.calls import recorded
from gossipjax._base.rows import mean_row
from gossipjax.observe._models import Observer, Snapshot, Variable, metric_names
from gossipjax.types import Params, Task


def _objective(task: Task, data: Any, metric: str, x: Params) -> Float[Array, ""]:
    return task.metrics(x, data)[metric]


def _squared_gradient(task: Task, data: Any, metric: Frozen[str], snapshot: Snapshot) -> dict[str, Array]:
    gradient = jax.grad(lambda x: _objective(task, data, metric.value, x))(mean_row(snapshot.x))
    parts = [jnp.sum(jnp.square(leaf)).astype(jnp.result_type(float)) for leaf in jax.tree.leaves(gradient)]
    return {"squared_gradient_norm": jnp.sum(jnp.stack(parts))}


def _gap(task: Task, data: Any, metric: Frozen[str], minimum: Array, snapshot: Snapshot) -> dict[str, Array]:
    value = _objective(task, data, metric.value, mean_row(snapshot.x))
    return {"optimality_gap": (value - minimum.astype(value.dtype)).astype(jnp.result_type(float))}


def _checked(task: Any, data: Any, metric: str | None) -> tuple[Task, Any, str]:
    """Return the task, the samples, and the metric that is the objective."""
    task = as_task(task)
    data = task.test if data is None else data
    names = metric_names(task, data)
    chosen = next((name for name in ("objective", "loss") if name in names), None) if metric is None else metric
    if chosen is None:
        raise ValueError(f"metric=None: the task measures {names}, and none is called objective or loss; name one")
    return task, data, choice("metric", chosen, names)


@recorded()
def squared_gradient_norm(task: Task, *, metric: str | None = None, data: Any = None) -> Observer:
    """Measure ``‖∇f(x̄)‖²`` at the average model x̄, the quantity of theorems on nonconvex f.

    f is one of the task's metrics. For quadratics and regression, ``objective`` is the mean loss of all nodes, exactly.
    For classification, ``loss`` is the mean over the samples of ``data``: the training loss if these are the training
    samples and all nodes hold equally many.

    >>> import gossipjax as gj, jax, jax.numpy as jnp
    >>> task = gj.tasks.quadratic(jnp.asarray([[0.0], [2.0]]))
    >>> plan = gj.timeline.rounds(gj.mixing.averaging(2), 1)
    >>> watch = [gj.observe.squared_gradient_norm(task), gj.observe.optimality_gap(task)]
    >>> run = gj.simulate(jax.random.key(0), gj.gossip_averaging(), plan, jnp.asarray([[3.0], [5.0]]), observers=watch)
    >>> float(run["squared_gradient_norm"][-1]), float(run["optimality_gap"][-1])  # x̄ = 4, f = ½ (x − 1)² + ½
    (9.0, 4.5)

    Args:
        task: the task; its ``metrics`` are differentiated.
        metric: name of the metric that is f; None: ``objective``, or ``loss`` if there is none.
        data: samples in the form of ``task.test``; None: ``task.test``.

    Raises:
        ValueError: if the task has no such metric.
    """
    task, data, name = _checked(task, data, metric)
    variable = Variable("squared_gradient_norm", f"squared norm of the gradient of {name} at the average model")
    return Observer(Partial(_squared_gradient, task, data, Frozen(name)), (variable,))


@recorded()
def optimality_gap(
    task: Task,
    *,
    minimum: float | Float[np.ndarray | Array, ""] | None = None,
    metric: str | None = None,
    data: Any = None,
) -> Observer:
    """Measure ``f(x̄) − f*`` at the average model x̄, with f as in :func:`squared_gradient_norm`.

    It loses digits where f* is large beside it: near the optimum of a problem in float32, values below ``1e-7 f*`` are
    rounding. Where a run records every event, ``run["optimality_gap"].cumsum("record")`` is the regret.

    Args:
        task: the task.
        minimum: f*; None: f at ``task.test["optimum"]``, which quadratics and regression have.
        metric: name of the metric that is f; None: ``objective``, or ``loss`` if there is none.
        data: samples in the form of ``task.test``; None: ``task.test``.

    Raises:
        ValueError: if the task has no such metric, or no minimum is given and the task has no known optimum, or other
            data are.
    """
    if minimum is None and data is not None:
        raise ValueError(
            "minimum=None: the optimum on other data is not known; pass the smallest value of the objective"
        )
    task, data, name = _checked(task, data, metric)
    if minimum is None:
        optimum = task.test.get("optimum") if isinstance(task.test, dict) else None
        if optimum is None:
            raise ValueError("minimum=None: the task has no known optimum; pass the smallest value of its objective")
        minimum = _objective(task, data, name, optimum)
    real("minimum", minimum, remedy="the smallest value of the objective")
    variable = Variable("optimality_gap", f"{name} of the average model above its minimum")
    return Observer(Partial(_gap, task, data, Frozen(name), jnp.asarray(minimum)), (variable,))
