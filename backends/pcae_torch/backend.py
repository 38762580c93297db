"""`TorchBackend`: the contract on PyTorch's tensors."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call

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
from pcae_core.errors import BackendError
from pcae_core.parameters import finetuned_shapes, is_trainable
from pcae_core.reduction import check_keep
from pcae_core.shapes import check_images
from pcae_torch import CAPABILITIES, model, ops, weights
from pcae_torch.distributed import local_device
from pcae_torch.finetuning import TorchFinetuner
from pcae_torch.pretraining import TorchPretrainer


def resolve_device(name: str) -> torch.device:
    """The device with this PyTorch name, or the best one for "auto". Raises BackendError when it is not available."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in CAPABILITIES.devices:
        raise BackendError(
            f"the torch backend runs on the devices {', '.join(CAPABILITIES.devices)}, not {name!r}; choose one with "
            "--device, or --device auto"
        )
    if device.type == "cuda" and not torch.cuda.is_available():
        raise BackendError("no CUDA device is available to PyTorch here; use device 'cpu', or install a CUDA build")
    device = local_device(device)
    if device.type == "cuda" and (count := torch.cuda.device_count()) <= (device.index or 0):
        raise BackendError(
            f"there is no GPU {device.index} here: PyTorch sees {count}, counted from 0; name another device, or start "
            "fewer processes"
        )
    return device


@functools.lru_cache(maxsize=16)
def _skeleton(module_class: type, config: ModelConfig, thread: int) -> tuple[torch.nn.Module, dict[str, str]]:
    """A module without storage. Each thread has its own, because a call puts parameters into it."""
    module = model.build(module_class, config)
    return module, model.canonical_names(module)


def _call(module_class: type, config: ModelConfig, parameters: Mapping[str, Tensor], *args: Any) -> Any:
    """The module's forward pass with parameters by canonical name. Surplus parameters are ignored."""
    module, names = _skeleton(module_class, config, threading.get_ident())
    own = {name: parameters[canonical] for canonical, name in names.items()}
    return functional_call(module, own, args, strict=True)


