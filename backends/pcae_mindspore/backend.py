"""`MindSporeBackend`: the contract on MindSpore's tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor
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
    StageOutput,
    TrainingBackend,
    TrainState,
)
from pcae_core.parameters import finetuned_shapes, is_trainable
from pcae_core.reduction import check_keep
from pcae_core.shapes import check_images
from pcae_mindspore import CAPABILITIES, _compat, model, ops, weights
from pcae_mindspore.finetuning import MindSporeFinetuner
from pcae_mindspore.pretraining import MindSporePretrainer


class MindSporeBackend(TrainingBackend):
    """Its methods are documented in `pcae_core.contract.TrainingBackend`."""

    name = "mindspore"
    capabilities = CAPABILITIES

    def __init__(self, device: str = "cpu") -> None:
        self.device = _compat.choose_device(device)

    def asarray(self, x: Array, dtype: str | None = None) -> Tensor:
        tensor = x.copy() if isinstance(x, Tensor) else _tensor(x)
        return tensor if dtype is None else tensor.astype(getattr(ms, dtype))

    def to_numpy(self, x: Array) -> NDArray[Any]:
        tensor = _tensor(x)
        return (tensor.float() if tensor.dtype == ms.bfloat16 else tensor).asnumpy().copy()

    def patchify(self, images: Array, patch_size: int) -> Tensor:
        return ops.patchify(_tensor(images), patch_size).copy()

    def split_by_noise(self, noise: Array, num_visible: int) -> tuple[Tensor, Tensor]:
        return ops.split_by_noise(_tensor(noise), num_visible)

    def similarity_scores(self, tokens: Array, center: Center = "unit") -> Tensor:
        return ops.similarity_scores(_tensor(tokens), center)

    def select_tokens(self, scores: Array, k: int) -> Tensor:
        return ops.select_tokens(_tensor(scores), k)

    def gather_tokens(self, tokens: Array, ids: Array) -> Tensor:
        return ops.gather_tokens(_tensor(tokens), _tensor(ids))

    def reduce_tokens(
        self, tokens: Array, k: int, num_prefix_tokens: int = 0, center: Center = "unit"
    ) -> tuple[Tensor, Tensor]:
        return ops.reduce_tokens(_tensor(tokens), k, num_prefix_tokens, center)

    def restore_grid(self, tokens: Array, kept_ids: Array, num_patches: int, features: Array | None = None) -> Tensor:
        own = None if features is None else _tensor(features)
        return ops.restore_grid(_tensor(tokens), _tensor(kept_ids), num_patches, own)

    def standardize(self, latents: Array, eps: float = STANDARDIZE_EPS) -> Tensor:
        return ops.standardize(_tensor(latents), eps)

    def cosine_loss(self, prediction: Array, target: Array) -> Tensor:
        return ops.cosine_loss(_tensor(prediction), _tensor(target))

    def ema_update(
        self, teacher: Mapping[str, Array], student: Mapping[str, Array], momentum: float
    ) -> dict[str, Tensor]:
        return {name: _ema(_tensor(value), _tensor(student[name]), momentum) for name, value in teacher.items()}

    def pretraining_forward(
        self,
        config: ModelConfig,
        student: Mapping[str, Array],
        teacher: Mapping[str, Array],
        images: Array,
        noise: Array,
    ) -> PretrainingOutput:
        own = _tensors(student)
        patches, visible, target, target_ids = _targets(config, own, teacher, images, noise)
        cell = _cell(model.Student, config, own)
        loss, prediction, _ = cell(patches, visible, target, target_ids, None)
        return PretrainingOutput(loss, prediction, target, visible, target_ids)

    def encode(
        self, config: ModelConfig, parameters: Mapping[str, Array], images: Array, keep: float = 1.0
    ) -> EncoderOutput:
        return _encode(config, parameters, images, keep, None)

    def encode_stages(
        self, config: ModelConfig, parameters: Mapping[str, Array], images: Array, keep: float = 1.0
    ) -> EncoderTrace:
        stages: list[StageOutput] = []
        output = _encode(config, parameters, images, keep, stages)
        return EncoderTrace(output, tuple(stages))

    def pretraining_loss_and_gradients(
        self,
        config: ModelConfig,
        student: Mapping[str, Array],
        teacher: Mapping[str, Array],
        images: Array,
        noise: Array,
        drop_path: Array | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        own = _tensors(student)
        patches, visible, target, target_ids = _targets(config, own, teacher, images, noise)
        cell = _cell(model.Student, config, own)
        scales = None if drop_path is None else _tensor(drop_path).astype(patches.dtype)[..., None, None]
        trained = {name: p for name, p in model.canonical_names(cell).items() if is_trainable(name)}

        def loss_of(patches: Tensor) -> Tensor:
            return cell(patches, visible, target, target_ids, scales)[0]

        loss, gradients = ms.value_and_grad(loss_of, None, ms.ParameterTuple(trained.values()))(patches)
        return loss, dict(zip(trained, gradients, strict=True))

    def gradient(self, function: Callable[[Array], Array], x: Array) -> Tensor:
        return ms.grad(function)(_tensor(x))

    def finetuning_loss_and_gradients(
        self,
        config: ModelConfig,
        parameters: Mapping[str, Array],
        images: Array,
        targets: Array,
        keep: float = 1.0,
        drop_path: Array | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        own = _tensors(parameters)
        dtype = own["cls_token"].dtype
        cell = model.Classifier(config, dtype, keep=keep)
        model.load(cell, own)
        scales = None if drop_path is None else _tensor(drop_path).astype(dtype)[..., None, None]
        wanted = _tensor(targets).astype(ops.at_least_float32(own["cls_token"]).dtype)
        named = model.canonical_names(cell)
        trained = {name: named[name] for name in finetuned_shapes(config)}

        def loss_of(pixels: Tensor) -> Tensor:
            return cell(pixels, wanted, scales)

        pixels = _tensor(images).astype(dtype)
        loss, gradients = ms.value_and_grad(loss_of, None, ms.ParameterTuple(trained.values()))(pixels)
        return loss, dict(zip(trained, gradients, strict=True))

    def create_finetuner(self, config: FinetuneConfig, state: TrainState | None = None) -> Finetuner:
        return MindSporeFinetuner(config, self.device, state)

    def create_pretrainer(self, config: PretrainConfig, state: TrainState | None = None) -> Pretrainer:
        return MindSporePretrainer(config, self.device, state)

    def save_weights(self, path: Path, parameters: Mapping[str, NDArray[Any]]) -> None:
        ms.save_checkpoint([{"name": name, "data": Tensor(value)} for name, value in parameters.items()], str(path))

    def load_weights(self, path: Path) -> dict[str, NDArray[Any]]:
        return weights.load(path)


def _tensor(x: Array) -> Tensor:
    """A tensor unchanged; anything else as a new tensor."""
    return x if isinstance(x, Tensor) else Tensor(np.ascontiguousarray(x) if np.ndim(x) else np.asarray(x))


def _tensors(arrays: Mapping[str, Array]) -> dict[str, Tensor]:
    return {name: _tensor(value) for name, value in arrays.items()}


def _cell(cell_class: type, config: ModelConfig, parameters: dict[str, Tensor]) -> ms.nn.Cell:
    """A new cell in the parameters' dtype, with copies of the parameters."""
    cell = cell_class(config, parameters["cls_token"].dtype)
    model.load(cell, parameters)
    return cell


