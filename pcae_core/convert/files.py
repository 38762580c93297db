"""Read models of other projects from files and folders: tensors by name, and settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pcae_core.convert import containers, folders, open_clip, prefixes
from pcae_core.convert.metadata import NO_METADATA, ModelMetadata
from pcae_core.convert.names import Layout, from_hf_file
from pcae_core.parameters import Arrays

HF_CONFIG, HF_WEIGHTS, HF_PIXELS = folders.CONFIG, folders.WEIGHTS[0], folders.HF_PIXELS
SAFETENSORS = containers.SAFETENSORS


@dataclass(frozen=True)
class Foreign:
    """A model of another project.

    Attributes:
        layout: naming scheme of the tensors.
        metadata: settings of the model and of the pixels in the source.
        origin: description of the model, in a few words.
        class_names: class names of the head's outputs, if the source has them.
        beside: prefix -> number of tensors with it in the file that do not belong to the model.
        remark: which of several models in the file was taken, or "".
    """

    layout: Layout
    tensors: Arrays
    metadata: ModelMetadata
    origin: str
    class_names: tuple[str, ...] | None
    beside: Mapping[str, int]
    remark: str


def read_file(path: Path, prefix: str | None) -> Foreign:
    """Read a file whose tensors have timm's names, as timm, MAE, DeiT and DINO write them, or OpenCLIP's.

    Args:
        prefix: prefix of the parameter names to read, if the file holds several models.

    Raises:
        CheckpointError: the file cannot be read, or its tensors have other names.
        ConfigError: the file has no model behind `prefix`.
    """
    stored = containers.read_tensors(path)
    if prefixes.layout_of(stored) == "open_clip":
        return _chosen(path, stored, open_clip.settings(path.parent), prefix)
    return _chosen(path, stored, folders.Settings("timm", NO_METADATA, "the model"), prefix)


def read_folder(folder: Path, prefix: str | None) -> Foreign:
    """Read a ViT, ViTMAE or CLIP folder of Hugging Face's `save_pretrained`, or a timm folder of the Hugging Face Hub.

    Raises:
        CheckpointError: it is no such folder, or its model cannot become a PCAE model.
        ConfigError: the folder has no model behind `prefix`.
    """
    settings = folders.read(folder)
    file = folders.weights(folder)
    return _chosen(file, containers.read_tensors(file), settings, prefix)


def _chosen(file: Path, stored: Arrays, settings: folders.Settings, prefix: str | None) -> Foreign:
    layout = settings.layout
    chosen = prefixes.choose(file, stored, layout, prefix)
    tensors = chosen.tensors
    if layout == "hf":
        tensors = {from_hf_file(name): value for name, value in tensors.items()}
    return Foreign(
        layout, tensors, settings.metadata, settings.origin, settings.class_names, chosen.beside, chosen.remark
    )
