"""Decoders, on small files whose content is known byte by byte."""

import gzip
import lzma

import numpy as np
import pytest
from data_files import binary_batch, compact, random_images, write_archive, write_idx

from gossipjax.tasks._data import decode


@pytest.mark.parametrize(
    ("array", "kind"),
    [
        (np.arange(2 * 3 * 5, dtype=np.uint8).reshape(2, 3, 5), 8),
        (np.array([3, 0, 255], np.uint8), 8),
        (np.array([[1, -2, 70000], [2**31 - 1, -(2**31), 0]], np.int32), 12),
    ],
)
def test_idx_is_decoded_exactly(tmp_path, array, kind):
    write_idx(tmp_path / "a.gz", array, kind)
    decoded = decode.idx(tmp_path / "a.gz")
    assert decoded.dtype == array.dtype
    np.testing.assert_array_equal(decoded, array)


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (gzip.compress(b"\x00\x00\x0d\x01\x00\x00\x00\x01xxxx", mtime=0), "magic is 0x00000d01"),
        (gzip.compress(b"\x89PNG\r\n\x1a\n", mtime=0), "magic is 0x89504e47"),
        (gzip.compress(b"", mtime=0), "magic is 0x,"),
        (gzip.compress(b"\x00\x00\x08\x03\x00\x00", mtime=0), "magic"),
        (gzip.compress(b"\x00\x00\x08\x01\x00\x00\x00\x05abc", mtime=0), r"3 bytes follow .* shape \(5,\)"),
        (gzip.compress(b"\x00\x00\x08\x01\x00\x00\x00\x02abc", mtime=0), r"3 bytes follow .* shape \(2,\)"),
        (gzip.compress(bytes(5000), mtime=0)[:-9], "gzip"),
        (b"plain text", "gzip"),
    ],
)
def test_bad_idx_file_is_named(tmp_path, raw, problem):
    (tmp_path / "bad.gz").write_bytes(raw)
    with pytest.raises(ValueError, match=rf"bad\.gz cannot be decoded: .*{problem}.*download it again"):
        decode.idx(tmp_path / "bad.gz")


def test_cifar_binary_is_decoded_exactly():
    images, labels = random_images(0, 7)
    x, y = decode.cifar_binary(binary_batch(images, labels), "batch")
    np.testing.assert_array_equal(x, images)
    np.testing.assert_array_equal(y, labels)
    assert (x.dtype, y.dtype) == (np.uint8, np.int32)


def test_cifar_binary_refuses_bad_records():
    with pytest.raises(ValueError, match=r"batch cannot .* 3072 .* 3073"):
        decode.cifar_binary(bytes(3072), "batch")
    with pytest.raises(ValueError, match="label 10"):
        decode.cifar_binary(b"\x0a" + bytes(3072), "batch")
    with pytest.raises(ValueError, match="length 0"):
        decode.cifar_binary(b"", "batch")


def test_cifar_archive_gives_the_batches_in_the_order_asked(tmp_path):
    contents = {name: random_images(seed, 3) for seed, name in enumerate(["a.bin", "b.bin", "c.bin"])}
    write_archive(tmp_path / "x.tar.gz", {name: binary_batch(*content) for name, content in contents.items()})
    wanted = ["c.bin", "a.bin"]
    for name, (x, y) in zip(wanted, decode.cifar_archive(tmp_path / "x.tar.gz", wanted), strict=True):
        np.testing.assert_array_equal(x, contents[name][0])
        np.testing.assert_array_equal(y, contents[name][1])
    with pytest.raises(ValueError, match=r"it lacks d\.bin"):
        decode.cifar_archive(tmp_path / "x.tar.gz", ["a.bin", "d.bin"])


def test_cifar_archive_refuses_a_damaged_file(tmp_path):
    write_archive(tmp_path / "x.tar.gz", {"a.bin": binary_batch(*random_images(0, 20))})
    whole = (tmp_path / "x.tar.gz").read_bytes()
    for raw in (whole[: len(whole) // 2], b"no archive", b""):
        (tmp_path / "x.tar.gz").write_bytes(raw)
        with pytest.raises(ValueError, match=r"x\.tar\.gz cannot be decoded"):
            decode.cifar_archive(tmp_path / "x.tar.gz", ["a.bin"])


def test_cifar_compact_inverts_its_coding(tmp_path):
    levels = np.random.default_rng(0).integers(0, 52, (9, 32, 32, 3))
    (tmp_path / "x.q5.xz").write_bytes(compact(levels))
    np.testing.assert_array_equal(decode.cifar_compact(tmp_path / "x.q5.xz"), np.minimum(5 * levels, 255))


@pytest.mark.parametrize(
    "raw", [b"no xz", lzma.compress(bytes(3000)), lzma.compress(b""), lzma.compress(b"x" * 9)[:-5]]
)
def test_cifar_compact_refuses_a_damaged_file(tmp_path, raw):
    (tmp_path / "x.q5.xz").write_bytes(raw)
    with pytest.raises(ValueError, match=r"x\.q5\.xz cannot be decoded"):
        decode.cifar_compact(tmp_path / "x.q5.xz")
