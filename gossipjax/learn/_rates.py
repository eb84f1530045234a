"""How often each edge should meet: the rates that average fastest, and gradients with respect to rates."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gossipjax._base.arguments import callable_, real, reals, shown, whole
from gossipjax._base.arguments import seed as checked_seed
from gossipjax._base.memory import check_memory
from gossipjax._base.rows import check_stacked
from gossipjax._engine.loop import run
from gossipjax.learn._checks import float_tree
from gossipjax.learn._weights import edge_ends
from gossipjax.protocol import gossip_averaging
from gossipjax.timeline import poisson_edges
from gossipjax.timeline._checks import undirected
from gossipjax.topology import Topology
from gossipjax.topology._graph import require_connected
from gossipjax.types import NOBODY, Timeline


class BestRates(NamedTuple):
    """Rates of edges, and how good they are."""

    rates: Float[np.ndarray, " edges"]
    """Of mean one, in the order of the pairs ``graph.senders < graph.receivers``; some may be zero."""
    connectivity: float
    """λ₂ of ``Σ_e r_e b_e b_eᵀ`` for these rates."""
    bound: float
    """No rates of mean one have a larger λ₂."""


def best_rates(graph: Topology, *, tolerance: float = 1e-6, most_cuts: int = 5000) -> BestRates:
    """Find the rates of mean one at which pairwise averaging is fastest.

    They maximize λ₂ of ``L(r) = Σ_e r_e b_e b_eᵀ``, with b_e = 1 and −1 at the ends of edge e. If each edge meets at
    Poisson times of its rate and both ends take their average, the expected model obeys ``dE x/dt = −½ L(r) E x``, so
    its slowest part decays at the rate λ₂/2. λ₂ is the minimum over unit vectors v ⊥ 1 of ``Σ_e r_e (b_eᵀ v)²``, which
    is linear in r: linear programs with one cutting plane for each eigenvector met bound it from above. λ₂ of paths is
    ``12 / (n (n + 1))``, of stars 1. Takes a second for a dozen nodes, and minutes for fifty.

    >>> import gossipjax as gj
    >>> gj.learn.best_rates(gj.topology.path(4)).rates.round(3).tolist()
    [0.9, 1.2, 0.9]

    Args:
        graph: undirected and connected.
        tolerance: relative gap between λ₂ and its bound at which to stop, 10⁻¹² or more.
        most_cuts: largest number of planes.

    Raises:
        ValueError: if the graph is directed, disconnected, or has fewer than two nodes.
        RuntimeError: if the gap is not closed by ``most_cuts`` planes.

    Reference: Fiedler 1990, "Absolute algebraic connectivity of trees"; Kelley 1960 (cutting planes).
    """
    graph = require_connected(undirected(graph, "graph"))
    tolerance, most_cuts = (
        real("tolerance", tolerance, least=1e-12, remedy="float64 knows no more"),
        whole("most_cuts", most_cuts, least=1),
    )
    first, second = edge_ends(graph)
    n, edges = graph.num_nodes, first.size
    if n < 2:
        raise ValueError(f"graph={graph.name} has {n} node, which meets nobody; pass two or more")
    check_memory(f"graph={graph.name}: eigenvectors of {n} nodes", 24.0 * n * n, "take a smaller graph")
    rates, best = np.ones(edges), BestRates(np.ones(edges), -1.0, np.inf)
    cuts = np.empty((0, edges))
    while True:
        values, vectors = np.linalg.eigh(_laplacian(n, first, second, rates))
        if values[1] > best.connectivity:
            best = best._replace(rates=rates, connectivity=float(values[1]))
        if best.bound < np.inf and best.bound - best.connectivity <= tolerance * best.bound:
            return best
        if len(cuts) >= most_cuts:
            raise RuntimeError(
                f"{most_cuts} planes leave λ₂ of {graph.name} between {best.connectivity:.6g} and {best.bound:.6g}; "
                "pass a larger tolerance, or more most_cuts"
            )
        near = vectors[:, 1:][:, values[1:] < values[1] + 0.3 * max(values[1], 1e-3)]
        cuts = np.concatenate([cuts, np.square(near[first] - near[second]).T])
        center, bound = _program(cuts, best.rates)
        best, rates = best._replace(bound=min(best.bound, bound)), center


def _laplacian(n: int, first: np.ndarray, second: np.ndarray, rates: np.ndarray) -> np.ndarray:
    L = np.zeros((n, n))
    np.add.at(L, (first, second), -rates)
    L += L.T
    return L - np.diag(L.sum(1))


def _program(cuts: np.ndarray, best: np.ndarray) -> tuple[np.ndarray, float]:
    """Maximize the least cut over rates of mean one; return a point on the way there, and the maximum."""
    from scipy import optimize  # slow to import

    edges = cuts.shape[1]
    found = optimize.linprog(
        np.append(np.zeros(edges), -1.0),
        A_ub=np.hstack([-cuts, np.ones((len(cuts), 1))]),
        b_ub=np.zeros(len(cuts)),
        A_eq=np.append(np.ones(edges), 0.0)[None],
        b_eq=[edges],
        bounds=[(0, None)] * edges + [(None, None)],
    )
    # The corners of the linear program zigzag around the best rates; half-way steps are steadier.
    return (best + found.x[:edges]) / 2, float(-found.fun)


class RateGradient(NamedTuple):
    """An estimate of a mean outcome and of its derivatives with respect to rates, each with its standard error."""

    value: float
    value_error: float
    gradient: Float[np.ndarray, " edges"]
    gradient_error: Float[np.ndarray, " edges"]


def rate_gradient(
    outcome: Callable[[Any], Any],
    graph: Topology,
    rates: float | Float[np.ndarray, " edges"],
    duration: float,
    x0: Any,
    *,
    samples: int,
    seed: int,
) -> RateGradient:
    """Estimate ``∂ E f(x(T)) / ∂ r_e`` of pairwise averaging under Poisson clocks of the edges, by the score function.

    Times and partners are drawn on the host and have no gradient, but the law of the plan has one. With N_e the
    meetings of edge e during T seconds, and f̄ the mean of the other samples::

        ∂ E f / ∂ r_e = E[(f − f̄) (N_e / r_e − T)]

    Unbiased; the variance grows with ``r_e T``.

    Args:
        outcome: ``f(x)`` of the stacked models after the run, a real number.
        graph: undirected and connected.
        rates: r_e in (0, 10⁹], meetings a second: one number, or one for each edge, as in :func:`edge_weights`.
        duration: T, seconds.
        x0: stacked start models, leaves ``(n, ...)``.
        samples: number of runs, two or more.
        seed: of the plans.

    Raises:
        TypeError: if the outcome is no real number.
        ValueError: if a number is out of range, the graph is directed or disconnected, or x0 has other rows than nodes.

    Reference: Glynn 1990, "Likelihood ratio gradient estimation for stochastic systems".
    """
    graph, samples = require_connected(undirected(graph, "graph")), whole("samples", samples, least=2)
    callable_("outcome", outcome, "outcome(x) of the stacked models, a real number")
    duration = real("duration", duration, above=0, unit="seconds")
    edges = edge_ends(graph)[0].size
    check_stacked("x0", float_tree("x0", x0))
    rows = {leaf.shape[0] for leaf in jax.tree.leaves(x0)}
    if rows != {graph.num_nodes}:
        raise ValueError(
            f"x0: has {sorted(rows)} rows, and {graph.name} has {graph.num_nodes} nodes; give one row for each"
        )
    r = reals(
        "rates", np.broadcast_to(rates, (edges,)) if np.ndim(rates) == 0 else rates, shape=(edges,), above=0, most=1e9
    )
    seeds = np.random.default_rng(checked_seed(seed)).integers(0, 2**63, samples)
    plans = [poisson_edges(graph, duration=duration, rate=r, seed=int(draw)) for draw in seeds]
    counts = np.stack([_meetings(graph, plan) for plan in plans])
    values = _outcomes(outcome, plans, x0)
    others = (values.sum() - values) / (samples - 1)
    terms = (values - others)[:, None] * (counts / r - duration)
    root = np.sqrt(samples)
    return RateGradient(
        float(values.mean()), float(values.std(ddof=1) / root), terms.mean(0), terms.std(0, ddof=1) / root
    )


def _meetings(graph: Topology, plan: Any) -> np.ndarray:
    """Count how often each edge fires in a plan."""
    first, second = edge_ends(graph)
    n, keys = graph.num_nodes, first.astype(np.int64) * graph.num_nodes + second
    order = np.argsort(keys)
    fired = np.searchsorted(keys[order], plan.xs["first"].astype(np.int64) * n + plan.xs["second"])
    return np.bincount(order[fired], minlength=keys.size)


def _outcomes(outcome: Callable[[Any], Any], plans: list[Any], x0: Any) -> np.ndarray:
    """Run all plans, padded with meetings of nobody to one length, and measure their outcomes."""
    protocol, key, longest = gossip_averaging(), jax.random.key(0), max(1, *(len(plan) for plan in plans))
    facts = dataclasses.replace(plans[0].properties, name="samples of rates")
    fill = {"first": NOBODY, "second": NOBODY, "index": 0, "time": 0.0}

    def padded(plan: Timeline) -> dict[str, np.ndarray]:
        missing = longest - len(plan)
        return {name: np.append(v, np.full(missing, fill[name], v.dtype)) for name, v in plan.xs.items()}

    @jax.jit
    def measure(xs: Any, state: Any) -> Array:
        def one(xs: Any) -> Array:
            plan = dataclasses.replace(plans[0], xs=xs, properties=facts)
            found = outcome(protocol.model(run(key, protocol, plan, state)[0][0]))
            if jnp.shape(found) != () or not jnp.issubdtype(jnp.result_type(found), jnp.floating):
                raise TypeError(f"outcome gives {shown(found)}: must be one real number, such as a mean")
            return found

        return jax.lax.map(one, xs)

    xs = jax.tree.map(lambda *leaves: np.stack(leaves), *(padded(plan) for plan in plans))
    values = np.asarray(measure(xs, protocol.init(key, jax.tree.map(jnp.asarray, x0))), np.float64)
    if not np.isfinite(values).all():
        raise ValueError(f"outcome gives {shown(values)}: must be finite for each run")
    return values
