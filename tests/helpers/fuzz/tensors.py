"""Safetensors files made wrong: bytes, the length before the header, the header's JSON."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np

from fuzz.kind import choose
from fuzz.mutation import NUMBERS, json_text, mutated

DTYPES = (
    "F64",
    "F32",
    "F16",
    "BF16",
    "F8_E4M3",
    "F8_E5M2",
    "F4",
    "I64",
    "I32",
    "I8",
    "U8",
    "U64",
    "BOOL",
    "C64",
    "X",
    "",
)


def hostile(rng: np.random.Generator, data: bytes) -> tuple[bytes, str]:
    """A wrong file from a good one, and what is wrong."""
    size = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    what = choose(rng, ("bytes", "length", "json", "entry", "entry", "entry", "twice", "shifted", "renamed", "dtype"))
    if what == "bytes":
        return mutated(rng, data), what
    if what == "length":
        return struct.pack("<Q", choose(rng, NUMBERS) % 2**64) + data[8:], what
    if what == "json":
        return _file(json_text(rng, header), body), what
    if what == "twice":
        text = json.dumps(header)
        return _file((text[:-1] + ", " + text[1:]).encode(), body), what
    names = [name for name in header if name != "__metadata__"]
    if what == "entry":
        name = choose(rng, names)
        what = f"{what} {_spoil(rng, header[name])}"
    elif what == "shifted":
        _shift(header, names, int(choose(rng, NUMBERS)))
    elif what == "renamed":
        header[
            choose(rng, ("", "../x", "x\ny", "\0", "x" * 100_000, "cls_token", "blocks.999999999.x", "__metadata__"))
        ] = header.pop(choose(rng, names))
    else:
        body = _as(rng, header, names, body)
    return _file(json.dumps(header).encode(), body), what


def _file(header: bytes, body: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header + body


def _spoil(rng: np.random.Generator, entry: dict[str, Any]) -> str:
    field = choose(rng, ("dtype", "shape", "data_offsets"))
    if field == "dtype":
        entry[field] = choose(rng, DTYPES)
    elif field == "shape":
        shape = entry[field]
        others = (
            [],
            [0],
            [-1],
            shape[::-1],
            [*shape, 1],
            [2**32, 2**32],
            [2**63],
            [1] * 1000,
            [int(np.prod(shape))],
            [0.5],
        )
        entry[field] = choose(rng, others)
    else:
        start, stop = entry[field]
        others = (
            [start, 2**62],
            [stop, start],
            [-1, stop],
            [0, stop - start],
            [start, start],
            [0],
            [start + 1, stop + 1],
            [],
        )
        entry[field] = choose(rng, others)
    return f"{field} {str(entry[field])[:40]}"


def _shift(header: dict[str, Any], names: list[str], by: int) -> None:
    for name in names:
        header[name]["data_offsets"] = [offset + by for offset in header[name]["data_offsets"]]


def _as(rng: np.random.Generator, header: dict[str, Any], names: list[str], body: bytes) -> bytes:
    """Every tensor of another type, and the file whole all the same."""
    dtype, width = choose(rng, (("F16", 2), ("BF16", 2), ("F64", 8), ("I32", 4), ("U8", 1), ("BOOL", 1), ("C64", 8)))
    offset = 0
    for name in names:
        start, stop = header[name]["data_offsets"]
        size = (stop - start) // 4 * width
        header[name] |= {"dtype": dtype, "data_offsets": [offset, offset + size]}
        offset += size
    return (body * 2)[:offset]
