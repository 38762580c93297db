"""Configuration: strict, immutable, and refused with one clear line when it makes no sense.

`ModelConfig` is what a checkpoint's tensors depend on; `PretrainConfig` is everything that a pre-training run depends
on, and `FinetuneConfig` everything that a fine-tuning run depends on.
"""

from pcae_core.config.base import Config, EncoderName, Pooling, is_utf8, read_yaml
from pcae_core.config.data import DataConfig, Reading
from pcae_core.config.finetune import AnyRunConfig, FinetuneConfig
from pcae_core.config.model import PRESETS, ModelConfig, ReductionConfig
from pcae_core.config.run import PretrainConfig, RunConfig

__all__ = [
    "PRESETS",
    "AnyRunConfig",
    "Config",
    "DataConfig",
    "EncoderName",
    "FinetuneConfig",
    "ModelConfig",
    "Pooling",
    "PretrainConfig",
    "Reading",
    "ReductionConfig",
    "RunConfig",
    "is_utf8",
    "read_yaml",
]
