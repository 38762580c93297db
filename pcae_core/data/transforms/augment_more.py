"""What fine-tuning does to an image after the crop and the flip: RandAugment and random erasing. C channels, H = W."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pcae_core.config import FinetuneConfig
from pcae_core.config.rand_augment import RandAugmentPolicy
from pcae_core.data.transforms.rand_augment import RandAugment

_AREA = (0.02, 1 / 3)
_RATIO = (0.3, 1 / 0.3)
_TRIES = 10

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class AugmentMore:
    """Attributes are the settings; calling it augments an image.

    Attributes:
        rand_augment: None for none.
        random_erasing: probability.
        mean, std: of pixel values in [0, 1], one number a channel.
    """

    rand_augment: RandAugment | None
    random_erasing: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, config: FinetuneConfig) -> Self:
        """As a run wants it."""
        chosen = None if config.rand_augment is None else RandAugment(RandAugmentPolicy.parse(config.rand_augment))
        return cls(chosen, config.random_erasing, *config.loader.normalization(config.model.in_chans))

    def __call__(self, pixels: Pixels, rng: np.random.Generator) -> Pixels:
        """Uint8 (C, H, W) to the same."""
        if self.rand_augment is not None:
            image = Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))
            fill = tuple(round(255 * value) for value in self.mean)
            changed = np.asarray(self.rand_augment(image, fill, rng))
            pixels = changed[None] if changed.ndim == 2 else changed.transpose(2, 0, 1)
        return erase(pixels, self.random_erasing, self.mean, self.std, rng)


def erase(
    image: Pixels,
    probability: float,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    rng: np.random.Generator,
) -> Pixels:
    """Random erasing (Zhong et al. 2020): a rectangle of 2 to 33% of (C, H, W) becomes noise of the images' statistics.

    Args:
        mean, std: of pixel values in [0, 1], one number a channel.
    """
    if rng.random() >= probability:
        return image
    chans, height, width = image.shape
    for _ in range(_TRIES):
        area = rng.uniform(*_AREA) * height * width
        ratio = math.exp(rng.uniform(math.log(_RATIO[0]), math.log(_RATIO[1])))
        h, w = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 1 <= h < height and 1 <= w < width:
            top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
            noise = rng.normal(size=(chans, h, w)) * np.reshape(std, (-1, 1, 1)) + np.reshape(mean, (-1, 1, 1))
            erased = image.copy()
            erased[:, top : top + h, left : left + w] = np.clip(np.rint(255.0 * noise), 0, 255)
            return erased
    return image
