"""Data sets: how a file is found, whole sets from files made here, and the published files where they are at hand."""

import dataclasses
import hashlib
import http.server
import inspect
import io
import itertools
import threading

import numpy as np
import pytest
from data_files import binary_batch, compact, needs, random_images, write_archive, write_idx
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from gossipjax.tasks import by_user
from gossipjax.tasks._data import decode, files, images
from gossipjax.tasks._data.stratified import read_digits, stratified_split
from gossipjax.tasks._partition import check_partition

# --- files made here --------------------------------------------------------------------------------------------------


def describe(content, folder="mnist", name="data.gz", url=None):
    return files.DataFile(folder, name, hashlib.sha256(content).hexdigest(), url)


def with_checksum(file, path):
    return dataclasses.replace(file, sha256=hashlib.sha256(path.read_bytes()).hexdigest())


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty data folder and an empty cache, with downloads forbidden."""
    monkeypatch.setenv("GOSSIPJAX_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("GOSSIPJAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("GOSSIPJAX_OFFLINE", "1")
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


@pytest.fixture
def server(tmp_path):
    """A web server on this machine's loopback interface: its folder and its address."""
    root = tmp_path / "served"
    root.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(root))

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield root, f"http://127.0.0.1:{httpd.server_port}/"
        httpd.shutdown()


# --- finding files ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["cifar10/batches", "batches", "."])
def test_file_is_found_in_its_subfolder_or_directly(folder, place):
    file = describe(b"content", folder="cifar10/batches")
    assert files.locate(file) is None
    (folder / place).mkdir(parents=True, exist_ok=True)
    (folder / place / file.name).write_bytes(b"content")
    assert files.fetch(file) == folder / place / file.name


def test_corrupt_file_is_named_with_both_checksums_and_the_remedy(folder):
    file = describe(b"content", url="http://127.0.0.1/data.gz")
    (folder / file.name).write_bytes(b"contents")
    with pytest.raises(ValueError, match="is corrupt") as caught:
        files.fetch(file)
    text = str(caught.value)
    found = hashlib.sha256(b"contents").hexdigest()
    assert all(part in text for part in (str(folder / file.name), file.sha256, found, "delete it", file.url))


def test_another_data_set_of_the_same_file_name_is_passed_over(folder, monkeypatch):
    """MNIST and Fashion-MNIST name their files alike; lying directly in the folder, one must not pass for the other."""
    ours, other = describe(b"ours", folder="mnist"), describe(b"other", folder="fashion-mnist")
    monkeypatch.setattr(files, "_KNOWN", frozenset({ours.sha256, other.sha256}))
    (folder / "data.gz").write_bytes(b"other")
    assert files.locate(ours) is None
    assert files.locate(other) == folder / "data.gz"


def test_missing_data_folder_is_an_error(folder, monkeypatch):
    monkeypatch.setenv("GOSSIPJAX_DATA", str(folder / "nowhere"))
    with pytest.raises(ValueError, match=r"GOSSIPJAX_DATA='.*nowhere' must name an existing folder"):
        images.load("mnist")
    (folder / "nowhere").write_bytes(b"a file")
    with pytest.raises(ValueError, match="existing folder"):
        files.data_folder()


@pytest.mark.parametrize("name", ["mnist", "mnist_by_writer", "fashion_mnist", "cifar10"])
@pytest.mark.parametrize("is_set", [True, False])
def test_offline_error_names_both_ways_the_file_and_the_address(folder, monkeypatch, name, is_set):
    if not is_set:
        monkeypatch.delenv("GOSSIPJAX_DATA")
    with pytest.raises(files.DataUnavailable) as caught:
        images.load(name)
    file = {"fashion_mnist": files.FASHION_MNIST[0], "cifar10": files.CIFAR10_ARCHIVE}.get(name, files.MNIST[0])
    text = str(caught.value)
    assert isinstance(caught.value, FileNotFoundError)
    assert all(part in text for part in ("GOSSIPJAX_DATA", "GOSSIPJAX_OFFLINE", file.name, file.url, "(1)", "(2)"))
    assert ("not found in" in text) == is_set


def test_network_failure_names_both_ways(folder, monkeypatch):
    monkeypatch.delenv("GOSSIPJAX_OFFLINE")
    file = describe(b"content", url="http://127.0.0.1:9/data.gz")  # the discard port: nobody listens
    with pytest.raises(files.DataUnavailable, match=r"GOSSIPJAX_DATA.*the download failed: .*127\.0\.0\.1"):
        files.fetch(file)


