"""Read NumPy archives (`.npz`) of any origin: plain arrays with correct headers, and no decompression bombs."""

from __future__ import annotations

import math
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

_npy_format: Any = np.lib.format  # not typed in NumPy 1

_LOCAL_HEADER_SIZE = 30  # bytes of a zip member before its name and its extra field
_BOMB_BYTES, _BOMB_RATIO = 2**28, 200
"""An archive is a bomb if it unpacks to more than these bytes, and to more than this multiple of its size."""


@dataclass(frozen=True)
class Member:
    """An array in the archive. `offset` is that of its first byte in the file; None if the array is compressed."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran_order: bool
    crc: int
    offset: int | None


def members(path: Path) -> dict[str, Member]:
    """The arrays in an archive by name, from their headers alone.

    Raises:
        ValueError: it cannot be read, holds other things than plain arrays, or is a decompression bomb.
    """
    try:
        with zipfile.ZipFile(path) as archive, path.open("rb") as file:
            _refuse_bombs(path, archive)
            return {info.filename.removesuffix(".npy"): _member(archive, file, info) for info in archive.infolist()}
    except Exception as error:  # zipfile, its decompressors and NumPy's parser raise about any exception
        raise ValueError(str(error) or type(error).__name__) from None


def read(path: Path, name: str) -> NDArray[Any]:
    """Read one of the archive's `members`. Raises ValueError when it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            values: NDArray[Any] = archive[name]
    except Exception as error:  # as above
        raise ValueError(str(error) or type(error).__name__) from None
    return values


def _refuse_bombs(path: Path, archive: zipfile.ZipFile) -> None:
    unpacked, size = sum(info.file_size for info in archive.infolist()), path.stat().st_size
    if unpacked > _BOMB_BYTES and unpacked > _BOMB_RATIO * size:
        raise ValueError(f"it unpacks from {size} to {unpacked} bytes; save real data without compression")


def _member(archive: zipfile.ZipFile, file: BinaryIO, info: zipfile.ZipInfo) -> Member:
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # LZMA reserves what a file tells it to
        raise ValueError(f"{info.filename} is packed in a way that NumPy does not write")
    with archive.open(info) as stream:
        first = _npy_format.read_magic(stream) == (1, 0)
        read_header = _npy_format.read_array_header_1_0 if first else _npy_format.read_array_header_2_0
        try:
            shape, fortran_order, dtype = read_header(stream)
        except MemoryError:  # Python's parser raises it for deep nesting
            raise ValueError(f"the header of {info.filename} is nested too deeply") from None
        header_size = stream.tell()
    if dtype.hasobject:
        raise ValueError(f"{info.filename} holds pickled objects, which could run code and are refused")
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != info.file_size - header_size:
        raise ValueError(f"{info.filename} does not hold an array of shape {shape} and type {dtype}, as it says")
    offset = _content_offset(file, info) + header_size if info.compress_type == zipfile.ZIP_STORED else None
    return Member(shape, dtype, fortran_order, info.CRC, offset)


def _content_offset(file: BinaryIO, info: zipfile.ZipInfo) -> int:
    """Offset of a member's content. Its name and extra field may be longer here than in the archive's directory."""
    file.seek(info.header_offset)
    header = file.read(_LOCAL_HEADER_SIZE)
    name_size, extra_size = int.from_bytes(header[26:28], "little"), int.from_bytes(header[28:30], "little")
    return info.header_offset + _LOCAL_HEADER_SIZE + name_size + extra_size
