"""PCAE: Progressively Compressed Auto-Encoder, the same in every framework.

    import pcae
    backend = pcae.use("torch", device="cuda")
    encoder = pcae.Encoder.from_pretrained("runs/mine")

This package has all public names of `pcae_core`, and those that train, evaluate or need a backend. Importing it loads
NumPy and nothing heavier.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

import pcae_core
from pcae_core import BackendError, __version__, current

if TYPE_CHECKING:
    from pcae_core import *  # noqa: F403
    from pcae_core.evaluation.evaluate import evaluate
    from pcae_core.training.finetune import finetune
    from pcae_core.training.pretrain import pretrain
    from pcae_onnx.session import InferenceSession

    Encoder: Any
    """The class `Encoder` of the backend in use, a module of its framework."""

_MODULES = {
    "InferenceSession": "pcae_onnx.session",
    "evaluate": "pcae_core.evaluation.evaluate",
    "finetune": "pcae_core.training.finetune",
    "pretrain": "pcae_core.training.pretrain",
}

__all__ = ["Encoder", "InferenceSession", "__version__", "evaluate", "finetune", "pretrain", *pcae_core.__all__]


def __getattr__(name: str) -> Any:
    if name == "Encoder":
        return _encoder()
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    if name in pcae_core.__all__:
        return getattr(pcae_core, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _encoder() -> Any:
    """The class `Encoder` in the package of the backend in use."""
    backend = current()
    package = sys.modules[type(backend).__module__.partition(".")[0]]
    if not hasattr(package, "Encoder"):
        raise BackendError(f"the backend {backend.name!r} has no Encoder module; use its encode(), or another backend")
    return package.Encoder
