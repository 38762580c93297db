"""Read and write tensors of the Open Inference Protocol v2, in JSON or in bytes after it. Reading is strict.

Letters: B images, C channels, H = W pixels.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pydantic
import pydantic_core
from numpy.typing import NDArray

from pcae_core.errors import DataError, describe_validation_error
from pcae_onnx.serving import binary, messages
from pcae_onnx.session import InferenceSession, Outputs

VERSION = "1"
"""The only version of the model."""
_DATATYPES = {"float32": "FP32", "int64": "INT64"}


@dataclass(frozen=True)
class Request:
    """One request for inference.

    Attributes:
        id: the client's id, which the answer repeats.
        pixels: float32 (B, C, H, W).
        keep: keep ratio, or None if the request has none.
        outputs: name of each requested output, in order -> whether the answer has it as bytes.
    """

    id: str | None
    pixels: NDArray[Any]
    keep: float | None
    outputs: dict[str, bool]


def describe(session: InferenceSession) -> dict[str, Any]:
    """The model's metadata in the protocol's form; -1 stands for a variable size."""
    size, width = session.image_size, session.info.model.embed_dim
    inputs = [_described("pixel_values", "FP32", -1, session.in_chans, size, size)]
    if session.dynamic_keep:
        inputs.append(_described("keep", "FP32"))
    shapes: dict[str, tuple[str, *tuple[int, ...]]] = {
        "last_hidden_state": ("FP32", -1, -1, width),
        "kept_ids": ("INT64", -1, -1),
        "logits": ("FP32", -1, session.info.model.num_classes),
    }
    return {
        "name": session.name,
        "versions": [VERSION],
        "platform": "onnxruntime_onnx",
        "inputs": inputs,
        "outputs": [_described(name, *shapes[name]) for name in output_names(session)],
    }


def output_names(session: InferenceSession) -> tuple[str, ...]:
    """Names of the model's outputs, in order."""
    logits = ("logits",) if session.task == "image-classification" else ()
    return ("last_hidden_state", "kept_ids", *logits)


def read(body: bytes, json_length: int | None, session: InferenceSession, max_batch: int) -> Request:
    """Parse and check a request's body. Without `json_length`, all of it is JSON.

    Raises:
        DataError: it is not JSON; a field is missing or has a wrong type; the model does not take the tensors; data or
            bytes do not fit their shape; numbers are not finite; or there are more than `max_batch` images.
    """
    head, rest = binary.split(body, json_length)
    try:
        message = messages.Request.model_validate_json(head)
    except pydantic.ValidationError as error:
        raise DataError(describe_validation_error(error)) from None
    parts = binary.cut(rest, [tensor.size for tensor in message.inputs])
    inputs = {tensor.name: (tensor, part) for tensor, part in zip(message.inputs, parts, strict=True)}
    known = ("pixel_values", "keep") if session.dynamic_keep else ("pixel_values",)
    if len(inputs) < len(message.inputs) or not set(inputs) <= set(known) or "pixel_values" not in inputs:
        raise DataError(f"inputs must be {' and perhaps '.join(known)}, each once; pixel_values is required")
    wanted = _wanted(message, output_names(session))
    shape, size = inputs["pixel_values"][0].shape, session.image_size
    if shape[1:] != [session.in_chans, size, size] or not 1 <= shape[0] <= max_batch:
        raise DataError(
            f"pixel_values must have the shape [n, {session.in_chans}, {size}, {size}] with n from 1 to {max_batch}, "
            f"not {shape}"
        )
    keep = _keep(*inputs["keep"]) if "keep" in inputs else None
    return Request(message.id, _array(*inputs["pixel_values"]), keep, wanted)


def _keep(tensor: messages.Input, part: memoryview | None) -> float:
    if tensor.shape not in ([], [1]):
        raise DataError(f"keep must have the shape [] or [1], not {tensor.shape}")
    return float(_array(tensor, part).item())


def _wanted(message: messages.Request, names: tuple[str, ...]) -> dict[str, bool]:
    """Name of each requested output -> whether it is requested as bytes. All outputs if none is named."""
    default = bool(message.parameters and message.parameters.binary_data_output)
    wanted: dict[str, bool] = {}
    for output in message.outputs or [messages.Output(name=name) for name in names]:
        if output.name in wanted or output.name not in names:
            raise DataError(f"outputs must be some of {', '.join(names)}, each once")
        own = output.parameters.binary_data if output.parameters else None
        wanted[output.name] = default if own is None else own
    return wanted


def write(request: Request, outputs: Outputs, session: InferenceSession) -> tuple[bytes, int | None]:
    """The answer's body, and the length of its JSON if bytes follow it, else None.

    Raises:
        DataError: a result is not finite, which only extreme pixels cause.
    """
    tensors, parts = [], []
    for name, as_bytes in request.outputs.items():
        values: NDArray[Any] = getattr(outputs, name)
        check_finite(values)
        tensor = _described(name, _DATATYPES[values.dtype.name], *values.shape)
        if as_bytes:
            parts.append(binary.write(values))
            tensors.append(tensor | {"parameters": {"binary_data_size": len(parts[-1])}})
        else:
            tensors.append(tensor | {"data": values.ravel().tolist()})
    answer: dict[str, Any] = {"model_name": session.name, "model_version": VERSION}
    if request.id is not None:
        answer["id"] = request.id
    head = pydantic_core.to_json(answer | {"outputs": tensors})
    return b"".join([head, *parts]), len(head) if parts else None


def check_finite(values: NDArray[Any]) -> None:
    """Raise DataError for results that are not finite: JSON cannot hold them."""
    if not np.isfinite(values).all():
        raise DataError("the model gives no finite result for these pixels; are they normalised?")


def _described(name: str, datatype: str, *shape: int) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": list(shape)}


def _array(tensor: messages.Input, part: memoryview | None) -> NDArray[Any]:
    """The tensor's values as float32, in its shape."""
    array = _from_json(tensor) if part is None else binary.read(tensor.name, tensor.datatype, tensor.shape, part)
    if not np.isfinite(array).all():
        raise DataError(f"the numbers in {tensor.name} must be finite FP32")
    return array


def _from_json(tensor: messages.Input) -> NDArray[Any]:
    if tensor.datatype != "FP32":
        raise DataError(f"{tensor.name} in JSON must have the datatype FP32, not {tensor.datatype}")
    values = _flat(tensor)
    if len(values) != math.prod(tensor.shape):
        raise DataError(f"{tensor.name} has {len(values)} values, which do not fill its shape {tensor.shape}")
    if not {type(value) for value in values} <= {int, float}:
        raise DataError(f"the data of {tensor.name} must be numbers, flat or nested as its shape says")
    try:
        with np.errstate(over="ignore"):  # the check below reports it
            return np.array(values, dtype=np.float32).reshape(tensor.shape)
    except OverflowError:
        raise DataError(f"a number in {tensor.name} is beyond FP32") from None


def _flat(tensor: messages.Input) -> list[Any]:
    values = tensor.data or []
    if not values or not isinstance(values[0], list):
        return values
    level: list[Any] = [values]
    for size in tensor.shape:
        if any(not isinstance(part, list) or len(part) != size for part in level):
            raise DataError(f"the nested data of {tensor.name} does not have its shape {tensor.shape}")
        level = list(itertools.chain.from_iterable(level))
    return level
