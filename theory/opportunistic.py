"""The least gossip that bounds staleness if every message carries one version: the bound Ω(n), with its constant.

The class of schemes: n nodes; node i updates at the ticks of a Poisson clock of rate m; a message brings one version
of one source to one receiver, and nλ messages are sent per unit time in the long run. The rule may decide who sends
which version to whom and when by all that has happened so far, in the whole network; it does not know future updates.
Any node that holds a version may send it, so relaying is in the class. Messages that carry the versions of several
sources are not (the mixed model of uniform gossip, ``m H_{n−1}/λ``), and neither are broadcasts.

``S_i^j`` counts the updates of i that j has not heard of; means are over time and over the n(n − 1) pairs i ≠ j. Rates
are per unit time: λ is ``gossip_rate``, m is ``update_rate``.

Reference: Mitra and Ulukus 2024, arXiv 2404.19749, states that opportunistic schemes need Ω(n) gossip capacity. The
constant and the proof are derived here, because the paper's text was not available.
"""

from __future__ import annotations

import numpy as np

from .arguments import reals
from .staleness import Counts, Result, Values, _fit, _table


def least_staleness(n: Counts, *, gossip_rate: Values, update_rate: Values) -> Result:
    """Bound mean staleness from below by ``k − k(k+1)/(2x)``, where ``x = m(n−1)/λ`` and ``k = ⌊x⌋``.

    It is at least ``(x − 1)/2``, so bounded staleness needs λ of order n under every rule of the class. The rule that
    sends every x-th update of a source to all others at once attains it (of x that is not whole, after ⌊x⌋ or ⌈x⌉).

    Proof. Let pair (i, j) get messages at rate a. The rule does not know future updates, so S has the same mean just
    before updates of i as over time (Poisson arrivals see time averages). Seen there, S is at least 0, 1, 2, … between
    two messages. Messages cut the updates into runs of mean length m/a. A run of length l contributes at least
    l(l−1)/2, which is convex in l, so the mean is least for runs of ⌊m/a⌋ and ⌈m/a⌉ updates, where it is
    ``k − k(k+1)a/(2m)`` with ``k = ⌊m/a⌋``. This is the largest over all whole k of lines that fall in a, so it is
    convex and does not increase, and the mean of a over pairs is at most ``λ/(n−1)``. ∎

    ``m(n−1)/λ``, the mean without relaying (:func:`theory.staleness.opportunistic_staleness`), is no lower bound of the
    class: it is the mean of messages at random times between random pairs. Rules that know what they have sent, or what
    is new, stay below it by up to a factor of two, or more if x is small. Kind: bound, attained.

    Args:
        n: nodes, at least two.
        gossip_rate, update_rate: λ and m; arrays are broadcast with n.

    Raises:
        ValueError: fewer than two nodes, rates that are not positive.
    """
    nodes, gossip_rate, update_rate = _table(n, gossip_rate, update_rate)
    x = update_rate * (nodes - 1) / gossip_rate
    k = np.floor(x)
    return (k - k * (k + 1) / (2 * x))[()]


def least_capacity(n: Counts, *, staleness: Values, update_rate: Values) -> Result:
    """Compute the smallest λ with which a scheme of the class can have mean staleness S: ``2m(n−1)(k − S)/(k(k+1))``.

    ``k = ⌊2S⌋ + 1``; it inverts :func:`least_staleness`, and is about ``m(n−1)/(2S + 1)``. For S = 0 every update is
    sent to everyone, ``m(n−1)``. Kind: bound, attained.

    Args:
        n: nodes, at least two.
        staleness: S ≥ 0, updates.
        update_rate: m; arrays are broadcast with n.

    Raises:
        ValueError: fewer than two nodes, numbers out of range.
    """
    staleness = reals("staleness", staleness, least=0)
    nodes, _, update_rate = _table(n, 1.0, update_rate)
    _fit({"n": nodes, "staleness": staleness, "update_rate": update_rate})
    k = np.floor(2 * staleness) + 1
    return (2 * update_rate * (nodes - 1) * (k - staleness) / (k * (k + 1)))[()]


def in_turn_staleness(n: Counts, *, gossip_rate: Values, update_rate: Values) -> Result:
    """Compute ``E S = m n/(2λ)`` if each node pushes its own version to the others in turn, at the ticks of a Poisson
    clock.

    The gaps of a pair are sums of n − 1 exponentials of mean 1/λ, and the mean age of a renewal process is
    ``E X²/(2 E X)``. Half of random targets, ``m(n−1)/λ``, as n grows. Assumes: any stationary update clock,
    independent of the pushes. Kind: exact. Arguments as :func:`least_staleness`.
    """
    nodes, gossip_rate, update_rate = _table(n, gossip_rate, update_rate)
    return (update_rate * nodes / (2 * gossip_rate))[()]


def coin_staleness(n: Counts, *, gossip_rate: Values, update_rate: Values) -> Result:
    """Compute ``E S = m(n−1)/λ − 1`` if every update is sent at once to each other node with probability λ/(m(n−1)).

    S seen before updates is geometric. Assumes: Poisson updates. Kind: exact. Arguments as :func:`least_staleness`.

    Raises:
        ValueError: as :func:`least_staleness`, or λ above m(n−1).
    """
    nodes, gossip_rate, update_rate = _table(n, gossip_rate, update_rate)
    x = update_rate * (nodes - 1) / gossip_rate
    if (x < 1 - 1e-12).any():  # rounding of the rates
        raise ValueError(f"gossip_rate={gossip_rate}: must be at most m(n − 1), at which every update goes to everyone")
    return np.maximum(x - 1.0, 0.0)[()]
