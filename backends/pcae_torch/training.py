"""One training step: teacher, student, backward, AdamW, EMA."""

from __future__ import annotations

import contextlib

import numpy as np
import torch
from torch import Tensor, nn

from pcae_core.config import PretrainConfig
from pcae_core.parameters import initial_state, is_decayed, is_trainable
from pcae_core.protocol import ADAM_EPS, Array, Pretrainer, StepOutput, TrainState
from pcae_torch import model, ops
from pcae_torch.distributed import Group

LOSS_SCALE_INIT = 2.0**16


class TorchPretrainer(Pretrainer):
    """See `Pretrainer`."""

    def __init__(self, config: PretrainConfig, device: torch.device, state: TrainState | None = None) -> None:
        self._config, self._device = config, device
        self._dtype = torch.float64 if config.precision == "float64" else torch.float32
        self._group = Group(device)
        self.rank, self.world_size = self._group.rank, self._group.world_size
        state = state or initial_state(config.model, config.seed)
        self._student = self._module(model.Student, state.student)
        self._teacher = self._module(model.Teacher, state.teacher).requires_grad_(False)
        self._parameters = {
            name: self._student.get_parameter(own)
            for name, own in model.canonical_names(self._student).items()
            if is_trainable(name)
        }
        self._ema_pairs = self._pair_ema()
        self._optimizer = self._create_optimizer(state)
        self._scaler = self._create_scaler(state)
        if config.compile:
            self._student.compile()
            self._teacher.compile()
        self._parallel = self._group.wrap(self._student)
        mean, std = config.loader.normalization(config.model.in_chans)
        self._mean, self._std = (self._tensor(np.reshape(values, (-1, 1, 1))) for values in (mean, std))

    def step(
        self,
        images: Array,
        noise: Array,
        *,
        learning_rate: float,
        momentum: float,
        drop_path: Array | None = None,
    ) -> StepOutput:
        """See `Pretrainer.step`."""
        parts = self._config.accumulation
        patches = ops.patchify(self._normalize(images), self._config.model.patch_size)
        visible, masked = ops.split_by_noise(torch.as_tensor(noise).to(self._device), self._config.model.num_visible)
        scales = None if drop_path is None else self._tensor(drop_path)
        micro_batches = zip(
            patches.chunk(parts),
            visible.chunk(parts),
            masked.chunk(parts),
            [None] * parts if scales is None else scales.chunk(parts, dim=2),
            strict=True,
        )
        self._optimizer.zero_grad(set_to_none=True)
        outputs = [self._accumulate(*batch, last=i == parts - 1) for i, batch in enumerate(micro_batches)]
        grad_norm = self._update(learning_rate, momentum)
        losses, targets, features = zip(*outputs, strict=True)
        return StepOutput(torch.stack(losses).mean(), grad_norm, torch.cat(targets), torch.cat(features))

    def state(self) -> TrainState:
        """See `Pretrainer.state`."""
        moments = {name: self._optimizer.state[p] for name, p in self._parameters.items()}
        return TrainState(
            student=_arrays(self._student),
            teacher=_arrays(self._teacher),
            exp_avg={name: _array(value["exp_avg"]) for name, value in moments.items()},
            exp_avg_sq={name: _array(value["exp_avg_sq"]) for name, value in moments.items()},
            step=int(next(iter(moments.values()))["step"]),
            loss_scale=self._loss_scale(),
        )

    def any_rank(self, flag: bool) -> bool:
        """See `Pretrainer.any_rank`."""
        return self._group.any(flag)

    def mean_over_ranks(self, value: float) -> float:
        """See `Pretrainer.mean_over_ranks`."""
        return self._group.mean(value)

    def close(self) -> None:
        """See `Pretrainer.close`."""
        self._group.close()

    # One step

    def _normalize(self, images: Array) -> Tensor:
        pixels = torch.as_tensor(images).to(self._device, non_blocking=True)
        if pixels.dtype != torch.uint8:
            return pixels.to(self._dtype)
        return (pixels.to(self._dtype) / 255.0 - self._mean) / self._std

    def _accumulate(
        self, patches: Tensor, visible: Tensor, masked: Tensor, scales: Tensor | None, last: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Forward and backward pass of one micro-batch; gradients are exchanged after the last one."""
        with self._autocast():
            with torch.no_grad():
                target, target_ids = self._teacher(patches, masked)
            with contextlib.nullcontext() if last or self.world_size == 1 else self._parallel.no_sync():
                loss, _, features = self._parallel(patches, visible, target, target_ids, scales)
                self._scaler.scale(loss / self._config.accumulation).backward()
        return loss.detach(), target, features

    def _update(self, learning_rate: float, momentum: float) -> Tensor | None:
        """Clipping, AdamW and EMA; returns the gradient norm before clipping, when it is needed."""
        grad_norm = None
        if self._config.grad_clip is not None:
            self._scaler.unscale_(self._optimizer)
            gradients = [p.grad for p in self._parameters.values()]
            grad_norm = nn.utils.get_total_norm(gradients)
            torch._foreach_mul_(gradients, (self._config.grad_clip / grad_norm).clamp(max=1.0))
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._scaler.step(self._optimizer)
        self._scaler.update()
        ops.ema_update_(*self._ema_pairs, momentum)
        return grad_norm

    def _autocast(self) -> torch.autocast:
        half = self._config.precision in ("bfloat16", "float16")
        dtype = getattr(torch, self._config.precision) if half else torch.bfloat16
        return torch.autocast(self._device.type, dtype=dtype, enabled=half)

    # Set-up

    def _tensor(self, array: Array) -> Tensor:
        return torch.tensor(np.asarray(array), dtype=self._dtype, device=self._device)

    def _module(self, module_class: type, parameters: dict[str, np.ndarray]) -> nn.Module:
        module = model.build(module_class, self._config.model)
        model.load(module, {name: self._tensor(value) for name, value in parameters.items()})
        return module

    def _pair_ema(self) -> tuple[list[Tensor], list[Tensor]]:
        names = {name: own for name, own in model.canonical_names(self._teacher).items() if is_trainable(name)}
        teacher = [self._teacher.get_parameter(own).data for own in names.values()]
        return teacher, [self._parameters[name].data for name in names]

    def _create_optimizer(self, state: TrainState) -> torch.optim.AdamW:
        config = self._config
        decayed = [p for name, p in self._parameters.items() if is_decayed(name, tuple(p.shape))]
        others = [p for name, p in self._parameters.items() if not is_decayed(name, tuple(p.shape))]
        groups = [
            {"params": decayed, "weight_decay": config.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=0.0, betas=config.betas, eps=ADAM_EPS, fused=True)
        for name, parameter in self._parameters.items():
            optimizer.state[parameter] = {
                "step": torch.tensor(float(state.step), device=self._device),
                "exp_avg": self._tensor(state.exp_avg[name]),
                "exp_avg_sq": self._tensor(state.exp_avg_sq[name]),
            }
        return optimizer

    def _create_scaler(self, state: TrainState) -> torch.amp.GradScaler:
        scaler = torch.amp.GradScaler(self._device.type, LOSS_SCALE_INIT, enabled=self._config.precision == "float16")
        if scaler.is_enabled() and state.loss_scale is not None:
            scale, tracker = state.loss_scale
            scaler.load_state_dict(scaler.state_dict() | {"scale": scale, "_growth_tracker": tracker})
        return scaler

    def _loss_scale(self) -> tuple[float, int] | None:
        if not self._scaler.is_enabled():
            return None
        values = self._scaler.state_dict()
        return float(values["scale"]), int(values["_growth_tracker"])


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy().copy()


def _arrays(module: nn.Module) -> dict[str, np.ndarray]:
    return {name: _array(module.get_parameter(own)) for name, own in model.canonical_names(module).items()}
