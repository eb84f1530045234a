"""Top-k: the coordinates of the model that changed most."""

from __future__ import annotations

from typing import Literal

from gossipjax._base.arguments import flag, real
from gossipjax._base.calls import recorded
from gossipjax.compress.codes import Wire
from gossipjax.compress.transforms import Transform, identity
from gossipjax.sharing._jwins import jwins
from gossipjax.types import Sharing


@recorded("dhasade2023jwins")
def top_k(
    share: float, *, accumulate: bool = True, transform: Transform | None = None, wire: Wire | None = None
) -> Sharing:
    """Build top-k sharing: each node sends the values of the k parameters that changed most.

    This is :func:`~gossipjax.sharing.jwins` with one cut-off and no transform:
    ``x_i ← x_i + Σ_j W_ij M_j (x_j − x_i)``, where M_j is the mask of the ``k = round(share d)`` largest |V_j + x_j −
    s_j|. Messages hold values of the model, not differences to a copy as in :func:`~gossipjax.sharing.choco`, and
    receivers fill in their own values. s_j is the model of j after the last event in which it sent: the last round, or
    the last message.

    Args:
        share: k/d in (0, 1]; k is at least 1. With share 1 the whole model is sent, without indices.
        accumulate: whether V adds the change of every round and is reset to 0 where it was sent; otherwise V is 0.
        transform: transform of the model; None: the parameters themselves.
        wire: encoding of messages; None: float32 values, and Elias gamma codes of the gaps between positions.

    Raises:
        ValueError: if share is out of range; during a run, if nodes train rows other than their own.

    Reference: the baselines TopK and TopK with accumulation of Dhasade et al. 2023, arXiv 2306.04377 (JWINS).
    """
    share = real("share", share, above=0, most=1, remedy="1 sends every coordinate")
    kept: Literal["round", "nothing"] = "round" if flag("accumulate", accumulate) else "nothing"
    basis = identity() if transform is None else transform
    return jwins(
        (share,),
        cap=1.0,
        transform=basis,
        accumulate=kept,
        wire=wire,
    )
