"""Metadata of an exported model, in its `metadata_props`: one JSON text for each topic, under `pcae.TOPIC`."""

from __future__ import annotations

import hashlib
import json
import platform
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Self

import numpy as np
import onnx
from numpy.typing import NDArray
from pydantic import Field, model_validator

import pcae_core
from pcae_core.config import Config, DataConfig, ModelConfig
from pcae_core.errors import ConfigError, ModelFileError

FORMAT = 1
PREFIX = "pcae."
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")

Task = Literal["feature-extraction", "image-classification"]
Dtype = Literal["fp32", "fp16", "int8"]


class Preprocessing(Config):
    """Settings that turn an image into pixels.

    Attributes:
        size: the centred square of the image is resized to this height and width.
        mean, std: one number per channel, for pixel values in [0, 1].
        grey_bits: bits in use in 16-bit greys whose files do not tell; None for 16.
    """

    size: int
    in_chans: int
    interpolation: Literal["bicubic"] = "bicubic"
    crop: Literal["center"] = "center"
    mean: tuple[float, ...]
    std: tuple[float, ...]
    grey_bits: Annotated[int, Field(ge=8, le=16)] | None = None


class Schedule(Config):
    """Schedule of token reduction.

    Attributes:
        keep: share of the patch tokens that each stage keeps; None if it is an input of the model.
        blocks: blocks after which tokens are dropped, 0-based.
        tokens_per_block: tokens that enter each block, prefix tokens included; None if they depend on the input.
    """

    keep: float | None
    blocks: tuple[int, ...]
    tokens_per_block: tuple[int, ...] | None


class ModelInfo(Config):
    """The metadata of a model.

    Attributes:
        name: name of the model on a server, and of its folder there.
        dtype: dtype of the weights.
        weights_sha256: SHA-256 of the encoder's parameters in the checkpoint: names and values in canonical order.
        class_names: class names of the logits, if known.
    """

    format: int
    name: str
    task: Task
    dtype: Dtype
    model: ModelConfig
    preprocessing: Preprocessing
    schedule: Schedule
    versions: dict[str, str]
    weights_sha256: str
    class_names: tuple[str, ...] | None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"name {self.name!r} must be letters, digits, '_', '-' and '.', a letter or digit first")
        shown = self.preprocessing
        chans = {self.model.in_chans, shown.in_chans, len(shown.mean), len(shown.std)}
        if len(chans) > 1 or shown.size != self.model.image_size:
            raise ValueError("preprocessing does not fit the model")
        if self.class_names is not None and len(self.class_names) != self.model.num_classes:
            raise ValueError(f"{len(self.class_names)} class names do not fit {self.model.num_classes} outputs")
        return self

    def to_metadata(self) -> dict[str, str]:
        """Texts that `from_metadata` reads."""
        return {f"{PREFIX}{key}": json.dumps(value) for key, value in self.to_dict().items()}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], source: object) -> Self:
        """Parse metadata. Raises ModelFileError, which names `source`, when something is missing or wrong."""
        ours = {key.removeprefix(PREFIX): text for key, text in metadata.items() if key.startswith(PREFIX)}
        if not ours:
            raise ModelFileError(f"{source} was not exported by PCAE: its metadata is missing; use pcae export")
        try:
            info = cls.from_dict({key: json.loads(text) for key, text in ours.items()})
        except (ConfigError, ValueError, RecursionError) as error:
            raise ModelFileError(f"the metadata of {source} is damaged: {error}; export the model again") from None
        if info.format != FORMAT:
            raise ModelFileError(f"{source} has model format {info.format}; this version reads format {FORMAT}")
        return info


def preprocessing_of(model: ModelConfig, loader: DataConfig) -> Preprocessing:
    """The preprocessing of evaluation."""
    mean, std = loader.normalization(model.in_chans)
    size, in_chans = model.image_size, model.in_chans
    return Preprocessing(size=size, in_chans=in_chans, mean=mean, std=std, grey_bits=loader.grey_bits)


def schedule_of(model: ModelConfig, keep: float | None) -> Schedule:
    """The schedule at a keep ratio; None for a ratio that is an input."""
    blocks = tuple(model.kept_after_block(model.num_patches))
    counts = None if keep is None else tuple(model.tokens_per_block(model.num_patches, model.num_prefix_tokens, keep))
    return Schedule(keep=keep, blocks=blocks, tokens_per_block=counts)


def versions() -> dict[str, str]:
    """Versions of the packages that write the model."""
    return {
        "pcae": pcae_core.__version__,
        "onnx": onnx.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def arrays_sha256(arrays: Mapping[str, NDArray[Any]], names: Iterable[str] | None = None) -> str:
    """SHA-256 over the name and bytes of each array: of all in order, or of those in `names`."""
    digest = hashlib.sha256()
    for name in arrays if names is None else names:
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
