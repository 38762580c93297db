"""PCAE: Progressively Compressed Auto-Encoder, a framework-agnostic core with pluggable backends.

    import pcae_core
    backend = pcae_core.use("torch", device="cuda")

Importing this package loads NumPy and nothing heavier. The configuration classes load pydantic on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from pcae_core.contract import (
    Backend,
    Capabilities,
    EncoderOutput,
    EncoderTrace,
    FinetuneOutput,
    Finetuner,
    Pretrainer,
    PretrainingOutput,
    PretrainOutput,
    StageOutput,
    Trainer,
    TrainingBackend,
    TrainState,
)
from pcae_core.errors import (
    BackendError,
    CheckpointError,
    ConfigError,
    DataError,
    MissingExtraError,
    PcaeError,
    ShapeError,
    TrainingError,
)
from pcae_core.registry import BackendInfo, BackendSpec, available, current, use

if TYPE_CHECKING:
    from pcae_core import cost, parameters, randomness, schedule
    from pcae_core.config import DataConfig, FinetuneConfig, ModelConfig, PretrainConfig, ReductionConfig
    from pcae_core.storage import checkpoint, pretrained

__version__ = "0.1.0"

_LAZY_CONFIGS = ("DataConfig", "FinetuneConfig", "ModelConfig", "PretrainConfig", "ReductionConfig")
_LAZY_MODULES = {name: f"pcae_core.{name}" for name in ("config", "cost", "parameters", "randomness", "schedule")}
_LAZY_MODULES |= {name: f"pcae_core.storage.{name}" for name in ("checkpoint", "pretrained")}

__all__ = [
    "Backend",
    "BackendError",
    "BackendInfo",
    "BackendSpec",
    "Capabilities",
    "CheckpointError",
    "ConfigError",
    "DataConfig",
    "DataError",
    "EncoderOutput",
    "EncoderTrace",
    "FinetuneConfig",
    "FinetuneOutput",
    "Finetuner",
    "MissingExtraError",
    "ModelConfig",
    "PcaeError",
    "PretrainConfig",
    "PretrainOutput",
    "Pretrainer",
    "PretrainingOutput",
    "ReductionConfig",
    "ShapeError",
    "StageOutput",
    "TrainState",
    "Trainer",
    "TrainingBackend",
    "TrainingError",
    "available",
    "checkpoint",
    "cost",
    "current",
    "parameters",
    "pretrained",
    "randomness",
    "schedule",
    "use",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY_CONFIGS:
        return getattr(importlib.import_module(f"{__name__}.config"), name)
    if name in _LAZY_MODULES:
        return importlib.import_module(_LAZY_MODULES[name])
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
