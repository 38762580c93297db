"""Sessions of ONNX Runtime: the provider that was asked for, or an error."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime

from pcae_core.errors import BackendError, ModelFileError

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "rocm": "ROCMExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "directml": "DmlExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
}
"""ONNX Runtime's names by ours."""
_ERRORS_ONLY = 3
_EXTERNAL_DATA = "session.model_external_initializers_file_folder_path"


def session(
    model: Path | bytes, provider: str = "cpu", threads: int | None = None, external_data: Path | None = None
) -> onnxruntime.InferenceSession:
    """Load a model.

    Args:
        model: a file, or its content where that is small.
        provider: a key of `PROVIDERS`.
        threads: of one operator; by default `OMP_NUM_THREADS`, or as many as there are cores.
        external_data: folder of the external data of a model given by its content.

    Raises:
        BackendError: unknown provider, or one that is not there; ONNX Runtime itself would silently use the CPU.
        ModelFileError: ONNX Runtime refuses the model.
    """
    if provider not in PROVIDERS:
        raise BackendError(f"unknown provider {provider!r}; known: {', '.join(PROVIDERS)}")
    wanted = PROVIDERS[provider]
    if not is_available(provider):
        raise BackendError(_unavailable(provider))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    if threads is not None and threads < 1:
        raise BackendError(f"threads must be at least 1, not {threads}")
    options.intra_op_num_threads = threads or _threads_of_environment()
    if external_data is not None:
        options.add_session_config_entry(_EXTERNAL_DATA, str(external_data))
    try:
        loaded = onnxruntime.InferenceSession(
            model if isinstance(model, bytes) else str(model), options, providers=[wanted]
        )
    except Exception as error:  # ONNX Runtime has a dozen exception classes without a common base of their own
        name = "the model" if isinstance(model, bytes) else str(model)
        raise ModelFileError(f"ONNX Runtime {onnxruntime.__version__} refuses {name}: {error}") from None
    if wanted not in loaded.get_providers():
        raise BackendError(_unavailable(provider))
    return loaded


def run(session: onnxruntime.InferenceSession, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """All outputs for inputs that fit the model. Raises ModelFileError when the graph fails on them."""
    try:
        outputs: list[np.ndarray] = session.run(None, dict(feeds))
    except Exception as error:  # as above
        raise ModelFileError(f"the model fails in ONNX Runtime, export it again: {error}") from None
    return outputs


def is_available(provider: str) -> bool:
    """Whether ONNX Runtime lists the provider; it may list one whose device is not there."""
    return PROVIDERS[provider] in onnxruntime.get_available_providers()


def _threads_of_environment() -> int:
    """0 leaves the choice to ONNX Runtime, which knows nothing of the variable."""
    text = os.environ.get("OMP_NUM_THREADS", "")
    return int(text) if text.isdecimal() else 0


def _unavailable(provider: str) -> str:
    active = set(onnxruntime.get_available_providers())
    ours = [name for name, theirs in PROVIDERS.items() if theirs in active]
    hint = '; for CUDA install "pcae[ort-gpu]" in place of "pcae[ort]"' if provider == "cuda" else ""
    return f"the provider {provider!r} is not available to ONNX Runtime here (it lists {', '.join(ours)}){hint}"
