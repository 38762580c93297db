"""Base of pre-training and fine-tuning: passes NumPy arrays to the compiled step (`step.py`) and back."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor
from numpy.typing import NDArray
from typing_extensions import override

from pcae_core.config import RunConfig
from pcae_core.contract import Array, Trainer, TrainState
from pcae_core.shapes import check_images
from pcae_mindspore import _compat
from pcae_mindspore.distributed import Group
from pcae_mindspore.step import LossCell, TrainingCell
from pcae_mindspore.updates import adamw_rates


class MindSporeTrainer(Trainer):
    """A model, its moving average and its optimizer, as compiled graphs.

    Args of the constructor:
        loss: class of the differentiated cell.
        trained: names of the trained parameters.
        rate: function from a parameter's name to a factor on its learning rate.
    """

    compiles = True

    def __init__(
        self,
        config: RunConfig,
        device: str,
        state: TrainState,
        loss: Callable[[Any, ms.Type], LossCell],
        trained: Iterable[str],
        rate: Callable[[str], float] = lambda name: 1.0,
    ) -> None:
        _compat.check_precision(device, config.precision)
        self._config = config
        self._dtype = getattr(ms, "float64" if config.precision == "float64" else "float32")
        self._group = Group(device)
        self.rank, self.world_size = self._group.rank, self._group.world_size
        self._cell = TrainingCell(config, loss(config, self._dtype), self._group, trained, rate)
        self._cell.load(state)
        self._step = state.step
        self._accumulate, self._finish = _compat.Patience(self._cell.accumulate), _compat.Patience(self._cell.finish)

    @override
    def state(self) -> TrainState:
        return self._cell.save(self._step)

    @override
    def any_rank(self, flag: bool) -> bool:
        return self._group.any(flag)

    @override
    def mean_over_ranks(self, value: float) -> float:
        return self._group.mean(value)

    @override
    def close(self) -> None:
        self._group.close()

    def _run(
        self, images: Array, given: NDArray[Any], drop_path: Array | None, learning_rate: float, momentum: float
    ) -> tuple[list[tuple[Tensor, ...]], Tensor, Tensor]:
        """One step. Returns the loss cell's outputs for each micro-batch, the gradient norm, and whether all is finite.

        Args:
            images: (B, C, H, W).
            given: further arguments of the loss cell (B, ...).
            drop_path: factors of the residual branches (L, 2, B), or None.

        Raises:
            ShapeError: the images do not have the model's size.
        """
        images = np.asarray(images)
        check_images(images.shape, self._config.model.in_chans, self._config.model.image_size)
        scales = None if drop_path is None else np.asarray(drop_path)[..., None, None]
        dtype = ms.uint8 if images.dtype == np.uint8 else self._dtype
        batches = [
            (
                Tensor(images[part], dtype),
                Tensor(given[part]),
                None if scales is None else self._tensor(scales[:, :, part]),
            )
            for part in np.split(np.arange(len(images)), self._config.accumulation)
        ]
        self._step += 1
        rates = [self._tensor(value) for value in adamw_rates(self._config, learning_rate, self._step)]
        with _compat.graphs():
            outputs = [self._accumulate(*batch, Tensor(i == 0)) for i, batch in enumerate(batches[:-1])]
            loss_before = sum((loss for loss, *_ in outputs), start=self._tensor(0.0))
            *final, norm, finite = self._finish(*batches[-1], loss_before, *rates)
            if self._cell.has_teacher or self._cell.scaled:
                self._cell.update_teacher_and_scale(self._tensor(momentum), finite)
        return [*outputs, tuple(final)], norm, finite

    def _tensor(self, value: float | NDArray[Any]) -> Tensor:
        return Tensor(value, self._dtype)
