"""Refuse files that are not complete models of PCAE, before a runtime loads them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from pcae_core.errors import ModelFileError
from pcae_onnx.info import ModelInfo

OPERATORS = frozenset({
    "Abs", "Add", "Attention", "Cast", "Ceil", "Concat", "Conv", "Div", "Equal", "Expand", "GatherND", "Gelu",
    "GlobalAveragePool", "Greater", "Identity", "LayerNormalization", "Less", "MatMul", "Max", "Mul", "ReduceMax",
    "ReduceMean", "ReduceSum", "Reshape", "Shape", "Sigmoid", "Slice", "Softmax", "Split", "Sqrt", "Squeeze", "Sub",
    "TopK", "Transpose", "Unsqueeze", "Where",
    "IsNaN",  # in models that former versions exported
    "DynamicQuantizeLinear", "MatMulInteger",  # in int8 models
})  # fmt: skip
"""Operators of exported encoders, all of the standard domain."""
_LONGEST_NAME = 255  # of a file; looking for a longer name is an error


def inspect(path: Path) -> ModelInfo:
    """Check the model at `path`, and return its metadata.

    Raises:
        ModelFileError: the file is missing or truncated, lacks PCAE's metadata, has other operators, inputs or outputs
            than PCAE's, or has external data outside its folder.
    """
    model = _load(path)
    if not all(isinstance(text, str) for text in _texts(model)):  # protobuf returns bytes for text that is not UTF-8
        raise ModelFileError(f"{path} holds names that are no text; export the model again")
    info = ModelInfo.from_metadata({entry.key: entry.value for entry in model.metadata_props}, path)
    _check_operators(path, model)
    if model.graph.sparse_initializer:
        raise ModelFileError(f"{path} holds sparse weights, which PCAE does not export; it is refused")
    for tensor in tensors(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            _check_external(path, tensor)
    _check_interface(path, model.graph, info)
    return info


def _load(path: Path) -> onnx.ModelProto:
    try:
        return onnx.load(path, load_external_data=False)
    except OSError as error:
        raise ModelFileError(f"cannot read the model {path}: {error.strerror or error}") from None
    except (DecodeError, UnicodeDecodeError):  # protobuf in pure Python, which MindSpore selects, raises the second
        raise ModelFileError(f"{path} is not an ONNX file, or is truncated; export the model again") from None


def _texts(model: onnx.ModelProto) -> Iterator[object]:
    for entry in model.metadata_props:
        yield from (entry.key, entry.value)
    for node in model.graph.node:
        yield from (node.domain, node.op_type, *node.input, *node.output)
    for tensor in tensors(model):
        yield from (value for entry in tensor.external_data for value in (entry.key, entry.value))


def _check_operators(path: Path, model: onnx.ModelProto) -> None:
    if model.functions or any(entry.domain not in ("", "ai.onnx") for entry in model.opset_import):
        raise ModelFileError(f"{path} uses operators beyond the standard ones; PCAE exports none, so it is refused")
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx") or node.op_type not in OPERATORS:
            operator = f"{node.domain}.{node.op_type}".removeprefix(".")
            raise ModelFileError(f"{path} holds the operator {operator!r}, which PCAE does not export; it is refused")
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            raise ModelFileError(f"{path} holds a graph within a graph, which PCAE does not export; it is refused")
        if any(attribute.name == "num_outputs" and attribute.i != len(node.output) for attribute in node.attribute):
            raise ModelFileError(f"{path} splits into other than its outputs; it is refused")  # by loading, in memory


def tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """All weights and constants of a model."""
    yield from model.graph.initializer
    for node in model.graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)


def _check_external(path: Path, tensor: onnx.TensorProto) -> None:
    location = {entry.key: entry.value for entry in tensor.external_data}.get("location", "")
    file = path.parent / location
    if not location or Path(location).name != location or location == "..":
        raise ModelFileError(f"{path} takes weights from {location!r}, outside its own folder; it is refused")
    if len(location) > _LONGEST_NAME or not file.is_file():
        raise ModelFileError(f"{path} needs {file}, which is missing; copy both files together")
    if file.is_symlink() or file.stat().st_nlink > 1:
        raise ModelFileError(f"{file} is a link and may lead out of the model's folder; copy the file itself")


def _check_interface(path: Path, graph: onnx.GraphProto, info: ModelInfo) -> None:
    size, chans = info.model.image_size, info.model.in_chans
    inputs: dict[str, list[object]] = {"pixel_values": ["batch_size", chans, size, size]}
    if info.schedule.keep is None:
        inputs["keep"] = []
    outputs = ["last_hidden_state", "kept_ids", *(["logits"] if info.task == "image-classification" else [])]
    found = {value.name: _shape(value) for value in graph.input}
    if found != inputs or [value.name for value in graph.output] != outputs:
        raise ModelFileError(
            f"the inputs and outputs of {path} are not those that its metadata describes; it is refused"
        )


def _shape(value: onnx.ValueInfoProto) -> list[object]:
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
