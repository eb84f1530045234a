"""The exact Gaussian privacy loss between nodes of a planned run."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import scipy.sparse as sp
from jaxtyping import Array, Float64, Int, Key

from gossipjax._base.arguments import choice, flag, real, reals, wholes
from gossipjax._base.calls import recorded
from gossipjax._base.leaves import one_key
from gossipjax.privacy._contributions import Contributions, Hears, as_contributions, check_noise, start_values
from gossipjax.privacy._knowledge import CLEAR_GAP, grams, joint_bracket, knowledge
from gossipjax.privacy._noise import PairwiseNoise
from gossipjax.privacy._observers import Observer, Wire, as_observers, label, members
from gossipjax.privacy._report import Audit
from gossipjax.privacy._sensitivity import Range, Shifts
from gossipjax.privacy._tape import Tape, contributions_made, write_tape
from gossipjax.types import Planned, Protocol, Timeline, as_timeline


@recorded("mrini2024attacks")
def audit(
    plan: Timeline | Planned,
    contributions: Contributions | Protocol | None = None,
    *,
    observers: Sequence[Observer] | None = None,
    noise: float | PairwiseNoise = 1.0,
    sensitivity: float = 1.0,
    hears: Hears | None = None,
    prefixes: Sequence[int] | None = None,
    published: Any = None,
    rounding: float = 0.0,
    local_only: bool = False,
    key: Key[Array, ""] | None = None,
) -> Audit:
    """Compute exactly what each observer of a plan learns about each node.

    A plan is linear in what nodes contribute: an observer hears ``O = K (g + z)``, where g are the contributions and z
    is their noise, ``N(0, σ² I)`` in each coordinate. With P the projector onto the row space of K, without the columns
    of the observer's own contributions, and M_j the block of P that belongs to node j::

        μ_ij² = (Δ/σ)² s_j       s_j = max {Σ_st (M_j)_st ⟨δ_s, δ_t⟩ : ‖δ_t‖ ≤ 1}       s_j = P_jj for one contribution

    and what i hears is exactly μ_ij-Gaussian differentially private in the contributions of j, each of which may move
    by Δ. A contribution is reconstructed, noise included, if its unit vector lies in the row space. The optimum s_j is
    bracketed by certificates: ``mu`` is the upper one. Timing and peers are known to the observer. Gradients may depend
    on all that was heard before, since contributions enter causally.

    What enters K, its rank and what is reconstructed are decided in exact arithmetic, modulo a prime. A weight counts
    as the fraction that it is near: in float32 with a denominator up to 1000, to 2⁻²² of its size, in float64 up to
    10⁶, to 2⁻⁵⁰. Arbitrary weights that happen to be near one are replaced, too, about 7 % of float32 weights between 0
    and 1; others count as they are stored.

    Rounding is part of the certificates. Where it could move ``s_j`` by more than 1e-6 for each contribution of node j
    (2e-6 with ``rounding > 0``), ``certain`` is False, and μ is the local bound for nodes with contributions that are
    heard and not known exactly; with noise of pairs, for all that are heard.

    The rows of K come from the plan's own events in the engine's order: begin, step, mix; a message in flight has the
    content of its sending, at its delivery. Nodes hear what is delivered to them. Messages that a plan drops, or
    replaces in an inbox before they are read, are heard by a :class:`~gossipjax.privacy.Wire` only. The exact mean of
    an all-reduce counts as if all whole models were sent.

    >>> import gossipjax as gj
    >>> plan = gj.timeline.rounds(gj.mixing.metropolis(gj.topology.path(4)), 2)
    >>> gj.audit(plan).reconstructed[0].tolist()
    [False, True, True, False]

    Args:
        plan: a timeline, or a plan that has one; nodes train rows of their own.
        contributions: :func:`~gossipjax.privacy.start_values` (None), :func:`~gossipjax.privacy.steps`, or a protocol
            that they are read off.
        observers: nodes, tuples of colluding nodes, :class:`~gossipjax.privacy.Wire`; None: every node alone.
        noise: σ of every contribution, in each coordinate, or :func:`~gossipjax.privacy.pairwise_noise`.
        sensitivity: Δ: how far one contribution may move, in the Euclidean norm.
        hears: ``"messages"``, or ``"sums"``: of each round, receivers hear ``Σ_j W_ij x_j`` over their neighbours
            only, as with :func:`~gossipjax.sharing.secure_aggregation`. None: messages, or as the protocol says.
        prefixes: numbers of events of the plan after which to audit, in increasing order; None: the whole plan.
        published: ``(k, n)`` weights of sums of the final models that everyone sees, such as their mean; None: none.
        rounding: η ≥ 0: standard deviation of rounding noise on what is heard, relative to σ. The guarantee is η = 0.
        local_only: give the local bound ``√T_j Δ/σ``, which holds for any protocol that adds its noise before it
            sends, instead of refusing protocols that are not linear.
        key: of the run, for plans that draw their events in the run; None: ``jax.random.key(0)``.

    Returns:
        The audit: arrays by prefix, observer and node, :meth:`~gossipjax.privacy.Audit.table`,
        :meth:`~gossipjax.privacy.Audit.picture`, and statements.

    Raises:
        TypeError: no plan, no contributions, or no key.
        ValueError: a protocol or sharing that is not linear, noise other than that of its private task, nodes that are
            not in the plan, groups that do not say who averages, numbers out of range, or too little memory.

    Reference: Dong, Roth and Su 2022 (Gaussian differential privacy); Denisov et al. 2022 (adaptivity, recalled);
    Mrini, Cyffers and Bellet 2024, arXiv 2402.10001 (reconstruction).
    """
    timeline = as_timeline(plan)
    what, default, problem = as_contributions(start_values() if contributions is None else contributions)
    said: Any = default if hears is None else choice("hears", hears, ("messages", "sums"))
    watchers = as_observers(observers, timeline.properties.num_nodes)
    sigma = noise if isinstance(noise, PairwiseNoise) else real("noise", noise, above=0)
    Delta, eta = real("sensitivity", sensitivity, above=0), real("rounding", rounding, least=0)
    check_noise(contributions, sigma, Delta)
    key = jax.random.key(0) if key is None else one_key(key)
    _check(timeline, problem, flag("local_only", local_only), said, watchers, sigma)
    cuts = _cuts(prefixes, len(timeline))
    extra = _published(published, timeline.properties.num_nodes, cuts)
    tapes, exact = ([], []) if problem is not None else _tapes(timeline, what, said, key)
    node, made = (tapes[0].node, tapes[0].made) if tapes else contributions_made(timeline, what, key)
    n = timeline.properties.num_nodes
    counts = np.stack([np.bincount(node[made < cut], minlength=n) for cut in cuts])
    own_sigma = sigma.sigma if isinstance(sigma, PairwiseNoise) else sigma
    # μ is a multiple of Δ/σ, whose square may be no float.
    views, scale = _views((tapes, exact), watchers, (cuts, _in_units(sigma), eta, extra), counts), Delta / own_sigma
    return Audit(
        plan=timeline.properties.name,
        unit=what.unit,
        hears=said,
        observers=tuple(label(each, tapes) for each in watchers),
        prefixes=np.asarray(cuts),
        mu_after=scale * np.sqrt(views.upper),
        mu_lower=scale * np.sqrt(views.lower[-1]),
        local=np.sqrt(counts[-1]) * scale,
        num_contributions=counts[-1],
        num_reconstructed=views.reconstructed[-1],
        hops=_hops(tapes, watchers, n),
        heard=views.heard[-1],
        gap=views.gap[-1],
        sigma=own_sigma,
        sensitivity=Delta,
        reason=problem,
    )


_STRONGEST = 1e8
"""Noise of a pair, over that of a node, up to which sums without it keep half of their digits."""


def _in_units(noise: float | PairwiseNoise) -> float | PairwiseNoise:
    """Return the noise in units of its independent part."""
    if not isinstance(noise, PairwiseNoise):
        return 1.0
    if noise.sigma_pair > _STRONGEST * noise.sigma:
        raise ValueError(
            f"noise: pairs share noise of {noise.sigma_pair:g}, nodes have {noise.sigma:g} of their own, too far apart "
            "to tell what cancels from rounding; pass a pair_std of at most 1e8 times std, which hides less"
        )
    return dataclasses.replace(noise, sigma=1.0, sigma_pair=noise.sigma_pair / noise.sigma)


class _Views(NamedTuple):
    """Results by prefix, observer and node; NaN for what an observer contributed itself."""

    lower: Float64[np.ndarray, "p o n"]
    upper: Float64[np.ndarray, "p o n"]
    reconstructed: Int[np.ndarray, "p o n"]
    heard: Int[np.ndarray, "p o"]
    gap: Float64[np.ndarray, "p o"]


def _views(written: tuple, watchers: list, settings: tuple, counts: Int[np.ndarray, "p n"]) -> _Views:
    (tapes, exact), (cuts, noise, rounding, published), n = written, settings, counts.shape[1]
    shape, shifts, brackets = (len(cuts), len(watchers), n), Shifts(), []
    views = _Views(np.zeros(shape), np.zeros(shape), np.zeros(shape, int), np.zeros(shape[:2], int), np.ones(shape[:2]))
    unsure, reached, turned = np.zeros(shape, bool), np.zeros(shape, bool), np.zeros(shape[:2])
    for place in np.ndindex(shape[:2]):
        known = (watchers[place[1]], cuts[place[0]], noise, rounding, published)
        found = [knowledge(tape, other, *known) for tape, other in zip(tapes, exact, strict=True)]
        if len(found) == 1:
            shifts.add(grams(found[0], tapes[0].node, n))
        else:
            brackets.append(joint_bracket(found, tapes[0].node, n) if found else Range(np.zeros(n), counts[place[0]]))
        for view in found:
            node = tapes[0].node[view.columns]
            reached[place][node] = True
            sure = np.bincount(node, view.reconstructed, minlength=n).astype(int)
            views.reconstructed[place] = np.maximum(views.reconstructed[place], sure)
            if view.gap < CLEAR_GAP:  # what is unclear also tells of noise that nodes share
                unsure[place][node if isinstance(noise, PairwiseNoise) else node[~view.reconstructed]] = True
        views.heard[place] = found[0].heard if found else 0
        views.gap[place] = min((view.gap for view in found), default=np.inf)
        turned[place] = max((view.turned for view in found), default=0.0)
    brackets = brackets or shifts.ranges()
    for place, bracket in zip(np.ndindex(shape[:2]), brackets, strict=True):
        limit = counts[place[0]]
        room = limit * turned[place]
        upper = np.clip(bracket.upper + room * reached[place], 0, limit)
        views.upper[place] = np.where(unsure[place], limit, upper)
        views.lower[place] = np.clip(bracket.lower - room, 0, limit)
        for each in (views.upper, views.lower):
            each[place][np.asarray(members(watchers[place[1]]), int)] = np.nan
    return views


def _hops(tapes: list[Tape], watchers: list, n: int) -> Float64[np.ndarray, "o n"]:
    """Count the links of the plan from each node to each observer."""
    if not tapes:
        return np.full((len(watchers), n), np.nan)
    links = np.any([tape.links for tape in tapes], axis=0)
    distance = sp.csgraph.shortest_path(sp.csr_array(links.astype(float)), unweighted=True)
    nowhere = np.full(n, np.nan)
    return np.stack([distance[list(members(each))].min(0) if members(each) else nowhere for each in watchers])


def _check(timeline: Timeline, problem: str | None, local_only: bool, hears: str, watchers: list, noise: Any) -> None:
    facts = timeline.properties
    if problem is not None and not local_only:
        raise ValueError(
            f"contributions: {problem}, so that only the local bound is known: pass local_only=True for it, or "
            "privacy.steps(...) if the run is linear after all"
        )
    if facts.num_rows != facts.num_nodes:
        raise ValueError(
            f"{facts.name} has {facts.num_rows} model rows for {facts.num_nodes} nodes: an audit needs nodes that each "
            "hold a model of their own, such as those of timeline.rounds or timeline.push_gossip"
        )
    if hears == "sums" and any(isinstance(each, Wire) for each in watchers):
        raise ValueError(
            "observers: a Wire reads masked messages of secure sums only, which look uniform: leave it out"
        )
    if isinstance(noise, PairwiseNoise) and noise.topology.num_nodes != facts.num_nodes:
        raise ValueError(
            f"noise: its topology has {noise.topology.num_nodes} nodes, and {facts.name} has {facts.num_nodes}: build "
            "both on the same graph"
        )


def _cuts(prefixes: Any, total: int) -> list[int]:
    if prefixes is None:
        return [total]
    remedy = f"the plan has {total} events"
    cuts = wholes("prefixes", prefixes, shape=(None,), least=0, most=total, remedy=remedy).tolist()
    if not cuts or any(b <= a for a, b in itertools.pairwise(cuts)):
        raise ValueError(f"prefixes={cuts}: must be numbers of events in increasing order, at least one")
    return cuts


def _published(published: Any, n: int, cuts: list[int]) -> Float64[np.ndarray, "k n"] | None:
    if published is None:
        return None
    if len(cuts) > 1:
        raise ValueError(f"prefixes={cuts}: what is published at the end belongs to the whole plan; audit it alone")
    return reals("published", published, shape=(None, n), remedy=f"weights of the {n} models, one row for each sum")


def _tapes(
    timeline: Timeline, what: Contributions, hears: Hears, key: Key[Array, ""]
) -> tuple[list[Tape], list[Callable[[], Tape]]]:
    """Return a tape for each class of coordinates, and what writes it in exact arithmetic, once, if it is needed."""
    fragments = timeline.properties.num_fragments
    classes = [None] if fragments is None else list(range(fragments))
    write = functools.partial(write_tape, timeline, what, hears, key)
    exact: list[Callable[[], Tape]] = [
        functools.cache(functools.partial(write, fragment, residues=True)) for fragment in classes
    ]
    return [write(fragment) for fragment in classes], exact
