"""`NumpyBackend`: the contract on float64 arrays. Inputs are converted first, so none is shared or changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pcae_core.config import ModelConfig, PretrainConfig
from pcae_core.config.finetune import FinetuneConfig
from pcae_core.contract import (
    STANDARDIZE_EPS,
    Array,
    Center,
    EncoderOutput,
    EncoderTrace,
    Finetuner,
    Pretrainer,
    PretrainingOutput,
    TrainingBackend,
    TrainState,
)
from pcae_core.errors import BackendError, CheckpointError
from pcae_core.reduction import check_keep
from pcae_core.shapes import check_images, check_restore_grid
from pcae_core.storage import archives
from pcae_numpy import CAPABILITIES, backward, model, ops
from pcae_numpy.finetuning import NumpyFinetuner
from pcae_numpy.pretraining import NumpyPretrainer


def _floats(x: Array) -> ops.Floats:
    return np.array(x, dtype=np.float64)


def _all_floats(arrays: Mapping[str, Array]) -> dict[str, ops.Floats]:
    return {name: _floats(value) for name, value in arrays.items()}


def _factors(config: ModelConfig, batch: int, drop_path: Array | None) -> ops.Floats:
    """Factors of the residual branches (L, 2, B); 1 without drop path."""
    return np.ones((config.depth, 2, batch)) if drop_path is None else _floats(drop_path)


def _ids(x: Array) -> ops.Ids:
    return np.asarray(x, dtype=np.int64)


class NumpyBackend(TrainingBackend):
    """The reference. Its methods are documented in `pcae_core.contract.TrainingBackend`."""

    name = "numpy"
    capabilities = CAPABILITIES

    def __init__(self, device: str = "cpu") -> None:
        if device not in ("auto", "cpu"):
            raise BackendError(f"the numpy backend runs on the device 'cpu', not {device!r}; say --device cpu or auto")

    def asarray(self, x: Array, dtype: str | None = None) -> NDArray[Any]:
        return np.array(x, dtype=dtype)

    def to_numpy(self, x: Array) -> NDArray[Any]:
        return np.array(x)

    def patchify(self, images: Array, patch_size: int) -> NDArray[Any]:
        return np.array(ops.patchify(np.asarray(images), patch_size))

    def split_by_noise(self, noise: Array, num_visible: int) -> tuple[ops.Ids, ops.Ids]:
        return ops.split_by_noise(_floats(noise), num_visible)

    def similarity_scores(self, tokens: Array, center: Center = "unit") -> ops.Floats:
        return ops.similarity_scores(_floats(tokens), center)

    def select_tokens(self, scores: Array, k: int) -> ops.Ids:
        return ops.select_tokens(_floats(scores), k)

    def gather_tokens(self, tokens: Array, ids: Array) -> NDArray[Any]:
        return ops.gather_tokens(np.asarray(tokens), _ids(ids))

    def reduce_tokens(
        self, tokens: Array, k: int, num_prefix_tokens: int = 0, center: Center = "unit"
    ) -> tuple[ops.Floats, ops.Ids]:
        return ops.reduce_tokens(_floats(tokens), k, num_prefix_tokens, center)

    def restore_grid(
        self, tokens: Array, kept_ids: Array, num_patches: int, features: Array | None = None
    ) -> NDArray[Any]:
        own = None if features is None else _floats(features)
        check_restore_grid(np.shape(tokens), np.shape(kept_ids), num_patches, None if own is None else own.shape)
        return ops.restore_grid(np.asarray(tokens), _ids(kept_ids), num_patches, own)

    def standardize(self, latents: Array, eps: float = STANDARDIZE_EPS) -> ops.Floats:
        return ops.standardize(_floats(latents), eps)

    def cosine_loss(self, prediction: Array, target: Array) -> ops.Floats:
        return ops.cosine_loss(_floats(prediction), _floats(target))

    def ema_update(self, teacher: Mapping[str, Array], student: Mapping[str, Array], momentum: float) -> dict[str, Any]:
        updated = ops.ema_update(_all_floats(teacher), _all_floats(student), momentum)
        return {name: np.asarray(value, dtype=np.asarray(teacher[name]).dtype) for name, value in updated.items()}

    def pretraining_forward(
        self,
        config: ModelConfig,
        student: Mapping[str, Array],
        teacher: Mapping[str, Array],
        images: Array,
        noise: Array,
    ) -> PretrainingOutput:
        return self._traced_forward(config, student, teacher, images, noise, None)[0]

    def encode(
        self, config: ModelConfig, parameters: Mapping[str, Array], images: Array, keep: float = 1.0
    ) -> EncoderOutput:
        return self.encode_stages(config, parameters, images, keep).output

    def encode_stages(
        self, config: ModelConfig, parameters: Mapping[str, Array], images: Array, keep: float = 1.0
    ) -> EncoderTrace:
        check_keep(keep)
        check_images(np.shape(images), config.in_chans, config.image_size)
        return model.encode(config, model.Widened(parameters), _floats(images), keep)

    def pretraining_loss_and_gradients(
        self,
        config: ModelConfig,
        student: Mapping[str, Array],
        teacher: Mapping[str, Array],
        images: Array,
        noise: Array,
        drop_path: Array | None = None,
    ) -> tuple[ops.Floats, dict[str, ops.Floats]]:
        out, trace, scales = self._traced_forward(config, student, teacher, images, noise, drop_path)
        return out.loss, backward.student_backward(config, _all_floats(student), trace, out.target, scales)

    def gradient(self, function: Callable[[Array], Array], x: Array) -> ops.Floats:
        """By central differences, which are exact for a linear function: NumPy has no automatic differentiation."""
        step, x = 1e-3, _floats(x)
        slopes = np.empty(x.size)
        for i in range(x.size):
            shift = np.zeros(x.size)
            shift[i] = step
            shift = shift.reshape(x.shape)
            slopes[i] = (function(x + shift) - function(x - shift)) / (2.0 * step)
        return slopes.reshape(x.shape)

    def finetuning_loss_and_gradients(
        self,
        config: ModelConfig,
        parameters: Mapping[str, Array],
        images: Array,
        targets: Array,
        keep: float = 1.0,
        drop_path: Array | None = None,
    ) -> tuple[ops.Floats, dict[str, ops.Floats]]:
        p, pixels, wanted = _all_floats(parameters), _floats(images), _floats(targets)
        scales = _factors(config, len(images), drop_path)
        trace = model.encoder_trace(config, p, pixels, keep, scales)
        loss = ops.soft_cross_entropy(model.classify(config, p, trace.tokens), wanted)
        return loss, backward.classifier_backward(config, p, pixels, wanted, trace, scales)

    def create_finetuner(self, config: FinetuneConfig, state: TrainState | None = None) -> Finetuner:
        return NumpyFinetuner(config, state)

    def create_pretrainer(self, config: PretrainConfig, state: TrainState | None = None) -> Pretrainer:
        return NumpyPretrainer(config, state)

    def save_weights(self, path: Path, parameters: Mapping[str, NDArray[Any]]) -> None:
        arrays: dict[str, Any] = dict(parameters)  # Any: NumPy 2 also has a keyword that takes a bool
        np.savez(path, **arrays)

    def load_weights(self, path: Path) -> dict[str, NDArray[Any]]:
        try:
            arrays = {name: archives.read(path, name) for name in archives.members(path)}
        except ValueError as error:
            raise CheckpointError(f"{path} is not a NumPy file of plain arrays: {error}") from None
        half = np.dtype(np.float16)
        return {name: value.astype(np.float32) if value.dtype == half else value for name, value in arrays.items()}

    def _traced_forward(
        self,
        config: ModelConfig,
        student: Mapping[str, Array],
        teacher: Mapping[str, Array],
        images: Array,
        noise: Array,
        drop_path: Array | None,
    ) -> tuple[PretrainingOutput, model.StudentTrace, ops.Floats]:
        check_images(np.shape(images), config.in_chans, config.image_size)
        scales = _factors(config, len(images), drop_path)
        out, trace = model.traced_forward(
            config, _all_floats(student), _all_floats(teacher), _floats(images), _floats(noise), scales
        )
        return out, trace, scales
