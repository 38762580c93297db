"""The order of everything that training does to an image."""

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
"""Of an image uint8 (C, H, W), with a generator of this image and epoch alone; must be picklable."""


@dataclass(frozen=True)
class TrainingPipeline:
    """Calling it augments one image, in a loading process; `mix` then mixes the images of a batch.

    Attributes:
        crop: takes the image as its source loads it.
        transforms: what follows, in this order.
        mixing: of pairs of images; None for none.
    """

    crop: RandomResizedCrop
    transforms: tuple[Transform, ...]
    mixing: Mixing | None

    def __call__(self, image: AnyImage, rng: np.random.Generator) -> Pixels:
        """An image as `Source.load` returns it to uint8 (C, H, W); the memory may have another order.

        Args:
            rng: a generator of this image and epoch alone; how much is drawn from it depends on the image.
        """
        pixels = self.crop(image, rng)
        for transform in self.transforms:
            pixels = transform(pixels, rng)
        return pixels

    def mix(
        self, images: Pixels, targets: NDArray[np.float32], step: int, first: int
    ) -> tuple[Pixels, NDArray[np.float32]]:
        """Images uint8 (b, C, H, W) and targets (b, classes), mixed where the run mixes images.

        Args:
            first: place of these images in the global batch of `step`.
        """
        return (images, targets) if self.mixing is None else self.mixing(images, targets, step, first)


def training_pipeline(config: RunConfig) -> TrainingPipeline:
    """Crop, flip, RandAugment, random erasing, mixing: those that the run wants, in this order.

    The order of the draws from an image's generator is part of a run: another one gives other images.
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
