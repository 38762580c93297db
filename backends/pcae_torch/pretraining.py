"""One pre-training step: teacher, student, backward, AdamW, EMA."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import torch
from torch import Tensor, nn
from typing_extensions import override

from pcae_core.config import ModelConfig, PretrainConfig
from pcae_core.contract import Array, Pretrainer, PretrainOutput, TrainState
from pcae_core.parameters import is_trainable, pretraining_state
from pcae_torch import model, ops
from pcae_torch.trainer import TorchTrainer, one_line_when_full


class TorchPretrainer(TorchTrainer, Pretrainer):
    """Pre-training with PyTorch, of PCAE or of another method with a student and a teacher.

    Args of the constructor:
        state: state with the parameters of student and teacher by name; None for PCAE's initial state.
        student: function that makes the trained module. The module takes patches (B, N, C*p*p), visible ids (B, V), the
            outputs of the teacher, and drop path (L, 2, B) or None. It returns a loss, a prediction, and the mean
            visible token (B, D) without gradient.
        teacher: function that makes the module of the targets, without gradient. The module takes patches and masked
            ids (B, M), and returns targets (B, K, ...) and their ids (B, K). Its parameters are the moving average of
            the student's parameters of the same names; it may have none.
    """

    def __init__(
        self,
        config: PretrainConfig,
        device: torch.device,
        state: TrainState | None = None,
        *,
        student: Callable[[ModelConfig], nn.Module] = model.Student,
        teacher: Callable[[ModelConfig], nn.Module] = model.Teacher,
    ) -> None:
        state = state or pretraining_state(config.model, config.seed)
        trained = [name for name in state.student if is_trainable(name)]
        super().__init__(config, device, state, student, teacher, trained)

    @override
    @one_line_when_full
    def step(
        self,
        images: Array,
        noise: Array,
        *,
        learning_rate: float,
        momentum: float,
        drop_path: Array | None = None,
    ) -> PretrainOutput:
        parts = self._config.accumulation
        patches = ops.patchify(self.normalize(images), self._config.model.patch_size)
        visible, masked = ops.split_by_noise(torch.as_tensor(noise).to(self._device), self._config.model.num_visible)
        scales = None if drop_path is None else self._tensor(drop_path)
        micro_batches = zip(
            patches.unflatten(0, (parts, -1)),
            visible.unflatten(0, (parts, -1)),
            masked.unflatten(0, (parts, -1)),
            [None] * parts if scales is None else scales.unflatten(2, (parts, -1)).unbind(2),
            strict=True,
        )
        self.optimizer.zero_grad(set_to_none=True)
        outputs = [self._accumulate(*batch, last=i == parts - 1) for i, batch in enumerate(micro_batches)]
        losses, targets, features = zip(*outputs, strict=True)
        loss = torch.stack(losses).mean()
        grad_norm, finite = self._update(loss, learning_rate, momentum)
        return PretrainOutput(loss, grad_norm, finite, target=torch.cat(targets), features=torch.cat(features))

    def _accumulate(
        self, patches: Tensor, visible: Tensor, masked: Tensor, scales: Tensor | None, last: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Forward and backward pass of one micro-batch. The last one averages gradients over the processes."""
        assert self.teacher is not None  # nosec B101 # pre-training has one; tells mypy
        with self._autocast():
            with torch.no_grad():
                target, target_ids = self.teacher(patches, masked)
            with contextlib.nullcontext() if last else self._group.no_sync(self._parallel):
                loss, _, features = self._parallel(patches, visible, target, target_ids, scales)
                self._scaler.scale(loss / self._config.accumulation).backward()
        return loss.detach(), target, features