def _encode(
    config: ModelConfig,
    parameters: Mapping[str, Array],
    images: Array,
    keep: float,
    stages: list[StageOutput] | None,
) -> EncoderOutput:
    check_keep(keep)
    check_images(np.shape(images), config.in_chans, config.image_size)
    own = _tensors(parameters)
    pixels = _tensor(images).astype(own["cls_token"].dtype)
    return EncoderOutput(*_cell(model.Encoder, config, own)(pixels, keep, stages))


def _targets(
    config: ModelConfig, student: dict[str, Tensor], teacher: Mapping[str, Array], images: Array, noise: Array
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Patches (B, N, C*p*p) of the student's dtype, visible ids (B, V), targets (B, K, D) and their ids (B, K)."""
    check_images(np.shape(images), config.in_chans, config.image_size)
    patches = ops.patchify(_tensor(images).astype(student["cls_token"].dtype), config.patch_size)
    visible, masked = ops.split_by_noise(_tensor(noise), config.num_visible)
    return patches, visible, *_cell(model.Teacher, config, _tensors(teacher))(patches, masked)


def _ema(teacher: Tensor, student: Tensor, momentum: float) -> Tensor:
    if teacher.size == 0:
        return teacher.copy()
    wide = ops.at_least_float32(teacher)
    return ops.ema(wide, student.astype(wide.dtype), Tensor(momentum, wide.dtype)).astype(teacher.dtype)
