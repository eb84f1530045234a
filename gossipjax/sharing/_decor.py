"""DECOR: models are shared with noise of their nodes and noise of pairs of neighbours, which cancels in the mean."""

from __future__ import annotations

import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float

from gossipjax._base.arguments import real
from gossipjax._base.calls import recorded
from gossipjax.mixing._counting import EVERYONE, no_state
from gossipjax.sharing._edges import edges_of
from gossipjax.sharing._noisy import encode, merge
from gossipjax.topology._graph import Topology, require_undirected
from gossipjax.types import Sharing


@recorded("allouah2024decor")
def decor(
    topology: Topology, std: float | Float[np.ndarray | Array, ""], pair_std: float | Float[np.ndarray | Array, ""]
) -> Sharing:
    """Build the noise of DECOR: full sharing with noise of nodes and noise of pairs, both fresh in every round::

        x_i ← Σ_j W_ij (x_j + σ z_j + σ_p Σ_k v_jk)        z_j, v_jk ~ N(0, I),  v_kj = −v_jk,  k: the neighbours of j

    A node keeps its own noise, too. The noise of pairs, which both ends draw from a common seed, sums to zero: with a
    doubly stochastic W the mean moves by ``σ z̄`` only, of variance σ²/n a round, whatever σ_p is; with σ = 0 it is
    conserved, up to rounding. The noise of pairs of node j has the variance σ_p² d_j, of its d_j neighbours.

    Against an eavesdropper of all messages, a step that moves by Δ is μ-Gaussian differentially private with
    ``μ² = Δ² (Σ⁻¹)_ii`` and ``Σ = σ² I + σ_p² L``, L the Laplacian: close to that of central noise, ``Δ²/(nσ²)``, for
    large σ_p. With the same numbers, :func:`gossipjax.privacy.pairwise_noise` describes it to :func:`gossipjax.audit`.

    After a step of SGD with rate γ the noise of models is γ times that of gradients: pass ``std = γ z C`` for gradients
    that are clipped to C (:func:`gossipjax.privacy.node_dp` with ``noise=0``). A message holds one vector; seeds are
    not charged. Published code draws the noise of pairs once and reuses it, which protects no more than σ alone.

    Args:
        topology: the undirected graph whose neighbours draw noise together.
        std: σ ≥ 0, in the unit of the models. A new value does not recompile the run.
        pair_std: σ_p ≥ 0.

    Raises:
        TypeError: if topology is not a topology.
        ValueError: if σ or σ_p is negative or not finite, or the graph is directed; during a run, if the number of
            nodes differs, or the timeline is not synchronous rounds.

    Reference: Allouah, Koloskova, El Firdoussi, Jaggi, Guerraoui 2024, arXiv 2405.01031 (there on gradients).
    """
    real("std", std, least=0, remedy="in the unit of the models")
    real("pair_std", pair_std, least=0, remedy="in the unit of the models")
    edges = edges_of(require_undirected(topology))
    return Sharing(Partial(no_state), Partial(encode, edges, std, pair_std), Partial(merge), EVERYONE)
