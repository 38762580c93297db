"""Trainers: a model in training, and one optimizer step of pre-training or fine-tuning.

Letters as in `pcae_core.contract`.
"""

from __future__ import annotations

import abc

from pcae_core.contract.constants import Array
from pcae_core.contract.outputs import FinetuneOutput, PretrainOutput, TrainState


class Trainer(abc.ABC):
    """A model in training. Its subclasses define a step.

    If the loss or a gradient is not finite in any process, all processes skip the step: parameters and moments do not
    change. A skipped step still counts, and the moving average is still updated.

    Attributes:
        rank, world_size: number of this process, and number of all processes, under data parallelism. Each process
            holds one trainer.
        compiles: whether the first step compiles, and so takes much longer than the others.
    """

    rank: int = 0
    world_size: int = 1
    compiles: bool = False

    @abc.abstractmethod
    def state(self) -> TrainState:
        """A snapshot of the state, which later steps do not change."""

    def any_rank(self, flag: bool) -> bool:
        """Whether `flag` holds in any process."""
        return flag

    def mean_over_ranks(self, value: float) -> float:
        """Mean of `value` over the processes."""
        return value

    def close(self) -> None:
        """Leave the process group, if there is one."""
        return


class Pretrainer(Trainer):
    """Pre-training: forward, backward, AdamW and EMA of one step."""

    @abc.abstractmethod
    def step(
        self,
        images: Array,
        noise: Array,
        *,
        learning_rate: float,
        momentum: float,
        drop_path: Array | None = None,
    ) -> PretrainOutput:
        """One optimizer step, then one EMA step.

        Args:
            images: this process's part of the global batch (B, C, H, W). The backend normalises uint8 images with
                `config.loader`; floating images are normalised already.
            noise: noise that splits the patches (B, N).
            learning_rate, momentum: learning rate and EMA momentum of this step.
            drop_path: factors of the residual branches (L, 2, B), or None.

        Raises:
            ShapeError: the images do not have the model's size, or there are none.
        """


class Finetuner(Trainer):
    """Fine-tuning of a classifier whose encoder drops tokens (`FinetuneConfig.keep`)."""

    @abc.abstractmethod
    def step(
        self,
        images: Array,
        targets: Array,
        *,
        learning_rate: float,
        momentum: float,
        drop_path: Array | None = None,
    ) -> FinetuneOutput:
        """One optimizer step, then one step of the moving average, if there is one.

        Args:
            images: as in `Pretrainer.step`.
            targets: target probabilities (B, classes).
            learning_rate: learning rate of the head at this step. `parameters.layer_scale` multiplies it for the layers
                below. Weight decay uses the same rate.
            momentum: momentum of the moving average; ignored without one.
            drop_path: factors of the residual branches (L, 2, B), or None.

        Raises:
            ShapeError: the images do not have the model's size, or there are none.
        """
