"""Build a data set from arrays, and check the arrays of image and feature data sets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from jaxtyping import Float, Integer, Num

from gossipjax._base.arguments import instance, reals, sequence_of, whole
from gossipjax._base.calls import recorded
from gossipjax.tasks._data.images import Dataset, Examples
from gossipjax.tasks._data.labels import class_numbers

_AT_ONCE = 2**22
"""How many squared deviations are in memory at a time."""
_SMALLEST, _LARGEST = 1e-37, 1e37
"""Range of numbers that float32 can hold together with their inverses."""


@recorded()
def from_arrays(
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    x_test: npt.ArrayLike,
    y_test: npt.ArrayLike,
    *,
    num_classes: int | None = None,
    class_names: Sequence[str] = (),
    mean: float | npt.ArrayLike | None = None,
    std: float | npt.ArrayLike | None = None,
    name: str = "arrays",
    source: str = "arrays in memory",
) -> Dataset:
    """Build a data set from NumPy or JAX arrays, pandas tables or lists.

    A task standardises its inputs, ``(x − mean) / std``: per feature for tables ``(N, features)``, per channel for
    images ``(N, height, width, channels)``, and with a single mean and deviation for inputs of any other shape.

    >>> import numpy as np, gossipjax as gj
    >>> x, y = np.eye(3)[[0, 1, 2, 1, 0, 2]], [0, 1, 2, 1, 0, 2]
    >>> data = gj.tasks.from_arrays(x, y, x[:2], y[:2])
    >>> data.num_classes, [round(m, 3) for m in data.mean]
    (3, [0.333, 0.333, 0.333])

    Args:
        x: training inputs, ``(N, ...)`` numbers. Integers of 8 and 16 bits keep their type; all others become float32.
        y: ``(N,)`` classes of the training inputs, whole numbers from 0.
        x_test: test inputs; each has the shape of a training input.
        y_test: classes of the test inputs.
        num_classes: number of classes C; None: the number of ``class_names``, or without these one more than the
            largest training label, in which case every class must have a training sample.
        class_names: one word per class, for figures.
        mean: of each feature or channel, or one number for all; None: computed from the training inputs.
        std: standard deviation, in the same form; None: computed from the training inputs, with 1 for a constant
            feature.
        name: name of the data set, for reports.
        source: where the arrays come from, for reports.

    Returns:
        The data set.

    Raises:
        ValueError: if inputs are not finite numbers, labels are not class numbers, or shapes or numbers of samples do
            not match; the message names the first sample that breaks a rule.
    """
    instance("name", name, str, "a word for reports")
    instance("source", source, str, "words for reports")
    class_names = sequence_of("class_names", class_names, str, "one word per class")
    inputs, test_inputs = input_array("x", x), input_array("x_test", x_test)
    if test_inputs.shape[1:] != inputs.shape[1:]:
        raise ValueError(
            f"x_test of shape {test_inputs.shape}: its samples must have the shape {inputs.shape[1:]} of x"
        )
    labels = class_numbers("y", y, num_samples=len(inputs))
    num_classes = _num_classes(num_classes, class_names, labels)
    train = Examples(inputs, _classes("y", labels, inputs, num_classes))
    test = Examples(test_inputs, _classes("y_test", y_test, test_inputs, num_classes))
    moments = _moments(inputs) if mean is None or std is None else ((), ())
    shape = inputs.shape[1:]
    centre = moments[0] if mean is None else _floats(per_channel("mean", mean, shape))
    spread = moments[1] if std is None else _floats(per_channel("std", std, shape, positive=True))
    return Dataset(name, train, test, num_classes, centre, spread, source, class_names)


def input_array(name: str, inputs: Any) -> Num[np.ndarray, " N *shape"]:
    """Convert inputs to the type in which a task stores them: 8- or 16-bit integers, or float32.

    Args:
        name: of the argument, for the message.
        inputs: ``(N, ...)`` numbers.

    Raises:
        ValueError: if there are no numbers or no samples, or a sample is not finite in float32 (the message names the
            first).
    """
    try:
        array = np.asarray(inputs)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: {error}; must be an array (samples, ...) of numbers") from error
    if array.dtype.kind not in "biuf" or array.ndim < 2 or array.size == 0:
        raise ValueError(
            f"{name} of shape {array.shape} and type {array.dtype}: must be numbers (samples, ...), with no "
            "axis of length zero; x[:, None] turns a vector into one feature"
        )
    if array.dtype.kind in "iu" and array.dtype.itemsize <= 2:
        return array
    with np.errstate(over="ignore"):
        array = array.astype(np.float32, copy=False)
    bad = ~np.isfinite(array.reshape(len(array), -1)).all(1)
    if bad.any():
        raise ValueError(
            f"{name}: {np.count_nonzero(bad)} inputs hold NaN or infinity (in float32), first at sample "
            f"{bad.argmax()}; remove or fix them"
        )
    return array


def per_channel(
    name: str, values: Any, shape: tuple[int, ...], *, positive: bool = False
) -> Float[np.ndarray, " channels"]:
    """Return one number, or one for each entry of the last axis, in the range of float32 and its inverse.

    Args:
        name: of the argument, for the message.
        values: a number, a sequence of one number, or one number for each entry of the last axis.
        shape: of one input.
        positive: whether the numbers are standard deviations.

    Raises:
        ValueError: if there are fewer or more numbers, or one is out of range.
    """
    least = _SMALLEST if positive else -_LARGEST
    remedy = f"one number, or one for each channel of inputs of shape {shape}; a constant channel may have std 1"
    numbers = np.atleast_1d(reals(name, values, least=least, most=_LARGEST, remedy=remedy))
    if numbers.shape not in ((1,), shape[-1:]):
        raise ValueError(f"{name} of shape {numbers.shape}: must be {remedy}")
    return numbers


def _classes(name: str, labels: Any, inputs: np.ndarray, num_classes: int) -> Integer[np.ndarray, " N"]:
    return class_numbers(name, labels, num_samples=len(inputs), num_classes=num_classes).astype(np.int32)


def _num_classes(num_classes: Any, class_names: tuple[str, ...], labels: Integer[np.ndarray, " N"]) -> int:
    if num_classes is not None:
        num_classes = whole("num_classes", num_classes, least=1)
        if class_names and len(class_names) != num_classes:
            raise ValueError(f"class_names: {len(class_names)} words for num_classes={num_classes}; give one per class")
        return num_classes
    if class_names:
        return len(class_names)
    present = np.unique(labels)
    if present[-1] + 1 != len(present):
        absent = int(np.argmax(present != np.arange(len(present))))
        raise ValueError(
            f"y: class {absent} has no sample, but labels run from {present[0]} to {present[-1]}; number the classes "
            "from 0 with np.unique(y, return_inverse=True)[1], or pass num_classes"
        )
    return len(present)


def _moments(inputs: Num[np.ndarray, " N *shape"]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of each feature or channel; constant ones get the deviation 1."""
    columns = inputs.reshape(-1, inputs.shape[-1] if inputs.ndim in (2, 4) else 1)
    mean = columns.mean(0, dtype=np.float64)
    parts = np.array_split(columns, -(-columns.size // _AT_ONCE))
    std = np.sqrt(sum(np.square(part - mean).sum(0) for part in parts) / len(columns))
    std = np.where(columns.max(0) == columns.min(0), 1.0, std)
    return _floats(mean), _floats(std)


def _floats(values: Float[np.ndarray, " c"]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
