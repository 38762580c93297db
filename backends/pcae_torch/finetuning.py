"""One fine-tuning step: the reduced encoder with its head, backward, AdamW with a rate for each layer, EMA."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor
from typing_extensions import override

from pcae_core.config.finetune import FinetuneConfig
from pcae_core.contract import Array, FinetuneOutput, Finetuner, TrainState
from pcae_core.parameters import finetuned_shapes, finetuning_state, layer_scale
from pcae_torch import model
from pcae_torch.trainer import TorchTrainer, one_line_when_full


class TorchFinetuner(TorchTrainer, Finetuner):
    """Fine-tuning with PyTorch."""

    def __init__(self, config: FinetuneConfig, device: torch.device, state: TrainState | None = None) -> None:
        ema = config.ema_momentum is not None
        state = state or finetuning_state(config.model, config.seed, None, ema)
        depth, decay = config.model.depth, config.layer_decay
        super().__init__(
            config,
            device,
            state,
            model.Classifier,
            model.Classifier if ema else None,
            finetuned_shapes(config.model),
            lambda name: layer_scale(name, depth, decay),
        )
        self._keep = config.keep

    @override
    @one_line_when_full
    def step(
        self,
        images: Array,
        targets: Array,
        *,
        learning_rate: float,
        momentum: float,
        drop_path: Array | None = None,
    ) -> FinetuneOutput:
        parts = self._config.accumulation
        scales = None if drop_path is None else self._tensor(drop_path)
        micro_batches = zip(
            self.normalize(images).unflatten(0, (parts, -1)),
            torch.as_tensor(targets).to(self._device, self._dtype).unflatten(0, (parts, -1)),
            [None] * parts if scales is None else scales.unflatten(2, (parts, -1)).unbind(2),
            strict=True,
        )
        self.optimizer.zero_grad(set_to_none=True)
        losses = [self._accumulate(*batch, last=i == parts - 1) for i, batch in enumerate(micro_batches)]
        loss = torch.stack(losses).mean()
        grad_norm, finite = self._update(loss, learning_rate, momentum)
        return FinetuneOutput(loss, grad_norm, finite)

    def _accumulate(self, images: Tensor, targets: Tensor, scales: Tensor | None, last: bool) -> Tensor:
        """Forward and backward pass of one micro-batch. The last one averages gradients over the processes."""
        with self._autocast(), contextlib.nullcontext() if last else self._group.no_sync(self._parallel):
            loss = self._parallel(images, targets, self._keep, scales)
            self._scaler.scale(loss / self._config.accumulation).backward()
        return loss.detach()
