"""PCAE as ONNX models: export without a training framework, and inference on ONNX Runtime. It does not train."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from pcae_core.contract import Capabilities
from pcae_core.errors import MissingExtraError
from pcae_core.registry import BackendSpec

if TYPE_CHECKING:
    from pcae_onnx.backend import OnnxBackend

CAPABILITIES = Capabilities(training=False, dtypes=("float32", "float16"), devices=("cuda", "cpu"))
MEMORY_MIB = 512
"""Default memory limit of a run in MiB, without the weights: several times the need of the largest usual ViT."""


def _create(device: str = "cpu") -> OnnxBackend:
    from pcae_onnx.backend import OnnxBackend

    return OnnxBackend(device)


SPEC = BackendSpec(
    name="onnx",
    create=_create,
    capabilities=CAPABILITIES,
    requires=("onnx", "onnxruntime"),
    distribution="onnxruntime",
    install='pip install "pcae[ort]" (or "pcae[ort-gpu]")',
)


def require(*modules: str) -> None:
    """Raise MissingExtraError when one of `modules`, `onnx` or `onnxruntime`, is not installed."""
    extras = {"onnx": "onnx", "onnxruntime": "ort"}
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise MissingExtraError(
                f'this needs {module}, which is not installed; install it with: pip install "pcae[{extras[module]}]"'
            )
