"""Read the settings of OpenCLIP's vision tower from the `open_clip_config.json` beside its file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from pcae_core.config import Activation
from pcae_core.convert.folders import Parts, Settings
from pcae_core.convert.metadata import ModelMetadata
from pcae_core.convert.published import CLIP_EPS
from pcae_core.errors import CheckpointError, listed
from pcae_core.storage.manifest import read_json

OPEN_CLIP = "open_clip_config.json"


class OpenClipVision(Parts):
    """The settings of OpenCLIP's vision tower that tensors do not show."""

    width: int | None = None
    head_width: int = 64
    pool_type: str = "tok"
    act_kwargs: dict[str, Any] | None = None
    norm_kwargs: dict[str, Any] | None = None

    @property
    def num_heads(self) -> int | None:
        """Heads of each block, where the width is given."""
        return None if self.width is None else self.width // max(1, self.head_width)

    def unknown(self) -> list[str]:
        """Names of settings that are given and that PCAE does not read."""
        found = {"pool_type": self.pool_type != "tok", "act_kwargs": self.act_kwargs, "norm_kwargs": self.norm_kwargs}
        return [name for name, given in found.items() if given]


class OpenClipModel(Parts):
    """The parts of OpenCLIP's `model_cfg` that features depend on."""

    quick_gelu: bool = False
    vision_cfg: OpenClipVision = OpenClipVision()


class OpenClipPixels(Parts):
    """The parts of OpenCLIP's `preprocess_cfg` that set the normalisation of pixels."""

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


class OpenClipConfig(Parts):
    """The parts of an `open_clip_config.json` that features depend on."""

    model_cfg: OpenClipModel
    preprocess_cfg: OpenClipPixels = OpenClipPixels()


def settings(folder: Path) -> Settings:
    """Settings of an OpenCLIP file, from the `open_clip_config.json` beside it, if any. Raises CheckpointError."""
    metadata = ModelMetadata(layer_norm_eps=CLIP_EPS, pooling="cls", timm=True)
    if (folder / OPEN_CLIP).is_file():
        config = read_json(folder / OPEN_CLIP, OpenClipConfig)
        activation: Activation = "quick_gelu" if config.model_cfg.quick_gelu else "gelu"
        pixels, vision = config.preprocess_cfg, config.model_cfg.vision_cfg
        if vision.unknown():
            raise CheckpointError(f"{folder / OPEN_CLIP} sets {listed(vision.unknown())}, which PCAE does not read")
        heads = vision.num_heads
        metadata = replace(metadata, num_heads=heads, activation=activation, mean=pixels.mean, std=pixels.std)
    return Settings("open_clip", metadata, "OpenCLIP's vision tower")
