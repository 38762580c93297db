"""Fine-tuning as `Finetuner`."""

from __future__ import annotations

import mindspore as ms
import numpy as np
from typing_extensions import override

from pcae_core.config.finetune import FinetuneConfig
from pcae_core.contract import Array, FinetuneOutput, Finetuner, TrainState
from pcae_core.parameters import finetuned_shapes, finetuning_state, layer_scale
from pcae_mindspore.step import ClassifyLoss
from pcae_mindspore.trainer import MindSporeTrainer


class MindSporeFinetuner(MindSporeTrainer, Finetuner):
    """Fine-tuning with MindSpore."""

    def __init__(self, config: FinetuneConfig, device: str, state: TrainState | None = None) -> None:
        state = state or finetuning_state(config.model, config.seed, None, config.ema_momentum is not None)
        depth, decay = config.model.depth, config.layer_decay
        super().__init__(
            config,
            device,
            state,
            ClassifyLoss,
            finetuned_shapes(config.model),
            lambda name: layer_scale(name, depth, decay),
        )

    @override
    def step(
        self,
        images: Array,
        targets: Array,
        *,
        learning_rate: float,
        momentum: float,
        drop_path: Array | None = None,
    ) -> FinetuneOutput:
        wanted = np.asarray(targets, dtype=np.float64 if self._dtype == ms.float64 else np.float32)
        outputs, norm, finite = self._run(images, wanted, drop_path, learning_rate, momentum)
        losses = [loss for (loss,) in outputs]
        return FinetuneOutput(sum(losses) / len(losses), norm, finite)
