"""Files of other people's models: tensors by their names, and what stands beside them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import pydantic

from pcae_core import registry
from pcae_core.checkpoint import load_safetensors
from pcae_core.config import DataConfig
from pcae_core.convert.model import Facts
from pcae_core.convert.names import HF_MODEL_TYPES, WRAPPERS, from_hf_file
from pcae_core.errors import CheckpointError, describe_validation_error
from pcae_core.parameters import Arrays

HF_CONFIG, HF_WEIGHTS, HF_PIXELS = "config.json", "model.safetensors", "preprocessor_config.json"
SAFETENSORS = ".safetensors"


M = TypeVar("M", bound=pydantic.BaseModel)


@dataclass(frozen=True)
class Foreign:
    """What a source of somebody else's holds.

    Attributes:
        layout: whose names the tensors have.
        facts, loader: what it says of the model and of pixels.
        class_names: of the head's outputs, where it says them.
        origin: what it is, in a few words.
    """

    layout: Literal["timm", "hf"]
    tensors: Arrays
    facts: Facts
    loader: DataConfig
    origin: str
    class_names: tuple[str, ...] | None = None


class HfConfig(pydantic.BaseModel):
    """The parts of a Hugging Face `config.json` that features depend on; the defaults are the library's."""

    model_config = pydantic.ConfigDict(extra="ignore", protected_namespaces=())

    model_type: str
    num_attention_heads: int = 12
    decoder_num_attention_heads: int = 16
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-12
    id2label: dict[int, str] = {}


class HfPixels(pydantic.BaseModel):
    """The parts of a Hugging Face `preprocessor_config.json` that tell how pixels are normalised."""

    model_config = pydantic.ConfigDict(extra="ignore")

    do_normalize: bool = True
    image_mean: tuple[float, ...] | None = None
    image_std: tuple[float, ...] | None = None


def read_timm(path: Path, facts: Facts) -> Foreign:
    """A file whose tensors have timm's names, as timm, MAE and DeiT write them.

    Raises:
        CheckpointError: not such a file, or its tensors have other names.
    """
    if path.suffix == SAFETENSORS:
        stored = load_safetensors(path)
    else:
        readers = registry.writers()
        if path.suffix not in readers:
            known = " or ".join([SAFETENSORS, *readers])
            raise CheckpointError(f"{path} must end in {known}, or be a folder, to be read")
        stored = registry.create(readers[path.suffix]).load_weights(path)
    return Foreign("timm", _unwrapped(path, stored), facts, DataConfig(), "the model")


def _unwrapped(path: Path, stored: Arrays) -> Arrays:
    """Without what stands before the names; what lies beside the weights in a training checkpoint is left out."""
    for prefix in WRAPPERS:
        if f"{prefix}patch_embed.proj.weight" in stored:
            return {name.removeprefix(prefix): value for name, value in stored.items() if name.startswith(prefix)}
    if any("embeddings.patch_embeddings" in name for name in stored):
        raise CheckpointError(f"{path} has Hugging Face's names; give its folder, which holds {HF_CONFIG} too")
    names = ", ".join(list(stored)[:3]) or "nothing"
    raise CheckpointError(f"{path} holds no patch_embed.proj.weight, so no Vision Transformer; it begins with {names}")


def read_hf(folder: Path) -> Foreign:
    """A folder that Hugging Face's `save_pretrained` wrote of a ViT or a ViTMAE.

    Raises:
        CheckpointError: not such a folder, or a model that ours cannot be.
    """
    config = _parsed(folder / HF_CONFIG, HfConfig)
    if config.model_type not in ("vit", "vit_mae"):
        reason = HF_MODEL_TYPES.get(config.model_type, "known are vit and vit_mae")
        raise CheckpointError(f"{folder} holds a model of type {config.model_type!r}, which is refused: {reason}")
    if config.hidden_act != "gelu":
        raise CheckpointError(f"{folder}: its activation is {config.hidden_act!r}, ours exact gelu; features differ")
    if not (folder / HF_WEIGHTS).is_file():
        raise CheckpointError(f"{folder} holds no {HF_WEIGHTS}; other formats and sharded files are not read")
    facts = Facts(config.num_attention_heads, config.decoder_num_attention_heads, config.layer_norm_eps)
    tensors = {from_hf_file(name): value for name, value in load_safetensors(folder / HF_WEIGHTS).items()}
    if "embeddings.patch_embeddings.projection.weight" not in tensors:
        raise CheckpointError(f"{folder / HF_WEIGHTS} holds no embeddings.patch_embeddings.projection.weight")
    names = tuple(name for _, name in sorted(config.id2label.items())) or None
    return Foreign("hf", tensors, facts, _hf_loader(folder), f"the {config.model_type} model", names)


def _hf_loader(folder: Path) -> DataConfig:
    if not (folder / HF_PIXELS).is_file():
        return DataConfig()
    pixels = _parsed(folder / HF_PIXELS, HfPixels)
    if not pixels.do_normalize:
        return DataConfig(mean=(0.0,), std=(1.0,))
    return DataConfig.from_dict({"mean": pixels.image_mean, "std": pixels.image_std})


def _parsed(path: Path, kind: type[M]) -> M:
    try:
        return kind.model_validate_json(path.read_text(encoding="utf-8"))
    except pydantic.ValidationError as error:
        problem = describe_validation_error(error)
    except (OSError, UnicodeDecodeError) as error:
        problem = str(error)
    raise CheckpointError(f"{path} cannot be read: {problem}")
