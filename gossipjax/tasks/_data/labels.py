"""Check labels for tasks and partitions: N whole numbers in 0 … C − 1, one per sample."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Integer

from gossipjax._base.arguments import shown

_FORMS = "use labels.ravel() for a column, labels.argmax(1) for one-hot rows"
_NUMBERS = (
    "np.unique(labels, return_inverse=True)[1] numbers the classes from 0; real targets need a Task of your own, and "
    "a partition by classes of theirs, such as np.digitize(targets, bins)"
)


def class_numbers(
    name: str, labels: Any, *, num_samples: int | None = None, num_classes: int | None = None
) -> Integer[np.ndarray, " N"]:
    """Return labels as an array of class numbers.

    Args:
        name: of the argument, for the message.
        labels: array or list of N whole numbers from 0.
        num_samples: N; None: any positive number.
        num_classes: C; None: no upper bound.

    Returns:
        ``(N,)`` class numbers; the integer type does not change.

    Raises:
        ValueError: if the shape is wrong, the number of labels is not the number of samples, or a label is not a class
            number (the message names the first sample).
    """
    array = _array(labels)
    if array is None or array.ndim != 1 or array.size == 0:
        value = f"={shown(labels)}" if array is None or array.ndim == 0 else f" of shape {array.shape}"
        raise ValueError(f"{name}{value}: must be one class number per sample, shape (samples,); {_FORMS}")
    if num_samples is not None and len(array) != num_samples:
        lacking = f"sample {len(array)} has no label" if len(array) < num_samples else "there are more than samples"
        raise ValueError(f"{name}: {len(array)} labels for {num_samples} samples ({lacking}); pass one per sample")
    rule = f"labels must be whole numbers {'from 0 on' if num_classes is None else f'in 0 … {num_classes - 1}'}"
    if array.dtype.kind not in "iu":
        raise ValueError(f"{name}: {_not_whole(array)}; {rule}; {_NUMBERS}")
    wrong = (array < 0) if num_classes is None else (array < 0) | (array >= num_classes)
    if wrong.any():
        sample = int(wrong.argmax())
        raise ValueError(f"{name}: sample {sample} has the label {array[sample]}; {rule}; correct it, or {_NUMBERS}")
    return array


def _array(labels: Any) -> np.ndarray | None:
    try:
        return np.asarray(labels)
    except (TypeError, ValueError):  # ragged rows, or an object that cannot be converted
        return None


def _not_whole(array: np.ndarray) -> str:
    """Describe an array that is not of integers: its first fractional entry, or else its type."""
    if array.dtype.kind == "f" and (wrong := ~np.isfinite(array) | (array != np.floor(array))).any():
        sample = int(wrong.argmax())
        return f"sample {sample} has the label {array[sample]:g}"
    remedy = "; use labels.astype(int)" if array.dtype.kind in "fb" else ""
    return f"sample 0 has the label {shown(array[:1].tolist()[0])} of type {array.dtype}{remedy}"
