"""Settings of image reading, augmentation and normalisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Self

from pydantic import Field, model_validator

from pcae_core.config.base import Config, Fraction
from pcae_core.errors import ConfigError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


MAX_CORRUPT = 0.01
"""Default of the share of a data set that may be unreadable."""


class DataConfig(Config):
    """Settings of image reading, augmentation and normalisation.

    Attributes:
        crop_scale: smallest and largest share of the area that a random-resized crop takes.
        crop_ratio: smallest and largest aspect ratio of a crop.
        hflip: flip half of the images left to right.
        mean: mean of the pixel values in [0, 1], one number per channel or one for all. Default: ImageNet's for three
            channels, 0.5 otherwise.
        std: standard deviation of the pixel values, given like mean. Default: ImageNet's for three channels, 0.25
            otherwise.
        max_pixels: largest number of pixels of an image, according to its header. Larger images count as unreadable.
            Default: Pillow's limit, 89,478,485.
        grey_bits: bits used in 16-bit grey images whose files do not tell, such as 12 for many cameras. Default: 16.
            The setting is stored with the encoder.
        workers: number of processes that load images; 0 loads in the training process.
    """

    crop_scale: tuple[Fraction, Fraction] = (0.2, 1.0)
    crop_ratio: tuple[Annotated[float, Field(gt=0.0)], Annotated[float, Field(gt=0.0)]] = (3 / 4, 4 / 3)
    hflip: bool = True
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    max_pixels: Annotated[int, Field(ge=1)] | None = None
    grey_bits: Annotated[int, Field(ge=8, le=16)] | None = None
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

    @property
    def reading(self) -> Reading:
        """The settings of image reading alone."""
        return Reading(self.max_pixels, self.grey_bits)

    def normalization(self, in_chans: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and std, with `in_chans` numbers each. Raises ConfigError unless 1 or `in_chans` numbers are set."""
        mean = self.mean or (IMAGENET_MEAN if in_chans == 3 else (0.5,))
        std = self.std or (IMAGENET_STD if in_chans == 3 else (0.25,))
        if not {len(mean), len(std)} <= {1, in_chans}:
            numbers = "1 number" if in_chans == 1 else f"1 or {in_chans} numbers"
            raise ConfigError(f"mean and std of the pixels need {numbers} each, not {len(mean)} and {len(std)}")
        return _per_channel(mean, in_chans), _per_channel(std, in_chans)


@dataclass(frozen=True)
class Reading:
    """Settings of image reading. None means: as in training.

    Attributes:
        max_pixels: largest number of pixels of an image, according to its header. Larger images count as unreadable.
            Default: as in training.
        grey_bits: bits used in 16-bit grey images whose files do not tell, such as 12 for many cameras. Default: as in
            training.
    """

    max_pixels: int | None = None
    grey_bits: int | None = None

    def over(self, loader: DataConfig) -> DataConfig:
        """`loader` with the settings that are not None here. Raises ConfigError for values out of range."""
        chosen = {name: value for name, value in vars(self).items() if value is not None}
        return DataConfig.from_dict(loader.to_dict() | chosen)


USUAL = Reading()


def _per_channel(values: tuple[float, ...], in_chans: int) -> tuple[float, ...]:
    return values * in_chans if len(values) == 1 else values
