"""The transforms of training images, in order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pcae_core.config import FinetuneConfig, RunConfig
from pcae_core.config.rand_augment import RandAugmentPolicy
from pcae_core.data.images import AnyImage, Pixels
from pcae_core.data.transforms.crop import RandomResizedCrop
from pcae_core.data.transforms.flip import random_horizontal_flip
from pcae_core.data.transforms.mixing import Mixing
from pcae_core.data.transforms.rand_augment import RandAugment
from pcae_core.data.transforms.random_erasing import RandomErasing

Transform = Callable[[Pixels, np.random.Generator], Pixels]
"""Transforms an image uint8 (C, H, W), with a generator for this image and epoch alone. Must be picklable."""


@dataclass(frozen=True)
class TrainingPipeline:
    """Augmentation of training images. A loading process calls it for one image; `mix` then mixes a batch.

    Attributes:
        crop: crop, which takes the image of the source.
        transforms: transforms after the crop, in order.
        mixing: mixing of pairs of images; None for no mixing.
    """

    crop: RandomResizedCrop
    transforms: tuple[Transform, ...]
    mixing: Mixing | None

    def __call__(self, image: AnyImage, rng: np.random.Generator) -> Pixels:
        """Augment an image of `Source.load` to uint8 (C, H, W). The result may have another memory order.

        Args:
            rng: generator for this image and epoch alone; the number of draws depends on the image.
        """
        pixels = self.crop(image, rng)
        for transform in self.transforms:
            pixels = transform(pixels, rng)
        return pixels

    def mix(
        self, images: Pixels, targets: NDArray[np.float32], step: int, first: int
    ) -> tuple[Pixels, NDArray[np.float32]]:
        """Mix images uint8 (b, C, H, W) and targets (b, classes), if the run mixes images.

        Args:
            first: place of the first image in the global batch of `step`.
        """
        return (images, targets) if self.mixing is None else self.mixing(images, targets, step, first)


def training_pipeline(config: RunConfig) -> TrainingPipeline:
    """The pipeline of a run: crop, flip, RandAugment, random erasing and mixing, in this order, as far as they are on.

    Do not change the order of the draws from an image's generator: the same seed would give other images.
    """
    loader = config.loader
    transforms: list[Transform] = []
    if loader.hflip:
        transforms.append(random_horizontal_flip)
    if isinstance(config, FinetuneConfig):
        mean, std = loader.normalization(config.model.in_chans)
        if config.rand_augment is not None:
            transforms.append(RandAugment(RandAugmentPolicy.parse(config.rand_augment), mean))
        if config.random_erasing > 0:
            transforms.append(RandomErasing(config.random_erasing, mean, std))
    crop = RandomResizedCrop(config.model.image_size, loader.crop_scale, loader.crop_ratio)
    mixing = Mixing(config) if isinstance(config, FinetuneConfig) and config.mixes else None
    return TrainingPipeline(crop, tuple(transforms), mixing)
