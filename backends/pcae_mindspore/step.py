"""A training step as compiled graphs: `accumulate`, `finish` and `update_teacher_and_scale`.

Everything that changes from step to step is passed as a tensor, so that nothing is compiled twice. A tuple of tensors
would count as a constant. Letters: B images, N patches, V visible, M masked, K targets, D width, L blocks.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import mindspore as ms
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops
from numpy.typing import NDArray

from pcae_core.config import PretrainConfig, RunConfig
from pcae_core.config.finetune import FinetuneConfig
from pcae_core.contract import TrainState
from pcae_core.parameters import is_decayed
from pcae_mindspore import model, updates
from pcae_mindspore.distributed import Group
from pcae_mindspore.ops import patchify

LOSS_SCALE = (2.0**16, 0)
"""Initial loss scale of float16, and steps since its last change. Both follow PyTorch's rule."""
GROWTH_INTERVAL = 2000


class LossCell(nn.Cell):
    """Base of the differentiated cells. It normalises images. Subclasses have the cells `student` and `teacher`."""

    def __init__(self, config: RunConfig, dtype: ms.Type) -> None:
        super().__init__()
        self.dtype, self.patch_size = dtype, config.model.patch_size
        mean, std = config.loader.normalization(config.model.in_chans)
        self.mean, self.std = Tensor(mean, dtype).reshape(-1, 1, 1), Tensor(std, dtype).reshape(-1, 1, 1)

    def normalize(self, images: Tensor) -> Tensor:
        """Normalise uint8 images (B, C, H, W). Images in the parameters' dtype are normalised already."""
        if images.dtype == ms.uint8:
            return (images.astype(self.dtype) / 255 - self.mean) / self.std
        return images


