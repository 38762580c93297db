"""Encoders whose every parameter is random: fresh biases are 0 and would hide a mistake."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pcae_conformance.model_cases import random_parameters
from pcae_core import ModelConfig, parameters, pretrained
from pcae_core.config import DataConfig
from pcae_core.storage.pretrained import EncoderInfo

MODEL = ModelConfig(image_size=16, patch_size=4, embed_dim=24, depth=3, num_heads=4, num_classes=5)
IMAGES = np.random.default_rng(1).normal(size=(4, 3, 16, 16)).astype(np.float32)


def weights(model: ModelConfig = MODEL, seed: int = 0) -> dict[str, np.ndarray]:
    """In float32, by timm's names."""
    random = random_parameters(parameters.encoder_shapes(model), np.random.default_rng(seed), "float32")
    return {name: value.astype(np.float32) for name, value in random.items()}


def write(folder: Path) -> Path:
    """A small encoder's folder."""
    info = EncoderInfo(model=MODEL, loader=DataConfig(mean=(0.5,), std=(0.2,)))
    pretrained.save(folder, info, weights(), {}, "a test")
    return folder
