"""Configuration of fine-tuning, and the recipes that MAE published for its three models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, field_validator, model_validator

from pcae_core.config.base import AnyPath, BelowOne, EncoderName, Fraction, Pooling, Positive, Rate, Share, read_yaml
from pcae_core.config.data import DataConfig
from pcae_core.config.model import ModelConfig
from pcae_core.config.rand_augment import RandAugmentPolicy
from pcae_core.config.run import PretrainConfig, RunConfig
from pcae_core.errors import ConfigError


class FinetuneConfig(RunConfig):
    """A fine-tuning run: classification with token reduction in the encoder. Defaults: MAE's recipe for ViT-B/16.

    Attributes:
        pretrained: run, checkpoint, or encoder folder that `pcae convert` wrote. Its encoder is fine-tuned. It also
            decides the model, and the mean and std of the pixels unless they are set.
        encoder: encoder of that run to fine-tune: student or teacher. The CLS token is trained in the student only.
        from_scratch: start from random initialisation, for comparison, and take only the model from `pretrained`.
        class_names: names of the classes; taken from the data.
        split: split that is scored after each epoch. Default: the first of test and val that has labels.
        ignore_unknown_classes: leave out scored images whose class the train split does not have.
        keep: share of the patch tokens that each stage keeps, 0.5 to 1 (1 minus the paper's r).
        pooling: input of the head: the CLS token ("cls"), or the mean of the surviving patch tokens ("mean").
        layer_decay: factor on the learning rate from each layer to the one below it.
        label_smoothing: share of the target that is spread evenly over the classes.
        mixup: alpha of mixup's Beta distribution; 0 for no mixup.
        cutmix: alpha of CutMix's Beta distribution; 0 for no CutMix.
        mixup_switch_prob: probability of CutMix instead of mixup, if both are on.
        random_erasing: probability that a rectangle of an image becomes noise.
        rand_augment: RandAugment policy in timm's naming, such as "rand-m9-mstd0.5-inc1"; None for no RandAugment.
        ema_momentum: momentum of a moving average of the weights (EMA), which is then evaluated in place of them; None
            for no average.
    """

    pretrained: AnyPath | None = None
    out: AnyPath = Path("runs/finetune")
    encoder: EncoderName = "student"
    from_scratch: bool = False
    class_names: tuple[str, ...] | None = None
    split: str | None = None
    ignore_unknown_classes: bool = False
    keep: Annotated[float, Field(ge=0.5, le=1.0)] = 1.0
    pooling: Pooling = "mean"
    layer_decay: Fraction = 0.65
    label_smoothing: BelowOne = 0.1
    mixup: Rate = 0.8
    cutmix: Rate = 1.0
    mixup_switch_prob: Share = 0.5
    random_erasing: Share = 0.25
    rand_augment: str | None = "rand-m9-mstd0.5-inc1"
    ema_momentum: BelowOne | None = None
    loader: DataConfig = DataConfig(crop_scale=(0.08, 1.0))
    epochs: Positive = 100
    batch_size: Positive = 1024
    base_learning_rate: Rate = 5e-4
    warmup_share: Share = 0.05
    betas: tuple[BelowOne, BelowOne] = (0.9, 0.999)
    drop_path: BelowOne = 0.1

    @field_validator("loader")
    @classmethod
    def _crop(cls, loader: DataConfig) -> DataConfig:
        """Keep the crop scale of fine-tuning when only other loader settings are given."""
        if "crop_scale" in loader.model_fields_set:
            return loader
        return loader.model_copy(update={"crop_scale": cls.model_fields["loader"].default.crop_scale})

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.mixes and self.batch_size % 2:
            raise ValueError(
                f"batch_size {self.batch_size} must be even, or mixup and cutmix 0: they mix pairs of images"
            )
        if self.rand_augment is not None:
            RandAugmentPolicy.parse(self.rand_augment)
            if self.model.in_chans not in (1, 3):
                raise ValueError(f"rand_augment needs images of 1 or 3 channels, not {self.model.in_chans}")
        return self

    @property
    def mixes(self) -> bool:
        """Whether images are mixed in pairs."""
        return self.mixup > 0 or self.cutmix > 0

    def hyper_parameters(self, step: int, total_steps: int) -> tuple[float, float]:
        """Learning rate and EMA momentum of 0-based `step`.

        The momentum is small at first, so that the average forgets early weights. It is 0 without a moving average.
        """
        momentum = min(self.ema_momentum or 0.0, (1 + step) / (10 + step))
        return self.learning_rate(step, total_steps), momentum

    def overlaid(self, path: Path) -> Self:
        """These settings, overridden by those in a YAML file. Raises ConfigError, also for settings of the model."""
        values = read_yaml(path)
        if "model" in values:
            raise ConfigError(
                f"{path} has settings of the model, which is that of the pre-trained run; leave out model"
            )
        return self.from_dict(self.to_dict() | values)

    @classmethod
    def preset(cls, name: str) -> Self:
        """The model with this timm name, and MAE's recipe for it. Raises ConfigError when there is no such recipe."""
        if name not in RECIPES:
            raise ConfigError(f"unknown fine-tuning preset {name!r}; known: {', '.join(RECIPES)}")
        return cls.model_validate({"model": ModelConfig.preset(name)} | RECIPES[name])


# The warm-up is five epochs in every recipe.
_LARGE = {"epochs": 50, "warmup_share": 0.1, "base_learning_rate": 1e-3, "layer_decay": 0.75, "drop_path": 0.2}

RECIPES: dict[str, dict[str, Any]] = {
    "vit_base_patch16_224": {"epochs": 100, "base_learning_rate": 5e-4, "layer_decay": 0.65, "drop_path": 0.1},
    "vit_large_patch16_224": _LARGE,
    "vit_huge_patch14_224": _LARGE | {"drop_path": 0.3},
}
"""Settings in which MAE's recipes differ; `FinetuneConfig` has the others as defaults."""

AnyRunConfig = PretrainConfig | FinetuneConfig
"""Configuration of a run of any kind."""