def test_download_is_verified_and_kept(folder, server, monkeypatch):
    root, address = server
    monkeypatch.delenv("GOSSIPJAX_OFFLINE")
    monkeypatch.delenv("GOSSIPJAX_DATA")
    (root / "data.gz").write_bytes(b"content")
    file = describe(b"content", url=address + "data.gz")
    path = files.fetch(file)
    assert path == files.cache_folder() / "mnist" / "data.gz"
    (root / "data.gz").unlink()
    assert files.fetch(file) == path
    path.write_bytes(b"spoilt")
    with pytest.raises(files.DataUnavailable, match="404"):
        files.fetch(file)
    (root / "data.gz").write_bytes(b"content")
    assert files.fetch(file).read_bytes() == b"content"


def test_download_of_another_content_is_refused(folder, server, monkeypatch):
    root, address = server
    monkeypatch.delenv("GOSSIPJAX_OFFLINE")
    (root / "data.gz").write_bytes(b"a login page")
    file = describe(b"content", url=address + "data.gz")
    with pytest.raises(ValueError, match="does not deliver the published") as caught:
        files.fetch(file)
    text = str(caught.value)
    assert all(part in text for part in (file.url, file.sha256, hashlib.sha256(b"a login page").hexdigest()))
    assert not list(files.cache_folder().rglob("data.gz"))


def test_corrupt_cached_file_is_reported_when_offline(folder):
    file = describe(b"content", url="http://127.0.0.1/data.gz")
    path = files.cache_folder() / "mnist" / "data.gz"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"spoilt")
    with pytest.raises(ValueError, match="is corrupt"):
        files.fetch(file)


# --- whole data sets from files made here -----------------------------------------------------------------------------


@pytest.fixture
def small_mnist(folder, monkeypatch):
    rng = np.random.default_rng(0)
    arrays = [
        rng.integers(0, 256, (30, 4, 4)),
        rng.integers(0, 10, 30),
        rng.integers(0, 256, (8, 4, 4)),
        rng.integers(0, 10, 8),
    ]
    paths = [folder / "mnist" / f"{name}.gz" for name in files.IDX_NAMES]
    for path, array in zip(paths, arrays, strict=True):
        write_idx(path, array, 8)
    monkeypatch.setattr(files, "MNIST", tuple(map(with_checksum, files.MNIST, paths)))
    tables = {"QMNIST_TRAIN": rng.integers(0, 4000, (30, 8)), "QMNIST_TEST": rng.integers(0, 4000, (20, 8))}
    for name, table in tables.items():
        file = getattr(files, name)
        write_idx(folder / "mnist" / file.name, table, 12)
        monkeypatch.setattr(files, name, with_checksum(file, folder / "mnist" / file.name))
    return arrays, tables


def test_mnist_from_its_four_files(small_mnist):
    arrays, _ = small_mnist
    data = images.load("mnist")
    for part, pictures, labels in ((data.train, *arrays[:2]), (data.test, *arrays[2:])):
        np.testing.assert_array_equal(part.inputs[..., 0], pictures)
        np.testing.assert_array_equal(part.labels, labels)
        assert (part.inputs.dtype, part.labels.dtype, part.writers) == (np.uint8, np.int32, None)
    limited = images.load("mnist", limit=(5, 2))
    assert (limited.train.inputs.shape, limited.test.labels.shape) == ((5, 4, 4, 1), (2,))


def test_writers_are_column_two_of_as_many_rows_as_there_are_images(small_mnist):
    arrays, tables = small_mnist
    data = images.load("mnist_by_writer")
    np.testing.assert_array_equal(data.train.writers, tables["QMNIST_TRAIN"][:, 2])
    np.testing.assert_array_equal(data.test.writers, tables["QMNIST_TEST"][:8, 2])
    assert data.train.writers.dtype == np.int32
    np.testing.assert_array_equal(images.load("mnist_by_writer", limit=(3, 1)).train.inputs[..., 0], arrays[0][:3])


def test_images_and_labels_must_agree(small_mnist, folder, monkeypatch):
    path = folder / "mnist" / "train-labels-idx1-ubyte.gz"
    write_idx(path, np.zeros(29), 8)
    monkeypatch.setattr(files, "MNIST", tuple(with_checksum(f, folder / "mnist" / f.name) for f in files.MNIST))
    with pytest.raises(ValueError, match=r"\(30, 4, 4\) and \(29,\)"):
        images.load("mnist")


