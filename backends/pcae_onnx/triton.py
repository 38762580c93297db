"""A model repository for NVIDIA's Triton server: `FOLDER/NAME/1/model.onnx` and `FOLDER/NAME/config.pbtxt`."""

from __future__ import annotations

import shutil
from pathlib import Path

import onnx

from pcae_onnx.info import ModelInfo
from pcae_onnx.staging import MODEL_FILE, data_files, publish, staging

MAX_BATCH_SIZE = 32
QUEUE_DELAY_MICROSECONDS = 2000
_TYPES: dict[int, str] = {onnx.TensorProto.FLOAT: "TYPE_FP32", onnx.TensorProto.INT64: "TYPE_INT64"}


def write_repository(model: Path, info: ModelInfo, folder: Path) -> Path:
    """Write the repository of one model, and return the model's folder in it.

    Triton batches the requests of a model with a fixed ratio. If the ratio is an input, it cannot, because requests may
    differ in it: each request is then a batch of its own. An int8 model takes one image per request. Its scales depend
    on the whole batch, so other images would change the result.

    Raises:
        ModelFileError: the folder cannot be written.
    """
    root = folder / info.name
    with staging(root) as staged:
        version, config = staged / "1", staged / "config.pbtxt"
        version.mkdir()
        for file in data_files(model):
            shutil.copyfile(file, version / file.name)
        proto = onnx.load(model, load_external_data=False)
        defaults = [tensor for tensor in proto.graph.initializer if tensor.name == "keep"]
        if defaults:  # Triton does not offer an input that has a default
            proto.graph.initializer.remove(defaults[0])
            onnx.save(proto, version / MODEL_FILE)
        else:
            shutil.copyfile(model, version / MODEL_FILE)
        config.write_text(_config(proto.graph, info), encoding="utf-8")
        (root / version.name).mkdir(exist_ok=True)
        publish(version, root / version.name)
        config.replace(root / config.name)
    return root


def _config(graph: onnx.GraphProto, info: ModelInfo) -> str:
    single, dynamic = info.dtype == "int8", info.schedule.keep is None
    most = 0 if dynamic else 1 if single else MAX_BATCH_SIZE
    lines = [f'name: "{info.name}"', 'backend: "onnxruntime"', f"max_batch_size: {most}"]
    for value in graph.input:
        dims = _dims(value)
        lines.append(_tensor("input", value, [1, *dims[1:]] if single and dims else dims, dynamic))
    lines += [_tensor("output", value, _dims(value), dynamic) for value in graph.output]
    if not dynamic and not single:
        lines.append(f"dynamic_batching {{ max_queue_delay_microseconds: {QUEUE_DELAY_MICROSECONDS} }}")
    return "\n".join(lines) + "\n"


def _dims(value: onnx.ValueInfoProto) -> list[int]:
    """Dimensions of a value, with -1 for a variable size."""
    return [dim.dim_value or -1 for dim in value.type.tensor_type.shape.dim]


def _tensor(kind: str, value: onnx.ValueInfoProto, dims: list[int], with_batch: bool) -> str:
    scalar = not dims  # Triton can describe a scalar only by a reshape
    shown = [1] if scalar else dims if with_batch else dims[1:]
    text = f'name: "{value.name}", data_type: {_TYPES[value.type.tensor_type.elem_type]}, dims: {shown}'
    return f"{kind} [ {{ {text}{', reshape { shape: [] }' if scalar else ''} }} ]"
