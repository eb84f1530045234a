"""Real data of experiments: the requested data set, or the embedded default."""

from __future__ import annotations

import numpy as np

from gossipjax import tasks


def load(name: str) -> tasks.Dataset:
    """Load a data set by name; ``"auto"`` is Fashion-MNIST if its files are available, else the embedded digits."""
    if name != "auto":
        return tasks.load(name)
    try:
        return tasks.fashion_mnist()
    except tasks.DataUnavailable:
        return tasks.digits()


def inputs_of(dataset: tasks.Dataset) -> int:
    """Number of input values of one sample."""
    return int(np.prod(dataset.train.inputs.shape[1:]))
