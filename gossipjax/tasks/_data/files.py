"""Find the files of the data sets: in the user's folder or in a download cache, always verified by checksum.

The search looks (1) in the folder that the environment variable ``GOSSIPJAX_DATA`` names, in the data set's subfolder
(``mnist/``, ``fashion-mnist/``, ``cifar10/``, ``movielens/``, ``shakespeare/``) or directly, and (2) in the download
cache, and downloads a missing file to the cache from its canonical URL. ``GOSSIPJAX_CACHE`` moves the cache;
``GOSSIPJAX_OFFLINE=1`` forbids downloads. Files, and arrays that an earlier run decoded and saved, are used only if
their sha256 matches the one below.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path, PurePosixPath

from gossipjax._base.arguments import instance
from gossipjax._base.hashing import file_hash
from gossipjax._base.lazy import pooch
from gossipjax._base.paths import cache_folder


class DataUnavailable(FileNotFoundError):
    """A file of a data set is neither in the user's folder nor available for download."""


@dataclasses.dataclass(frozen=True)
class DataFile:
    """One published file.

    Attributes:
        folder: subfolder of the data folder and of the cache, with ``/`` between its parts.
        name: file name.
        sha256: checksum, 64 hexadecimal digits.
        url: canonical URL; None if the file cannot be downloaded by itself.
        decoded: checksum of the bytes of the decoded array, if that array is saved between runs.
    """

    folder: str
    name: str
    sha256: str
    url: str | None = None
    decoded: str | None = None


_FASHION_URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
_MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
_QMNIST_URL = "https://raw.githubusercontent.com/facebookresearch/qmnist/master/"
_CIFAR_URL = "https://www.cs.toronto.edu/~kriz/"

IDX_NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def _idx_files(folder: str, url: str, checksums: tuple[str, ...]) -> tuple[DataFile, ...]:
    """Describe the four files of an MNIST-like data set, in the order of ``IDX_NAMES``."""
    names = [f"{name}.gz" for name in IDX_NAMES]
    return tuple(DataFile(folder, name, sha, url + name) for name, sha in zip(names, checksums, strict=True))


