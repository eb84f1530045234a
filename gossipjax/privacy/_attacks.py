"""Attacks on the host: membership by losses, and a sample from its gradient."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64

from gossipjax._base.arguments import real, reals, shown
from gossipjax._base.calls import recordable, recorded


def _losses(members: Any, non_members: Any) -> tuple[Float64[np.ndarray, " m"], Float64[np.ndarray, " k"]]:
    inside, outside = reals("members", members, shape=(None,)), reals("non_members", non_members, shape=(None,))
    for name, losses in (("members", inside), ("non_members", outside)):
        if not losses.size:
            raise ValueError(f"{name}=[]: must hold the loss of at least one sample")
    return inside, np.sort(outside)


@recorded("yeom2018privacy")
def membership_auc(members: Any, non_members: Any) -> float:
    """Return the area under the ROC curve of the attack that calls samples of low loss members.

    The probability that a member has a lower loss than a non-member, with ties counted as ½.

    >>> from gossipjax import privacy
    >>> round(privacy.membership_auc([0.1, 0.2, 0.4], [0.3, 0.5, 0.2]), 6)
    0.722222

    Args:
        members: losses of samples that the model was trained on.
        non_members: losses of others, of the same distribution and labels.

    Raises:
        ValueError: if there are none, or one is not finite.

    Reference: Yeom, Giacomelli, Fredrikson, Jha 2018, arXiv 1709.01604 (recalled, not looked up).
    """
    inside, outside = _losses(members, non_members)
    below, upto = (np.searchsorted(outside, inside, side=side) for side in ("left", "right"))
    return float(1 - (below + upto).mean() / (2 * len(outside)))


@recorded("yeom2018privacy")
def membership_tpr(members: Any, non_members: Any, fpr: float) -> float:
    """Return the share of members that the attack by losses finds if it may take few non-members for members.

    Of m non-members, k = ⌊fpr m⌋ may be taken for members: those whose loss is below number k + 1 in increasing order.

    Args:
        members: losses of samples that the model was trained on.
        non_members: losses of others: at least 1/fpr of them.
        fpr: largest rate of false positives, in (0, 1).

    Raises:
        ValueError: if there are none or too few, one is not finite, or the rate is out of range.
    """
    inside, outside = _losses(members, non_members)
    rate = real("fpr", fpr, above=0, below=1, remedy="such as 0.01")
    # A hundredth of 100 may be below 1 in binary; a rate below 1 never allows all.
    allowed = min(int(np.floor(rate * len(outside) + 1e-9)), len(outside) - 1)
    if allowed < 1:
        raise ValueError(
            f"fpr={rate:g}: {len(outside)} non-members are too few for a rate of one in {1 / rate:g}; pass more of them"
        )
    return float(np.mean(inside < outside[allowed]))


_NO_SLOPE = 1e-100
"""Entries of a bias below this share of the weights' are roundings of 0."""
_STEPS = 64
"""Halvings of an interval of length 2 at most: as many as float64 has digits, and some."""


@recordable
class Inverted(NamedTuple):
    """A sample, as its gradient gives it away."""

    inputs: Float64[np.ndarray, " d"]
    label: int
    residual: float
    """Relative distance of the gradient from that of one sample, whatever the unit of the inputs: the larger of those
    of weights from ``bias xᵀ``, and of bias from the nearest ``p − y`` with p a distribution. Near 0, the batch may
    have held one; of two classes the gradient of any batch is."""


@recorded("phong2018privacy")
def gradient_inversion(weights: Any, bias: Any) -> Inverted:
    """Read a sample off the gradient of a softmax layer with bias, in closed form.

    For one sample x of class y with predicted probabilities p, cross-entropy has the gradients ``(p − y) xᵀ`` and
    ``p − y``: any row of the first over its entry of the second is x, and y is the class with the negative entry. The
    entry of largest size is taken.

    A node's gradient is the difference of two models that an observer heard, over the learning rate, only if nothing
    else lies between them, which :func:`gossipjax.audit` decides.

    >>> from gossipjax import privacy
    >>> found = privacy.gradient_inversion([[-0.45, -0.9], [0.45, 0.9]], [-0.45, 0.45])
    >>> found.inputs.tolist(), found.label
    ([1.0, 2.0], 0)

    Args:
        weights: gradient of the kernel ``(classes, d)``.
        bias: gradient of the bias ``(classes,)``.

    Returns:
        x, y, and how far the gradient is from one of a single sample.

    Raises:
        ValueError: if shapes do not fit, a number is not finite, there are no inputs, or the bias has no gradient.

    Reference: Phong, Aono, Hayashi, Wang, Moriai 2018 (recalled, not looked up).
    """
    kernel = reals("weights", weights, shape=(None, None))
    slope = reals("bias", bias, shape=(len(kernel),), remedy="with one entry for each row of weights")
    if not kernel.shape[1]:
        raise ValueError(f"weights of shape {kernel.shape}: must have a column for each input")
    largest = np.abs(slope).max(initial=0.0)
    if not largest > _NO_SLOPE * np.abs(kernel).max(initial=0.0):
        raise ValueError(f"bias={shown(bias)}: has no gradient, so that no sample can be read off")
    own = slope / largest
    row, tall = np.argmax(np.abs(own)), np.abs(kernel).max() or 1.0
    x = kernel[row] / largest / own[row]
    apart = np.linalg.norm(kernel / tall - np.outer(own, kernel[row] / tall / own[row]))
    of_weights = apart / (np.linalg.norm(kernel / tall) or 1.0)
    of_bias = np.linalg.norm(own - _nearest(own, 1 / largest)) / np.linalg.norm(own)
    return Inverted(x, int(np.argmin(slope)), float(max(of_weights, of_bias)))


def _nearest(slope: Float64[np.ndarray, " c"], longest: float) -> Float64[np.ndarray, " c"]:
    """Return the nearest vector of sum 0 of which one entry is at least −longest and below 0, all others at least 0.

    That entry is the smallest: to swap another one with it moves the vector nearer. Lagrange's multiplier of the sum is
    between the smallest and the largest entry.
    """
    y, low, high = np.argmin(slope), slope.min(), slope.max()

    def moved(by: float) -> Float64[np.ndarray, " c"]:
        found = np.maximum(slope - by, 0.0)
        found[y] = np.clip(slope[y] - by, -longest, 0.0)
        return found

    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if moved(middle).sum() > 0 else (low, middle)
    return moved((low + high) / 2)
