"""Read MindSpore's `.ckpt` files of any origin, by the description of their protocol-buffer message.

`mindspore.load_checkpoint` (2.10.0) can end the process on a damaged file, where it should raise an error.
"""

from __future__ import annotations

import binascii
import itertools
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from mindspore.train.checkpoint_pb2 import Checkpoint
from numpy.typing import NDArray

from pcae_core.errors import CheckpointError
from pcae_core.parameters import Arrays

_DTYPES = {
    "Float16": "<f2", "Float32": "<f4", "Float64": "<f8", "BFloat16": "<u2", "Bool": "|b1",
    "Int8": "|i1", "Int16": "<i2", "Int32": "<i4", "Int64": "<i8",
    "UInt8": "|u1", "UInt16": "<u2", "UInt32": "<u4", "UInt64": "<u8",
}  # fmt: skip
_CHECKSUM_MARK, _CHECKSUM_SIZE = b"crc_num", 17


def load(path: Path) -> Arrays:
    """The arrays in a file by name. Half precision becomes float32, and text is left out.

    Raises:
        CheckpointError: the file is damaged, or holds something else.
    """
    try:
        entries = Checkpoint.FromString(_checked(path.read_bytes())).value
        # A large tensor is split into several consecutive entries
        groups = ((name, list(parts)) for name, parts in itertools.groupby(entries, lambda entry: entry.tag))
        return {name: _array(name, parts) for name, parts in groups if parts[0].tensor.tensor_type != "str"}
    except Exception as error:  # protobuf's two readers raise many kinds of errors for damaged files
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"{path} is not a MindSpore checkpoint: {reason}") from None


def _checked(content: bytes) -> bytes:
    """The content without the optional checksum at its end. Raises ValueError."""
    end = content[-_CHECKSUM_SIZE:]
    if not end.startswith(_CHECKSUM_MARK):
        return content
    content = content[:-_CHECKSUM_SIZE]
    if binascii.crc32(content) != int.from_bytes(end[len(_CHECKSUM_MARK) :], "big"):
        raise ValueError("its checksum differs")
    return content


def _array(name: str, parts: Iterable[Any]) -> NDArray[Any]:
    """Join the parts of one tensor. Raises ValueError."""
    if not isinstance(name, str):  # protobuf in pure Python returns bytes for a name that is not UTF-8
        raise ValueError(f"the name {name!r} is no text")
    tensors = [part.tensor for part in parts]
    kind, dims = tensors[0].tensor_type, list(tensors[0].dims)
    if kind not in _DTYPES:
        raise ValueError(f"{name} is no tensor of numbers, but {kind or 'something else'}")
    shape = () if dims == [0] else tuple(dims)
    content = bytearray().join(tensor.tensor_content for tensor in tensors)  # writable for NumPy
    dtype = np.dtype(_DTYPES[kind])
    if min(shape, default=1) < 0 or math.prod(shape) * dtype.itemsize != len(content):
        raise ValueError(f"{name} has {len(content)} bytes, which are no {kind} of shape {shape}")
    array = np.frombuffer(content, dtype).reshape(shape)
    if kind == "BFloat16":
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32) if kind == "Float16" else array
