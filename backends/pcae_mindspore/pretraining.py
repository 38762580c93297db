"""Pre-training as `Pretrainer`."""

from __future__ import annotations

import numpy as np
from mindspore import mint
from typing_extensions import override

from pcae_core.config import PretrainConfig
from pcae_core.contract import Array, Pretrainer, PretrainOutput, TrainState
from pcae_core.parameters import is_trainable, pretraining_state
from pcae_mindspore.step import PretrainLoss
from pcae_mindspore.trainer import MindSporeTrainer


class MindSporePretrainer(MindSporeTrainer, Pretrainer):
    """Pre-training with MindSpore."""

    def __init__(self, config: PretrainConfig, device: str, state: TrainState | None = None) -> None:
        state = state or pretraining_state(config.model, config.seed)
        super().__init__(config, device, state, PretrainLoss, [name for name in state.student if is_trainable(name)])

    @override
    def step(
        self,
        images: Array,
        noise: Array,
        *,
        learning_rate: float,
        momentum: float,
        drop_path: Array | None = None,
    ) -> PretrainOutput:
        # The host sorts the noise in float64, as in every backend: the numbers are there already.
        order = np.argsort(np.asarray(noise), axis=1, kind="stable").astype(np.int32)
        parts = np.split(order, [self._config.model.num_visible], axis=1)
        order = np.concatenate([np.sort(ids, axis=1) for ids in parts], axis=1)
        outputs, norm, finite = self._run(images, order, drop_path, learning_rate, momentum)
        losses, targets, features = zip(*outputs, strict=True)
        return PretrainOutput(sum(losses) / len(losses), norm, finite, mint.cat(targets, 0), mint.cat(features, 0))
