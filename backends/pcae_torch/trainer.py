"""Base of pre-training and fine-tuning: parameters, AdamW, loss scaling, EMA, state."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from typing_extensions import override

from pcae_core.config import ModelConfig, RunConfig
from pcae_core.contract import ADAM_EPS, Array, Trainer, TrainState
from pcae_core.errors import TrainingError
from pcae_core.parameters import is_decayed
from pcae_core.shapes import check_images
from pcae_torch import compiler, model, ops
from pcae_torch.distributed import Group

LOSS_SCALE_INIT = 2.0**16

P = ParamSpec("P")
R = TypeVar("R")


def one_line_when_full(step: Callable[P, R]) -> Callable[P, R]:
    """Decorate a step, so that it raises TrainingError when the GPU's memory is full."""

    @functools.wraps(step)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return step(*args, **kwargs)
        except torch.OutOfMemoryError as error:
            raise TrainingError(
                "the GPU's memory is full: raise --accumulation (the same run in smaller parts), or set a smaller "
                f"batch_size or model in a new run ({str(error).splitlines()[0]})"
            ) from None

    return wrapped


class TorchTrainer(Trainer):
    """A model, its moving average and its optimizer.

    Args of the constructor:
        student: function that makes the model.
        trained: names of the trained parameters; the others are fixed.
        teacher: function that makes the moving average, which follows the student's parameters of the same names; None
            for no average.
        scale: function from a parameter's name to a factor on its learning rate.

    Attributes:
        student, teacher: modules; `teacher` is None without a moving average.
        optimizer: AdamW over the trained parameters.
        ema_pairs: parameters of the teacher, and those of the student that they follow.
    """

    def __init__(
        self,
        config: RunConfig,
        device: torch.device,
        state: TrainState,
        student: Callable[[ModelConfig], nn.Module],
        teacher: Callable[[ModelConfig], nn.Module] | None,
        trained: Iterable[str],
        scale: Callable[[str], float] = lambda name: 1.0,
    ) -> None:
        self._config, self._device = config, device
        self._dtype = torch.float64 if config.precision == "float64" else torch.float32
        self._group = Group(device)
        self.rank, self.world_size = self._group.rank, self._group.world_size
        self.compiles = config.compile
        if self.compiles:
            compiler.require(device)
        self.student = self._module(student, state.student).requires_grad_(False)
        self.teacher = self._module(teacher, state.teacher).requires_grad_(False) if teacher else None
        own = model.canonical_names(self.student)
        self._parameters = {name: self.student.get_parameter(own[name]).requires_grad_() for name in trained}
        self.ema_pairs = self._pair_ema()
        self.optimizer = self._create_optimizer(state, scale)
        self._steps = [value["step"] for value in self.optimizer.state.values()]
        self._scaler = self._create_scaler(state)
        if config.compile:
            self.student.compile()
            if self.teacher is not None:
                self.teacher.compile()
        self._parallel = self._group.wrap(self.student)
        mean, std = config.loader.normalization(config.model.in_chans)
        self._mean, self._std = (self._tensor(np.reshape(values, (-1, 1, 1))) for values in (mean, std))

    @override
    def state(self) -> TrainState:
        moments = {name: self.optimizer.state[p] for name, p in self._parameters.items()}
        return TrainState(
            student=_arrays(self.student),
            teacher=_arrays(self.teacher) if self.teacher else {},
            exp_avg={name: _array(value["exp_avg"]) for name, value in moments.items()},
            exp_avg_sq={name: _array(value["exp_avg_sq"]) for name, value in moments.items()},
            step=int(next(iter(moments.values()))["step"]),
            loss_scale=self._loss_scale(),
        )

    @override
    def any_rank(self, flag: bool) -> bool:
        return self._group.any(flag)

    @override
    def mean_over_ranks(self, value: float) -> float:
        return self._group.mean(value)

    @override
    def close(self) -> None:
        self._parallel = self.student  # the wrapper that averages gradients holds a reference to the group
        self._group.close()

    # One step

    def normalize(self, images: Array) -> Tensor:
        """Normalise the images of a step (B, C, H, W). Raises ShapeError."""
        check_images(np.shape(images), self._config.model.in_chans, self._config.model.image_size)
        pixels = torch.as_tensor(images).to(self._device, non_blocking=True)
        if pixels.dtype != torch.uint8:
            return pixels.to(self._dtype)
        return pixels.to(self._dtype).div_(255.0).sub_(self._mean).div_(self._std)  # in place: takes 0.6 of the time

    def _update(self, loss: Tensor, learning_rate: float, momentum: float) -> tuple[Tensor, Tensor]:
        """Clip, apply AdamW and EMA. Returns the gradient norm before clipping, and whether it and `loss` are finite.

        If they are not finite, the fused AdamW changes nothing. It checks this on the device, so nothing waits.
        """
        self._scaler.unscale_(self.optimizer)
        gradients = cast("list[Tensor]", [p.grad for p in self._parameters.values()])  # the loss depends on each
        grad_norm = ops.total_norm(gradients)
        finite = self._group.all_finite(loss + grad_norm)
        if self._config.grad_clip is not None:
            torch._foreach_mul_(gradients, (self._config.grad_clip / grad_norm).clamp(max=1.0))
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate * group["scale"]
        skipped = (~finite).float()
        self.optimizer.found_inf = skipped  # type: ignore[attr-defined]  # not declared; GradScaler sets it likewise
        self.optimizer.step()
        torch._foreach_add_(self._steps, skipped)  # it takes them off the number of steps
        self._scaler.update()
        averages, followed = self.ema_pairs
        if averages:
            ops.ema_update_(averages, followed, momentum)
        return grad_norm, finite

    def _autocast(self) -> torch.autocast:
        half = self._config.precision in ("bfloat16", "float16")
        dtype = getattr(torch, self._config.precision) if half else torch.bfloat16
        return torch.autocast(self._device.type, dtype=dtype, enabled=half)

    # Set-up

    def _tensor(self, array: Array) -> Tensor:
        return torch.asarray(array, dtype=self._dtype, device=self._device, copy=True, requires_grad=False)

    def _module(
        self, module_class: Callable[[ModelConfig], nn.Module], parameters: dict[str, NDArray[Any]]
    ) -> nn.Module:
        module = model.build(module_class, self._config.model)
        model.load(module, {name: self._tensor(value) for name, value in parameters.items()})
        return module

    def _pair_ema(self) -> tuple[list[Tensor], list[Tensor]]:
        """Parameters of the teacher that the moving average updates, and those of the student, in the same order."""
        if self.teacher is None:
            return [], []
        names = {n: own for n, own in model.canonical_names(self.teacher).items() if n in self._parameters}
        teacher = [self.teacher.get_parameter(own).data for own in names.values()]
        return teacher, [self._parameters[name].data for name in names]

    def _create_optimizer(self, state: TrainState, scale: Callable[[str], float]) -> torch.optim.AdamW:
        groups: dict[tuple[bool, float], list[Tensor]] = {}
        for name, parameter in self._parameters.items():
            decayed = is_decayed(name, tuple(parameter.shape))
            groups.setdefault((decayed, scale(name)), []).append(parameter)
        optimizer = torch.optim.AdamW(
            [
                {"params": members, "weight_decay": self._config.weight_decay if decayed else 0.0, "scale": factor}
                for (decayed, factor), members in groups.items()
            ],
            lr=0.0,
            betas=self._config.betas,
            eps=ADAM_EPS,
            fused=True,
        )
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


def _array(tensor: Tensor) -> NDArray[Any]:
    return tensor.detach().cpu().numpy().copy()


def _arrays(module: nn.Module) -> dict[str, NDArray[Any]]:
    return {name: _array(module.get_parameter(own)) for name, own in model.canonical_names(module).items()}
