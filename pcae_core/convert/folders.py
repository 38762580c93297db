"""Read the settings in model folders of Hugging Face and timm."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pydantic
from pydantic import model_validator

from pcae_core.config import Activation
from pcae_core.convert.containers import INDEX
from pcae_core.convert.metadata import ModelMetadata
from pcae_core.convert.names import HF_ACTIVATIONS, HF_MODEL_TYPES, Layout
from pcae_core.convert.published import (
    CLIP_EPS,
    TIMM_ARGUMENTS,
    TIMM_CLIP,
    TIMM_EPS,
    TIMM_PLAIN,
    TIMM_POOLS,
    TIMM_REFUSED,
)
from pcae_core.errors import CheckpointError, describe_validation_error
from pcae_core.storage.manifest import read_json

CONFIG, HF_PIXELS = "config.json", "preprocessor_config.json"
WEIGHTS = ("model.safetensors", f"model.safetensors{INDEX}", "pytorch_model.bin", f"pytorch_model.bin{INDEX}")
"""Names of the files of tensors in a folder; the first that exists is read."""


class Parts(pydantic.BaseModel):
    """The parts of a settings file that PCAE reads; the others are ignored."""

    model_config = pydantic.ConfigDict(extra="ignore", protected_namespaces=())


class Kind(Parts):
    """The parts of a `config.json` that show its library: timm has an architecture, Hugging Face a model type."""

    architecture: str | None = None
    model_type: str | None = None


class HfConfig(Parts):
    """The parts of a Hugging Face `config.json` that features depend on, with the library's defaults."""

    model_type: str
    num_attention_heads: int = 12
    decoder_num_attention_heads: int = 16
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-12
    id2label: dict[int, str] = {}


class ClipVision(Parts):
    """The same of CLIP's vision tower."""

    num_attention_heads: int = 12
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = CLIP_EPS


class ClipConfig(Parts):
    """The part of a `CLIPModel`'s `config.json` that is of its vision tower; old files have both, the second whole."""

    vision_config: dict[str, Any] | None = None
    vision_config_dict: dict[str, Any] | None = None


class HfPixels(Parts):
    """The parts of a Hugging Face `preprocessor_config.json` that set the normalisation of pixels.

    Attributes:
        image_mean, image_std: mean and standard deviation of pixels from 0 to 255 times `rescale_factor`.
        do_normalize, do_rescale: null means false. Without rescaling, mean and std are those of the user's pixels.
    """

    do_normalize: bool | None = True
    image_mean: tuple[float, ...] | None = None
    image_std: tuple[float, ...] | None = None
    do_rescale: bool | None = True
    rescale_factor: float = pydantic.Field(default=1 / 255, gt=0.0, allow_inf_nan=False)

    def of_unit_pixels(self) -> tuple[tuple[float, ...], tuple[float, ...]] | tuple[None, None]:
        """Mean and std of pixels from 0 to 1, or None if the settings do not tell."""
        mean, std = (self.image_mean, self.image_std) if self.do_normalize else ((0.0,), (1.0,))
        if mean is None or std is None or not (self.do_normalize or self.do_rescale):
            return None, None
        if self.do_rescale:
            white = 255 * self.rescale_factor
        else:  # numbers above 1 belong to pixels of 8 bits
            white = 255.0 if max((*mean, *std), default=0.0) > 1.0 else 1.0
        if math.isclose(white, 1.0, rel_tol=1e-6):
            return mean, std
        return tuple(x / white for x in mean), tuple(x / white for x in std)


class TimmPretrained(Parts):
    """timm's `pretrained_cfg`."""

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    label_names: list[str] | dict[int, str] | None = None


class TimmConfig(Parts):
    """The parts of a timm `config.json` that features depend on."""

    architecture: str
    global_pool: str | None = None
    label_names: list[str] | dict[int, str] | None = None
    model_args: dict[str, Any] = {}
    pretrained_cfg: TimmPretrained

    @model_validator(mode="before")
    @classmethod
    def _nest(cls, values: Any) -> Any:
        """Accept older files, which have one level, and null values, which transformers' wrapper of timm writes."""
        if not isinstance(values, dict):
            return values
        said = {key: value for key, value in values.items() if value is not None}
        return {"pretrained_cfg": said} | said


@dataclass(frozen=True)
class Settings:
    """Settings in a folder, besides its tensors.

    Attributes:
        layout: naming scheme of the tensors.
        origin: description of the model, in a few words.
        class_names: class names of the head's outputs, if the folder has them.
    """

    layout: Layout
    metadata: ModelMetadata
    origin: str
    class_names: tuple[str, ...] | None = None


def read(folder: Path) -> Settings:
    """Read the settings of a folder that has a `config.json`.

    Raises:
        CheckpointError: they are damaged, of an unknown library, or of a model that cannot become a PCAE model.
    """
    kind = read_json(folder / CONFIG, Kind)
    if kind.architecture is not None:
        return _timm(folder)
    if kind.model_type is not None:
        return _hf(folder)
    raise CheckpointError(f"{folder / CONFIG} names no model_type (Hugging Face) and no architecture (timm)")


