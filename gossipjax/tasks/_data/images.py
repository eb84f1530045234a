"""Real image data sets as arrays: digits (embedded), MNIST with and without writers, Fashion-MNIST, CIFAR-10.

Images stay unsigned bytes, as in the files. The training loop casts and standardises each batch with ``mean`` and
``std``, which are in the same raw units.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import math
import os
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int32, Num, UInt8

from gossipjax._base.arguments import choice, real, whole, wholes
from gossipjax._base.calls import recorded
from gossipjax._base.display import displayed
from gossipjax._base.hashing import named_arrays_hash
from gossipjax.tasks._data import decode, files
from gossipjax.tasks._data.stratified import read_digits, stratified_split

_DIGIT_NAMES = tuple(str(digit) for digit in range(10))
_FASHION_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
_CIFAR_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

_CIFAR_BATCH = 10_000
_CIFAR_IMAGE = (32, 32, 3)


def _input_form(inputs: np.ndarray) -> str:
    """Describe one input, such as ``28 x 28 x 1 uint8``."""
    return f"{' x '.join(map(str, inputs.shape[1:]))} {inputs.dtype}"


@displayed
class Examples(NamedTuple):
    """Labelled images or other inputs.

    Attributes:
        inputs: ``(N, height, width, channels)`` unsigned bytes, or ``(N, ...)`` other numbers.
        labels: ``(N,)`` class numbers from 0.
        writers: ``(N,)`` number of the person who wrote each image; None if unknown.
    """

    inputs: Num[np.ndarray, " N *shape"]
    labels: Int32[np.ndarray, " N"]
    writers: Int32[np.ndarray, " N"] | None = None

    def _facts(self) -> tuple[str, dict[str, Any]]:
        writers = None if self.writers is None else np.unique(self.writers).size
        return "", {"samples": len(self.labels), "inputs": _input_form(self.inputs), "writers": writers}


@displayed
@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """A data set with its standard split.

    Attributes:
        name: its name in :func:`load` and in reports.
        train: training examples.
        test: test examples.
        num_classes: number of classes.
        mean: mean of each channel, or one mean of all, over the whole training set, in raw units (grey levels).
        std: standard deviation of each channel, or one of all, over the whole training set, in raw units.
        source: which files were read, for reports.
        class_names: one word per class.
    """

    name: str
    train: Examples
    test: Examples
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: str
    class_names: tuple[str, ...] = ()

    def _facts(self) -> tuple[str, dict[str, Any]]:
        sizes = {"training samples": len(self.train.labels), "test samples": len(self.test.labels)}
        facts = {"classes": self.num_classes, "inputs": _input_form(self.train.inputs), "source": self.source}
        return self.name, sizes | facts

    @functools.cached_property
    def checksum(self) -> str:
        """The sha256 of everything that affects training: inputs, labels, writers, number of classes, mean, std."""
        parts = {"train": self.train, "test": self.test}
        arrays = {f"{part}.{name}": a for part, e in parts.items() for name, a in e._asdict().items()}
        return named_arrays_hash(arrays | {"num_classes": self.num_classes, "mean": self.mean, "std": self.std})


# --- the data sets ----------------------------------------------------------------------------------------------------


@recorded()
def load(name: str, *, limit: tuple[int, int] | None = None) -> Dataset:
    """Load a data set by name.

    Args:
        name: ``"digits"``, ``"mnist"``, ``"mnist_by_writer"``, ``"fashion_mnist"`` or ``"cifar10"``.
        limit: keep only the first (training, test) examples; None keeps all.

    Returns:
        The data set, with default settings.

    Raises:
        ValueError: if the name is unknown, ``limit`` is out of range, or a file is corrupt.
        DataUnavailable: if a file is neither in the user's folder nor available for download.
    """
    loaders = {
        "digits": digits,
        "mnist": mnist,
        "mnist_by_writer": mnist_by_writer,
        "fashion_mnist": fashion_mnist,
        "cifar10": cifar10,
    }
    return loaders[choice("name", name, loaders)](limit=limit)


@recorded("alpaydin1998digits")
def digits(*, test_share: float = 0.2, seed: int = 0, limit: tuple[int, int] | None = None) -> Dataset:
    """Load scikit-learn's 1,797 handwritten digits of 8 by 8 pixels; no file is needed.

    Args:
        test_share: share of the images in the test set, drawn class by class (stratified).
        seed: seed of that draw.
        limit: keep only the first (training, test) examples; None keeps all.

    Returns:
        Images with values 0 … 16; by default 1,437 for training and 360 for testing. Mean and standard deviation are
        computed from the training images of this split.

    Raises:
        ValueError: if a part would have fewer images than classes, or ``limit`` is out of range.

    Reference:
        Alpaydin & Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998 (its test
        half), doi 10.24432/C50P49.
    """
    images, labels = read_digits()
    total, seed = len(labels), whole("seed", seed, least=0, most=2**32 - 1)
    test_share = real("test_share", test_share, above=0, below=1)
    if not 10 <= total * test_share <= total - 10:
        raise ValueError(
            f"test_share={test_share} must leave at least 10 of the {total} images, one per class, in both parts: "
            f"choose it between {10 / total:.4f} and {1 - 10 / total:.4f}"
        )
    parts = stratified_split(labels, test_share, seed)
    train, test = (Examples(images[part][..., None], labels[part]) for part in parts)
    moments = (float(train.inputs.mean()),), (float(train.inputs.std()),)
    keep = _check_limit(limit, (len(train.labels), len(test.labels)))
    source = f"scikit-learn digits (stratified split, test share {test_share:g}, seed {seed})"
    return Dataset("digits", _first(train, keep[0]), _first(test, keep[1]), 10, *moments, source, _DIGIT_NAMES)


@recorded("xiao2017fashion")
def fashion_mnist(*, limit: tuple[int, int] | None = None) -> Dataset:
    """Load Fashion-MNIST: 60,000 training and 10,000 test grey images of clothing, 28 by 28, in balanced classes.

    Args:
        limit: keep only the first (training, test) examples; None keeps all.

    Returns:
        The published images and labels, with mean and standard deviation of the published training images.

    Raises:
        ValueError: if ``limit`` is out of range, or a file is corrupt.
        DataUnavailable: if a file is neither in the user's folder nor available for download.

    Reference:
        Xiao, Rasul & Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms",
        arXiv 1708.07747, 2017.
    """
    train, test = _idx_dataset(files.FASHION_MNIST, limit)
    moments = (72.94035223214286,), (90.02118235130526,)
    return Dataset("fashion_mnist", train, test, 10, *moments, "Fashion-MNIST (published files)", _FASHION_NAMES)


@recorded("lecun1998mnist")
def mnist(*, limit: tuple[int, int] | None = None) -> Dataset:
    """Load MNIST: 60,000 training and 10,000 test grey images of handwritten digits, 28 by 28.

    Args:
        limit: keep only the first (training, test) examples; None keeps all.

    Returns:
        The published images and labels, with mean and standard deviation of the published training images.

    Raises:
        ValueError: if ``limit`` is out of range, or a file is corrupt.
        DataUnavailable: if a file is neither in the user's folder nor available for download.

    Reference:
        LeCun, Bottou, Bengio & Haffner, "Gradient-Based Learning Applied to Document Recognition", Proc. IEEE 86(11),
        1998.
    """
    train, test = _idx_dataset(files.MNIST, limit)
    moments = (33.318421449829934,), (78.56748998339799,)
    return Dataset("mnist", train, test, 10, *moments, "MNIST (published files)", _DIGIT_NAMES)


@recorded("yadav2019qmnist")
def mnist_by_writer(*, limit: tuple[int, int] | None = None) -> Dataset:
    """Load MNIST with the writer of every digit from QMNIST, for partitions by writer.

    Args:
        limit: keep only the first (training, test) examples; None keeps all.

    Returns:
        The examples of :func:`mnist` with ``writers``: 539 people in the training set (19 to 131 digits each), 297
        others in the test set; the writer numbers are QMNIST's and have gaps.

    Raises:
        ValueError: if ``limit`` is out of range, or a file is corrupt.
        DataUnavailable: if a file is neither in the user's folder nor available for download.

    Reference:
        Yadav & Bottou, "Cold Case: The Lost MNIST Digits", NeurIPS 2019.
    """
    plain = mnist(limit=limit)
    train, test = _with_writers(plain.train, files.QMNIST_TRAIN), _with_writers(plain.test, files.QMNIST_TEST)
    source = "MNIST (published files) with QMNIST writers"
    return dataclasses.replace(plain, name="mnist_by_writer", train=train, test=test, source=source)


@recorded("krizhevsky2009cifar")
def cifar10(*, limit: tuple[int, int] | None = None) -> Dataset:
    """Load CIFAR-10: 50,000 training and 10,000 test colour images, 32 by 32, in balanced classes.

    The loader takes the first complete format in the user's folder: the official ``cifar-10-binary.tar.gz``, its
    extracted ``cifar-10-batches-bin``, or the compact ``*.q5.xz`` (grey levels quantised to multiples of 5, largest
    error 2). Otherwise it downloads the official archive. The formats order the images differently: in the compact
    format image i has class i mod 10, so every prefix is balanced. A limit reads only the files that it needs. The
    pickled ``cifar-10-python.tar.gz`` is not supported, because unpickling runs code.

    Args:
        limit: keep only the first (training, test) examples; None keeps all.

    Returns:
        The images as stored; ``source`` names the format. Mean and standard deviation are those of the official
        training images for every format.

    Raises:
        ValueError: if ``limit`` is out of range, or a file is corrupt.
        DataUnavailable: if no format is in the user's folder and the official archive cannot be downloaded.

    Reference:
        Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", technical report, 2009.
    """
    keep = _check_limit(limit, (5 * _CIFAR_BATCH, _CIFAR_BATCH))
    train, test, source = _cifar10_examples(keep)
    # 255 times the customary constants; the lossless training images reproduce all eight digits.
    mean = (125.3069184, 122.95039455, 113.86538205)
    std = (62.99321865, 62.08870815, 66.7048992)
    return Dataset("cifar10", train, test, 10, mean, std, source, _CIFAR_NAMES)


# --- choosing files ---------------------------------------------------------------------------------------------------


def _check_limit(limit: Any, available: tuple[int, int]) -> tuple[int, int]:
    """Return the numbers of (training, test) examples to keep."""
    if limit is None:
        return available
    train, test = (int(count) for count in wholes("limit", limit, shape=(2,), remedy="(training, test) examples"))
    if not (1 <= train <= available[0] and 1 <= test <= available[1]):
        raise ValueError(
            f"limit={limit} must lie between (1, 1) and {available}, the numbers of training and test examples: choose "
            "a limit in that range, or None for all"
        )
    return train, test


def _first(examples: Examples, count: int) -> Examples:
    """Return the first examples."""
    writers = None if examples.writers is None else examples.writers[:count]
    return Examples(examples.inputs[:count], examples.labels[:count], writers)


def _idx_dataset(sources: tuple[files.DataFile, ...], limit: tuple[int, int] | None) -> tuple[Examples, Examples]:
    """Read the training and test examples of an MNIST-like data set."""
    keep = _check_limit(limit, (60_000, 10_000))
    arrays = [decode.idx(files.fetch(file)) for file in sources]
    for (images, labels), file in zip((arrays[:2], arrays[2:]), sources[::2], strict=True):
        if images.ndim != 3 or labels.shape != images.shape[:1]:
            raise ValueError(
                f"{file.name} and its labels must hold (N, height, width) and (N,), but hold {images.shape} and "
                f"{labels.shape}: delete both files and download them again"
            )
    train, test = (Examples(arrays[k][..., None], arrays[k + 1].astype(np.int32)) for k in (0, 2))
    return _first(train, keep[0]), _first(test, keep[1])


def _with_writers(examples: Examples, file: files.DataFile) -> Examples:
    """Add the writers: column 2 of a QMNIST table whose row k describes image k (the test table has more rows)."""
    table = decode.idx(files.fetch(file))[: len(examples.labels)]
    return examples._replace(writers=table[:, 2].astype(np.int32))


def _cifar10_examples(keep: tuple[int, int]) -> tuple[Examples, Examples, str]:
    """Read CIFAR-10 from the first format that exists; return training examples, test examples and the source."""
    needed = [*range(math.ceil(keep[0] / _CIFAR_BATCH)), 5]  # numbers of the files to read; 5 is the test batch
    archive = files.locate(files.CIFAR10_ARCHIVE)
    batches = None if archive else _locate_all([files.CIFAR10_BATCHES[k] for k in needed])
    compact = None if archive or batches else _locate_all([files.CIFAR10_COMPACT[k] for k in needed])
    if batches:
        parts = [Examples(*decode.cifar_binary(path.read_bytes(), path.name)) for path in batches]
        source = "CIFAR-10 (official binary)"
    elif compact:
        known = [files.CIFAR10_COMPACT[k] for k in needed]
        counts = [min(_CIFAR_BATCH, keep[0] - k * _CIFAR_BATCH) for k in needed[:-1]] + [keep[1]]
        images = [_compact_images(*each) for each in zip(compact, known, counts, strict=True)]
        parts = [Examples(x, np.arange(len(x), dtype=np.int32) % 10) for x in images]
        source = "CIFAR-10 (5-level-step quantised)"
    else:
        names = [files.CIFAR10_BATCHES[k].name for k in needed]
        path = archive or files.fetch(files.CIFAR10_ARCHIVE)
        parts = [Examples(*batch) for batch in decode.cifar_archive(path, names)]
        source = "CIFAR-10 (official binary)"
    train = Examples(*(np.concatenate(arrays) for arrays in zip(*(part[:2] for part in parts[:-1]), strict=True)))
    return _first(train, keep[0]), _first(parts[-1], keep[1]), source


def _locate_all(wanted: list[files.DataFile]) -> list[Path] | None:
    """Find all files in the user's folder; return None if one is missing."""
    paths = [path for path in map(files.locate, wanted) if path is not None]
    return paths if len(paths) == len(wanted) else None


def _compact_images(path: Path, file: files.DataFile, count: int) -> UInt8[np.ndarray, "count 32 32 3"]:
    """Load the first images of one compact file from the cache if the hash matches; otherwise decode it (2 s)."""
    cache = files.cache_folder() / "decoded" / f"{file.sha256}.npy"
    with contextlib.suppress(OSError, ValueError, EOFError):  # absent or unreadable: decode
        images = np.ascontiguousarray(np.load(cache, mmap_mode="r", allow_pickle=False))
        form = images.shape == (_CIFAR_BATCH, *_CIFAR_IMAGE) and images.dtype == np.uint8
        if form and hashlib.sha256(images.data).hexdigest() == file.decoded:
            return np.array(images[:count])
    images = decode.cifar_compact(path)
    _save(cache, images)
    return images[:count]


def _save(path: Path, array: UInt8[np.ndarray, "*shape"]) -> None:
    """Save an array for the next run in one atomic write; ignore a cache that is not writable."""
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".npy", delete=False) as stream:
            temporary = Path(stream.name)
            np.save(stream, array)
        os.replace(temporary, path)  # atomic: a concurrent run never reads half a file
    except OSError:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
