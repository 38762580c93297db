"""Data sets in `.npz` files: bytes, members' names and sizes, headers of arrays, pickles, bombs."""

from __future__ import annotations

import functools
import io
import os
import pickle
import re
import struct
import zipfile
from pathlib import Path

import numpy as np

from fuzz.kind import Kind, choose
from fuzz.mutation import NUMBERS, mutated
from pcae_core.data import open_source
from pcae_core.storage import archives as guarded

LIMIT_BYTES, BOMB_BYTES = 10_000_000, 20_000_000
_NAMES = (
    "../../escaped.npy",
    "/escaped.npy",
    "a/../../escaped.npy",
    "x\0.npy",
    "images.npy",
    "x" * 60_000,
    "images",
    "images/",
    "ß.npy",
)
_SHAPES = (
    (0,),
    (-1,),
    (2**15,),
    (300, 300),
    (1000, 10, 10),
    (7, -(2**40)),
    (1,) * 64,
    (1,) * 40,
    (1, 1, 1, 1, 1),
    (),
    (True,),
    (0, 16, 16),
)
_DTYPES = ("|O", "<u1", "|u1", "<f4", ">i8", "<U5", "|V8", "<M8[ns]", "x", "<U100", "|S0", "<c16", "|b1")
_HEADERS = (
    b"",
    b"(" * 9000,
    b"-" * 9000,
    b"{" * 200,
    b"[" * 200 + b"]" * 200,
    b"9" * 9000,
    b"__import__('os').mkdir('escaped')",
    b"'a' * 10",
    b"9**9",
    b"\xff" * 50,
    b"{'descr': [('a', '|u1'), ('b', '|O')], 'fortran_order': False, 'shape': (2, 2, 2)}",
)


class Command:
    """What unpickling must not run."""

    def __reduce__(self):
        return os.mkdir, ("escaped",)


def npy(
    descr: object, shape: object, content: bytes, fortran_order: object = False, version: tuple[int, int] = (1, 0)
) -> bytes:
    """The bytes of an array whose header says this."""
    return raw_npy(
        repr({"descr": descr, "fortran_order": fortran_order, "shape": shape}).encode("latin1"), content, version
    )


def raw_npy(header: bytes, content: bytes, version: tuple[int, int] = (1, 0)) -> bytes:
    header += b"\n"
    length = struct.pack("<H" if version == (1, 0) else "<I", len(header) % (2**16 if version == (1, 0) else 2**32))
    return b"\x93NUMPY" + bytes(version) + length + header + content


def members(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


def zipped(found: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in found.items():
            archive.writestr(name, content)
    return file.getvalue()


def rebuilt(rng: np.random.Generator, data: bytes) -> bytes:
    """Whole as an archive, with a member's content, name or packing changed."""
    found = members(data)
    name = choose(rng, list(found))
    content = found.pop(name)
    what = rng.random()
    if what < 0.5:
        found[name] = mutated(rng, content)
    elif what < 0.8:
        found[choose(rng, _NAMES)] = content
    return zipped(found, choose(rng, (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)))


def hostile(rng: np.random.Generator, data: bytes, name: str) -> tuple[bytes, str]:
    """A wrong archive from a good one, often in its member `name`."""
    what = choose(rng, ("bytes", "bytes", "packed", "members", "header", "claim", "pickle", "fields", "bomb"))
    packing = choose(rng, (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    if what == "bytes":
        return mutated(rng, data), what
    if what == "packed":
        method = choose(rng, (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
        packed = zipped(members(data), method)
        return packed if method == zipfile.ZIP_LZMA else mutated(rng, packed), what
    if what == "members":
        return rebuilt(rng, data), what
    if what == "fields":
        return _directory(rng, data), what
    found = members(data)
    if what == "bomb":
        return bomb(name) if rng.random() < 0.5 else _directory(rng, bomb(name)), what
    if what == "header":
        content = raw_npy(choose(rng, _HEADERS), bytes(100), choose(rng, ((1, 0), (2, 0), (3, 0), (9, 9))))
    elif what == "claim":
        content = npy(
            choose(rng, _DTYPES), choose(rng, _SHAPES), bytes(int(rng.integers(300))), choose(rng, (False, True, 3))
        )
    else:
        content = npy("|O", choose(rng, ((1,), (2, 2, 2))), pickle.dumps([Command()] * 8, int(rng.integers(2, 6))))
    found[f"{name}.npy"] = content
    return zipped(found, packing), what


def _directory(rng: np.random.Generator, data: bytes) -> bytes:
    """With a field of the archive's central directory changed: packing, flags, sizes, offset."""
    places = [match.start() for match in re.finditer(b"PK\x01\x02", data)]
    start = choose(rng, places)
    offset, size = choose(
        rng, ((6, 2), (8, 2), (10, 2), (16, 4), (20, 4), (24, 4), (28, 2), (30, 2), (32, 2), (38, 4), (42, 4))
    )
    value = choose(rng, (*NUMBERS, 1, 8, 12, 14, 93, 99)) % 256**size
    return data[: start + offset] + value.to_bytes(size, "little") + data[start + offset + size :]


@functools.cache
def bomb(name: str) -> bytes:
    """A few kilobytes that unpack to 20 MB of zeros."""
    content = npy("|u1", (2, 10_000, BOMB_BYTES // 20_000), bytes(BOMB_BYTES))
    return zipped({f"{name}.npy": content}, zipfile.ZIP_DEFLATED)


def lower_the_limit() -> None:
    """In this process, so that a small archive is a bomb."""
    guarded._BOMB_BYTES = LIMIT_BYTES


class Archives(Kind):
    def __init__(self, samples: Path) -> None:
        super().__init__(samples)
        lower_the_limit()
        rng = np.random.default_rng(0)
        arrays = {
            "images": rng.integers(0, 256, (6, 8, 8, 3), dtype=np.uint8),
            "labels": np.arange(6) % 2,
            "class_names": np.array(["ant", "bee"]),
        }
        file = io.BytesIO()
        np.savez(file, **arrays)
        self.data = file.getvalue()

    def good(self, folder: Path) -> None:
        (folder / "train.npz").write_bytes(self.data)

    def write(self, rng: np.random.Generator, folder: Path) -> str:
        name = choose(rng, ("images", "labels", "class_names"))
        data, what = hostile(rng, self.data, "images" if rng.random() < 0.6 else name)
        (folder / "train.npz").write_bytes(data)
        return what

    def read(self, folder: Path) -> None:
        source = open_source(folder, 3)
        assert source.fingerprint
        assert source.labels is None or len(source.labels) == len(source)
        assert source.class_names is None or all(isinstance(name, str) for name in source.class_names)
        for index in {0, len(source) - 1}:
            source.load(index)
