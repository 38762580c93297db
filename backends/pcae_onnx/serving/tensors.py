"""Tensors of the Open Inference Protocol v2, read strictly from JSON and written to it.

Letters: B images, C channels, H = W pixels.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import pydantic
import pydantic_core
from pydantic import Field

from pcae_core.errors import DataError, describe_validation_error
from pcae_onnx.session import InferenceSession, Outputs

_DATATYPES = {"float32": "FP32", "int64": "INT64"}

Text = Annotated[str, Field(max_length=256)]


class _Message(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True, extra="forbid")

    parameters: dict[str, Any] = {}


class _Input(_Message):
    name: Text
    shape: Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=8)]
    datatype: Text
    data: list[Any]


class _Output(_Message):
    name: Text


class _Request(_Message):
    id: Text | None = None
    inputs: Annotated[list[_Input], Field(min_length=1, max_length=2)]
    outputs: Annotated[list[_Output], Field(max_length=3)] | None = None


@dataclass(frozen=True)
class Request:
    """One request for inference.

    Attributes:
        id: the client's, to be given back.
        pixels: float32 (B, C, H, W).
        keep: None where the request names none.
        outputs: names of those wanted, in order.
    """

    id: str | None
    pixels: np.ndarray
    keep: float | None
    outputs: tuple[str, ...]


def describe(session: InferenceSession) -> dict[str, Any]:
    """The model's metadata as the protocol has it; -1 stands for a size that varies."""
    size, width = session.image_size, session.info.model.embed_dim
    inputs = [_described("pixel_values", "FP32", -1, session.in_chans, size, size)]
    if session.dynamic_keep:
        inputs.append(_described("keep", "FP32"))
    shapes = {
        "last_hidden_state": ("FP32", -1, -1, width),
        "kept_ids": ("INT64", -1, -1),
        "logits": ("FP32", -1, session.info.model.num_classes),
    }
    return {
        "name": session.name,
        "platform": "onnxruntime_onnx",
        "inputs": inputs,
        "outputs": [_described(name, *shapes[name]) for name in output_names(session)],
    }


def output_names(session: InferenceSession) -> tuple[str, ...]:
    """What the model gives, in its order."""
    logits = ("logits",) if session.task == "image-classification" else ()
    return ("last_hidden_state", "kept_ids", *logits)


def read(body: bytes, session: InferenceSession, max_batch: int) -> Request:
    """A request's body, checked.

    Raises:
        DataError: no JSON, a field that is missing, unknown or of another type, tensors that the model does not take,
            data that does not fill its shape, numbers that are not finite, more than `max_batch` images.
    """
    try:
        message = _Request.model_validate_json(body)
    except pydantic.ValidationError as error:
        raise DataError(describe_validation_error(error)) from None
    inputs = {tensor.name: tensor for tensor in message.inputs}
    known = ("pixel_values", "keep") if session.dynamic_keep else ("pixel_values",)
    if len(inputs) < len(message.inputs) or not set(inputs) <= set(known) or "pixel_values" not in inputs:
        raise DataError(f"inputs must be {' and perhaps '.join(known)}, each once; pixel_values is required")
    wanted = output_names(session) if message.outputs is None else tuple(output.name for output in message.outputs)
    if len(set(wanted)) < len(wanted) or not set(wanted) <= set(output_names(session)):
        raise DataError(f"outputs must be some of {', '.join(output_names(session))}, each once")
    pixels = inputs["pixel_values"]
    size = session.image_size
    if pixels.shape[1:] != [session.in_chans, size, size] or not 1 <= pixels.shape[0] <= max_batch:
        raise DataError(
            f"pixel_values must have the shape [n, {session.in_chans}, {size}, {size}] with n from 1 to {max_batch}, "
            f"not {pixels.shape}"
        )
    keep = inputs.get("keep")
    if keep is not None and keep.shape not in ([], [1]):
        raise DataError(f"keep must have the shape [] or [1], not {keep.shape}")
    return Request(message.id, _array(pixels), None if keep is None else float(_array(keep).item()), wanted)


def write(request: Request, outputs: Outputs, session: InferenceSession) -> bytes:
    """The answer's JSON. Raises DataError when a result is not finite, which only extreme pixels bring about."""
    tensors = []
    for name in request.outputs:
        values: np.ndarray = getattr(outputs, name)
        check_finite(values)
        tensors.append({
            "name": name,
            "datatype": _DATATYPES[values.dtype.name],
            "shape": list(values.shape),
            "data": values.ravel().tolist(),
        })  # fmt: skip
    answer: dict[str, Any] = {"model_name": session.name}
    if request.id is not None:
        answer["id"] = request.id
    return pydantic_core.to_json(answer | {"outputs": tensors})


def check_finite(values: np.ndarray) -> None:
    """Raises DataError for results that JSON has no words for."""
    if not np.isfinite(values).all():
        raise DataError("the model gives no finite result for these pixels; are they normalised?")


def _described(name: str, datatype: str, *shape: int) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": list(shape)}


def _array(tensor: _Input) -> np.ndarray:
    """float32, of the tensor's shape."""
    if tensor.datatype != "FP32":
        raise DataError(f"{tensor.name} must have the datatype FP32, not {tensor.datatype}")
    values = _flat(tensor)
    if len(values) != math.prod(tensor.shape):
        raise DataError(f"{tensor.name} has {len(values)} values, which do not fill its shape {tensor.shape}")
    if not {type(value) for value in values} <= {int, float}:
        raise DataError(f"the data of {tensor.name} must be numbers, flat or nested as its shape says")
    try:
        with np.errstate(over="ignore"):  # told below
            array = np.array(values, dtype=np.float32).reshape(tensor.shape)
    except OverflowError:
        raise DataError(f"a number in {tensor.name} is beyond FP32") from None
    if not np.isfinite(array).all():
        raise DataError(f"the numbers in {tensor.name} must be finite FP32")
    return array


def _flat(tensor: _Input) -> list[Any]:
    values = tensor.data
    if not values or not isinstance(values[0], list):
        return values
    level: list[Any] = [values]
    for size in tensor.shape:
        if any(not isinstance(part, list) or len(part) != size for part in level):
            raise DataError(f"the nested data of {tensor.name} does not have its shape {tensor.shape}")
        level = list(itertools.chain.from_iterable(level))
    return level