@pytest.fixture
def small_cifar(folder, monkeypatch):
    """All three forms of CIFAR-10, in batches of 20; a function puts one of them into the folder."""
    monkeypatch.setattr(images, "_CIFAR_BATCH", 20)
    batches = [random_images(seed, 20) for seed in range(6)]
    levels = [np.random.default_rng(seed).integers(0, 52, (20, 32, 32, 3)) for seed in range(6)]
    raw = {file.name: binary_batch(*batch) for file, batch in zip(files.CIFAR10_BATCHES, batches, strict=True)}
    packed = {file.name: compact(level) for file, level in zip(files.CIFAR10_COMPACT, levels, strict=True)}
    write_archive(folder.parent / "archive", raw)
    monkeypatch.setattr(files, "CIFAR10_ARCHIVE", with_checksum(files.CIFAR10_ARCHIVE, folder.parent / "archive"))
    for name, contents in (("CIFAR10_BATCHES", raw), ("CIFAR10_COMPACT", packed)):
        known = [
            dataclasses.replace(f, sha256=hashlib.sha256(contents[f.name]).hexdigest()) for f in getattr(files, name)
        ]
        if name == "CIFAR10_COMPACT":
            arrays = [np.minimum(5 * level, 255).astype(np.uint8) for level in levels]
            known = [
                dataclasses.replace(f, decoded=hashlib.sha256(array.tobytes()).hexdigest())
                for f, array in zip(known, arrays, strict=True)
            ]
        monkeypatch.setattr(files, name, tuple(known))

    def put(form):
        if form == "archive":
            contents, place = {files.CIFAR10_ARCHIVE.name: (folder.parent / "archive").read_bytes()}, "cifar10"
        else:
            contents, place = (raw, "cifar-10-batches-bin") if form == "batches" else (packed, "cifar10")
        (folder / place).mkdir(exist_ok=True)
        for name, content in contents.items():
            (folder / place / name).write_bytes(content)

    return put, batches, [np.minimum(5 * level, 255) for level in levels]


@pytest.mark.parametrize("form", ["archive", "batches"])
def test_official_cifar10(small_cifar, form):
    put, batches, _ = small_cifar
    put(form)
    data = images.load("cifar10")
    np.testing.assert_array_equal(data.train.inputs, np.concatenate([x for x, _ in batches[:5]]))
    np.testing.assert_array_equal(data.train.labels, np.concatenate([y for _, y in batches[:5]]))
    np.testing.assert_array_equal(data.test.inputs, batches[5][0])
    assert data.source == "CIFAR-10 (official binary)"
    limited = images.load("cifar10", limit=(25, 3))
    np.testing.assert_array_equal(limited.train.labels, data.train.labels[:25])
    np.testing.assert_array_equal(limited.test.inputs, data.test.inputs[:3])


def test_compact_cifar10_and_its_limit(small_cifar, folder):
    put, _, pictures = small_cifar
    put("compact")
    data = images.load("cifar10")
    np.testing.assert_array_equal(data.train.inputs, np.concatenate(pictures[:5]))
    np.testing.assert_array_equal(data.train.labels, np.arange(100) % 10)
    assert data.source == "CIFAR-10 (5-level-step quantised)"
    for k in (3, 4, 5):
        (folder / "cifar10" / f"train_{k}.q5.xz").unlink()
    limited = images.load("cifar10", limit=(30, 10))  # reads train_1, train_2 and test alone
    np.testing.assert_array_equal(limited.train.inputs, np.concatenate(pictures[:2])[:30])
    np.testing.assert_array_equal(limited.test.labels, np.arange(10))


def test_official_form_is_preferred_and_an_incomplete_form_passed_over(small_cifar, folder):
    put, *_ = small_cifar
    put("compact")
    put("batches")
    assert images.load("cifar10").source == "CIFAR-10 (official binary)"
    (folder / "cifar-10-batches-bin" / "data_batch_5.bin").unlink()
    assert images.load("cifar10").source == "CIFAR-10 (5-level-step quantised)"
    (folder / "cifar10" / "train_5.q5.xz").unlink()
    with pytest.raises(files.DataUnavailable, match=r"cifar-10-binary\.tar\.gz"):
        images.load("cifar10")


