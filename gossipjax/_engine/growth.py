"""Detect runs that diverge although all their numbers are still finite."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from jaxtyping import Float

from gossipjax._engine.records import Log

LOSS, CONSENSUS = 100.0, 1e4
"""Factors by which the training loss and the consensus distance must have grown for a run to count as diverging."""
LOSS_ALONE = 1e6
"""Factor by which the training loss alone must have grown, if nodes agree or their consensus is not observed."""


class Diverging(UserWarning):
    """The training loss and the consensus distance grew by orders of magnitude, though all parameters are finite."""


def note_growth(log: Log) -> dict[str, Any]:
    """Warn of a run that diverges though it has not reached infinity, and return a note on it for the manifest.

    A seed diverges if its last recorded training loss exceeds :data:`LOSS` times the first and its last consensus
    distance exceeds :data:`CONSENSUS` times the first, or if the loss exceeds :data:`LOSS_ALONE` times the first. The
    start is not counted, because nodes may be equal there. Runs that became infinite or NaN are reported elsewhere.

    Returns:
        ``{"diverging": {variable: [first, last]}}`` of the first such seed; an empty dict if there is none.
    """
    if log.diverged:
        return {}
    found = {"train_loss": _ends(log, "train_loss")}
    if "values/consensus_distance" in log.columns:
        found["consensus_distance"] = _ends(log, "consensus_distance")
    growth = {name: _ratio(ends) for name, ends in found.items()}
    apart = growth.get("consensus_distance", np.zeros(1)) > CONSENSUS
    grown = (growth["train_loss"] > LOSS) & apart | (growth["train_loss"] > LOSS_ALONE)
    if not grown.any():
        return {}
    seed = int(np.argmax(grown))
    note = {name: [float(end) for end in ends[:, seed]] for name, ends in found.items()}
    words = " and ".join(f"{name.replace('_', ' ')} from {a:.3g} to {b:.3g}" for name, (a, b) in note.items())
    which = f" of seed {seed}" if log.seeds is not None else ""
    warnings.warn(
        f"the run{which} diverges although no parameter is infinite yet: {words}; lower the learning rate, or check "
        "the mixing weights",
        Diverging,
        stacklevel=3,
    )
    return {"diverging": note | ({} if log.seeds is None else {"seed": seed})}


def _ends(log: Log, name: str) -> Float[np.ndarray, "2 seeds"]:
    """Return the first and the last record of each seed after the start; NaN if there are none."""
    values = log.column(name).astype(np.float64)
    values = values.reshape(len(values), -1)[1:]
    if not len(values):
        return np.full((2, values.shape[1]), np.nan)
    there = ~np.isnan(values)
    first, last = there.argmax(0), len(values) - 1 - there[::-1].argmax(0)
    return np.stack([np.take_along_axis(values, at[None], 0)[0] for at in (first, last)])


def _ratio(ends: Float[np.ndarray, "2 seeds"]) -> Float[np.ndarray, " seeds"]:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where((ends[0] > 0) & np.isfinite(ends[0]), ends[1] / ends[0], 0.0)