FASHION_MNIST = _idx_files(
    "fashion-mnist",
    _FASHION_URL,
    (
        "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    ),
)
MNIST = _idx_files(
    "mnist",
    _MNIST_URL,
    (
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    ),
)
QMNIST_TRAIN = DataFile(
    "mnist",
    "qmnist-train-labels-idx2-int.gz",
    "2c05dc77f6b916b38e455e97ab129a42a444f3dbef09b278a366f82904e0dd9f",
    _QMNIST_URL + "qmnist-train-labels-idx2-int.gz",
)
QMNIST_TEST = DataFile(
    "mnist",
    "qmnist-test-labels-idx2-int.gz",
    "9fbcbe594c3766fdf4f0b15c5165dc0d1e57ac604e01422608bb72c906030d06",
    _QMNIST_URL + "qmnist-test-labels-idx2-int.gz",
)
CIFAR10_ARCHIVE = DataFile(
    "cifar10",
    "cifar-10-binary.tar.gz",
    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    _CIFAR_URL + "cifar-10-binary.tar.gz",
)
_BATCHES = "cifar10/cifar-10-batches-bin"
CIFAR10_BATCHES = (
    DataFile(_BATCHES, "data_batch_1.bin", "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5"),
    DataFile(_BATCHES, "data_batch_2.bin", "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed"),
    DataFile(_BATCHES, "data_batch_3.bin", "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67"),
    DataFile(_BATCHES, "data_batch_4.bin", "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48"),
    DataFile(_BATCHES, "data_batch_5.bin", "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add"),
    DataFile(_BATCHES, "test_batch.bin", "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b"),
)
CIFAR10_COMPACT = (
    DataFile(
        "cifar10",
        "train_1.q5.xz",
        "5f70c60e7f13e1878460696e1bf6348db5b01dab2e7e6ecab114f0a2c119744c",
        decoded="dadeabfb007123467a63a1c811d8e276dfc28ba0c0844a8f411f83f5c4d7ba29",
    ),
    DataFile(
        "cifar10",
        "train_2.q5.xz",
        "7816f6f40f7c8284554a7b4560c0f093f08ff78fd00a196f31c73c699c24ad82",
        decoded="6b2e2775cfba7d13c498851c7a8c27a6dd7f85a754cc60148b8b3248596b3884",
    ),
    DataFile(
        "cifar10",
        "train_3.q5.xz",
        "bb6a0ed1aae8e6bd8b726b19224526e819a9af79d73a0f38c21abc8de8c2f60c",
        decoded="8dc46a25c0c6f515d32b4a25ee6260167b24fc2a067cf475a661a357316c2fbc",
    ),
    DataFile(
        "cifar10",
        "train_4.q5.xz",
        "147b5b302606ca9757e02341d08665479d62e318f48601fa0ddd01d1e4f191a1",
        decoded="9afef3ad62d7a2700fd3b0544ea4e254d498ebea40d26c11978706a030106622",
    ),
    DataFile(
        "cifar10",
        "train_5.q5.xz",
        "1e8a53c566624766b1252b9d551b5eb02c72ae06af29799789cc052927d31317",
        decoded="d8abdecca50b751cf80d7667610597ccd631ebe6050caec014dd8822e0de9f3e",
    ),
    DataFile(
        "cifar10",
        "test.q5.xz",
        "c4d6f941f582aa830d7f446aff9e54389536a439eb8cfba57cf7271ae0fc90d5",
        decoded="bab7e72b593670215e49d0d42075051a7135c46cc101edf0f217e229dd86368e",
    ),
)
MOVIELENS_ARCHIVE = DataFile(
    "movielens",
    "ml-latest-small.zip",
    "696d65a3dfceac7c45750ad32df2c259311949efec81f0f144fdfb91ebc9e436",
    "https://files.grouplens.org/datasets/movielens/ml-latest-small.zip",
)
MOVIELENS_RATINGS = DataFile(
    "movielens/ml-latest-small",
    "ratings.csv",
    "aa289ca83157595d0df6aea1be6a4ded676ddc4385472e8313a8ed9805352646",
)
SHAKESPEARE_ROLES = DataFile(
    "shakespeare",
    "shakespeare_by_role.json.xz",
    "7f58b75da802cf3272abeb2f279a60b527cf4b4e309be10a9e8f9b13c2368d3c",
)
TINY_SHAKESPEARE = DataFile(
    "shakespeare",
    "tinyshakespeare.txt",
    "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
)
_KNOWN = frozenset(
    file.sha256
    for file in (
        *FASHION_MNIST,
        *MNIST,
        QMNIST_TRAIN,
        QMNIST_TEST,
        CIFAR10_ARCHIVE,
        *CIFAR10_BATCHES,
        *CIFAR10_COMPACT,
        MOVIELENS_ARCHIVE,
        MOVIELENS_RATINGS,
        SHAKESPEARE_ROLES,
        TINY_SHAKESPEARE,
    )
)


def data_folder() -> Path | None:
    """Return the folder that ``GOSSIPJAX_DATA`` names, or None if it is not set.

    Raises:
        ValueError: if it names a folder that does not exist.
    """
    value = os.environ.get("GOSSIPJAX_DATA")
    if not value:
        return None
    folder = Path(value).expanduser()
    if not folder.is_dir():
        raise ValueError(
            f"GOSSIPJAX_DATA={value!r} must name an existing folder: create it, correct the variable, or unset it to "
            "download data sets"
        )
    return folder


def is_offline() -> bool:
    """Return whether ``GOSSIPJAX_OFFLINE`` forbids downloads (any value except the empty string and 0)."""
    return os.environ.get("GOSSIPJAX_OFFLINE", "") not in ("", "0")


def locate(file: DataFile) -> Path | None:
    """Find a file in the user's folder and verify it; return None if it is not there.

    Args:
        file: the search tries ``folder/name``, then every shorter tail of that path, and last ``name``. On a shorter
            path it skips a file of the same name that belongs to another data set.

    Raises:
        ValueError: if ``GOSSIPJAX_DATA`` does not name a folder, or the sha256 of the file is wrong.
    """
    instance("file", file, DataFile, "such as CIFAR10_ARCHIVE")
    root = data_folder()
    if root is None:
        return None
    parts = PurePosixPath(file.folder).parts
    for start in range(len(parts) + 1):
        path = root.joinpath(*parts[start:], file.name)
        if not path.is_file():
            continue
        sha256 = file_hash(path)
        if sha256 == file.sha256:
            return path
        if start == 0 or sha256 not in _KNOWN:
            raise _corrupt(file, path, sha256)
    return None


def fetch(file: DataFile) -> Path:
    """Return the verified path of a file from the user's folder or the cache; download it if it is missing.

    Args:
        file: the file to find.

    Returns:
        Path of a file with the expected sha256.

    Raises:
        ValueError: if the sha256 of the file or of the download is wrong.
        DataUnavailable: if the file is missing and cannot be downloaded.
    """
    return locate(file) or _cached(file) or _download(file)


def _cached(file: DataFile) -> Path | None:
    """Return the verified file from the cache; None if it must be downloaded."""
    path = cache_folder() / file.folder / file.name
    if not path.is_file():
        return None
    sha256 = file_hash(path)
    if sha256 == file.sha256:
        return path
    if is_offline() or file.url is None:
        raise _corrupt(file, path, sha256)
    return None


def _download(file: DataFile) -> Path:
    """Download a file into the cache, first under a temporary name, so that an interrupted download leaves nothing."""
    if file.url is None:
        raise _unavailable(file, "it cannot be downloaded by itself")
    if is_offline():
        raise _unavailable(file, "GOSSIPJAX_OFFLINE forbids downloads; unset it")
    folder = cache_folder() / file.folder
    try:
        return Path(pooch.retrieve(file.url, known_hash=f"sha256:{file.sha256}", fname=file.name, path=folder))
    except OSError as error:  # network failures of requests, and a cache that is not writable
        raise _unavailable(file, f"the download failed: {error}") from error
    except ValueError as error:  # the checksum differs, and pooch has deleted the file
        raise ValueError(
            f"{file.url} does not deliver the published {file.name}: sha256 expected {file.sha256}. {error} Try again, "
            "or put the file in a folder and set GOSSIPJAX_DATA to that folder"
        ) from error


def _corrupt(file: DataFile, path: Path, sha256: str) -> ValueError:
    """Describe a file whose content differs from the published file."""
    remedy = f"download it again from {file.url}" if file.url else "copy it again from its source"
    return ValueError(
        f"{path} is corrupt or is not the published file: sha256 {sha256}, expected {file.sha256}: delete it and "
        f"{remedy}"
    )


def _unavailable(file: DataFile, reason: str) -> DataUnavailable:
    """Describe a missing file and the two ways to provide it."""
    root = data_folder()
    search = f"not found in {root}" if root else "not set now"
    source = f"let it be downloaded from {file.url} to {cache_folder()}" if file.url else "let it be downloaded"
    return DataUnavailable(
        f"the data file {file.folder}/{file.name} is not available. Either (1) put it in a folder, as "
        f"{file.folder}/{file.name} or directly, and set GOSSIPJAX_DATA to that folder ({search}); or (2) {source} "
        f"({reason})"
    )
