"""Choice of the consensus step size by trial, since published bounds are hundreds of times too small."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gossipjax._base.arguments import reals, whole
from gossipjax._base.arguments import seed as check_seed
from gossipjax._base.binding import Frozen
from gossipjax.compress._compressor import Compressor, as_compressor
from gossipjax.mixing._build import from_matrix
from gossipjax.mixing._stochastic import Matrix, is_doubly_stochastic, is_symmetric
from gossipjax.sharing._choco import choco
from gossipjax.types import Event

CANDIDATES = tuple(float(gamma) for gamma in np.logspace(-3, 0, 20))
"""Default candidates, evenly spaced on a logarithmic scale."""


@jax.jit
def _errors(
    gammas, key, compressor: Compressor, mixing: Any, x0: Array, num_rounds: Frozen[int]
) -> tuple[Float[Array, " g"], Float[Array, " g"], Float[Array, " g"]]:
    """Return the disagreement ``Σ_i ‖x_i − x̄‖²`` after T/2 and T rounds, and the error, relative to the start.

    The error is the disagreement plus ``Σ_i ‖x_i − x̂_i‖²`` after T rounds.
    """
    half = max(1, num_rounds.value // 2)

    def disagreement(x: Array) -> Array:
        return jnp.sum((x - jnp.mean(x, axis=0, keepdims=True)) ** 2)

    def one(gamma: Array) -> tuple[Array, Array, Array]:
        said = choco(compressor, gamma)

        def step(carry: Any, number: Array) -> tuple[Any, None]:
            x, state = carry
            event = Event(index=number[None], time=jnp.zeros(1), mixing=mixing)
            state, (payload, _) = said.encode(key, state, x, x, event)
            state, x = said.merge(key, state, (x, payload, event))
            return (x, state), None

        def part(carry: Any, first: int, stop: int) -> Any:
            return jax.lax.scan(step, carry, jnp.arange(first, stop, dtype=jnp.uint32))[0]

        middle = part((x0, said.init(x0)), 0, half)
        x, state = part(middle, half, num_rounds.value)
        start = disagreement(x0)
        error = disagreement(x) + jnp.sum((x - state.estimate) ** 2)
        return disagreement(middle[0]) / start, disagreement(x) / start, error / start

    return jax.lax.map(one, gammas)


def tune_gamma(
    compressor: Compressor,
    weights: Matrix,
    dimension: int,
    *,
    candidates: Sequence[float] = CANDIDATES,
    num_rounds: int = 1000,
    seed: int = 0,
) -> float:
    """Choose CHOCO's consensus step size γ: run gossip on Gaussian vectors with each candidate, and return the best.

    Minimises ``Σ_i ‖x_i − x̄‖² + ‖x_i − x̂_i‖²`` after T rounds without gradients, among the candidates whose
    disagreement still decreases in the second half. With gradients or sparse vectors a smaller step may be better: also
    try the candidates beside the result.

    >>> from gossipjax import compress, topology, mixing
    >>> ring = mixing.metropolis(topology.ring(9))
    >>> 0.01 < tune_gamma(compress.top_k(share=0.1), ring, 50, num_rounds=200) < 0.9
    True

    Args:
        compressor: Q of :func:`~gossipjax.sharing.choco`.
        weights: mixing matrix ``(n, n)``, symmetric and doubly stochastic.
        dimension: dimension d of the vectors, that of the model or smaller; quality depends on the share that is sent.
        candidates: step sizes to try.
        num_rounds: T ≥ 2.
        seed: seed of the vectors and of Q.

    Returns:
        The best candidate.

    Raises:
        ValueError: if dimension or num_rounds is too small, candidates are empty or not positive, the matrix is not
            symmetric and doubly stochastic, or the disagreement decreases in both halves with no candidate.

    Reference: the tuner in the released code of Koloskova, Lin, Stich, Jaggi 2020, arXiv 1907.09356.
    """
    as_compressor(compressor)
    dimension, num_rounds = whole("dimension", dimension, least=1), whole("num_rounds", num_rounds, least=2)
    if not reals("candidates", candidates, shape=(None,), above=0, remedy="consensus step sizes").size:
        raise ValueError("candidates is empty: give at least one consensus step size")
    if not (is_symmetric(weights) and is_doubly_stochastic(weights)):
        raise ValueError("CHOCO needs symmetric, doubly stochastic weights: take mixing.metropolis of the graph")
    x0 = np.random.default_rng(check_seed(seed)).standard_normal((weights.shape[0], dimension))
    gammas = jnp.asarray(candidates, jnp.result_type(float))
    middle, last, error = map(
        np.asarray,
        _errors(gammas, jax.random.key(seed), compressor, from_matrix(weights), jnp.asarray(x0), Frozen(num_rounds)),
    )
    rounding = float(np.finfo(x0.dtype if jax.config.jax_enable_x64 else np.float32).eps) ** 2 * 100  # type: ignore[attr-defined]
    good = (last < 1.0) & ((last < middle) | (last < rounding)) & np.isfinite(error)
    if not good.any():
        raise ValueError(
            f"no candidate from {min(candidates):g} to {max(candidates):g} reduces the disagreement in both halves of "
            f"{num_rounds} rounds: try smaller ones, or more rounds"
        )
    return float(candidates[int(np.argmin(np.where(good, error, np.inf)))])
