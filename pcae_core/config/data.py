"""How images become batches."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from pcae_core.config.base import Config, Fraction
from pcae_core.errors import ConfigError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class DataConfig(Config):
    """How images become batches.

    Attributes:
        crop_scale: smallest and largest share of the area that a random-resized crop takes.
        crop_ratio: smallest and largest aspect ratio of a crop.
        hflip: flip half of the images left to right.
        mean: per channel, of pixel values in [0, 1]; one number stands for all channels. Default: ImageNet's for three
            channels, 0.5 otherwise.
        std: likewise; ImageNet's, or 0.25.
        workers: processes that load images; 0 loads in the training process.
    """

    crop_scale: tuple[Fraction, Fraction] = (0.2, 1.0)
    crop_ratio: tuple[Annotated[float, Field(gt=0.0)], Annotated[float, Field(gt=0.0)]] = (3 / 4, 4 / 3)
    hflip: bool = True
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    workers: Annotated[int, Field(ge=0)] = 2

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in ("crop_scale", "crop_ratio"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name} must be (smallest, largest), not ({low}, {high})")
        if self.std is not None and min(self.std, default=0.0) <= 0.0:
            raise ValueError("std must be positive")
        return self

    def normalization(self, in_chans: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and std, each with `in_chans` numbers. Raises ConfigError when another number of them is set."""
        mean = self.mean or (IMAGENET_MEAN if in_chans == 3 else (0.5,))
        std = self.std or (IMAGENET_STD if in_chans == 3 else (0.25,))
        if not {len(mean), len(std)} <= {1, in_chans}:
            raise ConfigError(f"mean and std of the pixels need 1 or {in_chans} numbers each")
        return _per_channel(mean, in_chans), _per_channel(std, in_chans)


def _per_channel(values: tuple[float, ...], in_chans: int) -> tuple[float, ...]:
    return values * in_chans if len(values) == 1 else values
