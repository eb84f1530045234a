"""Quadratics with known optimum, known gradient noise and adjustable heterogeneity: the exact oracle of learning."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Key

from gossipjax.types import Task


def _init(dimension: Array, key: Key[Array, ""]) -> Float[Array, " d"]:
    del key
    return jnp.zeros_like(dimension)


def _batch(key: Key[Array, ""], data: dict[str, Array], node: Array) -> dict[str, Array]:
    targets = data["targets"]
    noise = jax.random.normal(key, targets.shape[1:], targets.dtype)
    return {"curvature": data["curvature"][node], "target": targets[node], "noise": data["noise_std"] * noise}


def _loss(key: Key[Array, ""], x: Array, batch: dict[str, Array]) -> Float[Array, ""]:
    del key
    return 0.5 * jnp.sum(batch["curvature"] * jnp.square(x - batch["target"])) + jnp.sum(batch["noise"] * x)


def _metrics(x: Array, test: dict[str, Array]) -> dict[str, Array]:
    objective = 0.5 * jnp.sum(test["curvature"] * jnp.square(x[None] - test["targets"])) / test["targets"].shape[0]
    return {"objective": objective, "squared_error": jnp.sum(jnp.square(x - test["optimum"]))}


def quadratic(
    targets: ArrayLike | Sequence[Sequence[float]], *, curvature: ArrayLike = 1.0, noise_std: float = 0.0, dtype=None
) -> Task:
    """Build ``f_i(x) = ½ Σ_c a_ic (x_c − b_ic)²`` with gradient ``a_i (x − b_i) + σ ξ``, ξ standard normal.

    The optimum of ``(1/n) Σ f_i`` is ``x*_c = Σ_i a_ic b_ic / Σ_i a_ic``, in ``task.test["optimum"]``.

    Args:
        targets: b, shape (n, d).
        curvature: a > 0, a number, (n, 1), (1, d) or (n, d).
        noise_std: σ ≥ 0 of each gradient coordinate, fresh at every step.
        dtype: of the parameters; None: JAX's default float.

    Returns:
        A task whose models are vectors (d,), starting at zero, with metrics ``objective`` and ``squared_error``.

    Raises:
        ValueError: wrong shapes, NaN, curvature ≤ 0 or noise_std < 0.
    """
    b = np.asarray(targets, dtype=np.float64)
    if b.ndim != 2 or b.size == 0 or not np.isfinite(b).all():
        raise ValueError(f"targets of shape {b.shape}: pass a finite array (nodes, dimensions), neither of them zero")
    try:
        a = np.broadcast_to(np.asarray(curvature, dtype=np.float64), b.shape)
    except ValueError as error:
        raise ValueError(f"curvature of shape {np.shape(curvature)} does not broadcast to targets {b.shape}") from error
    if not (np.isfinite(a).all() and (a > 0).all()):
        raise ValueError("curvature must be positive and finite everywhere, so that the optimum is unique")
    if not (np.isfinite(noise_std) and noise_std >= 0):
        raise ValueError(f"noise_std={noise_std}: a standard deviation must be finite and not negative")
    optimum = (a * b).sum(0) / a.sum(0)
    kind = jnp.dtype(dtype or jnp.result_type(float))
    known = {"targets": jnp.asarray(b, kind), "curvature": jnp.asarray(a, kind)}
    data, best = known | {"noise_std": jnp.asarray(noise_std, kind)}, jnp.asarray(optimum, kind)
    test = known | {"optimum": best}
    return Task(
        Partial(_init, best), Partial(_batch), Partial(_loss), Partial(_metrics), data, test, num_nodes=b.shape[0]
    )