class TorchBackend(TrainingBackend):
    """Its methods are documented in `pcae_core.contract.TrainingBackend`."""

    name = "torch"
    capabilities = CAPABILITIES

    def __init__(self, device: str = "cpu") -> None:
        self.device = resolve_device(device)

    def asarray(self, x: Array, dtype: str | None = None) -> Tensor:
        tensor = self._tensor(x).clone()
        return tensor if dtype is None else tensor.to(getattr(torch, dtype))

    def to_numpy(self, x: Array) -> NDArray[Any]:
        tensor = self._tensor(x).detach().cpu()
        return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy().copy()

    def patchify(self, images: Array, patch_size: int) -> Tensor:
        return ops.patchify(self._tensor(images), patch_size).clone()

    def split_by_noise(self, noise: Array, num_visible: int) -> tuple[Tensor, Tensor]:
        return ops.split_by_noise(self._tensor(noise), num_visible)

    def similarity_scores(self, tokens: Array, center: Center = "unit") -> Tensor:
        return ops.similarity_scores(self._tensor(tokens), center)

    def select_tokens(self, scores: Array, k: int) -> Tensor:
        return ops.select_tokens(self._tensor(scores), k)

    def gather_tokens(self, tokens: Array, ids: Array) -> Tensor:
        return ops.gather_tokens(self._tensor(tokens), self._tensor(ids).long())

    def reduce_tokens(
        self, tokens: Array, k: int, num_prefix_tokens: int = 0, center: Center = "unit"
    ) -> tuple[Tensor, Tensor]:
        score = functools.partial(ops.similarity_scores, center=center)
        return ops.reduce_tokens(self._tensor(tokens), k, num_prefix_tokens, score)

    def restore_grid(self, tokens: Array, kept_ids: Array, num_patches: int, features: Array | None = None) -> Tensor:
        own = None if features is None else self._tensor(features)
        return ops.restore_grid(self._tensor(tokens), self._tensor(kept_ids).long(), num_patches, own)

    def standardize(self, latents: Array, eps: float = STANDARDIZE_EPS) -> Tensor:
        return ops.standardize(self._tensor(latents), eps)

    def cosine_loss(self, prediction: Array, target: Array) -> Tensor:
        return ops.cosine_loss(self._tensor(prediction), self._tensor(target))

    def ema_update(
        self, teacher: Mapping[str, Array], student: Mapping[str, Array], momentum: float
    ) -> dict[str, Tensor]:
        updated = [self.asarray(value) for value in teacher.values()]
        targets = [self._tensor(student[name]).to(u.dtype) for name, u in zip(teacher, updated, strict=True)]
        if updated:
            ops.ema_update_(updated, targets, momentum)
        return dict(zip(teacher, updated, strict=True))

    @torch.no_grad()
    def pretraining_forward(
        self,
        config: ModelConfig,
        student: Mapping[str, Array],
        teacher: Mapping[str, Array],
        images: Array,
        noise: Array,
    ) -> PretrainingOutput:
        return self._forward(config, self._tensors(student), teacher, images, noise, None)

    @torch.no_grad()
    def encode(
        self, config: ModelConfig, parameters: Mapping[str, Array], images: Array, keep: float = 1.0
    ) -> EncoderOutput:
        return self._encode(config, parameters, images, keep, None)

    @torch.no_grad()
    def encode_stages(
        self, config: ModelConfig, parameters: Mapping[str, Array], images: Array, keep: float = 1.0
    ) -> EncoderTrace:
        stages: list[StageOutput] = []
        output = self._encode(config, parameters, images, keep, stages)
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
        own = {name: self.asarray(value).requires_grad_(is_trainable(name)) for name, value in student.items()}
        loss = self._forward(config, own, teacher, images, noise, drop_path).loss
        names = [name for name in own if is_trainable(name)]
        gradients = torch.autograd.grad(loss, [own[name] for name in names], materialize_grads=True)
        return loss.detach(), dict(zip(names, gradients, strict=True))

    def gradient(self, function: Callable[[Array], Array], x: Array) -> Tensor:
        own = self.asarray(x).requires_grad_()
        return torch.autograd.grad(function(own), own)[0]

    def finetuning_loss_and_gradients(
        self,
        config: ModelConfig,
        parameters: Mapping[str, Array],
        images: Array,
        targets: Array,
        keep: float = 1.0,
        drop_path: Array | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        names = list(finetuned_shapes(config))
        own = {name: self.asarray(value).requires_grad_(name in names) for name, value in parameters.items()}
        dtype = own["cls_token"].dtype
        scales = None if drop_path is None else self._tensor(drop_path).to(dtype)
        pixels, wanted = self._tensor(images).to(dtype), self._tensor(targets)
        loss = _call(model.Classifier, config, own, pixels, wanted, keep, scales)
        gradients = torch.autograd.grad(loss, [own[name] for name in names])
        return loss.detach(), dict(zip(names, gradients, strict=True))

    def create_finetuner(self, config: FinetuneConfig, state: TrainState | None = None) -> Finetuner:
        return TorchFinetuner(config, self.device, state)

    def create_pretrainer(self, config: PretrainConfig, state: TrainState | None = None) -> Pretrainer:
        return TorchPretrainer(config, self.device, state)

    def save_weights(self, path: Path, parameters: Mapping[str, NDArray[Any]]) -> None:
        torch.save({name: torch.from_numpy(value) for name, value in parameters.items()}, path)

    def load_weights(self, path: Path) -> dict[str, NDArray[Any]]:
        halves = (torch.float16, torch.bfloat16)
        found = weights.load(path)
        return {name: self.to_numpy(v.float() if v.dtype in halves else v) for name, v in found.items()}

    def _encode(
        self,
        config: ModelConfig,
        parameters: Mapping[str, Array],
        images: Array,
        keep: float,
        stages: list[StageOutput] | None,
    ) -> EncoderOutput:
        check_keep(keep)
        check_images(np.shape(images), config.in_chans, config.image_size)
        own = self._tensors(parameters)
        return _call(model.Encoder, config, own, self._tensor(images).to(own["cls_token"].dtype), keep, stages)

    def _forward(
        self,
        config: ModelConfig,
        student: dict[str, Tensor],
        teacher: Mapping[str, Array],
        images: Array,
        noise: Array,
        drop_path: Array | None,
    ) -> PretrainingOutput:
        check_images(np.shape(images), config.in_chans, config.image_size)
        dtype = student["cls_token"].dtype
        patches = ops.patchify(self._tensor(images).to(dtype), config.patch_size)
        visible, masked = ops.split_by_noise(self._tensor(noise), config.num_visible)
        with torch.no_grad():
            target, target_ids = _call(model.Teacher, config, self._tensors(teacher), patches, masked)
        scales = None if drop_path is None else self._tensor(drop_path).to(dtype)
        loss, prediction, _ = _call(model.Student, config, student, patches, visible, target, target_ids, scales)
        return PretrainingOutput(loss, prediction, target, visible, target_ids)

    def _tensor(self, x: Array) -> Tensor:
        """A tensor on the device, which shares memory with `x` if possible."""
        if isinstance(x, Tensor):
            return x.to(self.device)
        array = np.asarray(x)
        if not (array.flags.writeable and array.flags.c_contiguous):
            array = array.copy()
        return torch.from_numpy(array).to(self.device)

    def _tensors(self, arrays: Mapping[str, Any]) -> dict[str, Tensor]:
        return {name: self._tensor(value) for name, value in arrays.items()}
