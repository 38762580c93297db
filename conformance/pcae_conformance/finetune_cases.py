"""Cases for fine-tuning: a small random classifier, soft targets, and the state of a run. Letters: B images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pcae_conformance.dtypes import Floats, parameter_dtype
from pcae_conformance.model_cases import Parameters, TrainCase, random_parameters
from pcae_core.config.finetune import FinetuneConfig
from pcae_core.contract import TrainState
from pcae_core.parameters import encoder_shapes, finetuned_shapes


@dataclass(frozen=True)
class FinetuneCase(TrainCase):
    """A fine-tuning step; `keep` is at least 0.5, `classes` at least 2.

    Attributes:
        ema: whether there is a moving average; `momentum` is its momentum at the step.
    """

    classes: int = 3
    keep: float = 0.5
    layer_decay: float = 0.75
    ema: bool = True

    def finetune_config(self, dtype: str) -> FinetuneConfig:
        """Configuration of a run with `dtype` as its precision."""
        settings = {
            "model": self.encoder_config(),
            "keep": self.keep,
            "layer_decay": self.layer_decay,
            "ema_momentum": 0.9 if self.ema else None,
            "mixup": 0.0,
            "cutmix": 0.0,
            "rand_augment": None,
        }
        return FinetuneConfig.model_validate(settings | self.run_settings(dtype))

    def classifier(self, dtype: str) -> Parameters:
        """Parameters of encoder and head."""
        return random_parameters(encoder_shapes(self.config()), np.random.default_rng([self.seed, 1]), dtype)

    def targets(self, step: int) -> Floats:
        """(B, classes), rows that add up to 1."""
        return np.random.default_rng([self.seed, 8, step]).dirichlet(np.ones(self.classes), self.batch)

    def state(self, precision: str) -> TrainState:
        """As in `TrainCase`. Student and teacher share the parameters that fine-tuning does not train."""
        config, dtype = self.config(), parameter_dtype(precision)
        student, trained = self.classifier(dtype), finetuned_shapes(config)
        average = random_parameters(encoder_shapes(config), np.random.default_rng([self.seed, 2]), dtype)
        teacher = {n: v if n in trained else student[n] for n, v in average.items()} if self.ema else {}
        return self.state_of(precision, student, teacher, trained)
