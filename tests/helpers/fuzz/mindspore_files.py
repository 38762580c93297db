"""MindSpore's `.ckpt`: bytes, and what its message says of a tensor: name, dimensions, type, content."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
from google.protobuf.message import DecodeError
from mindspore.train.checkpoint_pb2 import Checkpoint

from fuzz import conversions
from fuzz.kind import choose
from fuzz.mutation import NUMBERS, mutated
from pcae_core import registry

_NAMES = ("", "x", "../x", "x\ny", "\u202e", "x" * 100_000, "cls_token", "blocks.99999999999.norm1.weight")
_TYPES = (
    "Float64", "Float16", "BFloat16", "Int8", "Int4", "UInt64", "Bool", "str", "String", "Complex64", "Float8E4M3FN",
    "object", "", "x", "\n",
)  # fmt: skip
_DIMS = (0, 1, -1, 2, 9, 16)
_WIDTHS = {"Float64": 8, "UInt64": 8, "Float32": 4, "Float16": 2, "BFloat16": 2, "Int8": 1, "Bool": 1}
_MOST_NUMBERS = 10**6


class MindSporeFiles(conversions._Files):
    name = "model.ckpt"

    def __init__(self, samples: Path) -> None:
        super().__init__(samples)
        registry.create("mindspore").save_weights(samples / self.name, conversions.WEIGHTS)
        self.data = (samples / self.name).read_bytes()

    def write(self, rng: np.random.Generator, folder: Path) -> str:
        what = "bytes" if rng.random() < 0.4 else "message"
        (folder / self.name).write_bytes(self._bytes(rng) if what == "bytes" else self._message(rng))
        return what

    def _bytes(self, rng: np.random.Generator) -> bytes:
        while True:
            data = mutated(rng, self.data)
            try:
                message = Checkpoint.FromString(data)
            except (DecodeError, UnicodeDecodeError):  # the second of protobuf in pure Python
                return data
            if message == _fitting(message):
                return data

    def _message(self, rng: np.random.Generator) -> bytes:
        message = Checkpoint.FromString(self.data)
        for _ in range(int(rng.integers(1, 4))):
            choose(rng, (_rename, _reshape, _retype, _refill, _repeat, _remove))(rng, message)
        data = _fitting(message).SerializeToString()
        return data if rng.random() < 0.9 else data + b"crc_num" + int(choose(rng, NUMBERS) % 2**64).to_bytes(10, "big")


def _rename(rng: np.random.Generator, message: Checkpoint) -> None:
    choose(rng, message.value).tag = choose(rng, _NAMES)


def _reshape(rng: np.random.Generator, message: Checkpoint) -> None:
    dims = [choose(rng, _DIMS) for _ in range(int(rng.integers(0, 5)))]
    choose(rng, message.value).tensor.dims[:] = [1] * 1000 if rng.random() < 0.05 else dims


def _retype(rng: np.random.Generator, message: Checkpoint) -> None:
    choose(rng, message.value).tensor.tensor_type = choose(rng, _TYPES)


def _refill(rng: np.random.Generator, message: Checkpoint) -> None:
    tensor = choose(rng, message.value).tensor
    tensor.tensor_content = choose(rng, (b"", mutated(rng, tensor.tensor_content), tensor.tensor_content * 100))


def _repeat(rng: np.random.Generator, message: Checkpoint) -> None:
    message.value.insert(0, choose(rng, message.value))


def _remove(rng: np.random.Generator, message: Checkpoint) -> None:
    if len(message.value) > 1:
        message.value.remove(choose(rng, message.value))


def _fitting(message: Checkpoint) -> Checkpoint:
    """A copy that is harmless to MindSpore's own reader (docs/security.md)."""
    fitting = Checkpoint()
    fitting.CopyFrom(message)
    for _, parts in itertools.groupby(fitting.value, lambda entry: entry.tag):  # of one name: parts of one tensor
        tensors = [part.tensor for part in parts]
        room = min(map(_room, tensors))
        for tensor in tensors:
            tensor.tensor_content = tensor.tensor_content[:room]
            room -= len(tensor.tensor_content)
    return fitting


def _room(tensor: object) -> int:
    """Bytes for which dimensions and type have room; dimensions that say too much are made small."""
    if math.prod(tensor.dims) > _MOST_NUMBERS:
        tensor.dims[:] = [_MOST_NUMBERS]
    dims = () if list(tensor.dims) == [0] else tensor.dims
    return 0 if min(dims, default=1) < 0 else int(math.prod(dims) * _WIDTHS.get(tensor.tensor_type, 0.5))
