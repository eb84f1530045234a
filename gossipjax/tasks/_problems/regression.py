"""Linear and logistic regression on synthetic data with known optimum."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int, Key

from gossipjax._base.arguments import optional_whole, real, whole
from gossipjax._base.arguments import seed as checked_seed
from gossipjax._base.binding import Frozen
from gossipjax._base.calls import recorded
from gossipjax._base.lazy import special
from gossipjax._base.memory import check_memory
from gossipjax._base.placement import by_shards
from gossipjax._base.shards import rows_of_nodes
from gossipjax.tasks._problems.quadratic import in_range, parameter_type
from gossipjax.types import Task


def _init(optimum: Array, key: Key[Array, ""]) -> Float[Array, " d"]:
    del key
    return jnp.zeros_like(optimum)


def _shards(size: Frozen[int | None], data: dict[str, Array], nodes: Int[np.ndarray, " m"]) -> dict[str, Any]:
    del size
    return rows_of_nodes(data, nodes)


@by_shards(_shards)
def _batch(size: Frozen[int | None], key: Key[Array, ""], data: dict[str, Any], node: Array) -> dict[str, Array]:
    features, responses = data["features"][node], data["responses"][node]
    if size.value is not None:
        picks = jax.random.randint(key, (size.value,), 0, features.shape[0])
        features, responses = features[picks], responses[picks]
    return {"features": features, "responses": responses, "penalty": data["penalty"]}


def _squared_loss(key: Key[Array, ""] | None, x: Array, batch: dict[str, Array]) -> Float[Array, ""]:
    del key
    residual = batch["features"] @ x - batch["responses"]
    return 0.5 * jnp.mean(jnp.square(residual)) + 0.5 * batch["penalty"] * jnp.sum(jnp.square(x))


def _logistic_loss(key: Key[Array, ""] | None, x: Array, batch: dict[str, Array]) -> Float[Array, ""]:
    del key
    margin = (batch["features"] @ x) * batch["responses"]
    return jnp.mean(jax.nn.softplus(-margin)) + 0.5 * batch["penalty"] * jnp.sum(jnp.square(x))


def _metrics(loss: Partial, x: Array, test: dict[str, Array]) -> dict[str, Array]:
    flat = test["features"].reshape(-1, test["features"].shape[-1])
    batch = {"features": flat, "responses": test["responses"].reshape(-1), "penalty": test["penalty"]}
    return {"objective": loss(None, x, batch), "squared_error": jnp.sum(jnp.square(x - test["optimum"]))}


def _check_sizes(num_nodes: int, samples_per_node: int, dimension: int, batch_size: int | None) -> None:
    num_nodes = whole("num_nodes", num_nodes, least=1, most=2**31 - 1)
    samples_per_node = whole("samples_per_node", samples_per_node, least=1, most=2**31 - 1)
    dimension = whole("dimension", dimension, least=1, most=2**31 - 1)
    optional_whole("batch_size", batch_size, least=1, most=samples_per_node, remedy="or None for all samples of a node")
    numbers = num_nodes * samples_per_node * dimension + num_nodes * dimension + dimension**2
    sizes = f"num_nodes={num_nodes}, samples_per_node={samples_per_node}, dimension={dimension}"
    check_memory(sizes, 8 * numbers, "take fewer of any")


def _task(loss, features, responses, penalty, optimum, batch_size, dtype) -> Task:
    kind = parameter_type(dtype)
    data = {"features": features, "responses": responses, "penalty": penalty}
    about = "heterogeneity, noise_std or penalty is too large: "
    data = {name: in_range(about + name, values, kind) for name, values in data.items()}
    best = in_range(about + "optimum", optimum, kind)
    return Task(
        Partial(_init, best),
        Partial(_batch, Frozen(batch_size)),
        Partial(loss),
        Partial(_metrics, Partial(loss)),
        data,
        data | {"optimum": best},
        num_nodes=features.shape[0],
    )


@recorded()
def linear_regression(
    num_nodes: int,
    samples_per_node: int,
    dimension: int,
    *,
    heterogeneity: float = 0.0,
    noise_std: float = 0.1,
    penalty: float = 0.0,
    batch_size: int | None = None,
    seed: int = 0,
    dtype=None,
) -> Task:
    """Build least squares: ``f_i(x) = (1/2m) ‖A_i x − y_i‖² + (λ/2)‖x‖²`` with standard normal A_i (m, d).

    ``y_i = A_i (x_true + h z_i) + ε``, where z_i is standard normal, drawn per node. The optimum of the mean objective,
    in ``task.test["optimum"]``, solves ``(Σ A_iᵀA_i / nm + λ I) x* = Σ A_iᵀ y_i / nm``.

    Args:
        num_nodes: n.
        samples_per_node: m.
        dimension: d.
        heterogeneity: h ≥ 0, the spread of the nodes' solutions.
        noise_std: standard deviation of ε.
        penalty: λ ≥ 0.
        batch_size: samples drawn (with replacement) per step; None: all m, the exact gradient.
        seed: of the NumPy generator that draws the data.
        dtype: of data and parameters; None: JAX's default float.

    Returns:
        A task whose models are vectors (d,), starting at zero, with metrics ``objective`` and ``squared_error``.

    Raises:
        ValueError: if a number is out of range, or the penalty is 0 and there are fewer samples than dimensions, so
            that the optimum is not unique.
    """
    _check_sizes(num_nodes, samples_per_node, dimension, batch_size)
    heterogeneity, noise_std = real("heterogeneity", heterogeneity, least=0), real("noise_std", noise_std, least=0)
    penalty, rng = real("penalty", penalty, least=0), np.random.default_rng(checked_seed(seed))
    if penalty == 0 and num_nodes * samples_per_node < dimension:
        raise ValueError(
            f"dimension={dimension}: with {num_nodes * samples_per_node} samples in all the optimum is not unique: "
            "take more samples or a penalty above 0"
        )
    features = rng.standard_normal((num_nodes, samples_per_node, dimension))
    truth = rng.standard_normal(dimension) + heterogeneity * rng.standard_normal((num_nodes, dimension))
    responses = np.einsum("nmd,nd->nm", features, truth)
    responses = responses + noise_std * rng.standard_normal(responses.shape)
    flat = features.reshape(-1, dimension)
    gram = flat.T @ flat / len(flat) + penalty * np.eye(dimension)
    optimum = np.linalg.solve(gram, flat.T @ responses.ravel() / len(flat))
    return _task(_squared_loss, features, responses, penalty, optimum, batch_size, dtype)


@recorded()
def logistic_regression(
    num_nodes: int,
    samples_per_node: int,
    dimension: int,
    *,
    heterogeneity: float = 0.0,
    penalty: float = 0.01,
    batch_size: int | None = None,
    seed: int = 0,
    dtype=None,
) -> Task:
    """Build ``f_i(x) = (1/m) Σ log(1 + exp(−y a·x)) + (λ/2)‖x‖²``, with labels ±1 drawn from the logistic model.

    Newton's method computes the optimum, in ``task.test["optimum"]``, to a gradient norm below 1e-12.

    Args:
        num_nodes: n.
        samples_per_node: m.
        dimension: d.
        heterogeneity: h ≥ 0: the labels of node i are drawn with x_true + h z_i.
        penalty: λ > 0, which makes the optimum unique.
        batch_size: samples drawn (with replacement) per step; None: all m, the exact gradient.
        seed: of the NumPy generator that draws the data.
        dtype: of data and parameters; None: JAX's default float.

    Returns:
        A task whose models are vectors (d,), starting at zero, with metrics ``objective`` and ``squared_error``.

    Raises:
        ValueError: if a number is out of range.
    """
    _check_sizes(num_nodes, samples_per_node, dimension, batch_size)
    heterogeneity = real("heterogeneity", heterogeneity, least=0)
    penalty = real("penalty", penalty, above=0, remedy="separable data have no optimum without it")
    rng = np.random.default_rng(checked_seed(seed))
    features = rng.standard_normal((num_nodes, samples_per_node, dimension))
    truth = rng.standard_normal(dimension) + heterogeneity * rng.standard_normal((num_nodes, dimension))
    chance = special.expit(np.einsum("nmd,nd->nm", features, truth))
    responses = np.where(rng.random(chance.shape) < chance, 1.0, -1.0)
    optimum = _newton(features.reshape(-1, dimension), responses.ravel(), penalty)
    return _task(_logistic_loss, features, responses, penalty, optimum, batch_size, dtype)


def _newton(features: np.ndarray, responses: np.ndarray, penalty: float) -> np.ndarray:
    """Minimise the regularised logistic loss; its Hessian is bounded below, so damped Newton steps converge."""

    def loss(x: np.ndarray) -> float:
        return float(np.mean(np.logaddexp(0.0, -responses * (features @ x))) + 0.5 * penalty * x @ x)

    x = np.zeros(features.shape[1])
    for _ in range(100):
        share = special.expit(-responses * (features @ x))
        gradient = -features.T @ (responses * share) / len(features) + penalty * x
        if np.linalg.norm(gradient) < 1e-12:
            return x
        hessian = (features * (share * (1 - share))[:, None]).T @ features / len(features)
        step = np.linalg.solve(hessian + penalty * np.eye(len(x)), gradient)
        scale = 1.0
        while loss(x - scale * step) > loss(x) + 1e-15 and scale > 1e-6:
            scale /= 2
        x = x - scale * step
    raise ValueError(f"penalty={penalty:g}: Newton's method did not reach a gradient norm of 1e-12; raise it")
