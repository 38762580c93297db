"""Models in training: one optimizer step of pre-training or fine-tuning.

Letters as in `pcae_core.contract`.
"""

from __future__ import annotations

import abc

from pcae_core.contract.constants import Array
from pcae_core.contract.outputs import FinetuneOutput, PretrainOutput, TrainState


class Trainer(abc.ABC):
    """A model in training; the subclasses say what a step is.

    A step whose loss or gradient is not finite, in any process, is skipped in all of them: parameters and moments stay
    as they are. It counts as a step, and the moving average takes its own as ever.

    Under data parallelism each process holds one; `rank` and `world_size` say which. `compiles` says that the first
    step takes much longer than the others.
    """

    rank: int = 0
    world_size: int = 1
    compiles: bool = False

    @abc.abstractmethod
    def state(self) -> TrainState:
        """A snapshot that later steps leave alone."""

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
            images: this process's part of the global batch (B, C, H, W): uint8, normalised by the backend with
                `config.loader`, or floating and normalised already.
            noise: (B, N), splits the patches.
            learning_rate, momentum: of this step.
            drop_path: factors of the residual branches (L, 2, B), or None.

        Raises:
            ShapeError: the images are not of the model's size, or there are none.
        """


class Finetuner(Trainer):
    """Fine-tuning: a classifier whose encoder drops tokens, as `FinetuneConfig.keep` says."""

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
        """One optimizer step; then, where there is a moving average, one step of it.

        Args:
            images: as in `Pretrainer.step`.
            targets: (B, classes), each row the wanted probabilities.
            learning_rate: of this step, for the layers nearest to the head; `parameters.layer_scale` times it for
                the others. Weight decay follows the same rate.
            momentum: of the moving average; without one it is not used.
            drop_path: factors of the residual branches (L, 2, B), or None.

        Raises:
            ShapeError: the images are not of the model's size, or there are none.
        """
