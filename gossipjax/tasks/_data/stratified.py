"""scikit-learn's digits and its stratified split, without importing scikit-learn, which takes two seconds."""

from __future__ import annotations

import gzip
import importlib.util
import math
import pathlib

import numpy as np
from jaxtyping import Int, UInt8


def read_digits() -> tuple[UInt8[np.ndarray, "1797 8 8"], Int[np.ndarray, " 1797"]]:
    """Read images and labels from the file in scikit-learn's package.

    Raises:
        ModuleNotFoundError: if scikit-learn is not installed.
    """
    found = importlib.util.find_spec("sklearn")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("No module named 'sklearn': the digits are a file of scikit-learn; install it")
    with gzip.open(pathlib.Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz", "rt") as file:
        table = np.loadtxt(file, delimiter=",", dtype=np.uint8)
    return table[:, :-1].reshape(-1, 8, 8), table[:, -1].astype(np.int32)


def stratified_split(
    labels: Int[np.ndarray, " n"], test_share: float, seed: int
) -> tuple[Int[np.ndarray, " a"], Int[np.ndarray, " b"]]:
    """Split examples at random so that both parts have the same share of each class.

    Draws what ``train_test_split(range(n), test_size=test_share, random_state=seed, stratify=labels)`` of scikit-learn
    draws.

    Args:
        labels: class of each example.
        test_share: share of the second part, whose size is rounded up.
        seed: of the draw.

    Returns:
        Numbers of the examples of the two parts.
    """
    rng = np.random.RandomState(seed)
    _, classes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    members = np.split(np.argsort(classes, kind="stable"), np.cumsum(counts)[:-1])
    tested = math.ceil(test_share * len(labels))
    of_train = _apportion(counts, len(labels) - tested, rng)
    of_test = _apportion(counts - of_train, tested, rng)
    parts: tuple[list[np.ndarray], list[np.ndarray]] = [], []
    for own, first, second in zip(members, of_train, of_test, strict=True):
        shuffled = own[rng.permutation(len(own))]
        parts[0].append(shuffled[:first])
        parts[1].append(shuffled[first : first + second])
    return rng.permutation(np.concatenate(parts[0])), rng.permutation(np.concatenate(parts[1]))


def _apportion(counts: Int[np.ndarray, " c"], total: int, rng: np.random.RandomState) -> Int[np.ndarray, " c"]:
    """Divide a total in proportion to counts: by largest remainders, ties at random."""
    exact = counts / counts.sum() * total
    whole = np.floor(exact)
    remainder, missing = exact - whole, int(total - whole.sum())
    for value in np.unique(remainder)[::-1]:
        if missing == 0:
            break
        (equal,) = np.nonzero(remainder == value)
        extra = rng.choice(equal, size=min(len(equal), missing), replace=False)
        whole[extra] += 1
        missing -= len(extra)
    return whole.astype(np.int64)
