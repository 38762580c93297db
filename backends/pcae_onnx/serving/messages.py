"""Inference requests in JSON: their fields and types.

Clients may add fields to a request, and parameters anywhere. These are ignored, unless a parameter changes the place or
the content of tensors. The fields of tensors are checked strictly.
"""

from __future__ import annotations

from typing import Annotated, Any

import pydantic
from pydantic import Field

_Text = Annotated[str, Field(max_length=256)]


def _refuse(value: Any) -> Any:
    raise ValueError("this service does not have it")


_Refused = Annotated[Any, pydantic.BeforeValidator(_refuse)]
"""A parameter that would change the place or the content of tensors. All others are hints, and ignored."""


class _Lenient(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True, extra="ignore")


class _InputParameters(_Lenient):
    binary_data_size: Annotated[int, Field(ge=0)] | None = None
    shared_memory_region: _Refused = None


class _OutputParameters(_Lenient):
    binary_data: bool | None = None
    shared_memory_region: _Refused = None
    classification: _Refused = None


class _RequestParameters(_Lenient):
    binary_data_output: bool | None = None


class _Tensor(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True, extra="forbid")

    name: _Text


class Input(_Tensor):
    """One tensor of a request, with its values or with the number of its bytes."""

    shape: Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=8)]
    datatype: _Text
    data: list[Any] | None = None
    parameters: _InputParameters | None = None

    @property
    def size(self) -> int | None:
        """Number of its bytes after the JSON; None if `data` has the values."""
        return self.parameters.binary_data_size if self.parameters else None

    @pydantic.model_validator(mode="after")
    def _has_data_once(self) -> Input:
        if (self.data is None) == (self.size is None):
            raise ValueError("give either data or the parameter binary_data_size")
        return self


class Output(_Tensor):
    """One requested output tensor."""

    parameters: _OutputParameters | None = None


class Request(_Lenient):
    """A request for inference."""

    id: _Text | None = None
    inputs: Annotated[list[Input], Field(min_length=1, max_length=2)]
    outputs: Annotated[list[Output], Field(max_length=3)] | None = None
    parameters: _RequestParameters | None = None
