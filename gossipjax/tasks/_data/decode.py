"""Decode the file formats of the image data sets, without checking checksums."""

from __future__ import annotations

import gzip
import lzma
import math
import os
import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int32, Integer, UInt8

from gossipjax._base.arguments import instance, sequence_of

Labelled = tuple[UInt8[np.ndarray, "N 32 32 3"], Int32[np.ndarray, " N"]]
"""Images and their labels."""


def idx(path: str | os.PathLike[str]) -> Integer[np.ndarray, "*shape"]:
    """Decode a gzip-compressed IDX file of unsigned bytes (type 0x08) or of big-endian int32 (type 0x0C).

    Args:
        path: the file.

    Returns:
        The array with the shape in the header, in native byte order.

    Raises:
        ValueError: if the compression, the magic number or the length is wrong.
    """
    path = _path(path)
    try:
        raw = gzip.decompress(path.read_bytes())
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _undecodable(path.name, f"it is not a complete gzip file ({error})") from error
    kinds: dict[bytes, Any] = {b"\x00\x00\x08": np.dtype(np.uint8), b"\x00\x00\x0c": np.dtype(">i4")}
    kind = kinds.get(raw[:3])
    if kind is None or len(raw) < 4 * (1 + raw[3]):
        raise _undecodable(path.name, f"its IDX magic is 0x{raw[:4].hex()}, expected 0x000008dd or 0x00000cdd")
    shape = tuple(int(size) for size in np.frombuffer(raw, ">u4", count=raw[3], offset=4))
    start = 4 * (1 + raw[3])
    if len(raw) - start != math.prod(shape) * kind.itemsize:
        raise _undecodable(path.name, f"{len(raw) - start} bytes follow a header that gives the shape {shape}")
    return np.frombuffer(raw, kind, offset=start).reshape(shape).astype(kind.newbyteorder("="))


def cifar_binary(raw: bytes, name: str) -> Labelled:
    """Decode an official binary batch: records of one label byte and 3,072 pixels, channels first.

    Args:
        raw: content of the file.
        name: name of the file, for errors.

    Returns:
        RGB images ``(N, 32, 32, 3)`` and their labels.

    Raises:
        ValueError: if the length is not a multiple of 3,073 bytes, or a label is larger than 9.
    """
    instance("raw", raw, bytes, "the content of a file")
    if not raw or len(raw) % 3073:
        raise _undecodable(name, f"its length {len(raw)} is not a positive multiple of 3073 bytes")
    records = np.frombuffer(raw, np.uint8).reshape(-1, 3073)
    if records[:, 0].max() > 9:
        raise _undecodable(name, f"it holds the label {records[:, 0].max()}, larger than 9")
    images = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), records[:, 0].astype(np.int32)


def cifar_archive(path: str | os.PathLike[str], names: Sequence[str]) -> list[Labelled]:
    """Decode some batches of the official archive without extracting it to disk.

    Args:
        path: the ``.tar.gz``.
        names: file names of the batches to read.

    Returns:
        Images and labels of each batch, in the order of ``names``.

    Raises:
        ValueError: if the archive is damaged or lacks a batch.
    """
    path, names, batches = _path(path), sequence_of("names", names, str, "such as 'data_batch_1.bin'"), {}
    try:
        with tarfile.open(path, "r|gz") as archive:
            for member in archive:
                name = Path(member.name).name
                stream = archive.extractfile(member) if name in names else None
                if stream is not None:
                    batches[name] = cifar_binary(stream.read(), name)
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise _undecodable(path.name, f"it is not a complete tar.gz archive ({error})") from error
    missing = [name for name in names if name not in batches]
    if missing:
        raise _undecodable(path.name, f"it lacks {', '.join(missing)}")
    return [batches[name] for name in names]


def cifar_compact(path: str | os.PathLike[str]) -> UInt8[np.ndarray, "N 32 32 3"]:
    """Decode a compact CIFAR-10 file: planes (G, R − G, B − G) of quantised levels, differenced along both axes.

    The level q = 0 … 51 encodes the grey level min(5 q, 255).

    Args:
        path: the xz-compressed file.

    Returns:
        RGB images.

    Raises:
        ValueError: if the compression or the length is wrong.
    """
    path = _path(path)
    try:
        raw = lzma.decompress(path.read_bytes())
    except lzma.LZMAError as error:
        raise _undecodable(path.name, f"it is not a complete xz file ({error})") from error
    if not raw or len(raw) % 3072:
        raise _undecodable(path.name, f"it unpacks to {len(raw)} bytes, not a positive multiple of 3072")
    planes = np.frombuffer(raw, np.uint8).reshape(3, -1, 32, 32)
    # Sums modulo 256 undo the differences; read as signed bytes, they are the colour differences −51 … 51.
    planes = planes.cumsum(2, dtype=np.uint8).cumsum(3, dtype=np.uint8).view(np.int8).astype(np.int16)
    levels = np.stack([planes[0] + planes[1], planes[0], planes[0] + planes[2]], -1)
    return np.minimum(5 * levels, 255).astype(np.uint8)


def _path(path: str | os.PathLike[str]) -> Path:
    return Path(instance("path", path, (str, os.PathLike), "name a file"))


def _undecodable(name: str, problem: str) -> ValueError:
    """Describe a file whose content does not have the expected format."""
    return ValueError(f"{name} cannot be decoded: {problem}: delete the file and download it again")
