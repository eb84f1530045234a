"""Quadratics with known optimum, known gradient noise and adjustable heterogeneity, as an exact test oracle."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Key

from gossipjax._base.arguments import real, reals, shown
from gossipjax._base.calls import recorded
from gossipjax._base.placement import by_shards
from gossipjax._base.shards import rows_of_nodes
from gossipjax.types import Task


def _init(dimension: Array, key: Key[Array, ""]) -> Float[Array, " d"]:
    del key
    return jnp.zeros_like(dimension)


@by_shards(rows_of_nodes)
def _batch(key: Key[Array, ""], data: dict[str, Any], node: Array) -> dict[str, Array]:
    targets = data["targets"]
    noise = jax.random.normal(key, targets.shape[1:], targets.dtype)
    return {"curvature": data["curvature"][node], "target": targets[node], "noise": data["noise_std"] * noise}


def _loss(key: Key[Array, ""], x: Array, batch: dict[str, Array]) -> Float[Array, ""]:
    del key
    return 0.5 * jnp.sum(batch["curvature"] * jnp.square(x - batch["target"])) + jnp.sum(batch["noise"] * x)


def _metrics(x: Array, test: dict[str, Array]) -> dict[str, Array]:
    objective = 0.5 * jnp.sum(test["curvature"] * jnp.square(x[None] - test["targets"])) / test["targets"].shape[0]
    return {"objective": objective, "squared_error": jnp.sum(jnp.square(x - test["optimum"]))}


def parameter_type(dtype: Any) -> jnp.dtype:
    """Return the type of the parameters; None is JAX's default float.

    Raises:
        ValueError: if it is not a floating-point type, or JAX would silently narrow it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecated names, which are not floating-point types either
            kind = jnp.dtype(jnp.result_type(float) if dtype is None else dtype)
        if isinstance(dtype, np.ndarray | jax.Array):
            raise TypeError("an array is not a type")
    except (TypeError, ValueError) as error:
        raise ValueError(f"dtype={shown(dtype)}: must be a floating-point type such as 'float32'") from error
    if not jnp.issubdtype(kind, jnp.floating):
        raise ValueError(f"dtype={shown(dtype)}: must be a floating-point type such as 'float32', not {kind}")
    if jax.dtypes.canonicalize_dtype(kind) != kind:
        raise ValueError(f"dtype={shown(dtype)}: {kind} is disabled in JAX; call gossipjax.configure(x64=True) first")
    return kind


def in_range(name: str, values: Any, kind: jnp.dtype) -> Array:
    """Convert numbers to the type of the parameters.

    Raises:
        ValueError: if this type cannot hold a number.
    """
    if isinstance(values, jax.core.Tracer):
        return jnp.asarray(values, kind)
    with np.errstate(over="ignore"):
        array = np.asarray(values).astype(kind)
    if not np.isfinite(array).all():
        raise ValueError(f"{name}={shown(values)}: holds numbers beyond the range of {kind}; lower them")
    return jnp.asarray(array)


@recorded()
def quadratic(
    targets: ArrayLike | Sequence[Sequence[float]], *, curvature: ArrayLike = 1.0, noise_std: float = 0.0, dtype=None
) -> Task:
    """Build ``f_i(x) = ½ Σ_c a_ic (x_c − b_ic)²`` with gradient ``a_i (x − b_i) + σ ξ``, ξ standard normal.

    The optimum of ``(1/n) Σ f_i`` is ``x*_c = Σ_i a_ic b_ic / Σ_i a_ic``, in ``task.test["optimum"]``.

    Args:
        targets: b, shape (n, d).
        curvature: a > 0, one number or an array (n, 1), (1, d) or (n, d).
        noise_std: σ ≥ 0, noise of each gradient coordinate, drawn anew at every step.
        dtype: of the parameters; None: JAX's default float.

    Returns:
        A task whose models are vectors (d,), starting at zero, with metrics ``objective`` and ``squared_error``.

    Raises:
        ValueError: if a shape is wrong, a number is NaN, curvature ≤ 0 or noise_std < 0.
    """
    b = reals("targets", targets, shape=(None, None), remedy="rows are nodes, columns are dimensions")
    if b.size == 0:
        raise ValueError(f"targets of shape {b.shape}: pass a non-empty array (nodes, dimensions)")
    a = reals("curvature", curvature, above=0, remedy="so that the optimum is unique")
    try:
        a = np.broadcast_to(a, b.shape)
    except ValueError as error:
        raise ValueError(f"curvature of shape {a.shape} does not broadcast to targets {b.shape}") from error
    noise_std, kind = real("noise_std", noise_std, least=0), parameter_type(dtype)
    optimum = (a * b).sum(0) / a.sum(0)
    known = {"targets": in_range("targets", b, kind), "curvature": in_range("curvature", a, kind)}
    data, best = known | {"noise_std": in_range("noise_std", noise_std, kind)}, in_range("targets", optimum, kind)
    test = known | {"optimum": best}
    return Task(
        Partial(_init, best), Partial(_batch), Partial(_loss), Partial(_metrics), data, test, num_nodes=b.shape[0]
    )
