"""Write an ONNX file weight by weight, so that only one weight at a time is in memory.

An ONNX file is a protocol-buffer message `ModelProto` with a field `graph`, in which each weight is a field
`initializer`. All lengths are known before, so the message can be streamed. Protocol buffers are limited to 2 GB. Above
`EXTERNAL_DATA_BYTES` the weights are written to a second file next to the model, as the format provides.
"""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx

from pcae_onnx.graph import Weight, onnx_dtype

EXTERNAL_DATA_BYTES = 1_900_000_000
"""Larger weights are stored in a second file. The format limits the whole message to 2**31 - 1 bytes."""
_ALIGNMENT = 4096  # lets a runtime map the file into memory
_MODEL_GRAPH, _GRAPH_INITIALIZER, _TENSOR_RAW_DATA = 7, 5, 9  # field numbers in onnx.proto


def write(model: onnx.ModelProto, weights: list[Weight], path: Path) -> None:
    """Write `path`, and `path` + ".data" for large models. Raises OSError."""
    if _num_bytes(weights) > EXTERNAL_DATA_BYTES:
        entries = _write_external(weights, path.with_name(f"{path.name}.data"))
    else:
        entries = [(_head(weight), weight) for weight in weights]
    with path.open("wb") as file:
        _stream(model, entries, file)


def to_bytes(model: onnx.ModelProto, weights: list[Weight]) -> bytes:
    """The whole file in memory, for a session that needs none on disk."""
    buffer = io.BytesIO()
    _stream(model, [(_head(weight), weight) for weight in weights], buffer)
    return buffer.getvalue()


_Entry = tuple[onnx.TensorProto, Weight | None]  # without a weight, the data is in another place


def _num_bytes(weights: list[Weight]) -> int:
    return sum(_size(weight) for weight in weights)


def _size(weight: Weight) -> int:
    return math.prod(weight.shape) * np.dtype(weight.dtype).itemsize


def _head(weight: Weight) -> onnx.TensorProto:
    return onnx.TensorProto(dims=weight.shape, data_type=onnx_dtype(weight.dtype), name=weight.name)


def _raw(weight: Weight) -> memoryview:
    array = np.ascontiguousarray(weight.read(), dtype=np.dtype(weight.dtype).newbyteorder("<"))
    return array.reshape(-1).view(np.uint8).data


def _write_external(weights: list[Weight], path: Path) -> list[_Entry]:
    entries: list[_Entry] = []
    with path.open("wb") as file:
        for weight in weights:
            file.write(b"\0" * (-file.tell() % _ALIGNMENT))
            head = _head(weight)
            head.data_location = onnx.TensorProto.EXTERNAL
            for key, value in (("location", path.name), ("offset", file.tell()), ("length", _size(weight))):
                head.external_data.add(key=key, value=str(value))
            file.write(_raw(weight))
            entries.append((head, None))
    return entries


def _stream(model: onnx.ModelProto, entries: list[_Entry], file: BinaryIO) -> None:
    graph = model.graph.SerializeToString()
    rest = onnx.ModelProto()
    rest.CopyFrom(model)
    rest.ClearField("graph")
    heads = [_tensor_head(*entry) for entry in entries]
    sizes = [len(head) + (_size(weight) if weight else 0) for head, (_, weight) in zip(heads, entries, strict=True)]
    fields = [_tag(_GRAPH_INITIALIZER) + _varint(size) for size in sizes]
    file.write(rest.SerializeToString())
    file.write(_tag(_MODEL_GRAPH) + _varint(len(graph) + sum(map(len, fields)) + sum(sizes)))
    file.write(graph)
    for field, head, (_, weight) in zip(fields, heads, entries, strict=True):
        file.write(field + head)
        if weight is not None:
            file.write(_raw(weight))


def _tensor_head(head: onnx.TensorProto, weight: Weight | None) -> bytes:
    """The bytes of a tensor without its data."""
    text: bytes = head.SerializeToString()
    return text if weight is None else text + _tag(_TENSOR_RAW_DATA) + _varint(_size(weight))


def _tag(field: int) -> bytes:
    return _varint(field << 3 | 2)  # wire type 2: length-delimited


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)
