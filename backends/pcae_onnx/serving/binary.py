"""The binary tensor data extension of the Open Inference Protocol: bytes of tensors follow the JSON.

They are little-endian and row-major, one tensor after another in the order of the JSON, without gaps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pcae_core.errors import DataError

LENGTH_HEADER = "Inference-Header-Content-Length"
"""The HTTP header with the number of bytes of JSON in a body."""
EXTENSION = "binary_tensor_data"
_DTYPES: dict[str, np.dtype[Any]] = {"FP32": np.dtype("<f4"), "FP16": np.dtype("<f2")}


def split(body: bytes, json_length: int | None) -> tuple[bytes, memoryview]:
    """Split a body into JSON and the bytes after it. Without `json_length`, all of it is JSON.

    Raises:
        DataError: the body is shorter than its JSON.
    """
    if json_length is not None and json_length > len(body):
        raise DataError(f"{LENGTH_HEADER} is {json_length}, but the body has {len(body)} bytes")
    return body[:json_length], memoryview(body)[len(body) if json_length is None else json_length :]


def cut(rest: memoryview, sizes: Sequence[int | None]) -> list[memoryview | None]:
    """Cut `rest` into parts of these sizes, in order; None for a size of None.

    Raises:
        DataError: the sizes do not add up to the length of `rest`.
    """
    total = sum(size or 0 for size in sizes)
    if total != len(rest):
        raise DataError(
            f"the inputs' binary_data_size make {total} bytes, but {len(rest)} follow the JSON, whose length is that "
            f"of {LENGTH_HEADER}"
        )
    parts: list[memoryview | None] = []
    start = 0
    for size in sizes:
        parts.append(None if size is None else rest[start : start + size])
        start += size or 0
    return parts


def read(name: str, datatype: str, shape: Sequence[int], part: memoryview) -> NDArray[Any]:
    """The tensor in `part`, as float32 of `shape`.

    Raises:
        DataError: the datatype is not FP32 or FP16, or the number of bytes does not fit the shape.
    """
    dtype = _DTYPES.get(datatype)
    if dtype is None:
        raise DataError(f"{name} must have the datatype FP32 or FP16, not {datatype}")
    expected = math.prod(shape) * dtype.itemsize
    if len(part) != expected:
        raise DataError(f"{name} of shape {list(shape)} takes {expected} bytes of {datatype}, not {len(part)}")
    return np.frombuffer(part, dtype).astype(np.float32).reshape(shape)


def write(values: NDArray[Any]) -> bytes:
    """The bytes of a tensor."""
    return values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()