def test_decoded_images_are_kept_and_a_spoilt_copy_is_ignored(small_cifar, monkeypatch):
    put, _, pictures = small_cifar
    put("compact")
    images.load("cifar10")
    kept = files.cache_folder() / "decoded" / f"{files.CIFAR10_COMPACT[0].sha256}.npy"
    np.testing.assert_array_equal(np.load(kept), pictures[0])
    assert len(list(kept.parent.iterdir())) == 6  # no temporary file is left
    monkeypatch.setattr(decode, "cifar_compact", lambda path: pytest.fail("decoded again"))
    np.testing.assert_array_equal(images.load("cifar10").train.inputs[:20], pictures[0])


def npy(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


SPOILT = {
    "empty": lambda raw: b"",
    "another format": lambda raw: b"no npy file",
    "cut short": lambda raw: raw[:-100],
    "zeros": lambda raw: npy(np.zeros((20, 32, 32, 3), np.uint8)),
    "one bit": lambda raw: raw[:-1] + bytes([raw[-1] ^ 1]),
    "another order": lambda raw: npy(np.load(io.BytesIO(raw))[::-1]),
    "another type": lambda raw: npy(np.load(io.BytesIO(raw)).view(np.int8)),
    "another shape": lambda raw: npy(np.load(io.BytesIO(raw)).reshape(32, 20, 32, 3)),
    "a size beyond memory": lambda raw: npy(np.zeros(0, np.uint8)).replace(b"(0,)", b"(1000000000000000,)"),
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT.keys())
def test_spoilt_copy_of_decoded_images_is_decoded_again(small_cifar, spoil):
    put, _, pictures = small_cifar
    put("compact")
    images.load("cifar10")
    kept = files.cache_folder() / "decoded" / f"{files.CIFAR10_COMPACT[0].sha256}.npy"
    kept.write_bytes(spoil(kept.read_bytes()))
    np.testing.assert_array_equal(images.load("cifar10").train.inputs[:20], pictures[0])
    np.testing.assert_array_equal(np.load(kept), pictures[0])


def test_cache_that_cannot_be_written_is_no_error(small_cifar, folder, monkeypatch):
    put, _, pictures = small_cifar
    put("compact")
    (folder.parent / "plain").write_bytes(b"a file where the cache should be")
    monkeypatch.setenv("GOSSIPJAX_CACHE", str(folder.parent / "plain"))
    np.testing.assert_array_equal(images.load("cifar10").test.inputs, pictures[5])


# --- digits and arguments ---------------------------------------------------------------------------------------------


def test_digits_are_split_class_by_class_and_none_is_lost():
    data, bunch = images.digits(), load_digits()
    assert (data.train.inputs.shape, data.test.inputs.shape) == ((1437, 8, 8, 1), (360, 8, 8, 1))
    assert (data.train.inputs.dtype, data.train.inputs.max()) == (np.uint8, 16)
    both = np.concatenate([data.train.inputs, data.test.inputs]).reshape(1797, 64)
    np.testing.assert_array_equal(
        np.sort(both.view("V64").ravel()), np.sort(bunch.data.astype("u1").view("V64").ravel())
    )
    counts = np.bincount(data.test.labels)
    assert np.all(np.abs(counts - 0.2 * np.bincount(bunch.target)) <= 1)
    assert data.mean == (data.train.inputs.mean(),)
    assert data.std == (data.train.inputs.std(),)


@pytest.mark.parametrize("share", [0.1, 0.2, 0.37, 0.5])
def test_digits_are_split_as_scikit_learn_splits_them(share):
    bunch = load_digits()
    few = np.random.default_rng(0).permutation(len(bunch.target))[:217]  # classes of unequal sizes, remainders that tie
    for labels, seed in itertools.product((bunch.target, bunch.target[few], np.arange(60) % 6), range(4)):
        wanted = train_test_split(np.arange(len(labels)), test_size=share, random_state=seed, stratify=labels)
        for part, expected in zip(stratified_split(labels, share, seed), wanted, strict=True):
            np.testing.assert_array_equal(part, expected)
    for part, expected in zip(read_digits(), (bunch.images, bunch.target), strict=True):
        np.testing.assert_array_equal(part, expected)


def test_digits_split_is_fixed_by_its_seed():
    first, again, other = images.digits(seed=3), images.digits(seed=3), images.digits(seed=4)
    np.testing.assert_array_equal(first.test.inputs, again.test.inputs)
    assert np.any(first.test.labels != other.test.labels)
    assert len(images.digits(test_share=0.5).test.labels) == 899  # scikit-learn rounds the test part up


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 0.001, float("nan")])
def test_bad_test_share_is_named(share):
    with pytest.raises(ValueError, match="test_share="):
        images.digits(test_share=share)


