"""Sessions of ONNX Runtime. They use the requested provider, or raise an error."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

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
"""PCAE's name of a provider -> ONNX Runtime's."""
_MOST_THREADS = 1024  # ONNX Runtime starts any number of threads, and takes minutes
_NOTHING = 4  # log level: exceptions hold the messages already
_BEYOND_OPSET_20 = re.compile(r"ONNX operations: .*\bAttention\b|Unsupported model IR version: 11\b")
_EXTERNAL_DATA = "session.model_external_initializers_file_folder_path"
_RETURN_MEMORY = "memory.enable_memory_arena_shrinkage"
_BEYOND_ARENA = "is smaller than requested bytes"
_LOADING = threading.Lock()  # a new session takes the arena that was registered last in the process


def session(
    model: Path | bytes,
    provider: str = "cpu",
    threads: int | None = None,
    external_data: Path | None = None,
    memory_mib: int | None = None,
) -> onnxruntime.InferenceSession:
    """Load a model.

    Args:
        model: path of a file, or the content of a small one.
        provider: key of `PROVIDERS`.
        threads: number of threads of one operator. Default: `OMP_NUM_THREADS`, else the number of cores.
        external_data: folder of the external data, for a model given by its content.
        memory_mib: memory limit of a run on CPUs in MiB, without the weights; None for no limit.

    Raises:
        BackendError: the provider is unknown or not available (ONNX Runtime itself would silently use the CPU), or the
            number of threads is out of range.
        ModelFileError: ONNX Runtime refuses the model.
    """
    if provider not in PROVIDERS:
        raise BackendError(f"unknown provider {provider!r}; known: {', '.join(PROVIDERS)}")
    wanted = PROVIDERS[provider]
    if not is_available(provider):
        raise BackendError(_unavailable(provider))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _NOTHING
    if threads is not None and not 1 <= threads <= _MOST_THREADS:
        raise BackendError(f"threads must be from 1 to {_MOST_THREADS}, not {threads}")
    options.intra_op_num_threads = threads or _threads_of_environment()
    if external_data is not None:
        options.add_session_config_entry(_EXTERNAL_DATA, str(external_data))
    try:
        with _LOADING:
            if memory_mib is not None and provider == "cpu":
                _limit_memory(options, memory_mib)
            loaded = onnxruntime.InferenceSession(
                model if isinstance(model, bytes) else str(model), options, providers=[wanted]
            )
    except Exception as error:  # ONNX Runtime has a dozen exception classes without a common base class
        name = "the model" if isinstance(model, bytes) else str(model)
        raise ModelFileError(f"{_who(provider)} {_why(name, str(error))}") from None
    if wanted not in loaded.get_providers():
        raise BackendError(_unavailable(provider))
    return loaded


def _who(provider: str) -> str:
    own = "" if provider == "cpu" else f" with the provider {provider!r}"
    return f"ONNX Runtime {onnxruntime.__version__}{own}"


def _why(name: str, error: str) -> str:
    if _BEYOND_OPSET_20.search(error):
        return f"does not know opset 23, which {name} has; export it again with --opset 20"
    return f"refuses {name}: {error}"


def run(session: onnxruntime.InferenceSession, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
    """All outputs for inputs that fit the model. Raises ModelFileError when the graph fails on them."""
    options = onnxruntime.RunOptions()
    options.log_severity_level = _NOTHING
    if session.get_providers() == [PROVIDERS["cpu"]]:
        options.add_run_config_entry(_RETURN_MEMORY, "cpu:0")  # so that idle sessions hold little memory
    try:
        outputs: list[NDArray[Any]] = session.run(None, dict(feeds), options)
    except Exception as error:  # as above
        if _BEYOND_ARENA in str(error):
            raise ModelFileError(
                "the model asks for more memory than it may take beside its weights; if you trust it, raise memory_mib"
            ) from None
        raise ModelFileError(f"the model fails in ONNX Runtime, export it again: {error}") from None
    return outputs


def run_in_parts(
    session: onnxruntime.InferenceSession, pixels: NDArray[Any], feeds: Mapping[str, NDArray[Any]], step: int
) -> list[NDArray[Any]]:
    """As `run`, for `step` images at a time of floating pixels (B, C, H, W). Other inputs are the same for all images.

    Raises:
        ModelFileError: as `run`, or the outputs cannot be joined.
    """
    parts = [
        run(session, {"pixel_values": pixels[start : start + step].astype(np.float32, order="C"), **feeds})
        for start in range(0, len(pixels), step)
    ]
    try:
        return [np.concatenate(values) for values in zip(*parts, strict=True)]
    except ValueError:
        raise ModelFileError("the outputs of the model have no batch of images; export the model again") from None


def _limit_memory(options: onnxruntime.SessionOptions, memory_mib: int) -> None:
    """Give the next session its own memory arena of limited size.

    Weights are not in the arena. Constants that are computed at loading would not be either, and nothing limits their
    size. So they are computed in each run.
    """
    device = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    arena = onnxruntime.OrtArenaCfg({"max_mem": memory_mib * 2**20})
    onnxruntime.create_and_register_allocator(device, arena)
    options.add_session_config_entry("session.use_env_allocators", "1")
    options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
    options.add_session_config_entry("optimization.disable_specified_optimizers", "ConstantFolding")


def is_available(provider: str) -> bool:
    """Whether ONNX Runtime lists the provider. It may list one whose device is not available."""
    return PROVIDERS[provider] in onnxruntime.get_available_providers()


def _threads_of_environment() -> int:
    """Number of threads in `OMP_NUM_THREADS`, which ONNX Runtime ignores; 0 leaves the choice to ONNX Runtime."""
    text = os.environ.get("OMP_NUM_THREADS", "")
    return int(text) if text.isdecimal() else 0


def _unavailable(provider: str) -> str:
    active = set(onnxruntime.get_available_providers())
    ours = [name for name, theirs in PROVIDERS.items() if theirs in active]
    hint = '; for CUDA install "pcae[ort-gpu]" in place of "pcae[ort]"' if provider == "cuda" else ""
    return f"the provider {provider!r} is not available to ONNX Runtime here (it lists {', '.join(ours)}){hint}"
