"""Fine-tuning with the reference: cross-entropy through the reduced encoder, AdamW with a rate for each layer, EMA."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from pcae_core.config.finetune import FinetuneConfig
from pcae_core.contract import FinetuneOutput, Finetuner, TrainState
from pcae_core.parameters import finetuning_state, layer_scale
from pcae_numpy import backward, model, ops
from pcae_numpy.pretraining import copy_state, normalize, update


class NumpyFinetuner(Finetuner):
    """Fine-tuning with the reference. Each step replaces the arrays of the state and changes none of them."""

    def __init__(self, config: FinetuneConfig, state: TrainState | None = None) -> None:
        self._config = config
        ema = config.ema_momentum is not None
        self._state = copy_state(state or finetuning_state(config.model, config.seed, None, ema))

    @override
    def step(
        self,
        images: NDArray[Any],
        targets: NDArray[Any],
        *,
        learning_rate: float,
        momentum: float,
        drop_path: NDArray[Any] | None = None,
    ) -> FinetuneOutput:
        config, parts, p = self._config, self._config.accumulation, self._state.student
        images, targets = normalize(images, config), np.asarray(targets, dtype=np.float64)
        scales = (
            np.ones((config.model.depth, 2, len(images))) if drop_path is None else np.asarray(drop_path, np.float64)
        )
        losses, total = [], {name: np.zeros_like(value) for name, value in self._state.exp_avg.items()}
        for part in np.split(np.arange(len(images)), parts):
            trace = model.encoder_trace(config.model, p, images[part], config.keep, scales[:, :, part])
            losses.append(ops.soft_cross_entropy(model.classify(config.model, p, trace.tokens), targets[part]))
            grads = backward.classifier_backward(
                config.model, p, images[part], targets[part], trace, scales[:, :, part]
            )
            for name, grad in grads.items():
                total[name] += grad / parts
        loss = np.asarray(np.mean(losses))
        depth, decay = config.model.depth, config.layer_decay
        norm, finite = update(
            self._state, total, loss, config, learning_rate, lambda name: layer_scale(name, depth, decay)
        )
        self._state.teacher = ops.ema_update(self._state.teacher, self._state.student, momentum)
        return FinetuneOutput(loss, norm, finite)

    @override
    def state(self) -> TrainState:
        return copy_state(self._state)
