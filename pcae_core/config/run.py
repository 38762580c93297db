"""Settings of every training run, and those that pre-training adds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pcae_core import schedule
from pcae_core.config.base import AnyPath, BelowOne, Config, Positive, Rate, Share, is_utf8
from pcae_core.config.data import MAX_CORRUPT, DataConfig
from pcae_core.config.model import ModelConfig
from pcae_core.errors import ConfigError


class RunConfig(Config):
    """Settings of every training run. There is a subclass for each kind of run.

    Attributes:
        data: data set of images, a folder or a file; `docs/training.md` lists the kinds.
        out: run folder. If it already holds a run, that run is continued.
        backend: name of the backend; `pcae backends` lists them.
        device: device name of the backend; "auto" picks the best one.
        precision: dtype of matrix products. Losses and scores are computed in float32 or better. Parameters are
            float32, or float64 with "float64".
        seed: seed of weights, order, crops, masks and drop path; the same seed gives the same run.
        epochs: number of passes over the data; ignored if `steps` is set.
        steps: number of optimizer steps of the whole run.
        batch_size: images per optimizer step, over all processes.
        accumulation: micro-batches per optimizer step and process.
        base_learning_rate: learning rate for 256 images. The peak rate is `base_learning_rate * batch_size / 256`.
        warmup_share: share of the steps in which the learning rate rises linearly.
        weight_decay: weight decay of AdamW, applied to the weights of linear layers.
        betas: betas of AdamW.
        grad_clip: largest global gradient norm; None for no clipping.
        max_corrupt: largest share of the training images that may be unreadable. Other images replace them.
        max_skipped_steps: end the run after this many steps in a row whose loss or gradient is not finite. Such steps
            are skipped.
        drop_path: drop-path rate of the last encoder block; the rates rise linearly from 0.
        checkpoint_every: optimizer steps between checkpoints.
        log_every: optimizer steps between lines of the log.
        compile: use the framework's compiler, if that is optional.
        tensorboard: write TensorBoard event files to the run folder.
        wandb: send the measurements to Weights & Biases.
    """

    model: ModelConfig = ModelConfig()
    data: AnyPath | None = None
    out: AnyPath
    loader: DataConfig = DataConfig()
    backend: str = "torch"
    device: str = "auto"
    precision: Literal["float64", "float32", "bfloat16", "float16"] = "float32"
    compile: bool = False
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    epochs: Positive = 300
    steps: Positive | None = None
    batch_size: Positive = 256
    accumulation: Positive = 1
    base_learning_rate: Rate = 1.5e-4
    warmup_share: Share = 0.1
    weight_decay: Rate = 0.05
    betas: tuple[BelowOne, BelowOne] = (0.9, 0.95)
    grad_clip: Annotated[float, Field(gt=0.0)] | None = None
    max_skipped_steps: Positive = 10
    max_corrupt: Share = MAX_CORRUPT
    drop_path: BelowOne = 0.25
    checkpoint_every: Positive = 1000
    log_every: Positive = 20
    tensorboard: bool = True
    wandb: bool = False

    @model_validator(mode="after")
    def _check_run(self) -> Self:
        if self.batch_size % self.accumulation:
            raise ValueError(f"batch_size {self.batch_size} is not divisible by accumulation {self.accumulation}")
        self.loader.normalization(self.model.in_chans)
        for name, value in self:
            if isinstance(value, Path) and not is_utf8(str(value)):
                raise ValueError(f"the path of {name}, {str(value)!r}, is not UTF-8; runs store paths as UTF-8")
        return self

    @property
    def peak_learning_rate(self) -> float:
        """Learning rate at the end of the warm-up."""
        return self.base_learning_rate * self.batch_size / 256

    def local_batch_size(self, world_size: int) -> int:
        """Images per optimizer step of each of `world_size` processes.

        Raises:
            ConfigError: the batch cannot be divided evenly among the processes, and then among the micro-batches.
        """
        if self.batch_size % world_size:
            raise ConfigError(f"batch_size {self.batch_size} is not divisible by {world_size} processes")
        size = self.batch_size // world_size
        if size % self.accumulation:
            raise ConfigError(
                f"batch_size {self.batch_size} gives each of {world_size} processes {size} images, which accumulation "
                f"{self.accumulation} does not divide"
            )
        return size

    def total_steps(self, num_samples: int) -> int:
        """Optimizer steps of the whole run."""
        return self.steps or max(1, self.epochs * num_samples // self.batch_size)

    def learning_rate(self, step: int, total_steps: int) -> float:
        """Learning rate of 0-based `step`."""
        warmup = round(self.warmup_share * total_steps)
        return schedule.cosine_with_warmup(
            step, base=self.peak_learning_rate, warmup_steps=warmup, total_steps=total_steps
        )


class PretrainConfig(RunConfig):
    """A pre-training run.

    Attributes:
        ema_momentum: EMA momentum of the teacher at the first step; it rises to 1 at the last step.
    """

    out: AnyPath = Path("runs/pretrain")
    ema_momentum: Share = 0.9999

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.model.num_classes:
            raise ValueError("model.num_classes must be 0: pre-training has no labels and no head")
        return self

    def hyper_parameters(self, step: int, total_steps: int) -> tuple[float, float]:
        """Learning rate and EMA momentum of 0-based `step`."""
        momentum = schedule.ema_momentum(step, base=self.ema_momentum, total_steps=total_steps)
        return self.learning_rate(step, total_steps), momentum