@pytest.mark.parametrize("limit", [(1, 2, 3), 5, (1.5, 2), (float("nan"), 1), "ab", [], (True, False)])
def test_limits_that_are_no_pair_of_whole_numbers_are_named(limit):
    with pytest.raises(ValueError, match=r"limit.* must be whole numbers"):
        inspect.unwrap(images.digits)(limit=limit)


@pytest.mark.parametrize("seed", [None, -1, 1.5, "a", float("nan"), True, 2**32])
def test_seeds_of_the_split_are_whole(seed):
    with pytest.raises(ValueError, match=r"seed=.*: must be a whole number"):
        inspect.unwrap(images.digits)(seed=seed)


@pytest.mark.parametrize("limit", [(0, 1), (1, 0), (1438, 1), (1, 361)])
def test_bad_limit_is_named(limit):
    with pytest.raises(ValueError, match=r"limit=.* must lie between \(1, 1\) and \(1437, 360\)"):
        images.digits(limit=limit)


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"name='cifar100': .*'digits', 'mnist', .*, 'cifar10'"):
        images.load("cifar100")
    assert images.load("digits", limit=(10, 5)).train.labels.shape == (10,)


# --- the published files ----------------------------------------------------------------------------------------------


def check_moments(data):
    """The stated constants are those of the training images, to the rounding of float64 sums (1e-12 relative)."""
    histogram = np.bincount(data.train.inputs.ravel(), minlength=256)
    mean = histogram @ np.arange(256) / histogram.sum()
    variance = histogram @ np.arange(256) ** 2 / histogram.sum() - mean**2
    np.testing.assert_allclose((data.mean[0], data.std[0]), (mean, np.sqrt(variance)), rtol=1e-12)


@needs("mnist")
def test_published_mnist():
    data = images.mnist()
    check_moments(data)
    assert data.train.inputs.shape == (60_000, 28, 28, 1)
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    np.testing.assert_array_equal(np.bincount(data.train.labels), counts)
    counts = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    np.testing.assert_array_equal(np.bincount(data.test.labels), counts)


@needs("mnist_by_writer")
def test_published_writers():
    data = images.mnist_by_writer()
    for part, file in ((data.train, files.QMNIST_TRAIN), (data.test, files.QMNIST_TEST)):
        classes = decode.idx(files.fetch(file))[: len(part.labels), 0]
        np.testing.assert_array_equal(classes, part.labels)
    (train, digits), (test, _) = (np.unique(p.writers, return_counts=True) for p in (data.train, data.test))
    assert (len(train), len(test), digits.min(), digits.max()) == (539, 297, 19, 131)
    assert not set(train) & set(test)


@needs("mnist_by_writer")
def test_published_writers_are_dealt_to_96_nodes():
    writers = images.mnist_by_writer().train.writers
    partition = by_user(writers, 96, seed=90)
    check_partition(partition, 60_000)
    people = [len(np.unique(writers[partition.shard(node)])) for node in range(96)]
    assert people == [6] * 59 + [5] * 37


@needs("fashion_mnist")
def test_published_fashion_mnist():
    data = images.fashion_mnist()
    check_moments(data)
    np.testing.assert_array_equal(np.bincount(data.train.labels), np.full(10, 6000))
    np.testing.assert_array_equal(np.bincount(data.test.labels), np.full(10, 1000))


@pytest.mark.slow
@needs("cifar10_compact")
def test_published_compact_cifar10(tmp_path, monkeypatch):
    monkeypatch.setenv("GOSSIPJAX_CACHE", str(tmp_path))
    data = images.cifar10()
    train, test = (hashlib.sha256(part.inputs.tobytes()).hexdigest() for part in (data.train, data.test))
    assert train == "3e31f6a88eab549bee06d8f63822c5ab15d29bf7c3312831c9871ff9cf71b169"
    assert test == "bab7e72b593670215e49d0d42075051a7135c46cc101edf0f217e229dd86368e"
    # Quantisation moves a level by at most 2 and by 0 on average up to the unevenness of the histogram.
    np.testing.assert_allclose(data.mean, data.train.inputs.mean((0, 1, 2), dtype=np.float64), atol=0.1)
    again = images.cifar10(limit=(10_010, 20))
    np.testing.assert_array_equal(again.train.inputs, data.train.inputs[:10_010])
    np.testing.assert_array_equal(again.train.labels, np.arange(10_010) % 10)