class PretrainLoss(LossCell):
    """Loss of pre-training: normalisation, teacher, student."""

    def __init__(self, config: PretrainConfig, dtype: ms.Type) -> None:
        super().__init__(config, dtype)
        compute = getattr(ms, config.precision)
        self.num_visible = config.model.num_visible
        self.student = model.Student(config.model, dtype, compute)
        self.teacher = model.Teacher(config.model, dtype, compute)

    def construct(
        self, images: Tensor, order: Tensor, drop_path: Tensor | None, scale: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """One micro-batch: scaled loss, loss, targets (B, K, D), features (B, D).

        Args:
            images: as in `normalize`.
            order: patch ids (B, N), the visible ones before the masked ones.
            drop_path: factors (L, 2, B, 1, 1), or None.
            scale: factor on the loss that is differentiated.
        """
        visible, masked = order[:, : self.num_visible], order[:, self.num_visible :]
        patches = patchify(self.normalize(images), self.patch_size)
        target, target_ids = self.teacher(patches, masked)
        loss, _, features = self.student(patches, visible, target, target_ids, drop_path)
        return loss * scale, loss, target, features


class ClassifyLoss(LossCell):
    """Loss of fine-tuning: normalisation and classifier."""

    def __init__(self, config: FinetuneConfig, dtype: ms.Type) -> None:
        super().__init__(config, dtype)
        compute = getattr(ms, config.precision)
        self.student = model.Classifier(config.model, dtype, compute, config.keep)
        average = config.ema_momentum is not None
        self.teacher = model.Classifier(config.model, dtype, compute) if average else None

    def construct(
        self, images: Tensor, targets: Tensor, drop_path: Tensor | None, scale: Tensor
    ) -> tuple[Tensor, Tensor]:
        """One micro-batch: scaled loss, loss. `targets` are (B, classes); other arguments as in `PretrainLoss`."""
        loss = self.student(self.normalize(images), targets, drop_path)
        return loss * scale, loss


class TrainingCell(nn.Cell):
    """Parameters, moments, and the graphs that change them. Single numbers are scalars in the parameters' dtype.

    Each graph changes parameters last, so that it never reads a value that it has written.
    """

    def __init__(
        self, config: RunConfig, loss: LossCell, group: Group, trained: Iterable[str], rate: Callable[[str], float]
    ) -> None:
        """Args: trained: names of what is trained; rate: factor on a parameter's learning rate."""
        super().__init__()
        self.loss, dtype = loss, loss.dtype
        student = model.canonical_names(loss.student)
        teacher = {} if loss.teacher is None else model.canonical_names(loss.teacher)
        # In this order, parameters of the same rate and decay are a slice of the gradients.
        kinds = {name: (not is_decayed(name, student[name].shape), rate(name)) for name in trained}
        self.names = sorted(kinds, key=lambda name: kinds[name])
        groups = [list(names) for _, names in itertools.groupby(self.names, key=lambda name: kinds[name])]
        ends = [0, *itertools.accumulate(map(len, groups))]
        self.slices = tuple(itertools.pairwise(ends))
        self.rates = tuple(Tensor(kinds[names[0]][1], dtype) for names in groups)
        self.decays = tuple(not kinds[names[0]][0] for names in groups)
        self.trained = ParameterTuple(student[name] for name in self.names)
        self.exp_avg, self.exp_avg_sq = self._zeros("exp_avg"), self._zeros("exp_avg_sq")
        self.sums = self._zeros("sum") if config.accumulation > 1 else None
        shared = [name for name in self.names if name in teacher]
        self.has_teacher = bool(shared)
        self.teacher_parameters = ParameterTuple(teacher[name] for name in shared)
        self.student_parameters = ParameterTuple(student[name] for name in shared)
        self.beta1, self.beta2 = Tensor(config.betas[0], dtype), Tensor(config.betas[1], dtype)
        self.adamw = updates.adamw_float32 if dtype == ms.float32 else updates.adamw
        self.parts, self.mean_gradients = config.accumulation, group.mean_gradients
        self.limit = None if config.grad_clip is None else Tensor(config.grad_clip, dtype)
        self.scaled = config.precision == "float16"
        self.scale = Parameter(Tensor(LOSS_SCALE[0] if self.scaled else 1.0, dtype), name="scale", requires_grad=False)
        self.good_steps = Parameter(Tensor(LOSS_SCALE[1], dtype), name="good_steps", requires_grad=False)
        self.differentiate = ms.value_and_grad(self.loss, None, self.trained, has_aux=True)
        self.map = ops.HyperMap()

    def _zeros(self, prefix: str) -> ParameterTuple:
        """A zero parameter for each trained one, with the prefix in its name."""
        named = zip(self.names, self.trained, strict=True)
        return ParameterTuple(
            Parameter(ops.zeros_like(p), name=f"{prefix}.{name}", requires_grad=False) for name, p in named
        )

    @ms.jit
    def accumulate(
        self, images: Tensor, given: Tensor, drop_path: Tensor | None, is_first: Tensor
    ) -> tuple[Tensor, ...]:
        """Add the gradients of a micro-batch to the sums. The first micro-batch starts the sums.

        Args:
            images, given, drop_path: arguments of `loss`.

        Returns:
            The outputs of `loss`, without the scaled loss.
        """
        outputs, gradients = self.differentiate(images, given, drop_path, self.scale)
        self.map(ops.partial(updates.add_to_sum, is_first), self.sums, gradients)
        return outputs[1:]

    @ms.jit
    def finish(
        self,
        images: Tensor,
        given: Tensor,
        drop_path: Tensor | None,
        loss_before: Tensor,
        rate: Tensor,
        eps: Tensor,
        decay: Tensor,
    ) -> tuple[Tensor, ...]:
        """The last micro-batch, then clipping and AdamW.

        Args:
            images, given, drop_path: arguments of `loss`.
            loss_before: sum of the losses of the earlier micro-batches.
            rate, eps, decay: results of `updates.adamw_rates`.

        Returns:
            As `accumulate`; then the gradient norm, and whether it and all losses are finite in every process.
        """
        outputs, gradients = self.differentiate(images, given, drop_path, self.scale)
        if self.sums is not None:
            gradients = self.map(ops.partial(updates.mean_with_sum, self.parts), self.sums, gradients)
        means = self.mean_gradients((*gradients, loss_before + outputs[1]))
        gradients, norm, finite = self.clip(means[:-1], means[-1])
        zero, one = ops.zeros_like(rate), ops.ones_like(rate)
        # Unless all is finite, these do not change parameters and moments.
        rate, beta1, beta2 = (
            ops.where(finite, rate, zero),
            ops.where(finite, self.beta1, one),
            ops.where(finite, self.beta2, one),
        )
        for i, (a, b) in enumerate(self.slices):
            own = decay if self.decays[i] else zero
            step = ops.partial(self.adamw, rate * self.rates[i], beta1, beta2, eps, own)
            self.map(step, self.trained[a:b], self.exp_avg[a:b], self.exp_avg_sq[a:b], gradients[a:b])
        return (*outputs[1:], norm, finite)

    def clip(self, gradients: tuple[Tensor, ...], loss: Tensor) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
        """Unscale and clip gradients. Returns them, or zeros; the norm before clipping; and whether all is finite."""
        factor = 1 / self.scale
        norm = ops.sqrt(ops.addn(self.map(updates.sum_of_squares, gradients))) * factor
        total = norm + loss
        finite = total - total == 0
        if self.limit is not None:
            factor = factor * ops.minimum(self.limit / norm, ops.ones_like(norm))
        return self.map(ops.partial(updates.multiply_finite, factor, finite), gradients), norm, finite

    @ms.jit
    def update_teacher_and_scale(self, momentum: Tensor, finite: Tensor) -> Tensor:
        """EMA of the teacher. The loss scale of float16 halves after an overflow, and doubles after many good steps."""
        scale, good_steps = self.scale, self.good_steps
        if self.scaled:
            good_steps = ops.where(finite, good_steps + 1, ops.zeros_like(good_steps))
            scale = ops.where(finite, scale, scale / 2)
            grown = good_steps == GROWTH_INTERVAL
            scale = ops.where(grown, scale * 2, scale)
            good_steps = ops.where(grown, ops.zeros_like(good_steps), good_steps)
            ops.assign(self.scale, scale)
            ops.assign(self.good_steps, good_steps)
        if self.has_teacher:
            self.map(ops.partial(updates.ema_update, momentum), self.teacher_parameters, self.student_parameters)
        return momentum

    def load(self, state: TrainState) -> None:
        """Load a copy of a state."""
        model.load(self.loss.student, _tensors(state.student, self.loss.dtype))
        if self.loss.teacher is not None:
            model.load(self.loss.teacher, _tensors(state.teacher, self.loss.dtype))
        for group, values in ((self.exp_avg, state.exp_avg), (self.exp_avg_sq, state.exp_avg_sq)):
            for name, parameter in zip(self.names, group, strict=True):
                ops.assign(parameter, Tensor(values[name], self.loss.dtype))
        if self.scaled and state.loss_scale is not None:
            ops.assign(self.scale, Tensor(state.loss_scale[0], self.loss.dtype))
            ops.assign(self.good_steps, Tensor(state.loss_scale[1], self.loss.dtype))

    def save(self, step: int) -> TrainState:
        """A copy of the state."""
        exp_avg, exp_avg_sq = (dict(zip(self.names, g, strict=True)) for g in (self.exp_avg, self.exp_avg_sq))
        return TrainState(
            student=_arrays(model.canonical_names(self.loss.student)),
            teacher={} if self.loss.teacher is None else _arrays(model.canonical_names(self.loss.teacher)),
            exp_avg=_arrays(exp_avg),
            exp_avg_sq=_arrays(exp_avg_sq),
            step=step,
            loss_scale=(float(self.scale), int(self.good_steps)) if self.scaled else None,
        )


def _tensors(arrays: Mapping[str, NDArray[Any]], dtype: ms.Type) -> dict[str, Tensor]:
    return {name: Tensor(value, dtype) for name, value in arrays.items()}


def _arrays(parameters: Mapping[str, Parameter]) -> dict[str, NDArray[Any]]:
    """Copies as NumPy arrays: `asnumpy` alone gives views that later steps change."""
    return {name: parameter.asnumpy().copy() for name, parameter in parameters.items()}
