"""A soft topology: which edges of a graph to keep, learned by gradients and then decided."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Bool, Float

from gossipjax._base.arguments import callable_, flag, real, shown, whole
from gossipjax._base.arguments import seed as checked_seed
from gossipjax._base.calls import recordable, recorded
from gossipjax._base.progress import progress_bar
from gossipjax.learn._checks import float_array
from gossipjax.learn._weights import edge_ends
from gossipjax.topology import Topology
from gossipjax.topology._graph import undirected

HALVINGS = 60
"""Of the interval in which the threshold lies."""


@recordable
class ChosenEdges(NamedTuple):
    """The edges that were kept, and how the search went."""

    graph: Topology
    """Of the chosen edges."""
    value: float
    """The outcome of this graph, with its Metropolis weights: nothing about it is soft."""
    weights: Float[np.ndarray, " edges"]
    """These weights, and 0 for the other edges, in the order of the whole graph."""
    gates: Float[np.ndarray, " edges"]
    """At the end of the start that found the graph: near 1 for edges that this start would keep in any case."""
    history: Float[np.ndarray, " steps"]
    """The outcome of the best graph after each step, over all starts."""


def edge_gates(free: Float[Array | np.ndarray, "..."], num_edges: int) -> Float[Array, " edges"]:
    """Map finite numbers to gates in [0, 1] that sum to a number of edges, ``s_e = 1 / (1 + exp(c − free_e))``.

    The threshold c is the one with ``Σ_e s_e = k``. Large differences of the numbers make gates of nearly 0 and 1: then
    the k largest are open. Differentiable.

    >>> import jax.numpy as jnp, gossipjax as gj
    >>> gj.learn.edge_gates(jnp.asarray([9.0, -9.0, 9.0, -9.0]), 2).round(3).tolist()
    [1.0, 0.0, 1.0, 0.0]

    Args:
        free: ``(edges,)``, one number for each edge, as in :func:`edge_weights`.
        num_edges: k, from 1 to the number of edges.

    Raises:
        TypeError: if the numbers are not floating-point numbers.
        ValueError: if they are no vector, there are fewer than k, or one is not finite.
    """
    numbers = float_array("free", free)
    if numbers.ndim != 1 or not numbers.size:
        raise ValueError(f"free={shown(free)}: must be a vector, one number for each edge")
    k = whole("num_edges", num_edges, least=1, most=numbers.size)
    if not isinstance(numbers, jax.core.Tracer) and not bool(jnp.isfinite(numbers).all()):
        raise ValueError(f"free={shown(free)}: must be finite; large differences of the numbers shut or open an edge")
    if k == numbers.size:
        return jnp.ones_like(numbers)
    # Relative to the k-th largest, a, for only differences matter; b is the next one. The k + 1 largest gates sum to
    # more than k at the threshold b − ln n, and all but the k − 1 largest to less than 1 at a + ln n.
    ordered = lax.stop_gradient(jnp.sort(numbers))
    relative, margin = numbers - ordered[-k], math.log(numbers.size)
    low, high = ordered[-k - 1] - ordered[-k] - margin, jnp.full_like(ordered[-k], margin)
    low = jnp.maximum(low, jnp.finfo(numbers.dtype).min / 2)

    def excess(threshold: Array) -> Array:
        return jax.nn.sigmoid(relative - threshold).sum() - k

    def solve(excess: Callable[[Array], Array], start: Array) -> Array:
        def halve(_: Any, ends: tuple[Array, Array]) -> tuple[Array, Array]:
            middle = (ends[0] + ends[1]) / 2
            found = excess(middle)
            return jnp.where(found >= 0, middle, ends[0]), jnp.where(found <= 0, middle, ends[1])

        return sum(lax.fori_loop(0, HALVINGS, halve, (low, high))) / 2

    def divide(slope: Callable[[Array], Array], value: Array) -> Array:
        return value / jnp.minimum(slope(jnp.ones_like(value)), -jnp.finfo(numbers.dtype).tiny)

    return jax.nn.sigmoid(relative - lax.custom_root(excess, jnp.zeros_like(low), solve, divide))


@recorded("bengio2013estimating")
def choose_edges(
    outcome: Callable[[Any], Any],
    graph: Topology,
    num_edges: int,
    *,
    learning_rate: float = 1.0,
    steps: int = 200,
    restarts: int = 8,
    seed: int,
    progress: bool | None = None,
) -> ChosenEdges:
    """Learn which k edges of a graph to keep, by gradients through gates (straight-through, with Gumbel noise).

    Every edge has a number a_e and a gate s_e, see :func:`edge_gates`. A step opens the k gates with the largest
    ``a_e + g_e``, where g is fresh Gumbel noise, and shuts the others. It computes the outcome of this graph, with its
    Metropolis weights in a form that knows gates between 0 and 1::

        w_e = z_e / (1 + max(Z_i, Z_j))        z_e ∈ {0, 1}        Z_i = Σ of z over the edges of i

    The gradient with respect to z says of every edge, open or shut, what it is worth, and passes to a as if z were the
    soft gates of ``a + g``. Adam takes the step. Every outcome is that of a graph with k edges, and the best graph of
    all steps and starts is returned. Fractional graphs play no role. It is
    a local search: nothing says that no other edges are better.

    Learn the weights of the graph afterwards, with :func:`fit`.

    >>> import gossipjax as gj, jax.numpy as jnp
    >>> graph = gj.topology.complete(4)
    >>> plan = gj.timeline.rounds(gj.mixing.metropolis(graph), 2)
    >>> def outcome(weights):
    ...     mixing = gj.learn.edge_weights(graph, weights)
    ...     return jnp.log(gj.learn.consensus_error(gj.timeline.with_mixing(plan, mixing)))
    >>> found = gj.learn.choose_edges(outcome, graph, 4, steps=20, restarts=4, seed=0)
    >>> found.graph.degrees.tolist()  # a ring
    [2, 2, 2, 2]

    Args:
        outcome: ``outcome(weights)``, a real number that JAX can differentiate, of one weight for each edge of the
            graph. Errors that fall by orders of magnitude are best given as logarithms.
        graph: undirected; the edges to choose from.
        num_edges: k, from 1 to the number of edges.
        learning_rate: of Adam. The numbers a begin at 0, and a start settles when they are large against the noise,
            which is of size one: after some hundred steps of 1. Much less is a random search, much more settles early.
        steps: of each start; each computes the outcome and its gradient once.
        restarts: starts with other noise, which run side by side.
        seed: of the noise.
        progress: show a progress bar; None: only on a terminal.

    Raises:
        TypeError: if the outcome is no real number, or cannot be traced by JAX.
        ValueError: if a number is out of range, or the outcome is NaN or ∞ for every graph that was tried.

    Reference: the estimator is that of Bengio, Léonard, Courville 2013, "Estimating or propagating gradients through
        stochastic neurons"; its use for edges is ours.
    """
    callable_("outcome", outcome, "outcome(weights), a real number")
    first, second = edge_ends(graph)
    k = whole("num_edges", num_edges, least=1, most=first.size, remedy=f"{graph.name} has {first.size} edges")
    rate = real("learning_rate", learning_rate, above=0)
    steps, restarts = whole("steps", steps, least=1), whole("restarts", restarts, least=1)
    key = jax.random.key(checked_seed(seed))
    progress = None if progress is None else flag("progress", progress)
    search = _Search(outcome, graph, k, optax.adam(rate))
    numbers = jnp.zeros((restarts, first.size))
    best = _Best(jnp.full(restarts, jnp.inf), jnp.zeros(numbers.shape, bool))
    state, history = search.optimizer.init(numbers), []
    advance = jax.jit(search.advance)
    with progress_bar(progress, "steps", steps) as show:
        for step in range(steps):
            numbers, state, best = advance(jax.random.fold_in(key, step), numbers, state, best)
            history.append(best.value.min())
            show(step + 1)
    one = int(jnp.argmin(best.value))
    value, kept = float(best.value[one]), np.asarray(best.kept[one])
    if value == np.inf:  # −∞ is the logarithm of an exact average
        raise ValueError("outcome is NaN or ∞ for every graph that was tried; choose more edges, or make more restarts")
    chosen = undirected(graph.num_nodes, first[kept], second[kept], f"{k} edges of {graph.name}")
    weights, gates = search.weights(jnp.asarray(kept, numbers.dtype)), edge_gates(numbers[one], k)
    return ChosenEdges(chosen, value, np.asarray(weights), np.asarray(gates), np.asarray(history, np.float64))


class _Best(NamedTuple):
    """The best graph of each start."""

    value: Float[Array, " restarts"]
    kept: Bool[Array, "restarts edges"]


class _Search(NamedTuple):
    """What a step of all starts needs to know."""

    outcome: Callable[[Any], Any]
    graph: Topology
    num_edges: int
    optimizer: optax.GradientTransformation

    def weights(self, gates: Float[Array, " edges"]) -> Float[Array, " edges"]:
        """Return the Metropolis weights of a graph whose edges may be there in part."""
        first, second = edge_ends(self.graph)
        total = jnp.zeros(self.graph.num_nodes, gates.dtype).at[first].add(gates).at[second].add(gates)
        return gates / (1 + jnp.maximum(total[first], total[second]))

    def one(self, numbers: Float[Array, " edges"]) -> tuple[Array, Array]:
        """Return the outcome of the graph of the k largest numbers, with the gradient of soft gates; and its edges."""
        soft = edge_gates(numbers, self.num_edges)
        ranks = jnp.argsort(jnp.argsort(-numbers))
        hard = (ranks < self.num_edges).astype(soft.dtype)
        try:
            value = self.outcome(self.weights(soft + lax.stop_gradient(hard - soft)))
        except (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError) as error:
            raise TypeError(
                "outcome: needs the values of its weights while it is compiled, as float(…), numpy and if do; compute "
                "it with jax.numpy, for its gradient is taken"
            ) from error
        if jnp.shape(value) != () or not jnp.issubdtype(jnp.result_type(value), jnp.floating):
            raise TypeError(f"the outcome is {shown(value)}: must be one real number, such as a mean")
        return value, hard > 0.5

    def advance(self, key: Any, numbers: Array, state: Any, best: _Best) -> tuple[Array, Any, _Best]:
        """Take a step of every start."""
        noisy = numbers + jax.random.gumbel(key, numbers.shape, numbers.dtype)
        (value, kept), gradient = jax.vmap(jax.value_and_grad(self.one, has_aux=True))(noisy)
        legal = jnp.isfinite(gradient).all(axis=1, keepdims=True)
        with jax.numpy_dtype_promotion("standard"):  # Adam counts steps in integers
            updates, state = self.optimizer.update(jnp.where(legal, gradient, 0), state)
        better = value < best.value  # False for NaN
        best = _Best(jnp.where(better, value, best.value), jnp.where(better[:, None], kept, best.kept))
        return optax.apply_updates(numbers, updates), state, best
