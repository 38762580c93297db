"""Training as `Pretrainer`: from NumPy's arrays to the compiled step (`step.py`) and back."""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Tensor, mint

from pcae_core.config import PretrainConfig
from pcae_core.parameters import initial_state
from pcae_core.protocol import Array, Pretrainer, StepOutput, TrainState
from pcae_mindspore import _compat
from pcae_mindspore.distributed import Group
from pcae_mindspore.step import TrainingCell
from pcae_mindspore.updates import adamw_rates

MicroBatch = tuple[Tensor, Tensor, Tensor, Tensor | None]
"""Images (B, C, H, W), visible ids (B, V), masked ids (B, M), factors (L, 2, B, 1, 1)."""


class MindSporePretrainer(Pretrainer):
    """See `Pretrainer`."""

    compiles = True

    def __init__(self, config: PretrainConfig, device: str, state: TrainState | None = None) -> None:
        _compat.check_precision(device, config.precision)
        dtype = "float64" if config.precision == "float64" else "float32"
        self._config, self._dtype = config, getattr(ms, dtype)
        self._group = Group(device)
        self.rank, self.world_size = self._group.rank, self._group.world_size
        self._cell = TrainingCell(config, self._dtype, self._group)
        state = state or initial_state(config.model, config.seed)
        self._cell.load(state)
        self._step = state.step
        self._accumulate, self._finish = _compat.Patience(self._cell.accumulate), _compat.Patience(self._cell.finish)

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
        *batches, last = self._micro_batches(np.asarray(images), np.asarray(noise), drop_path)
        self._step += 1
        with _compat.graphs():
            outputs = [self._accumulate(*batch, Tensor(i == 0)) for i, batch in enumerate(batches)]
            *final, norm, finite = self._finish(*last, *self._rates(learning_rate))
            self._cell.follow(self._tensor(momentum), finite)
        losses, targets, features = zip(*outputs, final, strict=True)
        return StepOutput(
            sum(losses) / len(losses),
            None if self._config.grad_clip is None else norm,
            mint.cat(targets, 0),
            mint.cat(features, 0),
        )

    def state(self) -> TrainState:
        """See `Pretrainer.state`."""
        return self._cell.save(self._step)

    def any_rank(self, flag: bool) -> bool:
        """See `Pretrainer.any_rank`."""
        return self._group.any(flag)

    def mean_over_ranks(self, value: float) -> float:
        """See `Pretrainer.mean_over_ranks`."""
        return self._group.mean(value)

    def close(self) -> None:
        """See `Pretrainer.close`."""
        self._group.close()

    def _rates(self, learning_rate: float) -> list[Tensor]:
        """The numbers that `TrainingCell.finish` takes."""
        return [self._tensor(value) for value in adamw_rates(self._config, learning_rate, self._step)]

    def _micro_batches(self, images: np.ndarray, noise: np.ndarray, drop_path: Array | None) -> list[MicroBatch]:
        """The parts of a batch.

        The host sorts the noise, in float64 and as every backend does: its numbers are there already.
        """
        order = np.argsort(noise, axis=1, kind="stable").astype(np.int32)
        visible, masked = (np.sort(ids, axis=1) for ids in np.split(order, [self._config.model.num_visible], axis=1))
        scales = None if drop_path is None else np.asarray(drop_path)[..., None, None]
        dtype = ms.uint8 if images.dtype == np.uint8 else self._dtype
        return [
            (
                Tensor(images[part], dtype),
                Tensor(visible[part]),
                Tensor(masked[part]),
                None if scales is None else self._tensor(scales[:, :, part]),
            )
            for part in np.split(np.arange(len(images)), self._config.accumulation)
        ]

    def _tensor(self, value: float | np.ndarray) -> Tensor:
        return Tensor(value, self._dtype)
