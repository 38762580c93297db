"""Other people's models, files and folders: tensors by their names, and what stands beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pcae_core.convert import containers, folders, prefixes
from pcae_core.convert.metadata import NO_METADATA, ModelMetadata
from pcae_core.convert.names import Layout, from_hf_file
from pcae_core.parameters import Arrays

HF_CONFIG, HF_WEIGHTS, HF_PIXELS = folders.CONFIG, folders.WEIGHTS[0], folders.HF_PIXELS
SAFETENSORS = containers.SAFETENSORS


@dataclass(frozen=True)
class Foreign:
    """What a source of somebody else's holds.

    Attributes:
        layout: whose names the tensors have.
        metadata: its settings of the model and of the pixels.
        origin: what it is, in a few words.
        class_names: of the head's outputs, where it says them.
        beside: beginning of a name -> how many tensors of the file are no part of the model.
        remark: which tensors of several sets these are, or "".
    """

    layout: Layout
    tensors: Arrays
    metadata: ModelMetadata
    origin: str
    class_names: tuple[str, ...] | None
    beside: Mapping[str, int]
    remark: str


def read_file(path: Path, prefix: str | None) -> Foreign:
    """A file whose tensors have timm's names, as timm, MAE, DeiT and DINO write them.

    Args:
        prefix: what stands before the names of the model that is meant, where the file holds several.

    Raises:
        CheckpointError: not such a file, or its tensors have other names.
        ConfigError: it has no model behind `prefix`.
    """
    return _read(path, folders.Settings("timm", NO_METADATA, "the model"), prefix)


def read_folder(folder: Path, prefix: str | None) -> Foreign:
    """A folder that Hugging Face's `save_pretrained` wrote of a ViT or a ViTMAE, or one of timm's for the hub.

    Raises:
        CheckpointError: not such a folder, or a model that ours cannot be.
        ConfigError: it has no model behind `prefix`.
    """
    settings = folders.read(folder)
    return _read(folders.weights(folder), settings, prefix)


def _read(file: Path, settings: folders.Settings, prefix: str | None) -> Foreign:
    layout = settings.layout
    chosen = prefixes.choose(file, containers.read_tensors(file), layout, prefix)
    tensors = chosen.tensors
    if layout == "hf":
        tensors = {from_hf_file(name): value for name, value in tensors.items()}
    return Foreign(
        layout, tensors, settings.metadata, settings.origin, settings.class_names, chosen.beside, chosen.remark
    )
