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
    """Build top-k sharing: each node sends the values of the k parameters whose change is largest.

    :func:`~gossipjax.sharing.jwins` with one cut-off and no transform: ``x_i ← x_i + Σ_j W_ij M_j (x_j − x_i)``, M_j
    the mask of the ``k = round(share d)`` largest |V_j + x_j − s_j|. What is sent are values of the model, not
    differences to a copy as in :func:`~gossipjax.sharing.choco`, and receivers fill in their own. s_j is the model when
    j last ended an event in which it sent: the last round, or the last message.

    Args:
        share: k/d in (0, 1]; k is at least 1. With 1 the whole model is sent, without indices.
        accumulate: V takes the change of every round, and is 0 where it was sent; else it is always 0.
        transform: of the model; None: the parameters themselves.
        wire: how messages are coded; None: float32 values, and Elias gamma of the gaps between positions.

    Raises:
        ValueError: a share out of range; when run, nodes that train other rows than their own.

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
