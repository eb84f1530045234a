"""Observers of the models: consensus distance, accuracy, distance to the optimum, and the types for your own.

An :class:`Observer` measures a :class:`Snapshot` between two events and declares names, dimensions and units of its
measurements, which the trajectory's variables carry.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int, PyTree, UInt

from gossipjax._base import placement
from gossipjax._base.arguments import instance, sequence_of, shown, whole, wholes
from gossipjax._base.arguments import seed as check_seed
from gossipjax._base.binding import Frozen, as_partial, as_task
from gossipjax._base.calls import recordable, recorded
from gossipjax._base.display import displayed
from gossipjax._base.local import Local, add_up, in_node_order, mean_of_rows, network_size, real_rows
from gossipjax._base.placement import by_rows, map_nodes
from gossipjax._base.rows import check_stacked, num_rows, take
from gossipjax.types import Params, Task

STATISTICS = ("mean", "min", "max", "p10", "p50", "p90")
"""Statistics over nodes, in the order of the ``statistic`` dimension."""


RECORDED = (
    *("event", "time", "bytes_sent", "messages_sent", "train_loss", "gradient_calls"),
    *("statistic", "record", "seed"),
)
"""Reserved names, which observers cannot use: the variables, coordinates and dimensions of every run."""


class Snapshot(NamedTuple):
    """The state of the network between two events."""

    event: UInt[Array, ""]
    """Number of source events so far."""
    time: Float[Array, ""]
    """Simulated seconds."""
    x: Params
    """Models of all rows, leaves ``(num_rows, ...)``."""
    versions: Any = None
    """Version counters, if the run tracks them (:func:`gossipjax.track_versions`)."""
    meter: Any = None
    """Traffic and clocks of the nodes, if the run is metered (:func:`gossipjax.metered`)."""
    local: Any = None
    """The rows of one device of a mesh, for observers that are marked :func:`gossipjax.placement.by_rows`; all others
    are given the rows of all devices. None: every row is here."""


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Variable:
    """Name, meaning, units and dimensions of one measurement."""

    name: str
    long_name: str
    units: str = "1"
    dims: tuple[str, ...] = ()


@displayed
@recordable
class Observer(NamedTuple):
    """A measurement: ``measure(snapshot) -> {name: array}`` and the description of its arrays."""

    measure: Callable[[Snapshot], dict[str, Array]]
    variables: tuple[Variable, ...]

    def _facts(self) -> tuple[str, dict[str, Any]]:
        measures = "; ".join(variable.long_name for variable in self.variables)
        return ", ".join(variable.name for variable in self.variables), {"measures": measures}


def squared_deviations(x: Params, local: Local | None = None) -> Float[Array, " n"]:
    """Return ``‖x_i − x̄‖²`` of every row, summed over all leaves; ``local``: the rows are those of one device."""
    check_stacked("x", x)
    parts = []
    for leaf in jax.tree.leaves(x):
        mean = jnp.mean(leaf, axis=0, keepdims=True) if local is None else mean_of_rows(local, leaf)[None]
        deviation = (leaf - mean).reshape(leaf.shape[0], -1)
        parts.append(jnp.sum(jnp.square(deviation), axis=1).astype(jnp.result_type(float)))
    return jnp.sum(jnp.stack(parts), axis=0)


@by_rows
def _consensus(snapshot: Snapshot) -> dict[str, Array]:
    squares = squared_deviations(snapshot.x, snapshot.local)
    return {"consensus_distance": mean_of_rows(snapshot.local, squares)}


@recorded()
def consensus_distance() -> Observer:
    """Measure ``(1/n) Σ_i ‖x_i − x̄‖²``, the mean squared distance of the nodes from their average model."""
    variable = Variable("consensus_distance", "mean squared distance to the average model")
    return Observer(Partial(_consensus), (variable,))


def _disagreement(snapshot: Snapshot) -> dict[str, Array]:
    ranges = [jnp.max(jnp.max(leaf, axis=0) - jnp.min(leaf, axis=0)) for leaf in jax.tree.leaves(snapshot.x)]
    return {"disagreement": jnp.max(jnp.stack([each.astype(jnp.result_type(float)) for each in ranges]))}


@recorded()
def disagreement() -> Observer:
    """Measure ``max_ij ‖x_i − x_j‖_∞``, the largest difference of any two nodes in one parameter.

    :func:`~gossipjax.sharing.moniqua` decodes all messages correctly while it is below θ.
    """
    return Observer(Partial(_disagreement), (Variable("disagreement", "largest difference of two nodes' parameters"),))


@by_rows
def _distance(target: Params, snapshot: Snapshot) -> dict[str, Array]:
    def gap(leaf: Array, goal: Array) -> Array:
        squares = real_rows(snapshot.local, jnp.square(leaf - jnp.expand_dims(goal, 0)))
        return jnp.sum(squares) / network_size(snapshot.local, leaf.shape[0])

    total = sum(jax.tree.leaves(jax.tree.map(gap, snapshot.x, target)), start=jnp.zeros(()))
    return {"squared_error": add_up(snapshot.local, total)}


@recorded()
def distance_to(target: Params) -> Observer:
    """Measure ``(1/n) Σ_i ‖x_i − x*‖²`` to a given model x* (one node's pytree, such as a known optimum)."""
    variable = Variable("squared_error", "mean squared distance to the target model")
    leaves = jax.tree.leaves(target)
    if not leaves or not all(jnp.issubdtype(jnp.result_type(leaf), jnp.inexact) for leaf in map(_as_leaf, leaves)):
        raise ValueError(f"target={shown(target)}: must be one node's model, a pytree of floating-point arrays")
    return Observer(Partial(_distance, target), (variable,))


def _as_leaf(leaf: Any) -> Any:
    return leaf if hasattr(leaf, "dtype") or isinstance(leaf, float) else np.zeros((), bool)


def own_models(task: Task, name: str, snapshot: Snapshot) -> Params:
    """Return the models of the nodes, without the rows that follow them.

    Raises:
        ValueError: if there are fewer rows than nodes; ``name`` is the observer's.
    """
    if num_rows(snapshot.x) < task.num_nodes:
        raise ValueError(
            f"{name}: there are {num_rows(snapshot.x)} model rows for {task.num_nodes} nodes, so that nodes have no "
            "models of their own"
        )
    return jax.tree.map(lambda leaf: leaf[: task.num_nodes], snapshot.x)


def _values(snapshot: Snapshot) -> dict[str, Array]:
    rows = [leaf.reshape(leaf.shape[0], -1) for leaf in jax.tree.leaves(snapshot.x)]
    return {"model": jnp.concatenate(rows, axis=1)}


@recorded()
def models() -> Observer:
    """Record the models, flattened to ``(node, parameter)``: for small models only."""
    return Observer(Partial(_values), (Variable("model", "model of each node", dims=("node", "parameter")),))


def percentiles(values: Float[Array, " n"]) -> Float[Array, " statistic"]:
    """Return the :data:`STATISTICS` of values, without NaN."""
    if len(getattr(values, "shape", ())) != 1 or not values.size or not jnp.issubdtype(values.dtype, jnp.floating):
        raise ValueError(f"values={shown(values)}: must be a vector of floats, one for each node")
    quantiles = jnp.nanquantile(values, jnp.asarray([0.1, 0.5, 0.9], values.dtype))
    return jnp.concatenate([jnp.stack([jnp.nanmean(values), jnp.nanmin(values), jnp.nanmax(values)]), quantiles])


@by_rows
def _node_metrics(task: Task, test: Any, rows: Array | None, snapshot: Snapshot) -> dict[str, Array]:
    if snapshot.local is not None:  # each device measures its own nodes, all of them, to have equal work
        values = map_nodes(Partial(metrics_of, task, test), snapshot.x)
        chosen = {name: take(in_node_order(snapshot.local, array), rows) for name, array in values.items()}
        return {f"test_{name}": percentiles(array) for name, array in chosen.items()}
    if rows is not None and rows.shape[0] > num_rows(snapshot.x):
        raise ValueError(
            f"nodes: the observer evaluates {rows.shape[0]} nodes but there are {num_rows(snapshot.x)} model rows; "
            "pass nodes=None to evaluate all rows"
        )
    results = map_nodes(Partial(metrics_of, task, test), take(snapshot.x, rows))
    return {f"test_{name}": percentiles(values) for name, values in results.items()}


def metrics_of(task: Task, test: Any, x: Params) -> dict[str, Array]:
    """Return the metrics of one model on test samples; a function of its arguments only, to be bound and mapped."""
    return task.metrics(x, test)


@by_rows
def _mean_metrics(task: Task, test: Any, snapshot: Snapshot) -> dict[str, Array]:
    mean = jax.tree.map(lambda leaf: mean_of_rows(snapshot.local, leaf), snapshot.x)
    return {f"average_model_{name}": value for name, value in task.metrics(mean, test).items()}


def metric_names(task: Task, test: Any) -> list[str]:
    """Return the names of a task's metrics, without computing them."""
    task = as_task(task)
    params = jax.eval_shape(task.init, jax.random.key(0))
    return sorted(jax.eval_shape(task.metrics, params, test))


def subset(task: Task, samples: int | None, *, seed: int = 0) -> Any:
    """Return a fixed random subset of a task's test set, or all of it.

    Args:
        task: a task with ``test`` arrays that share a leading sample axis.
        samples: number of test samples; None: all.
        seed: of the NumPy generator that draws them.

    Raises:
        ValueError: if samples exceeds the size of the test set.
    """
    task, seed = as_task(task), check_seed(seed)
    if samples is None:
        return task.test
    total = _samples(task)
    samples = whole("samples", samples, least=1, most=total, remedy=f"of {total} test samples; None takes all")
    chosen = np.sort(np.random.default_rng(seed).choice(total, samples, replace=False))
    return task.test | {name: task.test[name][chosen] for name in ("inputs", "labels")}


def _samples(task: Task) -> int:
    if not isinstance(task.test, dict) or "inputs" not in task.test:
        raise ValueError("samples: this task has no test samples to choose from; pass samples=None")
    return task.test["inputs"].shape[0]


@recorded()
def node_metrics(
    task: Task, *, nodes: Sequence[int] | int | None = None, samples: int | None = None, seed: int = 0
) -> Observer:
    """Measure the task's metrics of each node's model, and report mean, min, max and percentiles over the nodes.

    Args:
        task: the task; its ``metrics`` are evaluated on its test set.
        nodes: row indices, or a number of random rows; None: all. A subset keeps evaluation cheaper than training.
        samples: number of test samples (a fixed random subset); None: all.
        seed: of the NumPy generator that draws the subsets.

    Returns:
        Observer of ``test_<metric>`` with the dimension ``statistic`` (:data:`STATISTICS`).

    Raises:
        ValueError: if there are fewer nodes or samples than asked for.
    """
    task = as_task(task)
    rows = _rows_to_evaluate(task, nodes, check_seed(seed))
    test = subset(task, samples, seed=seed)
    over = "all nodes" if rows is None else f"{len(rows)} of the nodes"
    on = "the whole test set" if samples is None else f"{samples} test samples"
    variables = tuple(
        Variable(f"test_{name}", f"{name} on {on}, over {over}", dims=("statistic",))
        for name in metric_names(task, test)
    )
    return Observer(Partial(_node_metrics, task, test, rows), variables)


def _rows_to_evaluate(task: Task, nodes: Sequence[int] | int | None, seed: int) -> Int[Array, " k"] | None:
    if nodes is None:
        return None
    n = task.num_nodes
    if np.ndim(nodes) == 0:
        number = whole("nodes", nodes, least=1, most=n, remedy="the number to draw; or give a list of nodes; None: all")
        return jnp.asarray(np.sort(np.random.default_rng(seed).choice(n, number, replace=False)), jnp.int32)
    rows = wholes("nodes", nodes, shape=(None,), least=0, most=n - 1, remedy=f"numbers of the task's {n} nodes")
    if not rows.size or len(set(rows.tolist())) < rows.size:
        raise ValueError(f"nodes={shown(nodes)}: give at least one node, and each of them once")
    return jnp.asarray(rows, jnp.int32)


@recorded()
def average_model_metrics(task: Task, *, samples: int | None = None, seed: int = 0) -> Observer:
    """Measure the task's metrics of the average model x̄, as ``average_model_<metric>``.

    Args:
        task: the task; its ``metrics`` are evaluated on its test set.
        samples: number of test samples (a fixed random subset); None: all.
        seed: of the NumPy generator that draws the subset.
    """
    task = as_task(task)
    test = subset(task, samples, seed=seed)
    on = "the whole test set" if samples is None else f"{samples} test samples"
    variables = tuple(
        Variable(f"average_model_{name}", f"{name} of the average model on {on}") for name in metric_names(task, test)
    )
    return Observer(Partial(_mean_metrics, task, test), variables)


def _row_metrics(task: Task, test: Any, row: Frozen[int], snapshot: Snapshot) -> dict[str, Array]:
    if row.value >= num_rows(snapshot.x):
        raise ValueError(f"row={row.value}: there are {num_rows(snapshot.x)} model rows; name one of them, from 0 on")
    x = jax.tree.map(lambda leaf: leaf[row.value], snapshot.x)
    return {f"model_{name}": value for name, value in task.metrics(x, test).items()}


@recorded()
def model_metrics(task: Task, row: int, *, samples: int | None = None, seed: int = 0) -> Observer:
    """Measure the task's metrics of one model, as ``model_<metric>``.

    Args:
        task: the task; its ``metrics`` are evaluated on its test set.
        row: of the model, such as that of a server, or ``num_nodes`` for the last mean of a ring of
            :func:`gossipjax.systems.hadfl`.
        samples: number of test samples (a fixed random subset); None: all.
        seed: of the NumPy generator that draws the subset.

    Raises:
        ValueError: a negative row, more samples than there are; when run, a row that does not exist.
    """
    task, row = as_task(task), whole("row", row, least=0)
    test = subset(task, samples, seed=seed)
    on = "the whole test set" if samples is None else f"{samples} test samples"
    variables = tuple(
        Variable(f"model_{name}", f"{name} of model row {row} on {on}") for name in metric_names(task, test)
    )
    return Observer(Partial(_row_metrics, task, test, Frozen(row)), variables)


def bind_observers(observers: Sequence[Observer]) -> tuple[Observer, ...]:
    """Turn plain functions in observers into ``Partial``, since jit needs pytrees.

    Raises:
        TypeError: if observers is not a list of observers.
    """
    remedy = "such as [gossipjax.observe.consensus_distance()], or Observer(measure, (Variable(name, meaning),))"
    checked = sequence_of("observers", observers, Observer, remedy)
    for number, observer in enumerate(checked):
        declared = f"observers[{number}].variables"
        sequence_of(declared, observer.variables, Variable, "such as (Variable('loss', 'what it means'),)")
    measure = "measure(snapshot) -> {name: array}"
    return tuple(
        Observer(as_partial(f"observers[{number}].measure", each.measure, measure), tuple(each.variables))
        for number, each in enumerate(checked)
    )


@jax.jit
def _measure(measure: Partial, snapshot: Snapshot) -> Any:
    with placement.using("vmap"):  # so that the result does not depend on the number of devices
        return measure(snapshot)


def measure_program(observer: Observer, x: PyTree[jax.ShapeDtypeStruct], versions: Any, meter: Any) -> Any:
    """Return the traced program of one measurement; equal functions and shapes are traced once."""
    number, time = jax.ShapeDtypeStruct((), jnp.uint32), jax.ShapeDtypeStruct((), jnp.float32)
    return _measure.trace(observer.measure, Snapshot(number, time, x, versions, meter))  # type: ignore[arg-type]


def check_observers(
    observers: Sequence[Observer], x: PyTree[jax.ShapeDtypeStruct], versions: Any = None, meter: Any = None
) -> dict[str, jax.ShapeDtypeStruct]:
    """Check that every observer measures what it declares; return shapes and dtypes of all measurements.

    Raises:
        ValueError: if a name is declared twice, missing, undeclared or reserved, or has other dimensions than declared.
        TypeError: if a measurement is not a dict.
    """
    forms: dict[str, jax.ShapeDtypeStruct] = {}
    for observer in observers:
        measured = measure_program(observer, x, versions, meter).out_info
        instance("observer.measure(snapshot)", measured, dict, "return measurements as {name: array}")
        declared = {variable.name: variable for variable in observer.variables}
        if set(measured) != set(declared):
            raise ValueError(f"an observer declares {sorted(declared)} but measures {sorted(measured)}")
        for name, array in measured.items():
            if name in RECORDED:
                raise ValueError(f"an observer measures {name!r}, which every record has; give it another name")
            if name in forms:
                raise ValueError(f"two observers measure {name!r}; give one of them another name")
            if len(array.shape) != len(declared[name].dims):
                raise ValueError(f"{name!r} has shape {array.shape} but declares dimensions {declared[name].dims}")
        forms |= measured
    return forms
