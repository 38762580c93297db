"""Random erasing (Zhong et al. 2020). Letters: C channels, H = W."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pcae_core.data.images import Pixels

_AREA = (0.02, 1 / 3)
_RATIO = (0.3, 1 / 0.3)
_TRIES = 10


@dataclass(frozen=True)
class RandomErasing:
    """Replace a rectangle of 2 to 33% of an image by normal noise.

    Attributes:
        probability: probability of erasing.
        mean, std: mean and standard deviation of the noise, for pixel values in [0, 1], one number per channel.
    """

    probability: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, image: Pixels, rng: np.random.Generator) -> Pixels:
        """Erase a part of an image uint8 (C, H, W), with the given probability."""
        if rng.random() >= self.probability:
            return image
        chans, height, width = image.shape
        for _ in range(_TRIES):
            area = rng.uniform(*_AREA) * height * width
            ratio = math.exp(rng.uniform(math.log(_RATIO[0]), math.log(_RATIO[1])))
            h, w = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 1 <= h < height and 1 <= w < width:
                top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
                noise = rng.normal(size=(chans, h, w)) * _column(self.std) + _column(self.mean)
                erased = image.copy()
                erased[:, top : top + h, left : left + w] = np.clip(np.rint(255.0 * noise), 0, 255)
                return erased
        return image


def _column(values: tuple[float, ...]) -> NDArray[np.float64]:
    return np.reshape(np.asarray(values, np.float64), (-1, 1, 1))
