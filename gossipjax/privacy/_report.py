"""The result of an audit: numbers by observer and node, a table, statements and a picture."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float64, Int

from gossipjax._base.arguments import real, whole
from gossipjax._base.display import displayed
from gossipjax.privacy._gaussian import smallest_epsilon
from gossipjax.privacy._knowledge import CLEAR_GAP

if TYPE_CHECKING:
    from pandas import DataFrame

    from gossipjax._base.figure import Figure


@displayed
@dataclasses.dataclass(frozen=True)
class Audit:
    """What each of o observers of a plan learns about each of n nodes. NaN: about what it contributed itself."""

    plan: str
    unit: str
    """What is protected: the start value, or all steps, of one node."""
    hears: str
    """Whether nodes hear messages, or sums of secure aggregation."""
    observers: tuple[str, ...]
    prefixes: Int[np.ndarray, " p"]
    """Numbers of events after which the plan was audited."""
    mu_after: Float64[np.ndarray, "p o n"]
    """Upper certificate of μ after each prefix."""
    mu_lower: Float64[np.ndarray, "o n"]
    """Lower certificate of μ at the end: how far a shift of contributions was found to move the observer."""
    local: Float64[np.ndarray, " n"]
    """Local bound ``√T_j Δ/σ`` on what anybody learns of T_j contributions."""
    num_contributions: Int[np.ndarray, " n"]
    """T_j."""
    num_reconstructed: Int[np.ndarray, "o n"]
    """Contributions that the observer knows exactly, noise included."""
    hops: Float64[np.ndarray, "o n"]
    """Links of the plan between node and observer; infinity if nothing can arrive, NaN on a wire."""
    heard: Int[np.ndarray, " o"]
    """Messages, or sums, that the observer hears."""
    gap: Float64[np.ndarray, " o"]
    """Ratio of the smallest singular value of what the observer knows and of the rounding of what it hears."""
    sigma: float
    """σ, of noise of pairs its independent part."""
    sensitivity: float
    """Δ."""
    reason: str | None = None
    """Why μ is only the local bound; None: it is exact, up to the two certificates."""

    @property
    def mu(self) -> Float64[np.ndarray, "o n"]:
        """μ at the end: what each observer hears is μ-Gaussian differentially private. The upper certificate."""
        return self.mu_after[-1]

    @property
    def reconstructed(self) -> Bool[np.ndarray, "o n"]:
        """Whether any contribution of the node is known exactly."""
        return self.num_reconstructed > 0

    @property
    def certain(self) -> Bool[np.ndarray, " o"]:
        """Whether what an observer knows is clear of rounding; if not, μ is local for what it may know.

        How much it knows, and which contributions exactly, is decided in exact arithmetic in any case.
        """
        return self.gap >= CLEAR_GAP

    def epsilon(self, delta: float) -> Float64[np.ndarray, "o n"]:
        """Return ε at this δ in (0, 1), by the exact formula for Gaussian differential privacy."""
        return smallest_epsilon(self.mu, real("delta", delta, above=0, below=1, remedy="such as 1e-5"))

    def statement(self, observer: int, node: int, delta: float) -> str:
        """Say what is promised to a node against an observer: ε, δ, unit, relation and adversary.

        Args:
            observer: position in ``observers``.
            node: whose contributions are protected.
            delta: δ in (0, 1).

        Raises:
            ValueError: no such observer or node, or δ out of range.
        """
        i = whole("observer", observer, least=0, most=len(self.observers) - 1, remedy="a position in observers")
        j = whole("node", node, least=0, most=self.local.size - 1)
        delta = real("delta", delta, above=0, below=1)
        adversary = f"an honest but curious observer ({self.observers[i]}) that hears {self.hears} and knows the plan"
        if np.isnan(self.mu[i, j]):
            return f"nothing is hidden: node {j} belongs to {adversary}"
        kind = "local bound" if self.reason else "exact" if self.certain[i] else "local bound, the rank being unclear"
        return (
            f"({float(self.epsilon(delta)[i, j]):.4g}, {delta:g})-differential privacy ({kind}; μ = "
            f"{self.mu[i, j]:.4g}); unit: {self.unit}; relation: each of its {self.num_contributions[j]} contributions "
            f"moves by at most {self.sensitivity:g}, with noise of standard deviation {self.sigma:g} in each "
            f"coordinate; adversary: {adversary}"
        )

    def table(self, delta: float | None = None) -> DataFrame:
        """Return one row for each observer and node that is not a part of it.

        Args:
            delta: δ in (0, 1), for a column ``epsilon``; None: no such column.
        """
        import pandas as pd

        i, j = np.nonzero(~np.isnan(self.mu))
        columns: dict[str, Any] = {
            "observer": np.asarray(self.observers, object)[i],
            "node": j,
            "hops": self.hops[i, j],
            "contributions": self.num_contributions[j],
            "reconstructed": self.num_reconstructed[i, j],
            "mu_lower": self.mu_lower[i, j],
            "mu": self.mu[i, j],
            "mu_local": self.local[j],
            "certain": self.certain[i],
        }
        if delta is not None:
            columns["epsilon"] = self.epsilon(delta)[i, j]
        return pd.DataFrame(columns)

    def picture(self) -> Figure:
        """Draw μ by observer and node, by hop distance, and over the prefixes. ``picture().savefig(path)`` keeps it."""
        from gossipjax.privacy._picture import picture

        return picture(self)

    def _facts(self) -> tuple[str, dict[str, Any]]:
        others = self.mu[~np.isnan(self.mu)]
        found = {
            "unit": self.unit,
            "nodes": self.local.size,
            "observers": len(self.observers),
            "largest μ": f"{others.max(initial=0):.4g}",
            "local bound": f"{self.local.max(initial=0):.4g}",
            "pairs with a reconstructed contribution": int(self.reconstructed.sum()),
        }
        return f"audit of {self.plan}", found | ({"local bound only": self.reason} if self.reason else {})
