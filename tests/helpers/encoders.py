"""A small encoder's folder, every parameter random."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pcae_core import ModelConfig, parameters, pretrained
from pcae_core.config import DataConfig
from pcae_core.pretrained import EncoderInfo

MODEL = ModelConfig(image_size=16, patch_size=4, embed_dim=24, depth=3, num_heads=4, num_classes=5)
IMAGES = np.random.default_rng(1).normal(size=(4, 3, 16, 16)).astype(np.float32)


def write(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    encoder = {
        name: (rng.normal(size=shape) / np.sqrt(shape[-1] if len(shape) > 1 else 4)).astype(np.float32)
        for name, shape in parameters.encoder_shapes(MODEL).items()
    }
    pretrained.save(folder, EncoderInfo(model=MODEL, loader=DataConfig(mean=(0.5,), std=(0.2,))), encoder, {}, "a test")
    return folder
