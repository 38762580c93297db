"""PCAE as ONNX models: exported without a training framework, run on ONNX Runtime; infers, does not train."""

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
"""Of a run beside the weights, unless said: several times what the largest usual ViT takes for one image."""


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
    """Raises MissingExtraError when `onnx` or `onnxruntime` is asked for and not installed."""
    extras = {"onnx": "onnx", "onnxruntime": "ort"}
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise MissingExtraError(
                f'this needs {module}, which is not installed; install it with: pip install "pcae[{extras[module]}]"'
            )