def weights(folder: Path) -> Path:
    """Path of a folder's file of tensors, or of their index. Raises CheckpointError when there is none."""
    for name in WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    raise CheckpointError(
        f"{folder} holds none of {', '.join(WEIGHTS)}; where a file of another name has its tensors, rename it"
    )


def _hf(folder: Path) -> Settings:
    config = read_json(folder / CONFIG, HfConfig)
    if config.model_type in ("clip", "clip_vision_model"):
        return _clip(folder, config.model_type)
    if config.model_type not in ("vit", "vit_mae"):
        reason = HF_MODEL_TYPES.get(config.model_type, "known are vit, vit_mae, clip and clip_vision_model")
        raise CheckpointError(f"{folder} holds a model of type {config.model_type!r}, which is refused: {reason}")
    mean, std = _hf_pixels(folder)
    metadata = ModelMetadata(
        num_heads=config.num_attention_heads,
        decoder_num_heads=config.decoder_num_attention_heads,
        layer_norm_eps=config.layer_norm_eps,
        mean=mean,
        std=std,
        activation=_activation(folder, config.hidden_act),
        pooling="cls",
    )
    return Settings("hf", metadata, f"the {config.model_type} model", _names(config.id2label))


def _clip(folder: Path, model_type: str) -> Settings:
    """Of a CLIPVisionModel, or of the vision half of a CLIPModel."""
    if model_type == "clip":
        nested = read_json(folder / CONFIG, ClipConfig)
        said = (nested.vision_config or {}) | (nested.vision_config_dict or {})
        config = _validated(folder, said)
    else:
        config = read_json(folder / CONFIG, ClipVision)
    mean, std = _hf_pixels(folder)
    metadata = ModelMetadata(
        num_heads=config.num_attention_heads,
        layer_norm_eps=config.layer_norm_eps,
        mean=mean,
        std=std,
        activation=_activation(folder, config.hidden_act),
        pooling="cls",
    )
    return Settings("clip", metadata, f"the {model_type} model")


def _validated(folder: Path, said: dict[str, Any]) -> ClipVision:
    try:
        return ClipVision.model_validate(said)
    except pydantic.ValidationError as error:
        raise CheckpointError(f"{folder / CONFIG}: vision_config: {describe_validation_error(error)}") from None


def _activation(folder: Path, hidden_act: str) -> Activation:
    """Ours by Hugging Face's name. Raises CheckpointError for one that ours has not."""
    if hidden_act not in HF_ACTIVATIONS:
        known = ", ".join(HF_ACTIVATIONS)
        raise CheckpointError(f"{folder}: its activation is {hidden_act!r}, and ours is one of {known}")
    return HF_ACTIVATIONS[hidden_act]


def _hf_pixels(folder: Path) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    if not (folder / HF_PIXELS).is_file():
        return None, None
    return read_json(folder / HF_PIXELS, HfPixels).of_unit_pixels()


def _timm(folder: Path) -> Settings:
    config = read_json(folder / CONFIG, TimmConfig)
    name, arguments = config.architecture, config.model_args
    for pattern, reason in TIMM_REFUSED:
        if fnmatchcase(name, pattern):
            raise CheckpointError(f"{folder} holds timm's {name}, which is refused: {reason}")
    odd = [key for key, value in arguments.items() if key not in TIMM_ARGUMENTS and value not in (None, False, "")]
    if odd:
        raise CheckpointError(f"{folder} holds timm's {name} with its own {odd[0]}, which may change its features")
    clip = re.fullmatch(TIMM_CLIP, name)
    plain = clip is not None or re.fullmatch(TIMM_PLAIN, name) is not None
    activation: Activation = "quick_gelu" if clip is not None and clip["quick"] else "gelu"
    heads, pool = arguments.get("num_heads"), arguments.get("global_pool") or config.global_pool
    metadata = ModelMetadata(
        num_heads=heads if isinstance(heads, int) else None,
        layer_norm_eps=None if not plain else TIMM_EPS if clip is None else CLIP_EPS,
        mean=config.pretrained_cfg.mean,
        std=config.pretrained_cfg.std,
        activation=activation if plain else None,
        pooling=TIMM_POOLS.get(str(pool), str(pool)) if pool else None,
        timm=plain,
    )
    labels = config.label_names or config.pretrained_cfg.label_names or {}
    return Settings(
        "timm", metadata, f"timm's {name}", _names(dict(enumerate(labels)) if isinstance(labels, list) else labels)
    )


def _names(labels: Mapping[int, str]) -> tuple[str, ...] | None:
    """Class names in order; None if a number has no name, or the names are transformers' placeholders."""
    numbers = range(len(labels))
    if labels.keys() != set(numbers) or all(labels[i] == f"LABEL_{i}" for i in numbers):
        return None
    return tuple(labels[i] for i in numbers)
