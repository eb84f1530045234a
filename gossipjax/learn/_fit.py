"""Minimize an outcome over its parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jax.tree_util import Partial
from jaxtyping import Array, Float, Key, PyTree

from gossipjax._base.arguments import callable_, flag, shown, whole
from gossipjax._base.binding import as_factory
from gossipjax._base.leaves import one_key
from gossipjax._base.progress import progress_bar
from gossipjax.learn._checks import float_tree

Outcome = Callable[..., Any]
FLAT = 1e-4
"""Largest entry of the gradient, as a share of the outcome or of 1, at which a search counts as converged."""


class Fit(NamedTuple):
    """The best parameters of a search, and how it went."""

    parameters: PyTree[Float[np.ndarray, "..."]]
    """As the start, in float64 after L-BFGS."""
    value: float
    """The outcome there."""
    history: Float[np.ndarray, " steps"]
    """The outcome after each step; of L-BFGS after each iteration."""
    converged: bool
    """Whether L-BFGS ended by its tolerance, where the gradient is nearly 0; False for an optax optimizer."""


def fit(
    outcome: Outcome,
    start: PyTree,
    *,
    optimizer: optax.GradientTransformation | Partial | None = None,
    key: Key[Array, ""] | None = None,
    steps: int = 500,
    progress: bool | None = None,
) -> Fit:
    """Minimize an outcome by its gradient: L-BFGS in float64, or any optax optimizer.

    Errors that fall by orders of magnitude are best minimized as logarithms.

    >>> import gossipjax as gj, jax, jax.numpy as jnp
    >>> ring = gj.topology.ring(16)
    >>> plan = gj.timeline.rounds(gj.mixing.metropolis(ring), 8)
    >>> def outcome(weight):
    ...     mixing = gj.learn.edge_weights(ring, jnp.full(16, weight))
    ...     return jnp.log(gj.learn.consensus_error(gj.timeline.with_mixing(plan, mixing)))
    >>> found = gj.learn.fit(outcome, 1 / 3)
    >>> round(float(found.parameters), 4), round(float(jnp.exp(found.value)), 5)
    (0.4427, 0.04338)

    Args:
        outcome: ``outcome(parameters)``, a real number that JAX can differentiate; ``outcome(parameters, key)`` if a
            key is given.
        start: a pytree of floating-point numbers and arrays.
        optimizer: None: L-BFGS of SciPy, for outcomes without noise and up to some thousand parameters; else an optax
            transformation, such as ``optax.adam(0.01)``, which keeps the floating-point types of the start.
        key: of random outcomes: each step of an optax optimizer draws with a key of its own, L-BFGS always with this.
        steps: largest number of steps.
        progress: show a progress bar; None: only on a terminal.

    Returns:
        The best parameters found by L-BFGS; the last ones of an optax optimizer, as single values are noisy.

    Raises:
        TypeError: if the start holds anything but floating-point numbers, or the outcome is no real number.
        ValueError: if the outcome or its gradient is not finite at the start, or at a step of an optax optimizer.
    """
    callable_("outcome", outcome, "outcome(parameters), a real number")
    steps, start = whole("steps", steps, least=1), float_tree("start", start)
    key = None if key is None else one_key(key)
    progress = None if progress is None else flag("progress", progress)
    if optimizer is None:
        return _by_lbfgs(outcome, start, key, steps, progress)
    return _by_optax(outcome, start, as_factory(optimizer)(), key, steps, progress)


def _with_gradient(outcome: Outcome, unravel: Callable[[Array], PyTree], key: Key[Array, ""] | None) -> Any:
    def value(flat: Array, key: Key[Array, ""] | None) -> Array:
        found = outcome(unravel(flat)) if key is None else outcome(unravel(flat), key)
        if jnp.shape(found) != () or not jnp.issubdtype(jnp.result_type(found), jnp.floating):
            raise TypeError(f"the outcome is {shown(found)}: must be one real number, such as a mean")
        return found

    return jax.jit(jax.value_and_grad(value))


def _check_finite(value: Any, gradient: Any, where: str) -> None:
    if not (np.isfinite(value) and np.isfinite(gradient).all()):
        raise ValueError(
            f"the outcome {where} is {value}, and {np.sum(~np.isfinite(gradient))} of {np.size(gradient)} parts of its "
            "gradient are not finite; start elsewhere, or take smaller steps"
        )


def _by_lbfgs(outcome: Outcome, start: PyTree, key: Any, steps: int, progress: bool | None) -> Fit:
    from scipy import optimize  # slow to import

    with jax.enable_x64(True), progress_bar(progress, "L-BFGS", steps) as show:
        flat, unravel = ravel_pytree(jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), start))
        function, history = _with_gradient(outcome, unravel, key), []
        value, gradient = map(np.asarray, function(flat, key))
        _check_finite(value, gradient, "at the start")
        best: tuple[float, np.ndarray] = float(value), np.asarray(flat)

        def of(point: np.ndarray) -> tuple[float, np.ndarray]:
            nonlocal best
            value, gradient = map(np.asarray, function(jnp.asarray(point), key))
            if np.isfinite(value) and np.isfinite(gradient).all():
                best = min(best, (float(value), point.copy()), key=lambda one: one[0])
                return float(value), gradient
            # SciPy gives up at infinity, and takes a shorter step after a value that is merely large.
            return best[0] + 1e3 * max(1.0, abs(best[0])), np.zeros_like(point)

        def note(intermediate_result: Any) -> None:
            history.append(float(intermediate_result.fun))
            show(len(history))

        options = {"maxiter": steps, "maxfun": 20 * steps, "ftol": 1e-13, "gtol": 1e-9}
        found = optimize.minimize(of, np.asarray(flat), jac=True, method="L-BFGS-B", callback=note, options=options)
        flat_best = jnp.asarray(best[1])
        slope = float(np.abs(np.asarray(function(flat_best, key)[1])).max())
        parameters = jax.tree.map(np.asarray, unravel(flat_best))
    converged = bool(found.success) and slope <= FLAT * max(1.0, abs(best[0]))
    return Fit(parameters, best[0], np.asarray(history), converged)


def _by_optax(outcome: Outcome, start: PyTree, optimizer: Any, key: Any, steps: int, progress: bool | None) -> Fit:
    flat, unravel = ravel_pytree(jax.tree.map(jnp.asarray, start))
    function, state, history = _with_gradient(outcome, unravel, key), optimizer.init(flat), []

    @jax.jit
    def advance(flat: Array, state: Any, key: Any) -> tuple[Array, Any, Array, Array]:
        value, gradient = function(flat, key)
        updates, state = optimizer.update(gradient, state, flat)
        return optax.apply_updates(flat, updates), state, value, gradient

    with progress_bar(progress, "steps", steps) as show:
        for step in range(steps):
            own_key = None if key is None else jax.random.fold_in(key, step)
            flat, state, value, gradient = advance(flat, state, own_key)
            _check_finite(np.asarray(value), np.asarray(gradient), f"at step {step}")
            history.append(float(value))
            show(step + 1)
    last, gradient = function(flat, None if key is None else jax.random.fold_in(key, steps))
    _check_finite(np.asarray(last), np.asarray(gradient), "after the last step")
    return Fit(jax.tree.map(np.asarray, unravel(flat)), float(last), np.asarray([*history[1:], float(last)]), False)
