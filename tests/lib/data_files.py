"""Files of data sets for tests: small ones made here; tests that need published ones are skipped without them."""

import gzip
import io
import lzma
import os
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest

FILES = {
    "mnist": ("mnist/train-images-idx3-ubyte.gz", "mnist/t10k-images-idx3-ubyte.gz"),
    "mnist_by_writer": ("mnist/qmnist-train-labels-idx2-int.gz", "mnist/qmnist-test-labels-idx2-int.gz"),
    "fashion_mnist": ("fashion-mnist/train-images-idx3-ubyte.gz", "fashion-mnist/t10k-images-idx3-ubyte.gz"),
    "cifar10_compact": ("cifar10/train_1.q5.xz", "cifar10/test.q5.xz"),
    "movielens": ("movielens/ml-latest-small/ratings.csv",),
    "shakespeare": ("shakespeare/shakespeare_by_role.json.xz",),
    "tiny_shakespeare": ("shakespeare/tinyshakespeare.txt",),
}


def needs(name: str) -> pytest.MarkDecorator:
    """Skip a test unless ``GOSSIPJAX_DATA`` names a folder with the files of a data set."""
    root = os.environ.get("GOSSIPJAX_DATA")
    present = bool(root) and all(Path(root, file).is_file() for file in FILES[name])
    wanted = " and ".join(FILES[name])
    return pytest.mark.skipif(not present, reason=f"data set {name}: set GOSSIPJAX_DATA to a folder with {wanted}")


def write_idx(path, array, kind):
    header = struct.pack(">BBBB", 0, 0, kind, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(header + array.astype({8: np.uint8, 12: ">i4"}[kind]).tobytes()))


def binary_batch(images, labels):
    """The official record format, written pixel plane by pixel plane."""
    records = zip(images, labels, strict=True)
    return b"".join(bytes([y]) + b"".join(x[:, :, c].tobytes() for c in range(3)) for x, y in records)


def write_archive(path, batches):
    with tarfile.open(path, "w:gz") as archive:
        for name, raw in batches.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(raw)
            archive.addfile(member, io.BytesIO(raw))


def compact(levels):
    """The inverse of the documented decoder: levels (N, 32, 32, 3) to an xz file."""
    q = levels.astype(np.int16)
    planes = np.stack([q[..., 1], q[..., 0] - q[..., 1], q[..., 2] - q[..., 1]])
    for axis in (3, 2):
        planes = np.diff(planes, axis=axis, prepend=0)
    return lzma.compress((planes % 256).astype(np.uint8).tobytes(), preset=0)


def random_images(seed, count):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8), rng.integers(0, 10, count).astype(np.int32)
