"""Small encoders and their exports, for the tests of ONNX."""

from __future__ import annotations

from pathlib import Path

import encoders
import numpy as np

from pcae_core.config import DataConfig, ModelConfig
from pcae_onnx import export

# No stage starts from two tokens: both are equally similar to their mean, and rounding would choose.
CONFIG = ModelConfig(
    image_size=24, patch_size=4, embed_dim=32, depth=6, num_heads=4, num_classes=5,
    decoder_embed_dim=16, decoder_depth=1, decoder_num_heads=2,
)  # fmt: skip
HEADLESS = CONFIG.model_copy(update={"num_classes": 0})
OTHERS = ({"activation": "gelu_tanh"}, {"activation": "quick_gelu", "pre_norm": True, "patch_bias": False})
"""Settings of other encoders."""
CLASSES = ("ant", "bee", "cat", "dog", "eel")
KEEPS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)


def weights(config: ModelConfig = CONFIG) -> dict[str, np.ndarray]:
    return encoders.weights(config)


def pixels(batch: int, config: ModelConfig = CONFIG) -> np.ndarray:
    shape = (batch, config.in_chans, config.image_size, config.image_size)
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def exported(folder: Path, config: ModelConfig = CONFIG, **options) -> export.Exported:
    return export.export(config, DataConfig(), weights(config), folder, export.Options(**options))
