"""Configuration: strict and immutable. Wrong settings raise an error of one clear line.

`ModelConfig` holds the settings that determine a checkpoint's tensors. `PretrainConfig` holds all settings of a
pre-training run, and `FinetuneConfig` all settings of a fine-tuning run.
"""

from pcae_core.config.base import Activation, Config, EncoderName, Pooling, is_utf8, read_yaml
from pcae_core.config.data import DataConfig, Reading
from pcae_core.config.finetune import AnyRunConfig, FinetuneConfig
from pcae_core.config.model import PRESETS, ModelConfig, ReductionConfig
from pcae_core.config.run import PretrainConfig, RunConfig

__all__ = [
    "PRESETS",
    "Activation",
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
